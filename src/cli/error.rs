//! Why a command failed, and what the process's exit code says of it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cluster::ClusterError;
use crate::config::ConfigError;
use crate::db::DbError;
use crate::failure::{Kind, some_of};
use crate::pipeline::PipelineError;
use crate::register::RegisterError;
use crate::relay::RelayError;
use crate::runtime::RuntimeError;
use crate::schema::SchemaError;
use crate::server::ServerError;
use crate::simulate::SimulateError;
use crate::source::SourceError;
use crate::telemetry::TelemetryError;

/// The process's exit codes; documented in the help and in docs/commands.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Also after SIGINT or SIGTERM.
    Success = 0,
    Failure = 1,
    /// Bad usage or configuration.
    Usage = 2,
    /// A pipeline halted.
    Halted = 3,
    /// The source or the database could not be reached at the start.
    Unreachable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("cannot start the asynchronous runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
    #[error("there is no pipeline `{name}` in the configuration; it has {known}")]
    UnknownPipeline { name: String, known: String },
    #[error("the configuration has several pipelines ({known}): name one with --pipeline")]
    WhichPipeline { known: String },
    #[error("cannot read the transform `{path}` of pipeline `{pipeline}`")]
    Transform {
        pipeline: String,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("pipeline `{pipeline}`: its transform cannot be used")]
    Unusable {
        pipeline: String,
        #[source]
        source: RuntimeError,
    },
    #[error("cannot reach the database")]
    DatabaseUnreachable(#[source] DbError),
    #[error("cannot reach the source")]
    SourceUnreachable(#[source] SourceError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Pipeline(Box<PipelineError>),
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("migrations are pending ({pending}): run `debshrew migrate`, or pass --migrate")]
    Pending { pending: String },
    #[error("{}", halted(.0))]
    Halted(Vec<String>),
    /// By `status`, which has said why.
    #[error("{}", halted(.0))]
    SaidToBeHalted(Vec<String>),
    /// By `sinks`, which has said why.
    #[error("{} halted, or must begin again", quoted_sinks(.0))]
    SinksHalted(Vec<String>),
    #[error(transparent)]
    Relay(Box<RelayError>),
    /// By `run`, which has said why.
    #[error("{} could not publish everything that is committed", quoted_sinks(.0))]
    SinksBehind(Vec<String>),
    #[error("{}", which_sink(.name, *.found, .known))]
    WhichSink { name: String, found: usize, known: String },
    #[error("sink `{0}` is run by a process: take it out of the configuration of `debshrew run` first")]
    SinkRuns(String),
    #[error("{0} of the checks failed")]
    Checks(usize),
    #[error("cannot read from standard input")]
    Input(#[source] std::io::Error),
    #[error("not done, since nobody said yes")]
    Declined,
    #[error("standard input is no terminal to ask at")]
    NobodyToAsk,
    #[error("the private PostgreSQL server could not be started")]
    Cluster(#[from] ClusterError),
    #[error("there is no `{}`", .path.display())]
    NoTransforms { path: PathBuf },
    #[error("the demo could not go on: {0}")]
    Demo(String),
    #[error("the demo was stopped before its last step")]
    Stopped,
    #[error("the demo's query failed: {sql}")]
    DemoQuery {
        sql: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("this does not hold: {claim}; {found}")]
    Claim { claim: String, found: String },
}

fn halted(names: &[String]) -> String {
    match names {
        [one] => format!("pipeline `{one}` has halted"),
        several => format!("pipelines {} have halted", quoted(several.iter().map(String::as_str))),
    }
}

fn quoted_sinks(names: &[String]) -> String {
    let subject = if names.len() == 1 { "sink" } else { "sinks" };
    format!("{subject} {}", quoted(names.iter().map(String::as_str)))
}

fn which_sink(name: &str, found: usize, known: &str) -> String {
    match (found, known) {
        (_, "") => format!("there is no sink `{name}`: none was ever run"),
        (0, known) => format!("there is no sink `{name}`; there are {known}"),
        (_, known) => format!("several sinks are called `{name}`: name the pipeline too; there are {known}"),
    }
}

/// Names in backticks, for messages.
pub fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    some_of(&names.map(|name| format!("`{name}`")).collect::<Vec<_>>(), ", ")
}

impl From<PipelineError> for Error {
    fn from(error: PipelineError) -> Error {
        Error::Pipeline(Box::new(error))
    }
}

impl From<RegisterError> for Error {
    fn from(error: RegisterError) -> Error {
        PipelineError::from(error).into()
    }
}

impl From<SchemaError> for Error {
    fn from(error: SchemaError) -> Error {
        PipelineError::from(error).into()
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Error {
        PipelineError::from(error).into()
    }
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Error::Config(_) | Error::Telemetry(TelemetryError::Filter) => Exit::Usage,
            Error::Telemetry(_) => Exit::Failure,
            Error::UnknownPipeline { .. }
            | Error::WhichPipeline { .. }
            | Error::Transform { .. }
            | Error::Unusable { .. }
            | Error::NobodyToAsk
            | Error::Source(SourceError::Configuration(_)) => Exit::Usage,
            Error::Halted(_) | Error::SaidToBeHalted(_) | Error::SinksHalted(_) | Error::SinksBehind(_) => {
                Exit::Halted
            }
            Error::WhichSink { .. } => Exit::Usage,
            Error::DatabaseUnreachable(_) | Error::SourceUnreachable(_) => Exit::Unreachable,
            Error::Pipeline(error) => match &**error {
                PipelineError::Register(RegisterError::Contradiction { .. })
                | PipelineError::Db(DbError::Url(_) | DbError::Tls(_)) => Exit::Usage,
                error if is_unreachable(error) => Exit::Unreachable,
                _ => Exit::Failure,
            },
            Error::Simulate(SimulateError::Read { .. } | SimulateError::Blocks { .. }) => Exit::Usage,
            Error::Simulate(_)
            | Error::Server(_)
            | Error::Source(_)
            | Error::Pending { .. }
            | Error::Checks(_)
            | Error::Relay(_)
            | Error::SinkRuns(_)
            | Error::Declined
            | Error::Input(_)
            | Error::Runtime(_)
            | Error::Output(_)
            | Error::Cluster(_)
            | Error::Demo(_)
            | Error::Stopped
            | Error::DemoQuery { .. }
            | Error::Claim { .. } => Exit::Failure,
            Error::NoTransforms { .. } => Exit::Usage,
        }
    }

    /// What to do, where the message does not say it already.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Config(error) => error.hint(),
            Error::NobodyToAsk => Some("pass --yes to do it without asking".into()),
            Error::NoTransforms { .. } => {
                Some("`make transforms` builds them; --transforms names their folder".into())
            }
            Error::Halted(_) => Some("`debshrew status` says why".into()),
            Error::Transform { pipeline, .. } => Some(format!(
                "build it, or set `pipelines.{pipeline}.transform`; in a file, paths are relative to that file"
            )),
            Error::Pipeline(error) => match &**error {
                PipelineError::Db(DbError::Url(_)) => Some(
                "it is to be like postgres://USER:PASSWORD@HOST:PORT/DATABASE, or host=HOST dbname=DATABASE"
                    .into(),
                ),
                error => error.advice(),
            },
            Error::Relay(error) => error.advice(),
            Error::Simulate(SimulateError::Listen { .. }) => {
                Some("--listen takes another address; port 0 is any free one".into())
            }
            Error::Server(ServerError::Listen { .. }) => Some(
                "another process may listen there: set another `server.listen`; port 0 takes any free one".into(),
            ),
            _ => None,
        }
    }
}

/// Whether the database could not be connected to, and may be later.
fn is_unreachable(error: &PipelineError) -> bool {
    let error = match error {
        PipelineError::Db(error)
        | PipelineError::Register(RegisterError::Db(error))
        | PipelineError::Schema(SchemaError::Db(error) | SchemaError::Register(RegisterError::Db(error))) => {
            error
        }
        _ => return false,
    };
    matches!(error, DbError::Connect { .. } | DbError::Pool { .. }) && error.kind() == Kind::Transient
}
