//! The client `krafka` behind the trait [`Client`].

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use krafka::admin::{
    ConfigResource, CreateTopicsOptions, DescribeConfigsOptions, DescribeTopicsOptions,
    DescribeTransactionsOptions, ListOffsetsOptions, OffsetSpec, TopicPartition,
};
use krafka::consumer::{AutoOffsetReset, IsolationLevel};
use krafka::error::ErrorCode;
use krafka::producer::{DeliveryHandle, Producer, ProducerBuilder, TransactionalProducer};
use krafka::{CloseOptions, Kafka, KrafkaError, ProtocolErrorKind, Record};
use tokio::time::Instant;

use super::client::{Client, ClientError, Making, Message, NewTopic, Role, Topic, Trouble};
use super::security::{secrets, security};
use super::tasks::Tasks;
use super::trouble::told;
use crate::config::{self, Secret};
use crate::failure::crash_point;

/// Records go into batches of this size; a larger one has a batch of its own.
const BATCH_BYTES: usize = 64 * 1024;

/// What may wait to be sent.
const BUFFER_BYTES: usize = 32 * 1024 * 1024;

/// The longest that brokers let a transaction take unless they are told otherwise (`transaction.max.timeout.ms`).
const LONGEST_TRANSACTION: Duration = Duration::from_secs(900);

/// So many records at a topic's end are looked through before all of it is.
const TAIL: i64 = 500;

pub(super) struct Driver {
    kafka: Kafka,
    writer: Option<Writer>,
    tasks: Tasks,
    times: Times,
    max_message_bytes: usize,
    secrets: Vec<Secret>,
}

enum Writer {
    Transactional(TransactionalProducer),
    Idempotent { producer: Producer, sent: Vec<DeliveryHandle> },
}

/// How long things may take; each is longer than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    connect: Duration,
    /// An answer of a broker's.
    request: Duration,
    /// A record, or a call, with all that is tried again.
    delivery: Duration,
    /// A step.
    step: Duration,
    /// After that the cluster itself gives a transaction up.
    transaction: Duration,
}

impl Times {
    fn new(timeout: Duration) -> Times {
        let request = timeout.clamp(Duration::from_millis(100), LONGEST_TRANSACTION / 4);
        Times {
            connect: request.min(Duration::from_secs(10)),
            request,
            delivery: request * 2,
            step: request * 3,
            transaction: request * 4,
        }
    }
}

impl Driver {
    pub(super) async fn connect(settings: &config::Kafka) -> Result<Driver, ClientError> {
        let times = Times::new(settings.timeout);
        let mut builder = Kafka::builder(settings.brokers.join(","))
            .client_id(concat!("debshrew-", env!("CARGO_PKG_VERSION")))
            .connect_timeout(times.connect)
            .request_timeout(times.request);
        if let Some(security) = security(settings)? {
            builder = builder.security(security);
        }
        let secrets = secrets(settings);
        let tasks = Tasks::new().map_err(|error| ClientError {
            trouble: Trouble::Passing,
            message: format!("cannot start a thread: {error}"),
        })?;
        let kafka = tasks
            .within(times.delivery, "connecting", builder.connect())
            .await
            .map_err(|error| told(error, &secrets, &format!("cannot connect to {}", all(settings))))?;
        Ok(Driver {
            kafka,
            writer: None,
            tasks,
            times,
            max_message_bytes: settings.max_message_bytes,
            secrets,
        })
    }

    fn producer(&self) -> ProducerBuilder {
        let batch = BATCH_BYTES.min(self.max_message_bytes).max(1);
        self.kafka
            .producer()
            .batch_size(batch)
            .buffer_memory(BUFFER_BYTES.max(self.max_message_bytes.saturating_mul(2)))
            .max_request_size(self.max_message_bytes.saturating_mul(2).max(1 << 20))
            .delivery_timeout(self.times.delivery)
            .max_block(self.times.delivery)
            .metrics_push(false)
    }

    async fn writer_as(&self, role: Role) -> Result<Writer, KrafkaError> {
        match role {
            Role::Transactional { id } => {
                let builder = self.producer().transaction_timeout(self.times.transaction);
                Ok(Writer::Transactional(builder.build_transactional(id).await?))
            }
            Role::Idempotent => {
                Ok(Writer::Idempotent { producer: self.producer().build().await?, sent: Vec::new() })
            }
        }
    }

    async fn topics_of(&self, names: &[String]) -> Result<Vec<Topic>, KrafkaError> {
        let options = DescribeTopicsOptions::default().timeout(self.times.delivery);
        let found = self.kafka.admin().describe_topics(names, options).await?;
        let mut topics = Vec::new();
        for (name, topic) in found {
            match topic {
                Ok(topic) => topics.push(Topic {
                    name,
                    partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
                    may_write: topic.authorized_operations.and_then(may_write),
                }),
                Err(KrafkaError::Broker { code: ErrorCode::UnknownTopicOrPartition, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    async fn make(&self, topics: &[NewTopic], making: Making) -> Result<(), KrafkaError> {
        let wanted: Result<Vec<_>, _> = topics.iter().map(new_topic).collect();
        let options = CreateTopicsOptions::default()
            .timeout(self.times.delivery)
            .validate_only(making == Making::Tried);
        for (_, made) in self.kafka.admin().create_topics(wanted?, options).await? {
            match made {
                Ok(()) | Err(KrafkaError::Broker { code: ErrorCode::TopicAlreadyExists, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn largest(&self, topic: &str) -> Result<Option<u64>, KrafkaError> {
        let resource = ConfigResource::topic(topic);
        let options = DescribeConfigsOptions::default()
            .timeout(self.times.delivery)
            .config_names(vec!["max.message.bytes".to_owned()]);
        let found = self.kafka.admin().describe_configs([resource.clone()], options).await?;
        let entries = match found.get(&resource) {
            Some(Ok(entries)) => entries,
            // A cluster that does not tell, or not this client.
            Some(Err(KrafkaError::Protocol { kind: ProtocolErrorKind::UnknownApiVersion, .. })) | None => {
                return Ok(None);
            }
            Some(Err(KrafkaError::Broker {
                code: ErrorCode::TopicAuthorizationFailed | ErrorCode::ClusterAuthorizationFailed,
                ..
            })) => return Ok(None),
            Some(Err(error)) => return Err(error.clone()),
        };
        let entry = entries.iter().find(|entry| entry.name == "max.message.bytes");
        Ok(entry.and_then(|entry| entry.value.as_ref()?.parse().ok()))
    }

    async fn may_use(&self, id: &str) -> Result<Option<bool>, KrafkaError> {
        let options = DescribeTransactionsOptions::default().timeout(self.times.delivery);
        match self.kafka.admin().describe_transactions([id], options).await?.remove(id) {
            Some(Ok(_) | Err(KrafkaError::Broker { code: ErrorCode::TransactionalIdNotFound, .. })) => {
                Ok(Some(true))
            }
            Some(Err(KrafkaError::Broker {
                code: ErrorCode::TransactionalIdAuthorizationFailed, ..
            })) => Ok(Some(false)),
            // Clusters before Kafka 3.0 cannot tell.
            Some(Err(KrafkaError::Protocol { kind: ProtocolErrorKind::UnknownApiVersion, .. })) | None => {
                Ok(None)
            }
            Some(Err(error)) => Err(error),
        }
    }

    async fn offset(&self, topic: &str, spec: OffsetSpec) -> Result<i64, KrafkaError> {
        // Not the last stable offset: what others have open may stand before what is ours and committed.
        let options = ListOffsetsOptions::default().timeout(self.times.delivery).read_committed(false);
        let place = TopicPartition::new(topic, 0);
        let mut found = self.kafka.admin().list_offsets([(place.clone(), spec)], options).await?;
        match found.remove(&place) {
            Some(listed) => Ok(listed?.offset),
            None => Err(KrafkaError::unknown_topic(topic)),
        }
    }

    /// Looks at the end first: there it is, but for topics that many write to.
    async fn newest_in(&self, topic: &str, key: &[u8]) -> Result<Option<Vec<u8>>, KrafkaError> {
        let first = self.offset(topic, OffsetSpec::Earliest).await?;
        let end = self.offset(topic, OffsetSpec::Latest).await?;
        let tail = first.max(end - TAIL);
        match self.scan(topic, key, tail, end).await? {
            None if tail > first => self.scan(topic, key, first, tail).await,
            found => Ok(found),
        }
    }

    /// The value of the last committed record with a key in a part of a topic's log.
    async fn scan(
        &self,
        topic: &str,
        key: &[u8],
        start: i64,
        end: i64,
    ) -> Result<Option<Vec<u8>>, KrafkaError> {
        let consumer = self
            .kafka
            .consumer_without_group()
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .enable_auto_commit(false)
            .fetch_max_wait(Duration::from_millis(100))
            .metrics_push(false)
            .build()
            .await?;
        consumer.assign(topic, vec![0]).await?;
        consumer.seek(topic, 0, start).await?;
        let mut newest = None;
        while consumer.position(topic, 0).await.is_none_or(|position| position < end) {
            for record in consumer.poll(Duration::from_millis(100)).await? {
                if record.offset < end && record.key.as_deref() == Some(key) {
                    newest = record.value.map(|value| value.to_vec());
                }
            }
        }
        consumer.close().await?;
        Ok(newest)
    }

    fn told(&self, error: KrafkaError, what: &str) -> ClientError {
        told(error, &self.secrets, what)
    }
}

async fn write(writer: &mut Option<Writer>, messages: Vec<Message>) -> Result<(), KrafkaError> {
    let records = messages.into_iter().map(record);
    match writer {
        Some(Writer::Transactional(producer)) => transaction(producer, records).await,
        Some(Writer::Idempotent { producer, sent }) => {
            for record in records {
                sent.push(producer.enqueue(record).await?);
            }
            Ok(())
        }
        None => Err(KrafkaError::illegal_state("nothing was begun")),
    }
}

/// Waits for what was queued.
async fn settle(writer: &mut Option<Writer>) -> Result<(), KrafkaError> {
    if let Some(Writer::Idempotent { producer, sent }) = writer {
        producer.flush().await?;
        for sent in sent.drain(..) {
            let _place = sent.await?;
        }
    }
    Ok(())
}

/// One transaction with all of these, or an error; then the producer is of no use any more.
async fn transaction(
    producer: &TransactionalProducer,
    records: impl Iterator<Item = Record>,
) -> Result<(), KrafkaError> {
    producer.begin()?;
    let mut sent = Vec::new();
    let mut refused = None;
    for record in records {
        match producer.enqueue(record).await {
            Ok(handle) => sent.push(handle),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    producer.flush().await?;
    // What one of them failed of says more than that another was not taken because of it.
    for handle in sent {
        let _place = handle.await?;
    }
    if let Some(error) = refused {
        return Err(error);
    }
    crash_point("kafka-before-commit");
    producer.commit().await?;
    crash_point("kafka-after-commit");
    Ok(())
}

impl Client for Driver {
    fn begin(&mut self, role: Role) -> BoxFuture<'_, Result<(), ClientError>> {
        let what = "taking up the transactional id";
        async move {
            let writer = self.tasks.within(self.times.step, what, self.writer_as(role)).await;
            self.writer = Some(writer.map_err(|error| self.told(error, "cannot begin to write"))?);
            Ok(())
        }
        .boxed()
    }

    fn topics<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<Vec<Topic>, ClientError>> {
        async {
            let found = self.tasks.within(self.times.step, "looking for topics", self.topics_of(names)).await;
            found.map_err(|error| self.told(error, "cannot look for topics"))
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        topics: &'a [NewTopic],
        making: Making,
    ) -> BoxFuture<'a, Result<(), ClientError>> {
        async move {
            let made = self.tasks.within(self.times.step, "making topics", self.make(topics, making)).await;
            made.map_err(|error| {
                let names: Vec<String> = topics.iter().map(|topic| format!("`{}`", topic.name)).collect();
                self.told(error, &format!("cannot make topics ({})", names.join(", ")))
            })
        }
        .boxed()
    }

    fn largest_message<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<Option<u64>, ClientError>> {
        let what = "asking for a topic's settings";
        async move {
            let found = self.tasks.within(self.times.step, what, self.largest(topic)).await;
            found.map_err(|error| self.told(error, &format!("cannot read the settings of `{topic}`")))
        }
        .boxed()
    }

    fn may_begin<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<bool>, ClientError>> {
        let what = "asking for the transactional id";
        async move {
            let found = self.tasks.within(self.times.step, what, self.may_use(id)).await;
            found.map_err(|error| self.told(error, &format!("cannot ask for the transactional id `{id}`")))
        }
        .boxed()
    }

    fn newest<'a>(
        &'a self,
        topic: &'a str,
        key: &'a [u8],
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, ClientError>> {
        let what = "reading to the end, or waiting for transactions of others,";
        async move {
            let found = self.tasks.within(self.times.transaction, what, self.newest_in(topic, key)).await;
            found.map_err(|error| self.told(error, &format!("cannot read `{topic}`")))
        }
        .boxed()
    }

    fn send(&mut self, messages: Vec<Message>) -> BoxFuture<'_, Result<(), ClientError>> {
        async move {
            let begun = Instant::now();
            let writing = write(&mut self.writer, messages);
            let written = self.tasks.within(self.times.step, "writing", writing).await;
            written.map_err(|error| {
                self.told(error, "cannot write").after(begun.elapsed(), self.times.transaction)
            })
        }
        .boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), ClientError>> {
        async move {
            let settling = settle(&mut self.writer);
            let settled = self.tasks.within(self.times.step, "writing", settling).await;
            settled.map_err(|error| self.told(error, "cannot write"))
        }
        .boxed()
    }
}

/// An open transaction would hold up those who read; whatever else is under way ends here.
impl Drop for Driver {
    fn drop(&mut self) {
        let Some(Writer::Transactional(producer)) = self.writer.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (tasks, limit) = (std::mem::take(&mut self.tasks), self.times.request);
        runtime.spawn(async move {
            let closing = producer.close_with(CloseOptions::new().timeout(limit));
            // It fails where somebody else has gone on, or the cluster is away: then it is over there as well.
            tasks.within(limit, "closing", closing).await.ok();
        });
    }
}

fn record(message: Message) -> Record {
    let record = match message.value {
        Some(value) => Record::new(message.topic, value),
        None => Record::new(message.topic, Vec::new()).without_value(),
    };
    let record = match message.key {
        Some(key) => record.key(key),
        None => record,
    };
    let record = match message.partition.and_then(|partition| i32::try_from(partition).ok()) {
        Some(partition) => record.partition(partition),
        None => record,
    };
    match message.id {
        Some(id) => record.header("id", id.into_bytes()),
        None => record,
    }
}

fn new_topic(topic: &NewTopic) -> Result<krafka::admin::NewTopic, KrafkaError> {
    let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
    let replication = match topic.replication {
        0 => -1,
        copies => i16::try_from(copies).unwrap_or(i16::MAX),
    };
    let new = krafka::admin::NewTopic::new(&topic.name, partitions, replication)?;
    Ok(topic.settings.iter().fold(new, |new, (key, value)| new.with_config(*key, value)))
}

/// By the bits of the operations that a client is allowed.
/// Source: Apache Kafka, `AclOperation`: 4 is `WRITE`; the lowest number stands for "not told".
fn may_write(operations: i32) -> Option<bool> {
    (operations != i32::MIN).then_some(operations & (1 << 4) != 0)
}

fn all(settings: &config::Kafka) -> String {
    settings.brokers.iter().map(|broker| format!("`{broker}`")).collect::<Vec<_>>().join(", ")
}
