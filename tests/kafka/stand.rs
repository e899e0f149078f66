//! A cluster to write to, and its log as consumers read it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use debshrew::config::{Delivery, Destination, Kafka};
use debshrew::relay::{self, Sink};
use krafka::consumer::{AutoOffsetReset, ConsumerRecord, IsolationLevel};
use krafka::testing::FakeBroker;

use crate::support::steps;

/// A broker: in this process, or the one that `DEBSHREW_TEST_KAFKA` names.
pub struct Stand {
    pub fake: Option<FakeBroker>,
    pub brokers: String,
    /// Apart from that of every other test and run.
    pub prefix: String,
}

impl Stand {
    /// What a real cluster can do as well.
    pub async fn any() -> Stand {
        match std::env::var("DEBSHREW_TEST_KAFKA") {
            Ok(brokers) if !brokers.is_empty() => Stand { fake: None, brokers, prefix: prefix() },
            _ => Stand::fake().await,
        }
    }

    /// Where faults are made.
    pub async fn fake() -> Stand {
        let fake = FakeBroker::start().await.unwrap();
        Stand { brokers: fake.bootstrap_servers(), fake: Some(fake), prefix: prefix() }
    }

    pub fn broker(&self) -> &FakeBroker {
        self.fake.as_ref().unwrap()
    }

    pub fn settings(&self) -> Kafka {
        Kafka {
            brokers: vec![self.brokers.clone()],
            prefix: self.prefix.clone(),
            delivery: Delivery::ExactlyOnce,
            partitions: 3,
            replication: 1,
            max_message_bytes: 100_000,
            tls: None,
            sasl: None,
            timeout: Duration::from_secs(if self.fake.is_some() { 2 } else { 20 }),
        }
    }

    pub fn sink(&self) -> Box<dyn Sink> {
        open(self.settings())
    }

    pub fn topic(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.prefix)
    }

    /// All that a consumer gets of a topic, each partition in its order.
    pub async fn read(&self, suffix: &str, isolation: IsolationLevel) -> Vec<ConsumerRecord> {
        let topic = self.topic(suffix);
        let kafka = krafka::Kafka::builder(&self.brokers).connect().await.unwrap();
        let consumer = kafka
            .consumer_without_group()
            .isolation_level(isolation)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .fetch_max_wait(Duration::from_millis(50))
            .build()
            .await
            .unwrap();
        let Ok(found) = kafka
            .admin()
            .describe_topics([&topic], Default::default())
            .await
            .unwrap()
            .remove(&topic)
            .unwrap()
        else {
            return Vec::new();
        };
        let partitions: Vec<i32> = found.partitions.iter().map(|partition| partition.partition).collect();
        consumer.assign(&topic, partitions.clone()).await.unwrap();
        let mut records = Vec::new();
        for partition in partitions {
            let (_, end) = consumer.fetch_watermarks(&topic, partition).await.unwrap();
            while consumer.position(&topic, partition).await.unwrap() < end {
                records.extend(consumer.poll(Duration::from_millis(50)).await.unwrap());
            }
        }
        consumer.close().await.unwrap();
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    pub async fn committed(&self, suffix: &str) -> Vec<ConsumerRecord> {
        self.read(suffix, IsolationLevel::ReadCommitted).await
    }

    /// The steps that were published, by what the control records say of their beginnings and ends.
    pub async fn steps(&self) -> Vec<(String, String)> {
        let records = self.committed("transaction").await;
        let said = records.iter().map(|record| json(record.value.as_deref().unwrap()));
        said.map(|value| (text(&value["status"]), text(&value["id"]))).collect()
    }

    /// What a consumer of a topic holds of each key at last.
    pub async fn held(&self, suffix: &str) -> std::collections::BTreeMap<String, String> {
        let mut held = std::collections::BTreeMap::new();
        for record in self.committed(suffix).await {
            let Some(key) = &record.key else { continue };
            let key = text(&json(key)["address"]);
            match record.value.as_deref().map(|value| text(&json(value)["after"]["note"])) {
                Some(note) if note != "null" => held.insert(key, note),
                _ => held.remove(&key),
            };
        }
        held
    }
}

pub fn open(settings: Kafka) -> Box<dyn Sink> {
    relay::open(&steps::settings(Destination::Kafka(settings)), &steps::about()).unwrap()
}

pub fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

pub fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("test{}x{}", now.as_millis(), NEXT.fetch_add(1, Ordering::Relaxed))
}
