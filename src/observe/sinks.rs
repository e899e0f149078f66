//! The metrics of sinks: what this process publishes, and how far they are, whoever does.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, gauge, histogram};

/// The states of `debshrew.sinks`.
const STATES: [&str; 8] = ["new", "snapshot", "streaming", "waiting", "halted", "paused", "lost", "stopped"];

/// A sink that this process runs, for whoever does to tell how it goes.
#[derive(Clone)]
pub struct SinkMetrics {
    events: Counter,
    applied: Counter,
    retracted: Counter,
    snapshot: Counter,
    seconds: Histogram,
    failures: Counter,
}

impl SinkMetrics {
    pub fn new(pipeline: &str, sink: &str) -> SinkMetrics {
        let (pipeline, sink) = (|| pipeline.to_owned(), || sink.to_owned());
        let steps = |step: &'static str| counter!("debshrew_sink_steps_total", "pipeline" => pipeline(), "sink" => sink(), "step" => step);
        SinkMetrics {
            events: counter!("debshrew_sink_events_total", "pipeline" => pipeline(), "sink" => sink()),
            applied: steps("apply"),
            retracted: steps("retract"),
            snapshot: steps("snapshot"),
            seconds: histogram!("debshrew_sink_publish_seconds", "pipeline" => pipeline(), "sink" => sink()),
            failures: counter!("debshrew_sink_failures_total", "pipeline" => pipeline(), "sink" => sink()),
        }
    }

    /// A step was taken: `apply`, `retract` or `snapshot`.
    pub fn took(&self, step: &str, events: u64) {
        let steps = match step {
            "apply" => &self.applied,
            "retract" => &self.retracted,
            _ => &self.snapshot,
        };
        steps.increment(1);
        self.events.increment(events);
    }

    /// Steps are safe that were published together.
    pub fn published(&self, took: Duration) {
        self.seconds.record(took);
    }

    pub fn failed(&self) {
        self.failures.increment(1);
    }
}

/// How far a sink is, as the database has it.
#[derive(Clone, Copy, Debug)]
pub struct SinkProgress<'a> {
    pub state: &'a str,
    pub height: Option<i32>,
    pub lag_blocks: Option<i32>,
    pub lag_seconds: Option<f64>,
}

/// Tells how far a sink is.
pub fn sink(pipeline: &str, sink: &str, progress: SinkProgress<'_>) {
    let labels = || [("pipeline", pipeline.to_owned()), ("sink", sink.to_owned())];
    gauge!("debshrew_sink_height", &labels()).set(progress.height.unwrap_or(-1));
    gauge!("debshrew_sink_lag_blocks", &labels()).set(progress.lag_blocks.unwrap_or_default());
    gauge!("debshrew_sink_lag_seconds", &labels()).set(progress.lag_seconds.unwrap_or_default());
    for state in STATES {
        let is = f64::from(u8::from(state == progress.state));
        gauge!("debshrew_sink_state", "pipeline" => pipeline.to_owned(), "sink" => sink.to_owned(), "state" => state)
            .set(is);
    }
}
