//! What is kept for a sink, for how long, and how a stream begins again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use debshrew::block::Height;
use debshrew::config::Beginning;
use debshrew::register::{self, SinkOrder, SinkOverview};
use debshrew::relay::StepKind;
use debshrew::schema::tables_in_step;
use debshrew::undo::{Range, derive};

use super::replica::Replica;
use super::sink::{Memory, Run, relay};
use super::{commit, first};
use crate::support::{Journaling, Pruner, Rig, changes, connect_as, database, own_server, until, whole};
use debshrew::cluster::Stop;

const TABLE: &str = "create table t (id integer primary key, x text)";

pub fn put(id: u32, x: &str) -> String {
    format!(r#"+t {{"id": {id}, "x": "{x}"}}"#)
}

pub async fn overview(rig: &Rig) -> SinkOverview {
    register::sink_overview(&rig.client).await.unwrap().remove(0)
}

pub async fn order(rig: &Rig, order: SinkOrder) {
    let mut client = rig.db.dedicated().await.unwrap();
    assert!(register::order_sink(&mut client, &overview(rig).await, order).await.unwrap());
}

/// What a consumer has that has replayed everything.
pub async fn assert_replayed(rig: &Rig, sink: &Memory) {
    let mut replica = Replica::default();
    replica.replay(&sink.steps()).unwrap();
    assert_eq!(replica.rows(), rig.contents().await);
}

async fn floor(rig: &mut Rig) -> Option<u32> {
    rig.writer().await.checkpoint().floor.map(Height::get)
}

#[tokio::test]
async fn images_are_kept_until_the_slowest_sink_is_past_them() {
    let test = database("relay_pruned").await;
    let mut rig = Rig::up(&test, "pruned_sink", TABLE).await;
    let (sink, mut pruner) = (Memory::default(), Pruner::new(connect_as(&test.dsn), 1));
    let run = relay(&rig, "events", first(), &sink);
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    run.catch_up().await.unwrap();
    for height in 1..100 {
        commit(&mut rig, height, 0, &put(height % 7, &height.to_string())).await;
        rig.prune(&mut pruner).await;
    }
    assert_eq!(floor(&mut rig).await, None, "the sink is at block 0");
    run.catch_up().await.unwrap();
    assert_replayed(&rig, &sink).await;
    for height in 100..200 {
        commit(&mut rig, height, 0, &put(height % 7, &height.to_string())).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
        rig.prune(&mut pruner).await;
    }
    let floor = floor(&mut rig).await.expect("something was pruned");
    assert!((64..=99).contains(&floor), "{floor}: the sink is at block 99");
    run.catch_up().await.unwrap();
    assert_replayed(&rig, &sink).await;
}

#[tokio::test]
async fn a_sink_that_is_behind_for_too_long_is_lost_and_begins_again() {
    let test = database("relay_lost").await;
    let mut rig = Rig::up(&test, "lost_sink", TABLE).await;
    let sink = Memory { keeps_position: true, ..Memory::default() };
    let mut run = relay(&rig, "events", first(), &sink);
    run.relay.settings.max_lag = Duration::from_millis(200);
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    run.catch_up().await.unwrap();
    commit(&mut rig, 1, 0, &put(1, "1")).await;
    let id = register::find(&rig.client, &rig.name).await.unwrap().unwrap().id;
    assert_eq!(register::detach_late(&rig.client, id).await.unwrap(), [""; 0]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(register::detach_late(&rig.client, id).await.unwrap(), ["events"]);
    assert_eq!(register::sink_needs(&rig.client, id).await.unwrap().journaled_from, None);
    let lost = overview(&rig).await;
    assert_eq!((lost.state.as_str(), lost.holds_journals), ("lost", false));
    // It publishes nothing until somebody says so.
    let error = run.catch_up().await.unwrap_err().to_string();
    assert!(error.contains("it was behind for more than 00:00:00.2"), "{error}");
    assert_eq!(sink.steps().len(), 1);
    rig.try_commit_with(2, changes(r#"-t {"id": 0}"#), Journaling::Skipped).await.unwrap();
    order(&rig, SinkOrder::Resync).await;
    run.catch_up().await.unwrap();
    commit(&mut rig, 3, 0, &put(3, "3")).await;
    run.catch_up().await.unwrap();
    assert_eq!(sink.told()[1..], ["snapshot 2: r t(1, 1)", "apply 3: c t(3, 3)"]);
    let void = sink
        .steps()
        .iter()
        .filter(|step| matches!(&step.kind, StepKind::Snapshot { void, .. } if void.len() == 1))
        .count();
    assert_eq!(void, 1, "consumers are told that what they hold is void");
    assert_replayed(&rig, &sink).await;
}

#[tokio::test]
async fn once_a_sink_has_begun_no_block_goes_without_its_journal() {
    let test = database("relay_journaled").await;
    let mut rig = Rig::up(&test, "journaled_sink", TABLE).await;
    rig.try_commit_with(0, changes(&put(0, "0")), Journaling::Skipped).await.unwrap();
    let sink = Memory::default();
    let run = relay(&rig, "events", Beginning::Height(Height::new(2).unwrap()), &sink);
    run.catch_up().await.unwrap();
    rig.try_commit_with(1, changes(&put(1, "1")), Journaling::Skipped).await.unwrap();
    let error = rig.try_commit_with(2, changes(&put(2, "2")), Journaling::Skipped).await.unwrap_err();
    assert!(whole(&error).contains("a sink of pipeline `journaled_sink` began"), "{}", whole(&error));
    assert_eq!(error.kind(), debshrew::failure::Kind::Transient);
    rig.try_commit_with(2, changes(&put(2, "2")), Journaling::Kept).await.unwrap();
    run.catch_up().await.unwrap();
    assert_eq!(sink.told(), ["apply 2: c t(2, 2)"]);
    // What others ask for may be gone.
    let late = relay(&rig, "late", Beginning::Height(Height::new(1).unwrap()), &Memory::default());
    let error = late.catch_up().await.unwrap_err();
    assert_eq!(error.to_string(), "it is to begin with block 1, and the journals begin with 2");
}

#[tokio::test]
async fn a_migration_that_empties_journals_says_which_sinks_must_begin_again() {
    let test = database("relay_migrated").await;
    let mut rig = Rig::up(&test, "migrated_sink", TABLE).await;
    let sink = Memory::default();
    let run = relay(&rig, "events", Beginning::Snapshot, &sink);
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    run.catch_up().await.unwrap();
    let report = rig.migrate("alter table t add column y integer default 7").await.unwrap();
    assert_eq!(report.pipelines[0].lost_sinks, [""; 0], "{report:?}");
    commit(&mut rig, 1, 0, &put(1, "1")).await;
    run.catch_up().await.unwrap();
    assert_eq!(sink.told(), ["snapshot 0: r t(0, 0)", "apply 1: c t(1, 1, 7)"]);
    let report = rig.migrate("update t set x = 'changed'").await.unwrap();
    assert_eq!(report.pipelines[0].lost_sinks, ["events"], "{report:?}");
    assert_eq!(overview(&rig).await.state, "lost");
}

#[tokio::test]
async fn a_published_block_that_is_neither_committed_nor_rolled_back_halts_the_sink() {
    let test = database("relay_orphan").await;
    let mut rig = Rig::up(&test, "orphan_sink", TABLE).await;
    let sink = Memory::default();
    let run = relay(&rig, "events", first(), &sink);
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    commit(&mut rig, 1, 0, &put(1, "1")).await;
    run.catch_up().await.unwrap();
    rig.stop().await;
    // As after a fail-over to a server that did not have the last commit, but for the cursor.
    rig.client
        .batch_execute(
            "delete from orphan_sink.t where id = 1; delete from debshrew.block where height = 1; \
             update debshrew.checkpoint set height = 0, hash = (select hash from debshrew.block where height = 0)",
        )
        .await
        .unwrap();
    let error = run.catch_up().await.unwrap_err();
    assert!(error.to_string().contains("is neither committed nor was it rolled back"), "{error}");
    assert_eq!(overview(&rig).await.state, "halted");
    order(&rig, SinkOrder::Resync).await;
    run.catch_up().await.unwrap();
    assert_replayed(&rig, &sink).await;
}

#[tokio::test]
async fn a_sink_stays_behind_and_a_reorg_above_is_never_seen() {
    let test = database("relay_confirmations").await;
    let mut rig = Rig::up(&test, "confirmed_sink", TABLE).await;
    let sink = Memory::default();
    let mut run = relay(&rig, "events", first(), &sink);
    run.relay.settings.confirmations = 2;
    for height in 0..5 {
        commit(&mut rig, height, 0, &put(height, "0")).await;
    }
    run.catch_up().await.unwrap();
    rig.roll_back(2).await.unwrap();
    for height in 3..6 {
        commit(&mut rig, height, 1, &put(height, "1")).await;
    }
    run.catch_up().await.unwrap();
    assert_eq!(
        sink.told(),
        ["apply 0: c t(0, 0)", "apply 1: c t(1, 0)", "apply 2: c t(2, 0)", "apply 3: c t(3, 1)",]
    );
    assert_eq!(overview(&rig).await.lag_blocks, Some(2));
}

#[tokio::test]
async fn of_two_processes_one_publishes_and_the_other_takes_over() {
    let test = database("relay_two").await;
    let mut rig = Rig::up(&test, "two_relays", TABLE).await;
    let sink = Memory::default();
    let (one, other) = (relay(&rig, "events", first(), &sink), relay(&rig, "events", first(), &sink));
    let running = one.start();
    let standby = other.start();
    for height in 0..20 {
        commit(&mut rig, height, 0, &put(height, "0")).await;
    }
    until("all is published", async || sink.steps().len() == 20).await;
    // Whoever has the lock loses it, in the middle of whatever it does.
    for height in 20..40 {
        rig.client
            .batch_execute(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = 1684173675 \
                 and database = (select oid from pg_database where datname = current_database())",
            )
            .await
            .unwrap();
        commit(&mut rig, height, 0, &put(height, "0")).await;
    }
    until("the rest is published", async || {
        sink.steps().last().is_some_and(|step| step.height().unwrap().get() == 39)
    })
    .await;
    running.stop().await;
    standby.stop().await;
    assert_replayed(&rig, &sink).await;
    let heights: Vec<u32> = sink.steps().iter().map(|step| step.height().unwrap().get()).collect();
    let mut sorted = heights.clone();
    sorted.sort_unstable();
    // Steps may come again where one session ended between publishing and the cursor's move, but never go back further.
    assert!(heights.windows(2).all(|pair| pair[1] + 64 >= pair[0]), "{heights:?}");
    assert_eq!(sorted.first(), Some(&0));
}

#[tokio::test]
async fn a_range_of_blocks_gives_the_same_in_small_portions() {
    let test = database("relay_portions").await;
    let mut rig = Rig::up(&test, "portions", TABLE).await;
    for height in 0..40 {
        let block = (0..5)
            .map(|id| put((height * 3 + id) % 11, &format!("{height}/{id}")))
            .collect::<Vec<_>>()
            .join("\n");
        commit(&mut rig, height, 0, &block).await;
    }
    let pipeline = register::find(&rig.client, &rig.name).await.unwrap().unwrap();
    let client = rig.db.dedicated().await.unwrap();
    let tables = Arc::new(tables_in_step(&client, &pipeline).await.unwrap());
    let to = Height::new(39).unwrap();
    let whole =
        derive(&client, &tables, |_| true, Range { above: -1, to, is_last: true, max_bytes: usize::MAX })
            .await
            .unwrap();
    assert_eq!(whole.blocks.len(), 40);
    for (blocks, max_bytes) in [(40, 1), (40, 2_000), (40, 10_000), (7, usize::MAX), (3, 2_000), (1, 1)] {
        let (mut above, mut portions, mut all) = (-1, 0, Vec::new());
        while above < 39 {
            let to = Height::from_sql((above + blocks).min(39)).unwrap();
            let range = Range { above, to, is_last: to.get() == 39, max_bytes };
            let derived = derive(&client, &tables, |_| true, range).await.unwrap();
            above = derived.to.unwrap().to_sql();
            all.extend(derived.blocks);
            portions += 1;
        }
        assert!(portions > 2, "{portions} portions");
        assert!(
            all == whole.blocks.clone().into_iter().collect::<Vec<_>>(),
            "{blocks} blocks, {max_bytes} bytes"
        );
    }
}

#[tokio::test]
async fn a_rollback_deeper_than_its_sinks_keeps_what_they_published_only() {
    let test = database("relay_reserved").await;
    let mut rig = Rig::up(&test, "reserved_sink", TABLE).await;
    let kept = async |rig: &Rig| -> i64 {
        rig.client.query_one("select count(*) from debshrew.retracted", &[]).await.unwrap().get(0)
    };
    for height in 0..200 {
        commit(&mut rig, height, 0, &put(height % 5, &height.to_string())).await;
    }
    rig.roll_back(150).await.unwrap();
    assert_eq!(kept(&rig).await, 0, "there is no sink");
    let sink = Memory::default();
    let run = relay(&rig, "events", Beginning::Now, &sink);
    run.catch_up().await.unwrap();
    let before = rig.contents().await;
    for height in 151..260 {
        commit(&mut rig, height, 1, &put(height % 5, &height.to_string())).await;
    }
    rig.roll_back(150).await.unwrap();
    assert_eq!(kept(&rig).await, 0, "nothing was published");
    assert_eq!(rig.contents().await, before);
    commit(&mut rig, 151, 2, &put(1, "2")).await;
    run.catch_up().await.unwrap();
    for height in 152..300 {
        commit(&mut rig, height, 2, &put(height % 5, &height.to_string())).await;
    }
    rig.roll_back(140).await.unwrap();
    // A sink declares 64 blocks at once, and was at the block at which it began.
    assert_eq!(kept(&rig).await, 74);
    run.catch_up().await.unwrap();
    let id = register::find(&rig.client, &rig.name).await.unwrap().unwrap().id;
    assert_eq!(register::forget_retracted(&rig.client, id).await.unwrap(), 74);
}

impl Run {
    /// Runs beside the test.
    pub fn start(&self) -> Running {
        let until = super::sink::endless();
        let (relay, stop) = (self.relay.clone(), until.stop.clone());
        Running { task: tokio::spawn(async move { relay.run(&until).await }), stop }
    }
}

pub struct Running {
    task: tokio::task::JoinHandle<Result<(), debshrew::relay::RelayError>>,
    stop: tokio_util::sync::CancellationToken,
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_a_crash_of_the_database_may_lose_is_not_published() {
    // Commits that do not wait for the disk get there when somebody else's does, or after ten seconds.
    let (cluster, test) = own_server(&[("wal_writer_delay", "10s"), ("autovacuum", "off")]).await;
    let mut rig = Rig::up(&test, "lazy_sink", TABLE).await;
    let sink = Memory::default();
    let run = relay(&rig, "events", first(), &sink);
    commit(&mut rig, 0, 0, &put(0, "0")).await;
    run.catch_up().await.unwrap();
    let mut last = 0;
    // PostgreSQL itself may write its log at any moment.
    for _ in 0..5 {
        let running = run.start();
        for height in last + 1..last + 20 {
            commit(&mut rig, height, 0, &put(height, "0")).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.stop(Stop::Immediate).unwrap();
        running.stop().await;
        rig.forget_writer();
        cluster.start_again().unwrap();
        rig.client = test.connect().await;
        let row = rig.client.query_one("select height from debshrew.checkpoint", &[]).await.unwrap();
        let checkpoint: i32 = row.get(0);
        let published = sink.steps().last().unwrap().height().unwrap().to_sql();
        assert!(published <= checkpoint, "published up to {published}, committed up to {checkpoint}");
        if checkpoint < last as i32 + 19 {
            return;
        }
        last += 19;
    }
    panic!("nothing was ever lost");
}

#[tokio::test]
async fn a_sink_that_fails_for_a_thousand_blocks_loses_nothing() {
    let test = database("relay_away").await;
    let mut rig = Rig::up(&test, "away_sink", TABLE).await;
    let (sink, mut pruner) =
        (Memory { keeps_position: true, ..Memory::default() }, Pruner::new(connect_as(&test.dsn), 1));
    let run = relay(&rig, "events", first(), &sink);
    run.catch_up().await.unwrap();
    sink.refuses.store(true, Ordering::Relaxed);
    let running = run.start();
    for height in 0..1_000 {
        commit(&mut rig, height, 0, &put(height % 50, &height.to_string())).await;
        rig.prune(&mut pruner).await;
    }
    assert_eq!(sink.steps().len(), 0);
    until("it says so", async || {
        overview(&rig).await.last_error.is_some_and(|error| error.contains("it refuses"))
    })
    .await;
    assert_eq!(overview(&rig).await.lag_blocks, Some(1_000));
    sink.refuses.store(false, Ordering::Relaxed);
    until("all is published", async || sink.steps().len() == 1_000).await;
    until("it says so", async || overview(&rig).await.last_error.is_none()).await;
    running.stop().await;
    assert_replayed(&rig, &sink).await;
}
