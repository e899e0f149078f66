//! A stream under way: reads what is next, publishes it step by step, and moves the cursor behind.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::breaker::Breaker;
use super::deadline::within;
use super::error::RelayError;
use super::pattern::Patterns;
use super::reader::{Next, Reader};
use super::setup::{Relay, Until};
use super::sink::{Position, Sink};
use super::snapshot::Snapshot;
use super::step::Step;
use crate::block::{BlockRef, Height};
use crate::config::Beginning;
use crate::failure::crash_point;
use crate::register::{
    Attach, Attached, Cursor, LoggedBlock, LoggedReorg, SinkLease, SinkRecord, Stage, Standing,
};
use crate::undo::Event;

/// How often it is looked for something new when nobody wakes it.
pub(super) const POLL: Duration = Duration::from_millis(250);

/// How often it is looked at most.
const LOOK: Duration = Duration::from_millis(50);

/// So many blocks are declared as about to be published at once.
const RESERVED: u32 = 64;

/// So many steps, and about so many events, are taken before they are flushed.
const MAX_STEPS: usize = 64;
const MAX_EVENTS: usize = 10_000;

/// Why a stream ended without anything wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything that is committed is published, and that was the goal.
    Finished,
    /// Somebody paused the sink, or let it begin again.
    Told,
}

/// An open sink, and where its stream stands.
pub(super) struct Stream<'a> {
    relay: &'a Relay,
    lease: &'a SinkLease,
    sink: Box<dyn Sink>,
    reader: Reader,
    record: SinkRecord,
    /// Where the pipeline stood when there was nothing to do.
    idle_at: Option<Standing>,
    /// Steps that were taken since the last flush, how many events they had, and since when.
    pending: usize,
    pending_events: u64,
    pending_since: Option<Instant>,
}

impl<'a> Stream<'a> {
    pub(super) async fn open(
        relay: &'a Relay,
        lease: &'a SinkLease,
        record: SinkRecord,
    ) -> Result<Stream<'a>, RelayError> {
        let wanted = Patterns::new(&relay.settings.tables);
        let reader = Reader::new(&relay.db, lease.pipeline().clone(), wanted).await?;
        let mut sink = (relay.make)()?;
        let position = within("opening the sink", sink.open()).await?;
        let mut stream = Stream {
            relay,
            lease,
            sink,
            reader,
            record,
            idle_at: None,
            pending: 0,
            pending_events: 0,
            pending_since: None,
        };
        stream.take_position(position).await?;
        Ok(stream)
    }

    /// A sink that keeps its position knows it best.
    async fn take_position(&mut self, position: Position) -> Result<(), RelayError> {
        let SinkRecord { stage, cursor, reserved, .. } = self.record;
        let at = match position {
            Position::NotKept => return Ok(()),
            Position::Empty => None,
            // What an earlier stream left does not count for this one.
            Position::At(at) => Some(at).filter(|at| at.generation >= cursor.generation),
        };
        let name = |block: Option<BlockRef>| {
            block.map_or("before the first block".to_owned(), |at| format!("block {at}"))
        };
        match (stage, at) {
            (Stage::New, Some(at)) if self.record.resync => {
                // An earlier sink of this name left it, which may have begun more often than this one.
                self.record.cursor.generation = at.generation.saturating_add(1);
                Ok(self.lease.outlive(at.generation).await?)
            }
            (Stage::New, Some(at)) => Err(RelayError::Occupied { at: name(at.block) }),
            (Stage::Streaming, Some(at)) if at != cursor => {
                let is_known = at.generation == cursor.generation;
                let is_reserved = at.block.map(|block| block.height)
                    <= reserved.max(cursor.block.map(|block| block.height));
                if !is_known || !is_reserved {
                    return Err(RelayError::Occupied { at: name(at.block) });
                }
                tracing::info!(
                    height = at.block.map(|block| block.height.get()),
                    "resuming where the sink says that it stands"
                );
                self.lease.advance(at, Some(0)).await?;
                self.record.cursor = at;
                Ok(())
            }
            (Stage::Streaming, None) if self.record.published => {
                Err(RelayError::Vanished { at: name(cursor.block) })
            }
            _ => Ok(()),
        }
    }

    /// Publishes until there is nothing more to do here.
    pub(super) async fn follow(&mut self, until: &Until, breaker: &mut Breaker) -> Result<Ended, RelayError> {
        let mut wake = self.relay.wake.clone();
        loop {
            if until.stop.is_cancelled() {
                return Ok(Ended::Finished);
            }
            wake.mark_unchanged();
            let looked = Instant::now();
            let record = self.lease.record().await?;
            if is_told(&record) {
                return Ok(Ended::Told);
            }
            let finishing = until.finish.is_cancelled();
            let is_done = match self.record.stage {
                _ if self.idle_at == Some(record.standing) => true,
                Stage::Streaming => self.turn(&until.stop).await?,
                _ => self.begin().await?,
            };
            self.idle_at = is_done.then_some(record.standing);
            if breaker.succeeded() > 0 || record.problem.is_some() {
                self.lease.tell(None, false).await?;
                tracing::info!("publishing again");
            }
            match is_done {
                false => {}
                true if finishing => return Ok(Ended::Finished),
                true => {
                    tokio::select! {
                        changed = wake.changed() => if changed.is_err() { tokio::time::sleep(POLL).await },
                        () = until.finish.cancelled() => {}
                        () = until.stop.cancelled() => {}
                        () = tokio::time::sleep(POLL) => {}
                    }
                }
            }
            if !finishing {
                // While blocks come fast, many are taken together.
                tokio::time::sleep_until((looked + LOOK).into()).await;
            }
        }
    }

    /// Begins the stream, if it has not begun. Returns whether there is nothing more to do for now.
    async fn begin(&mut self) -> Result<bool, RelayError> {
        let attach = match (self.record.stage, self.relay.settings.from) {
            (Stage::Streaming | Stage::Lost, _) => return Ok(false),
            (Stage::Snapshot, _) | (_, Beginning::Snapshot) => Attach::Snapshot,
            _ if self.record.resync => Attach::Snapshot,
            (Stage::New, Beginning::Now) => Attach::Now,
            (Stage::New, Beginning::Height(height)) => Attach::From(height),
        };
        let again = self.record.stage == Stage::Snapshot || self.record.cursor.generation > 0;
        match self.lease.attach(attach).await? {
            Attached::NotYet => return Ok(true),
            Attached::TooLate { first } => {
                let wanted = match attach {
                    Attach::From(height) => height.to_string(),
                    Attach::Snapshot | Attach::Now => String::new(),
                };
                return Err(RelayError::TooLate { wanted, first: first.to_string() });
            }
            Attached::At(_) => {}
        }
        self.record = self.lease.record().await?;
        if self.record.stage == Stage::Snapshot {
            let snapshot = Snapshot {
                lease: self.lease,
                reader: &mut self.reader,
                sink: &mut *self.sink,
                metrics: &self.relay.metrics,
                again,
            };
            if !snapshot.publish(self.record.cursor.generation).await? {
                return Ok(false);
            }
            self.record = self.lease.record().await?;
        }
        let height = self.record.cursor.block.map(|block| block.height.get());
        tracing::info!(height, "the stream has begun");
        Ok(false)
    }

    /// Publishes what is next. Returns whether that was everything.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<bool, RelayError> {
        let cursor = self.record.cursor;
        let next = self.reader.next(cursor, self.relay.settings.confirmations).await?;
        if !matches!(next, (Next::Nothing, _)) && is_told(&self.lease.record().await?) {
            // A migration may have ended in between, and left no way from what was published to what was read.
            return Ok(false);
        }
        match next {
            (Next::Nothing, _) => Ok(true),
            (Next::Blocks(blocks), written_to) => {
                self.reader.on_disk(&written_to).await?;
                self.apply(blocks, stop).await?;
                Ok(false)
            }
            (Next::Reorg(reorg), written_to) => {
                self.reader.on_disk(&written_to).await?;
                self.retract(&reorg).await?;
                Ok(false)
            }
        }
    }

    async fn apply(
        &mut self,
        blocks: Vec<(LoggedBlock, Vec<Event>)>,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        for (logged, events) in blocks.into_iter().take_while(|_| !stop.is_cancelled()) {
            if !self.reserve(logged.block.height).await? {
                // It may be rolled back by now.
                break;
            }
            if !self.publish(Step::apply(logged, events, self.record.cursor)).await? {
                break;
            }
        }
        self.flush().await?;
        Ok(())
    }

    /// Takes back what a rollback undid, the highest block first.
    async fn retract(&mut self, reorg: &LoggedReorg) -> Result<(), RelayError> {
        let fork = reorg.to.map(|to| to.height);
        while let Some(block) = self.record.cursor.block.filter(|block| Some(block.height) > fork) {
            let (events, previous) = self.reader.retracted(reorg, block).await?;
            let is_last = previous.map(|block| block.height) <= fork;
            let past = if is_last { reorg.id } else { self.record.cursor.reorg };
            let cursor = Cursor { block: previous, reorg: past, ..self.record.cursor };
            self.publish(Step::retract(reorg, block, events, cursor)).await?;
        }
        self.flush().await?;
        if self.record.cursor.reorg < reorg.id {
            // Nothing of it had been published.
            self.record.cursor.reorg = reorg.id;
            self.lease.advance(self.record.cursor, None).await?;
        }
        Ok(())
    }

    /// Declares that a block is about to be published; says whether it is still committed as far as is known.
    async fn reserve(&mut self, height: Height) -> Result<bool, RelayError> {
        if self.record.reserved >= Some(height) {
            return Ok(true);
        }
        let up_to = height.saturating_add(RESERVED - 1);
        self.lease.reserve(up_to).await?;
        self.record.reserved = Some(up_to);
        Ok(self.lease.last_reorg().await? == self.record.cursor.reorg)
    }

    /// Publishes a step. Returns whether there was no rollback, as far as is known.
    async fn publish(&mut self, step: Step) -> Result<bool, RelayError> {
        crash_point("relay-before-publish");
        self.pending_since.get_or_insert_with(Instant::now);
        within("publishing", self.sink.publish(&step)).await?;
        crash_point("relay-after-publish");
        self.relay.metrics.took(step.name(), step.events.len() as u64);
        self.record.cursor = step.cursor;
        self.pending += 1;
        self.pending_events += step.events.len() as u64;
        let most = self.sink.steps_at_once().min(MAX_STEPS);
        if self.pending >= most || self.pending_events >= MAX_EVENTS as u64 {
            return self.flush().await;
        }
        Ok(true)
    }

    /// Moves the cursor over the steps that were taken, once they are safe. Returns whether there was no rollback.
    async fn flush(&mut self) -> Result<bool, RelayError> {
        if self.pending == 0 {
            return Ok(true);
        }
        within("publishing", self.sink.flush()).await?;
        crash_point("relay-before-cursor");
        let reorg = self.lease.advance(self.record.cursor, Some(self.pending_events)).await?;
        crash_point("relay-after-cursor");
        if let Some(since) = self.pending_since.take() {
            self.relay.metrics.published(since.elapsed());
        }
        (self.pending, self.pending_events) = (0, 0);
        Ok(reorg == self.record.cursor.reorg)
    }
}

/// Whether somebody said that it is not to go on.
fn is_told(record: &SinkRecord) -> bool {
    record.paused || record.halted || record.stage == Stage::Lost
}
