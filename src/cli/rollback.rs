//! `debshrew rollback`

use super::{Error, Globals, height};
use crate::block::Height;

const HELP: &str = "\
Examples:
  debshrew rollback --to 839990                     asks first
  debshrew rollback --to 839990 --pipeline ledger --yes";

/// Put tables, state and checkpoint back to what they were at an earlier block
///
/// Within what the journal still holds (`retention`); `run` goes on from there. Stop `run` first: the process that
/// writes for the pipeline must not be running.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The block that is to be the last
    #[arg(long, value_name = "HEIGHT", value_parser = height)]
    pub to: Height,
    /// The pipeline; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

pub fn run(_args: &Args, globals: &Globals) -> Result<(), Error> {
    globals.begin()?.check_database()?;
    Err(Error::Unbuilt { command: "rollback" })
}
