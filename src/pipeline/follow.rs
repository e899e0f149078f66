//! Follows the source as the pipeline's writer: looks where it stands, and does what follows from that.

mod votes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{self, Batch, Evaluated, Failure};
use super::cache::StateCache;
use super::committing::{Progress, commit};
use super::evaluation::Context;
use super::habit::Habit;
use super::report::Reporter;
use super::states::States;
use super::window::Window;
use super::{Ended, Goal, Pipeline, PipelineError, Waited, Writer, wait};
use crate::block::{BlockRef, Height};
use crate::failure::{Backoff, Kind, chain};
use crate::register::{Activity, Cause, committed_hash};
use crate::reorg::{Comparison, ForkSearch, Question};
use crate::source::{Reading, Server, SourceError, Verdict};
use crate::table::Tables;
use crate::undo::Pruner;

/// After the source has moved under a reading, it is left alone until its tip has stood still for this long, or
/// risen.
const SETTLE: Duration = Duration::from_secs(1);

/// How often the tip is looked at meanwhile.
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Follow<'a> {
    pipeline: Arc<Pipeline>,
    writer: Writer,
    reporter: Reporter,
    goal: Goal,
    stop: &'a CancellationToken,
    /// Begins anew with each success: a block committed, or nothing to do.
    backoff: &'a mut Backoff,
    cache: Arc<StateCache>,
    habit: Arc<Habit>,
    window: Window,
    pruner: Pruner,
    progress: Progress,
    /// Where the source's tip was at the last look.
    last_tip: Option<Height>,
    /// Since when the source has stood below the checkpoint.
    behind_since: Option<Instant>,
    /// The block at the source's tip that failed once.
    doubted: Option<BlockRef>,
    states: States,
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
    /// It follows another branch from above this block on; `None` is before the first block.
    Forked(Option<Height>),
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
        backoff: &'a mut Backoff,
    ) -> Follow<'a> {
        let pruner = Pruner::new(pipeline.db.clone(), pipeline.settings.retention);
        Follow {
            pipeline: Arc::new(pipeline.clone()),
            writer,
            reporter,
            goal,
            stop,
            backoff,
            cache: Arc::default(),
            habit: Arc::default(),
            window: Window::new(pipeline.settings.evaluate_ahead),
            pruner,
            progress: Progress::default(),
            last_tip: None,
            behind_since: None,
            doubted: None,
            states: States::default(),
            followed: None,
            moved_at: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) -> Result<Ended, PipelineError> {
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
        let poll_interval = self.pipeline.timing.poll_interval;
        if self.stop.is_cancelled() {
            return Ok(Some(Ended::Stopped));
        }
        if self.reached() {
            return Ok(Some(Ended::GoalReached));
        }
        // It may be long until the next block tells.
        self.writer.check_connected()?;
        let opening = self.pipeline.source.follow(self.checkpoint(), self.relied_on());
        let Some(opened) = unless_stopped(self.stop, opening).await? else { return Ok(None) };
        let Some(reading) = opened else {
            let reason = "the source has no block yet".to_owned();
            self.reporter.say(Activity::Waiting, Some(reason), None).await?;
            wait(poll_interval, self.stop).await;
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
        if !matches!(look, Look::Behind) {
            self.behind_since = None;
        }
        if let Some(how) = self.compare_states(&look, &reading).await? {
            self.settle(&how).await?;
            return Ok(None);
        }
        match look {
            Look::Ahead(to) => {
                if let Some(to) = self.enough_have(&reading, to).await? {
                    self.reporter.say(Activity::Running, None, Some(tip)).await?;
                    self.catch_up(reading, to).await?;
                }
            }
            Look::AtTip => {
                self.backoff.reset();
                self.reporter.say(Activity::Running, None, Some(tip)).await?;
                if self.goal == Goal::Tip {
                    return Ok(Some(Ended::GoalReached));
                }
                wait(poll_interval, self.stop).await;
            }
            Look::Behind => {
                if let Some(reason) = unless_stopped(self.stop, self.behind(&reading)).await? {
                    self.reporter.say(Activity::Waiting, Some(reason), Some(tip)).await?;
                    wait(poll_interval, self.stop).await;
                }
            }
            Look::Forked(to) => {
                self.agree_on_fork(&reading, to).await?;
                self.roll_back(to).await?;
            }
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
            tracing::info!(pipeline = self.pipeline.name, "following {server} from now on");
        }
        self.followed = Some(server);
        (self.last_tip, self.behind_since) = (None, None);
    }

    /// Compares the source's states with those that were recorded, where it is on the branch that is committed.
    async fn compare_states(
        &mut self,
        look: &Look,
        reading: &Reading,
    ) -> Result<Option<String>, PipelineError> {
        if matches!(look, Look::Forked(_) | Look::Moved(_)) {
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
        if matches!(error, SourceError::NoQuorum { outvoted: true, .. }) {
            self.followed = None;
        }
        let reason = chain(error);
        let pause = self.backoff.next_pause();
        let name = &self.pipeline.name;
        tracing::warn!(pipeline = name, "{reason}; trying again in {} ms", pause.as_millis());
        self.reporter.say(Activity::Waiting, Some(reason), None).await?;
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
        let tip = reading.tip();
        let Some(at) = self.checkpoint() else {
            let first = self.pipeline.settings.start_height;
            return Ok(match self.highest(tip.height).filter(|highest| *highest >= first) {
                Some(highest) => Look::Ahead(highest),
                None => Look::AtTip,
            });
        };
        let top = at.height.min(tip.height);
        let Some(committed) = self.committed(top).await? else { return Ok(Look::Behind) };
        match reading.hash(top).await? {
            Some(hash) if hash == committed => {}
            Some(_) => return self.find_fork(reading, top).await,
            None => return Ok(Look::Moved(format!("the source has no hash for block {top} any more"))),
        }
        Ok(match self.highest(tip.height) {
            _ if tip.height < at.height => Look::Behind,
            Some(highest) if highest > at.height => Look::Ahead(highest),
            _ => Look::AtTip,
        })
    }

    /// Finds the highest block that both branches contain, given that `top` is on ours alone.
    async fn find_fork(&self, reading: &Reading, top: Height) -> Result<Look, PipelineError> {
        let first = self.writer.pipeline().start_height;
        let mut search = ForkSearch::new(top, self.writer.checkpoint().floor, first);
        let fork = loop {
            match search.next() {
                Question::Compare(height) => {
                    let (Some(committed), Some(hash)) =
                        (self.committed(height).await?, reading.hash(height).await?)
                    else {
                        return Ok(Look::Moved(format!("block {height} is not there to compare any more")));
                    };
                    search.answer(if committed == hash { Comparison::Same } else { Comparison::Differs });
                }
                Question::Found(fork) => break fork,
                // The writer refuses to go below its floor, and says what can be done.
                Question::BelowFloor { floor } => break floor.previous(),
            }
        };
        Ok(match reading.close().await? {
            Verdict::Held { .. } => Look::Forked(fork),
            Verdict::Moved(how) => Look::Moved(how),
        })
    }

    async fn committed(&self, height: Height) -> Result<Option<crate::block::BlockHash>, PipelineError> {
        match self.checkpoint() {
            Some(at) if at.height == height => Ok(Some(at.hash)),
            _ => {
                let client = self.pipeline.db.client().await?;
                Ok(committed_hash(&**client, self.writer.pipeline().id, height).await?)
            }
        }
    }

    /// Evaluates and commits up to `to`: while one batch is being committed the next is evaluated.
    async fn catch_up(&mut self, reading: Arc<Reading>, to: Height) -> Result<(), PipelineError> {
        let first = self.next(self.checkpoint());
        let tables = Arc::clone(self.writer.tables());
        let context = Context::new(&self.pipeline, reading, &tables, &self.cache, &self.habit);
        let evaluated = batch::evaluate(&context, first..=to, &mut self.window);
        let mut ready = unless_stopped(self.stop, evaluated).await?;
        while let Some(evaluated) = ready {
            let Batch { tip, blocks, failed } = match evaluated {
                Evaluated::Batch(batch) => batch,
                Evaluated::Moved(how) => {
                    self.cache.clear();
                    return self.settle(&how).await;
                }
            };
            (self.last_tip, self.moved_at) = (Some(tip), Instant::now());
            let last = blocks.last().map(|block| block.at).filter(|_| failed.is_none());
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
            let commit = commit(&mut self.writer, blocks, self.stop, &self.cache, &mut self.progress, tip);
            let (committed, next) = tokio::join!(commit, unless_stopped(self.stop, ahead.evaluate(last)));
            if committed? > 0 {
                self.backoff.reset();
            }
            if self.stop.is_cancelled() {
                // Of the blocks before one that failed, some may be left to commit.
                return Ok(());
            }
            if let Some(failure) = failed {
                self.cache.clear();
                return self.doubt(failure).await;
            }
            self.writer.prune(&mut self.pruner).await?;
            ready = next?.flatten();
        }
        Ok(())
    }

    /// What fails at the source's tip is tried once more when the source has come to rest: should the tip's hash
    /// have been there before its state, the transform was shown a state that never was.
    async fn doubt(&mut self, failure: Failure) -> Result<(), PipelineError> {
        if !failure.at_tip || self.doubted.replace(failure.at) == Some(failure.at) {
            return Err(failure.error);
        }
        let reason = failure.error.explained();
        tracing::warn!(
            pipeline = self.pipeline.name,
            "{reason}; it is the source's tip, so it is tried once more"
        );
        self.settle("the block at the tip failed").await
    }

    async fn roll_back(&mut self, to: Option<Height>) -> Result<(), PipelineError> {
        let done = self.writer.roll_back(to, Cause::Reorg).await?;
        // Now, and not before: nothing that was read meanwhile is to be kept.
        self.cache.clear();
        self.states.forget();
        let to = done.to.map_or("before the first block".to_owned(), |to| format!("to block {to}"));
        tracing::warn!(
            pipeline = self.pipeline.name,
            depth = done.depth,
            rows = done.rows,
            "the source changed to another branch: rolled back from block {} {to}",
            done.from
        );
        Ok(())
    }

    /// What to say of a source whose tip is below the checkpoint.
    async fn behind(&mut self, reading: &Reading) -> Result<String, PipelineError> {
        let tip = reading.tip().height;
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        let waited = since.elapsed();
        if waited >= self.pipeline.timing.wedge_timeout && reading.hash_above_tip(tip.next()).await?.is_some()
        {
            return Ok(format!(
                "the source has stood at height {tip} for long, while it still has hashes above: it is probably \
                 wedged after a reorganisation that it could not follow; restart it or index anew"
            ));
        }
        Ok(format!("the source is at height {tip}, behind what is committed"))
    }

    /// Lets the source come to rest: while it reorganises, its views answer wrongly. Ends when its tip has risen
    /// above the lowest that it was seen at, or stood there for a while.
    async fn settle(&mut self, how: &str) -> Result<(), PipelineError> {
        tracing::debug!(pipeline = self.pipeline.name, "waiting for the source to come to rest: {how}");
        self.states.forget();
        let mut lowest: Option<Height> = None;
        let mut since = Instant::now();
        while since.elapsed() < SETTLE && wait(SETTLE_INTERVAL, self.stop).await == Waited::Over {
            let opening = self.pipeline.source.open_at(self.followed.as_ref());
            let Some(Some(reading)) = unless_stopped(self.stop, opening).await? else { continue };
            let now = reading.tip().height;
            match lowest {
                Some(lowest) if now > lowest => break,
                Some(lowest) if now == lowest => {}
                _ => (lowest, since) = (Some(now), Instant::now()),
            }
        }
        self.last_tip = lowest;
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

/// What it takes to evaluate the batch after one that is being committed.
struct Ahead<'a> {
    goal: Goal,
    tables: &'a Arc<Tables>,
    pipeline: &'a Arc<Pipeline>,
    cache: &'a Arc<StateCache>,
    habit: &'a Arc<Habit>,
    window: &'a mut Window,
    followed: Option<&'a Server>,
    /// Where the source's tip was when the batch that is being committed had been evaluated.
    tip: Height,
}

impl Ahead<'_> {
    /// The next batch, if the source has one that stands on `parent`.
    async fn evaluate(self, parent: Option<BlockRef>) -> Result<Option<Evaluated>, PipelineError> {
        let Some(parent) = parent else { return Ok(None) };
        let Some(reading) = self.pipeline.source.open_at(self.followed).await? else { return Ok(None) };
        if reading.tip().height < self.tip {
            return Ok(None);
        }
        let common = self.pipeline.source.common_tip(&reading.server(), reading.tip()).await?;
        let confirmed = common.get().checked_sub(self.pipeline.settings.confirmations);
        let Some(mut to) = confirmed.and_then(Height::new) else { return Ok(None) };
        if let Goal::Until(height) = self.goal {
            to = to.min(height);
        }
        if to <= parent.height || reading.hash(parent.height).await? != Some(parent.hash) {
            return Ok(None);
        }
        let heights = parent.height.next()..=to;
        let context = Context::new(self.pipeline, Arc::new(reading), self.tables, self.cache, self.habit);
        batch::evaluate(&context, heights, self.window).await.map(Some)
    }
}
