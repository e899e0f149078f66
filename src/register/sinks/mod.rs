//! The sinks of pipelines: how far each stream is, what is kept for it, and what a rollback took back.

mod lease;
mod needs;
mod overview;
mod retracted;
mod stream;

use std::time::Duration;

use tokio_postgres::Row;

use super::{RegisterError, height};
use crate::block::{BlockHash, BlockRef, Height};

pub use lease::{Attach, Attached, SinkLease, is_taken, sink_record};
pub use needs::{
    SinkNeeds, detach_late, late_blocker, lose_sinks, lose_sinks_behind, sink_needs, sinks_reach,
};
pub use overview::{SinkOrder, SinkOverview, order_sink, sink_overview};
pub use retracted::{
    Retracted, forget_retracted, lock_reserved, read_retracted, retracted_block, write_retracted,
};
pub use stream::{Ahead, LoggedBlock, LoggedReorg, ahead, is_on_disk, last_reorg, written_to};

/// Where a stream stands: everything up to and with this block is published, on the chain as it was after that rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cursor {
    /// `None` is before the first block.
    pub block: Option<BlockRef>,
    /// The last rollback (`debshrew.reorg`) that the stream has taken part in; 0 before the first.
    pub reorg: i64,
    /// How often the stream began again before it came there.
    pub generation: i32,
}

/// What the configuration says of a sink that others must know.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    pub name: String,
    pub kind: &'static str,
    pub max_lag: Duration,
    /// So many blocks below the last committed one it stays on purpose.
    pub confirmations: u32,
    /// The pipeline waits for it, once it is behind for longer; otherwise it is lost.
    pub blocks: bool,
}

/// How far a stream is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is published, and nothing kept for it, but for blocks from a height on that it is to begin with.
    New,
    /// It is sent all rows as they were at its cursor.
    Snapshot,
    Streaming,
    /// What it has not published is not kept any more.
    Lost,
}

impl Stage {
    fn sql(self) -> &'static str {
        match self {
            Stage::New => "new",
            Stage::Snapshot => "snapshot",
            Stage::Streaming => "streaming",
            Stage::Lost => "lost",
        }
    }

    fn read(text: &str) -> Result<Stage, RegisterError> {
        let all = [Stage::New, Stage::Snapshot, Stage::Streaming, Stage::Lost];
        all.into_iter()
            .find(|stage| stage.sql() == text)
            .ok_or(RegisterError::Damaged("a sink's stage is none"))
    }
}

/// Where the pipeline stands, as streams see it: as long as this is the same, nothing follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    checkpoint: Option<BlockRef>,
    reorg: i64,
}

/// A sink's row.
#[derive(Clone, Debug)]
pub struct SinkRecord {
    id: i32,
    pub stage: Stage,
    /// Somebody said so.
    pub paused: bool,
    /// It met what it cannot get past.
    pub halted: bool,
    pub problem: Option<String>,
    pub cursor: Cursor,
    /// A step was published since the stream began.
    pub published: bool,
    /// Blocks up to this one may have been published.
    pub reserved: Option<Height>,
    /// It is to begin again with a snapshot, whatever the configuration says.
    pub resync: bool,
    pub standing: Standing,
}

impl SinkRecord {
    const COLUMNS: &str = "s.sink_id, s.stage, s.paused, s.halted, s.problem, s.resync, s.generation, c.height, c.hash, c.reorg_id, c.reserved, c.published, \
        k.height as at_height, k.hash as at_hash, \
        (select coalesce(max(r.reorg_id), 0) from debshrew.reorg r where r.pipeline_id = s.pipeline_id) as at_reorg";

    const TABLES: &str = "debshrew.sink s join debshrew.sink_cursor c using (sink_id) \
        join debshrew.checkpoint k on k.pipeline_id = s.pipeline_id";

    fn read(row: &Row) -> Result<SinkRecord, RegisterError> {
        Ok(SinkRecord {
            id: row.get("sink_id"),
            stage: Stage::read(row.get("stage"))?,
            paused: row.get("paused"),
            halted: row.get("halted"),
            problem: row.get("problem"),
            cursor: Cursor {
                block: block(row, "height", "hash")?,
                reorg: row.get("reorg_id"),
                generation: row.get("generation"),
            },
            reserved: height(row.get("reserved"))?,
            published: row.get("published"),
            resync: row.get("resync"),
            standing: Standing {
                checkpoint: block(row, "at_height", "at_hash")?,
                reorg: row.get("at_reorg"),
            },
        })
    }
}

/// A block by its columns, which are both null where there is none.
fn block(row: &Row, height_column: &str, hash_column: &str) -> Result<Option<BlockRef>, RegisterError> {
    let Some(height) = height(row.get(height_column))? else { return Ok(None) };
    let hash: Option<&[u8]> = row.get(hash_column);
    let hash =
        hash.and_then(BlockHash::from_slice).ok_or(RegisterError::Damaged("a block's hash is none"))?;
    Ok(Some(BlockRef { height, hash }))
}
