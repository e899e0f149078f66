//! `debshrew status`

use super::start::{database, finish};
use super::{Error, Globals, output};
use crate::printable;
use crate::register::{self, Overview};

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

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_database()?;
    let pipelines = finish(async {
        let db = database(&config).await?;
        Ok(register::overview(&**db.client().await?).await?)
    })?;
    if args.json {
        // Numbers and texts alone: this does not fail.
        let json = serde_json::json!({ "pipelines": pipelines });
        output::print(&format!("{json:#}"))?;
    } else if pipelines.is_empty() {
        output::print("no pipeline is set up in this database: run `debshrew migrate`")?;
    } else {
        output::print(&people(&pipelines))?;
    }
    let halted: Vec<String> =
        pipelines.into_iter().filter(|one| one.state == "halted").map(|one| one.pipeline).collect();
    // The reason stands above already.
    if halted.is_empty() { Ok(()) } else { Err(Error::SaidToBeHalted(halted)) }
}

fn people(pipelines: &[Overview]) -> String {
    let number = |number: Option<i32>| number.map_or("-".to_owned(), |number| number.to_string());
    let rows = pipelines.iter().map(|one| {
        [
            one.pipeline.clone(),
            one.state.clone(),
            number(one.height),
            number(one.source_height),
            number(one.lag_blocks),
            one.last_block_at.clone().unwrap_or_else(|| "-".into()),
        ]
    });
    let mut text =
        output::table(&["pipeline", "state", "height", "source height", "lag blocks", "last block at"], rows);
    for one in pipelines {
        if let Some(error) = &one.last_error {
            text.push_str(&format!("\n\n{}: {}", one.pipeline, printable::line(error)));
        }
    }
    text
}
