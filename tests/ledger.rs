//! The transforms of this repository, as built for WebAssembly, on a real block of Bitcoin's main chain: what
//! they say of it is counted a second time from the block itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Block, OutPoint};
use bitcoin_test_data::blocks::mainnet_702861;
use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::change::{Change, Operation, Value};
use debshrew::config::{Limits, UnknownImports};
use debshrew::runtime::{Answer, Output, Request, RuntimeError, Step, Transform};
use debshrew::simulate::{Command, Options, Origin};

use crate::support::{COUNTER, Scene, quick};

/// The transforms are built for both versions of the binary interface.
#[derive(Clone, Copy, Debug)]
enum Version {
    One,
    Two,
}

fn transform(name: &str, version: Version) -> Transform {
    let folder = match version {
        Version::One => "target/version-1",
        Version::Two => "target",
    };
    let root = env!("CARGO_MANIFEST_DIR");
    let path = format!("{root}/transforms/{folder}/wasm32-unknown-unknown/release/{name}.wasm");
    let wasm =
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}; run `make transforms` first"));
    Transform::compile(name, &wasm, &Limits::default(), UnknownImports::Refuse).unwrap()
}

/// Runs block 702,861 with an empty state; `getblock` answers this.
fn run(transform: &Transform, block: &[u8]) -> Result<Output, RuntimeError> {
    let header: bitcoin::block::Header = bitcoin::consensus::deserialize(&mainnet_702861()[..80]).unwrap();
    let hash: BlockHash = format!("0x{}", header.block_hash()).parse().unwrap();
    let mut step = transform.begin(BlockRef { height: Height::new(702_861).unwrap(), hash })?;
    loop {
        match step {
            Step::Done(output) => return Ok(output),
            Step::Ask(Request::View { name, input }, waiting) => {
                assert_eq!((name.as_str(), input.as_slice()), ("getblock", &b""[..]));
                step = waiting.resume(Answer::View(Ok(block.to_vec())))?;
            }
            Step::Ask(Request::State { .. }, waiting) => step = waiting.resume(Answer::State(None))?,
        }
    }
}

fn column<'a>(change: &'a Change, name: &str) -> &'a Value {
    let found = change.columns().find(|(column, _)| *column == name);
    found.unwrap_or_else(|| panic!("{change:?} has no `{name}`")).1
}

fn number(value: &Value) -> i128 {
    match value {
        Value::Integer(integer) => (*integer).into(),
        Value::Number(digits) => digits.parse().unwrap(),
        other => panic!("{other:?} is no number"),
    }
}

/// `bytea` as version 1 writes it.
fn digits(value: &Value) -> String {
    match value {
        Value::Text(digits) => digits.to_string(),
        Value::Bytes(bytes) => format!("\\x{}", hex::encode(bytes)),
        other => panic!("{other:?} is no hash"),
    }
}

fn rows<'a>(output: &'a Output, table: &str) -> Vec<&'a Change> {
    output.changes.iter().filter(|change| change.table() == table).collect()
}

/// What a block does to an empty ledger, told by the `bitcoin` crate.
struct Expected {
    inputs: usize,
    outputs: usize,
    spent_within: HashSet<OutPoint>,
    /// Unspent value by script hash, where it is positive.
    balances: BTreeMap<String, i128>,
    /// Outputs that a later block may spend.
    spendable: usize,
}

fn expected(block: &Block) -> Expected {
    let spends: HashSet<OutPoint> =
        block.txdata.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
    let mut expected = Expected {
        inputs: block.txdata.iter().map(|tx| tx.input.len()).sum(),
        outputs: 0,
        spent_within: HashSet::new(),
        balances: BTreeMap::new(),
        spendable: 0,
    };
    for tx in &block.txdata {
        let txid = tx.compute_txid();
        for (vout, output) in tx.output.iter().enumerate() {
            expected.outputs += 1;
            let outpoint = OutPoint { txid, vout: vout as u32 };
            if spends.contains(&outpoint) {
                expected.spent_within.insert(outpoint);
                continue;
            }
            let mut hash = sha256::Hash::hash(output.script_pubkey.as_bytes()).to_byte_array();
            hash.reverse();
            *expected.balances.entry(format!("\\x{}", hex::encode(hash))).or_default() +=
                i128::from(output.value.to_sat());
            if output.value.to_sat() > 0 || !output.script_pubkey.is_op_return() {
                expected.spendable += 1;
            }
        }
    }
    expected.balances.retain(|_, balance| *balance > 0);
    expected
}

#[test]
fn the_ledger_of_a_real_block_is_what_the_block_says() {
    let block: Block = bitcoin::consensus::deserialize(mainnet_702861()).unwrap();
    let expected = expected(&block);
    for version in [Version::One, Version::Two] {
        let ledger = transform("ledger", version);
        let start = std::time::Instant::now();
        let output = run(&ledger, mainnet_702861()).unwrap();
        println!(
            "version {version:?}: {:?}, {} units of fuel, {} changes",
            start.elapsed(),
            output.fuel_used,
            output.changes.len()
        );
        is_the_ledger_of(&output, &block, &expected);
    }
}

fn is_the_ledger_of(output: &Output, block: &Block, expected: &Expected) {
    assert!(output.changes.iter().all(|change| change.operation == Operation::Upsert));
    let count = |table: &str| rows(output, table).len();
    assert_eq!(count("blocks"), 1);
    assert_eq!(count("transactions"), block.txdata.len());
    assert_eq!(count("inputs"), expected.inputs);
    assert_eq!(count("outputs"), expected.outputs);
    assert_eq!(count("balances"), expected.balances.len());
    assert_eq!(
        output.changes.len(),
        1 + block.txdata.len() + expected.inputs + expected.outputs + expected.balances.len()
    );

    let spent: Vec<_> =
        rows(output, "outputs").into_iter().filter(|row| *column(row, "spent_by") != Value::Null).collect();
    assert!(spent.len() > 100, "the block is a poor example");
    assert_eq!(spent.len(), expected.spent_within.len());
    let known = rows(output, "inputs").into_iter().filter(|row| *column(row, "value") != Value::Null);
    assert_eq!(known.count(), spent.len());
    let balances: BTreeMap<String, i128> = rows(output, "balances")
        .into_iter()
        .map(|row| (digits(column(row, "script_hash")), number(column(row, "balance"))))
        .collect();
    assert_eq!(balances, expected.balances);
    assert_eq!(output.state.len(), expected.spendable + expected.balances.len());
    assert!(output.state.iter().all(|(_, value)| value.is_some()));
}

/// What JSON has for the kinds of value that it does not have.
fn plain(change: &Change) -> Change {
    let mut plain = change.clone();
    for value in &mut plain.values {
        match value {
            Value::Integer(integer) => *value = Value::Number(integer.to_string().into()),
            Value::Bytes(_) => *value = Value::Text(digits(value).into()),
            _ => {}
        }
    }
    plain
}

#[test]
fn both_versions_do_the_same_with_a_real_block() {
    for name in ["blocks", "ledger"] {
        let first = run(&transform(name, Version::One), mainnet_702861()).unwrap();
        let second = run(&transform(name, Version::Two), mainnet_702861()).unwrap();
        assert_eq!(first.state, second.state);
        assert_eq!(first.changes.len(), second.changes.len());
        for (first, second) in first.changes.iter().zip(&second.changes) {
            assert_eq!(*first, plain(second));
        }
    }
}

#[test]
fn a_row_per_block_has_its_hash_and_count() {
    let block: Block = bitcoin::consensus::deserialize(mainnet_702861()).unwrap();
    for version in [Version::One, Version::Two] {
        let output = run(&transform("blocks", version), mainnet_702861()).unwrap();
        let [row] = &output.changes[..] else { panic!("{:?}", output.changes) };
        assert_eq!((row.table(), row.operation), ("blocks", Operation::Upsert));
        let values: HashMap<&str, &Value> = row.columns().collect();
        assert_eq!(number(values["height"]), 702_861);
        assert_eq!(digits(values["hash"]), format!("\\x{}", block.block_hash()));
        assert_eq!(digits(values["previous_hash"]), format!("\\x{}", block.header.prev_blockhash));
        assert_eq!(number(values["transactions"]), block.txdata.len() as i128);
        assert_eq!(number(values["size"]), mainnet_702861().len() as i128);
        assert!(output.state.is_empty());
    }
}

#[test]
fn what_the_view_does_not_answer_is_said() {
    for (name, version) in [("blocks", Version::One), ("blocks", Version::Two), ("ledger", Version::Two)] {
        let transform = transform(name, version);
        let error = |block: &[u8]| run(&transform, block).unwrap_err().to_string();
        assert_eq!(
            error(b""),
            "it returned -1 (failed); its last words: view `getblock` answered nothing at height 702861"
        );
        let cut = error(&mainnet_702861()[..1_000_000]);
        assert!(cut.contains("view `getblock` gave no block at height 702861: "), "{cut}");
    }
}

/// The ledger alone, from block 1 of a source that serves these blocks.
async fn ledger_over(name: &str, blocks: PathBuf) -> Scene {
    let origin = Origin::File { path: blocks, height: None };
    let mut scene = Scene::new(name, COUNTER, Options { origin, ..quick(0) }).await;
    let pipelines = scene.toml.find("[pipelines.").unwrap();
    scene.toml.truncate(pipelines);
    scene.add_built("ledger", "ledger");
    scene.toml.push_str("start_height = 1\n");
    scene.succeed(&["run", "--migrate", "--once"]).await;
    scene
}

async fn figures(scene: &Scene) -> Vec<String> {
    let sql = "select array[(select count(*) from ledger.blocks), (select count(*) from ledger.transactions), \
               (select count(*) from ledger.inputs), (select count(*) from ledger.outputs), \
               (select count(*) from ledger.outputs where spent_by is not null), \
               (select sum(value) from ledger.outputs where spent_by is null), \
               (select sum(balance) from ledger.balances)]::text[]";
    scene.client.query_one(sql, &[]).await.unwrap().get(0)
}

/// What Bitcoin Core keeps a block as in its files.
fn block_file(folder: &std::path::Path, block: &[u8]) -> PathBuf {
    let path = folder.join("blk00000.dat");
    let length = u32::try_from(block.len()).unwrap().to_le_bytes();
    std::fs::write(&path, [&[0xf9, 0xbe, 0xb4, 0xd9], &length[..], block].concat()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_block_is_in_the_tables_row_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let scene = ledger_over("ledger_real", block_file(folder.path(), mainnet_702861())).await;
    let block: Block = bitcoin::consensus::deserialize(mainnet_702861()).unwrap();
    let expected = expected(&block);
    let unspent: i128 = expected.balances.values().sum();
    let counts = [1, block.txdata.len(), expected.inputs, expected.outputs, expected.spent_within.len()];
    let mut wanted: Vec<String> = counts.iter().map(ToString::to_string).collect();
    wanted.extend([unspent.to_string(), unspent.to_string()]);
    assert_eq!(figures(&scene).await, wanted);
}

/// The first 255 blocks of the main chain, where somebody has put them beside the project.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_blocks_of_the_main_chain_are_as_they_were_after_a_reorganisation_and_back() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mainnet-blocks-1-255.dat");
    if !path.exists() {
        return println!("not run: there is no {}", path.display());
    }
    let scene = ledger_over("ledger_mainnet", path).await;
    let wanted = ["255", "262", "262", "267", "7", "1275000000000", "1275000000000"];
    assert_eq!(figures(&scene).await, wanted);
    let before = scene.digests("ledger").await;
    scene.reorganise(20, 20).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    assert_ne!(scene.digests("ledger").await, before);
    let back = Command::Reorg { depth: 20, length: Some(20), branch: Some("main".into()) };
    scene.source.control(back).await.unwrap();
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    assert_eq!(figures(&scene).await, wanted);
    assert_eq!(scene.digests("ledger").await, before);
}
