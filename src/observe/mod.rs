//! What the pipelines of this process do, as it happens: one place that is told, and from which the metrics, the terminal
//! and the server learn it.
//!
//! Nothing here decides anything, and nothing waits for it: whoever tells holds a lock for some hundred nanoseconds.

mod live;
pub mod metrics;
mod rates;

pub use live::{
    CommittedBlock, Evaluated, Observer, PipelineSnapshot, Reorg, ReorgSnapshot, Snapshot, State, Watched,
};
pub use rates::Minute;
