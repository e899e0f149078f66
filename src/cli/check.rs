//! `debshrew check`

use super::{Error, Globals};

const HELP: &str = "\
Examples:
  debshrew check
  debshrew check --pipeline ledger";

/// Look for what would keep `run` from working: configuration, database, source, transforms, tables
///
/// Changes nothing. Says of each table that cannot be replicated why, and advises where a table could be better
/// declared.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Only this pipeline; may be repeated
    #[arg(long, value_name = "NAME")]
    pub pipeline: Vec<String>,
}

pub fn run(_args: &Args, globals: &Globals) -> Result<(), Error> {
    globals.begin()?;
    Err(Error::Unbuilt { command: "check" })
}
