//! What the ledger remembers between blocks, in its state: each output that can still be spent, and each
//! script's balance.
//!
//! | key | value |
//! |---|---|
//! | `o`, txid (32 bytes, as serialised), position (4 bytes) | value (8 bytes), script hash (32 bytes) |
//! | `b`, script hash (32 bytes) | balance (16 bytes) |
//!
//! Numbers are little-endian. A key that is no longer needed is deleted.

use debshrew_sdk::{Block, Error};

use crate::contents::Outpoint;

/// SHA-256 of a script.
pub(crate) type ScriptHash = [u8; 32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unspent {
    pub(crate) value: u64,
    pub(crate) script: ScriptHash,
}

fn outpoint_key(outpoint: &Outpoint) -> [u8; 37] {
    let mut key = [b'o'; 37];
    key[1..33].copy_from_slice(&outpoint.txid);
    key[33..].copy_from_slice(&outpoint.position.to_le_bytes());
    key
}

fn balance_key(script: &ScriptHash) -> [u8; 33] {
    let mut key = [b'b'; 33];
    key[1..].copy_from_slice(script);
    key
}

/// An output of an earlier block, if it is unspent.
pub(crate) fn unspent(block: &mut Block, outpoint: &Outpoint) -> Result<Option<Unspent>, Error> {
    let Some(stored) = block.state(&outpoint_key(outpoint)) else { return Ok(None) };
    match (stored.get(..8).map(<[u8; 8]>::try_from), stored.get(8..).map(ScriptHash::try_from)) {
        (Some(Ok(value)), Some(Ok(script))) => Ok(Some(Unspent { value: u64::from_le_bytes(value), script })),
        _ => Err(format!("the state of an output has {} bytes, not 40", stored.len()).into()),
    }
}

pub(crate) fn remember(block: &mut Block, outpoint: &Outpoint, unspent: &Unspent) {
    let mut stored = [0; 40];
    stored[..8].copy_from_slice(&unspent.value.to_le_bytes());
    stored[8..].copy_from_slice(&unspent.script);
    block.set_state(&outpoint_key(outpoint), &stored);
}

pub(crate) fn forget(block: &mut Block, outpoint: &Outpoint) {
    block.delete_state(&outpoint_key(outpoint));
}

/// 0 for a script that has none.
pub(crate) fn balance(block: &mut Block, script: &ScriptHash) -> Result<i128, Error> {
    match block.state(&balance_key(script)).map(<[u8; 16]>::try_from) {
        None => Ok(0),
        Some(Ok(stored)) => Ok(i128::from_le_bytes(stored)),
        Some(Err(stored)) => Err(format!("the state of a balance has {} bytes, not 16", stored.len()).into()),
    }
}

pub(crate) fn set_balance(block: &mut Block, script: &ScriptHash, balance: i128) {
    if balance == 0 {
        block.delete_state(&balance_key(script));
    } else {
        block.set_state(&balance_key(script), &balance.to_le_bytes());
    }
}
