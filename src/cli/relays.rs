//! The sinks of the pipelines that run, a task each.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Error;
use crate::config;
use crate::db::Db;
use crate::failure::chain;
use crate::observe::{Observer, SinkMetrics};
use crate::relay::{self, About, Make, Relay, RelayError, Until};

/// Sinks under way. They end with [`Relays::finish`], or when this is dropped.
pub(super) struct Relays {
    tasks: JoinSet<(String, Result<(), RelayError>)>,
    until: Until,
}

impl Relays {
    /// Starts every sink of these pipelines.
    pub(super) async fn start(
        pipelines: &[(&str, &config::Pipeline)],
        db: &Db,
        observer: &Observer,
        stop: &CancellationToken,
    ) -> Result<Relays, Error> {
        let database = db.name().await?;
        let until = Until { stop: stop.clone(), finish: CancellationToken::new() };
        let mut tasks = JoinSet::new();
        for (pipeline, settings) in pipelines {
            for (name, sink) in &settings.sinks {
                let relay = Relay {
                    pipeline: (*pipeline).to_owned(),
                    name: name.clone(),
                    settings: sink.clone(),
                    db: db.clone(),
                    metrics: SinkMetrics::new(pipeline, name),
                    make: make(pipeline, name, sink, &database),
                    wake: observer.changes(),
                };
                let (until, full) = (until.clone(), format!("{pipeline}.{name}"));
                let span = tracing::info_span!("sink", pipeline, sink = name);
                tasks.spawn(async move { (full, relay.run(&until).await) }.instrument(span));
            }
        }
        Ok(Relays { tasks, until })
    }

    /// Lets the sinks publish what is committed, and ends them; at once if the process is to stop. An error names those that
    /// could not.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.until.finish.cancel();
        let mut behind = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(error))) => {
                    tracing::error!(sink = name, reason = chain(&error), "not everything was published");
                    behind.push(name);
                }
                // Only a defect of ours ends a task otherwise.
                Err(error) => behind.push(error.to_string()),
            }
        }
        behind.sort();
        if behind.is_empty() { Ok(()) } else { Err(Error::SinksBehind(behind)) }
    }
}

/// Makes the sink as it is configured.
pub(super) fn make(pipeline: &str, name: &str, settings: &config::Sink, database: &str) -> Make {
    let about = About {
        pipeline: pipeline.to_owned(),
        sink: name.to_owned(),
        database: database.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let settings = settings.clone();
    Arc::new(move || relay::open(&settings, &about))
}
