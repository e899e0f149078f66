//! What it takes to run a sink.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::sink::{Sink, SinkError};
use crate::config;
use crate::db::Db;
use crate::observe::SinkMetrics;

/// Makes a sink, which opens nothing before it is asked to.
pub type Make = Arc<dyn Fn() -> Result<Box<dyn Sink>, SinkError> + Send + Sync>;

/// A sink of a pipeline, to be run.
#[derive(Clone)]
pub struct Relay {
    pub pipeline: String,
    pub name: String,
    pub settings: config::Sink,
    pub db: Db,
    pub make: Make,
    pub metrics: SinkMetrics,
    /// Something may have been committed.
    pub wake: tokio::sync::watch::Receiver<u64>,
}

/// When a stream ends.
#[derive(Clone)]
pub struct Until {
    /// At once, between two steps.
    pub stop: CancellationToken,
    /// When everything that is committed is published; at once, too, if that cannot be.
    pub finish: CancellationToken,
}
