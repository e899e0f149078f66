//! The metrics of a pipeline and of a source's server, looked up once, and told what happens; and those that are set when
//! somebody looks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::told::{Ahead, CommittedBlock, Evaluated, Reorg, State};
use crate::block::Height;

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
    lag_seconds: Gauge,
    ahead: Gauge,
    memory: Gauge,
    memory_limit: Gauge,
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
            lag_seconds: gauge!("debshrew_lag_seconds", "pipeline" => name()),
            ahead: gauge!("debshrew_evaluations_ahead", "pipeline" => name()),
            memory: gauge!("debshrew_evaluation_memory_bytes", "pipeline" => name()),
            memory_limit: gauge!("debshrew_evaluation_memory_limit_bytes", "pipeline" => name()),
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
        // Before the first block there is none: below the genesis block.
        self.checkpoint.set(checkpoint.map_or(-1.0, |height| f64::from(height.get())));
        if let Some(tip) = tip {
            self.source.set(tip.get());
        }
        // Nobody is to be told of a lag that is another process's by now.
        self.lag.set(lag.unwrap_or_default());
    }

    pub(super) fn lag_seconds(&self, lag: Duration) {
        self.lag_seconds.set(lag);
    }

    pub(super) fn ahead(&self, ahead: &Ahead) {
        self.ahead.set(ahead.blocks as f64);
        self.memory.set(ahead.bytes as f64);
        self.memory_limit.set(ahead.most_bytes as f64);
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

/// A server of the source, for whoever asks it to tell how that went. They are the process's, since its pipelines share
/// the source.
pub struct ServerMetrics {
    requests: Counter,
    seconds: Histogram,
    retries: Counter,
    failures: Counter,
    resting: Gauge,
}

impl ServerMetrics {
    /// `shown` is its URL as it may be shown.
    pub fn new(shown: &str) -> ServerMetrics {
        let server = || shown.to_owned();
        ServerMetrics {
            requests: counter!("debshrew_source_requests_total", "server" => server()),
            seconds: histogram!("debshrew_source_request_seconds", "server" => server()),
            retries: counter!("debshrew_source_retries_total", "server" => server()),
            failures: counter!("debshrew_source_failures_total", "server" => server()),
            resting: gauge!("debshrew_source_resting", "server" => server()),
        }
    }

    /// A request was answered, or not.
    pub fn asked(&self, took: Duration) {
        self.requests.increment(1);
        self.seconds.record(took);
    }

    pub fn retries(&self) {
        self.retries.increment(1);
    }

    /// A call failed for good.
    pub fn failed(&self) {
        self.failures.increment(1);
    }

    /// Whether it is left alone, until a call succeeds.
    pub fn rests(&self, rests: bool) {
        self.resting.set(f64::from(u8::from(rests)));
    }
}

/// What is known of the process from its start.
pub fn process(started: SystemTime) {
    gauge!("debshrew_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("process_start_time_seconds").set(started.duration_since(UNIX_EPOCH).unwrap_or_default());
}

/// The pool of connections to the database.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub in_use: usize,
    pub idle: usize,
    pub most: usize,
    /// Who waits for a connection.
    pub waiting: usize,
}

impl Pool {
    pub fn tell(&self) {
        gauge!("debshrew_pool_connections", "state" => "in_use").set(self.in_use as f64);
        gauge!("debshrew_pool_connections", "state" => "idle").set(self.idle as f64);
        gauge!("debshrew_pool_connections_limit").set(self.most as f64);
        gauge!("debshrew_pool_waiting").set(self.waiting as f64);
    }
}

/// A table's size, indexes and what is stored apart included.
pub fn table_bytes(pipeline: &str, table: &str, bytes: u64) {
    gauge!("debshrew_table_bytes", "pipeline" => pipeline.to_owned(), "table" => table.to_owned())
        .set(bytes as f64);
}

/// The size of all journals of a pipeline.
pub fn journal_bytes(pipeline: &str, bytes: u64) {
    gauge!("debshrew_journal_bytes", "pipeline" => pipeline.to_owned()).set(bytes as f64);
}

/// How many processes stand by for a pipeline.
pub fn standbys(pipeline: &str, count: usize) {
    gauge!("debshrew_standbys", "pipeline" => pipeline.to_owned()).set(count as f64);
}
