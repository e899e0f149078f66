//! Every key that can be set, with its form, default and meaning. The manual's table is checked against it.

use std::fmt;

use bytesize::ByteSize;

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// With dots, `source.retries`. In `pipelines.NAME.retention` and `source.headers.NAME` the word `NAME`
    /// stands for any name.
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
    Integer {
        least: u64,
        most: u64,
    },
    /// `500ms`, `1m 30s`, or a number of seconds.
    Duration,
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
            Form::Integer { least, most } => write!(f, "{least} to {most}"),
            Form::Duration => f.write_str("duration"),
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
];

/// A key with its name filled in: `pipelines.ledger.retention`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) key: &'static Key,
    pub(super) name: Option<String>,
}

impl Place {
    /// The place that a path of segments leads to, if it leads to a key.
    pub(super) fn find(path: &[String]) -> Option<Place> {
        KEYS.iter().find_map(|key| {
            let pattern: Vec<&str> = key.name.split('.').collect();
            (pattern.len() == path.len() && begins(&pattern, path)).then(|| Place {
                key,
                name: pattern.iter().position(|segment| *segment == "NAME").map(|index| path[index].clone()),
            })
        })
    }

    pub(super) fn segments(&self) -> Vec<String> {
        let name = self.name.as_deref().unwrap_or("NAME");
        self.key
            .name
            .split('.')
            .map(|segment| if segment == "NAME" { name } else { segment }.to_owned())
            .collect()
    }

    pub(super) fn default(&self) -> Option<String> {
        let default = self.key.default?;
        Some(match (default, &self.name) {
            ("NAME", Some(name)) => name.clone(),
            _ => default.to_owned(),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments().join("."))
    }
}

/// Whether keys lie below this path.
pub(super) fn is_section(path: &[String]) -> bool {
    KEYS.iter().any(|key| {
        let pattern: Vec<&str> = key.name.split('.').collect();
        pattern.len() > path.len() && begins(&pattern, path)
    })
}

fn begins(pattern: &[&str], path: &[String]) -> bool {
    pattern.iter().zip(path).all(|(expected, found)| *expected == "NAME" || expected == found)
}

/// The known key that looks most like a path that leads to none. A key of that very name in another section
/// counts as alike.
pub(super) fn nearest(path: &[String]) -> Place {
    let likeness = |place: &Place| {
        let same_name = place.segments().last() == path.last();
        let likeness = strsim::normalized_damerau_levenshtein(&place.to_string(), &path.join("."));
        if same_name { likeness.max(0.75) } else { likeness }
    };
    let name_of = |key: &Key| {
        let index = key.name.split('.').position(|segment| segment == "NAME")?;
        path.get(index).cloned()
    };
    let mut best = Place { key: &KEYS[0], name: None };
    let mut best_likeness = 0.0;
    for key in KEYS {
        let place = Place { key, name: name_of(key) };
        let likeness = likeness(&place);
        if likeness > best_likeness {
            (best, best_likeness) = (place, likeness);
        }
    }
    best
}
