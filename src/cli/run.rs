//! `debshrew run`

use super::{Error, Globals, height};
use crate::block::Height;

const HELP: &str = "\
Examples:
  debshrew run                              follow the source until told to stop
  debshrew run --migrate                    bring the schema up to date first
  debshrew run --until 840000               commit up to this block, then exit with 0
  debshrew run --once --pipeline ledger     catch up with the tip, then exit";

/// Follow the source: run each pipeline's transform on every block and commit what it says
///
/// SIGINT and SIGTERM end it between blocks; a second one ends it at once. It goes on where it left off, however it
/// ended. When another process already writes for a pipeline, this one waits and takes over from it.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Commit up to this block, included, and exit with 0
    #[arg(long, value_name = "HEIGHT", value_parser = height, conflicts_with = "once")]
    pub until: Option<Height>,
    /// Catch up with the source's tip and exit with 0
    #[arg(long)]
    pub once: bool,
    /// Run `debshrew migrate` first
    #[arg(long)]
    pub migrate: bool,
    /// Only this pipeline; may be repeated
    #[arg(long, value_name = "NAME")]
    pub pipeline: Vec<String>,
}

pub fn run(_args: &Args, globals: &Globals) -> Result<(), Error> {
    globals.begin()?.check_runnable()?;
    Err(Error::Unbuilt { command: "run" })
}
