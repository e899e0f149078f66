//! What a sink is given: one block's events at a time, and where the stream stands after them.

use std::sync::Arc;
use std::time::SystemTime;

use crate::block::{BlockRef, Height};
use crate::register::{Cursor, LoggedBlock, LoggedReorg};
use crate::undo::{Event, EventTable};

/// One transaction of a sink: a block applied, a block retracted, or a part of a snapshot.
#[derive(Clone, Debug)]
pub struct Step {
    pub kind: StepKind,
    /// In the order in which a consumer is to take them. A snapshot's have no `before`.
    pub events: Vec<Event>,
    /// Where the stream stands once this is published.
    pub cursor: Cursor,
    /// When the block was committed, or rolled back, or the snapshot taken.
    pub at: SystemTime,
}

#[derive(Clone, Debug)]
pub enum StepKind {
    /// The block on top of `previous`.
    Apply { block: BlockRef, previous: Option<BlockRef> },
    /// The block taken back, down to `previous`; the events undo it. `fork`: the highest block that stays, which is
    /// `previous` for the last block to be taken back.
    Retract { block: BlockRef, previous: Option<BlockRef>, fork: Option<BlockRef>, reorg: i64 },
    /// Rows as they are at `block`; the cursor counts once `last` is published.
    Snapshot {
        block: Option<BlockRef>,
        /// From 0 on.
        part: u32,
        last: bool,
        /// What consumers hold of these tables is void: earlier events are not continued. Only in part 0, and then not for the first
        /// snapshot of a stream.
        void: Vec<Arc<EventTable>>,
    },
}

impl Step {
    /// The next block of a stream that stands at `from`.
    pub(super) fn apply(logged: LoggedBlock, events: Vec<Event>, from: Cursor) -> Step {
        let kind = StepKind::Apply { block: logged.block, previous: from.block };
        Step { kind, events, cursor: Cursor { block: Some(logged.block), ..from }, at: logged.at }
    }

    /// The way back from a block, down to where the stream then stands. `events`: what the block did.
    pub(super) fn retract(reorg: &LoggedReorg, block: BlockRef, events: Vec<Event>, cursor: Cursor) -> Step {
        let kind = StepKind::Retract { block, previous: cursor.block, fork: reorg.to, reorg: reorg.id };
        let events = events.into_iter().rev().map(Event::inverted).collect();
        Step { kind, events, cursor, at: reorg.at }
    }

    /// Names the step, the same whenever it is published again: what consumers tell repetitions by.
    pub fn id(&self) -> String {
        let height = |block: &Option<BlockRef>| block.map_or(-1, |block| i64::from(block.height.get()));
        let id = match &self.kind {
            StepKind::Apply { block, .. } => format!("{}-apply-{}", self.cursor.reorg, block.height.get()),
            StepKind::Retract { block, reorg, .. } => format!("{reorg}-retract-{}", block.height.get()),
            // Another one at the same block may have its rows in another order, and other parts: none of them is a repetition.
            StepKind::Snapshot { block, part, .. } => {
                let taken = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
                format!("{}-snapshot-{}-{taken}-{part}", self.cursor.reorg, height(block))
            }
        };
        match self.cursor.generation {
            0 => id,
            // A stream that begins again may have the same steps.
            again => format!("again{again}-{id}"),
        }
    }

    /// The block that it is about; `None` only for a snapshot before the first block.
    pub fn block(&self) -> Option<BlockRef> {
        match &self.kind {
            StepKind::Apply { block, .. } | StepKind::Retract { block, .. } => Some(*block),
            StepKind::Snapshot { block, .. } => *block,
        }
    }

    pub fn height(&self) -> Option<Height> {
        self.block().map(|block| block.height)
    }

    /// The rollback that it undoes a block of; otherwise the last one before it, 0 if there was none.
    pub fn reorg(&self) -> i64 {
        match &self.kind {
            StepKind::Retract { reorg, .. } => *reorg,
            StepKind::Apply { .. } | StepKind::Snapshot { .. } => self.cursor.reorg,
        }
    }

    /// `apply`, `retract` or `snapshot`.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            StepKind::Apply { .. } => "apply",
            StepKind::Retract { .. } => "retract",
            StepKind::Snapshot { .. } => "snapshot",
        }
    }

    /// As messages call it.
    pub fn title(&self) -> String {
        let block = self.block().map_or_else(|| "nothing".to_owned(), |block| format!("block {block}"));
        match &self.kind {
            StepKind::Apply { .. } => block,
            StepKind::Retract { .. } => format!("the retraction of {block}"),
            StepKind::Snapshot { part, .. } => format!("part {part} of the snapshot of {block}"),
        }
    }

    /// Whether the cursor counts once this is published: the parts of a snapshot before the last leave it where it was.
    pub fn completes(&self) -> bool {
        !matches!(&self.kind, StepKind::Snapshot { last: false, .. })
    }
}
