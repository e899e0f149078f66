//! What the sink needs of a client of Kafka. Another client is another file beside `driver`.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::failure::Kind;

/// A connection to a cluster, which one sink has for itself.
pub(super) trait Client: Send + Sync {
    /// Gets ready to write. With a transactional id, whoever wrote under it before is fenced off, and its open transaction
    /// is over when this returns.
    fn begin(&mut self, role: Role) -> BoxFuture<'_, Result<(), ClientError>>;

    /// The topics among these that there are.
    fn topics<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<Vec<Topic>, ClientError>>;

    /// Makes topics, or only asks whether it could.
    fn create<'a>(&'a self, topics: &'a [NewTopic], making: Making)
    -> BoxFuture<'a, Result<(), ClientError>>;

    /// The largest message that a topic takes, where the cluster tells.
    fn largest_message<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<Option<u64>, ClientError>>;

    /// Whether this client may write with a transactional id, where the cluster tells.
    fn may_begin<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<bool>, ClientError>>;

    /// The value of the newest committed record with this key in a topic of one partition, once all transactions that were
    /// open in it when this was called are over.
    fn newest<'a>(
        &'a self,
        topic: &'a str,
        key: &'a [u8],
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, ClientError>>;

    /// Writes records in their order: in one transaction, or to be acknowledged by the next `flush`.
    fn send(&mut self, messages: Vec<Message>) -> BoxFuture<'_, Result<(), ClientError>>;

    /// Waits until everything that was sent is on all replicas in sync.
    fn flush(&mut self) -> BoxFuture<'_, Result<(), ClientError>>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Transactional { id: String },
    Idempotent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Making {
    Real,
    Tried,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: u32,
    /// Whether this client may write to it, where the cluster tells.
    pub(super) may_write: Option<bool>,
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewTopic {
    pub(super) name: String,
    pub(super) partitions: u32,
    /// 0: as the cluster has it by default.
    pub(super) replication: u32,
    pub(super) settings: Vec<(&'static str, String)>,
}

/// A record on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    /// The one that the key says, if none is given.
    pub(super) partition: Option<u32>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    /// The header `id`.
    pub(super) id: Option<String>,
}

impl Message {
    /// What a batch with this record alone takes at most, before compression: what brokers measure.
    /// Source: Kafka's documentation, "Implementation", "Record Batch": 61 bytes, and a record's own fields, of which the
    /// varints have 5 bytes at most and the rest 10.
    pub(super) fn bytes(&self) -> usize {
        const BATCH: usize = 61;
        const RECORD: usize = 10 + 5 * 5;
        let header = self.id.as_ref().map_or(0, |id| 2 + id.len() + 10);
        let [key, value] = [&self.key, &self.value].map(|part| part.as_ref().map_or(0, Vec::len));
        BATCH + RECORD + header + key + value
    }
}

/// Why a call failed. The text holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct ClientError {
    pub(super) trouble: Trouble,
    pub(super) message: String,
}

impl ClientError {
    /// The same, of a transaction that was begun so long ago. Past its time the cluster itself gives it up and fences its
    /// producer off, which was perhaps not running all the while; then nobody else did.
    pub(super) fn after(self, elapsed: Duration, limit: Duration) -> ClientError {
        match self.trouble {
            Trouble::Fenced if elapsed >= limit => ClientError { trouble: Trouble::Passing, ..self },
            _ => self,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A network, a broker that is away, a time that is over: it may pass.
    Passing,
    /// The cluster does not let this client do it.
    Denied,
    /// Somebody else writes under the same transactional id.
    Fenced,
    /// A topic takes smaller messages only.
    TooLarge,
    /// The cluster cannot do it, or refuses to.
    Refused,
}

impl Trouble {
    pub(super) fn kind(self) -> Kind {
        match self {
            Trouble::Passing => Kind::Transient,
            Trouble::Denied | Trouble::Fenced | Trouble::TooLarge | Trouble::Refused => Kind::Permanent,
        }
    }

    pub(super) fn advice(self) -> Option<&'static str> {
        match self {
            Trouble::Passing => None,
            Trouble::Denied => Some(
                "look at `sasl` and `tls`, and at what the cluster lets this user do: create, describe, read and write \
                 topics that begin with `prefix`, and write with the transactional id that begins with it",
            ),
            Trouble::Fenced => Some(
                "another debshrew, of another database, has a pipeline and a sink of these names and the same `prefix`: \
                 give one of them another `prefix`",
            ),
            Trouble::TooLarge => Some(
                "the topic's `max.message.bytes` is less than `max_message_bytes` here: raise the one or lower the other",
            ),
            Trouble::Refused => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_fenced_after_its_time_was_given_up_by_the_cluster() {
        let after = |trouble, seconds| {
            let error = ClientError { trouble, message: String::new() };
            error.after(Duration::from_secs(seconds), Duration::from_secs(60)).trouble
        };
        assert_eq!(after(Trouble::Fenced, 59), Trouble::Fenced);
        assert_eq!(after(Trouble::Fenced, 60), Trouble::Passing);
        assert_eq!(after(Trouble::Denied, 60), Trouble::Denied);
    }

    #[test]
    fn a_message_is_never_larger_than_it_is_taken_for() {
        for (key, value, id) in
            [(None, None, None), (Some(3), Some(70_000), None), (Some(300), None, Some("0-apply-1:7"))]
        {
            let part = |length: Option<usize>| length.map(|length| vec![b'x'; length]);
            let id = id.map(str::to_owned);
            let message =
                Message { topic: "t".into(), partition: None, key: part(key), value: part(value), id };
            // Of a batch with one record, by its layout.
            let varint = |length: usize| 1 + usize::from(length > 63) + usize::from(length > 8191);
            let part = |length: Option<usize>| length.map_or(1, |length| varint(length) + length);
            let header = message.id.as_ref().map_or(0, |id| 1 + 2 + varint(id.len()) + id.len());
            let body = 1 + 1 + 1 + part(key) + part(value) + 1 + header;
            let exact = 61 + varint(body) + body;
            assert!((exact..exact + 60).contains(&message.bytes()), "{exact} {}", message.bytes());
        }
    }
}
