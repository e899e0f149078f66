//! `debshrew status`

use super::{Error, Globals};

const HELP: &str = "\
Examples:
  debshrew status
  debshrew status --json | jq '.pipelines[] | select(.state == \"halted\")'";

/// Show how far each pipeline has come, what it is doing, and why it halted if it did
///
/// Reads the database alone, so that it works whether or not `debshrew run` does. Exits with 3 if a pipeline has
/// halted.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(_args: &Args, globals: &Globals) -> Result<(), Error> {
    globals.begin()?.check_database()?;
    Err(Error::Unbuilt { command: "status" })
}
