//! A block's net effect: which outputs it spends, and by how much each script's balance changes.

use std::collections::BTreeMap;

use debshrew_sdk::{sha256, Block, Bytes, Error, Hash, Rendered};

use crate::contents::{Contents, Outpoint, Txid};
use crate::rows;
use crate::state::{self, ScriptHash, Unspent};

pub(crate) struct Fold<'a> {
    contents: &'a Contents,
    /// The transactions' identifiers as the rows have them.
    txids: Vec<Rendered>,
    /// Per input, the value that it spends, where its output is known.
    spent_values: Vec<Option<u64>>,
    /// Per output, its script (a position in `scripts`).
    output_scripts: Vec<usize>,
    /// Per output, the transaction of this block that spends it.
    spent_by: Vec<Option<usize>>,
    /// Outputs of earlier blocks that are spent, and the transactions that do.
    spent_before: Vec<(Outpoint, usize)>,
    /// In the order in which they were met.
    scripts: Vec<Script>,
    by_hash: BTreeMap<Key, usize>,
    /// The block's transactions so far. A tree, and no hash table: whoever makes transactions can choose their
    /// identifiers so that a table without a secret degenerates, and a secret would not be deterministic.
    by_txid: BTreeMap<Key, usize>,
}

/// A hash as numbers, for which WebAssembly has comparisons: bytes it would have to swap first.
type Key = [u64; 4];

fn key(hash: &[u8; 32]) -> Key {
    let mut key = [0; 4];
    for (number, chunk) in key.iter_mut().zip(hash.chunks_exact(8)) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(chunk);
        *number = u64::from_le_bytes(bytes);
    }
    key
}

struct Script {
    hash: ScriptHash,
    /// An output of this block that has it.
    output: Option<usize>,
    change: i128,
}

impl<'a> Fold<'a> {
    /// Follows the transactions in their order, and reads from the state what they spend of earlier blocks.
    pub(crate) fn new(block: &mut Block, contents: &'a Contents) -> Result<Fold<'a>, Error> {
        let mut fold = Fold {
            contents,
            txids: contents.transactions.iter().map(|tx| rendered(tx.txid)).collect(),
            spent_values: vec![None; contents.inputs.len()],
            output_scripts: Vec::with_capacity(contents.outputs.len()),
            spent_by: vec![None; contents.outputs.len()],
            spent_before: Vec::new(),
            scripts: Vec::new(),
            by_hash: BTreeMap::new(),
            by_txid: BTreeMap::new(),
        };
        for (position, transaction) in contents.transactions.iter().enumerate() {
            for input in transaction.inputs.clone() {
                if let Some(previous) = contents.inputs[input].previous {
                    fold.spent_values[input] = fold.spend(block, previous, position)?;
                }
            }
            if position == 0 {
                fold.overwrite(block)?;
            }
            for output in transaction.outputs.clone() {
                fold.create(output)?;
            }
            fold.by_txid.insert(key(&transaction.txid), position);
        }
        Ok(fold)
    }

    /// Gives the value that is spent; `None` when the output is from before the first block that was processed.
    fn spend(&mut self, block: &mut Block, outpoint: Outpoint, by: usize) -> Result<Option<u64>, Error> {
        if let Some(transaction) = self.by_txid.get(&key(&outpoint.txid)) {
            let outputs = self.contents.transactions[*transaction].outputs.clone();
            let output = outputs.start.saturating_add(outpoint.position as usize);
            if output < outputs.end && self.spent_by[output].is_none() {
                let value = self.contents.outputs[output].value;
                self.spent_by[output] = Some(by);
                self.scripts[self.output_scripts[output]].change -= i128::from(value);
                return Ok(Some(value));
            }
            return Err(format!("{} is spent and is not there", shown(&outpoint)).into());
        }
        let Some(unspent) = state::unspent(block, &outpoint)? else { return Ok(None) };
        state::forget(block, &outpoint);
        self.spent_before.push((outpoint, by));
        let script = self.script(unspent.script, None);
        self.scripts[script].change -= i128::from(unspent.value);
        Ok(Some(unspent.value))
    }

    /// Outputs that the coinbase overwrites. Before BIP 34 a coinbase could be the very same as an earlier one;
    /// its outputs then exist once, as of the later block. BIP 30 forbids it for all other transactions.
    fn overwrite(&mut self, block: &mut Block) -> Result<(), Error> {
        let coinbase = &self.contents.transactions[0];
        for output in coinbase.outputs.clone() {
            if !self.is_spendable(output) {
                continue;
            }
            let outpoint = self.outpoint(coinbase.txid, output - coinbase.outputs.start);
            if let Some(old) = state::unspent(block, &outpoint)? {
                state::forget(block, &outpoint);
                let script = self.script(old.script, None);
                self.scripts[script].change -= i128::from(old.value);
            }
        }
        Ok(())
    }

    fn create(&mut self, output: usize) -> Result<(), Error> {
        let contents = self.contents;
        let value = contents.outputs[output].value;
        if i64::try_from(value).is_err() {
            return Err(format!("an output has the value {value}, more than a `bigint` holds").into());
        }
        let hash = sha256(contents.script(&contents.outputs[output]));
        let script = self.script(hash, Some(output));
        self.scripts[script].change += i128::from(value);
        self.output_scripts.push(script);
        Ok(())
    }

    fn script(&mut self, hash: ScriptHash, output: Option<usize>) -> usize {
        let scripts = &mut self.scripts;
        let index = *self.by_hash.entry(key(&hash)).or_insert_with(|| {
            scripts.push(Script { hash, output: None, change: 0 });
            scripts.len() - 1
        });
        if output.is_some() {
            scripts[index].output = output;
        }
        index
    }

    /// Whether an output may ever be spent or has a value to count. Source: Bitcoin Core, `IsUnspendable` in
    /// `script/script.h`: what begins with OP_RETURN cannot be.
    fn is_spendable(&self, output: usize) -> bool {
        const OP_RETURN: u8 = 0x6a;
        let output = &self.contents.outputs[output];
        output.value > 0 || self.contents.script(output).first() != Some(&OP_RETURN)
    }

    fn outpoint(&self, txid: Txid, position: usize) -> Outpoint {
        // A block has far fewer outputs than a `u32` counts: each takes nine bytes of what fits in memory.
        Outpoint { txid, position: position as u32 }
    }

    /// Transactions and their inputs.
    pub(crate) fn write_transactions(&self, block: &mut Block) {
        let height = block.height();
        for (position, transaction) in self.contents.transactions.iter().enumerate() {
            let txid = &self.txids[position];
            let values = self.contents.outputs[transaction.outputs.clone()].iter();
            let output_value = values.map(|output| i128::from(output.value)).sum();
            // Unknown if one input's is; a coinbase spends nothing and pays none.
            let spent: Option<i128> =
                self.spent_values[transaction.inputs.clone()].iter().map(|v| v.map(i128::from)).sum();
            block.upsert(&rows::Transaction {
                txid,
                height,
                position,
                version: transaction.version,
                lock_time: transaction.lock_time,
                size: transaction.size,
                weight: transaction.weight,
                inputs: transaction.inputs.len(),
                outputs: transaction.outputs.len(),
                output_value,
                fee: spent.map(|spent| spent - output_value),
            });
            for (position, index) in transaction.inputs.clone().enumerate() {
                let input = &self.contents.inputs[index];
                block.upsert(&rows::Input {
                    txid,
                    position,
                    height,
                    previous_txid: input.previous.map(|previous| Hash::from_internal(previous.txid)),
                    previous_position: input.previous.map(|previous| previous.position),
                    sequence: input.sequence,
                    value: self.spent_values[index],
                });
            }
        }
    }

    /// The block's outputs, and those of earlier blocks that it spends.
    pub(crate) fn write_outputs(&self, block: &mut Block) {
        let height = block.height();
        for (outpoint, by) in &self.spent_before {
            block.update(&rows::Spent {
                txid: Hash::from_internal(outpoint.txid),
                position: outpoint.position,
                spent_by: &self.txids[*by],
                spent_height: height,
            });
        }
        for (transaction, txid) in self.contents.transactions.iter().zip(&self.txids) {
            for (position, index) in transaction.outputs.clone().enumerate() {
                let output = &self.contents.outputs[index];
                let script = self.scripts[self.output_scripts[index]].hash;
                let spent_by = self.spent_by[index];
                block.upsert(&rows::Output {
                    txid,
                    position,
                    height,
                    value: output.value,
                    script: Bytes(self.contents.script(output)),
                    script_hash: Hash::from_internal(script),
                    spent_by: spent_by.map(|by| &self.txids[by]),
                    spent_height: spent_by.map(|_| height),
                });
                if spent_by.is_none() && self.is_spendable(index) {
                    let outpoint = self.outpoint(transaction.txid, position);
                    state::remember(block, &outpoint, &Unspent { value: output.value, script });
                }
            }
        }
    }

    /// One row for each script whose balance is another after the block.
    pub(crate) fn write_balances(&self, block: &mut Block) -> Result<(), Error> {
        for script in self.scripts.iter().filter(|script| script.change != 0) {
            let before = state::balance(block, &script.hash)?;
            let balance = before + script.change;
            let script_hash = Hash::from_internal(script.hash);
            if balance == 0 {
                rows::Balance::delete(block, script_hash);
            } else if before > 0 && balance > 0 {
                block.update(&rows::NewBalance { script_hash, balance });
            } else if let (true, Some(output)) = (balance > 0, script.output) {
                let script = Bytes(self.contents.script(&self.contents.outputs[output]));
                block.upsert(&rows::Balance { script_hash, script, balance });
            } else {
                return Err(format!("a script's balance goes from {before} to {balance}").into());
            }
            state::set_balance(block, &script.hash, balance);
        }
        Ok(())
    }
}

fn rendered(txid: Txid) -> Rendered {
    Rendered::new(&Hash::from_internal(txid))
}

fn shown(outpoint: &Outpoint) -> String {
    use std::fmt::Write;
    let mut text = String::from("output ");
    for byte in outpoint.txid.iter().rev() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push_str(&format!(":{}", outpoint.position));
    text
}
