//! The way back: every row and the state as they were when an earlier block was the checkpoint; and taking away images
//! that nobody needs any more.
//!
//! `rollback` is the transaction, `images` reads what the journals hold, `statements` puts it back, `guard` keeps everything
//! else out meanwhile. What is derived from journals, such as the events of a block, goes here too.

mod derive;
mod event;
mod guard;
mod images;
mod prune;
mod retract;
mod rollback;
mod statements;

pub use derive::{Derived, Range, derive};
pub use event::{Event, EventColumn, EventTable, EventType, Operation, Row};
pub use prune::Pruner;
pub use retract::read_events;
pub use rollback::{check_reach, refuse_lost, roll_back};

use crate::block::Height;
use crate::db::{DbError, kind_of, quote};
use crate::failure::Kind;
use crate::register::RegisterError;

/// Why something was not undone. Whatever it is, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error("PostgreSQL refused to roll back table `{table}`")]
    Statement {
        table: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("the journal of pipeline `{pipeline}` reaches back to height {floor}, and {} is needed", or_start(.to))]
    TooDeep { pipeline: String, floor: Height, to: Option<Height> },
    #[error("pipeline `{pipeline}` has no block above {to} to roll back")]
    NothingAbove { pipeline: String, to: String },
    #[error("table `{table}` cannot be rolled back, since it cannot be replicated any more: {reason}")]
    Refused { table: String, reason: String },
    #[error(
        "table {outside}, which is not replicated, references table `{table}` (`{constraint}`): a rollback could not take \
         rows out, or would take that table's rows along"
    )]
    Referenced { table: String, outside: String, constraint: String },
    #[error(
        "table `{table}` has the unique index `{index}`, which it did not have: the tables are to be looked at once more"
    )]
    NewUnique { table: String, index: String },
    #[error(
        "table `{table}` would not be what it was: {restored} of {expected} rows came out as the journal has them, so \
         nothing was rolled back"
    )]
    Unproven { table: String, expected: i64, restored: i64 },
}

fn or_start(height: &Option<Height>) -> String {
    height.map_or("the state before the first block".to_owned(), |height| format!("height {height}"))
}

impl UndoError {
    pub fn kind(&self) -> Kind {
        match self {
            UndoError::Db(error) => error.kind(),
            UndoError::Register(error) => error.kind(),
            UndoError::Statement { source, .. } => kind_of(source),
            // Whoever takes over next looks at the tables first.
            UndoError::NewUnique { .. } => Kind::Transient,
            UndoError::TooDeep { .. }
            | UndoError::NothingAbove { .. }
            | UndoError::Refused { .. }
            | UndoError::Referenced { .. }
            | UndoError::Unproven { .. } => Kind::Permanent,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<String> {
        match self {
            UndoError::Register(error) => error.advice(),
            UndoError::TooDeep { pipeline, .. } => Some(format!(
                "the journal reaches no further because of `retention`, or since a migration converted rows (`debshrew \
                 migrate` said so). If the source comes back to the committed branch, `debshrew run` goes on. Otherwise \
                 process all blocks again: `debshrew reset {pipeline}`, then `debshrew migrate` and `debshrew run`"
            )),
            UndoError::Refused { .. } => Some("take the reason away, and start `debshrew run` again".into()),
            UndoError::Referenced { outside, constraint, .. } => {
                Some(format!("`alter table {outside} drop constraint {}`", quote(constraint)))
            }
            UndoError::Unproven { .. } => Some(
                "look for what changes rows of this table beside debshrew, such as a trigger of the system's; \
                 `debshrew check` may find it"
                    .into(),
            ),
            UndoError::Db(_)
            | UndoError::Statement { .. }
            | UndoError::NewUnique { .. }
            | UndoError::NothingAbove { .. } => None,
        }
    }
}
