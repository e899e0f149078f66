//! Which topics there are for tables, for transactions and for progress, and how they come to be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::{Client, Making, NewTopic, Topic};
use crate::config;
use crate::relay::sink::SinkError;

/// The longest name that Kafka takes.
const LONGEST_NAME: usize = 249;

/// What topics take unless they are told otherwise (`message.max.bytes` of brokers).
const USUAL_MESSAGE_BYTES: usize = 1_048_588;

/// A topic that was made is not known to all brokers at once.
const LOOK: Duration = Duration::from_millis(50);

/// The topics of a sink.
pub(super) struct Topics {
    prefix: String,
    partitions: u32,
    replication: u32,
    max_message_bytes: usize,
    timeout: Duration,
    /// What follows the prefix in the name of the topic that every step writes to.
    control: String,
    keeps_progress: bool,
    /// Those that are there, by what follows the prefix before it was made to fit.
    known: BTreeMap<String, Topic>,
}

impl Topics {
    pub(super) fn new(settings: &config::Kafka, control: &str) -> Topics {
        Topics {
            prefix: settings.prefix.clone(),
            partitions: settings.partitions,
            replication: settings.replication,
            max_message_bytes: settings.max_message_bytes,
            timeout: settings.timeout,
            control: control.to_owned(),
            keeps_progress: settings.delivery == config::Delivery::ExactlyOnce,
            known: BTreeMap::new(),
        }
    }

    /// A topic that is there.
    pub(super) fn get(&self, suffix: &str) -> Result<&Topic, SinkError> {
        let missing = || SinkError::transient(format!("the topic of `{suffix}` is not there yet"));
        self.known.get(suffix).ok_or_else(missing)
    }

    /// The topic for a table (`schema.table`), or for what control records have as their name. Characters that Kafka does
    /// not take become `_`.
    fn name(&self, suffix: &str) -> String {
        let fit = |character: char| {
            if character.is_ascii_alphanumeric() || "._-".contains(character) { character } else { '_' }
        };
        format!("{}.{}", self.prefix, suffix).chars().map(fit).collect()
    }

    /// Those that the stream needs whatever its tables are, by what follows the prefix.
    pub(super) fn basic(&self) -> Vec<String> {
        let progress = self.keeps_progress.then(|| PROGRESS.to_owned());
        [self.control.clone()].into_iter().chain(progress).collect()
    }

    /// Makes those that are missing, or says that they are.
    pub(super) async fn ensure(
        &mut self,
        client: &dyn Client,
        suffixes: impl IntoIterator<Item = &str>,
    ) -> Result<(), SinkError> {
        // The suffix of each by its name.
        let mut new = BTreeMap::new();
        for suffix in suffixes {
            if !self.known.contains_key(suffix) {
                self.take_in(suffix, &mut new)?;
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = new.keys().cloned().collect();
        let mut found = client.topics(&names).await?;
        let missing = missing(&names, &found);
        if !missing.is_empty() {
            if self.partitions == 0 {
                return Err(absent(&missing));
            }
            let wanted: Vec<NewTopic> = missing.iter().map(|name| self.new_topic(name, &new[name])).collect();
            client.create(&wanted, Making::Real).await?;
            tracing::info!(topics = missing.join(", "), "made topics");
            found.append(&mut self.made(client, &missing).await?);
        }
        for topic in found {
            if topic.name == self.name(PROGRESS) {
                only_one_partition(&topic)?;
            }
            if let Some(suffix) = new.remove(&topic.name) {
                self.known.insert(suffix, topic);
            }
        }
        Ok(())
    }

    /// Looks at a name before it is asked for.
    fn take_in(&self, suffix: &str, new: &mut BTreeMap<String, String>) -> Result<(), SinkError> {
        let name = self.name(suffix);
        if name.len() > LONGEST_NAME {
            return Err(too_long(&name, suffix));
        }
        let known = self.known.iter().find(|(_, topic)| topic.name == name).map(|(other, _)| other);
        match known.or_else(|| new.get(&name)) {
            Some(other) if other != suffix => Err(shared(&name, other, suffix)),
            _ => {
                new.insert(name, suffix.to_owned());
                Ok(())
            }
        }
    }

    /// As [`Topics::ensure`] without making any. Returns what is worth saying.
    pub(super) async fn check(&self, client: &dyn Client) -> Result<Vec<String>, SinkError> {
        let names: Vec<String> = self.basic().iter().map(|suffix| self.name(suffix)).collect();
        let found = client.topics(&names).await?;
        let mut said = Vec::new();
        let missing = missing(&names, &found);
        if !missing.is_empty() {
            if self.partitions == 0 {
                return Err(absent(&missing));
            }
            let suffix = |name: &String| if *name == self.name(PROGRESS) { PROGRESS } else { &self.control };
            let wanted: Vec<NewTopic> =
                missing.iter().map(|name| self.new_topic(name, suffix(name))).collect();
            client.create(&wanted, Making::Tried).await?;
            said.push(format!("topics that will be made: {}", list(&missing)));
        }
        for topic in &found {
            let name = &topic.name;
            if topic.may_write == Some(false) {
                return Err(SinkError::permanent(format!("this user may not write to the topic `{name}`")));
            }
            if *name == self.name(PROGRESS) {
                only_one_partition(topic)?;
            } else if topic.partitions != 1 {
                said.push(format!(
                    "`{name}` has {} partitions: with more than one, consumers do not get its records in order",
                    topic.partitions
                ));
            }
            let most = client.largest_message(name).await?;
            if most.is_some_and(|most| most < self.max_message_bytes as u64) {
                said.push(format!(
                    "`{name}` takes messages of at most {} bytes, which is less than `max_message_bytes`, {}",
                    most.unwrap_or_default(),
                    self.max_message_bytes
                ));
            }
        }
        Ok(said)
    }

    fn new_topic(&self, name: &str, suffix: &str) -> NewTopic {
        let mut settings = Vec::new();
        if self.max_message_bytes > USUAL_MESSAGE_BYTES {
            settings.push(("max.message.bytes", self.max_message_bytes.to_string()));
        }
        if suffix == PROGRESS {
            // What was superseded goes soon, so that reading all of it stays short.
            let short =
                [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("segment.ms", "86400000")];
            settings.extend(short.map(|(key, value)| (key, value.to_owned())));
        }
        NewTopic {
            name: name.to_owned(),
            // One, since their records have an order among them all.
            partitions: if suffix == PROGRESS || suffix == self.control { 1 } else { self.partitions },
            replication: self.replication,
            settings,
        }
    }

    /// Topics that were made, once they are there.
    async fn made(&self, client: &dyn Client, names: &[String]) -> Result<Vec<Topic>, SinkError> {
        let started = tokio::time::Instant::now();
        loop {
            let found = client.topics(names).await?;
            let missing = missing(names, &found);
            if missing.is_empty() {
                return Ok(found);
            }
            if started.elapsed() > self.timeout {
                let missing = list(&missing);
                return Err(SinkError::transient(format!(
                    "topics were made and are not there yet: {missing}"
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What follows the prefix in the name of the topic in which streams say how far they are.
pub(super) const PROGRESS: &str = "progress";

fn missing(names: &[String], found: &[Topic]) -> Vec<String> {
    let there: BTreeSet<&str> = found.iter().map(|topic| topic.name.as_str()).collect();
    names.iter().filter(|name| !there.contains(name.as_str())).cloned().collect()
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    crate::failure::some_of(&names, ", ")
}

fn absent(names: &[String]) -> SinkError {
    SinkError::permanent(format!("topics are missing: {}", list(names))).advise(
        "make them (`….progress` with one partition and `cleanup.policy=compact`, `….transaction` with one partition), or \
         set `partitions`, so that they are made",
    )
}

fn only_one_partition(topic: &Topic) -> Result<(), SinkError> {
    if topic.partitions == 1 {
        return Ok(());
    }
    let Topic { name, partitions, .. } = topic;
    Err(SinkError::permanent(format!("the topic `{name}` has {partitions} partitions, and must have one"))
        .advise("make it anew, or take another `prefix`"))
}

fn shared(name: &str, one: &str, other: &str) -> SinkError {
    SinkError::permanent(format!("the tables `{one}` and `{other}` would share the topic `{name}`"))
        .advise("leave one of them out with `tables`: names of topics have no characters but `a-z`, `A-Z`, `0-9`, `.`, `_`, `-`")
}

fn too_long(name: &str, suffix: &str) -> SinkError {
    SinkError::permanent(format!(
        "the topic of `{suffix}` would be called `{name}`, which is longer than the {LONGEST_NAME} bytes that Kafka takes"
    ))
    .advise("take a shorter `prefix`, or leave the table out with `tables`")
}
