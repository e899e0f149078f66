//! The metrics, read as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use debshrew::observe::metrics::{Kind, METRICS, Metric};
use prometheus_parse::{Scrape, Value};

use super::{Served, ends_well, pipeline};
use crate::support::until;

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Counter(_) => "counter",
        Value::Gauge(_) => "gauge",
        Value::Histogram(_) => "histogram",
        Value::Summary(_) => "summary",
        Value::Untyped(_) => "untyped",
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}

async fn scrape(served: &Served) -> Scrape {
    let answer = served.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Scrape::parse(answer.body.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// A counter's or gauge's value, or how many a histogram has counted.
fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &&prometheus_parse::Sample| {
        sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value))
    };
    let sample = scrape.samples.iter().find(has).unwrap_or_else(|| panic!("no {name} {labels:?}"));
    match &sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
        Value::Histogram(buckets) => buckets.last().unwrap().count,
        Value::Summary(_) => panic!("{name} is a summary"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_what_their_table_says() {
    let served = Served::new("server_metrics", "", 20).await.with_sink();
    let running = served.start().await;
    served.scene.caught_up().await;
    served.scene.reorganise(3, 5).await;
    served.scene.settled().await;
    served.scene.caught_up().await;
    until("all of it is there", async || {
        let body = served.get("/metrics").await.body;
        body.contains("debshrew_journal_bytes") && body.contains("debshrew_sink_height")
    })
    .await;
    let scrape = scrape(&served).await;

    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    for sample in &scrape.samples {
        // Parts of a histogram that the parser leaves as they are.
        let name = ["_sum", "_count"].iter().find_map(|part| {
            let name = sample.metric.strip_suffix(part)?;
            METRICS.iter().any(|metric| metric.name == name).then_some(name)
        });
        if name.is_some() {
            continue;
        }
        labels.entry(&sample.metric).or_default().extend(sample.labels.keys().map(String::as_str));
        kinds.insert(sample.metric.as_str(), kind_of(&sample.value));
    }
    for Metric { name, kind, labels: expected, help, unit } in METRICS {
        let told = kinds.remove(name);
        assert_eq!(told, Some(name_of(*kind)), "{name}");
        assert_eq!(scrape.docs.get(*name).map(String::as_str), Some(*help), "{name}");
        assert_eq!(labels[name], expected.iter().copied().collect(), "{name}");
        let ends = |end: &str| name.trim_end_matches("_limit").ends_with(end);
        match (unit.as_str(), kind) {
            ("seconds", _) => assert!(ends("_seconds"), "{name}"),
            ("bytes", _) => assert!(ends("_bytes"), "{name}"),
            (_, Kind::Counter) => assert!(ends("_total"), "{name}"),
            _ => {}
        }
    }
    assert_eq!(kinds, BTreeMap::new(), "they are in no table");

    let counter = [("pipeline", "counter")];
    assert_eq!(value(&scrape, "debshrew_checkpoint_height", &counter), 22.0);
    assert_eq!(value(&scrape, "debshrew_source_height", &counter), 22.0);
    assert_eq!(value(&scrape, "debshrew_lag_blocks", &counter), 0.0);
    assert_eq!(value(&scrape, "debshrew_lag_seconds", &counter), 0.0);
    assert_eq!(value(&scrape, "debshrew_blocks_committed_total", &counter), 26.0);
    assert_eq!(value(&scrape, "debshrew_commit_seconds", &counter), 26.0);
    assert_eq!(value(&scrape, "debshrew_rows_changed_total", &[("table", "seen")]), 26.0);
    assert_eq!(value(&scrape, "debshrew_reorgs_total", &counter), 1.0);
    assert_eq!(value(&scrape, "debshrew_reorg_depth_blocks", &counter), 1.0);
    assert_eq!(value(&scrape, "debshrew_rollback_seconds", &counter), 1.0);
    assert!(value(&scrape, "debshrew_fuel_used_total", &counter) > 1000.0);
    assert_eq!(value(&scrape, "debshrew_evaluation_seconds", &counter), 26.0);
    assert!(value(&scrape, "debshrew_source_requests_total", &[]) > 26.0);
    assert!(value(&scrape, "debshrew_table_bytes", &[("table", "seen")]) >= 8192.0);
    assert!(value(&scrape, "debshrew_journal_bytes", &counter) >= 8192.0);
    assert_eq!(value(&scrape, "debshrew_state", &[("state", "running")]), 1.0);
    assert_eq!(value(&scrape, "debshrew_pool_connections_limit", &[]), 8.0);
    ends_well(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_evaluated_twice_is_counted_once() {
    let served = Served::new("server_twice", "", 5).await;
    let running = served.start().await;
    served.scene.caught_up().await;
    let mut blocker = served.scene.database.connect().await;
    let blocking = blocker.transaction().await.unwrap();
    blocking.batch_execute("lock table counter.seen in exclusive mode").await.unwrap();
    served.scene.mine(1).await;
    served.scene.held_up().await;
    // The writer's connection is lost, and with it what the evaluation was for.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where application_name = 'debshrew/counter' and datname = current_database() and wait_event_type = 'Lock'";
    assert_eq!(served.scene.client.query_one(cut, &[]).await.unwrap().get::<_, i64>(0), 1);
    blocking.rollback().await.unwrap();
    served.scene.caught_up().await;
    served.until_status("it is told", |status| pipeline(status, "counter")["height"] == 6).await;
    let scrape = scrape(&served).await;
    let counter = [("pipeline", "counter")];
    assert_eq!(value(&scrape, "debshrew_blocks_committed_total", &counter), 7.0);
    assert_eq!(value(&scrape, "debshrew_evaluation_seconds", &counter), 7.0);
    ends_well(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_is_counted() {
    let served = Served::new("server_failures", "", 5).await;
    let running = served.start().await;
    served.scene.caught_up().await;
    let before = scrape(&served).await;
    assert_eq!(value(&before, "debshrew_source_resting", &[]), 0.0);
    let fault = debshrew::simulate::Fault::Status { code: 503 };
    let misbehave = debshrew::simulate::Misbehaviour { fault, calls: None, method: None, view: None };
    served.scene.source.control(debshrew::simulate::Command::Misbehave(misbehave)).await.unwrap();
    until("it rests", async || value(&scrape(&served).await, "debshrew_source_resting", &[]) == 1.0).await;
    let after = scrape(&served).await;
    let server = served.scene.source.url();
    let server = [("server", server.as_str())];
    assert!(value(&after, "debshrew_source_failures_total", &server) >= 3.0);
    assert!(value(&after, "debshrew_source_retries_total", &server) >= 15.0);
    assert_eq!(value(&after, "debshrew_state", &[("state", "waiting")]), 1.0);
    served.scene.source.control(debshrew::simulate::Command::Clear {}).await.unwrap();
    served.scene.mine(1).await;
    served.scene.caught_up().await;
    until("it does not rest", async || value(&scrape(&served).await, "debshrew_source_resting", &[]) == 0.0)
        .await;
    ends_well(running).await;
}

#[test]
fn the_manual_has_every_metric() {
    let mut table = String::from("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for Metric { name, kind, unit, labels, help } in METRICS {
        let unit = if unit.as_str() == "count" { "" } else { unit.as_str() };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{name}` | {} | {unit} | {} | {help} |", name_of(*kind), labels.join(", "))
            .unwrap();
    }
    let page = include_str!("../../docs/metrics.md");
    assert!(page.contains(&table), "the table in docs/metrics.md is not this:\n\n{table}");
}
