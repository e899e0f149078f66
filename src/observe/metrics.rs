//! The metrics: their names, what they mean, and where they are counted. docs/metrics.md has the same table, which a test
//! holds to this one.
//!
//! Counted through the `metrics` crate's facade, so that it costs nothing unless something collects them.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};

use super::live::{CommittedBlock, Evaluated, Reorg, State};
use crate::block::Height;

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric, as its table has it.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

const PIPELINE: &[&str] = &["pipeline"];

/// All of them, in the order of the manual.
pub const METRICS: &[Metric] = &[
    metric("debshrew_checkpoint_height", Kind::Gauge, Unit::Count, PIPELINE, "The last committed block."),
    metric(
        "debshrew_source_height",
        Kind::Gauge,
        Unit::Count,
        PIPELINE,
        "The source's tip when it was last looked at.",
    ),
    metric(
        "debshrew_lag_blocks",
        Kind::Gauge,
        Unit::Count,
        PIPELINE,
        "Blocks between the last committed one and the source's tip.",
    ),
    metric(
        "debshrew_state",
        Kind::Gauge,
        Unit::Count,
        &["pipeline", "state"],
        "1 for the state that the pipeline is in, 0 for the others.",
    ),
    metric(
        "debshrew_blocks_committed_total",
        Kind::Counter,
        Unit::Count,
        PIPELINE,
        "Blocks that were committed.",
    ),
    metric(
        "debshrew_rows_changed_total",
        Kind::Counter,
        Unit::Count,
        &["pipeline", "table"],
        "Rows that blocks changed.",
    ),
    metric(
        "debshrew_evaluation_seconds",
        Kind::Histogram,
        Unit::Seconds,
        PIPELINE,
        "How long the transform computed for a block.",
    ),
    metric(
        "debshrew_view_wait_seconds",
        Kind::Histogram,
        Unit::Seconds,
        PIPELINE,
        "How long a block's evaluation waited for views.",
    ),
    metric(
        "debshrew_views_total",
        Kind::Counter,
        Unit::Count,
        PIPELINE,
        "Views that transforms were answered.",
    ),
    metric("debshrew_fuel_used_total", Kind::Counter, Unit::Count, PIPELINE, "Fuel that transforms used."),
    metric(
        "debshrew_commit_seconds",
        Kind::Histogram,
        Unit::Seconds,
        PIPELINE,
        "How long a block's transaction took, of several sent together the average.",
    ),
    metric(
        "debshrew_reorgs_total",
        Kind::Counter,
        Unit::Count,
        PIPELINE,
        "Reorganisations that were rolled back.",
    ),
    metric(
        "debshrew_reorg_depth_blocks",
        Kind::Histogram,
        Unit::Count,
        PIPELINE,
        "How many blocks a reorganisation took back.",
    ),
    metric(
        "debshrew_rollback_seconds",
        Kind::Histogram,
        Unit::Seconds,
        PIPELINE,
        "How long a rollback took.",
    ),
    metric(
        "debshrew_rows_rolled_back_total",
        Kind::Counter,
        Unit::Count,
        PIPELINE,
        "Rows that rollbacks put back or removed.",
    ),
];

/// Tells the collector what they mean.
pub fn describe() {
    for Metric { name, kind, unit, help, .. } in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *unit, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *unit, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, *unit, *help),
        }
    }
}

const STATES: [(State, &str); 6] = [
    (State::Starting, "starting"),
    (State::Standby, "standby"),
    (State::Running, "running"),
    (State::Waiting, "waiting"),
    (State::Halted, "halted"),
    (State::Stopped, "stopped"),
];

/// A pipeline's metrics, looked up once.
pub(super) struct Handles {
    checkpoint: Gauge,
    source: Gauge,
    lag: Gauge,
    states: Vec<(State, Gauge)>,
    blocks: Counter,
    evaluation: Histogram,
    view_wait: Histogram,
    views: Counter,
    fuel: Counter,
    commit: Histogram,
    reorgs: Counter,
    depth: Histogram,
    rollback: Histogram,
    rolled_back: Counter,
}

impl Handles {
    pub(super) fn new(pipeline: &str) -> Handles {
        let name = || pipeline.to_owned();
        let states = STATES
            .iter()
            .map(|(state, text)| (*state, gauge!("debshrew_state", "pipeline" => name(), "state" => *text)));
        Handles {
            checkpoint: gauge!("debshrew_checkpoint_height", "pipeline" => name()),
            source: gauge!("debshrew_source_height", "pipeline" => name()),
            lag: gauge!("debshrew_lag_blocks", "pipeline" => name()),
            states: states.collect(),
            blocks: counter!("debshrew_blocks_committed_total", "pipeline" => name()),
            evaluation: histogram!("debshrew_evaluation_seconds", "pipeline" => name()),
            view_wait: histogram!("debshrew_view_wait_seconds", "pipeline" => name()),
            views: counter!("debshrew_views_total", "pipeline" => name()),
            fuel: counter!("debshrew_fuel_used_total", "pipeline" => name()),
            commit: histogram!("debshrew_commit_seconds", "pipeline" => name()),
            reorgs: counter!("debshrew_reorgs_total", "pipeline" => name()),
            depth: histogram!("debshrew_reorg_depth_blocks", "pipeline" => name()),
            rollback: histogram!("debshrew_rollback_seconds", "pipeline" => name()),
            rolled_back: counter!("debshrew_rows_rolled_back_total", "pipeline" => name()),
        }
    }

    pub(super) fn state(&self, now: State) {
        for (state, gauge) in &self.states {
            gauge.set(f64::from(u8::from(*state == now)));
        }
    }

    pub(super) fn heights(&self, checkpoint: Option<Height>, tip: Option<Height>, lag: Option<u32>) {
        let set = |gauge: &Gauge, value: Option<u32>| {
            if let Some(value) = value {
                gauge.set(value);
            }
        };
        // Before the first block there is none: below the genesis block.
        self.checkpoint.set(checkpoint.map_or(-1.0, |height| f64::from(height.get())));
        set(&self.source, tip.map(Height::get));
        set(&self.lag, lag);
    }

    pub(super) fn evaluated(&self, done: &Evaluated) {
        self.evaluation.record(done.computed);
        self.view_wait.record(done.waited);
        self.views.increment(u64::from(done.views));
        self.fuel.increment(done.fuel);
    }

    pub(super) fn committed(&self, pipeline: &str, done: &CommittedBlock<'_>) {
        self.blocks.increment(1);
        for (table, rows) in done.tables {
            counter!("debshrew_rows_changed_total", "pipeline" => pipeline.to_owned(), "table" => (*table).to_owned())
                .increment(*rows);
        }
    }

    pub(super) fn commits_took(&self, blocks: usize, took: Duration) {
        let each = took.checked_div(u32::try_from(blocks).unwrap_or(u32::MAX)).unwrap_or(took);
        for _ in 0..blocks {
            self.commit.record(each);
        }
    }

    pub(super) fn rolled_back(&self, done: &Reorg) {
        self.reorgs.increment(1);
        self.depth.record(f64::from(done.depth));
        self.rollback.record(done.took);
        self.rolled_back.increment(done.rows);
    }
}
