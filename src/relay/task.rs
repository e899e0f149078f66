//! A sink's task: takes the sink's lock, follows the chain as long as that goes well, and waits and tries again as long as it
//! does not.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::breaker::Breaker;
use super::error::RelayError;
use super::sink::Sink;
use super::stream::{Ended, Stream};
use crate::config;
use crate::db::Db;
use crate::failure::{Kind, chain};
use crate::observe::SinkMetrics;
use crate::register::{self, RegisterError, SinkLease, SinkSpec};

/// How often it is looked whether the lock is free, or whether somebody let a sink that halted, was paused or is lost go on.
const LOOK: Duration = Duration::from_secs(1);

/// Makes a sink, which opens nothing before it is asked to.
pub type Make = Arc<dyn Fn() -> Result<Box<dyn Sink>, super::SinkError> + Send + Sync>;

/// A sink of a pipeline, to be run.
#[derive(Clone)]
pub struct Relay {
    pub pipeline: String,
    pub name: String,
    pub settings: config::Sink,
    pub db: Db,
    pub make: Make,
    pub metrics: SinkMetrics,
    /// Something may have been committed.
    pub wake: tokio::sync::watch::Receiver<u64>,
}

/// When a stream ends.
#[derive(Clone)]
pub struct Until {
    /// At once, between two steps.
    pub stop: CancellationToken,
    /// When everything that is committed is published; at once, too, if that cannot be.
    pub finish: CancellationToken,
}

/// What became of a session.
enum Session {
    Ended,
    /// Another process has the lock, or somebody paused the sink.
    Idle,
    /// It is lost or has halted, for this reason.
    Stuck(String),
}

impl Relay {
    /// Runs until it is told to end. Returns why it did not publish everything, if it was to and did not.
    pub async fn run(&self, until: &Until) -> Result<(), RelayError> {
        let mut breaker = Breaker::new(self.settings.retry);
        loop {
            let session = until.stop.run_until_cancelled(self.session(until, &mut breaker)).await;
            let pause = match session {
                None | Some(Ok(Session::Ended)) => return Ok(()),
                Some(Ok(Session::Idle)) => {
                    if until.finish.is_cancelled() {
                        return Ok(());
                    }
                    LOOK
                }
                Some(Ok(Session::Stuck(reason))) => {
                    if until.finish.is_cancelled() {
                        return Err(RelayError::Stuck(reason));
                    }
                    LOOK
                }
                Some(Err(error)) => {
                    if until.finish.is_cancelled() {
                        return Err(error);
                    }
                    self.failed(&error, &mut breaker)
                }
            };
            tokio::select! {
                () = until.stop.cancelled() => return Ok(()),
                () = until.finish.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says what failed, once, and how long to wait. What will not pass was recorded by the session: the next one idles.
    fn failed(&self, error: &RelayError, breaker: &mut Breaker) -> Duration {
        let retry_after = match error {
            RelayError::Sink(error) => error.retry_after,
            _ => None,
        };
        self.metrics.failed();
        let was_open = breaker.is_open();
        let pause = breaker.failed(retry_after);
        let (reason, hint) = (chain(error), error.advice());
        if error.kind() == Kind::Permanent {
            tracing::error!(reason, hint, "the sink halted; `debshrew sink retry` lets it try again");
            return LOOK;
        }
        match (breaker.failures(), was_open) {
            (1, _) => tracing::warn!(reason, hint, "cannot publish; trying again"),
            (_, false) if breaker.is_open() => {
                let probe = humantime::format_duration(self.settings.retry.probe).to_string();
                tracing::error!(reason, hint, probe, "the sink keeps failing; trying now and then");
            }
            _ => tracing::debug!(reason, "cannot publish; trying again"),
        }
        pause
    }

    /// Takes the sink's lock, opens it, and publishes until something goes wrong.
    async fn session(&self, until: &Until, breaker: &mut Breaker) -> Result<Session, RelayError> {
        let client = self.db.client().await?;
        let Some(pipeline) = register::find(&**client, &self.pipeline).await? else {
            return Err(RegisterError::NotSetUp(self.pipeline.clone()).into());
        };
        drop(client);
        let Some((lease, record)) = SinkLease::try_take(&self.db, &pipeline, &self.spec()).await? else {
            return Ok(Session::Idle);
        };
        if record.halted || record.stage == register::Stage::Lost {
            return Ok(Session::Stuck(record.problem.unwrap_or_default()));
        }
        if record.paused {
            return Ok(Session::Idle);
        }
        let ended = match Stream::open(self, &lease, record).await {
            Ok(mut stream) => stream.follow(until, breaker).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(Ended::Finished) => Ok(Session::Ended),
            Ok(Ended::Told) => Ok(Session::Idle),
            Err(error) => {
                let halted = error.kind() == Kind::Permanent;
                let reason = match error.advice() {
                    Some(advice) => format!("{}; {advice}", chain(&error)),
                    None => chain(&error),
                };
                let told = match &error {
                    RelayError::Lost(_) => lease.lose(&reason).await,
                    _ => lease.tell(Some(&reason), halted).await,
                };
                if let Err(error) = told {
                    tracing::debug!(reason = chain(&error), "cannot record why nothing is published");
                }
                Err(error)
            }
        }
    }

    fn spec(&self) -> SinkSpec {
        SinkSpec {
            name: self.name.clone(),
            kind: self.settings.to.kind(),
            max_lag: self.settings.max_lag,
            blocks: self.settings.on_lag == config::OnLag::Block,
        }
    }
}
