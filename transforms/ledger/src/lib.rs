//! The ledger of a Bitcoin chain: blocks, transactions, inputs, outputs with who spent them, and the balance of
//! every script. See the README for the tables.
//!
//! A block is read once (`contents`), its spends are matched to outputs and netted per script in memory
//! (`fold`), and only then written, one change a row.

mod contents;
mod fold;
mod rows;
mod state;
#[cfg(test)]
mod tests;

use debshrew_sdk::{Block, Error, Hash, Timestamp, Transform};

use contents::Contents;
use fold::Fold;

/// The transform.
pub struct Ledger;

impl Transform for Ledger {
    const NAME: &'static str = "ledger";

    fn process_block(block: &mut Block) -> Result<(), Error> {
        let height = block.height();
        let bytes = block.view("getblock", b"")?;
        if bytes.is_empty() {
            return Err(format!("view `getblock` answered nothing at height {height}").into());
        }
        let contents = Contents::read(&bytes)
            .map_err(|error| format!("view `getblock` gave no block at height {height}: {error}"))?;
        write_block(block, &contents);
        let fold = Fold::new(block, &contents)?;
        fold.write_transactions(block);
        fold.write_outputs(block);
        fold.write_balances(block)
    }
}

debshrew_sdk::export!(Ledger);

fn write_block(block: &mut Block, contents: &Contents) {
    let header = &contents.header;
    block.upsert(&rows::BlockRow {
        height: block.height(),
        hash: Hash::from_internal(header.hash),
        previous_hash: Hash::from_internal(header.previous_hash),
        merkle_root: Hash::from_internal(header.merkle_root),
        time: Timestamp(header.time),
        version: header.version,
        bits: header.bits,
        nonce: header.nonce,
        size: contents.size,
        weight: contents.weight,
        transactions: contents.transactions.len(),
    });
}
