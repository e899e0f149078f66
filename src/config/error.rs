//! What can be wrong with a configuration, and what to do about it. A value is never repeated, nor is a line of the
//! file: it may be a secret, or stand beside one.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Every variant says what, where and what is allowed; [`ConfigError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file `{}`", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file `{}` is not TOML{}", path.display(), at(*.place))]
    Syntax {
        path: PathBuf,
        /// Line and column, from 1.
        place: Option<(usize, usize)>,
    },
    #[error("cannot merge the configuration")]
    Merge,
    /// `what` is a key in a file, or a variable.
    #[error("{what} is unknown; the nearest known one is `{nearest}`")]
    Unknown { what: String, nearest: String },
    #[error("`{key}` ({origin}) has a wrong value; {allowed}")]
    Invalid { key: String, origin: String, allowed: String },
    #[error("`{key}` ({origin}) {problem}")]
    Shape { key: String, origin: String, problem: String },
    #[error("{0}")]
    Conflict(String),
    #[error("pipeline `{pipeline}` has no `transform`, the `.wasm` file to run")]
    NoTransform { pipeline: String },
    #[error("no database is configured")]
    NoDatabase,
    #[error("no source is configured")]
    NoSource,
    #[error("no pipeline is configured")]
    NoPipeline,
    #[error(
        "`server.listen` is `{address}`, which other machines can reach, and `server.token` is not set: anybody could read \
         what the server tells"
    )]
    OpenServer { address: SocketAddr },
}

fn at(place: Option<(usize, usize)>) -> String {
    place.map(|(line, column)| format!(" at line {line}, column {column}")).unwrap_or_default()
}

impl ConfigError {
    /// What to do, where the message does not say it already.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ConfigError::NoDatabase => {
                "set `url` under `[database]` in debshrew.toml, the variable `DATABASE_URL`, or pass --database-url"
                    .to_owned()
            }
            ConfigError::NoSource => {
                "set `urls` under `[source]` in debshrew.toml, or pass --source-url http://HOST:PORT; debshrew.toml is \
                 looked for in the current folder, unless --config names it"
                    .to_owned()
            }
            ConfigError::NoPipeline => {
                "add a `[pipelines.NAME]` section with a `transform` to debshrew.toml, or name the file with --config"
                    .to_owned()
            }
            ConfigError::NoTransform { pipeline } => {
                format!("set `transform` under `[pipelines.{pipeline}]`")
            }
            ConfigError::OpenServer { .. } => {
                "set the variable `DEBSHREW__SERVER__TOKEN` (`openssl rand -hex 16` makes one), or listen on 127.0.0.1"
                    .to_owned()
            }
            ConfigError::Unknown { .. } => "`debshrew config` lists every key and where its value comes from".to_owned(),
            _ => return None,
        })
    }
}
