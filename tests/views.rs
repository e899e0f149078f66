//! What people query: debshrew's views, the queries that alert, and what those who listen are told.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::support::{COUNTER, DEADLINE, Scene, quick, until};

/// Queries with a name each, as `sql/alerts.sql` has them.
const ALERTS: &str = include_str!("../sql/alerts.sql");

/// The alerts that are raised, with their details.
async fn alerts(client: &Client) -> Vec<(String, String, String)> {
    let mut raised = Vec::new();
    for query in ALERTS.split(";\n").filter(|query| query.contains("\nselect ")) {
        let rows = client.query(query, &[]).await.unwrap_or_else(|error| panic!("{error:?}: {query}"));
        raised.extend(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))));
    }
    raised
}

/// A session that listens, and what it is told.
async fn listen(dsn: &str) -> (Client, mpsc::UnboundedReceiver<Value>) {
    let (client, mut connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    let (told, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message {
                assert_eq!(notification.channel(), "debshrew");
                assert!(notification.payload().len() < 8000);
                let _ = told.send(serde_json::from_str(notification.payload()).unwrap());
            }
        }
    });
    client.batch_execute("listen debshrew").await.unwrap();
    (client, heard)
}

async fn heard(told: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    tokio::time::timeout(DEADLINE, told.recv()).await.expect("nobody tells anything").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_is_told_of_blocks_and_rollbacks_when_they_are_there_to_be_seen() {
    let mut scene = Scene::new("views_notify", COUNTER, quick(3)).await;
    scene.toml.push_str("notify = true\n");
    scene.succeed(&["migrate"]).await;
    let (client, mut told) = listen(&scene.database.dsn).await;
    let _running = scene.start(&["run"]);
    let block = |hash: &dyn ToString, height: usize, kind: &str| json!({"pipeline": "counter", "kind": kind, "height": height, "hash": hash.to_string()});
    let mut heights = Vec::new();
    for (height, hash) in scene.source.chain().iter().enumerate() {
        assert_eq!(heard(&mut told).await, block(hash, height, "commit"));
        // What is told can be seen.
        let seen: i64 = client.query_one("select count(*) from counter.seen", &[]).await.unwrap().get(0);
        assert!(seen > height as i64, "{seen} at {height}");
        heights.push(height);
    }
    assert_eq!(heights, [0, 1, 2, 3]);
    scene.reorganise(2, 3).await;
    scene.caught_up().await;
    let chain = scene.source.chain();
    assert_eq!(heard(&mut told).await, block(&chain[1], 1, "rollback"));
    for (height, hash) in chain.iter().enumerate().skip(2) {
        assert_eq!(heard(&mut told).await, block(hash, height, "commit"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_s_rollback_is_told_and_where_nobody_asked_nothing_is() {
    let mut scene = Scene::new("views_notify_rollback", COUNTER, quick(3)).await;
    scene.succeed(&["migrate"]).await;
    let (_client, mut told) = listen(&scene.database.dsn).await;
    scene.succeed(&["run", "--once"]).await;
    scene.toml.push_str("notify = true\n");
    scene.succeed(&["rollback", "--to", "2", "--yes"]).await;
    let hash = scene.source.chain()[2].to_string();
    // The blocks before were not told of.
    let expected = json!({"pipeline": "counter", "kind": "rollback", "height": 2, "hash": hash});
    assert_eq!(heard(&mut told).await, expected);
    // As it is when nothing is left.
    let before_the_start = "select debshrew.tell('counter', 'rollback', null, null)";
    scene.client.batch_execute(before_the_start).await.unwrap();
    let expected = json!({"pipeline": "counter", "kind": "rollback", "height": null, "hash": null});
    assert_eq!(heard(&mut told).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_and_every_column_of_one_has_a_comment() {
    let scene = Scene::new("views_comments", COUNTER, quick(1)).await;
    scene.succeed(&["migrate"]).await;
    let sql = "select c.relname || coalesce('.' || a.attname, '') \
                 from pg_class c left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 \
                where c.relnamespace = 'debshrew'::regnamespace and c.relkind = 'v' \
                  and (col_description(c.oid, a.attnum) is null or obj_description(c.oid) is null)";
    let bare: Vec<String> =
        scene.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(bare, [""; 0], "views and columns without a comment");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_say_ages_rates_and_sizes() {
    let scene = Scene::new("views_ages", COUNTER, quick(20)).await;
    scene.succeed(&["migrate"]).await;
    let none = "select block_age_seconds is null and source_age_seconds is null and blocks_per_second = 0 \
                  and state_age_seconds between 0 and 600 from debshrew.pipelines";
    assert!(scene.client.query_one(none, &[]).await.unwrap().get::<_, bool>(0));
    scene.succeed(&["run", "--once"]).await;
    let some = "select block_age_seconds between 0 and 600 and source_age_seconds between 0 and 600, \
                  round(blocks_per_second * 300)::int4, round(changes_per_second * 300)::int4 from debshrew.pipelines";
    let row = scene.client.query_one(some, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (true, 21, 21));
    // Of a fast pipeline the last 1,000 blocks count, of a slow one the last minutes.
    let back = |blocks: i32, seconds: i32| {
        format!(
            "delete from debshrew.block; \
             insert into debshrew.block (pipeline_id, height, hash, changes, journaled, committed_at) \
             select c.pipeline_id, h, sha256(h::text::bytea), 5, true, clock_timestamp() - (20 - h) * interval '{seconds} s' / {blocks} \
               from debshrew.checkpoint c, generate_series(20 - {blocks} * 2, 20) h"
        )
    };
    let rates = "select blocks_per_second, changes_per_second from debshrew.pipelines";
    for (blocks, seconds, expected) in [(5000, 50, 100.0), (50, 500, 0.1), (3, 1800, 1.0 / 300.0)] {
        scene.client.batch_execute(&back(blocks, seconds)).await.unwrap();
        let row = scene.client.query_one(rates, &[]).await.unwrap();
        let (found, changes): (f64, f64) = (row.get(0), row.get(1));
        assert!((found / expected - 1.0).abs() < 0.1, "{found} of {expected}");
        assert!((changes / found - 5.0).abs() < 1e-6, "{changes}");
    }
    scene.client.batch_execute("analyze counter.seen").await.unwrap();
    let sizes = "select table_name, rows_estimated, table_bytes > 8000, journal_bytes > 8000 \
                   from debshrew.table_sizes where pipeline = 'counter' order by table_name";
    let sizes = scene.client.query(sizes, &[]).await.unwrap();
    let names: Vec<&str> = sizes.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["debshrew_state", "seen"]);
    assert_eq!(sizes[1].get::<_, Option<i64>>(1), Some(21));
    assert!(sizes.iter().all(|row| row.get(2) && row.get(3)), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_with_nothing_to_do_shows_that_it_is_there() {
    let scene = Scene::new("views_heartbeat", COUNTER, quick(2)).await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    // Long after the last thing that happened.
    scene.client.batch_execute("update debshrew.activity set source_seen_at = '2020-01-01'").await.unwrap();
    let begun = Instant::now();
    until("it says that it looks at the source", async || {
        let young = "select source_age_seconds < 60 from debshrew.pipelines";
        scene.client.query_one(young, &[]).await.unwrap().get(0)
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// What is wrong, as SQL that makes it so, and the alert that says so.
const WRONG: [(&str, &str); 7] = [
    ("halted", "update debshrew.activity set state = 'halted', reason = 'a block is bad', reason_height = 7"),
    ("stopped", "update debshrew.activity set writer_pid = 0"),
    ("no_heartbeat", "update debshrew.activity set source_seen_at = now() - interval '3 minutes'"),
    (
        "waiting",
        "update debshrew.activity set state = 'waiting', reason = 'no source', since = now() - interval '2 minutes'",
    ),
    (
        "lag",
        "update debshrew.activity set source_height = 1000; update debshrew.block set committed_at = '2020-01-01'",
    ),
    (
        "journal",
        "alter view debshrew.table_sizes rename to sizes; create view debshrew.table_sizes as \
                 select 'counter' as pipeline, 1::int8 << 40 as journal_bytes, 1::int8 << 40 as table_bytes",
    ),
    (
        "deep_reorg",
        "insert into debshrew.reorg (pipeline_id, from_height, from_hash, to_height, depth, rows_restored, cause) \
         select pipeline_id, 20, sha256('a'), 10, 10, 1, 'reorg' from debshrew.pipeline",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_is_raised_by_what_it_is_for_and_by_nothing_else() {
    let scene = Scene::new("views_alerts", COUNTER, quick(20)).await;
    let admin = &scene.client;
    admin
        .batch_execute("drop role if exists debshrew_test_watcher; create role debshrew_test_watcher")
        .await
        .unwrap();
    scene.succeed(&["migrate", "--grant-read", "debshrew_test_watcher"]).await;
    let watcher = scene.database.connect().await;
    watcher.batch_execute("set role debshrew_test_watcher").await.unwrap();
    let mut running = scene.start(&["run"]);
    scene.caught_up().await;
    assert_eq!(alerts(&watcher).await, []);
    // Nobody may change it while it is looked at.
    running.kill().await.unwrap();
    until("the writer's session has ended", async || scene.state().await == "stopped").await;
    let lock = "select pg_advisory_lock(1684173672, pipeline_id) from debshrew.pipeline";
    admin.query(lock, &[]).await.unwrap();
    admin
        .batch_execute("update debshrew.activity set state = 'running', writer_pid = pg_backend_pid()")
        .await
        .unwrap();
    assert_eq!(alerts(&watcher).await, []);
    for (alert, sql) in WRONG {
        admin.batch_execute("begin").await.unwrap();
        admin.batch_execute(sql).await.unwrap();
        admin.batch_execute("grant select on debshrew.table_sizes to debshrew_test_watcher; set role debshrew_test_watcher").await.unwrap();
        let raised = alerts(admin).await;
        admin.batch_execute("rollback").await.unwrap();
        let names: Vec<&str> = raised.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, [alert], "{raised:?}");
        assert!(raised[0].1 == "counter" && !raised[0].2.is_empty(), "{raised:?}");
        assert!(ALERTS.contains(&format!("\n-- {alert}: ")), "{alert}");
    }
    assert_eq!(WRONG.len(), ALERTS.matches(" as alert").count(), "alerts that are not tried");
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    for (alert, _) in WRONG {
        assert!(manual.contains(&format!("| `{alert}` |")), "docs/operations.md does not explain {alert}");
    }
}
