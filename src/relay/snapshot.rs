//! All rows as they are at one block, in parts, at the beginning of a stream.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::SimpleQueryMessage;

use super::deadline::within;
use super::error::RelayError;
use super::reader::Reader;
use super::sink::Sink;
use super::step::{Step, StepKind};
use crate::db::DbError;
use crate::observe::SinkMetrics;
use crate::register::{Cursor, SinkLease, Stage};
use crate::table::{Target, join};
use crate::undo::{Event, EventTable, Row};

/// So many rows, and about so many bytes, are published at once: what sinks take as one message, by default.
const PART_ROWS: usize = 2_000;
const PART_BYTES: usize = 256 << 10;

/// So many rows of a table are read first; then as many as a part holds of rows like these.
const FIRST_ROWS: usize = 64;

pub(super) struct Snapshot<'a> {
    pub(super) lease: &'a SinkLease,
    pub(super) reader: &'a mut Reader,
    pub(super) sink: &'a mut dyn Sink,
    pub(super) metrics: &'a SinkMetrics,
    /// Consumers may hold rows of an earlier stream, or of a snapshot that was given up.
    pub(super) again: bool,
}

impl Snapshot<'_> {
    /// Publishes all rows, and moves the cursor to the block at which they were read. Returns whether it came to that: not if
    /// the sink was paused or lost meanwhile.
    pub(super) async fn publish(mut self, generation: i32) -> Result<bool, RelayError> {
        let cursor = loop {
            self.reader.begin().await?;
            let (cursor, written_to) = self.reader.stands_at(generation).await?;
            if let Some(block) = cursor.block {
                self.lease.reserve(block.height).await?;
            }
            if self.lease.last_reorg().await? == cursor.reorg {
                // It ends the cursor's way here: a rollback from now on is the stream's to take part in.
                self.lease.advance(cursor, None).await?;
                self.reader.on_disk(&written_to).await?;
                break cursor;
            }
            self.reader.end().await?;
        };
        let tables = self.reader.snapshot_tables();
        let rows = self.rows(&tables, cursor).await?;
        self.reader.end().await?;
        let Some(rows) = rows else { return Ok(false) };
        within("publishing a snapshot", self.sink.flush()).await?;
        self.lease.advance(cursor, Some(rows)).await?;
        self.lease.snapshot_done().await?;
        Ok(true)
    }

    /// Publishes the rows; returns how many, if it came to the last one.
    async fn rows(&mut self, tables: &[Target], cursor: Cursor) -> Result<Option<u64>, RelayError> {
        let described: Vec<Arc<EventTable>> =
            tables.iter().map(|target| Arc::new(EventTable::new(target))).collect();
        let void = if self.again { described.clone() } else { Vec::new() };
        let mut parts = Parts {
            lease: self.lease,
            metrics: self.metrics,
            sink: &mut *self.sink,
            cursor,
            at: SystemTime::now(),
            part: 0,
            void,
            held: Vec::new(),
            next: Vec::new(),
            bytes: 0,
            rows: 0,
        };
        for (target, table) in tables.iter().zip(&described) {
            let client = self.reader.client();
            let failed = || DbError::statement(format!("read the rows of `{}`", target.table.name));
            let columns =
                join(target.table.stored().map(|column| {
                    format!("{}::{}", target.name(column), target.table.column(column).type_sql)
                }));
            let declare = format!(
                "-- relay::snapshot\ndeclare rows no scroll cursor for select {columns} from {}",
                target.table.sql()
            );
            client.batch_execute(&declare).await.map_err(failed())?;
            let mut count = FIRST_ROWS;
            loop {
                let fetch = format!("fetch {count} from rows");
                let found = client.simple_query(&fetch).await.map_err(failed())?;
                let rows: Vec<Event> = found.iter().filter_map(|message| event(table, message)).collect();
                let Some(bytes) = rows.iter().map(Event::bytes).sum::<usize>().checked_div(rows.len()) else {
                    break;
                };
                count = (PART_BYTES / bytes.max(1)).clamp(1, PART_ROWS);
                for row in rows {
                    if !parts.add(row).await? {
                        return Ok(None);
                    }
                }
            }
            client.batch_execute("close rows").await.map_err(failed())?;
        }
        parts.end().await
    }
}

fn event(table: &Arc<EventTable>, message: &SimpleQueryMessage) -> Option<Event> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    let values = Row::new((0..row.len()).map(|column| row.get(column)));
    Some(Event { table: Arc::clone(table), before: None, after: Some(values) })
}

/// Publishes parts; one is held back, since the last of them says that it is.
struct Parts<'a> {
    lease: &'a SinkLease,
    metrics: &'a SinkMetrics,
    sink: &'a mut dyn Sink,
    cursor: Cursor,
    at: SystemTime,
    part: u32,
    void: Vec<Arc<EventTable>>,
    held: Vec<Event>,
    /// What follows it, as far as it was read, and how large that is.
    next: Vec<Event>,
    bytes: usize,
    rows: u64,
}

impl Parts<'_> {
    /// Takes a row. Returns whether to go on.
    async fn add(&mut self, row: Event) -> Result<bool, RelayError> {
        self.rows += 1;
        let bytes = row.bytes();
        let is_full = self.next.len() == PART_ROWS || self.bytes.saturating_add(bytes) > PART_BYTES;
        let goes_on = self.next.is_empty() || !is_full || self.turn().await?;
        self.next.push(row);
        self.bytes += bytes;
        Ok(goes_on)
    }

    /// Publishes the part that is held, and holds the next one instead.
    async fn turn(&mut self) -> Result<bool, RelayError> {
        self.bytes = 0;
        let next = std::mem::take(&mut self.next);
        let before = std::mem::replace(&mut self.held, next);
        if before.is_empty() { Ok(true) } else { self.publish(before, false).await }
    }

    async fn end(mut self) -> Result<Option<u64>, RelayError> {
        if !self.turn().await? {
            return Ok(None);
        }
        let last = std::mem::take(&mut self.held);
        Ok(self.publish(last, true).await?.then_some(self.rows))
    }

    /// Returns whether it was still to be published: it may take hours until the last part is.
    async fn publish(&mut self, events: Vec<Event>, last: bool) -> Result<bool, RelayError> {
        let record = self.lease.record().await?;
        if record.paused || record.stage != Stage::Snapshot {
            return Ok(false);
        }
        let void = std::mem::take(&mut self.void);
        let kind = StepKind::Snapshot { block: self.cursor.block, part: self.part, last, void };
        self.part += 1;
        let step = Step { kind, events, cursor: self.cursor, at: self.at };
        within("publishing a snapshot", self.sink.publish(&step)).await?;
        self.metrics.took(step.name(), step.events.len() as u64);
        Ok(true)
    }
}
