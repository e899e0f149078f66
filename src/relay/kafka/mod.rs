//! Kafka: a step is a transaction with its records, its control records and how far the stream is; or, at least once,
//! records with the same `id` whenever they come again.

mod client;
mod driver;
mod records;
mod security;
mod topics;
mod trouble;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use self::client::{Client, ClientError, Message, Role};
use self::driver::Driver;
use self::records::{Record, Records, To};
use self::topics::{PROGRESS, Topics};
use super::format::About;
use super::sink::{Position, Sink, SinkError};
use super::step::Step;
use crate::config::{self, Delivery};
use crate::failure::{Kind, excerpt};

/// Makes a client.
type Connect =
    Box<dyn Fn(&config::Kafka) -> BoxFuture<'_, Result<Box<dyn Client>, ClientError>> + Send + Sync>;

pub(super) struct KafkaSink {
    settings: config::Kafka,
    pipeline: String,
    name: String,
    records: Records,
    topics: Topics,
    connect: Connect,
    client: Option<Box<dyn Client>>,
}

impl KafkaSink {
    pub(super) fn new(sink: &config::Sink, settings: &config::Kafka, about: &About) -> KafkaSink {
        let connect: Connect = Box::new(|settings| {
            async { Ok(Box::new(Driver::connect(settings).await?) as Box<dyn Client>) }.boxed()
        });
        let records = Records::new(sink, about);
        KafkaSink {
            settings: settings.clone(),
            pipeline: about.pipeline.clone(),
            name: about.sink.clone(),
            topics: Topics::new(settings, records.control()),
            records,
            connect,
            client: None,
        }
    }

    fn keeps_position(&self) -> bool {
        self.settings.delivery == Delivery::ExactlyOnce
    }

    /// What the stream is called among those that share the topic of progress.
    fn stream(&self) -> String {
        format!("{}.{}", self.pipeline, self.name)
    }

    fn role(&self) -> Role {
        match self.settings.delivery {
            Delivery::ExactlyOnce => {
                Role::Transactional { id: format!("{}.{}", self.settings.prefix, self.stream()) }
            }
            Delivery::AtLeastOnce => Role::Idempotent,
        }
    }

    async fn take_up(&mut self) -> Result<Position, SinkError> {
        // An earlier one may still write.
        self.client = None;
        let mut client = (self.connect)(&self.settings).await?;
        let basic = self.topics.basic();
        self.topics.ensure(&*client, basic.iter().map(String::as_str)).await?;
        client.begin(self.role()).await?;
        let position = if self.keeps_position() {
            // Nobody writes to it any more, since whoever did is fenced off.
            let progress = &self.topics.get(PROGRESS)?.name;
            let newest = client.newest(progress, self.stream().as_bytes()).await?;
            newest.map_or(Ok(Position::Empty), |value| self.position(progress, &value))?
        } else {
            Position::NotKept
        };
        self.client = Some(client);
        Ok(position)
    }

    fn position(&self, topic: &str, value: &[u8]) -> Result<Position, SinkError> {
        serde_json::from_slice(value).map(Position::At).map_err(|error| {
            let key = self.stream();
            SinkError::permanent(format!("what the topic `{topic}` has for `{key}` is no position"))
                .because(error)
                .advise("take another `prefix`, which nobody else writes to")
        })
    }

    /// A step's records, in their order, none of them too large.
    fn messages(&self, step: &Step, records: Vec<Record>) -> Result<Vec<Message>, SinkError> {
        let id = step.id();
        let mut messages = Vec::with_capacity(records.len() + 1);
        for (ordinal, record) in records.into_iter().enumerate() {
            let topic = self.topics.get(&record.topic)?;
            let message = Message {
                topic: topic.name.clone(),
                partition: None,
                key: record.key,
                value: record.value,
                id: (!self.keeps_position()).then(|| format!("{id}:{ordinal}")),
            };
            self.check_size(&message, &record.topic, step)?;
            match record.to {
                To::One => messages.push(message),
                To::Every => messages.extend(
                    (0..topic.partitions)
                        .map(|partition| Message { partition: Some(partition), ..message.clone() }),
                ),
            }
        }
        if self.keeps_position() && step.completes() {
            let cursor = serde_json::to_vec(&step.cursor)
                .map_err(|error| SinkError::permanent("a position cannot be written").because(error))?;
            messages.push(Message {
                topic: self.topics.get(PROGRESS)?.name.clone(),
                partition: None,
                key: Some(self.stream().into_bytes()),
                value: Some(cursor),
                id: None,
            });
        }
        Ok(messages)
    }

    fn check_size(&self, message: &Message, suffix: &str, step: &Step) -> Result<(), SinkError> {
        let (bytes, most) = (message.bytes(), self.settings.max_message_bytes);
        if bytes <= most {
            return Ok(());
        }
        let key = message.key.as_deref().map(String::from_utf8_lossy);
        let key = key.map_or_else(|| "none".to_owned(), |key| format!("`{}`", excerpt(&key)));
        Err(SinkError::permanent(format!(
            "a record of `{suffix}` in {} is too large: key {key}, {bytes} bytes, of which `max_message_bytes` allows {most}",
            step.title()
        ))
        .advise(
            "raise `max_message_bytes` here and `max.message.bytes` of the topic, or leave the table out with `tables`",
        ))
    }

    async fn write(&mut self, step: &Step) -> Result<(), SinkError> {
        let records = self.records.of(step);
        let Some(client) = &self.client else { return Err(not_open()) };
        let mut suffixes: Vec<&str> = records.iter().map(|record| &*record.topic).collect();
        suffixes.dedup();
        self.topics.ensure(&**client, suffixes).await?;
        let messages = self.messages(step, records)?;
        let Some(client) = &mut self.client else { return Err(not_open()) };
        client.send(messages).await.map_err(|error| {
            let error = SinkError::from(error);
            SinkError { message: format!("{}: {}", step.title(), error.message), ..error }
        })
    }
}

fn not_open() -> SinkError {
    SinkError::transient("the sink is not open")
}

impl Sink for KafkaSink {
    fn open(&mut self) -> BoxFuture<'_, Result<Position, SinkError>> {
        self.take_up().boxed()
    }

    fn publish<'a>(&'a mut self, step: &'a Step) -> BoxFuture<'a, Result<(), SinkError>> {
        self.write(step).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        async {
            if let Some(client) = self.client.as_deref_mut() {
                client.flush().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&mut self) -> BoxFuture<'_, Result<Vec<String>, SinkError>> {
        async {
            let client = (self.connect)(&self.settings).await?;
            let mut said = self.topics.check(&*client, &self.settings).await?;
            if security::is_login_in_clear(&self.settings) {
                said.push("the login goes to the brokers unencrypted: set `tls`".to_owned());
            }
            Ok(said)
        }
        .boxed()
    }
}

impl From<ClientError> for SinkError {
    fn from(error: ClientError) -> SinkError {
        let sink = match error.trouble.kind() {
            Kind::Transient => SinkError::transient(error.message),
            Kind::Permanent => SinkError::permanent(error.message),
        };
        match error.trouble.advice() {
            Some(advice) => sink.advise(advice),
            None => sink,
        }
    }
}
