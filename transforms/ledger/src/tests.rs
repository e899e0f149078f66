//! Chains of small blocks made by hand. After each block the tables are checked against one another, as the
//! README's queries do.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness,
};
use debshrew_sdk::testing::{Change, Host, Operation, Tables};
use serde_json::{Map, Value};

use super::Ledger;

type Row = Map<String, Value>;

const KEYS: &[(&str, &[&str])] = &[
    ("blocks", &["height"]),
    ("transactions", &["txid"]),
    ("inputs", &["txid", "position"]),
    ("outputs", &["txid", "position"]),
    ("balances", &["script_hash"]),
];

struct Chain {
    host: Host,
    tables: Tables,
    height: u32,
}

impl Chain {
    fn new() -> Chain {
        Chain { host: Host::new(), tables: Tables::new(KEYS), height: 0 }
    }

    /// Processes a block of these transactions, and gives what was emitted.
    fn add(&mut self, transactions: &[&Transaction]) -> Vec<Change> {
        let changes = self.process(transactions).unwrap_or_else(|error| panic!("{error}"));
        self.height += 1;
        self.tables.apply(&changes).unwrap();
        assert_each_row_changes_once(&changes);
        self.check();
        changes
    }

    fn process(&mut self, transactions: &[&Transaction]) -> Result<Vec<Change>, debshrew_sdk::Error> {
        self.host.answer("getblock", b"", &block(transactions));
        self.host.run::<Ledger>(self.height, [7; 32])
    }

    /// The failure of a block that cannot be processed; it leaves no trace.
    fn refuses(&mut self, transactions: &[&Transaction]) -> String {
        let before = self.host.state.clone();
        let error = self.process(transactions).unwrap_err().to_string();
        assert_eq!(self.host.state, before);
        error
    }

    fn count(&self, table: &str) -> usize {
        self.tables.rows(table).len()
    }

    fn output(&self, outpoint: OutPoint) -> Row {
        let mut rows = self.tables.rows("outputs").into_iter().filter(|row| {
            row["txid"] == bytea(&outpoint.txid.to_string()) && row["position"] == outpoint.vout
        });
        rows.next().unwrap_or_else(|| panic!("there is no {outpoint}")).clone()
    }

    fn balance(&self, script: &ScriptBuf) -> i64 {
        let script = bytea(&script.to_hex_string());
        let rows = self.tables.rows("balances");
        let row = rows.iter().find(|row| row["script"] == script);
        row.map_or(0, |row| row["balance"].as_i64().unwrap())
    }

    /// The balances are what the outputs say, and the state holds what a later block can ask for, and no more.
    fn check(&self) {
        let mut sums: BTreeMap<(String, String), i64> = BTreeMap::new();
        let mut can_be_spent = 0;
        for row in self.tables.rows("outputs") {
            assert_eq!(row["spent_by"].is_null(), row["spent_height"].is_null(), "{row:?}");
            if row["spent_height"].is_null() {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                let value = row["value"].as_i64().unwrap();
                *sums.entry((text("script_hash"), text("script"))).or_default() += value;
                can_be_spent += usize::from(value > 0 || !text("script").starts_with("\\x6a"));
            }
        }
        sums.retain(|_, sum| *sum > 0);
        let balances: BTreeMap<(String, String), i64> = self
            .tables
            .rows("balances")
            .into_iter()
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                ((text("script_hash"), text("script")), row["balance"].as_i64().unwrap())
            })
            .collect();
        assert_eq!(balances, sums, "at height {}", self.height);
        let keys = |kind: u8| self.host.state.keys().filter(|key| key[0] == kind).count();
        assert_eq!((keys(b'o'), keys(b'b')), (can_be_spent, balances.len()), "at height {}", self.height);
    }
}

fn assert_each_row_changes_once(changes: &[Change]) {
    let mut seen = BTreeSet::new();
    for change in changes {
        let (_, key) = KEYS.iter().find(|(table, _)| *table == change.table).unwrap();
        let key: Vec<String> = key.iter().map(|column| change.columns[*column].to_string()).collect();
        assert!(seen.insert((change.table.clone(), key)), "twice: {change:?}");
    }
}

fn block(transactions: &[&Transaction]) -> Vec<u8> {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_231_006_505,
        bits: CompactTarget::from_consensus(0x1d00_ffff),
        nonce: u32::MAX,
    };
    let txdata = transactions.iter().map(|transaction| (*transaction).clone()).collect();
    bitcoin::consensus::serialize(&bitcoin::Block { header, txdata })
}

fn bytea(hex: &str) -> String {
    format!("\\x{hex}")
}

fn script(name: &str) -> ScriptBuf {
    ScriptBuf::from_bytes(name.as_bytes().to_vec())
}

fn transaction(spends: &[OutPoint], outputs: &[(u64, &ScriptBuf)]) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output = |(value, script): &(u64, &ScriptBuf)| TxOut {
        value: Amount::from_sat(*value),
        script_pubkey: (*script).clone(),
    };
    Transaction {
        version: bitcoin::transaction::Version::ONE,
        lock_time: LockTime::ZERO,
        input: spends.iter().map(input).collect(),
        output: outputs.iter().map(output).collect(),
    }
}

/// `tag` tells coinbases apart that pay alike.
fn coinbase(tag: u32, outputs: &[(u64, &ScriptBuf)]) -> Transaction {
    let mut coinbase = transaction(&[OutPoint::null()], outputs);
    coinbase.input[0].script_sig = ScriptBuf::from_bytes(tag.to_le_bytes().to_vec());
    coinbase
}

fn out(transaction: &Transaction, position: u32) -> OutPoint {
    OutPoint { txid: transaction.compute_txid(), vout: position }
}

fn of<'a>(changes: &'a [Change], table: &str) -> Vec<&'a Change> {
    changes.iter().filter(|change| change.table == table).collect()
}

#[test]
fn a_block_its_transactions_and_their_parts_are_rows() {
    let (mut chain, a, b) = (Chain::new(), script("a"), script("b"));
    let mint = coinbase(0, &[(50, &a)]);
    chain.add(&[&mint]);
    let mut pay = transaction(&[out(&mint, 0)], &[(30, &b), (15, &a)]);
    pay.input[0].witness = Witness::from_slice(&[[1; 64]]);
    let reward = coinbase(1, &[(55, &b)]);
    let changes = chain.add(&[&reward, &pay]);

    let block = &of(&changes, "blocks")[0].columns;
    assert_eq!((&block["height"], &block["transactions"]), (&1.into(), &2.into()));
    assert_eq!((&block["bits"], &block["nonce"]), (&0x1d00_ffffu32.into(), &u32::MAX.into()));
    let transaction = &of(&changes, "transactions")[1].columns;
    assert_eq!(transaction["txid"], bytea(&pay.compute_txid().to_string()));
    assert_eq!(transaction["weight"], pay.weight().to_wu());
    assert_eq!(transaction["size"], pay.total_size());
    assert_eq!(block["weight"], 4 * 81 + reward.weight().to_wu() + pay.weight().to_wu());
    assert_eq!((&transaction["output_value"], &transaction["fee"]), (&45.into(), &5.into()));
    assert!(of(&changes, "transactions")[0].columns["fee"].is_null(), "a coinbase has no fee");
    let inputs = of(&changes, "inputs");
    assert!(inputs[0].columns["previous_txid"].is_null() && inputs[0].columns["previous_position"].is_null());
    assert_eq!(inputs[1].columns["previous_txid"], bytea(&mint.compute_txid().to_string()));
    assert_eq!(
        (&inputs[1].columns["previous_position"], &inputs[1].columns["value"]),
        (&0.into(), &50.into())
    );
    assert_eq!(inputs[1].columns["sequence"], u32::MAX);
    let mut hash = bitcoin::hashes::sha256::Hash::hash(b"b").to_byte_array();
    hash.reverse();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(chain.output(out(&pay, 0))["script_hash"], bytea(&hex));
    assert_eq!((chain.balance(&a), chain.balance(&b)), (15, 85));
}

#[test]
fn a_spend_in_a_later_block_marks_the_output_and_touches_nothing_else_of_it() {
    let (mut chain, a, b) = (Chain::new(), script("a"), script("b"));
    let mint = coinbase(0, &[(50, &a)]);
    chain.add(&[&mint]);
    let spend = transaction(&[out(&mint, 0)], &[(50, &b)]);
    let changes = chain.add(&[&coinbase(1, &[]), &spend]);
    let spent = of(&changes, "outputs")[0];
    let columns: Vec<&str> = spent.columns.keys().map(String::as_str).collect();
    assert_eq!(columns, ["position", "spent_by", "spent_height", "txid"]);
    let row = chain.output(out(&mint, 0));
    assert_eq!((&row["spent_height"], &row["height"], &row["value"]), (&1.into(), &0.into(), &50.into()));
    assert_eq!(row["spent_by"], bytea(&spend.compute_txid().to_string()));
    let emptied = of(&changes, "balances").into_iter().filter(|change| change.operation == Operation::Delete);
    assert_eq!(emptied.count(), 1, "the balance of `a` is gone");
    assert_eq!(chain.count("balances"), 1);
}

#[test]
fn an_output_made_and_spent_in_one_block_is_one_row_and_no_balance() {
    let (mut chain, a, b) = (Chain::new(), script("a"), script("b"));
    let mint = coinbase(0, &[(50, &a)]);
    chain.add(&[&mint]);
    let first = transaction(&[out(&mint, 0)], &[(50, &b)]);
    let second = transaction(&[out(&first, 0)], &[(50, &a)]);
    let changes = chain.add(&[&coinbase(1, &[]), &first, &second]);
    let row = chain.output(out(&first, 0));
    assert_eq!((&row["height"], &row["spent_height"]), (&1.into(), &1.into()));
    assert_eq!(row["spent_by"], bytea(&second.compute_txid().to_string()));
    assert_eq!(of(&changes, "outputs").len(), 3);
    assert!(of(&changes, "balances").is_empty(), "neither balance is another than before");
    assert_eq!((chain.balance(&a), chain.balance(&b)), (50, 0));
    // The view, and the output of the block before, read and deleted: balances that stay are not asked for.
    assert_eq!(chain.host.calls, 3);
}

#[test]
fn what_is_from_before_the_first_block_is_recorded_and_counts_nothing() {
    let (mut chain, a) = (Chain::new(), script("a"));
    let before = OutPoint { txid: coinbase(9, &[]).compute_txid(), vout: 3 };
    let spend = transaction(&[before], &[(7, &a)]);
    let changes = chain.add(&[&coinbase(0, &[]), &spend]);
    let input = &of(&changes, "inputs")[1].columns;
    assert_eq!(input["previous_txid"], bytea(&before.txid.to_string()));
    assert_eq!((&input["previous_position"], &input["value"]), (&3.into(), &Value::Null));
    assert!(of(&changes, "transactions")[1].columns["fee"].is_null());
    assert_eq!((chain.count("outputs"), chain.balance(&a)), (1, 7));
}

#[test]
fn outputs_without_a_value_can_be_spent_and_have_no_balance() {
    let (mut chain, a) = (Chain::new(), script("a"));
    let note = ScriptBuf::from_bytes(vec![0x6a, 1, 2]);
    let mint = coinbase(0, &[(0, &a), (0, &note), (5, &note)]);
    chain.add(&[&mint]);
    assert_eq!((chain.balance(&a), chain.balance(&note)), (0, 5));
    assert_eq!(chain.host.state.len(), 3, "`a`, the note with a value, its balance");
    chain.add(&[&coinbase(1, &[]), &transaction(&[out(&mint, 0)], &[])]);
    assert_eq!(chain.output(out(&mint, 0))["spent_height"], 1);
}

#[test]
fn a_script_that_occurs_many_times_has_one_row_and_is_asked_for_once() {
    let (mut chain, a) = (Chain::new(), script("a"));
    let mint = coinbase(0, &[(10, &a), (20, &a), (30, &a)]);
    let changes = chain.add(&[&mint]);
    assert_eq!((of(&changes, "balances").len(), chain.balance(&a)), (1, 60));
    let pay = transaction(&[out(&mint, 0), out(&mint, 2)], &[(1, &a), (2, &a), (3, &a)]);
    let changes = chain.add(&[&coinbase(1, &[(100, &a)]), &pay]);
    let balances = of(&changes, "balances");
    assert_eq!((balances.len(), chain.balance(&a)), (1, 126));
    assert!(!balances[0].columns.contains_key("script"), "it is in the table already");
    // The view, one look for the coinbase's output, two outputs read and deleted, one balance.
    assert_eq!(chain.host.calls, 1 + 1 + 4 + 1);
}

#[test]
fn a_coinbase_that_comes_again_counts_once() {
    let (mut chain, a, b) = (Chain::new(), script("a"), script("b"));
    let mint = coinbase(0, &[(50, &a), (1, &b), (0, &b)]);
    chain.add(&[&mint]);
    let changes = chain.add(&[&mint]);
    assert!(of(&changes, "balances").is_empty(), "nothing was added");
    assert_eq!((chain.count("transactions"), chain.count("outputs"), chain.balance(&a)), (1, 3, 50));
    assert_eq!(chain.output(out(&mint, 0))["height"], 1, "the later one counts");

    // Spent, it comes a third time, and is unspent again.
    chain.add(&[&coinbase(1, &[]), &transaction(&[out(&mint, 0)], &[(50, &b)])]);
    assert_eq!((chain.balance(&a), chain.balance(&b)), (0, 51));
    chain.add(&[&mint]);
    assert_eq!((chain.balance(&a), chain.balance(&b)), (50, 51));
    assert!(chain.output(out(&mint, 0))["spent_by"].is_null());
    chain.add(&[&coinbase(2, &[]), &transaction(&[out(&mint, 0)], &[])]);
    assert_eq!(chain.balance(&a), 0);
}

#[test]
fn long_and_empty_scripts_have_balances() {
    let (mut chain, long, empty) = (Chain::new(), script(&"s".repeat(10_000)), ScriptBuf::new());
    chain.add(&[&coinbase(0, &[(1, &long), (2, &empty)])]);
    assert_eq!((chain.balance(&long), chain.balance(&empty)), (1, 2));
}

#[test]
fn sums_beyond_what_one_value_can_be_are_exact() {
    let (mut chain, a) = (Chain::new(), script("a"));
    let most = i64::MAX as u64;
    let changes = chain.process(&[&coinbase(0, &[(most, &a), (most, &a), (most, &a)])]).unwrap();
    let sum = (3 * u128::from(most)).to_string();
    assert_eq!(of(&changes, "balances")[0].columns["balance"].to_string(), sum);
    assert_eq!(of(&changes, "transactions")[0].columns["output_value"].to_string(), sum);
}

#[test]
fn blocks_that_cannot_be_are_refused() {
    let (mut chain, a) = (Chain::new(), script("a"));
    let mint = coinbase(0, &[(5, &a)]);
    chain.add(&[&mint]);
    let error = chain.refuses(&[&coinbase(1, &[(1 << 63, &a)])]);
    assert_eq!(error, "an output has the value 9223372036854775808, more than a `bigint` holds");
    let first = transaction(&[out(&mint, 0)], &[(5, &a)]);
    let again = transaction(&[out(&first, 0)], &[(4, &a)]);
    let and_again = transaction(&[out(&first, 0)], &[(3, &a)]);
    let error = chain.refuses(&[&coinbase(1, &[]), &first, &again, &and_again]);
    assert_eq!(error, format!("output {} is spent and is not there", out(&first, 0)));
    let error = chain.refuses(&[&coinbase(1, &[]), &first, &transaction(&[out(&first, 1)], &[])]);
    assert_eq!(error, format!("output {} is spent and is not there", out(&first, 1)));

    let mut bytes = block(&[&mint]);
    bytes.push(0);
    chain.host.answer("getblock", b"", &bytes);
    let error = chain.host.run::<Ledger>(1, [0; 32]).unwrap_err().to_string();
    assert!(error.ends_with("of which the last 1 are behind the block"), "{error}");
    chain.host.answer("getblock", b"", b"");
    let error = chain.host.run::<Ledger>(1, [0; 32]).unwrap_err().to_string();
    assert_eq!(error, "view `getblock` answered nothing at height 1");
}

/// Numbers that look random, the same ones for the same seed. Source: Sebastiano Vigna, SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// `Chain::add` checks the tables after each block.
#[test]
fn tables_agree_at_every_height_of_chains_that_nobody_thought_up() {
    for seed in 0..20 {
        println!("seed {seed}");
        let (mut random, mut chain) = (Random(seed), Chain::new());
        let scripts: Vec<ScriptBuf> = ["a", "b", "c", "d", "\x6a", ""].map(script).to_vec();
        let (mut unspent, mut coinbases) = (Vec::<OutPoint>::new(), Vec::<Transaction>::new());
        let mut made_count = 0;
        for height in 0..30 {
            let outputs = |random: &mut Random, most: usize| -> Vec<(u64, usize)> {
                let count = random.below(most + 1);
                (0..count).map(|_| (random.below(3) as u64, random.below(scripts.len()))).collect()
            };
            let paid = |random: &mut Random| -> Vec<(u64, &ScriptBuf)> {
                outputs(random, 4).into_iter().map(|(value, script)| (value, &scripts[script])).collect()
            };
            let comes_again = !coinbases.is_empty() && random.below(4) == 0;
            let mint = if comes_again {
                coinbases[random.below(coinbases.len())].clone()
            } else {
                coinbase(height, &paid(&mut random))
            };
            coinbases.push(mint.clone());
            let mut block = vec![mint];
            for _ in 0..random.below(6) {
                let mut spends = Vec::new();
                for _ in 0..random.below(4) {
                    if !unspent.is_empty() {
                        spends.push(unspent.swap_remove(random.below(unspent.len())));
                    }
                }
                if !spends.is_empty() {
                    let mut made = transaction(&spends, &paid(&mut random));
                    // Not even with the same inputs and outputs may it be one that there was: see BIP 30.
                    made.lock_time = LockTime::from_consensus(made_count);
                    made_count += 1;
                    unspent.extend((0..made.output.len() as u32).map(|position| out(&made, position)));
                    block.push(made);
                }
            }
            let mint = &block[0];
            unspent.retain(|outpoint| outpoint.txid != mint.compute_txid());
            let spent_here: BTreeSet<OutPoint> =
                block.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
            let positions = (0..mint.output.len() as u32).map(|position| out(mint, position));
            unspent.extend(positions.filter(|outpoint| !spent_here.contains(outpoint)));
            chain.add(&block.iter().collect::<Vec<_>>());
        }
        assert!(chain.count("outputs") > 60, "a poor example");
    }
}
