//! The command line: what can be asked for, and how answers and errors look. One file a command.
//!
//! Decides nothing about blocks; whatever a command does is done by the module it calls.

pub mod amounts;
pub mod bars;
pub mod check;
pub mod config;
pub mod demo;
pub mod error;
pub mod migrate;
pub mod output;
mod relays;
pub mod reset;
pub mod rollback;
pub mod run;
pub mod service;
pub mod simulate;
pub mod sink;
pub mod sinks;
pub mod start;
pub mod status;
pub mod tail;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::block::Height;
use crate::config::{Config, Flags, Inputs, load};
use crate::telemetry;
pub use error::{Error, Exit};

const EXIT_CODES: &str = "\
Exit codes:
  0  success, or an orderly end after SIGINT or SIGTERM
  1  any other failure
  2  bad usage or configuration
  3  a pipeline halted
  4  the source or the database could not be reached at the start

Examples:
  debshrew demo                  see everything at work; needs nothing configured
  debshrew config                what is configured, and where it came from
  debshrew migrate && debshrew run";

/// debshrew follows a metashrew server into PostgreSQL: one transform, one transaction a block, exactly once,
/// through reorgs.
#[derive(Parser)]
#[command(name = "debshrew", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command; they win over the file and over variables.
#[derive(Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct Globals {
    /// The configuration file [default: debshrew.toml in the current folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The PostgreSQL to write to, a postgres:// URL or key=value pairs
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// A metashrew server to follow; may be repeated, the first that answers is used
    #[arg(long, global = true, value_name = "URL")]
    pub source_url: Vec<String>,
    /// What is logged: info, warn,debshrew=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["text", "json"])]
    pub log_format: Option<String>,
}

impl Globals {
    /// Where to look for the configuration, by these flags and this process's variables.
    pub fn inputs(&self) -> Inputs {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Inputs {
            file: self.config.clone(),
            flags: Flags {
                database_url: self.database_url.clone(),
                source_urls: self.source_url.clone(),
                log_filter: self.log.clone(),
                log_format: self.log_format.clone(),
            },
            environment: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
        }
    }

    /// How what goes wrong is said: as the log is, also before there is one.
    fn format(&self) -> telemetry::Format {
        let variable = || std::env::var("DEBSHREW__LOG__FORMAT").ok();
        let asked = || match self.log_format.clone().or_else(variable)?.as_str() {
            "json" => Some(telemetry::Format::Json),
            _ => None,
        };
        telemetry::format().or_else(asked).unwrap_or(telemetry::Format::Text)
    }

    /// Reads the configuration and begins to log as it says: how most commands begin.
    pub fn begin(&self) -> Result<Config, Error> {
        let config = load(&self.inputs())?;
        telemetry::init(&config.log.filter, config.log.format)?;
        Ok(config)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Args),
    Migrate(migrate::Args),
    Status(status::Args),
    Check(check::Args),
    Rollback(rollback::Args),
    Reset(reset::Args),
    Sinks(sinks::Args),
    Sink(sink::Args),
    Tail(tail::Args),
    Simulate(simulate::Args),
    Demo(demo::Args),
    Config(config::Args),
}

/// Reads the command line, does what it says, and reports what went wrong.
pub fn main() -> ExitCode {
    // Reads the variable FAILPOINTS; see tests/crash.rs.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            output::usage(&error, std::env::args_os().skip(1));
            return if error.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    let exit = match dispatch(&cli) {
        Ok(()) => Exit::Success,
        Err(error) => {
            output::error(&error, cli.globals.format());
            error.exit()
        }
    };
    telemetry::end();
    exit.into()
}

/// The whole command line as data, for the manual's test.
pub fn command() -> clap::Command {
    Cli::command()
}

fn dispatch(cli: &Cli) -> Result<(), Error> {
    let globals = &cli.globals;
    match &cli.command {
        Command::Run(args) => run::run(args, globals),
        Command::Migrate(args) => migrate::run(args, globals),
        Command::Status(args) => status::run(args, globals),
        Command::Check(args) => check::run(args, globals),
        Command::Rollback(args) => rollback::run(args, globals),
        Command::Reset(args) => reset::run(args, globals),
        Command::Sinks(args) => sinks::run(args, globals),
        Command::Sink(args) => sink::run(args, globals),
        Command::Tail(args) => tail::run(args, globals),
        Command::Simulate(args) => simulate::run(args, globals),
        Command::Demo(args) => demo::run(args, globals),
        Command::Config(args) => config::run(args, globals),
    }
}

/// Reads a height from the command line.
fn height(text: &str) -> Result<Height, String> {
    text.parse()
        .ok()
        .and_then(Height::new)
        .ok_or_else(|| format!("a height is a whole number from 0 to {}", Height::MAX))
}
