//! A block's way in: its rows, their journals, the transform's state and the checkpoint, in one transaction.
//!
//! `order` decides in which order a block is tried first and `plan` what is sent (both pure), `statements` is its SQL, `transaction` sends it, `explain` finds out what failed, and `writer` keeps
//! several blocks on their way. Knows nothing of the source or of WebAssembly.
//!
//! # The protocol
//!
//! What every block's transaction keeps to, with one connection or several:
//!
//! 1. **Known before anything is sent:** that every value has its column's form, that no two changes are of one row, how
//!    many bytes each statement takes, and that every statement is prepared. What is too large is refused here, since a
//!    message that cannot be sent would leave a hole in the transaction.
//! 2. **Checked before a row is touched:** the epoch and the checkpoint, by `debshrew.advance`. It locks the checkpoint's
//!    row, so a writer that was replaced fails before it waits for its successor's row locks, or holds them up.
//! 3. **Nothing behind a gap:** after a part that could not be sent nothing is sent, neither of this block nor of the next
//!    ones. Should that fail, `debshrew.advance` refuses a checkpoint that its own transaction has moved, so a COMMIT that
//!    was lost can never join two blocks.
//! 4. **Checked by the server, before COMMIT:** that every row that was to be put was (`debshrew.rows_missing`), and that
//!    the table has no trigger or foreign key that it did not have when the tables were looked at
//!    (`debshrew.has_only_triggers`), as what it changes would not be journaled. COMMIT is on its way by then, and only the
//!    server can still hold it back.
//! 5. **In the order of emission if need be:** statements go by table and column set. Where a constraint or a trigger
//!    objects, the block is applied once more, a statement a change, before it is called wrong. Where a trigger or a
//!    default could tell the difference, the block goes that way at once (`order`).
//! 6. **The journal decides nothing:** whether a block is journaled makes no difference to its statements, but for the
//!    parts that journal. A row's first change in a block journals it as the block found it.
//! 7. **May come last:** the move of the checkpoint. With several connections a block writes the rows that no block in
//!    flight before it touches, waits for its predecessor, and then writes the others, moves the checkpoint and commits.
//!    Rule 2 is then kept by ending the connections of a writer that was replaced.
//!
//! A statement that is to be added goes into `statements`, and into `plan` where it is decided on.

mod explain;
mod order;
mod parameters;
mod plan;
mod statements;
mod transaction;
mod writer;

pub use writer::Writer;

use tokio_postgres::error::SqlState;

use crate::block::{BlockRef, StateRoot};
use crate::db::{DbError, kind_of};
use crate::failure::Kind;
use crate::register::RegisterError;
use crate::table::ChangeSet;

/// A block to commit.
#[derive(Debug)]
pub struct Block {
    pub at: BlockRef,
    pub changes: ChangeSet,
    pub journaling: Journaling,
    pub durability: Durability,
    /// What the source said of its state there, where it keeps roots.
    pub state_root: Option<StateRoot>,
}

/// Whether the reply to a block's COMMIT waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// What was replied to outlives a crash of PostgreSQL, and every block before it does.
    Strict,
    /// A crash of PostgreSQL may lose the latest such blocks, each with its checkpoint, so that they are done
    /// again. Source: PostgreSQL's manual, "Asynchronous Commit".
    Lazy,
}

/// Whether a block can be rolled back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Journaling {
    Kept,
    /// Nothing at or below this block can be rolled back to afterwards.
    Skipped,
}

/// Why a block was not committed. Whatever it is, nothing of the block is in the database.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error("PostgreSQL refused to {doing} table `{table}`{}", place(.column, .row))]
    Statement {
        doing: &'static str,
        table: String,
        column: Option<String>,
        /// The row's key, where it is known.
        row: Option<String>,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("PostgreSQL refused the block's transaction (to {doing})")]
    Transaction {
        doing: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("table `{table}`{}: {counts}; {by} must have kept the others out", place(&None, .row))]
    RowsMissing { table: String, counts: String, by: String, row: Option<String> },
    #[error(
        "table `{table}` has a trigger or a foreign key that it did not have: the tables are to be looked at once more"
    )]
    TriggerAppeared { table: String },
    #[error(
        "table `{table}`: a row of {bytes} bytes, most of them in column `{column}`, is more than PostgreSQL takes in one \
         message ({MAX_MESSAGE_BYTES})"
    )]
    TooLarge { table: String, column: String, bytes: usize },
    #[error("the connection of pipeline `{pipeline}`'s writer has ended")]
    Disconnected { pipeline: String },
}

/// PostgreSQL reads no longer message (`PQ_LARGE_MESSAGE_LIMIT` in its source), and some of it is not values.
const MAX_MESSAGE_BYTES: usize = (1 << 30) - (1 << 16);

/// What `debshrew.rows_missing` raises.
const ROWS_MISSING: &str = "DS002";

/// What `debshrew.has_only_triggers` raises.
const TRIGGER_APPEARED: &str = "DS003";

fn place(column: &Option<String>, row: &Option<String>) -> String {
    let column = column.as_ref().map(|name| format!(", at column `{name}`"));
    let row = row.as_ref().map(|row| format!(", in the row {row}"));
    column.unwrap_or_default() + &row.unwrap_or_default()
}

impl CommitError {
    pub fn kind(&self) -> Kind {
        match self {
            CommitError::Db(error) => error.kind(),
            CommitError::Register(error) => error.kind(),
            CommitError::Statement { source, .. } | CommitError::Transaction { source, .. } => {
                kind_of(source)
            }
            // Whoever takes over next looks at the tables first.
            CommitError::Disconnected { .. } | CommitError::TriggerAppeared { .. } => Kind::Transient,
            CommitError::RowsMissing { .. } | CommitError::TooLarge { .. } => Kind::Permanent,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<String> {
        match self {
            CommitError::Register(error) => error.advice(),
            CommitError::RowsMissing { .. } => {
                Some("drop the trigger, or emit only the rows that it lets in".into())
            }
            CommitError::TooLarge { .. } => Some("store the value in parts, in several rows".into()),
            CommitError::Db(_)
            | CommitError::Statement { .. }
            | CommitError::Transaction { .. }
            | CommitError::TriggerAppeared { .. }
            | CommitError::Disconnected { .. } => None,
        }
    }

    /// Whether the same changes may be fine in another order: a constraint or a trigger objects to what another change of
    /// the block would have put right before. A trigger may object with any error. In sets only references come right,
    /// since referenced tables go first there; what a trigger says of single changes stands.
    fn may_pass(&self, order: order::Order) -> bool {
        let code = match self {
            CommitError::RowsMissing { .. } => return order == order::Order::Emission,
            CommitError::Statement { source, .. } | CommitError::Transaction { source, .. } => {
                if kind_of(source) == Kind::Transient {
                    return false;
                }
                source.code()
            }
            CommitError::Db(_)
            | CommitError::Register(_)
            | CommitError::TooLarge { .. }
            | CommitError::TriggerAppeared { .. }
            | CommitError::Disconnected { .. } => return false,
        };
        match order {
            order::Order::Emission => code.is_some(),
            order::Order::Sets => code == Some(&SqlState::FOREIGN_KEY_VIOLATION),
        }
    }
}
