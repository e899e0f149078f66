//! What an independent client reads: run by scripts/kafka-witness.sh, which says where one is (`DEBSHREW_TEST_WITNESS`).

use std::collections::BTreeMap;
use std::process::Command;

use debshrew::relay::Position;
use krafka::Record;
use serde_json::Value;

use super::stand::Stand;
use crate::support::steps::{apply, event, row, table};

/// By isolation level and topic: partition, key and value of each record.
type Read = BTreeMap<String, BTreeMap<String, Vec<(i32, Option<String>, Option<String>)>>>;

fn witness(python: &str, stand: &Stand, topics: &[String]) -> Read {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka-witness.py");
    let output = Command::new(python).arg(script).arg(&stand.brokers).args(topics).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_client_reads_every_step_once() {
    let Ok(python) = std::env::var("DEBSHREW_TEST_WITNESS") else {
        println!("skipped: scripts/kafka-witness.sh runs it");
        return;
    };
    let stand = Stand::any().await;
    let notes = table("notes");
    let mut sink = stand.sink();
    sink.open().await.unwrap();
    sink.publish(&apply(1, vec![event(&notes, None, row("a", "1"))])).await.unwrap();
    drop(sink);
    // The same producer, which dies with a transaction open.
    let kafka = krafka::Kafka::builder(&stand.brokers).connect().await.unwrap();
    let id = format!("{}.ledger.events", stand.prefix);
    let dying = kafka.producer().build_transactional(id).await.unwrap();
    dying.begin().unwrap();
    let stray = Record::new(stand.topic("shop.notes"), "stray").key("stray");
    let _place = dying.send(stray).await.unwrap();
    let mut sink = stand.sink();
    assert_eq!(sink.open().await.unwrap(), Position::At(apply(1, Vec::new()).cursor));
    sink.publish(&apply(2, vec![event(&notes, row("a", "1"), None)])).await.unwrap();
    drop(sink);

    let topics = ["shop.notes", "transaction", "progress"].map(|suffix| stand.topic(suffix));
    let read = tokio::task::block_in_place(|| witness(&python, &stand, &topics));
    let [committed, all] = ["read_committed", "read_uncommitted"].map(|level| &read[level]);
    let ops = |topic: &str| {
        let op = |value: &Option<String>| {
            let value =
                value.as_deref().map(|value| serde_json::from_str::<Value>(value).unwrap_or(Value::Null));
            value.map_or("none".to_owned(), |value| value["op"].as_str().unwrap_or("stray").to_owned())
        };
        committed[topic].iter().map(|(_, _, value)| op(value)).collect::<Vec<_>>()
    };
    assert_eq!(ops(&topics[0]), ["c", "d", "none"]);
    assert_eq!(all[&topics[0]].len(), 4, "{all:?}");
    assert!(all[&topics[0]].iter().any(|(_, key, _)| key.as_deref() == Some("stray")), "{all:?}");
    assert_eq!(committed[&topics[1]].len(), 4);
    let progress = &committed[&topics[2]];
    assert_eq!(progress.len(), 2, "{progress:?}");
    let newest: debshrew::register::Cursor = serde_json::from_str(progress[1].2.as_deref().unwrap()).unwrap();
    assert_eq!(newest, apply(2, Vec::new()).cursor);
}
