//! What pipelines tell.

use std::time::Duration;

use serde::Serialize;

use crate::block::BlockRef;

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is not the writer yet.
    Starting,
    /// Another process is the writer.
    Standby,
    Running,
    /// Nothing can be done until something outside changes; the reason says what.
    Waiting,
    /// It has met what it cannot get past.
    Halted,
    Stopped,
}

/// What the evaluation of a block took that was committed. One that was for nothing, as the source moved, does not count.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated {
    pub at: BlockRef,
    pub fuel: u64,
    /// How long the transform computed.
    pub computed: Duration,
    /// How many views it was answered, and how long it waited for them.
    pub views: u32,
    pub waited: Duration,
}

/// A block that was committed.
#[derive(Clone, Copy, Debug)]
pub struct CommittedBlock<'a> {
    pub at: BlockRef,
    /// Rows that changed, by table.
    pub tables: &'a [(&'a str, u64)],
}

/// Blocks that were rolled back.
#[derive(Clone, Copy, Debug)]
pub struct Reorg {
    pub from: BlockRef,
    /// `None` is before the first block.
    pub to: Option<BlockRef>,
    pub depth: u32,
    pub rows: u64,
    pub took: Duration,
}

/// Blocks that are evaluated at once.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    pub blocks: usize,
    /// What they are expected to hold in memory, and may.
    pub bytes: usize,
    pub most_bytes: usize,
}
