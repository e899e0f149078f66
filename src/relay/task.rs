//! A sink's task: takes the sink's lock, follows the chain as long as that goes well, and waits and tries again as long as it
//! does not.

use std::time::Duration;

use super::breaker::Breaker;
use super::error::RelayError;
use super::setup::{Relay, Until};
use super::stream::{Ended, Stream};
use crate::config;
use crate::failure::{Kind, chain};
use crate::register::{self, RegisterError, Silence, SinkLease, SinkRecord, SinkSpec, Stage};

/// How often it is looked whether the lock is free, or whether somebody let a sink that halted, was paused or is lost go on.
const LOOK: Duration = Duration::from_secs(1);

/// So long a step may still take when the process is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// What became of a session.
enum Session {
    Ended,
    /// Another process has the lock, or somebody paused the sink.
    Idle,
    /// It is lost or has halted, for this reason.
    Stuck(String),
}

/// What is known from one session to the next.
struct Tries {
    breaker: Breaker,
    /// Whatever made the sink halt may have been mended before this process was started.
    is_first: bool,
    /// What was said of it last.
    said: Option<String>,
    /// Of the process that has the lock.
    silence: Silence,
}

impl Relay {
    /// Runs until it is told to end. Returns why it did not publish everything, if it was to and did not.
    pub async fn run(&self, until: &Until) -> Result<(), RelayError> {
        let mut tries = Tries {
            breaker: Breaker::new(self.settings.retry),
            is_first: true,
            said: None,
            silence: Silence::default(),
        };
        loop {
            let stopped = async {
                until.stop.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            let session = tokio::select! {
                session = self.session(until, &mut tries) => session,
                () = stopped => return Ok(()),
            };
            let finishing = until.finish.is_cancelled();
            let pause = match session {
                Ok(Session::Ended) => return Ok(()),
                Ok(Session::Idle) if finishing => return Ok(()),
                Ok(Session::Stuck(reason)) if finishing => return Err(RelayError::Stuck(reason)),
                Err(error) if finishing => return Err(error),
                Ok(Session::Idle | Session::Stuck(_)) => LOOK,
                Err(error) => self.failed(&error, &mut tries),
            };
            tokio::select! {
                () = until.stop.cancelled() => return Ok(()),
                () = until.finish.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says what failed, once, and how long to wait. What will not pass was recorded by the session: the next one idles.
    fn failed(&self, error: &RelayError, tries: &mut Tries) -> Duration {
        if matches!(error, RelayError::Register(RegisterError::SinkFenced { .. })) {
            // Somebody let it begin again, or another process has it now.
            return LOOK;
        }
        let retry_after = match error {
            RelayError::Sink(error) => error.retry_after,
            _ => None,
        };
        self.metrics.failed();
        let was_open = tries.breaker.is_open();
        let pause = tries.breaker.failed(retry_after);
        let (reason, hint) = (chain(error), error.advice());
        let is_new = tries.said.replace(reason.clone()).as_ref() != Some(&reason);
        if error.kind() == Kind::Permanent {
            if is_new {
                tracing::error!(reason, hint, "the sink halted; `debshrew sink retry` lets it try again");
            }
            // One that could not even be registered is not recorded as halted.
            return pause.max(LOOK);
        }
        match (tries.breaker.failures(), was_open) {
            (1, _) => tracing::warn!(reason, hint, "cannot publish; trying again"),
            (_, false) if tries.breaker.is_open() => {
                let probe = humantime::format_duration(self.settings.retry.probe).to_string();
                tracing::error!(reason, hint, probe, "the sink keeps failing; trying now and then");
            }
            _ => tracing::debug!(reason, "cannot publish; trying again"),
        }
        pause
    }

    /// Takes the sink's lock, opens it, and publishes until something goes wrong.
    async fn session(&self, until: &Until, tries: &mut Tries) -> Result<Session, RelayError> {
        let client = self.db.client().await?;
        let Some(pipeline) = register::find(&**client, &self.pipeline).await? else {
            return Err(RegisterError::NotSetUp(self.pipeline.clone()).into());
        };
        // Without the lock, which others may want, and without a session for it, if others have it.
        if let Some(record) = register::sink_record(&**client, pipeline.id, &self.name).await? {
            if let Some(idle) = why_idle(&record, tries.is_first) {
                return Ok(idle);
            }
            if register::is_taken(&client, &record, &mut tries.silence).await? {
                return Ok(Session::Idle);
            }
        }
        drop(client);
        let Some((lease, record)) =
            SinkLease::try_take(&self.db, &pipeline, &self.spec(), &mut tries.silence).await?
        else {
            return Ok(Session::Idle);
        };
        if let Some(idle) = why_idle(&record, tries.is_first) {
            return Ok(idle);
        }
        if record.halted {
            lease.tell(record.problem.as_deref(), false).await?;
        }
        tries.is_first = false;
        let lost = lease.lost();
        let publishing = async {
            let mut stream = Stream::open(self, &lease, record).await?;
            stream.follow(until, &mut tries.breaker).await
        };
        let ended = tokio::select! {
            ended = publishing => ended,
            // Nothing can be recorded by that session.
            lost = lost => return Err(lost.into()),
        };
        match ended {
            Ok(Ended::Finished) => Ok(Session::Ended),
            Ok(Ended::Told) => Ok(Session::Idle),
            Err(error) => {
                record_failure(&lease, &error).await;
                Err(error)
            }
        }
    }

    fn spec(&self) -> SinkSpec {
        SinkSpec {
            name: self.name.clone(),
            kind: self.settings.to.kind(),
            max_lag: self.settings.max_lag,
            confirmations: self.settings.confirmations,
            blocks: self.settings.on_lag == config::OnLag::Block,
        }
    }
}

/// Why nothing is to be published for now, if so.
fn why_idle(record: &SinkRecord, is_first: bool) -> Option<Session> {
    let is_stuck = record.stage == Stage::Lost || (record.halted && !is_first);
    match is_stuck {
        true => Some(Session::Stuck(record.problem.clone().unwrap_or_default())),
        false => record.paused.then_some(Session::Idle),
    }
}

/// Says in the database why nothing is published.
async fn record_failure(lease: &SinkLease, error: &RelayError) {
    let halted = error.kind() == Kind::Permanent;
    let reason = match error.advice() {
        Some(advice) => format!("{}; {advice}", chain(error)),
        None => chain(error),
    };
    let told = match error {
        RelayError::Lost(_) => lease.lose(&reason).await,
        _ => lease.tell(Some(&reason), halted).await,
    };
    if let Err(error) = told {
        tracing::debug!(reason = chain(&error), "cannot record why nothing is published");
    }
}
