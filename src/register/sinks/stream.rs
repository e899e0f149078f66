//! What lies between a stream and the checkpoint: the rollbacks that it has not taken part in, and blocks.

use std::time::SystemTime;

use tokio_postgres::{GenericClient, Row};

use super::{Cursor, block};
use crate::block::{BlockRef, Height};
use crate::db::DbError;
use crate::register::{Checkpoint, RegisterError, checkpoint};

/// All of it, in one snapshot of the database.
#[derive(Clone, Debug)]
pub struct Ahead {
    pub checkpoint: Checkpoint,
    /// The block at the cursor's height on the chain that is committed now.
    pub at_cursor: Option<BlockRef>,
    /// The first rollback that the stream has not taken part in.
    pub reorg: Option<LoggedReorg>,
    /// The blocks above the cursor, the lowest first; the first of them only. None while there is a rollback.
    pub blocks: Vec<LoggedBlock>,
    /// Nothing of this snapshot is lost in a crash once PostgreSQL's log is on disk up to here.
    pub written_to: String,
}

#[derive(Clone, Copy, Debug)]
pub struct LoggedBlock {
    pub block: BlockRef,
    /// How many rows it changed.
    pub changes: u64,
    pub journaled: bool,
    pub at: SystemTime,
}

#[derive(Clone, Copy, Debug)]
pub struct LoggedReorg {
    pub id: i64,
    /// `None`: everything was rolled back.
    pub to: Option<BlockRef>,
    pub at: SystemTime,
}

/// At most so many blocks are looked at.
const MOST_BLOCKS: i64 = 10_000;

/// Looks from a cursor towards the checkpoint, inside the caller's transaction.
pub async fn ahead(
    client: &impl GenericClient,
    pipeline: i32,
    start: Height,
    cursor: Cursor,
) -> Result<Ahead, RegisterError> {
    let failed = || DbError::statement("look what is to be published");
    let checkpoint = checkpoint(client, pipeline).await?;
    let written_to = written_to(client).await?;
    let row = client
        .query_opt(
            "-- register::sinks::reorg\n\
             select reorg_id, to_height, to_hash, happened_at from debshrew.reorg \
              where pipeline_id = $1 and reorg_id > $2 order by reorg_id limit 1",
            &[&pipeline, &cursor.reorg],
        )
        .await
        .map_err(failed())?;
    let reorg = row.as_ref().map(reorg).transpose()?;
    // From the block at the cursor on.
    let from = cursor.block.map_or(start.to_sql(), |block| block.height.to_sql());
    let rows = client
        .query(
            "-- register::sinks::blocks\n\
             select height, hash, changes, journaled, committed_at from debshrew.block \
              where pipeline_id = $1 and height >= $2 order by height limit $3",
            &[&pipeline, &from, &if reorg.is_some() { 1 } else { MOST_BLOCKS }],
        )
        .await
        .map_err(failed())?;
    let mut blocks = rows.iter().map(logged).collect::<Result<Vec<_>, _>>()?;
    let mut at_cursor = None;
    if cursor.block.is_some() && blocks.first().is_some_and(|first| first.block.height.to_sql() == from) {
        at_cursor = Some(blocks.remove(0).block);
    }
    if reorg.is_some() {
        blocks.clear();
    }
    Ok(Ahead { checkpoint, at_cursor, reorg, blocks, written_to })
}

/// Up to where PostgreSQL's log is written.
pub async fn written_to(client: &impl GenericClient) -> Result<String, RegisterError> {
    let row = client
        .query_one("-- register::sinks::written_to\nselect pg_current_wal_insert_lsn()::text", &[])
        .await
        .map_err(DbError::statement("see how far PostgreSQL's log is"))?;
    Ok(row.get(0))
}

/// The pipeline's last rollback; 0 before the first.
pub async fn last_reorg(client: &impl GenericClient, pipeline: i32) -> Result<i64, RegisterError> {
    let row = client
        .query_one(
            "-- register::sinks::last_reorg\n\
             select coalesce(max(reorg_id), 0) from debshrew.reorg where pipeline_id = $1",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("look for rollbacks"))?;
    Ok(row.get(0))
}

/// Whether PostgreSQL's log is on disk up to there. Where it ends with a page, the place to write to next lies behind the
/// header of a page that is not there yet, and nothing in front of that is missing.
/// Source: PostgreSQL, `xlog_internal.h`: a page's header has 24 bytes, and 40 where a segment begins.
pub async fn is_on_disk(client: &impl GenericClient, written_to: &str) -> Result<bool, RegisterError> {
    let row = client
        .query_one(
            "-- register::sinks::is_on_disk\n\
             select pg_current_wal_flush_lsn() - '0/0' >= place - case \
                      when mod(place, current_setting('wal_block_size')::numeric) = 24 then 24 \
                      when mod(place, pg_size_bytes(current_setting('wal_segment_size'))) = 40 then 40 else 0 end \
               from (select $1::text::pg_lsn - '0/0' as place) at",
            &[&written_to],
        )
        .await
        .map_err(DbError::statement("see what is on disk"))?;
    Ok(row.get(0))
}

fn logged(row: &Row) -> Result<LoggedBlock, RegisterError> {
    let block = block(row, "height", "hash")?.ok_or(RegisterError::Damaged("a block has no height"))?;
    let changes: i32 = row.get("changes");
    let changes = u64::try_from(changes).unwrap_or_default();
    Ok(LoggedBlock { block, changes, journaled: row.get("journaled"), at: row.get("committed_at") })
}

fn reorg(row: &Row) -> Result<LoggedReorg, RegisterError> {
    let to = block(row, "to_height", "to_hash")?;
    Ok(LoggedReorg { id: row.get("reorg_id"), to, at: row.get("happened_at") })
}
