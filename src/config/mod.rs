//! The configuration: what can be set, where it came from, and what is wrong with it.
//!
//! Owns defaults, the file, the environment and the flags' precedence. Opens no connection.

mod dsn;
mod error;
mod hide;
mod keys;
mod layer;
mod name;
mod place;
mod read;
mod section;
mod settings;
mod sink;
mod sinks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::block::Height;

pub use crate::telemetry::Format as LogFormat;
pub use dsn::{Dsn, shown_target};
pub use error::ConfigError;
pub use hide::{may_hold_secret, shown_url};
pub use keys::{Form, KEYS, Key};
pub use layer::{Flags, Inputs};
pub use settings::{Setting, Settings};
pub use sink::{
    Beginning, Compression, Delivery, Destination, File, Format, Kafka, Mechanism, OnLag, Retry, Rotate,
    Sasl, Sink, Tls, Webhook,
};

/// Gathers the configuration from all its places and checks it. What only some commands need (a database, a
/// source, a pipeline) may still be absent: see [`Config::check_runnable`].
pub fn load(inputs: &Inputs) -> Result<Config, ConfigError> {
    Settings::gather(inputs)?.config()
}

/// Everything that can be configured, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub database: Database,
    pub source: Source,
    pub server: Server,
    pub log: Log,
    /// By name. `BTreeMap`, so that they are reported in the same order everywhere.
    pub pipelines: BTreeMap<String, Pipeline>,
    /// What is not wrong, and should be seen to.
    pub warnings: Vec<String>,
}

impl Config {
    /// Whether there is a database to connect to.
    pub fn check_database(&self) -> Result<(), ConfigError> {
        present(!self.database.url.reveal().is_empty(), ConfigError::NoDatabase)
    }

    /// Whether there is a source to follow.
    pub fn check_source(&self) -> Result<(), ConfigError> {
        present(!self.source.urls.is_empty(), ConfigError::NoSource)
    }

    /// Whether there is a pipeline.
    pub fn check_pipelines(&self) -> Result<(), ConfigError> {
        present(!self.pipelines.is_empty(), ConfigError::NoPipeline)
    }

    /// Whether all is there that `run` needs.
    pub fn check_runnable(&self) -> Result<(), ConfigError> {
        self.check_database()?;
        self.check_source()?;
        self.check_pipelines()?;
        self.check_server()
    }

    /// Whether only those can ask the server who may: on the loopback everybody on this machine, elsewhere who has the
    /// token.
    fn check_server(&self) -> Result<(), ConfigError> {
        match (self.server.listen, &self.server.token) {
            (Some(address), None) if !address.ip().is_loopback() => Err(ConfigError::OpenServer { address }),
            _ => Ok(()),
        }
    }
}

fn present(is_there: bool, otherwise: ConfigError) -> Result<(), ConfigError> {
    if is_there { Ok(()) } else { Err(otherwise) }
}

/// `[database]`: the PostgreSQL that is written to.
#[derive(Clone, Debug)]
pub struct Database {
    /// A `postgres://` URL or a `key=value` connection string; empty when none is configured.
    pub url: Secret,
    /// A PEM file with the certificate authorities to trust. Given, there is no connection without TLS and a
    /// certificate of theirs.
    pub tls_root_cert: Option<PathBuf>,
    /// How many connections may be open beside the one that each pipeline writes with.
    pub pool_size: usize,
    pub connect_timeout: Duration,
    /// Roles that `migrate` lets read every pipeline's tables and debshrew's views.
    pub read_roles: Vec<String>,
    /// Roles that `migrate` lets write for every pipeline.
    pub write_roles: Vec<String>,
    /// The role that `migrate` runs as, where the writer is another one: what it owns is trusted.
    pub owner_role: Option<String>,
}

/// `[source]`: the metashrew servers of one chain, of which one is followed at a time.
#[derive(Clone)]
pub struct Source {
    pub urls: Vec<String>,
    /// How many of them must agree on a block.
    pub quorum: usize,
    /// Basic authentication. Some servers take a key in the user's place.
    pub username: Option<Secret>,
    pub password: Option<Secret>,
    /// Bearer authentication.
    pub bearer_token: Option<Secret>,
    pub headers: BTreeMap<String, Secret>,
    pub connect_timeout: Duration,
    /// For one request, answer included.
    pub request_timeout: Duration,
    /// How often a request that met something transient is tried again.
    pub retries: u32,
    /// The largest answer that is read, in bytes.
    pub max_response_bytes: usize,
    /// Connections kept open per server; also the most requests under way at once.
    pub max_connections: usize,
    /// How long to wait between two looks at the tip.
    pub poll_interval: Duration,
    /// How long the source's tip may stand below blocks that it still has hashes for before it is called
    /// wedged.
    pub wedge_timeout: Duration,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| shown_url(url)).collect();
        f.debug_struct("Source").field("urls", &urls).finish_non_exhaustive()
    }
}

/// `[server]`: what `run` tells of itself over HTTP.
#[derive(Clone, Debug)]
pub struct Server {
    /// Without one there is no server.
    pub listen: Option<SocketAddr>,
    pub token: Option<Secret>,
    /// How many blocks a pipeline may be behind the source's tip, its confirmations aside, and count as ready.
    pub ready_lag: u32,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// A `tracing` filter: `info`, `debshrew=debug`.
    pub filter: String,
    pub format: LogFormat,
}

/// `[pipelines.NAME]`
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The `.wasm` file.
    pub transform: PathBuf,
    /// The PostgreSQL schema that the transform's tables live in.
    pub schema: String,
    /// The folder with the transform's SQL migrations; none when absent.
    pub migrations: Option<PathBuf>,
    /// The first block that is processed.
    pub start_height: Height,
    /// How many blocks to stay behind the source's tip.
    pub confirmations: u32,
    /// How many blocks below the checkpoint can be rolled back.
    pub retention: u32,
    /// A reorganisation that is deeper than this is not followed unless it is accepted.
    pub max_reorg_depth: u32,
    /// How long a block that the source fails to answer for is tried again.
    pub patience: Duration,
    /// How many blocks are evaluated at once, at most.
    pub evaluate_ahead: u32,
    /// Where its changes go beside its tables, by name.
    pub sinks: BTreeMap<String, Sink>,
    /// Whether blocks and rollbacks are told on PostgreSQL's channel `debshrew`.
    pub notify: bool,
    pub unknown_imports: UnknownImports,
    pub limits: Limits,
}

/// What to do about an import that the host does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownImports {
    /// Refuse the module and name the import.
    Refuse,
    /// Link it; it traps when it is called.
    Trap,
}

/// `[pipelines.NAME.limits]`: what one block's evaluation may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// wasmi's fuel, about one unit an instruction.
    pub fuel: u64,
    pub memory_bytes: usize,
    pub table_elements: usize,
    /// Everything that the transform hands over: changes, state, log lines, and view requests' inputs.
    pub output_bytes: usize,
    pub log_bytes: usize,
    /// View calls and state reads together.
    pub calls: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            fuel: 100_000_000_000,
            memory_bytes: 1 << 30,
            table_elements: 1 << 20,
            output_bytes: 256 << 20,
            log_bytes: 64 << 10,
            calls: 1_000_000,
        }
    }
}

/// A text that is never shown, logged or printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}
