//! `debshrew sink`

use super::rollback::agreed;
use super::start::{database, finish};
use super::{Error, Globals, output};
use crate::register::{self, SinkOrder, SinkOverview};

const HELP: &str = "\
Examples:
  debshrew sink pause ledger.events
  debshrew sink retry events                the pipeline may be left out if the name is unique
  debshrew sink resync ledger.events --yes  begin again with a snapshot, unasked";

/// Pause a sink, let it try again, let it begin again, or drop it
///
/// Changes what the database says of the sink; a process that runs it sees that within seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(subcommand)]
    pub order: Order,
}

#[derive(Debug, clap::Subcommand)]
pub enum Order {
    /// Publish nothing for now; its journals are kept, for `max_lag` at most
    Pause(Named),
    /// Go on after `pause`
    Resume(Named),
    /// Try again, after it halted
    Retry(Named),
    /// Begin the stream again with a snapshot: consumers are told that what they hold is void
    Resync(Asked),
    /// Begin the stream again as `from` says; consumers are not told
    Reset(Asked),
    /// Forget a sink that is no longer configured, so that no journal is kept for it
    Drop(Asked),
}

#[derive(Debug, clap::Args)]
pub struct Named {
    /// `PIPELINE.SINK`, or the sink's name if it is unique
    #[arg(value_name = "SINK")]
    pub sink: String,
}

#[derive(Debug, clap::Args)]
pub struct Asked {
    #[command(flatten)]
    pub named: Named,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

impl Order {
    /// What is to be done, to which sink, and what is to be asked first.
    fn parts(&self) -> (SinkOrder, &str, Option<&'static str>) {
        let asked = |asked: &Asked, danger| (!asked.yes).then_some(danger);
        match self {
            Order::Pause(named) => (SinkOrder::Pause, &named.sink, None),
            Order::Resume(named) => (SinkOrder::Resume, &named.sink, None),
            Order::Retry(named) => (SinkOrder::Retry, &named.sink, None),
            Order::Resync(args) => {
                let danger = "publishes all rows again, after a message that what consumers hold is void";
                (SinkOrder::Resync, &args.named.sink, asked(args, danger))
            }
            Order::Reset(args) => {
                let danger = "forgets how far the stream is, and begins again as `from` says";
                (SinkOrder::Reset, &args.named.sink, asked(args, danger))
            }
            Order::Drop(args) => {
                (SinkOrder::Drop, &args.named.sink, asked(args, "forgets the sink and how far its stream is"))
            }
        }
    }
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_database()?;
    let (order, name, danger) = args.order.parts();
    finish(async {
        let db = database(&config).await?;
        let mut client = db.dedicated().await?;
        let sinks = register::sink_overview(&*client).await?;
        let sink = find(&sinks, name)?;
        let full = format!("{}.{}", sink.pipeline, sink.sink);
        if let Some(danger) = danger {
            let at = sink.height.map_or("nothing".to_owned(), |height| format!("block {height}"));
            output::print(&format!("sink `{full}`, which has published up to {at}: this {danger}"))?;
            if !agreed()? {
                return Err(Error::Declined);
            }
        }
        if !register::order_sink(&mut client, sink, order).await? {
            return Err(Error::SinkRuns(full));
        }
        output::print(&format!("sink `{full}`: {}", done(order)))
    })
}

fn done(order: SinkOrder) -> &'static str {
    match order {
        SinkOrder::Pause => "paused",
        SinkOrder::Resume => "resumed",
        SinkOrder::Retry => "will try again",
        SinkOrder::Resync => "will begin again with a snapshot",
        SinkOrder::Reset => "will begin again as configured",
        SinkOrder::Drop => "dropped",
    }
}

fn find<'a>(sinks: &'a [SinkOverview], name: &str) -> Result<&'a SinkOverview, Error> {
    let full = |sink: &SinkOverview| format!("{}.{}", sink.pipeline, sink.sink);
    let found: Vec<&SinkOverview> =
        sinks.iter().filter(|sink| sink.sink == name || full(sink) == name).collect();
    match found[..] {
        [sink] => Ok(sink),
        _ => {
            let known: Vec<String> = sinks.iter().map(|sink| format!("`{}`", full(sink))).collect();
            Err(Error::WhichSink { name: name.to_owned(), found: found.len(), known: known.join(", ") })
        }
    }
}
