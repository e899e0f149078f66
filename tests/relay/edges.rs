//! Streams at the moments at which something else goes on: migrations, take-overs, waits.

use std::time::Duration;

use debshrew::block::Height;
use debshrew::config::Beginning;
use debshrew::register::{self, Cursor, SinkLease, SinkOrder, SinkSpec};
use debshrew::relay::StepKind;
use debshrew::undo::Event;

use super::kept::{assert_replayed, order, overview, put};
use super::sink::{Memory, relay};
use super::{commit, first};
use crate::support::{COUNTER, Rig, Scene, database, own_server, quick, until};

const TABLE: &str = "create table t (id integer primary key, x text)";

async fn pipeline_id(rig: &Rig) -> i32 {
    register::find(&rig.client, &rig.name).await.unwrap().unwrap().id
}

/// Tells whether the sink's row was written to in between.
async fn version(rig: &Rig) -> String {
    rig.client.query_one("select xmin::text from debshrew.sink", &[]).await.unwrap().get(0)
}

/// How many sessions have ended that the database ever had.
async fn sessions(rig: &Rig) -> i64 {
    let sql = "select sessions from pg_stat_database where datname = current_database()";
    rig.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_table_that_is_rewritten_as_a_stream_begins_is_read_whole() {
    let test = database("relay_rewritten").await;
    let mut rig = Rig::up(&test, "rewritten_sink", TABLE).await;
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    let other = test.connect().await;
    other
        .batch_execute("begin; alter table rewritten_sink.t alter column x type text using x || ''")
        .await
        .unwrap();
    let sink = Memory::default();
    let running = relay(&rig, "events", Beginning::Snapshot, &sink).start();
    tokio::time::sleep(Duration::from_millis(700)).await;
    other.batch_execute("commit").await.unwrap();
    until("the snapshot is there", async || !sink.steps().is_empty()).await;
    running.stop().await;
    assert_eq!(sink.told(), ["snapshot 0: r t(0, 0)"]);
}

#[tokio::test]
async fn a_snapshot_of_large_rows_comes_in_parts_that_a_message_holds() {
    let test = database("relay_parts").await;
    let mut rig = Rig::up(&test, "parts_sink", TABLE).await;
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    let fill = "insert into parts_sink.t select i, repeat('x', 20000) from generate_series(1, 300) i";
    rig.client.batch_execute(fill).await.unwrap();
    let sink = Memory::default();
    relay(&rig, "events", Beginning::Snapshot, &sink).catch_up().await.unwrap();
    let steps = sink.steps();
    let largest = steps.iter().map(|step| step.events.iter().map(Event::bytes).sum::<usize>()).max();
    assert!(largest.unwrap() < 500_000, "{largest:?} bytes in a part");
    assert_eq!(steps.iter().map(|step| step.events.len()).sum::<usize>(), 301);
    assert_replayed(&rig, &sink).await;
}

#[tokio::test]
async fn a_sink_that_stays_behind_on_purpose_is_not_late() {
    let test = database("relay_not_late").await;
    let mut rig = Rig::up(&test, "not_late", TABLE).await;
    let sink = Memory::default();
    let mut run = relay(&rig, "events", first(), &sink);
    run.relay.settings.confirmations = 2;
    run.relay.settings.max_lag = Duration::from_millis(200);
    for height in 0..3 {
        commit(&mut rig, height, 0, &put(height, "0")).await;
    }
    run.catch_up().await.unwrap();
    assert_eq!(sink.told(), ["apply 0: c t(0, 0)"]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    let id = pipeline_id(&rig).await;
    assert_eq!(overview(&rig).await.lag_seconds, Some(0.0));
    assert_eq!(register::detach_late(&rig.client, id).await.unwrap(), [""; 0]);
    commit(&mut rig, 3, 0, &put(3, "0")).await;
    assert_eq!(register::detach_late(&rig.client, id).await.unwrap(), [""; 0]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(overview(&rig).await.lag_seconds.unwrap() >= 0.2);
    assert_eq!(register::detach_late(&rig.client, id).await.unwrap(), ["events"]);
}

/// A sink that takes its time, and rows for several parts of a snapshot.
async fn slow(rig: &mut Rig) -> Memory {
    commit(rig, 0, 0, &put(0, "0")).await;
    let fill = format!("insert into {}.t select i, 'x' from generate_series(1, 20000) i", rig.name);
    rig.client.batch_execute(&fill).await.unwrap();
    Memory { pause: Duration::from_millis(300), ..Memory::default() }
}

#[tokio::test]
async fn a_snapshot_ends_when_the_sink_begins_again() {
    let test = database("relay_again").await;
    let mut rig = Rig::up(&test, "again_sink", TABLE).await;
    let sink = slow(&mut rig).await;
    let running = relay(&rig, "events", Beginning::Snapshot, &sink).start();
    until("it has begun", async || sink.steps().len() >= 2).await;
    let published = sink.steps().len();
    order(&rig, SinkOrder::Resync).await;
    let of = |generation| {
        let all = sink.steps();
        all.into_iter().filter(|step| step.cursor.generation == generation).collect::<Vec<_>>()
    };
    until("it is sent again", async || of(1).iter().any(|step| step.completes())).await;
    running.stop().await;
    let before = of(0);
    assert!(before.len() <= published + 2, "{} parts, {published} of them before", before.len());
    assert!(before.iter().all(|step| !step.completes()), "the first snapshot went on to its end");
    assert!(matches!(&of(1)[0].kind, StepKind::Snapshot { void, .. } if void.len() == 1));
}

#[tokio::test]
async fn a_snapshot_ends_when_the_sink_is_paused() {
    let test = database("relay_paused").await;
    let mut rig = Rig::up(&test, "paused_sink", TABLE).await;
    let sink = slow(&mut rig).await;
    let running = relay(&rig, "events", Beginning::Snapshot, &sink).start();
    until("it has begun", async || sink.steps().len() >= 2).await;
    order(&rig, SinkOrder::Pause).await;
    let published = sink.steps().len();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(sink.steps().len() <= published + 2, "{} parts, {published} of them before", sink.steps().len());
    order(&rig, SinkOrder::Resume).await;
    until("it is sent", async || sink.steps().last().is_some_and(|step| step.completes())).await;
    running.stop().await;
    assert_replayed(&rig, &sink).await;
}

#[tokio::test]
async fn a_sink_that_is_lost_during_its_snapshot_stays_lost() {
    let test = database("relay_lost_early").await;
    let mut rig = Rig::up(&test, "lost_early", TABLE).await;
    let sink = slow(&mut rig).await;
    let run = relay(&rig, "events", Beginning::Snapshot, &sink);
    let running = run.start();
    until("it has begun", async || sink.steps().len() >= 2).await;
    register::lose_sinks(&rig.client, pipeline_id(&rig).await, "a test wants it").await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    running.stop().await;
    let _ = run.catch_up().await;
    let lost = overview(&rig).await;
    assert_eq!((lost.state.as_str(), lost.last_error.as_deref()), ("lost", Some("a test wants it")));
}

#[tokio::test]
async fn what_fails_later_does_not_hide_why_a_sink_is_lost() {
    let test = database("relay_reason").await;
    let mut rig = Rig::up(&test, "reason_sink", TABLE).await;
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    relay(&rig, "events", Beginning::Now, &Memory::default()).catch_up().await.unwrap();
    let pipeline = register::find(&rig.client, &rig.name).await.unwrap().unwrap();
    let spec = SinkSpec {
        name: "events".to_owned(),
        kind: "console",
        max_lag: Duration::from_secs(60),
        confirmations: 0,
        blocks: false,
    };
    let (lease, _) = SinkLease::try_take(&rig.db, &pipeline, &spec, &mut register::Silence::default())
        .await
        .unwrap()
        .unwrap();
    register::lose_sinks(&rig.client, pipeline.id, "a test wants it").await.unwrap();
    for problem in [Some("no network"), None] {
        lease.tell(problem, false).await.unwrap();
        order(&rig, SinkOrder::Retry).await;
        assert_eq!(overview(&rig).await.last_error.as_deref(), Some("a test wants it"));
    }
}

#[tokio::test]
async fn a_migration_does_not_take_away_what_a_sink_has_not_published() {
    let test = database("relay_dropped").await;
    let tables = "create table t (id integer primary key, x text); \
                  create table u (id integer primary key); create table v (id integer primary key)";
    let mut rig = Rig::up(&test, "dropped_sink", tables).await;
    let sink = Memory::default();
    let run = relay(&rig, "events", first(), &sink);
    commit(&mut rig, 0, 0, r#"+u {"id": 0}"#).await;
    run.catch_up().await.unwrap();
    let report = rig.migrate("drop table v").await.unwrap();
    assert_eq!(report.pipelines[0].lost_sinks, [""; 0], "everything of it was published");
    commit(&mut rig, 1, 0, r#"+u {"id": 1}"#).await;
    let report = rig.migrate("drop table u").await.unwrap();
    assert_eq!(report.pipelines[0].lost_sinks, ["events"], "block 1 was not published");
    order(&rig, SinkOrder::Resync).await;
    run.catch_up().await.unwrap();
    let report = rig.migrate("alter table t rename to w").await.unwrap();
    assert_eq!(report.pipelines[0].lost_sinks, ["events"], "consumers hold rows of `t`");
}

#[tokio::test]
async fn a_stream_that_waits_for_its_first_block_writes_nothing() {
    let test = database("relay_waits").await;
    let mut rig = Rig::up(&test, "waiting_sink", TABLE).await;
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    let sink = Memory::default();
    let run = relay(&rig, "events", Beginning::Height(Height::new(2).unwrap()), &sink);
    run.catch_up().await.unwrap();
    let running = run.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = version(&rig).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(version(&rig).await, before);
    for height in 1..4 {
        commit(&mut rig, height, 0, &put(height, "0")).await;
    }
    until("it has begun", async || sink.steps().len() == 2).await;
    running.stop().await;
    assert_eq!(sink.told(), ["apply 2: c t(2, 0)", "apply 3: c t(3, 0)"]);
}

#[tokio::test]
async fn a_process_that_stands_by_for_a_sink_writes_nothing() {
    let test = database("relay_standby").await;
    let rig = Rig::up(&test, "standby_sink", TABLE).await;
    let (one, mut other) = (
        relay(&rig, "events", first(), &Memory::default()),
        relay(&rig, "events", first(), &Memory::default()),
    );
    other.relay.settings.max_lag = Duration::from_secs(7);
    let running = one.start();
    until("one has it", async || {
        register::sink_overview(&rig.client).await.unwrap().iter().any(|sink| sink.state == "streaming")
    })
    .await;
    let (before, sessions) = (version(&rig).await, sessions(&rig).await);
    let standby = other.start();
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(version(&rig).await, before);
    let more = self::sessions(&rig).await - sessions;
    assert!(more <= 1, "{more} sessions more");
    running.stop().await;
    until("the other takes over", async || version(&rig).await != before).await;
    standby.stop().await;
}

#[tokio::test]
async fn a_log_that_ends_with_a_page_is_on_disk() {
    // Otherwise, PostgreSQL itself writes to its log every 15 s.
    const QUIET: &[(&str, &str)] =
        &[("wal_level", "minimal"), ("max_wal_senders", "0"), ("autovacuum", "off")];
    let (_cluster, test) = own_server(QUIET).await;
    let mut rig = Rig::up(&test, "page_sink", TABLE).await;
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    let pipeline = register::find(&rig.client, &rig.name).await.unwrap().unwrap();
    let place = async || -> i32 {
        let sql = "select mod(pg_current_wal_insert_lsn() - '0/0', 8192)::integer";
        rig.client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let write = async |bytes: i32| {
        let sql = "select pg_logical_emit_message(false, '', repeat('x', $1))";
        rig.client.query_one(sql, &[&bytes]).await.unwrap();
    };
    // A record takes as much as its text and some bytes more, in steps of 8.
    let mut tries = 0;
    while place().await != 24 {
        tries += 1;
        assert!(tries < 500, "the log never ended with a page");
        let before = place().await;
        write(300).await;
        let more = place().await - before - 300;
        let left = 8192 - place().await;
        if more > 0 && left > more + 300 {
            write(left - more).await;
        }
    }
    let cursor = Cursor { block: None, reorg: 0, generation: 0 };
    let ahead = register::ahead(&rig.client, pipeline.id, pipeline.start_height, cursor).await.unwrap();
    assert_eq!(place().await, 24);
    let on_disk = async || register::is_on_disk(&rig.client, &ahead.written_to).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), until("it is on disk", on_disk)).await.unwrap();
}

#[tokio::test]
async fn a_sink_that_was_dropped_can_append_to_what_it_left() {
    let test = database("relay_left").await;
    let mut rig = Rig::up(&test, "left_sink", TABLE).await;
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    let sink = Memory { keeps_position: true, ..Memory::default() };
    let run = relay(&rig, "events", first(), &sink);
    run.catch_up().await.unwrap();
    for _ in 0..2 {
        order(&rig, SinkOrder::Resync).await;
        run.catch_up().await.unwrap();
    }
    order(&rig, SinkOrder::Drop).await;
    let error = run.catch_up().await.unwrap_err().to_string();
    assert!(error.contains("there is a stream already"), "{error}");
    order(&rig, SinkOrder::Resync).await;
    run.catch_up().await.unwrap();
    assert_replayed(&rig, &sink).await;
    let mut ids: Vec<String> = sink.steps().iter().map(debshrew::relay::Step::id).collect();
    ids.dedup();
    assert_eq!(ids.len(), sink.steps().len(), "{ids:?}");
}

#[tokio::test]
async fn what_a_migration_has_left_behind_is_not_published_by_a_look_that_began_before() {
    let test = database("relay_looked").await;
    let tables = "create table t (id integer primary key, x text); create table u (id integer primary key)";
    let mut rig = Rig::up(&test, "looked_sink", tables).await;
    let sink = Memory::default();
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    let running = relay(&rig, "events", first(), &sink).start();
    until("block 0 is published", async || sink.steps().len() == 1).await;
    let other = test.connect().await;
    // As a migration does; the stream waits for it, in the middle of a look.
    other.batch_execute("begin; lock table looked_sink.t in access exclusive mode").await.unwrap();
    let waits =
        "select exists (select from pg_locks where not granted and relation = 'looked_sink.t'::regclass)";
    commit(&mut rig, 1, 0, r#"+u {"id": 1}"#).await;
    until("it looks", async || rig.client.query_one(waits, &[]).await.unwrap().get(0)).await;
    register::lose_sinks(&other, pipeline_id(&rig).await, "a test wants it").await.unwrap();
    other.batch_execute("commit").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    running.stop().await;
    assert_eq!(sink.told(), ["apply 0: c t(0, 0)"]);
}

#[tokio::test]
async fn a_sink_with_nothing_to_do_reads_no_journals() {
    let test = database("relay_idle").await;
    let mut rig = Rig::up(&test, "idle_sink", TABLE).await;
    let sink = Memory::default();
    let mut run = relay(&rig, "events", first(), &sink);
    run.relay.settings.confirmations = 1;
    for height in 0..3 {
        commit(&mut rig, height, 0, &put(height, "0")).await;
    }
    let running = run.start();
    until("it is there", async || sink.steps().len() == 2).await;
    // Each look at the journals is a transaction that is rolled back.
    let looks = async || -> i64 {
        let sql = "select xact_rollback from pg_stat_database where datname = current_database()";
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        rig.client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let before = looks().await;
    let more = looks().await - before;
    assert!(more <= 1, "{more} looks");
    rig.roll_back(0).await.unwrap();
    until("it goes on", async || sink.steps().len() == 3).await;
    running.stop().await;
    assert_eq!(sink.told()[2..], ["retract 1: d t(1, 0)"]);
}

#[tokio::test]
async fn parts_of_a_snapshot_are_counted() {
    let test = database("relay_counted").await;
    let mut rig = Rig::up(&test, "counted_sink", TABLE).await;
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let sink = Memory::default();
    let run = metrics::with_local_recorder(&recorder, || relay(&rig, "events", Beginning::Snapshot, &sink));
    run.catch_up().await.unwrap();
    let text = recorder.handle().render();
    let line =
        text.lines().find(|line| line.contains("sink_steps_total") && line.contains(r#"step="snapshot""#));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_is_not_late_because_no_process_ran() {
    let mut scene = Scene::new("relay_rested", COUNTER, quick(20)).await;
    let folder = tempfile::tempdir().unwrap();
    scene.toml.push_str(&format!(
        "[pipelines.counter.sinks.events]\nkind = \"file\"\nfrom = 0\nmax_lag = \"1s\"\npath = \"{}\"\n",
        folder.path().display()
    ));
    scene.succeed(&["migrate"]).await;
    scene.succeed(&["run", "--once"]).await;
    // What is committed is not published any more before the process ends.
    scene.succeed(&["sink", "pause", "events"]).await;
    scene.mine(3).await;
    scene.succeed(&["run", "--once"]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    scene.succeed(&["sink", "resume", "events"]).await;
    scene.succeed(&["run", "--once"]).await;
    let sink = register::sink_overview(&scene.client).await.unwrap().remove(0);
    assert_eq!((sink.state.as_str(), sink.lag_blocks), ("stopped", Some(0)));
}
