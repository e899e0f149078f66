//! The sink for Kafka, on a broker in this process or on the one that `DEBSHREW_TEST_KAFKA` (host:port) names.

mod faults;
mod stand;
mod witness;

use std::collections::BTreeSet;
use std::time::Duration;

use debshrew::config::{Delivery, Destination, Format, Mechanism, Sasl, Secret, Tls};
use debshrew::failure::Kind;
use debshrew::relay::{self, Position};
use krafka::Record;
use krafka::testing::ApiKey;

use self::stand::{Stand, json, open, text};
use crate::support::steps::{about, apply, block, event, retract, row, settings, snapshot, table};

#[tokio::test]
async fn a_step_is_records_control_records_and_a_position() {
    let stand = Stand::any().await;
    let notes = table("notes");
    let mut sink = stand.sink();
    assert_eq!(sink.open().await.unwrap(), Position::Empty);
    let changed = vec![event(&notes, row("a", "1"), row("a", "2")), event(&notes, row("b", "1"), None)];
    let applied = apply(7, changed.clone());
    sink.publish(&applied).await.unwrap();
    let undone = changed.into_iter().rev().map(debshrew::undo::Event::inverted).collect();
    let retracted = retract(7, 6, 3, undone);
    sink.publish(&retracted).await.unwrap();
    sink.flush().await.unwrap();
    drop(sink);

    let steps = stand.steps().await;
    let expected = [
        ("BEGIN", &applied),
        ("END", &applied),
        ("BEGIN", &retracted),
        ("REORG", &retracted),
        ("END", &retracted),
    ];
    assert_eq!(steps, expected.map(|(status, step)| (status.to_owned(), step.id())));
    assert_eq!(
        stand.held("shop.notes").await.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "1".to_owned())]
    );
    let records = stand.committed("shop.notes").await;
    assert_eq!(records.len(), 5, "{records:?}");
    let of_b: Vec<_> =
        records.iter().filter(|record| json(record.key.as_deref().unwrap())["address"] == "b").collect();
    let said: Vec<String> = of_b
        .iter()
        .map(|record| record.value.as_deref().map_or("none".into(), |value| text(&json(value)["op"])))
        .collect();
    assert_eq!(said, ["d", "none", "c"], "a delete, its tombstone, and the row again");
    assert_eq!(of_b.iter().map(|record| record.partition).collect::<BTreeSet<_>>().len(), 1);
    assert!(records.iter().all(|record| record.headers.is_empty()), "{records:?}");

    let mut again = stand.sink();
    assert_eq!(again.open().await.unwrap(), Position::At(retracted.cursor));
}

#[tokio::test]
async fn a_snapshot_counts_with_its_last_part() {
    let stand = Stand::any().await;
    let notes = table("notes");
    let part = |part, last| {
        snapshot(9, part, last, Vec::new(), vec![event(&notes, None, row(&part.to_string(), "x"))])
    };
    let mut sink = stand.sink();
    sink.open().await.unwrap();
    sink.publish(&part(0, false)).await.unwrap();
    let mut sink = stand.sink();
    assert_eq!(sink.open().await.unwrap(), Position::Empty);
    sink.publish(&part(0, false)).await.unwrap();
    sink.publish(&part(1, true)).await.unwrap();
    assert_eq!(stand.sink().open().await.unwrap(), Position::At(part(1, true).cursor));
}

#[tokio::test]
async fn what_is_void_is_said_in_every_partition() {
    let stand = Stand::any().await;
    let notes = table("notes");
    let mut sink = stand.sink();
    sink.open().await.unwrap();
    sink.publish(&snapshot(9, 0, true, vec![notes.clone()], vec![event(&notes, None, row("a", "x"))]))
        .await
        .unwrap();
    let records = stand.committed("shop.notes").await;
    let void: Vec<i32> =
        records.iter().filter(|record| record.key.is_none()).map(|record| record.partition).collect();
    assert_eq!(void, [0, 1, 2]);
    let row = records.iter().find(|record| record.key.is_some()).unwrap();
    assert!(
        records
            .iter()
            .any(|void| void.key.is_none() && void.partition == row.partition && void.offset < row.offset)
    );
}

#[tokio::test]
async fn a_second_producer_fences_the_first() {
    let stand = Stand::any().await;
    let notes = table("notes");
    let step = |height: u32| apply(height, vec![event(&notes, None, row(&height.to_string(), "x"))]);
    let mut first = stand.sink();
    first.open().await.unwrap();
    first.publish(&step(1)).await.unwrap();
    let mut second = stand.sink();
    assert_eq!(second.open().await.unwrap(), Position::At(step(1).cursor));
    let error = first.publish(&step(2)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent, "{error}");
    assert!(error.message.contains(&format!("block {}", block(2))), "{error}");
    assert!(error.advice.unwrap().contains("another `prefix`"));
    second.publish(&step(2)).await.unwrap();
    let ids: Vec<String> =
        stand.steps().await.into_iter().map(|(status, id)| format!("{status} {id}")).collect();
    assert_eq!(ids, ["BEGIN 0-apply-1", "END 0-apply-1", "BEGIN 0-apply-2", "END 0-apply-2"]);
    assert_eq!(stand.held("shop.notes").await.len(), 2);
}

#[tokio::test]
async fn streams_of_other_pipelines_and_sinks_are_apart() {
    let stand = Stand::any().await;
    let notes = table("notes");
    let of = |pipeline: &str, sink: &str| {
        let about = relay::About { pipeline: pipeline.into(), sink: sink.into(), ..about() };
        relay::open(&settings(Destination::Kafka(stand.settings())), &about).unwrap()
    };
    let mut first = of("ledger", "events");
    first.open().await.unwrap();
    first.publish(&apply(1, vec![event(&notes, None, row("a", "x"))])).await.unwrap();
    for (pipeline, sink) in [("ledger", "others"), ("other", "events")] {
        assert_eq!(of(pipeline, sink).open().await.unwrap(), Position::Empty, "{pipeline} {sink}");
    }
    first.publish(&apply(2, Vec::new())).await.expect("nobody has fenced it");
}

/// A producer of somebody else's that shares the topic of progress.
async fn another(stand: &Stand, id: &str) -> krafka::producer::TransactionalProducer {
    let kafka = krafka::Kafka::builder(&stand.brokers).connect().await.unwrap();
    kafka.producer().build_transactional(format!("{}.{id}", stand.prefix)).await.unwrap()
}

#[tokio::test]
async fn the_position_is_found_behind_what_others_have_open() {
    let stand = Stand::any().await;
    let mut sink = stand.sink();
    sink.open().await.unwrap();
    sink.publish(&apply(1, Vec::new())).await.unwrap();
    let other = another(&stand, "other").await;
    other.begin().unwrap();
    let _place = other.send(Record::new(stand.topic("progress"), "x").key("other")).await.unwrap();
    sink.publish(&apply(2, Vec::new())).await.unwrap();

    // A reader of what is committed does not see block 2 before the other one is done.
    let mut again = stand.sink();
    let opening = tokio::spawn(async move { again.open().await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!opening.is_finished(), "it did not wait");
    other.commit().await.unwrap();
    assert_eq!(opening.await.unwrap().unwrap(), Position::At(apply(2, Vec::new()).cursor));
    other.close().await.unwrap();
}

#[tokio::test]
async fn the_position_is_found_behind_a_lot_of_others() {
    let stand = Stand::any().await;
    let mut sink = stand.sink();
    sink.open().await.unwrap();
    sink.publish(&apply(1, Vec::new())).await.unwrap();
    let other = another(&stand, "other").await;
    other.begin().unwrap();
    for number in 0..1_200 {
        let record = Record::new(stand.topic("progress"), "x").key(format!("other{number}"));
        drop(other.enqueue(record).await.unwrap());
    }
    other.commit().await.unwrap();
    other.close().await.unwrap();
    assert_eq!(stand.sink().open().await.unwrap(), Position::At(apply(1, Vec::new()).cursor));
}

#[tokio::test]
async fn what_is_no_position_is_not_taken_for_none() {
    let stand = Stand::any().await;
    let mut sink = stand.sink();
    sink.open().await.unwrap();
    let other = another(&stand, "other").await;
    other.begin().unwrap();
    let _place = other.send(Record::new(stand.topic("progress"), "x").key("ledger.events")).await.unwrap();
    other.commit().await.unwrap();
    other.close().await.unwrap();
    let error = stand.sink().open().await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert!(error.message.contains("no position") && error.message.contains("`ledger.events`"), "{error}");
}

#[tokio::test]
async fn a_record_that_is_too_large_is_named_before_anything_is_sent() {
    let stand = Stand::any().await;
    let notes = table("notes");
    let mut sink = stand.sink();
    sink.open().await.unwrap();
    let large = "x".repeat(200_000);
    let events = vec![event(&notes, None, row("small", "x")), event(&notes, None, row("large", &large))];
    let error = sink.publish(&apply(1, events)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    for part in ["`shop.notes`", r#"{"address":"large"}"#, "allows 100000", &format!("block {}", block(1))] {
        assert!(error.message.contains(part), "{error}");
    }
    let bytes: usize =
        error.message.split(" bytes").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((200_000..201_000).contains(&bytes), "{error}");
    if let Some(fake) = &stand.fake {
        assert_eq!(fake.request_count(ApiKey::Produce), 0);
    }
    // Just small enough.
    let fits = "x".repeat(99_000);
    sink.publish(&apply(1, vec![event(&notes, None, row("large", &fits))])).await.unwrap();
    assert_eq!(stand.held("shop.notes").await["large"].len(), 99_000);
}

#[tokio::test]
async fn topics_are_made_as_tables_appear() {
    let stand = Stand::any().await;
    let mut sink = stand.sink();
    let said = sink.check().await.unwrap().join("; ");
    assert!(said.contains("will be made") && said.contains(&stand.topic("progress")), "{said}");
    assert!(stand.committed("transaction").await.is_empty());
    sink.open().await.unwrap();
    sink.publish(&apply(1, vec![event(&table("one"), None, row("a", "x"))])).await.unwrap();
    sink.publish(&apply(2, vec![event(&table("The öther"), None, row("a", "x"))])).await.unwrap();
    assert_eq!(stand.held("shop.one").await.len(), 1);
    assert_eq!(stand.held("shop.The__ther").await.len(), 1);
    if let Some(fake) = &stand.fake {
        let partitions =
            |suffix: &str| fake.with_state(|state| state.topics[&stand.topic(suffix)].partitions.len());
        assert_eq!(["progress", "transaction", "shop.one"].map(partitions), [1, 1, 3]);
    }
    assert_eq!(sink.check().await.unwrap(), [""; 0]);
    // Both would be one topic, whose keys are not apart.
    let error = sink.publish(&apply(3, vec![event(&table("The.öther"), None, row("a", "x"))])).await;
    error.expect("a point may be in a name");
    let error =
        sink.publish(&apply(4, vec![event(&table("The äther"), None, row("a", "x"))])).await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert!(
        error.message.contains("`shop.The öther`") && error.message.contains("`shop.The äther`"),
        "{error}"
    );
}

#[tokio::test]
async fn topics_that_are_not_to_be_made_are_named() {
    let stand = Stand::fake().await;
    let without = || open(debshrew::config::Kafka { partitions: 0, ..stand.settings() });
    for error in [without().open().await.unwrap_err(), without().check().await.unwrap_err()] {
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.message.contains(&stand.topic("progress")), "{error}");
        assert!(error.message.contains(&stand.topic("transaction")), "{error}");
    }
    stand.broker().create_topic(&stand.topic("transaction"), 1);
    stand.broker().create_topic(&stand.topic("progress"), 2);
    let error = without().open().await.unwrap_err();
    assert!(error.message.contains("has 2 partitions, and must have one"), "{error}");
    assert_eq!(error.kind, Kind::Permanent);
}

#[tokio::test]
async fn at_least_once_has_ids_and_no_transactions() {
    let stand = Stand::any().await;
    let notes = table("notes");
    let mut sink = open(debshrew::config::Kafka { delivery: Delivery::AtLeastOnce, ..stand.settings() });
    assert_eq!(sink.open().await.unwrap(), Position::NotKept);
    let step = apply(1, vec![event(&notes, None, row("a", "1")), event(&notes, row("b", "1"), None)]);
    for _ in 0..2 {
        sink.publish(&step).await.unwrap();
        sink.flush().await.unwrap();
    }
    let mut ids: Vec<String> = Vec::new();
    for suffix in ["transaction", "shop.notes"] {
        let records = stand.committed(suffix).await;
        ids.extend(records.iter().map(|record| record.header_str("id").unwrap().to_owned()));
    }
    ids.sort();
    let expected: Vec<String> =
        (0..5).flat_map(|ordinal| [format!("0-apply-1:{ordinal}"), format!("0-apply-1:{ordinal}")]).collect();
    assert_eq!(ids, expected);
    assert_eq!(stand.committed("progress").await.len(), 0);
    if let Some(fake) = &stand.fake {
        assert_eq!(fake.request_count(ApiKey::EndTxn), 0);
    }
}

#[tokio::test]
async fn the_compact_form_is_a_document_a_block() {
    let stand = Stand::any().await;
    let kafka = Destination::Kafka(stand.settings());
    let compact = debshrew::config::Sink { format: Format::Compact, ..settings(kafka) };
    let mut sink = relay::open(&compact, &about()).unwrap();
    sink.open().await.unwrap();
    for height in [1, 2] {
        sink.publish(&apply(height, vec![event(&table("notes"), None, row("a", "x"))])).await.unwrap();
    }
    let documents = stand.committed("blocks").await;
    let ids: Vec<String> =
        documents.iter().map(|record| text(&json(record.value.as_deref().unwrap())["id"])).collect();
    assert_eq!(ids, ["0-apply-1", "0-apply-2"]);
    assert_eq!(stand.sink().open().await.unwrap(), Position::At(apply(2, Vec::new()).cursor));
}

#[tokio::test]
async fn a_login_that_is_refused_is_permanent_and_not_repeated() {
    let stand = Stand::fake().await;
    stand.broker().require_sasl_plain("someone", "sesame");
    let sasl = |password: &str| {
        Some(Sasl {
            mechanism: Mechanism::Plain,
            username: Some("someone".to_owned()),
            password: Some(Secret::new(password)),
            token: None,
        })
    };
    let with = |sasl| open(debshrew::config::Kafka { sasl, ..stand.settings() });
    let mut right = with(sasl("sesame"));
    assert_eq!(right.open().await.unwrap(), Position::Empty);
    let said = right.check().await.unwrap().join("; ");
    assert!(said.contains("unencrypted"), "{said}");
    let error = with(sasl("open up")).open().await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent, "{error}");
    assert!(!format!("{error:?}").contains("open up"), "{error:?}");
    assert!(error.advice.unwrap().contains("`sasl`"));
}

#[tokio::test]
async fn with_tls_nothing_goes_out_in_clear() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stand = Stand::fake().await;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/root.pem");
    let mut sink = open(debshrew::config::Kafka {
        brokers: vec![listener.local_addr().unwrap().to_string()],
        tls: Some(Tls { root_cert: Some(root.into()), cert: None, key: None }),
        sasl: Some(Sasl {
            mechanism: Mechanism::OauthBearer,
            username: None,
            password: None,
            token: Some(Secret::new("sesame-token")),
        }),
        timeout: Duration::from_millis(300),
        ..stand.settings()
    });
    let opening = tokio::spawn(async move { sink.open().await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut received = vec![0; 3];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut received).await.unwrap();
    // RFC 8446, section 5.1: a handshake record.
    assert_eq!(received[..2], [22, 3]);
    let error = opening.await.unwrap().unwrap_err();
    assert_eq!(error.kind, Kind::Transient, "{error}");
    assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
}

#[tokio::test]
async fn brokers_that_are_away_or_hang_are_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = listener.local_addr().unwrap().to_string();
    let stand = Stand::fake().await;
    for brokers in ["127.0.0.1:1".to_owned(), hangs] {
        let timeout = Duration::from_millis(300);
        let mut sink =
            open(debshrew::config::Kafka { brokers: vec![brokers.clone()], timeout, ..stand.settings() });
        let error = tokio::time::timeout(Duration::from_secs(5), sink.open()).await.unwrap().unwrap_err();
        assert_eq!(error.kind, Kind::Transient, "{error}");
        assert!(error.message.contains(&format!("`{brokers}`")), "{error}");
    }
}
