//! What a kind of sink has to be able to do.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::step::Step;
use crate::failure::Kind;
use crate::register::Cursor;

/// Where events go. A task owns it and calls it from nowhere else; a call that fails is followed by [`Sink::open`] on a new
/// one, since nobody knows what became of it.
pub trait Sink: Send {
    /// Reaches for what is written to, and puts away what is left of a step that was not completed. Returns where its
    /// stream stands, if it keeps that itself; whatever it then says wins over the database.
    fn open(&mut self) -> BoxFuture<'_, Result<Position, SinkError>>;

    /// Takes a step. It need not be out before [`Sink::flush`] returns, and is published wholly or not at all where the sink
    /// keeps its position itself.
    fn publish<'a>(&'a mut self, step: &'a Step) -> BoxFuture<'a, Result<(), SinkError>>;

    /// How many steps to take before a flush, after which the cursor moves: at most so many come again where the sink keeps no
    /// position itself.
    fn steps_at_once(&self) -> usize {
        usize::MAX
    }

    /// Once this returns, all steps that were taken outlive a crash of either side.
    fn flush(&mut self) -> BoxFuture<'_, Result<(), SinkError>>;

    /// Looks whether it could be written to, and changes nothing: for `check`. Returns what is worth saying.
    fn check(&mut self) -> BoxFuture<'_, Result<Vec<String>, SinkError>>;
}

/// What a sink says of its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// It keeps none; steps may come again.
    NotKept,
    /// It keeps one, and nothing was ever completed.
    Empty,
    At(Cursor),
}

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// What failed and where, in a sentence; the cause follows as `source`.
    pub message: String,
    pub kind: Kind,
    /// What to do about it.
    pub advice: Option<String>,
    /// The sink asked for a pause of this length.
    pub retry_after: Option<Duration>,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SinkError {
    /// May pass by itself.
    pub fn transient(message: impl Into<String>) -> SinkError {
        SinkError::new(Kind::Transient, message.into())
    }

    /// Comes back however often it is tried: the sink halts.
    pub fn permanent(message: impl Into<String>) -> SinkError {
        SinkError::new(Kind::Permanent, message.into())
    }

    fn new(kind: Kind, message: String) -> SinkError {
        SinkError { message, kind, advice: None, retry_after: None, source: None }
    }

    /// Nobody reads what is written any more.
    pub fn is_closed_pipe(&self) -> bool {
        let cause = self.source.as_deref().and_then(|source| source.downcast_ref::<std::io::Error>());
        cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    }

    pub fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SinkError {
        SinkError { source: Some(source.into()), ..self }
    }

    pub fn advise(self, advice: impl Into<String>) -> SinkError {
        SinkError { advice: Some(advice.into()), ..self }
    }
}
