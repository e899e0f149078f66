//! What a block does to the database: its rows, their journals, the transform's state and the checkpoint, in
//! one transaction; and the way back.
//!
//! Owns every statement that is sent for a pipeline. Knows nothing of the source or of WebAssembly.

pub mod checkpoint;
mod datum;
pub mod journal;
mod keys;
mod plan;
pub mod prune;
mod record;
mod rollback;
mod rows;
pub mod setup;
mod sql;
pub mod state;
pub mod target;
mod transaction;
mod witness;
mod writer;

pub use rollback::{Cause, RolledBack};
pub use rows::{ChangeError, Resolved, StateWrite, Targets};
pub use writer::{Block, Durability, Journaling, Writer};

use tokio_postgres::error::SqlState;

use crate::block::Height;
use crate::db::{DbError, kind_of};
use crate::failure::Kind;

/// Why something was not applied. Whatever it is, nothing of the block or rollback is in the database.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(
        "pipeline `{pipeline}` was set up with {key} `{was}`, and the configuration now says `{is}`: change it back, \
         or give the pipeline another name to begin anew"
    )]
    Contradiction { pipeline: String, key: &'static str, was: String, is: String },
    #[error("PostgreSQL refused to {doing} table `{table}`{}", at_column(.column))]
    Statement {
        doing: &'static str,
        table: String,
        column: Option<String>,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("PostgreSQL refused the block's transaction (to {doing})")]
    Transaction {
        doing: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error(
        "table `{table}`: {got} rows were written where {expected} should have been; a trigger or a rule must have \
         kept the others out"
    )]
    RowsMissing { table: String, expected: u64, got: u64 },
    #[error("key column `{column}` of table `{table}` is {declared} and would store {got} as another value")]
    KeyChanged { table: String, column: String, declared: String, got: String },
    #[error("the connection of pipeline `{pipeline}`'s writer has ended")]
    Disconnected { pipeline: String },
    #[error("another process has taken over pipeline `{pipeline}`, or its checkpoint was moved")]
    Fenced { pipeline: String },
    #[error(
        "the journal of pipeline `{pipeline}` reaches back to height {floor}, and {} is needed: set a higher \
         `retention` before the next time; now either follow a source on the committed branch, or set the pipeline \
         up anew (drop its schemas `{schema}` and `debshrew_{pipeline}`, delete its row in `debshrew.pipeline`, and \
         run `debshrew migrate`)", or_start(.to)
    )]
    TooDeep { pipeline: String, schema: String, floor: Height, to: Option<Height> },
    #[error("pipeline `{0}` is not set up in this database: run `debshrew migrate`")]
    NotSetUp(String),
    #[error(
        "the tables of pipeline `{pipeline}` have changed since `debshrew migrate` was run last ({differences}); run it"
    )]
    OutOfStep { pipeline: String, differences: String },
    #[error("pipeline `{pipeline}` is being written by a running debshrew: stop it first")]
    Running { pipeline: String },
    #[error("table `{table}` cannot be replicated: {reasons}")]
    Refused { table: String, reasons: String },
}

fn at_column(column: &Option<String>) -> String {
    column.as_ref().map(|name| format!(", at column `{name}`")).unwrap_or_default()
}

fn or_start(height: &Option<Height>) -> String {
    height.map_or("the state before the first block".to_owned(), |height| format!("height {height}"))
}

impl ApplyError {
    pub fn kind(&self) -> Kind {
        match self {
            ApplyError::Db(error) => error.kind(),
            ApplyError::Statement { source, .. } | ApplyError::Transaction { source, .. } => kind_of(source),
            // Whoever is the writer now may go away again; the checkpoint is read anew before anything else.
            ApplyError::Fenced { .. } | ApplyError::Disconnected { .. } => Kind::Transient,
            _ => Kind::Permanent,
        }
    }
}

/// What `debshrew.advance` raises when the checkpoint is not where the caller believes.
pub(crate) const FENCED: &str = "DS001";

/// What a failure of one of a transaction's own statements means.
fn transaction_error(pipeline: &str, doing: &'static str, source: tokio_postgres::Error) -> ApplyError {
    if source.code() == Some(&SqlState::from_code(FENCED)) {
        ApplyError::Fenced { pipeline: pipeline.to_owned() }
    } else {
        ApplyError::Transaction { doing, source }
    }
}

/// A named point at which a test may end the process (the feature `failpoints`).
fn crash_point(_name: &str) {
    fail::fail_point!(_name, |_| -> () { std::process::abort() });
}
