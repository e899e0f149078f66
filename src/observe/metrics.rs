//! The metrics: their names, what they mean, and their buckets. docs/metrics.md has the same table, which a test holds to
//! this one. Where they are counted is `handles`.
//!
//! Counted through the `metrics` crate's facade, so that it costs nothing unless something collects them.

use metrics::Unit;

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
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
const SERVER: &[&str] = &["server"];
const SINK: &[&str] = &["pipeline", "sink"];

/// From a block that is next to nothing to one that takes a minute.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Most reorganisations are of a block or two; deeper than 100 halts, unless it is accepted.
const DEPTHS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0];

/// All of them, in the order of the manual.
pub const METRICS: &[Metric] = &[
    metric(
        "debshrew_checkpoint_height",
        Kind::Gauge,
        Unit::Count,
        PIPELINE,
        "The last committed block; -1 before the first, or when none is known.",
    ),
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
        "Blocks between the last committed one and the source's tip; 0 while another process writes.",
    ),
    metric(
        "debshrew_lag_seconds",
        Kind::Gauge,
        Unit::Seconds,
        PIPELINE,
        "How long ago the source was first seen to have a block, confirmed as often as is asked for, that is not committed yet; 0 when there is none.",
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
        Kind::Histogram(SECONDS),
        Unit::Seconds,
        PIPELINE,
        "How long the transform computed for a block.",
    ),
    metric(
        "debshrew_view_wait_seconds",
        Kind::Histogram(SECONDS),
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
    metric(
        "debshrew_fuel_used_total",
        Kind::Counter,
        Unit::Count,
        PIPELINE,
        "Fuel that transforms used, about one unit an instruction.",
    ),
    metric(
        "debshrew_commit_seconds",
        Kind::Histogram(SECONDS),
        Unit::Seconds,
        PIPELINE,
        "How long a block's transaction took; of several that are sent together, the average.",
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
        Kind::Histogram(DEPTHS),
        Unit::Count,
        PIPELINE,
        "How many blocks a reorganisation took back.",
    ),
    metric(
        "debshrew_rollback_seconds",
        Kind::Histogram(SECONDS),
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
    metric(
        "debshrew_evaluations_ahead",
        Kind::Gauge,
        Unit::Count,
        PIPELINE,
        "Blocks that are evaluated at once, at most, as pays now.",
    ),
    metric(
        "debshrew_evaluation_memory_bytes",
        Kind::Gauge,
        Unit::Bytes,
        PIPELINE,
        "What the blocks that are evaluated at once are expected to hold.",
    ),
    metric(
        "debshrew_evaluation_memory_limit_bytes",
        Kind::Gauge,
        Unit::Bytes,
        PIPELINE,
        "What they may hold before fewer are evaluated at once.",
    ),
    metric(
        "debshrew_table_bytes",
        Kind::Gauge,
        Unit::Bytes,
        &["pipeline", "table"],
        "A table's size, indexes included; sampled every 30 s.",
    ),
    metric(
        "debshrew_journal_bytes",
        Kind::Gauge,
        Unit::Bytes,
        PIPELINE,
        "The size of the pipeline's journals; sampled every 30 s.",
    ),
    metric(
        "debshrew_standbys",
        Kind::Gauge,
        Unit::Count,
        PIPELINE,
        "Processes that wait to take over the pipeline; sampled every 5 s.",
    ),
    metric(
        "debshrew_sink_height",
        Kind::Gauge,
        Unit::Count,
        SINK,
        "The last block that the sink published, whichever process does; -1 before the first; sampled every 5 s.",
    ),
    metric(
        "debshrew_sink_lag_blocks",
        Kind::Gauge,
        Unit::Count,
        SINK,
        "Committed blocks that the sink has not published; sampled every 5 s.",
    ),
    metric(
        "debshrew_sink_lag_seconds",
        Kind::Gauge,
        Unit::Seconds,
        SINK,
        "How long ago the sink could have published its next block; 0 when there is none; sampled every 5 s.",
    ),
    metric(
        "debshrew_sink_state",
        Kind::Gauge,
        Unit::Count,
        &["pipeline", "sink", "state"],
        "1 for the state that the sink is in, 0 for the others; sampled every 5 s.",
    ),
    metric(
        "debshrew_sink_events_total",
        Kind::Counter,
        Unit::Count,
        SINK,
        "Events that this process published.",
    ),
    metric(
        "debshrew_sink_steps_total",
        Kind::Counter,
        Unit::Count,
        &["pipeline", "sink", "step"],
        "Steps that this process published: `apply`, `retract` or `snapshot`.",
    ),
    metric(
        "debshrew_sink_publish_seconds",
        Kind::Histogram(SECONDS),
        Unit::Seconds,
        SINK,
        "How long steps took that were published together.",
    ),
    metric("debshrew_sink_failures_total", Kind::Counter, Unit::Count, SINK, "Failures to publish."),
    metric(
        "debshrew_source_requests_total",
        Kind::Counter,
        Unit::Count,
        SERVER,
        "Requests to a metashrew server, repeated ones included.",
    ),
    metric(
        "debshrew_source_request_seconds",
        Kind::Histogram(SECONDS),
        Unit::Seconds,
        SERVER,
        "How long a request took, answer included.",
    ),
    metric(
        "debshrew_source_retries_total",
        Kind::Counter,
        Unit::Count,
        SERVER,
        "Requests that were repeated after a transient failure.",
    ),
    metric(
        "debshrew_source_failures_total",
        Kind::Counter,
        Unit::Count,
        SERVER,
        "Calls that failed for good: refused, or with all their retries.",
    ),
    metric(
        "debshrew_source_resting",
        Kind::Gauge,
        Unit::Count,
        SERVER,
        "1 while the server is left alone after repeated failure (circuit breaker), else 0.",
    ),
    metric(
        "debshrew_pool_connections",
        Kind::Gauge,
        Unit::Count,
        &["state"],
        "Connections of the database pool: `in_use` or `idle`.",
    ),
    metric(
        "debshrew_pool_connections_limit",
        Kind::Gauge,
        Unit::Count,
        &[],
        "Most connections that the pool may have.",
    ),
    metric(
        "debshrew_pool_waiting",
        Kind::Gauge,
        Unit::Count,
        &[],
        "Tasks that wait for a connection of the pool.",
    ),
    metric(
        "debshrew_build_info",
        Kind::Gauge,
        Unit::Count,
        &["version"],
        "Always 1; the version is in the label.",
    ),
    metric(
        "process_start_time_seconds",
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "When the process started, in seconds since 1970.",
    ),
];

/// Tells the collector what they mean.
pub fn describe() {
    for Metric { name, kind, unit, help, .. } in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *unit, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *unit, *help),
            Kind::Histogram(_) => metrics::describe_histogram!(*name, *unit, *help),
        }
    }
}
