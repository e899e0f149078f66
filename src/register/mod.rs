//! What debshrew's own tables say: the pipelines, how far each has come, who may move its checkpoint, what it does, and
//! what its journals follow.
//!
//! Owns all SQL on these tables, and alone moves a checkpoint, in the database and in memory. Knows nothing of rows.

mod activity;
mod checkpoint;
mod heartbeat;
mod history;
mod journals;
mod lease;
mod pipelines;
mod readers;
mod reset;
mod sinks;
mod sizes;

pub use activity::{
    Activity, Halt, Held, Overview, Processes, Report, Role, halt, holder_of, overview, processes, report,
    report_pause, stand_by,
};
pub use checkpoint::{Checkpoint, checkpoint, cut};
pub use heartbeat::Silence;
pub use history::{
    Cause, RolledBack, begin_rollback, committed_block, committed_hash, end_rollback, recorded_roots,
};
pub use journals::{JournalRecord, RecordedColumn, read_journals, write_journals};
pub use lease::{Lease, Move, MoveBack};
pub use pipelines::{Registered, find, register};
pub use readers::{add_reader, add_writer, readers, writers};
pub use reset::forget;
pub use sinks::{
    Ahead, Attach, Attached, Cursor, LoggedBlock, LoggedReorg, Retracted, SinkLease, SinkNeeds, SinkOrder,
    SinkOverview, SinkRecord, SinkSpec, Stage, Standing, ahead, detach_late, forget_retracted, is_on_disk,
    is_taken, last_reorg, late_blocker, lock_reserved, lose_sinks, lose_sinks_behind, order_sink,
    read_retracted, retracted_block, sink_needs, sink_overview, sink_record, sinks_reach, write_retracted,
    written_to,
};
pub use sizes::{Size, Sizes, sizes};

use crate::block::Height;
use crate::db::DbError;
use crate::failure::Kind;

/// Why something could not be read from debshrew's tables, or written there.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("pipeline `{pipeline}` was set up with {key} `{was}`, and the configuration now says `{is}`")]
    Contradiction { pipeline: String, key: &'static str, was: String, is: String },
    #[error("another process has taken over pipeline `{pipeline}`, or its checkpoint was moved")]
    Fenced { pipeline: String },
    #[error("a sink of pipeline `{pipeline}` began, and needs the journals of the blocks that follow")]
    JournalNeeded { pipeline: String },
    #[error("PostgreSQL ended the session that holds the lock of {of}")]
    SessionEnded { of: String },
    #[error("PostgreSQL has not answered for {}", humantime::format_duration(*.0))]
    Silent(std::time::Duration),
    #[error("another process has taken over sink `{sink}`, or it was begun again or dropped")]
    SinkFenced { sink: String },
    #[error("sink `{sink}` was set up as `{was}`, and the configuration now says `{is}`")]
    SinkKind { sink: String, was: String, is: &'static str },
    #[error("pipeline `{0}` is not set up in this database: run `debshrew migrate`")]
    NotSetUp(String),
    #[error("pipeline `{pipeline}` has not committed height {height}, so it cannot be rolled back to it")]
    NotCommitted { pipeline: String, height: Height },
    #[error("debshrew's tables are damaged: {0}")]
    Damaged(&'static str),
}

impl RegisterError {
    pub fn kind(&self) -> Kind {
        match self {
            RegisterError::Db(error) => error.kind(),
            // Whoever is the writer now may go away again; the checkpoint is read anew before anything else.
            RegisterError::Fenced { .. }
            | RegisterError::SinkFenced { .. }
            | RegisterError::SessionEnded { .. }
            | RegisterError::Silent(_)
            | RegisterError::JournalNeeded { .. } => Kind::Transient,
            RegisterError::Contradiction { .. }
            | RegisterError::SinkKind { .. }
            | RegisterError::NotSetUp(_)
            | RegisterError::NotCommitted { .. }
            | RegisterError::Damaged(_) => Kind::Permanent,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<String> {
        match self {
            RegisterError::Contradiction { .. } => {
                Some("change it back, or give the pipeline another name to begin anew".into())
            }
            RegisterError::SinkKind { .. } => {
                Some("change it back, or give the sink another name and `debshrew sink drop` this one".into())
            }
            RegisterError::Db(_)
            | RegisterError::Fenced { .. }
            | RegisterError::SinkFenced { .. }
            | RegisterError::SessionEnded { .. }
            | RegisterError::Silent(_)
            | RegisterError::JournalNeeded { .. }
            | RegisterError::NotSetUp(_)
            | RegisterError::NotCommitted { .. }
            | RegisterError::Damaged(_) => None,
        }
    }
}

fn height(value: Option<i32>) -> Result<Option<Height>, RegisterError> {
    value
        .map(|height| Height::from_sql(height).ok_or(RegisterError::Damaged("a height is negative")))
        .transpose()
}

/// Whether a query failed because a table or schema that it names is not there: nothing is set up in the database, say.
pub fn is_missing(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    error.code().is_some_and(|code| [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code))
}
