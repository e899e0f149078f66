//! Follows the source as the pipeline's writer: looks where it stands, and does what follows from that.

mod ahead;
mod rest;
mod votes;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use ahead::Ahead;
use rest::SETTLE_INTERVAL;

use super::batch::{self, Batch, Evaluated, Failure};
use super::cache::StateCache;
use super::committing::{Progress, commit};
use super::doubt::{Again, Doubt};
use super::evaluation::Context;
use super::habit::Habit;
use super::parting::{self, Chains, Compared, LastLeft};
use super::report::Reporter;
use super::sinks::Sinks;
use super::stall::{Lacking, Pauses, Standing};
use super::states::States;
use super::window::Window;
use super::{Ended, Goal, Pipeline, PipelineError, Timing, Writer, millis, wait};
use crate::block::{BlockRef, Height};
use crate::failure::{Backoff, Kind, chain};
use crate::observe;
use crate::register::Cause;
use crate::reorg::Parting;
use crate::source::{Reading, Server, SourceError};
use crate::undo::Pruner;

/// What outlives a writer: the pauses between two of them, and the reorganisation that is accepted until it has come.
pub(super) type Kept<'a> = (&'a mut Backoff, &'a mut Option<LastLeft>);

pub(super) struct Follow<'a> {
    pipeline: Arc<Pipeline>,
    writer: Writer,
    reporter: Reporter,
    goal: Goal,
    stop: &'a CancellationToken,
    /// Begins anew with each success: a block committed, or nothing to do.
    backoff: &'a mut Backoff,
    accepted: &'a mut Option<LastLeft>,
    pauses: Pauses,
    cache: Arc<StateCache>,
    habit: Arc<Habit>,
    window: Window,
    pruner: Pruner,
    sinks: Sinks,
    progress: Progress,
    /// Where the source's tip was at the last look.
    last_tip: Option<Height>,
    standing: Standing,
    /// Since when the source has stood below the checkpoint.
    behind_since: Option<Instant>,
    lacking: Lacking,
    doubt: Doubt,
    states: States,
    /// Since when fewer servers than must agree have the next block.
    short_since: Option<Instant>,
    /// The server that is followed, of several.
    followed: Option<Server>,
    /// When its tip was seen to move.
    moved_at: Instant,
}

/// Where the source stands, seen from the checkpoint.
enum Look {
    /// Blocks from the one after the checkpoint up to this height can be evaluated.
    Ahead(Height),
    AtTip,
    /// Its tip is lower, on the same branch.
    Behind,
    /// It follows another branch.
    Forked(Parting),
    /// It has no hash for this block, which its tip lies above.
    Lacking(Height),
    /// It moved while it was looked at.
    Moved(String),
}

impl<'a> Follow<'a> {
    pub(super) fn new(
        pipeline: &Pipeline,
        writer: Writer,
        reporter: Reporter,
        goal: Goal,
        stop: &'a CancellationToken,
        (backoff, accepted): Kept<'a>,
    ) -> Follow<'a> {
        let pruner = Pruner::new(pipeline.db.clone(), pipeline.settings.retention);
        Follow {
            pipeline: Arc::new(pipeline.clone()),
            writer,
            reporter,
            goal,
            stop,
            backoff,
            accepted,
            pauses: Pauses::new(),
            cache: Arc::default(),
            habit: Arc::default(),
            window: Window::new(pipeline.settings.evaluate_ahead),
            pruner,
            sinks: Sinks::default(),
            progress: Progress::new(pipeline.settings.confirmations),
            last_tip: None,
            standing: Standing::default(),
            behind_since: None,
            lacking: Lacking::default(),
            doubt: Doubt::default(),
            states: States::default(),
            short_since: None,
            followed: None,
            moved_at: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) -> Result<Ended, PipelineError> {
        let watch = self.reporter.clone().watch(self.pipeline.source.clone());
        let _watching = AbortOnDropHandle::new(tokio::spawn(watch.in_current_span()));
        loop {
            match self.turn().await {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(PipelineError::Source(error)) if error.kind() == Kind::Transient => {
                    self.wait_for_source(&error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks once where the source stands, and does what follows from that.
    async fn turn(&mut self) -> Result<Option<Ended>, PipelineError> {
        if self.stop.is_cancelled() {
            return Ok(Some(Ended::Stopped));
        }
        if self.reached() {
            return Ok(Some(Ended::GoalReached));
        }
        // It may be long until the next block tells.
        self.writer.check_connected()?;
        if let Some(sink) = self.sinks.look(&self.pipeline.db, self.writer.pipeline().id).await? {
            let reason =
                format!("sink `{sink}` is behind for longer than its `max_lag` (`on_lag = \"block\"`)");
            self.reporter.waiting(reason, None, None).await;
            wait(self.pipeline.timing.poll_interval, self.stop).await;
            return Ok(None);
        }
        let opening = self.pipeline.source.follow(self.checkpoint(), self.relied_on());
        let Some(opened) = unless_stopped(self.stop, opening).await? else { return Ok(None) };
        let Some(reading) = opened else {
            let reason = "the source has no block yet".to_owned();
            self.reporter.waiting(reason, None, None).await;
            wait(self.pipeline.timing.poll_interval, self.stop).await;
            return Ok(None);
        };
        let reading = Arc::new(reading);
        let tip = reading.tip().height;
        self.now_following(reading.server());
        if self.last_tip != Some(tip) {
            self.moved_at = Instant::now();
        }
        if !self.steady(tip).await? {
            return Ok(None);
        }
        let Some(look) = unless_stopped(self.stop, self.look(&reading)).await? else { return Ok(None) };
        if matches!(look, Look::Behind) {
            self.behind_since.get_or_insert_with(Instant::now);
        } else {
            self.behind_since = None;
        }
        if let Some(how) = self.compare_states(&look, &reading).await? {
            self.settle(&how).await?;
            return Ok(None);
        }
        self.act(look, reading).await
    }

    /// Does what follows from a look.
    async fn act(&mut self, look: Look, reading: Arc<Reading>) -> Result<Option<Ended>, PipelineError> {
        let Timing { poll_interval, wedge_timeout } = self.pipeline.timing;
        let tip = reading.tip().height;
        match look {
            Look::Ahead(to) => {
                if let Some(to) = self.enough_have(&reading, to).await? {
                    self.reporter.at_work(self.pipeline.source.notice(), tip).await;
                    self.catch_up(reading, to).await?;
                }
            }
            Look::AtTip => {
                self.backoff.reset();
                self.pauses.reset();
                self.lacking.over();
                let wedged = self.standing.wedged(&reading, wedge_timeout);
                match unless_stopped(self.stop, wedged).await?.flatten() {
                    Some(reason) => self.reporter.waiting(reason, None, Some(tip)).await,
                    None => self.reporter.running(self.pipeline.source.notice(), Some(tip)).await,
                }
                if self.goal == Goal::Tip {
                    return Ok(Some(Ended::GoalReached));
                }
                wait(poll_interval, self.stop).await;
            }
            Look::Behind => {
                let wedged = self.standing.wedged(&reading, wedge_timeout);
                if let Some(wedged) = unless_stopped(self.stop, wedged).await? {
                    let behind = || format!("the source is at height {tip}, behind what is committed");
                    let reason = self.pipeline.source.notice().or(wedged).unwrap_or_else(behind);
                    self.reporter.waiting(reason, None, Some(tip)).await;
                    wait(poll_interval, self.stop).await;
                }
            }
            Look::Forked(parting) => {
                self.agree_on_fork(&reading, &parting).await?;
                self.roll_back(&parting).await?;
            }
            Look::Lacking(height) => self.lacks(height).await?,
            Look::Moved(how) => self.settle(&how).await?,
        }
        Ok(None)
    }

    /// The server that is followed, unless its tip has not moved for long, or has stood below the checkpoint.
    fn relied_on(&self) -> Option<&Server> {
        let long = |since: Instant| since.elapsed() >= self.pipeline.timing.wedge_timeout;
        self.followed.as_ref().filter(|_| !long(self.moved_at) && !self.behind_since.is_some_and(long))
    }

    /// Another server's tip is not to be compared with this one's.
    fn now_following(&mut self, server: Server) {
        if self.followed.as_ref() == Some(&server) {
            return;
        }
        if self.followed.is_some() {
            tracing::info!(%server, "following another server");
        }
        self.followed = Some(server);
        (self.last_tip, self.behind_since) = (None, None);
        self.standing.over();
    }

    /// Compares the source's states with those that were recorded, where it is on the branch that is committed.
    async fn compare_states(
        &mut self,
        look: &Look,
        reading: &Reading,
    ) -> Result<Option<String>, PipelineError> {
        if matches!(look, Look::Forked(_) | Look::Lacking(_) | Look::Moved(_)) {
            return Ok(None);
        }
        let compared = self.states.compare(&self.pipeline, &self.writer, reading);
        Ok(unless_stopped(self.stop, compared).await?.flatten())
    }

    /// Whether what the source says now may be the beginning of something. Right after its tip fell, views answer
    /// wrongly that a reading alone cannot tell, even below the fork; so at the first look, and after a fall, time
    /// is given for another.
    async fn steady(&mut self, tip: Height) -> Result<bool, PipelineError> {
        match self.last_tip.replace(tip) {
            Some(last) if tip < last => {
                self.settle(&format!("the tip fell from height {last} to {tip}")).await?;
                Ok(false)
            }
            Some(_) => Ok(true),
            None => {
                wait(SETTLE_INTERVAL, self.stop).await;
                Ok(false)
            }
        }
    }

    /// The database is not what failed, so this stays the writer meanwhile.
    async fn wait_for_source(&mut self, error: &SourceError) -> Result<(), PipelineError> {
        // It may hold what blocks wrote that are evaluated again.
        self.cache.clear();
        // What comes back may be another server behind the same address.
        self.states.forget();
        let pause = self.pauses.after(error);
        match error {
            // Nothing new.
            SourceError::Resting { .. } if self.reporter.is_waiting().await => {}
            SourceError::Resting { cause, .. } => self.reporter.waiting(cause.clone(), None, None).await,
            error => self.reporter.waiting(chain(error), None, None).await,
        }
        wait(pause, self.stop).await;
        Ok(())
    }

    fn checkpoint(&self) -> Option<BlockRef> {
        self.writer.checkpoint().block
    }

    /// Whether the goal leaves no block to commit; it may lie below the first one.
    fn reached(&self) -> bool {
        matches!(self.goal, Goal::Until(height) if self.next(self.checkpoint()) > height)
    }

    /// The first block after `block`.
    fn next(&self, block: Option<BlockRef>) -> Height {
        block.map_or(self.pipeline.settings.start_height, |block| block.height.next())
    }

    /// The highest block that may be committed while the source's tip is at this height.
    fn highest(&self, tip: Height) -> Option<Height> {
        let confirmed = tip.get().checked_sub(self.pipeline.settings.confirmations).and_then(Height::new)?;
        Some(match self.goal {
            Goal::Until(height) => confirmed.min(height),
            Goal::Follow | Goal::Tip => confirmed,
        })
    }

    async fn look(&self, reading: &Reading) -> Result<Look, PipelineError> {
        let tip = reading.tip().height;
        let chains = Chains {
            db: &self.pipeline.db,
            pipeline: self.writer.pipeline(),
            checkpoint: self.writer.checkpoint(),
            reading,
        };
        match chains.compare().await? {
            Compared::Same => {}
            Compared::Parted(parting) => return Ok(Look::Forked(parting)),
            Compared::Lacking(height) => return Ok(Look::Lacking(height)),
            Compared::Moved(how) => return Ok(Look::Moved(how)),
        }
        Ok(match self.highest(tip) {
            _ if self.checkpoint().is_some_and(|at| tip < at.height) => Look::Behind,
            Some(highest) if highest >= self.next(self.checkpoint()) => Look::Ahead(highest),
            _ => Look::AtTip,
        })
    }

    /// Evaluates and commits up to `to`: while one batch is being committed the next is evaluated.
    async fn catch_up(&mut self, reading: Arc<Reading>, to: Height) -> Result<(), PipelineError> {
        let first = self.next(self.checkpoint());
        let tables = Arc::clone(self.writer.tables());
        let context = Context::new(&self.pipeline, reading, &tables, &self.cache, &self.habit);
        let evaluated = batch::evaluate(&context, first..=to, &mut self.window);
        let mut ready = unless_stopped(self.stop, evaluated).await?;
        while let Some(evaluated) = ready {
            let Batch { tip, mut blocks, failed } = match evaluated {
                Evaluated::Batch(batch) => batch,
                Evaluated::Lacking(height) => {
                    self.cache.clear();
                    return self.lacks(height).await;
                }
                Evaluated::Moved(how) => {
                    self.cache.clear();
                    return self.settle(&how).await;
                }
            };
            (self.last_tip, self.moved_at) = (Some(tip), Instant::now());
            blocks.iter_mut().for_each(|(block, _)| self.sinks.journal(block));
            let last = blocks.last().map(|(block, _)| block.at).filter(|_| failed.is_none());
            let ahead = Ahead {
                goal: self.goal,
                tables: &tables,
                pipeline: &self.pipeline,
                cache: &self.cache,
                habit: &self.habit,
                window: &mut self.window,
                followed: self.followed.as_ref(),
                tip,
            };
            let commit = commit(
                &mut self.writer,
                blocks,
                self.stop,
                &self.cache,
                &mut self.progress,
                (&self.pipeline.watched, tip),
            );
            let (committed, next) = tokio::join!(commit, unless_stopped(self.stop, ahead.evaluate(last)));
            if committed? > 0 {
                self.backoff.reset();
                self.pauses.reset();
                self.standing.over();
                self.lacking.over();
                self.doubt.over();
                self.reporter.went_on(tip).await;
            }
            if self.stop.is_cancelled() {
                // Of the blocks before one that failed, some may be left to commit.
                return Ok(());
            }
            if let Some(failure) = failed {
                self.cache.clear();
                return self.doubt(failure).await;
            }
            self.writer.prune(&mut self.pruner).await;
            if self.sinks.look(&self.pipeline.db, self.writer.pipeline().id).await?.is_some() {
                self.cache.clear();
                return Ok(());
            }
            ready = next?.flatten();
        }
        Ok(())
    }

    /// What fails at the source's tip is tried once more when the source has come to rest: should the tip's hash
    /// have been there before its state, the transform was shown a state that never was.
    async fn doubt(&mut self, failure: Failure) -> Result<(), PipelineError> {
        let reason = failure.error.explained();
        match self.doubt.weigh(&failure, self.pipeline.settings.patience) {
            Again::Never => Err(failure.error),
            Again::After(pause) => {
                self.reporter.waiting(reason, Some(failure.at.height), None).await;
                wait(pause, self.stop).await;
                Ok(())
            }
            Again::AtRest => {
                let height = failure.at.height.get();
                tracing::warn!(height, reason, "failed at the source's tip; trying once more");
                self.settle("the block at the tip failed").await
            }
        }
    }

    async fn roll_back(&mut self, parting: &Parting) -> Result<(), PipelineError> {
        let (allowed, checkpoint) = (self.pipeline.settings.max_reorg_depth, self.writer.checkpoint());
        parting::check_depth(parting, allowed, *self.accepted, self.writer.pipeline(), checkpoint)?;
        let to = parting.last_common.map(|block| block.height);
        let began = Instant::now();
        let done = self.writer.roll_back(to, Cause::Reorg).await?;
        let (from, to, depth, rows, took) = (done.from, done.to, done.depth, done.rows, began.elapsed());
        self.pipeline.watched.rolled_back(&observe::Reorg { from, to, depth, rows, took });
        if parting.depth > allowed {
            *self.accepted = None;
        }
        // Now, and not before: nothing that was read meanwhile is to be kept.
        self.cache.clear();
        self.states.forget();
        tracing::warn!(
            from_height = from.height.get(),
            from_hash = %from.hash,
            height = to.map(|to| to.height.get()),
            hash = to.map(|to| tracing::field::display(to.hash)),
            depth,
            rows,
            took_ms = millis(took),
            "rolled back, as the source changed to another branch"
        );
        Ok(())
    }
}

/// Work that only reads may be given up at any moment: `None` when it is to stop.
pub(super) async fn unless_stopped<T, E: Into<PipelineError>>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<Option<T>, PipelineError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(None),
        done = work => done.map(Some).map_err(Into::into),
    }
}
