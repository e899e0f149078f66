//! `debshrew run`

use std::collections::HashMap;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bars::{Aim, Bars};
use super::relays::Relays;
use super::start::{block_on, chosen, database, transform};
use super::{Error, Globals, height, migrate, service};
use crate::block::Height;
use crate::config::{self, Config};
use crate::db::Db;
use crate::failure::some_of;
use crate::observe::{Observer, State};
use crate::pipeline::{Goal, LastLeft, Pipeline, Timing};
use crate::server::Server;
use crate::source::Source;
use crate::telemetry::Format;

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
    /// Follow a reorganisation once, however deep, whose last common block this is: a height, or `start`
    #[arg(long, value_name = "HEIGHT")]
    pub accept_reorg: Option<LastLeft>,
    /// Only this pipeline; may be repeated
    #[arg(long, value_name = "NAME")]
    pub pipeline: Vec<String>,
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_runnable()?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let pipelines = chosen(&config, &args.pipeline)?;
    let goal = match (args.until, args.once) {
        (Some(height), _) => Goal::Until(height),
        (None, true) => Goal::Tip,
        (None, false) => Goal::Follow,
    };
    let observer = Observer::default();
    block_on(async |stop| {
        // Before all else, so that it tells of what takes long, and that a port which is taken is said at once.
        let mut server = Server::start(&config, &observer).await?;
        let preparing = prepare(&config, &pipelines, args, &observer, server.as_mut());
        let result = match stop.run_until_cancelled(preparing).await {
            Some(Ok((db, ready))) => {
                service::supervise(observer.clone(), stop.clone());
                let _bars = bars(&ready, goal, &config, &observer);
                let relays = Relays::start(&pipelines, &db, &observer, &stop).await?;
                let done = all(ready, goal, &stop, server.as_ref()).await;
                let published = relays.finish().await;
                done.and(published)
            }
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        if let Some(server) = server {
            server.stop().await;
        }
        result
    })
}

/// Reaches for all that is needed before the first block.
async fn prepare(
    config: &Config,
    pipelines: &[(&str, &config::Pipeline)],
    args: &Args,
    observer: &Observer,
    server: Option<&mut Server>,
) -> Result<(Db, Vec<Pipeline>), Error> {
    let db = database(config).await?;
    let source = Source::new(&config.source)?;
    // A wrong address is said at once; later on, the same failure is waited for.
    source.tip().await.map_err(Error::SourceUnreachable)?;
    if args.migrate {
        migrate::apply(config, pipelines, &db).await?;
    } else {
        refuse_pending(pipelines, &db).await?;
    }
    let timing =
        Timing { poll_interval: config.source.poll_interval, wedge_timeout: config.source.wedge_timeout };
    let ready = pipelines.iter().map(|(name, settings)| {
        Ok(Pipeline {
            name: (*name).to_owned(),
            settings: (*settings).clone(),
            timing,
            db: db.clone(),
            source: source.clone(),
            transform: transform(name, settings)?,
            watched: observer.pipeline(name, settings.start_height, settings.confirmations),
            accept_reorg: args.accept_reorg,
        })
    });
    let ready = ready.collect::<Result<_, Error>>()?;
    if let Some(server) = server {
        server.sample(&db, pipelines.iter().map(|(name, _)| (*name).to_owned()));
    }
    Ok((db, ready))
}

/// A line a pipeline, on a terminal; a log for machines is left alone.
fn bars(pipelines: &[Pipeline], goal: Goal, config: &Config, observer: &Observer) -> Option<Bars> {
    let until = match goal {
        Goal::Until(height) => Some(height),
        Goal::Follow | Goal::Tip => None,
    };
    let aims = pipelines.iter().map(|pipeline| {
        let confirmations = pipeline.settings.confirmations;
        (pipeline.name.clone(), Aim { confirmations, until: until.map(Height::get) })
    });
    (config.log.format == Format::Text).then(|| Bars::open(observer, aims.collect())).flatten()
}

/// Runs each pipeline by itself: one that halts does not stop the others.
async fn all(
    pipelines: Vec<Pipeline>,
    goal: Goal,
    stop: &CancellationToken,
    server: Option<&Server>,
) -> Result<(), Error> {
    let mut running = JoinSet::new();
    let mut watched = HashMap::new();
    for pipeline in pipelines {
        let (stop, told) = (stop.clone(), pipeline.watched.clone());
        let task = running.spawn(async move {
            let result = pipeline.run(goal, &stop).await;
            (pipeline.name, result)
        });
        watched.insert(task.id(), told);
    }
    let mut halted = Vec::new();
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((_, Ok(_))) => {}
            Ok((name, Err(_))) => halted.push(name),
            // Only a defect of ours ends a task otherwise; the others still end between blocks.
            Err(error) => {
                let how = error.to_string();
                if let Some(pipeline) = watched.get(&error.id()) {
                    pipeline.state(State::Halted, Some(&how), None);
                    server.inspect(|server| server.broken(pipeline.name(), &how));
                }
                halted.push(how);
            }
        }
    }
    halted.sort();
    if halted.is_empty() { Ok(()) } else { Err(Error::Halted(halted)) }
}

async fn refuse_pending(pipelines: &[(&str, &config::Pipeline)], db: &Db) -> Result<(), Error> {
    let pending = migrate::pending(pipelines, db).await?;
    if pending.is_empty() { Ok(()) } else { Err(Error::Pending { pending: some_of(&pending, ", ") }) }
}
