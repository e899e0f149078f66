//! Kafka: a step is a transaction with its records, its control records and how far the stream is; or, at least once,
//! records with the same `id` whenever they come again.

mod client;
mod driver;
mod records;
mod security;
mod tasks;
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
            let mut said = self.topics.check(&*client).await?;
            if let Role::Transactional { id } = self.role()
                && client.may_begin(&id).await? == Some(false)
            {
                let problem = format!("this user may not write with the transactional id `{id}`");
                return Err(SinkError::permanent(problem));
            }
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::client::{Making, NewTopic, Topic, Trouble};
    use super::*;
    use crate::config::{Beginning, Destination, Format, OnLag, Retry};

    /// A cluster that answers what it is told to.
    #[derive(Clone)]
    struct Told {
        topics: Vec<Topic>,
        largest_message: Option<u64>,
        may_begin: Option<bool>,
        made: Arc<Mutex<Vec<(NewTopic, Making)>>>,
    }

    fn answer<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, Result<T, ClientError>> {
        std::future::ready(Ok(answer)).boxed()
    }

    impl Client for Told {
        fn begin(&mut self, _role: Role) -> BoxFuture<'_, Result<(), ClientError>> {
            answer(())
        }

        fn topics<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<Vec<Topic>, ClientError>> {
            answer(self.topics.iter().filter(|topic| names.contains(&topic.name)).cloned().collect())
        }

        fn create<'a>(
            &'a self,
            topics: &'a [NewTopic],
            making: Making,
        ) -> BoxFuture<'a, Result<(), ClientError>> {
            self.made.lock().unwrap().extend(topics.iter().map(|topic| (topic.clone(), making)));
            answer(())
        }

        fn largest_message<'a>(&'a self, _topic: &'a str) -> BoxFuture<'a, Result<Option<u64>, ClientError>> {
            answer(self.largest_message)
        }

        fn may_begin<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<bool>, ClientError>> {
            assert_eq!(id, "shop.ledger.events");
            answer(self.may_begin)
        }

        fn newest<'a>(
            &'a self,
            _topic: &'a str,
            _key: &'a [u8],
        ) -> BoxFuture<'a, Result<Option<Vec<u8>>, ClientError>> {
            answer(None)
        }

        fn send(&mut self, _messages: Vec<Message>) -> BoxFuture<'_, Result<(), ClientError>> {
            let message = "no".to_owned();
            std::future::ready(Err(ClientError { trouble: Trouble::Passing, message })).boxed()
        }

        fn flush(&mut self) -> BoxFuture<'_, Result<(), ClientError>> {
            answer(())
        }
    }

    fn topic(suffix: &str, partitions: u32, may_write: Option<bool>) -> Topic {
        Topic { name: format!("shop.{suffix}"), partitions, may_write }
    }

    fn told() -> Told {
        let topics = vec![topic("progress", 1, Some(true)), topic("transaction", 1, None)];
        Told { topics, largest_message: Some(1_000_000), may_begin: Some(true), made: Arc::default() }
    }

    fn sink(told: Told, max_message_bytes: usize) -> KafkaSink {
        let kafka = config::Kafka {
            brokers: vec!["localhost:9092".to_owned()],
            prefix: "shop".to_owned(),
            delivery: Delivery::ExactlyOnce,
            partitions: 6,
            replication: 3,
            max_message_bytes,
            tls: None,
            sasl: None,
            timeout: std::time::Duration::from_millis(100),
        };
        let pause = std::time::Duration::from_secs(1);
        let settings = config::Sink {
            to: Destination::Kafka(kafka.clone()),
            from: Beginning::Now,
            tables: Vec::new(),
            confirmations: 0,
            max_lag: pause,
            on_lag: OnLag::Detach,
            format: Format::Debezium,
            schemas: false,
            tombstones: true,
            retry: Retry { initial: pause, max: pause, open_after: 1, probe: pause },
        };
        let about = About {
            pipeline: "ledger".to_owned(),
            sink: "events".to_owned(),
            database: "shop".to_owned(),
            version: "1".to_owned(),
        };
        let mut sink = KafkaSink::new(&settings, &kafka, &about);
        sink.connect = Box::new(move |_| answer(Box::new(told.clone()) as Box<dyn Client>));
        sink
    }

    #[tokio::test]
    async fn checking_says_what_the_cluster_does_not_allow() {
        let check = async |told: Told, max_message_bytes| sink(told, max_message_bytes).check().await;
        assert_eq!(check(told(), 1_000_000).await.unwrap(), [""; 0]);
        let silent = Told { largest_message: None, may_begin: None, ..told() };
        assert_eq!(check(silent, 1_000_001).await.unwrap(), [""; 0]);

        let said = check(told(), 1_000_001).await.unwrap().join("; ");
        assert!(said.contains("at most 1000000 bytes") && said.contains("1000001"), "{said}");
        let many = Told { topics: vec![topic("progress", 1, None), topic("transaction", 3, None)], ..told() };
        let said = check(many, 1).await.unwrap().join("; ");
        assert!(said.contains("`shop.transaction` has 3 partitions"), "{said}");

        let denied =
            Told { topics: vec![topic("progress", 1, None), topic("transaction", 1, Some(false))], ..told() };
        let nameless = Told { may_begin: Some(false), ..told() };
        let spread =
            Told { topics: vec![topic("progress", 2, None), topic("transaction", 1, None)], ..told() };
        for (told, expected) in [
            (denied, "may not write to the topic `shop.transaction`"),
            (nameless, "may not write with the transactional id `shop.ledger.events`"),
            (spread, "`shop.progress` has 2 partitions"),
        ] {
            let error = check(told, 1).await.unwrap_err();
            assert!(error.message.contains(expected) && error.kind == Kind::Permanent, "{error}");
        }
    }

    #[tokio::test]
    async fn topics_are_made_fit_for_what_they_are_for() {
        let asked = async |max_message_bytes| {
            let told = Told { topics: Vec::new(), ..told() };
            sink(told.clone(), max_message_bytes).check().await.unwrap();
            let error = sink(told.clone(), max_message_bytes).open().await.unwrap_err();
            assert!(error.message.contains("not there yet") && error.kind == Kind::Transient, "{error}");
            let made = told.made.lock().unwrap().clone();
            assert_eq!(
                [Making::Tried, Making::Tried, Making::Real, Making::Real],
                *made.iter().map(|(_, making)| *making).collect::<Vec<_>>()
            );
            made.into_iter().take(2).map(|(topic, _)| topic).collect::<Vec<_>>()
        };
        let has =
            |topic: &NewTopic, key: &str, value: &str| topic.settings.contains(&(key, value.to_owned()));
        let usual = asked(1_000_000).await;
        let [transaction, progress] = &usual[..] else { panic!("{usual:?}") };
        assert_eq!(
            (progress.name.as_str(), progress.partitions, progress.replication),
            ("shop.progress", 1, 3)
        );
        assert_eq!((transaction.name.as_str(), transaction.partitions), ("shop.transaction", 1));
        assert!(has(progress, "cleanup.policy", "compact") && transaction.settings.is_empty());
        let large = asked(2_000_000).await;
        assert!(large.iter().all(|topic| has(topic, "max.message.bytes", "2000000")), "{large:?}");
    }
}
