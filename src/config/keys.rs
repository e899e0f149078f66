//! Every key that can be set, with its form, default and meaning. The manual's table is checked against it.

use std::fmt;

use bytesize::ByteSize;

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// With dots, `source.retries`. In `pipelines.NAME.retention` and `source.headers.NAME` the word `NAME` stands for any
    /// name, and so does `SINK`.
    pub name: &'static str,
    pub form: Form,
    /// As one would write it; `NAME` in it stands for the pipeline's name. Without one, the key is unset.
    pub default: Option<&'static str>,
    pub meaning: &'static str,
}

/// What a key's value may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    /// Never shown.
    Secret,
    /// A connection string, of which host, port and database are shown.
    Dsn,
    /// Relative ones are relative to the file that they are written in, else to the current folder.
    Path,
    /// An array, or a text with commas.
    List,
    /// The same, of `http://` and `https://` URLs, of which scheme, host and port are shown.
    Urls,
    /// One of them.
    Url,
    /// `snapshot`, `now`, or a height.
    Beginning,
    Integer {
        least: u64,
        most: u64,
    },
    /// `500ms`, `1m 30s`, or a number of seconds.
    Duration,
    /// The same, of up to ten years: `7d`.
    LongDuration,
    /// `16MiB`, `64kB`, or a number of bytes.
    Bytes {
        least: u64,
        most: u64,
    },
    /// `true` or `false`, as TOML has them or as texts.
    Boolean,
    OneOf(&'static [&'static str]),
    /// An IP address and a port, `127.0.0.1:9464`.
    Address,
}

impl fmt::Display for Form {
    /// In the words of the manual.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Text => f.write_str("text"),
            Form::Secret => f.write_str("text, never shown"),
            Form::Dsn => f.write_str("connection string"),
            Form::Path => f.write_str("path"),
            Form::List => f.write_str("list"),
            Form::Urls => f.write_str("list of URLs"),
            Form::Url => f.write_str("URL"),
            Form::Beginning => f.write_str("`snapshot`, `now` or a height"),
            Form::Integer { least, most } => write!(f, "{least} to {most}"),
            Form::Duration | Form::LongDuration => f.write_str("duration"),
            Form::Bytes { least, most } => write!(f, "{} to {}", ByteSize::b(*least), ByteSize::b(*most)),
            Form::Boolean => f.write_str("`true` or `false`"),
            Form::OneOf(choices) => write!(f, "`{}`", choices.join("` or `")),
            Form::Address => f.write_str("address and port"),
        }
    }
}

const MAX_HEIGHT: u64 = i32::MAX as u64;

const fn key(name: &'static str, form: Form, default: Option<&'static str>, meaning: &'static str) -> Key {
    Key { name, form, default, meaning }
}

const fn integer(least: u64, most: u64) -> Form {
    Form::Integer { least, most }
}

const fn bytes(least: u64, most: u64) -> Form {
    Form::Bytes { least, most }
}

/// All of them, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    key(
        "database.url",
        Form::Dsn,
        None,
        "The PostgreSQL to write to: a `postgres://` URL or `key=value` pairs.",
    ),
    key(
        "database.tls_root_cert",
        Form::Path,
        None,
        "PEM file of trusted authorities; the server's certificate is verified against them.",
    ),
    key(
        "database.pool_size",
        integer(1, 1000),
        Some("8"),
        "Most connections beside one writer per pipeline.",
    ),
    key("database.connect_timeout", Form::Duration, Some("10s"), "Longest wait for a connection."),
    key("database.read_roles", Form::List, Some(""), "Roles that `migrate` lets read what is replicated."),
    key("database.write_roles", Form::List, Some(""), "Roles that `migrate` lets write and roll back."),
    key(
        "database.owner_role",
        Form::Text,
        None,
        "The role that `migrate` runs as, where `run` has another: what it owns is trusted.",
    ),
    key(
        "source.urls",
        Form::Urls,
        Some(""),
        "metashrew servers of one chain; one is followed, another when that one fails.",
    ),
    key(
        "source.quorum",
        integer(1, 100),
        Some("1"),
        "How many of the servers must agree on a block before it counts.",
    ),
    key("source.username", Form::Secret, None, "For basic authentication."),
    key("source.password", Form::Secret, None, "For basic authentication."),
    key("source.bearer_token", Form::Secret, None, "For bearer authentication."),
    key("source.headers.NAME", Form::Secret, None, "A header to send with every request."),
    key("source.connect_timeout", Form::Duration, Some("5s"), "Longest wait for a connection."),
    key("source.request_timeout", Form::Duration, Some("30s"), "Longest wait for an answer, body included."),
    key(
        "source.retries",
        integer(0, 100),
        Some("5"),
        "How often a request is repeated after a transient failure.",
    ),
    key("source.max_response_bytes", bytes(1024, 1 << 32), Some("64MiB"), "Largest answer that is read."),
    key(
        "source.max_connections",
        integer(1, 1000),
        Some("96"),
        "Most requests under way at once, per server.",
    ),
    key("source.poll_interval", Form::Duration, Some("500ms"), "Wait between two looks at the tip."),
    key(
        "source.wedge_timeout",
        Form::Duration,
        Some("10s"),
        "How long a tip may stand below blocks that the source still has before it is called wedged.",
    ),
    key(
        "server.listen",
        Form::Address,
        None,
        "Where `run` serves its status page and metrics, such as `127.0.0.1:9464`; nowhere when unset.",
    ),
    key(
        "server.token",
        Form::Secret,
        None,
        "What the server asks its clients for, 16 characters or more. Required unless it listens on the loopback.",
    ),
    key(
        "server.ready_lag",
        integer(0, MAX_HEIGHT),
        Some("10"),
        "Most blocks behind the tip, `confirmations` aside, at which `/readyz` says yes.",
    ),
    key("log.filter", Form::Text, Some("info"), "What is logged: `info`, `warn,debshrew=debug`."),
    key("log.format", Form::OneOf(&["text", "json"]), Some("text"), "How log lines look."),
    key("pipelines.NAME.transform", Form::Path, None, "The `.wasm` file. Required."),
    key(
        "pipelines.NAME.schema",
        Form::Text,
        Some("NAME"),
        "The PostgreSQL schema of the transform's tables.",
    ),
    key(
        "pipelines.NAME.migrations",
        Form::Path,
        None,
        "Folder with the SQL migrations of the transform's tables.",
    ),
    key("pipelines.NAME.start_height", integer(0, MAX_HEIGHT), Some("0"), "First block that is processed."),
    key(
        "pipelines.NAME.confirmations",
        integer(0, MAX_HEIGHT),
        Some("0"),
        "Blocks to stay behind the source's tip.",
    ),
    key("pipelines.NAME.retention", integer(1, MAX_HEIGHT), Some("1000"), "Blocks that can be rolled back."),
    key(
        "pipelines.NAME.max_reorg_depth",
        integer(0, MAX_HEIGHT),
        Some("100"),
        "Deepest reorganisation that is followed unasked; beyond it, `run --accept-reorg`.",
    ),
    key(
        "pipelines.NAME.patience",
        Form::Duration,
        Some("30s"),
        "How long a block whose views fail is tried again before the pipeline halts.",
    ),
    key(
        "pipelines.NAME.evaluate_ahead",
        integer(1, 1024),
        Some("48"),
        "Blocks evaluated at once, at most; 1 is one after the other.",
    ),
    key(
        "pipelines.NAME.notify",
        Form::Boolean,
        Some("false"),
        "Tell whoever listens on the channel `debshrew` of blocks and rollbacks.",
    ),
    key(
        "pipelines.NAME.unknown_imports",
        Form::OneOf(&["refuse", "trap"]),
        Some("refuse"),
        "Imports that the host lacks: refuse the module, or trap when one is called.",
    ),
    key(
        "pipelines.NAME.limits.fuel",
        integer(1, i64::MAX as u64),
        Some("100000000000"),
        "Most instructions for one block, about.",
    ),
    key(
        "pipelines.NAME.limits.memory_bytes",
        bytes(1 << 16, 1 << 32),
        Some("1GiB"),
        "Most memory of the module.",
    ),
    key(
        "pipelines.NAME.limits.table_elements",
        integer(0, u32::MAX as u64),
        Some("1048576"),
        "Most elements in the module's tables.",
    ),
    key(
        "pipelines.NAME.limits.output_bytes",
        bytes(1, 1 << 32),
        Some("256MiB"),
        "Most that one block's evaluation may hand over.",
    ),
    key("pipelines.NAME.limits.log_bytes", bytes(0, 1 << 32), Some("64KiB"), "Most that it may log."),
    key(
        "pipelines.NAME.limits.calls",
        integer(1, u32::MAX as u64),
        Some("1000000"),
        "Most view calls and state reads together.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.kind",
        Form::OneOf(&["console", "file", "kafka", "webhook"]),
        None,
        "Where the changes go. Required.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.from",
        Form::Beginning,
        Some("snapshot"),
        "Where the stream begins: with all rows as they are, with the next block, or with a block.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.tables",
        Form::List,
        Some("*"),
        "Tables it is about; `*` stands for any characters.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.confirmations",
        integer(0, MAX_HEIGHT),
        Some("0"),
        "Blocks to stay behind the checkpoint.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.max_lag",
        Form::LongDuration,
        Some("7d"),
        "How long it may be behind before its journals are no longer kept.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.on_lag",
        Form::OneOf(&["detach", "block"]),
        Some("detach"),
        "What happens then: the sink is lost until `sink resync`, or the pipeline waits for it.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.format",
        Form::OneOf(&["debezium", "compact"]),
        Some("debezium"),
        "A message a row in Debezium's envelope, or a document a block.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.schemas",
        Form::Boolean,
        Some("false"),
        "Every message carries its schema, as Kafka Connect writes it.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.tombstones",
        Form::Boolean,
        Some("true"),
        "A delete is followed by a message with the key alone, where messages have keys.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.retry.initial",
        Form::Duration,
        Some("200ms"),
        "The first pause after a failure.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.retry.max",
        Form::Duration,
        Some("1m"),
        "The longest pause; each is twice the one before.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.retry.open_after",
        integer(1, 1_000_000),
        Some("10"),
        "After so many failures in a row it is tried every `probe` only.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.retry.probe",
        Form::Duration,
        Some("30s"),
        "The pause between two tries from then on.",
    ),
    key("pipelines.NAME.sinks.SINK.path", Form::Path, None, "`file`: the folder to write to. Required."),
    key(
        "pipelines.NAME.sinks.SINK.rotate.bytes",
        bytes(1 << 10, 1 << 40),
        Some("256MiB"),
        "`file`: a segment that is larger is closed at the block's end.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.rotate.age",
        Form::LongDuration,
        Some("1h"),
        "`file`: a segment that is older is closed at a block's end.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.compression",
        Form::OneOf(&["none", "zstd"]),
        Some("none"),
        "`file`: how closed segments are compressed.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.brokers",
        Form::List,
        Some(""),
        "`kafka`: `HOST:PORT` of brokers to begin with. Required.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.prefix",
        Form::Text,
        Some("NAME"),
        "`kafka`: what the topics' names begin with.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.delivery",
        Form::OneOf(&["exactly-once", "at-least-once"]),
        Some("exactly-once"),
        "`kafka`: a transaction a block, or messages that may come again with the same `id`.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.oversize",
        Form::OneOf(&["halt"]),
        Some("halt"),
        "`kafka`: what happens at a message that is too large.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.partitions",
        integer(0, 10_000),
        Some("1"),
        "`kafka`: partitions of topics that are made; 0: topics must be there.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.replication",
        integer(1, 100),
        Some("1"),
        "`kafka`: copies of topics that are made.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.max_message_bytes",
        bytes(1 << 10, 1 << 30),
        Some("1000000"),
        "`kafka`: the largest message that the brokers take, key included.",
    ),
    key("pipelines.NAME.sinks.SINK.tls.enabled", Form::Boolean, Some("false"), "`kafka`: connect by TLS."),
    key(
        "pipelines.NAME.sinks.SINK.tls.root_cert",
        Form::Path,
        None,
        "`kafka`: PEM file of trusted authorities; the system's when unset.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.tls.cert",
        Form::Path,
        None,
        "`kafka`: PEM file with the client's certificate.",
    ),
    key("pipelines.NAME.sinks.SINK.tls.key", Form::Path, None, "`kafka`: PEM file with its key."),
    key(
        "pipelines.NAME.sinks.SINK.sasl.mechanism",
        Form::OneOf(&["none", "plain", "scram-sha-256", "scram-sha-512", "oauthbearer"]),
        Some("none"),
        "`kafka`: how to log in.",
    ),
    key("pipelines.NAME.sinks.SINK.sasl.username", Form::Secret, None, "`kafka`: who logs in."),
    key("pipelines.NAME.sinks.SINK.sasl.password", Form::Secret, None, "`kafka`: the password."),
    key("pipelines.NAME.sinks.SINK.sasl.token", Form::Secret, None, "`kafka`: the token for `oauthbearer`."),
    key("pipelines.NAME.sinks.SINK.url", Form::Url, None, "`webhook`: where to post each block. Required."),
    key(
        "pipelines.NAME.sinks.SINK.secret",
        Form::Secret,
        None,
        "`webhook`: what requests are signed with; not signed when unset.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.timeout",
        Form::Duration,
        Some("30s"),
        "`kafka`, `webhook`: the longest wait for an answer.",
    ),
    key(
        "pipelines.NAME.sinks.SINK.max_bytes",
        bytes(1 << 10, 1 << 32),
        Some("16MiB"),
        "`webhook`: the largest body.",
    ),
];
