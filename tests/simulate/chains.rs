//! Blocks: those that are generated, those that come from a file, and files that cannot be used.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, Network, OutPoint, TxOut};
use debshrew::simulate::{Command, Options, Origin, Pace, SimulateError, Simulator};
use serde_json::json;

use super::http::call;

/// The blocks up to the tip, each with its hash as it is shown.
async fn blocks(simulator: &Simulator) -> Vec<(String, Vec<u8>)> {
    let url = simulator.url();
    let tip: u32 = call(&url, "metashrew_height", json!([])).await.parse().unwrap();
    let mut blocks = Vec::new();
    for height in 0..=tip {
        let hash = call(&url, "metashrew_getblockhash", json!([height])).await;
        let block = call(&url, "metashrew_view", json!(["getblock", "", height])).await;
        blocks.push((hash[2..].to_owned(), hex::decode(&block[2..]).unwrap()));
    }
    blocks
}

async fn generated(seed: u64, height: u32, transactions: u32) -> Simulator {
    let origin = Origin::Generated { seed, height, transactions };
    Simulator::start(Options { origin, pace: Pace::Stepped, ..Options::default() }).await.unwrap()
}

async fn reorg(simulator: &Simulator, depth: u32, length: u32, branch: &str) {
    let command = Command::Reorg { depth, length: Some(length), branch: Some(branch.into()) };
    simulator.control(command).await.unwrap();
    let until = Some(debshrew::simulate::Phase::Following);
    simulator.control(Command::Step { count: 1, until }).await.unwrap();
}

#[tokio::test]
async fn generated_blocks_are_as_bitcoin_wants_them_but_for_signatures_and_maturity() {
    let simulator = generated(7, 60, 12).await;
    let blocks = blocks(&simulator).await;
    assert_eq!(blocks[0].1, serialize(&bitcoin::constants::genesis_block(Network::Regtest)));
    let mut unspent: HashMap<OutPoint, TxOut> = HashMap::new();
    let (mut scripts, mut outputs, mut spends) = (HashSet::new(), 0, 0);
    for (height, (hash, bytes)) in blocks.iter().enumerate().skip(1) {
        let block: Block = deserialize(bytes).unwrap();
        assert_eq!(block.block_hash().to_string(), *hash);
        assert_eq!(block.header.prev_blockhash.to_string(), blocks[height - 1].0);
        assert!(block.check_merkle_root() && block.check_witness_commitment(), "{height}");
        block.header.validate_pow(block.header.target()).unwrap();
        match height {
            // Written as an opcode, as Bitcoin Core does it.
            ..=16 => assert_eq!(block.txdata[0].input[0].script_sig.as_bytes()[0], 0x50 + height as u8),
            _ => assert_eq!(block.bip34_block_height(), Ok(height as u64)),
        }
        assert_eq!(block.txdata.len(), if height == 1 { 1 } else { 12 });
        let mut fees = 0;
        for transaction in &block.txdata {
            let value = |outputs: &[TxOut]| outputs.iter().map(|output| output.value.to_sat()).sum::<u64>();
            let paid = value(&transaction.output);
            if !transaction.is_coinbase() {
                let spent: Vec<TxOut> = transaction
                    .input
                    .iter()
                    .map(|input| unspent.remove(&input.previous_output).expect("an output that is unspent"))
                    .collect();
                fees += value(&spent).checked_sub(paid).expect("no more than was spent");
                spends += spent.len();
            }
            for (vout, output) in (0..).zip(&transaction.output) {
                outputs += 1;
                scripts.insert(output.script_pubkey.clone());
                unspent.insert(OutPoint { txid: transaction.compute_txid(), vout }, output.clone());
            }
        }
        let reward: u64 = block.txdata[0].output.iter().map(|output| output.value.to_sat()).sum();
        assert_eq!(reward, 5_000_000_000 + fees, "{height}");
    }
    let paying = scripts.iter().filter(|script| !script.is_op_return()).count();
    assert!(spends > 600 && paying <= 120 && outputs > 1_000, "{spends} {paying} {outputs}");
}

#[tokio::test]
async fn a_block_follows_from_seed_branch_and_parent_alone() {
    let first = generated(7, 40, 5).await;
    let second = generated(7, 25, 5).await;
    for _ in 0..15 {
        second.control(Command::Mine { blocks: 1 }).await.unwrap();
    }
    let expected = blocks(&first).await;
    assert_eq!(blocks(&second).await, expected);
    assert_ne!(blocks(&generated(8, 1, 5).await).await[1], expected[1]);

    reorg(&first, 20, 21, "elsewhere").await;
    let elsewhere = blocks(&first).await;
    assert_eq!(elsewhere[..=20], expected[..=20]);
    assert!(elsewhere[21..].iter().zip(&expected[21..]).all(|(new, old)| new != old));
    // Not in their coinbases only.
    let [new, old] = [&elsewhere, &expected].map(|blocks| deserialize::<Block>(&blocks[21].1).unwrap());
    assert!(new.txdata[1..].iter().all(|transaction| !old.txdata.contains(transaction)));
    reorg(&second, 20, 21, "elsewhere").await;
    assert_eq!(blocks(&second).await, elsewhere);
    // What was mined is of the branch that the tip is of.
    first.control(Command::Mine { blocks: 2 }).await.unwrap();
    assert_eq!(first.status().node.branch, "elsewhere");

    reorg(&first, 23, 23, "main").await;
    assert_eq!(blocks(&first).await[..=40], expected);
}

#[tokio::test]
async fn a_file_s_blocks_are_served_and_come_back_after_a_reorganisation() {
    let expected = blocks(&generated(9, 30, 4).await).await;
    let mut records = records(&expected[1..]);
    records.reverse();
    // The same block twice, one beside the chain, and room at the end, as Core leaves them.
    let stale = generated(9, 20, 4).await;
    reorg(&stale, 1, 1, "stale").await;
    records.push(record(&blocks(&stale).await[20].1));
    records.push(record(&expected[1].1));
    // Of two that are as high the first counts.
    let late = generated(9, 30, 4).await;
    reorg(&late, 1, 1, "late").await;
    records.push(record(&blocks(&late).await[30].1));
    records.push(vec![0; 100]);
    let file = file(&records.concat());
    let origin = Origin::File { path: file.path().into(), height: None };
    let options = Options { origin, pace: Pace::Stepped, ..Options::default() };
    let simulator = Simulator::start(options.clone()).await.unwrap();
    assert_eq!(blocks(&simulator).await, expected);

    reorg(&simulator, 20, 20, "away").await;
    assert!(blocks(&simulator).await[11..].iter().zip(&expected[11..]).all(|(new, old)| new != old));
    reorg(&simulator, 20, 20, "main").await;
    assert_eq!(blocks(&simulator).await, expected);
    simulator.control(Command::Mine { blocks: 3 }).await.unwrap();
    let beyond = blocks(&simulator).await;
    assert_eq!((beyond.len(), &beyond[..31]), (34, &expected[..]));
    let last: Block = deserialize(&beyond[33].1).unwrap();
    assert_eq!(last.header.prev_blockhash.to_string(), beyond[32].0);
    // The file's blocks do not follow on those of another branch.
    reorg(&simulator, 20, 20, "again").await;
    reorg(&simulator, 10, 10, "main").await;
    let mixed = blocks(&simulator).await;
    for height in 1..mixed.len() {
        let block: Block = deserialize(&mixed[height].1).unwrap();
        assert_eq!(block.header.prev_blockhash.to_string(), mixed[height - 1].0, "{height}");
    }

    let origin = Origin::File { path: file.path().into(), height: Some(10) };
    let simulator = Simulator::start(Options { origin, ..options }).await.unwrap();
    assert_eq!(blocks(&simulator).await, expected[..=10]);
    simulator.control(Command::Mine { blocks: 5 }).await.unwrap();
    assert_eq!(blocks(&simulator).await, expected[..=15]);
}

#[tokio::test]
async fn a_file_begins_above_a_genesis_block_or_with_it() {
    let expected = blocks(&generated(9, 3, 4).await).await;
    let whole = file(&records(&expected).concat());
    let origin = Origin::File { path: whole.path().into(), height: None };
    let simulator = Simulator::start(Options { origin, ..Options::default() }).await.unwrap();
    assert_eq!(blocks(&simulator).await, expected);
    // Of a genesis block that nobody knows there is the hash.
    let part = file(&records(&expected[2..]).concat());
    let origin = Origin::File { path: part.path().into(), height: None };
    let simulator = Simulator::start(Options { origin, ..Options::default() }).await.unwrap();
    let found = blocks(&simulator).await;
    assert_eq!(found[0], (expected[1].0.clone(), Vec::new()));
    assert_eq!(found[1..], expected[2..]);
    // Mainnet's first block, as everybody has it.
    let first = "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe680e1f\
                 ee14677ba1a3c3540bf7b1cdb606e857233e0e61bc6649ffff001d01e3629901010000000100000000000000000000000000\
                 00000000000000000000000000000000000000ffffffff0704ffff001d0104ffffffff0100f2052a0100000043410496b538\
                 e853519c726a2c91e61ec11600ae1390813a627c66fb8be7947be63c52da7589379515d4e0a604f8141781e62294721166bf\
                 621e73a82cbf2342c858eeac00000000";
    let first = hex::decode(first).unwrap();
    let bytes = [&[0xf9, 0xbe, 0xb4, 0xd9, 215, 0, 0, 0][..], &first].concat();
    let mainnet = file(&bytes);
    let origin = Origin::File { path: mainnet.path().into(), height: None };
    let simulator = Simulator::start(Options { origin, ..Options::default() }).await.unwrap();
    let found = blocks(&simulator).await;
    assert_eq!(found[0].1, serialize(&bitcoin::constants::genesis_block(Network::Bitcoin)));
    assert_eq!(found[1].1, first);
    let tracker = call(&simulator.url(), "metashrew_view", json!(["blocktracker", "", 1])).await;
    assert_eq!(tracker, "0x6f48");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_with_the_place() {
    let chain = blocks(&generated(9, 4, 3).await).await;
    for (bytes, expected) in broken(&chain) {
        let file = file(&bytes);
        let origin = Origin::File { path: file.path().into(), height: None };
        let error = Simulator::start(Options { origin, ..Options::default() }).await.err().expect(&expected);
        let SimulateError::Blocks { source, .. } = &error else { panic!("{expected}: {error}") };
        assert!(source.to_string().starts_with(&expected), "{source}; expected {expected}");
        assert_eq!(error.to_string(), format!("cannot use the blocks in `{}`", file.path().display()));
    }
    let origin = Origin::File { path: PathBuf::from("nowhere/blk.dat"), height: None };
    let error = Simulator::start(Options { origin, ..Options::default() }).await.err().unwrap();
    assert_eq!(error.to_string(), "cannot read the blocks in `nowhere/blk.dat`");
}

/// Files that cannot be used, and how the complaint about each begins.
fn broken(chain: &[(String, Vec<u8>)]) -> Vec<(Vec<u8>, String)> {
    let good = records(&chain[1..]);
    let whole = good.concat();
    let (second, end) = (good[0].len(), whole.len());
    let at = |what: &str| format!("at offset {second}: {what}");
    let changed = |offset: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[second + offset..second + offset + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let key = [0x5a, 0x11, 0xc3, 0x94, 0x07, 0xee, 0x21, 0x80];
    let obfuscated = whole.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let announced = good[1].len() - 8;
    vec![
        (Vec::new(), "it holds no blocks".into()),
        (vec![0; 50], "it holds no blocks".into()),
        (
            b"# blocks\n1 2".to_vec(),
            "at offset 0: `2320626c` is not the beginning of a block; allowed are".into(),
        ),
        ([&whole[..], b"end"].concat(), format!("at offset {end}: `656e64` is not the beginning of a block")),
        (changed(0, &[1, 2, 3, 4]), at("`01020304` is not the beginning of a block")),
        (
            changed(0, &[0xf9, 0xbe, 0xb4, 0xd9]),
            at("this block is of another network (`f9beb4d9`) than the first (`fabfb5da`)"),
        ),
        (obfuscated, "at offset 0: it is obfuscated".into()),
        (
            whole[..second + 50].to_vec(),
            at(&format!("the file ends within a block; {announced} bytes were announced, 42 are there")),
        ),
        (whole[..second + 6].to_vec(), at("the file ends within a block")),
        (changed(4, &[0xff; 4]), at("a block of 4294967295 bytes is announced")),
        (changed(4, &[0; 4]), at("a block of 0 bytes is announced")),
        // How many transactions there are.
        (changed(8 + 80, &[0xff; 9]), at("this is no block")),
        // What the first transaction spends.
        (
            changed(8 + 80 + 1 + 4 + 2 + 1, &[0x99]),
            at("the transactions of this block are not those that its header commits to"),
        ),
        (
            [good[0].clone(), good[2].clone()].concat(),
            at(&format!("this block does not link: its parent {} is not in the file", chain[2].0)),
        ),
    ]
}

/// In Bitcoin Core's block file format, for regtest.
fn record(block: &[u8]) -> Vec<u8> {
    [&[0xfa, 0xbf, 0xb5, 0xda][..], &(block.len() as u32).to_le_bytes(), block].concat()
}

fn records(blocks: &[(String, Vec<u8>)]) -> Vec<Vec<u8>> {
    blocks.iter().map(|(_, block)| record(block)).collect()
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}
