//! Why a sink's stream does not go on.

use super::sink::SinkError;
use crate::block::Height;
use crate::db::DbError;
use crate::failure::Kind;
use crate::register::RegisterError;
use crate::schema::SchemaError;

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error("the tables cannot be read")]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("{what} took longer than {seconds} s")]
    Deadline { what: &'static str, seconds: u64 },
    #[error(
        "block {block}, which was published, is neither committed nor was it rolled back: the database has lost commits, as \
         after a fail-over to a server that did not have them"
    )]
    Orphaned { block: String },
    #[error("what is to be published next is not kept any more: {0}")]
    Lost(String),
    #[error("it is to begin with block {wanted}, and the journals begin with {first}")]
    TooLate { wanted: String, first: String },
    #[error("block {height} is not committed yet; the next one is {next}")]
    NotCommitted { height: Height, next: Height },
    #[error("it halted, or must begin again: {0}")]
    Stuck(String),
    #[error("there is a stream already where it is to write, up to {at}")]
    Occupied { at: String },
    #[error("nothing is left of what was published up to {at}")]
    Vanished { at: String },
    #[error("what a rollback took back cannot be read (`debshrew.retracted`)")]
    Unreadable,
}

impl RelayError {
    pub fn kind(&self) -> Kind {
        match self {
            RelayError::Db(error) => error.kind(),
            RelayError::Register(error) => error.kind(),
            RelayError::Schema(error) => error.kind(),
            RelayError::Sink(error) => error.kind,
            RelayError::Deadline { .. } => Kind::Transient,
            RelayError::Orphaned { .. }
            | RelayError::Lost(_)
            | RelayError::TooLate { .. }
            | RelayError::NotCommitted { .. }
            | RelayError::Stuck(_)
            | RelayError::Occupied { .. }
            | RelayError::Vanished { .. }
            | RelayError::Unreadable => Kind::Permanent,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<String> {
        const RESYNC: &str = "`debshrew sink resync` begins the stream again, with a snapshot";
        match self {
            RelayError::Register(error) => error.advice(),
            RelayError::Schema(error) => error.advice(),
            RelayError::Sink(error) => error.advice.clone(),
            RelayError::Orphaned { .. } | RelayError::Lost(_) | RelayError::Unreadable => Some(RESYNC.into()),
            RelayError::TooLate { .. } => Some("say `from = \"snapshot\"`, or a later block".into()),
            RelayError::Occupied { .. } => Some(
                "let it write elsewhere, or say `debshrew sink resync` to append to what is there".into(),
            ),
            RelayError::Vanished { .. } => Some(format!("put it back, or begin again: {RESYNC}")),
            RelayError::Db(_)
            | RelayError::Deadline { .. }
            | RelayError::NotCommitted { .. }
            | RelayError::Stuck(_) => None,
        }
    }
}
