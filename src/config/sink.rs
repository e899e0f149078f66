//! `[pipelines.NAME.sinks.SINK]`: where a pipeline's changes go beside its tables.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use crate::block::Height;

/// A sink as it is configured.
#[derive(Clone, Debug)]
pub struct Sink {
    pub to: Destination,
    pub from: Beginning,
    /// Names of tables; `*` stands for any characters.
    pub tables: Vec<String>,
    /// How many blocks to stay behind the checkpoint.
    pub confirmations: u32,
    /// Once it is behind for so long, journals are no longer kept for it.
    pub max_lag: Duration,
    pub on_lag: OnLag,
    pub format: Format,
    /// Every message carries its own schema, as Kafka Connect writes it.
    pub schemas: bool,
    /// A delete is followed by a message with the key alone, where messages have keys.
    pub tombstones: bool,
    pub retry: Retry,
}

impl Sink {
    /// One that shows these tables' changes, as by default.
    pub fn console(tables: Vec<String>) -> Sink {
        Sink {
            to: Destination::Console,
            from: Beginning::Now,
            tables,
            confirmations: 0,
            max_lag: Duration::from_secs(7 * 24 * 3600),
            on_lag: OnLag::Detach,
            format: Format::Debezium,
            schemas: false,
            tombstones: true,
            retry: Retry {
                initial: Duration::from_millis(200),
                max: Duration::from_secs(60),
                open_after: 10,
                probe: Duration::from_secs(30),
            },
        }
    }
}

/// The kind of a sink, with the keys that only it has.
#[derive(Clone, Debug)]
pub enum Destination {
    Console,
    File(File),
    Kafka(Kafka),
    Webhook(Webhook),
}

impl Destination {
    pub fn kind(&self) -> &'static str {
        match self {
            Destination::Console => "console",
            Destination::File(_) => "file",
            Destination::Kafka(_) => "kafka",
            Destination::Webhook(_) => "webhook",
        }
    }
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With all rows as they are.
    Snapshot,
    /// With the next block.
    Now,
    /// With this block.
    Height(Height),
}

/// What happens once a sink has been behind for `max_lag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLag {
    /// It is lost, and has to begin again.
    Detach,
    /// The pipeline waits for it.
    Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A message a row: Debezium's envelope.
    Debezium,
    /// A document a block.
    Compact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The first pause; each further one is twice as long, `max` at most.
    pub initial: Duration,
    pub max: Duration,
    /// After so many failures in a row the breaker opens: one try every `probe`.
    pub open_after: u32,
    pub probe: Duration,
}

#[derive(Clone, Debug)]
pub struct File {
    pub path: PathBuf,
    pub rotate: Rotate,
    pub compression: Compression,
}

/// When a segment is closed and another begun, at a block's end.
#[derive(Clone, Copy, Debug)]
pub struct Rotate {
    pub bytes: u64,
    pub age: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// Of closed segments.
    Zstd,
}

#[derive(Clone, Debug)]
pub struct Kafka {
    /// `host:port`
    pub brokers: Vec<String>,
    /// What the topics' names begin with.
    pub prefix: String,
    pub delivery: Delivery,
    /// Make the topics that are missing, with so many partitions and copies; 0 partitions: only look whether they are there.
    pub partitions: u32,
    pub replication: u32,
    /// Largest message, key included, as the brokers allow it.
    pub max_message_bytes: usize,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    /// Longest wait for an answer of a broker's.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file of trusted authorities; the system's when absent.
    pub root_cert: Option<PathBuf>,
    /// PEM files by which this client proves who it is.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// For `OAUTHBEARER`.
    pub token: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
    OauthBearer,
}

#[derive(Clone, Debug)]
pub struct Webhook {
    /// May hold secrets: it is never shown whole.
    pub url: Secret,
    /// What requests are signed with.
    pub secret: Option<Secret>,
    /// For one request, answer included.
    pub timeout: Duration,
    /// Largest body.
    pub max_bytes: usize,
}
