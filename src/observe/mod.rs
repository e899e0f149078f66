//! What the pipelines of this process do, as it happens: one place that is told, and from which the metrics, the terminal
//! and the server learn it.
//!
//! Nothing here decides anything, and nothing waits for it: whoever tells holds a lock for some hundred nanoseconds.

mod handles;
mod lag;
mod live;
pub mod metrics;
mod rates;
mod sinks;
mod told;

pub use handles::{Pool, ServerMetrics, journal_bytes, process, standbys, table_bytes};
pub use live::{
    BlockSnapshot, Observer, PipelineSnapshot, ProblemSnapshot, ReorgSnapshot, Snapshot, Watched,
};
pub use rates::Minute;
pub use sinks::{SinkMetrics, SinkProgress, sink};
pub use told::{Ahead, CommittedBlock, Evaluated, Reorg, State};
