//! What is lost on the way to Kafka: consumers of what is committed get every step once all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use debshrew::block::{BlockHash, BlockRef};
use debshrew::config::{Beginning, Delivery, Kafka};
use debshrew::failure::Kind;
use debshrew::relay::{Position, Sink, Step};
use krafka::consumer::IsolationLevel;
use krafka::testing::{ApiKey, Control};

use super::stand::{Stand, open};
use crate::relay::sink::{Memory, relay as run};
use crate::support::steps::{apply, block, event, retract, row, table};
use crate::support::{Rig, changes, database};

/// How far a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// The broker never sees it.
    Request,
    /// It is carried out, and its answer is lost.
    Answer,
}

/// What becomes of the process then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It waits, gives up, and opens another sink.
    GivesUp,
    /// It is gone at once, with all that it had under way.
    Dies,
}

/// Blocks, of which the last is taken back and comes again otherwise. No two steps leave the same cursor.
fn chain() -> Vec<Step> {
    let notes = table("notes");
    let made = |height: u32, note: &str| vec![event(&notes, None, row(&height.to_string(), note))];
    let gone = |height: u32| vec![event(&notes, row(&height.to_string(), "old"), None)];
    let mut steps: Vec<Step> = (1..6).map(|height| apply(height, made(height, "old"))).collect();
    steps.push(retract(5, 4, 1, gone(5)));
    for height in 5..9 {
        let mut step = apply(height, made(height, "new"));
        step.cursor.reorg = 1;
        steps.push(step);
    }
    steps
}

/// The steps that come after what a sink says.
fn rest(steps: &[Step], position: Position) -> &[Step] {
    match position {
        Position::Empty | Position::NotKept => steps,
        Position::At(cursor) => {
            let at = steps.iter().position(|step| step.cursor == cursor).expect("a position of the chain");
            &steps[at + 1..]
        }
    }
}

async fn publish(sink: &mut dyn Sink, steps: &[Step]) -> Result<(), debshrew::relay::SinkError> {
    for step in steps {
        sink.publish(step).await?;
    }
    sink.flush().await
}

/// Publishes as far as it gets in a runtime of its own, which ends without a word when the fault comes.
fn publish_and_die(settings: Kafka, steps: Vec<Step>, fault: std::sync::mpsc::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(async move {
        let mut sink = open(settings);
        let position = sink.open().await.unwrap();
        publish(&mut *sink, rest(&steps, position)).await.unwrap();
    });
    fault.recv_timeout(Duration::from_secs(20)).expect("the fault comes");
    runtime.shutdown_background();
}

/// One fault, at the `nth` request of a kind from the beginning of the stream on.
async fn once_through(api: ApiKey, nth: usize, lost: Lost, then: Then, transactions: i16) {
    let what = format!("{api:?} {nth} {lost:?} {then:?} {transactions}");
    let stand = Stand::fake().await;
    stand.broker().set_transaction_version(transactions);
    let settings = Kafka { timeout: Duration::from_millis(300), ..stand.settings() };
    let steps = chain();
    let (seen, fault) = std::sync::mpsc::channel();
    let count = Arc::new(AtomicUsize::new(0));
    // From there on none gets through, so that trying again does not help.
    stand.broker().on(api, move |_| {
        if count.fetch_add(1, Ordering::SeqCst) < nth {
            return Control::Pass;
        }
        let _ = seen.send(());
        match lost {
            Lost::Request => Control::Silence,
            Lost::Answer => Control::ApplyThen(Box::new(Control::Silence)),
        }
    });
    match then {
        Then::GivesUp => {
            let mut sink = open(settings.clone());
            let error = match sink.open().await {
                Ok(position) => publish(&mut *sink, rest(&steps, position)).await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(error.kind, Kind::Transient, "{what}: {error}");
        }
        Then::Dies => {
            let (settings, steps) = (settings.clone(), steps.clone());
            tokio::task::spawn_blocking(move || publish_and_die(settings, steps, fault)).await.unwrap();
        }
    }
    stand.broker().clear_hooks();

    let mut sink = open(Kafka { timeout: Duration::from_secs(5), ..settings });
    let position = sink.open().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    publish(&mut *sink, rest(&steps, position)).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    drop(sink);
    check(&stand, &steps, &what).await;
    let all = stand.read("transaction", IsolationLevel::ReadUncommitted).await.len();
    let committed = stand.committed("transaction").await.len();
    if (api, lost) == (ApiKey::Produce, Lost::Answer) {
        assert!(all > committed, "{what}: nothing was aborted");
    }
}

/// Whether consumers of what is committed got every step once, in their order.
async fn check(stand: &Stand, steps: &[Step], what: &str) {
    let mut expected = Vec::new();
    for step in steps {
        expected.push(("BEGIN".to_owned(), step.id()));
        if step.cursor.reorg == 1 && step.name() == "retract" {
            expected.push(("REORG".to_owned(), step.id()));
        }
        expected.push(("END".to_owned(), step.id()));
    }
    assert_eq!(stand.steps().await, expected, "{what}");
    // A record a change, and a tombstone.
    assert_eq!(stand.committed("shop.notes").await.len(), steps.len() + 1, "{what}");
    let held: Vec<String> = stand.held("shop.notes").await.into_values().collect();
    assert_eq!(held, ["old", "old", "old", "old", "new", "new", "new", "new"], "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_is_there_once_whatever_is_lost_and_whoever_dies() {
    let mut cases = Vec::new();
    for transactions in [1, 2] {
        for then in [Then::GivesUp, Then::Dies] {
            for lost in [Lost::Request, Lost::Answer] {
                let points = [(ApiKey::InitProducerId, 0), (ApiKey::Produce, 0), (ApiKey::Produce, 9)];
                let ends = [(ApiKey::EndTxn, 0), (ApiKey::EndTxn, 5)];
                let first = (transactions == 1).then_some((ApiKey::AddPartitionsToTxn, 4));
                let points = points.into_iter().chain(ends).chain(first);
                cases.extend(points.map(|(api, nth)| (api, nth, lost, then, transactions)));
            }
        }
    }
    // They mostly wait.
    let mut running = tokio::task::JoinSet::new();
    for (api, nth, lost, then, transactions) in cases {
        if running.len() >= 8 {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(once_through(api, nth, lost, then, transactions));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_once_goes_through() {
    let stand = Stand::fake().await;
    let steps = chain();
    let mut sink = stand.sink();
    sink.open().await.unwrap();
    stand.broker().on_once(ApiKey::EndTxn, |_| Control::ApplyThen(Box::new(Control::Disconnect)));
    publish(&mut *sink, &steps).await.unwrap();
    check(&stand, &steps, "one answer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_takes_too_long_is_given_up() {
    let stand = Stand::fake().await;
    let steps = chain();
    let settings = Kafka { timeout: Duration::from_millis(200), ..stand.settings() };
    let mut sink = open(settings.clone());
    sink.open().await.unwrap();
    publish(&mut *sink, &steps[..1]).await.unwrap();
    // Longer than a step may take, and than the cluster lets a transaction take.
    stand.broker().on(ApiKey::Produce, |_| Control::Delay(Duration::from_millis(900)));
    let error = publish(&mut *sink, &steps[1..]).await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient, "{error}");
    stand.broker().clear_hooks();
    let mut sink = stand.sink();
    let position = sink.open().await.unwrap();
    publish(&mut *sink, rest(&steps, position)).await.unwrap();
    check(&stand, &steps, "given up").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_repeats_with_the_same_ids_and_leaves_nothing_behind() {
    let stand = Stand::fake().await;
    let steps = chain();
    let settings =
        Kafka { delivery: Delivery::AtLeastOnce, timeout: Duration::from_millis(300), ..stand.settings() };
    let mut sink = open(settings.clone());
    sink.open().await.unwrap();
    publish(&mut *sink, &steps[..3]).await.unwrap();
    // What is written here may arrive, and nobody learns of it.
    stand.broker().on(ApiKey::Produce, |_| Control::ApplyThen(Box::new(Control::Silence)));
    let error = publish(&mut *sink, &steps[3..]).await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient, "{error}");
    drop(sink);
    stand.broker().clear_hooks();
    let mut sink = open(settings);
    sink.open().await.unwrap();
    publish(&mut *sink, &steps[3..]).await.unwrap();

    let ids = |suffix: &'static str| {
        let records = stand.broker().all_records(&stand.topic(suffix)).unwrap();
        let ids = records.iter().map(|record| record.header_str("id").unwrap().to_owned());
        ids.collect::<Vec<String>>()
    };
    let all: Vec<String> = ["transaction", "shop.notes"].into_iter().flat_map(ids).collect();
    let apart: std::collections::BTreeSet<&String> = all.iter().collect();
    assert!(all.len() > apart.len(), "nothing came twice: {all:?}");
    // Two control records and a change a step; of the retraction a tombstone, and the end of the reorganisation.
    assert_eq!(apart.len(), 3 * steps.len() + 2);
    let held: Vec<String> = stand.held("shop.notes").await.into_values().collect();
    assert_eq!(held, ["old", "old", "old", "old", "new", "new", "new", "new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_by_one_that_failed_is_not_written_later() {
    let stand = Stand::fake().await;
    let steps = chain();
    let settings = Kafka { delivery: Delivery::AtLeastOnce, ..stand.settings() };
    let mut sink = open(settings.clone());
    sink.open().await.unwrap();
    publish(&mut *sink, &steps[..1]).await.unwrap();
    stand.broker().on(ApiKey::Produce, |_| Control::Error(krafka::error::ErrorCode::NotEnoughReplicas));
    let before = stand.broker().request_count(ApiKey::Produce);
    sink.publish(&steps[1]).await.unwrap();
    assert!(stand.broker().wait_for_requests(ApiKey::Produce, before + 1, Duration::from_secs(5)).await);
    // It would be tried again for seconds, but whoever waited for it has given up.
    drop(sink);
    stand.broker().clear_hooks();
    let (next, _) = tokio::join!(
        async {
            let mut sink = open(settings);
            sink.open().await.unwrap();
            publish(&mut *sink, &steps[1..]).await
        },
        tokio::time::sleep(Duration::from_secs(2))
    );
    next.unwrap();
    let records = stand.broker().all_records(&stand.topic("transaction")).unwrap();
    let of_second =
        records.iter().filter(|record| record.header_str("id").unwrap().starts_with("0-apply-2:"));
    assert_eq!(of_second.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_where_kafka_says_through_a_reorg() {
    let test = database("kafka_stream").await;
    let mut rig = Rig::up(&test, "sends", "create table notes (address text primary key, note text)").await;
    let stand = Stand::fake().await;
    let settings = Kafka { timeout: Duration::from_millis(500), ..stand.settings() };
    let first = Beginning::Height(debshrew::block::Height::new(0).unwrap());
    let mut run = run(&rig, "events", first, &Memory::default());
    run.relay.make = Arc::new(move || Ok(open(settings.clone())));
    run.catch_up().await.unwrap();
    for height in 0..4 {
        let (new, note) =
            (format!(r#"+notes {{"address": "{height}", "note": "n"}}"#), format!("after {height}"));
        let changed = format!(r#"+notes {{"address": "0", "note": "{note}"}}"#);
        rig.commit(height, changes(&if height == 0 { new } else { format!("{new}\n{changed}") })).await;
    }
    // The third block is committed there, and neither this process nor the database learns of it.
    let ends = Arc::new(AtomicUsize::new(0));
    let counted = ends.clone();
    stand.broker().on(ApiKey::EndTxn, move |_| match counted.fetch_add(1, Ordering::SeqCst) {
        0..2 => Control::Pass,
        _ => Control::ApplyThen(Box::new(Control::Silence)),
    });
    run.catch_up().await.unwrap_err();
    assert!(ends.load(Ordering::SeqCst) > 2);
    stand.broker().clear_hooks();
    // Before anybody looks again it is taken back.
    rig.roll_back(1).await.unwrap();
    rig.commit_at(
        BlockRef { hash: BlockHash::new([9; 32]), ..block(2) },
        changes(r#"-notes {"address": "1"}"#),
    )
    .await
    .unwrap();
    run.catch_up().await.unwrap();

    let said: Vec<String> =
        stand.steps().await.into_iter().map(|(status, id)| format!("{status} {id}")).collect();
    let begun: Vec<&String> = said.iter().filter(|said| said.starts_with("BEGIN")).collect();
    let reorg = said.iter().find_map(|said| said.strip_prefix("REORG ")?.split('-').next()).unwrap();
    assert_eq!(begun[..3], ["BEGIN 0-apply-0", "BEGIN 0-apply-1", "BEGIN 0-apply-2"]);
    assert_eq!(begun[3..], [&format!("BEGIN {reorg}-retract-2"), &format!("BEGIN {reorg}-apply-2")]);
    let topic = format!("{}.notes", rig.name);
    let held: Vec<_> = stand.held(&topic).await.into_iter().collect();
    assert_eq!(held, [("0".to_owned(), "after 1".to_owned())]);
}
