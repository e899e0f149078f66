//! Generated blocks: real ones in form, deterministic in content.
//!
//! A block is a function of the seed, the number of transactions, its branch's name, its parent (whose own
//! ancestors include whatever it spends) and its height. It serialises as on Bitcoin's regtest network, links to
//! its parent, has its height in the coinbase (BIP 34), right merkle root and witness commitment (BIP 141), and
//! meets regtest's target. Signatures are random bytes, and coinbases are spent before they are mature.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, HashEngine, hash160, sha256};
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, CompactTarget, OutPoint, PubkeyHash, ScriptBuf, ScriptHash, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, WPubkeyHash, Witness, absolute, transaction,
};
use bytes::Bytes;

use super::block::Block;
use crate::block::BlockHash;

/// Outputs of this many blocks below are spent; older ones are left alone.
pub(super) const WINDOW: usize = 12;

/// How many scripts (addresses) a chain's outputs are paid to.
const WALLETS: u64 = 120;

/// Regtest's target: every second hash meets it.
const EASIEST: u32 = 0x207f_ffff;

/// The parent's time where only its hash is known: Bitcoin's first block's.
const FIRST_TIME: u32 = 1_231_006_505;

pub(super) struct Generator {
    seed: u64,
    transactions: u32,
    wallets: Vec<Wallet>,
    by_script: HashMap<ScriptBuf, usize>,
}

struct Wallet {
    script: ScriptBuf,
    key: [u8; 33],
}

impl Generator {
    pub(super) fn new(seed: u64, transactions: u32) -> Generator {
        let wallets: Vec<Wallet> = (0..WALLETS).map(|number| Wallet::new(seed, number)).collect();
        let by_script =
            wallets.iter().enumerate().map(|(index, wallet)| (wallet.script.clone(), index)).collect();
        Generator { seed, transactions, wallets, by_script }
    }

    /// The block of `branch` on `parent`; the pool is brought from the parent's state to the block's.
    pub(super) fn block(&self, parent: &Block, height: u32, branch: &Arc<str>, pool: &mut Pool) -> Block {
        let mut dice = self.dice(parent, height, branch);
        let mut fees = Amount::ZERO;
        pool.begin();
        // The coinbase is put in its place when the fees are known.
        let mut transactions = vec![coinbase(height, branch, &mut dice, Vec::new())];
        while transactions.len() < self.transactions as usize {
            let Some((transaction, fee)) = self.transaction(&mut dice, pool) else { break };
            fees += fee;
            pool.create(&transaction);
            transactions.push(transaction);
        }
        transactions[0].output = self.rewards(height, fees, &mut dice);
        let block = seal(parent, transactions, &mut dice);
        pool.finish(&block);
        Block { hash: hash_of(&block.header), bytes: Bytes::from(serialize(&block)), branch: branch.clone() }
    }

    fn dice(&self, parent: &Block, height: u32, branch: &str) -> Dice {
        let mut engine = sha256::Hash::engine();
        engine.input(&self.seed.to_le_bytes());
        engine.input(&self.transactions.to_le_bytes());
        engine.input(&height.to_le_bytes());
        engine.input(parent.hash.as_bytes());
        engine.input(branch.as_bytes());
        Dice::new(&sha256::Hash::from_engine(engine).to_byte_array())
    }

    /// A transaction that spends one to three outputs of the pool, and its fee; `None` when the pool is empty.
    fn transaction(&self, dice: &mut Dice, pool: &mut Pool) -> Option<(Transaction, Amount)> {
        let mut total = pool.take(dice).map(|coin| (self.spend(&coin, dice), coin.value))?;
        let mut input = vec![total.0];
        for _ in 0..[0, 0, 0, 1, 1, 2][dice.below(6) as usize] {
            if let Some(coin) = pool.take(dice) {
                total.1 += coin.value;
                input.push(self.spend(&coin, dice));
            }
        }
        let total = total.1.to_sat();
        let fee = if total > 20_000 { 200 + dice.below(800) } else { 0 };
        let mut output = self.split(total - fee, 1 + dice.below(3), dice);
        if dice.below(8) == 0 {
            let note = PushBytesBuf::from(dice.bytes::<20>());
            let script_pubkey = Builder::new().push_opcode(OP_RETURN).push_slice(note).into_script();
            output.push(TxOut { value: Amount::ZERO, script_pubkey });
        }
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input,
            output,
        };
        Some((transaction, Amount::from_sat(fee)))
    }

    /// Satoshis paid to wallets, to few of them often.
    fn split(&self, mut rest: u64, parts: u64, dice: &mut Dice) -> Vec<TxOut> {
        let mut outputs = Vec::new();
        for part in 1..=parts {
            let last = part == parts || rest < 10_000;
            let value = if last { rest } else { rest / 100 * (10 + dice.below(60)) };
            rest -= value;
            let wallet = dice.below(WALLETS).min(dice.below(WALLETS)) as usize;
            let script_pubkey = self.wallets[wallet].script.clone();
            outputs.push(TxOut { value: Amount::from_sat(value), script_pubkey });
            if last {
                break;
            }
        }
        outputs
    }

    fn rewards(&self, height: u32, fees: Amount, dice: &mut Dice) -> Vec<TxOut> {
        let subsidy = 5_000_000_000u64.checked_shr(height / 210_000).unwrap_or(0);
        self.split(subsidy + fees.to_sat(), 2 + dice.below(3), dice)
    }

    /// An input of the form that the coin's script asks for.
    fn spend(&self, coin: &Coin, dice: &mut Dice) -> TxIn {
        let mut input = TxIn {
            previous_output: coin.point,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let key = self.by_script.get(&coin.script).map(|wallet| self.wallets[*wallet].key);
        let signature = dice.bytes::<71>();
        match key {
            Some(_) if coin.script.is_p2tr() => input.witness.push(dice.bytes::<64>()),
            Some(key) if coin.script.is_p2pkh() => {
                input.script_sig = Builder::new().push_slice(signature).push_slice(key).into_script();
            }
            Some(key) => {
                if coin.script.is_p2sh() {
                    let inner = PushBytesBuf::try_from(inner(&key).into_bytes()).unwrap_or_default();
                    input.script_sig = Builder::new().push_slice(inner).into_script();
                }
                input.witness.push(signature);
                input.witness.push(key);
            }
            None => input.script_sig = Builder::new().push_slice(signature).into_script(),
        }
        input
    }
}

impl Wallet {
    fn new(seed: u64, number: u64) -> Wallet {
        let mut engine = sha256::Hash::engine();
        engine.input(&seed.to_le_bytes());
        engine.input(&number.to_le_bytes());
        let mut key = [2; 33];
        key[1..].copy_from_slice(&sha256::Hash::from_engine(engine).to_byte_array());
        let script = match number % 4 {
            0 => ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(&key))),
            1 => {
                let tap: [u8; 32] = sha256::Hash::hash(&key).to_byte_array();
                Builder::new().push_int(1).push_slice(tap).into_script()
            }
            2 => ScriptBuf::new_p2pkh(&PubkeyHash::from_raw_hash(hash160::Hash::hash(&key))),
            _ => ScriptBuf::new_p2sh(&ScriptHash::hash(inner(&key).as_bytes())),
        };
        Wallet { script, key }
    }
}

/// The script within P2SH: P2WPKH.
fn inner(key: &[u8; 33]) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(key)))
}

fn coinbase(height: u32, branch: &str, dice: &mut Dice, output: Vec<TxOut>) -> Transaction {
    // A branch's name is short enough for the 100 bytes that a coinbase's script may have.
    let name = PushBytesBuf::try_from(branch.as_bytes().to_vec()).unwrap_or_default();
    let script_sig = Builder::new()
        .push_int(i64::from(height))
        .push_slice(name)
        .push_slice(dice.bytes::<8>())
        .into_script();
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig,
        sequence: Sequence::MAX,
        // Reserved by BIP 141.
        witness: Witness::from_slice(&[[0; 32]]),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input],
        output,
    }
}

/// Commits to the transactions and finds a nonce.
fn seal(parent: &Block, transactions: Vec<Transaction>, dice: &mut Dice) -> bitcoin::Block {
    let mut hash = *parent.hash.as_bytes();
    hash.reverse();
    let parent_time = deserialize::<Header>(parent.bytes.get(..80).unwrap_or_default())
        .map_or(FIRST_TIME, |header| header.time);
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: bitcoin::BlockHash::from_byte_array(hash),
        merkle_root: TxMerkleNode::all_zeros(),
        time: parent_time.saturating_add(60 + dice.below(1_080) as u32),
        bits: CompactTarget::from_consensus(EASIEST),
        nonce: 0,
    };
    let mut block = bitcoin::Block { header, txdata: transactions };
    if let Some(root) = block.witness_root() {
        let commitment = bitcoin::Block::compute_witness_commitment(&root, &[0; 32]);
        let mut data = [0xaa, 0x21, 0xa9, 0xed].to_vec();
        data.extend_from_slice(&commitment.to_byte_array());
        let data = PushBytesBuf::try_from(data).unwrap_or_default();
        let script_pubkey = Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script();
        block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
    }
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    while !block.header.target().is_met_by(block.header.block_hash()) {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}

/// In the order that Bitcoin shows.
pub(super) fn hash_of(header: &Header) -> BlockHash {
    let mut hash = header.block_hash().to_byte_array();
    hash.reverse();
    BlockHash::new(hash)
}

/// An unspent output.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Coin {
    point: OutPoint,
    value: Amount,
    script: ScriptBuf,
}

/// The outputs of the last [`WINDOW`] blocks that are unspent: what the next block may spend. It follows from
/// those blocks alone, so that after a reorganisation it can be made anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pool {
    /// Per block its outputs in order, `None` where one is spent.
    blocks: VecDeque<Vec<Option<Coin>>>,
    /// Where an output is: the number of its block, counted from the pool's first, and its place there.
    places: HashMap<OutPoint, (usize, usize)>,
    /// How many blocks have left the pool.
    gone: usize,
}

impl Pool {
    pub(super) fn of<'a>(blocks: impl Iterator<Item = &'a [u8]>) -> Pool {
        let mut pool = Pool::default();
        for bytes in blocks {
            pool.add(bytes);
        }
        pool
    }

    /// Adds a finished block. A genesis block has nothing that can be spent.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.begin();
        if let Ok(block) = deserialize::<bitcoin::Block>(bytes)
            && block.header.prev_blockhash != bitcoin::BlockHash::all_zeros()
        {
            self.finish(&block);
        }
    }

    /// Makes room for a new block's outputs.
    fn begin(&mut self) {
        self.blocks.push_back(Vec::new());
        while self.blocks.len() > WINDOW {
            for coin in self.blocks.pop_front().into_iter().flatten().flatten() {
                self.places.remove(&coin.point);
            }
            self.gone += 1;
        }
    }

    fn create(&mut self, transaction: &Transaction) {
        let id = transaction.compute_txid();
        let number = self.gone + self.blocks.len() - 1;
        let Some(newest) = self.blocks.back_mut() else { return };
        for (vout, output) in (0..).zip(&transaction.output) {
            if output.value > Amount::ZERO {
                let point = OutPoint { txid: id, vout };
                self.places.insert(point, (number, newest.len()));
                let script = output.script_pubkey.clone();
                newest.push(Some(Coin { point, value: output.value, script }));
            }
        }
    }

    /// Replaces what was noted while the block was made by what it came to be.
    fn finish(&mut self, block: &bitcoin::Block) {
        for coin in self.blocks.back_mut().map(std::mem::take).into_iter().flatten().flatten() {
            self.places.remove(&coin.point);
        }
        for transaction in &block.txdata {
            for input in &transaction.input {
                if let Some((number, place)) = self.places.remove(&input.previous_output) {
                    self.blocks[number - self.gone][place] = None;
                }
            }
            self.create(transaction);
        }
    }

    /// Takes a coin from a random place, or the next one after it.
    fn take(&mut self, dice: &mut Dice) -> Option<Coin> {
        if self.places.is_empty() {
            return None;
        }
        let total: usize = self.blocks.iter().map(Vec::len).sum();
        let mut place = dice.below(total as u64) as usize;
        let mut block = 0;
        while place >= self.blocks[block].len() {
            place -= self.blocks[block].len();
            block += 1;
        }
        // Ends, since a coin is left.
        loop {
            if let Some(coin) = self.blocks[block].get_mut(place).and_then(Option::take) {
                self.places.remove(&coin.point);
                return Some(coin);
            }
            place += 1;
            if place >= self.blocks[block].len() {
                (block, place) = ((block + 1) % self.blocks.len(), 0);
            }
        }
    }
}

/// Pseudo-random numbers that are the same everywhere and for good (SplitMix64).
struct Dice(u64);

impl Dice {
    fn new(seed: &[u8; 32]) -> Dice {
        let mut first = [0; 8];
        first.copy_from_slice(&seed[..8]);
        Dice(u64::from_le_bytes(first))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, and without, `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        bytes
    }
}
