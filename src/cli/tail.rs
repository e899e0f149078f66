//! `debshrew tail`

use super::start::{block_on, database};
use super::{Error, Globals, height};
use crate::block::Height;
use crate::config;
use crate::register;
use crate::relay::{self, About, RelayError, Tail};

const HELP: &str = "\
Examples:
  debshrew tail ledger                          each block as it is committed, and what is rolled back
  debshrew tail ledger --table holding --from 840000
  debshrew tail ledger --once --from 840000 --json | jq .after";

/// Show what blocks change, as they are committed and rolled back
///
/// Reads the journals and leaves no trace: it needs no sink, keeps nothing, and can begin no further back than journals
/// reach.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Only this table; `*` stands for any characters; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// Begin with this block instead of the next one
    #[arg(long, value_name = "HEIGHT", value_parser = height)]
    pub from: Option<Height>,
    /// End with the last committed block
    #[arg(long)]
    pub once: bool,
    /// As JSON lines, also on a terminal
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_database()?;
    block_on(async |stop| {
        let db = database(&config).await?;
        let client = db.client().await?;
        let found = register::find(&**client, &args.pipeline).await?;
        let pipeline = found.ok_or_else(|| register::RegisterError::NotSetUp(args.pipeline.clone()))?;
        let about = About {
            pipeline: args.pipeline.clone(),
            sink: "tail".to_owned(),
            database: db.name().await?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        drop(client);
        let tables = if args.table.is_empty() { vec!["*".to_owned()] } else { args.table.clone() };
        let settings = config::Sink::console(tables.clone());
        let mut sink = relay::console(&settings, &about, args.json);
        let mut tail = Tail::open(&db, pipeline, &tables, args.from).await?;
        match tail.run(&mut *sink, !args.once, &stop).await {
            // As with other programs that print: whoever reads has seen enough.
            Err(RelayError::Sink(error)) if error.is_closed_pipe() => Ok(()),
            done => Ok(done?),
        }
    })
}

impl From<RelayError> for Error {
    fn from(error: RelayError) -> Error {
        Error::Relay(Box::new(error))
    }
}
