//! Takes what is committed onward: a task a sink follows the committed chain, block by block, and publishes each block's
//! events, or their opposite where a block was rolled back.
//!
//! Sees only what is in the database. A pipeline never waits for it.

mod breaker;
mod console;
mod deadline;
mod error;
mod file;
pub mod format;
mod kafka;
mod open;
mod pattern;
mod readable;
mod reader;
mod setup;
mod sink;
mod snapshot;
mod step;
mod stream;
mod tail;
mod task;
mod webhook;

pub use error::RelayError;
pub use format::About;
pub use open::{console, open};
pub use setup::{Make, Relay, Until};
pub use sink::{Position, Sink, SinkError};
pub use step::{Step, StepKind};
pub use tail::Tail;
