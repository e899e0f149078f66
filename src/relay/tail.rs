//! Follows a pipeline and leaves no trace in the database: what it needs to take blocks back it remembers.

use std::collections::VecDeque;

use tokio_util::sync::CancellationToken;

use super::error::RelayError;
use super::pattern::Patterns;
use super::reader::{Next, Reader};
use super::sink::Sink;
use super::step::Step;
use super::stream::POLL;
use crate::block::{BlockRef, Height};
use crate::db::Db;
use crate::register::{Cursor, LoggedReorg, Registered};
use crate::undo::Event;

/// At most so many blocks, and about so many bytes of events, are remembered.
const MAX_BLOCKS: usize = 1_000;
const MAX_BYTES: usize = 64 << 20;

/// A look at a pipeline's stream.
pub struct Tail {
    reader: Reader,
    cursor: Cursor,
    shown: VecDeque<(BlockRef, Vec<Event>)>,
    bytes: usize,
}

impl Tail {
    /// Begins with the next block, or with this one.
    pub async fn open(
        db: &Db,
        pipeline: Registered,
        tables: &[String],
        from: Option<Height>,
    ) -> Result<Tail, RelayError> {
        let start = pipeline.start_height;
        let mut reader = Reader::new(db, pipeline, Patterns::new(tables)).await?;
        reader.begin().await?;
        let (mut cursor, _) = reader.stands_at(0).await?;
        if let Some(from) = from {
            let before = from.max(start).previous().filter(|before| *before >= start);
            let next = cursor.block.map_or(start, |block| block.height.next());
            cursor.block = match before {
                Some(_) if from > next => {
                    return Err(RelayError::NotCommitted { height: from, next });
                }
                Some(before) => Some(reader.committed(before).await?),
                None => None,
            };
        }
        reader.end().await?;
        Ok(Tail { reader, cursor, shown: VecDeque::new(), bytes: 0 })
    }

    /// Shows blocks as they are committed and rolled back; ends when it is told to, or, if it is not to follow, with the last
    /// block.
    pub async fn run(
        &mut self,
        sink: &mut dyn Sink,
        follow: bool,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        sink.open().await?;
        loop {
            let Some(looked) = stop.run_until_cancelled(self.reader.next(self.cursor, 0)).await else {
                return Ok(());
            };
            match looked? {
                (Next::Nothing, _) if !follow => return Ok(()),
                (Next::Nothing, _) => {
                    if stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_none() {
                        return Ok(());
                    }
                }
                (Next::Blocks(blocks), written_to) => {
                    self.reader.on_disk(&written_to).await?;
                    for (logged, events) in blocks {
                        let step = Step::apply(logged, events, self.cursor);
                        sink.publish(&step).await?;
                        self.remember(logged.block, step.events);
                        self.cursor = step.cursor;
                    }
                }
                (Next::Reorg(reorg), written_to) => {
                    self.reader.on_disk(&written_to).await?;
                    self.retract(sink, &reorg).await?;
                }
            }
            sink.flush().await?;
        }
    }

    fn remember(&mut self, block: BlockRef, events: Vec<Event>) {
        self.bytes += events.iter().map(Event::bytes).sum::<usize>();
        self.shown.push_back((block, events));
        while self.shown.len() > MAX_BLOCKS || (self.bytes > MAX_BYTES && self.shown.len() > 1) {
            let Some((_, events)) = self.shown.pop_front() else { break };
            self.bytes -= events.iter().map(Event::bytes).sum::<usize>();
        }
    }

    async fn retract(&mut self, sink: &mut dyn Sink, reorg: &LoggedReorg) -> Result<(), RelayError> {
        let fork = reorg.to.map(|to| to.height);
        while let Some((block, events)) = self.shown.pop_back_if(|(block, _)| Some(block.height) > fork) {
            self.bytes -= events.iter().map(Event::bytes).sum::<usize>();
            let previous = self.shown.back().map(|(block, _)| *block).or(reorg.to);
            let cursor = Cursor { block: previous, ..self.cursor };
            sink.publish(&Step::retract(reorg, block, events, cursor)).await?;
            self.cursor = cursor;
        }
        if let Some(block) = self.cursor.block.filter(|block| Some(block.height) > fork) {
            let fork_height = fork.map(Height::get);
            tracing::warn!(
                height = block.height.get(),
                fork_height,
                "blocks were rolled back that are not remembered"
            );
            self.cursor.block = reorg.to;
        }
        self.cursor.reorg = reorg.id;
        Ok(())
    }
}
