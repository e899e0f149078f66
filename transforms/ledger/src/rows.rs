//! The tables' rows. Values are satoshi; hashes stand in the order in which Bitcoin shows them.

use debshrew_sdk::{row, Bytes, Hash, Rendered, Timestamp};

row! {
    pub(crate) struct BlockRow in "blocks" {
        key { height: u32 }
        hash: Hash,
        previous_hash: Hash,
        merkle_root: Hash,
        time: Timestamp,
        version: i32,
        bits: u32,
        nonce: u32,
        size: usize,
        weight: u64,
        transactions: usize,
    }
}

row! {
    pub(crate) struct Transaction<'a> in "transactions" {
        key { txid: &'a Rendered }
        height: u32,
        position: usize,
        version: i32,
        lock_time: u32,
        size: usize,
        weight: u64,
        inputs: usize,
        outputs: usize,
        output_value: i128,
        fee: Option<i128>,
    }
}

row! {
    pub(crate) struct Input<'a> in "inputs" {
        key { txid: &'a Rendered, position: usize }
        height: u32,
        previous_txid: Option<Hash>,
        previous_position: Option<u32>,
        sequence: u32,
        value: Option<u64>,
    }
}

row! {
    pub(crate) struct Output<'a> in "outputs" {
        key { txid: &'a Rendered, position: usize }
        height: u32,
        value: u64,
        script: Bytes<'a>,
        script_hash: Hash,
        spent_by: Option<&'a Rendered>,
        spent_height: Option<u32>,
    }
}

row! {
    /// An output of an earlier block that is spent.
    pub(crate) struct Spent<'a> in "outputs" {
        key { txid: Hash, position: u32 }
        spent_by: &'a Rendered,
        spent_height: u32,
    }
}

row! {
    pub(crate) struct Balance<'a> in "balances" {
        key { script_hash: Hash }
        script: Bytes<'a>,
        balance: i128,
    }
}

row! {
    /// A balance that was there before.
    pub(crate) struct NewBalance in "balances" {
        key { script_hash: Hash }
        balance: i128,
    }
}
