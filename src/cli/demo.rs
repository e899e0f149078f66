//! `debshrew demo`

use super::{Error, Globals};

const HELP: &str = "\
Examples:
  debshrew demo
  debshrew demo --exit --blocks 200
  debshrew demo --database-url postgres://me@localhost/scratch";

/// Show everything at work: a private PostgreSQL, a stand-in source, a reorg, a crash, and the rows after it
///
/// Needs PostgreSQL's server programs, or a database to use in their place: only the one that --database-url
/// names, never one from the configuration. What it claims is checked by SQL.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// End after the last step, with 0 if every claim held, instead of following new blocks
    #[arg(long)]
    pub exit: bool,
    /// How many blocks to begin with
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    pub blocks: u32,
}

pub fn run(_args: &Args, _globals: &Globals) -> Result<(), Error> {
    Err(Error::Unbuilt { command: "demo" })
}
