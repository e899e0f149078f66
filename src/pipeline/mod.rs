//! The one loop of a pipeline: take over, follow the source, evaluate, commit in order, roll back on a fork.
//!
//! Owns all control flow and what is done about each failure. The modules that it calls are leaves: they do
//! one thing and return what came of it.

mod batch;
mod cache;
mod committing;
mod doubt;
mod evaluation;
mod follow;
mod habit;
mod parting;
mod report;
mod sinks;
mod stall;
mod states;
mod window;
mod writer;

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::block::{BlockRef, Height};
use crate::commit::CommitError;
use crate::config;
use crate::db::{Db, DbError};
use crate::failure::{Backoff, Kind, chain};
use crate::observe::{State, Watched};
use crate::register::{self, Activity, Held, RegisterError, Report, Role, Silence};
use crate::reorg::Parting;
use crate::runtime::{RuntimeError, Transform};
use crate::schema::SchemaError;
use crate::source::{Source, SourceError};
use crate::table::TableError;
use crate::undo::UndoError;
use report::Reporter;

pub use parting::{Chains, Compared, LastLeft, check_depth, explain_lacking};
pub use states::{OtherState, Roots, compare_roots};
pub use writer::Writer;

/// How often a standby looks whether the pipeline's lock is free.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a pipeline cannot go on, for now or for good.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Undo(#[from] UndoError),
    #[error("block {height}: the transform failed")]
    Transform {
        height: Height,
        #[source]
        source: RuntimeError,
    },
    #[error("block {height}: its changes cannot be applied")]
    Changes {
        height: Height,
        #[source]
        source: TableError,
    },
    #[error("block {height}: its changes cannot be applied")]
    Block {
        height: Height,
        #[source]
        source: CommitError,
    },
    #[error("block {height}: what the transform asked for cannot be had")]
    Question {
        height: Height,
        #[source]
        source: Box<PipelineError>,
    },
    #[error(
        "the source follows another chain than what is committed: {parting}, which is more than `max_reorg_depth` \
         ({allowed}) allows"
    )]
    OtherChain { parting: Box<Parting>, allowed: u32, unreached: Option<Box<UndoError>> },
    #[error("the source follows another chain than what is committed: {parting}")]
    TooDeep {
        parting: Box<Parting>,
        #[source]
        source: Box<UndoError>,
    },
    #[error(transparent)]
    OtherState(#[from] Box<OtherState>),
    #[error("the evaluation of block {height} was cut off")]
    CutOff { height: Height },
}

impl PipelineError {
    pub fn kind(&self) -> Kind {
        match self {
            PipelineError::Source(error) => error.kind(),
            PipelineError::Db(error) => error.kind(),
            PipelineError::Register(error) => error.kind(),
            PipelineError::Schema(error) => error.kind(),
            PipelineError::Table(error) | PipelineError::Changes { source: error, .. } => error.kind(),
            PipelineError::Commit(error) | PipelineError::Block { source: error, .. } => error.kind(),
            PipelineError::Undo(error) => error.kind(),
            PipelineError::Transform { source, .. } => source.kind(),
            PipelineError::Question { source, .. } => source.kind(),
            PipelineError::OtherChain { .. }
            | PipelineError::TooDeep { .. }
            | PipelineError::OtherState(_) => Kind::Permanent,
            PipelineError::CutOff { .. } => Kind::Transient,
        }
    }

    /// What to do about it, where the message does not say it.
    pub fn advice(&self) -> Option<String> {
        match self {
            PipelineError::Register(error) => error.advice(),
            PipelineError::Schema(error) => error.advice(),
            PipelineError::Commit(error) | PipelineError::Block { source: error, .. } => error.advice(),
            PipelineError::Undo(error) => error.advice(),
            PipelineError::TooDeep { source, .. } => source.advice(),
            PipelineError::OtherChain { parting, unreached, .. } => {
                Some(other_chain(parting, unreached.as_deref()))
            }
            PipelineError::Question { source, .. } => source.advice(),
            PipelineError::OtherState(_) => Some(states::ADVICE.to_owned()),
            PipelineError::Source(_)
            | PipelineError::Db(_)
            | PipelineError::Table(_)
            | PipelineError::Changes { .. }
            | PipelineError::Transform { .. }
            | PipelineError::CutOff { .. } => None,
        }
    }

    /// The block that it is about.
    pub fn height(&self) -> Option<Height> {
        match self {
            PipelineError::Transform { height, .. }
            | PipelineError::Changes { height, .. }
            | PipelineError::Block { height, .. }
            | PipelineError::Question { height, .. }
            | PipelineError::CutOff { height } => Some(*height),
            PipelineError::OtherChain { parting, .. } | PipelineError::TooDeep { parting, .. } => {
                Some(parting.height)
            }
            PipelineError::OtherState(other) => Some(other.block.height),
            PipelineError::Source(_)
            | PipelineError::Db(_)
            | PipelineError::Register(_)
            | PipelineError::Schema(_)
            | PipelineError::Table(_)
            | PipelineError::Commit(_)
            | PipelineError::Undo(_) => None,
        }
    }

    /// The error, its causes, and what to do about it.
    pub fn explained(&self) -> String {
        match self.advice() {
            None => chain(self),
            Some(advice) => format!("{}; {advice}", chain(self)),
        }
    }
}

fn other_chain(parting: &Parting, unreached: Option<&UndoError>) -> String {
    let wrong = "most likely `source.urls` names a server of another network or chain: correct it";
    match unreached {
        None => {
            let to = parting.last_common.map_or("start".to_owned(), |block| block.height.to_string());
            format!(
                "{wrong}. If it is the right one, `debshrew run --accept-reorg {to}` follows it this once"
            )
        }
        Some(error) => {
            let advice = error.advice().unwrap_or_default();
            format!("{wrong}. If it is the right one: {}; {advice}", chain(error))
        }
    }
}

/// When a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Never: follow the source.
    Follow,
    /// Once this height is committed.
    Until(Height),
    /// Once the source's tip is reached.
    Tip,
}

/// A run that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    GoalReached,
    Stopped,
}

/// One pipeline and all that it needs.
#[derive(Clone)]
pub struct Pipeline {
    pub name: String,
    pub settings: config::Pipeline,
    pub timing: Timing,
    pub db: Db,
    pub source: Source,
    pub transform: Transform,
    /// Is told what it does.
    pub watched: Watched,
    /// Followed once, however deep it is.
    pub accept_reorg: Option<LastLeft>,
}

/// How long to wait for the source.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two looks at the tip.
    pub poll_interval: Duration,
    /// Until a source that stands below blocks it still has hashes for is called wedged.
    pub wedge_timeout: Duration,
}

impl Pipeline {
    /// Runs until the goal is reached, `stop` is cancelled, or something is met that waiting does not mend.
    /// What may pass is tried again, with growing pauses, and said in the log and in `debshrew.pipelines`.
    pub async fn run(&self, goal: Goal, stop: &CancellationToken) -> Result<Ended, PipelineError> {
        // Of the highest level: it is to be there for every event, whatever the filter lets through.
        let span = tracing::error_span!("pipeline", pipeline = self.name);
        self.try_again_and_again(goal, stop).instrument(span).await
    }

    async fn try_again_and_again(
        &self,
        goal: Goal,
        stop: &CancellationToken,
    ) -> Result<Ended, PipelineError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut accepted = self.accept_reorg;
        let mut shown = None;
        loop {
            let mut role = Role::Bystander;
            let kept = (&mut backoff, &mut accepted);
            let error = match self.write(goal, stop, kept, &mut role, &mut shown).await {
                Ok(ended) => {
                    self.say(role, Activity::Stopped, None).await;
                    return Ok(ended);
                }
                Err(error) => error,
            };
            let (reason, height) = (error.explained(), error.height().map(Height::get));
            if error.kind() == Kind::Permanent {
                tracing::error!(height, reason, "halted");
                self.say(role, Activity::Halted, Some(&error)).await;
                return Err(error);
            }
            let pause = backoff.next_pause();
            tracing::warn!(height, reason, pause_ms = millis(pause), "failed; trying again");
            shown = self.say_pause(role, &error).await;
            if wait(pause, stop).await == Waited::Stopped {
                self.say(role, Activity::Stopped, None).await;
                return Ok(Ended::Stopped);
            }
        }
    }

    /// Becomes the writer, as `role` tells then, and follows until something goes wrong. The checkpoint is read
    /// anew each time.
    async fn write(
        &self,
        goal: Goal,
        stop: &CancellationToken,
        kept: follow::Kept<'_>,
        role: &mut Role,
        shown: &mut Option<ClientWrapper>,
    ) -> Result<Ended, PipelineError> {
        let Some(mut writer) = self.take_over(stop).await? else { return Ok(Ended::Stopped) };
        // From here on the writer's own session shows it.
        *shown = None;
        *role = Role::Writer { epoch: writer.epoch() };
        writer.align(&self.settings.schema, self.settings.start_height).await?;
        writer.notify(self.settings.notify);
        writer.check_complete().await?;
        match writer.checkpoint().block {
            Some(BlockRef { height, hash }) => {
                tracing::info!(height = height.get(), %hash, "resuming at the last block");
            }
            None => {
                tracing::info!(height = self.settings.start_height.get(), "beginning with the first block");
            }
        }
        self.watched.resumes_at(writer.checkpoint().block);
        let told = self.watched.clone();
        let reporter = Reporter::new(self.db.clone(), writer.pipeline().clone(), *role, told);
        let lost = writer.lost();
        tokio::select! {
            ended = follow::Follow::new(self, writer, reporter, goal, stop, kept).run() => ended,
            lost = lost => Err(lost.into()),
        }
    }

    async fn take_over(&self, stop: &CancellationToken) -> Result<Option<Writer>, PipelineError> {
        let mut seen: Option<Held> = None;
        let mut silence = Silence::default();
        let mut shown = None;
        while !stop.is_cancelled() {
            // Given up halfway, the connection ends and the lock with it.
            let taken = follow::unless_stopped(stop, Writer::try_take_over(&self.db, &self.name)).await?;
            if let Some(Some(writer)) = taken {
                return Ok(Some(writer));
            }
            if taken.is_some() {
                let held = register::holder_of(&*self.db.client().await?, &self.name).await?;
                self.end_silent(&mut silence).await;
                if held.is_some() && held != seen {
                    let held = held.as_ref().map(Held::explained).unwrap_or_default();
                    tracing::info!(reason = held, "standing by");
                    self.watched.state(State::Standby, Some(&held), None);
                }
                seen = held;
                if shown.as_ref().is_none_or(|session: &ClientWrapper| session.is_closed()) {
                    // Best effort: it takes over all the same, unseen.
                    shown = match register::stand_by(&self.db, &self.name).await {
                        Ok(session) => Some(session),
                        Err(error) => {
                            tracing::debug!(reason = chain(&error), "cannot show that it stands by");
                            None
                        }
                    };
                }
            }
            wait(STANDBY_INTERVAL, stop).await;
        }
        Ok(None)
    }

    /// Ends the session of a writer that has gone silent, so that the lock is free at the next look.
    async fn end_silent(&self, silence: &mut Silence) {
        let ended = async {
            let client = self.db.client().await?;
            match register::find(&**client, &self.name).await? {
                Some(registered) => silence.end_writer(&client, registered.id).await,
                None => Ok(()),
            }
        };
        if let Err(error) = ended.await {
            tracing::warn!(reason = chain(&error), "cannot end the session of the writer that is gone");
        }
    }

    /// Best effort: when the database is what failed, the log has it.
    async fn say(&self, role: Role, activity: Activity, error: Option<&PipelineError>) {
        let report = self.report(activity, error);
        let said = async {
            let client = self.db.client().await?;
            let Some(registered) = register::find(&**client, &self.name).await? else { return Ok(()) };
            register::report(&client, registered.id, role, &report).await
        };
        if let Err(error) = said.await {
            unrecorded(&error);
        }
    }

    /// The same before a pause, in which there is no writer's session to show that this process is there: this one does.
    async fn say_pause(&self, role: Role, error: &PipelineError) -> Option<ClientWrapper> {
        let report = self.report(Activity::Waiting, Some(error));
        let said = async {
            let found = register::find(&**self.db.client().await?, &self.name).await?;
            match found {
                Some(registered) => {
                    register::report_pause(&self.db, &registered, role, &report).await.map(Some)
                }
                None => Ok(None),
            }
        };
        said.await.unwrap_or_else(|error| {
            unrecorded(&error);
            None
        })
    }

    fn report(&self, activity: Activity, error: Option<&PipelineError>) -> Report {
        let reason = error.map(PipelineError::explained);
        let reason_height = error.and_then(PipelineError::height);
        self.watched.state(report::state(activity), reason.as_deref(), reason_height);
        Report { activity, reason, reason_height, source_tip: None }
    }
}

fn unrecorded(error: &RegisterError) {
    tracing::warn!(reason = chain(error), "cannot record what the pipeline does");
}

/// For the log: milliseconds, to a microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Over,
    Stopped,
}

async fn wait(pause: Duration, stop: &CancellationToken) -> Waited {
    tokio::select! {
        () = stop.cancelled() => Waited::Stopped,
        () = tokio::time::sleep(pause) => Waited::Over,
    }
}
