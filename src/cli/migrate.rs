//! `debshrew migrate`

use super::{Error, Globals};

const HELP: &str = "\
Examples:
  debshrew migrate
  debshrew migrate --status                 what has been applied, and what has not
  debshrew migrate --dry-run                try it in a transaction that is rolled back
  debshrew migrate --grant-read reporting   let a role read every table, later ones included";

/// Bring the database's schema up to date: debshrew's own, each pipeline's, and the journals
///
/// Runs under a lock, so that two processes may try it at once. A database that is newer than this program is
/// refused.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Show what has been applied and what has not, and change nothing
    #[arg(long, conflicts_with_all = ["dry_run", "grant_read"])]
    pub status: bool,
    /// Run everything in a transaction, show what it did, and roll it back
    #[arg(long)]
    pub dry_run: bool,
    /// Let this role read the pipelines' tables and debshrew's views; may be repeated
    #[arg(long, value_name = "ROLE")]
    pub grant_read: Vec<String>,
}

pub fn run(_args: &Args, globals: &Globals) -> Result<(), Error> {
    globals.begin()?.check_database()?;
    Err(Error::Unbuilt { command: "migrate" })
}
