//! `debshrew rollback`

use std::io::IsTerminal;

use super::error::quoted;
use super::start::{chosen, database, finish};
use super::{Error, Globals, height, output};
use crate::block::Height;
use crate::pipeline::Writer;
use crate::register::Cause;
use crate::schema;

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

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_database()?;
    config.check_pipelines()?;
    let chosen = chosen(&config, args.pipeline.as_slice())?;
    let [(name, settings)] = chosen[..] else {
        return Err(Error::WhichPipeline { known: quoted(chosen.iter().map(|(name, _)| *name)) });
    };
    finish(async {
        let db = database(&config).await?;
        let Some(mut writer) = Writer::try_take_over(&db, name).await? else {
            return Err(schema::running(&*db.client().await?, name).await?.into());
        };
        writer.notify(settings.notify);
        // Below the start there is only the state before the first block. The database knows where that was; the
        // configuration may have been changed since.
        let to = Some(args.to).filter(|to| *to >= writer.pipeline().start_height);
        let Some(from) = writer.checkpoint().block.filter(|block| Some(block.height) > to) else {
            return output::print(&format!(
                "nothing to do: pipeline `{name}` has no block above {}",
                args.to
            ));
        };
        writer.check_reach(to)?;
        let to_text = to.map_or("before its first block".to_owned(), |to| format!("to block {to}"));
        output::print(&format!("pipeline `{name}` goes from block {from} back {to_text}"))?;
        if !args.yes && !agreed()? {
            return Err(Error::Declined);
        }
        let done = writer.roll_back(to, Cause::Operator).await?;
        output::print(&format!("rolled back {} blocks: {} rows put back or removed", done.depth, done.rows))
    })
}

pub fn agreed() -> Result<bool, Error> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Error::NobodyToAsk);
    }
    output::ask("Go on? [y/N] ")?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(Error::Input)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
