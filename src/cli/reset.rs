//! `debshrew reset`

use super::rollback::agreed;
use super::start::{chosen, database, finish};
use super::{Error, Globals, output};
use crate::printable;
use crate::schema::{self, Reset};

const HELP: &str = "\
Examples:
  debshrew reset ledger                     says what goes, and asks
  debshrew reset ledger --yes && debshrew migrate && debshrew run";

/// Take a pipeline back to before its first migration and its first block, to process all blocks again
///
/// Drops what is in its schema and its journals, and what depends on that, in one transaction; the schemas and the roles
/// that were let in stay. `debshrew migrate` and `debshrew run` begin anew. Stop `run` first.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The pipeline
    #[arg(value_name = "NAME")]
    pub pipeline: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_database()?;
    let name = &args.pipeline;
    let chosen = chosen(&config, std::slice::from_ref(name))?;
    let has_migrations = chosen.iter().any(|(_, settings)| settings.migrations.is_some());
    finish(async {
        let db = database(&config).await?;
        let mut client = db.dedicated().await?;
        let planned = schema::reset(&mut client, name, has_migrations, None).await?;
        output::print(&format!("pipeline `{name}` begins anew; this goes:\n{}", described(&planned)))?;
        if !args.yes && !agreed()? {
            return Err(Error::Declined);
        }
        schema::reset(&mut client, name, has_migrations, Some(&planned)).await?;
        output::print("done; `debshrew migrate` and `debshrew run` process all blocks again")
    })
}

fn described(planned: &Reset) -> String {
    let mut lines = vec!["  its checkpoint, state and block log".to_owned()];
    lines.extend(planned.dropped.iter().map(|name| format!("  {name}")));
    lines.extend(planned.emptied.iter().map(|name| format!("  the rows of {name}")));
    let lost = planned.lost_sinks.iter();
    lines.extend(lost.map(|sink| format!("  the stream of sink {sink}, until `debshrew sink resync`")));
    lines.iter().map(|line| printable::line(line).into_owned()).collect::<Vec<_>>().join("\n")
}
