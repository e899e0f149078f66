//! Reads what a stream is to publish next, in one snapshot of the database.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Client;

use super::error::RelayError;
use super::pattern::Patterns;
use crate::block::{BlockRef, Height};
use crate::db::{Db, DbError};
use crate::register::{self, Ahead, Checkpoint, Cursor, LoggedBlock, LoggedReorg, Registered};
use crate::schema;
use crate::table::{Role, Tables, journal_schema};
use crate::undo::{self, Event, Range};

/// About so many bytes of events are derived at once, and at most so many changes of blocks.
const MAX_BYTES: usize = 64 << 20;
const MAX_CHANGES: u64 = 250_000;

/// Of a session's first look, since each further look may take so many times as much: what is derived for a sink that cannot be
/// reached is derived again with every try.
const FIRST_CHANGES: u64 = 2_000;
const GROWTH: u64 = 8;

/// How often it is looked whether PostgreSQL's log is on disk.
const DISK_POLL: Duration = Duration::from_millis(10);

/// What lies next on a stream's way.
#[derive(Debug)]
pub(super) enum Next {
    /// The stream is where the checkpoint is, or as far below as it is to stay.
    Nothing,
    /// Blocks to apply, the lowest first.
    Blocks(Vec<(LoggedBlock, Vec<Event>)>),
    /// A rollback that the stream has not taken part in.
    Reorg(LoggedReorg),
}

/// A connection to read with, and the tables as they were at the last look.
pub(super) struct Reader {
    client: ClientWrapper,
    pipeline: Registered,
    wanted: Patterns,
    tables: Option<(String, Tables)>,
    /// At most so many changes of blocks are looked at next.
    limit: u64,
}

impl Reader {
    pub(super) async fn new(db: &Db, pipeline: Registered, wanted: Patterns) -> Result<Reader, RelayError> {
        Ok(Reader { client: db.dedicated().await?, pipeline, wanted, tables: None, limit: FIRST_CHANGES })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The tables that the stream is about, as of the last look.
    pub(super) fn tables(&self) -> Option<&Tables> {
        self.tables.as_ref().map(|(_, tables)| tables)
    }

    pub(super) fn wants(&self, table: &str) -> bool {
        self.wanted.match_(table)
    }

    /// Looks from a cursor towards the checkpoint; stays `confirmations` below that. Returns as well up to where
    /// PostgreSQL's log must be on disk before anything of it is published.
    pub(super) async fn next(
        &mut self,
        cursor: Cursor,
        confirmations: u32,
    ) -> Result<(Next, String), RelayError> {
        let next = async {
            self.begin().await?;
            self.next_in_transaction(cursor, confirmations).await
        }
        .await;
        self.limit = (self.limit * GROWTH).min(MAX_CHANGES);
        // Whatever went wrong, nothing was written.
        self.execute("rollback").await?;
        next
    }

    /// Begins to look at one state of the database, whose tables stay as they are meanwhile.
    pub(super) async fn begin(&mut self) -> Result<(), RelayError> {
        loop {
            self.execute("begin isolation level repeatable read, read only").await?;
            // Before the snapshot: a table that is being rewritten looks empty to one that is older.
            if self.lock().await? {
                let stamp = self.stamp().await?;
                if self.tables.as_ref().is_some_and(|(known, _)| *known == stamp) {
                    return Ok(());
                }
                let tables = schema::tables_in_step(&self.client, &self.pipeline).await?;
                self.tables = Some((stamp, tables));
            }
            // Once more, with these tables locked.
            self.end().await?;
        }
    }

    /// Locks the tables as they were at the last look; says whether they are still there.
    async fn lock(&mut self) -> Result<bool, RelayError> {
        let Some((_, tables)) = &self.tables else { return Ok(true) };
        let names = tables.of_rows().flat_map(|target| [target.table.sql(), target.journal.clone()]);
        let names: Vec<String> = names.collect();
        if names.is_empty() {
            return Ok(true);
        }
        let lock = format!("lock table {} in access share mode", names.join(", "));
        match self.client.batch_execute(&lock).await {
            Ok(()) => Ok(true),
            Err(error) if register::is_missing(&error) => {
                self.tables = None;
                Ok(false)
            }
            Err(error) => Err(DbError::statement("lock the tables that are read")(error).into()),
        }
    }

    /// Waits until what was read outlives a crash of PostgreSQL.
    pub(super) async fn on_disk(&self, written_to: &str) -> Result<(), RelayError> {
        while !register::is_on_disk(&*self.client, written_to).await? {
            tokio::time::sleep(DISK_POLL).await;
        }
        Ok(())
    }

    pub(super) async fn end(&self) -> Result<(), RelayError> {
        self.execute("rollback").await
    }

    /// Tells definitions of tables apart.
    async fn stamp(&self) -> Result<String, RelayError> {
        let schemas = [self.pipeline.schema.clone(), journal_schema(&self.pipeline.name)];
        let row = self
            .client
            .query_one(
                "-- relay::reader::stamp\n\
                 select coalesce(md5(string_agg(concat_ws(' ', a.attrelid, c.relname, a.attnum, a.attname, a.atttypid, a.atttypmod, \
                          a.attisdropped, a.attnotnull), ',' order by a.attrelid, a.attnum)), '') \
                   from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace \
                  where n.nspname = any ($1) and c.relkind in ('r', 'p', 'i')",
                &[&&schemas[..]],
            )
            .await
            .map_err(DbError::statement("see whether tables have changed"))?;
        Ok(row.get(0))
    }

    async fn next_in_transaction(
        &self,
        cursor: Cursor,
        confirmations: u32,
    ) -> Result<(Next, String), RelayError> {
        let start = self.pipeline.start_height;
        let ahead = register::ahead(&*self.client, self.pipeline.id, start, cursor).await?;
        let Ahead { checkpoint, at_cursor, reorg, blocks, written_to } = ahead;
        if let Some(reorg) = reorg {
            return Ok((Next::Reorg(reorg), written_to));
        }
        if at_cursor != cursor.block {
            let block = cursor.block.map_or("before the first".to_owned(), |block| block.to_string());
            return Err(RelayError::Orphaned { block });
        }
        refuse_lost(checkpoint, cursor)?;
        let highest = checkpoint.block.and_then(|block| block.height.get().checked_sub(confirmations));
        let blocks = picked(blocks, highest.and_then(Height::new), self.limit)?;
        let (Some(tables), Some(last)) = (self.tables(), blocks.last()) else {
            return Ok((Next::Nothing, written_to));
        };
        let range = Range {
            above: cursor.block.map_or(-1, |block| block.height.to_sql()),
            to: last.block.height,
            is_last: Some(last.block) == checkpoint.block,
            max_bytes: MAX_BYTES,
        };
        let mut derived = undo::derive(&self.client, tables, |table| self.wants(table), range).await?;
        let to = derived.to.unwrap_or(range.to);
        let blocks = blocks.into_iter().filter(|block| block.block.height <= to);
        let with_events = blocks.map(|block| {
            let events = derived.blocks.remove(&block.block.height).unwrap_or_default();
            (block, events)
        });
        Ok((Next::Blocks(with_events.collect()), written_to))
    }

    /// The block that is committed at a height, inside a transaction that has begun.
    pub(super) async fn committed(&self, height: Height) -> Result<BlockRef, RelayError> {
        Ok(register::committed_block(&*self.client, self.pipeline.id, height).await?)
    }

    /// The checkpoint and the last rollback, inside a transaction that has begun.
    pub(super) async fn stands_at(&self, generation: i32) -> Result<(Cursor, String), RelayError> {
        let checkpoint = register::checkpoint(&*self.client, self.pipeline.id).await?;
        let written_to = register::written_to(&*self.client).await?;
        let reorg = register::last_reorg(&*self.client, self.pipeline.id).await?;
        Ok((Cursor { block: checkpoint.block, reorg, generation }, written_to))
    }

    /// What a rollback took back: the block's events, and the block below it, as far as it was taken back as well.
    pub(super) async fn retracted(
        &self,
        reorg: &LoggedReorg,
        block: BlockRef,
    ) -> Result<(Vec<Event>, Option<BlockRef>), RelayError> {
        let parts = register::read_retracted(&*self.client, self.pipeline.id, reorg.id, block).await?;
        if parts.is_empty() {
            let what = format!("what block {block} did, which was rolled back");
            return Err(RelayError::Lost(what));
        }
        let mut events = undo::read_events(&parts).ok_or(RelayError::Unreadable)?;
        events.retain(|event| self.wants(&event.table.name));
        let below = block.height.previous().filter(|below| *below >= self.pipeline.start_height);
        let below = match below {
            Some(below) if reorg.to.is_none_or(|to| below > to.height) => {
                let found =
                    register::retracted_block(&*self.client, self.pipeline.id, reorg.id, below).await?;
                let missing = || RelayError::Lost(format!("what block {below} did, which was rolled back"));
                Some(found.ok_or_else(missing)?)
            }
            Some(_) => reorg.to,
            None => None,
        };
        Ok((events, below))
    }

    /// The tables of the stream, the referenced ones first: for a snapshot.
    pub(super) fn snapshot_tables(&self) -> Vec<crate::table::Target> {
        let Some(tables) = self.tables() else { return Vec::new() };
        let targets = tables.parents_first().flatten().map(|id| tables.get(*id));
        targets
            .filter(|target| target.role == Role::Rows && self.wants(&target.table.name))
            .cloned()
            .collect()
    }

    async fn execute(&self, sql: &str) -> Result<(), RelayError> {
        Ok(self
            .client
            .batch_execute(sql)
            .await
            .map_err(DbError::statement("look at one state of the database"))?)
    }
}

/// Refuses if images above the cursor may be gone.
fn refuse_lost(checkpoint: Checkpoint, cursor: Cursor) -> Result<(), RelayError> {
    let at = cursor.block.map(|block| block.height);
    match checkpoint.floor {
        Some(floor) if at < Some(floor) => {
            let what = format!("the journals begin above block {floor}");
            Err(RelayError::Lost(what))
        }
        _ => Ok(()),
    }
}

/// As many blocks as are read at once, up to a height.
fn picked(
    blocks: Vec<LoggedBlock>,
    highest: Option<Height>,
    limit: u64,
) -> Result<Vec<LoggedBlock>, RelayError> {
    let mut changes = 0;
    let mut picked = Vec::new();
    for block in blocks {
        changes += block.changes;
        if Some(block.block.height) > highest || (changes > limit && !picked.is_empty()) {
            break;
        }
        if !block.journaled {
            let what = format!("block {} was committed without a journal", block.block.height);
            return Err(RelayError::Lost(what));
        }
        picked.push(block);
    }
    Ok(picked)
}
