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
use crate::register::{Cursor, SinkLease};
use crate::table::{Target, join};
use crate::undo::{Event, EventTable, Row};

/// So many rows are read, and published, at once.
const PART_ROWS: usize = 2_000;

pub(super) struct Snapshot<'a> {
    pub(super) lease: &'a SinkLease,
    pub(super) reader: &'a mut Reader,
    pub(super) sink: &'a mut dyn Sink,
    /// Consumers may hold rows of an earlier stream, or of a snapshot that was given up.
    pub(super) again: bool,
}

impl Snapshot<'_> {
    /// Publishes all rows, and moves the cursor to the block at which they were read.
    pub(super) async fn publish(mut self, generation: i32) -> Result<(), RelayError> {
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
        within("publishing a snapshot", self.sink.flush()).await?;
        self.lease.advance(cursor, Some(rows)).await?;
        self.lease.snapshot_done().await?;
        Ok(())
    }

    /// Publishes the rows; returns how many.
    async fn rows(&mut self, tables: &[Target], cursor: Cursor) -> Result<u64, RelayError> {
        let described: Vec<Arc<EventTable>> =
            tables.iter().map(|target| Arc::new(EventTable::new(target))).collect();
        let void = if self.again { described.clone() } else { Vec::new() };
        let mut parts = Parts {
            sink: &mut *self.sink,
            cursor,
            at: SystemTime::now(),
            part: 0,
            void,
            held: Vec::new(),
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
            loop {
                let fetch = format!("fetch {PART_ROWS} from rows");
                let found = client.simple_query(&fetch).await.map_err(failed())?;
                let rows: Vec<Event> = found.iter().filter_map(|message| event(table, message)).collect();
                if rows.is_empty() {
                    break;
                }
                parts.add(rows).await?;
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
    sink: &'a mut dyn Sink,
    cursor: Cursor,
    at: SystemTime,
    part: u32,
    void: Vec<Arc<EventTable>>,
    held: Vec<Event>,
    rows: u64,
}

impl Parts<'_> {
    async fn add(&mut self, rows: Vec<Event>) -> Result<(), RelayError> {
        self.rows += rows.len() as u64;
        let before = std::mem::replace(&mut self.held, rows);
        if before.is_empty() { Ok(()) } else { self.publish(before, false).await }
    }

    async fn end(mut self) -> Result<u64, RelayError> {
        let last = std::mem::take(&mut self.held);
        self.publish(last, true).await?;
        Ok(self.rows)
    }

    async fn publish(&mut self, events: Vec<Event>, last: bool) -> Result<(), RelayError> {
        let void = std::mem::take(&mut self.void);
        let kind = StepKind::Snapshot { block: self.cursor.block, part: self.part, last, void };
        self.part += 1;
        let step = Step { kind, events, cursor: self.cursor, at: self.at };
        within("publishing a snapshot", self.sink.publish(&step)).await
    }
}
