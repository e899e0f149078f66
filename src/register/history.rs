//! The blocks of the branch that is followed, and the rollbacks that there were.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient};

use super::{RegisterError, Registered};
use crate::block::{BlockHash, BlockRef, Height, StateRoot};
use crate::db::DbError;

/// The hash under which a height was committed on the branch that is followed.
pub async fn committed_hash(
    client: &impl GenericClient,
    pipeline: i32,
    height: Height,
) -> Result<Option<BlockHash>, RegisterError> {
    let row = client
        .query_opt(
            "-- register::history::committed_hash\n\
             select hash from debshrew.block where pipeline_id operator(pg_catalog.=) $1 and height operator(pg_catalog.=) $2",
            &[&pipeline, &height.to_sql()],
        )
        .await
        .map_err(DbError::statement("read the block log"))?;
    Ok(row.and_then(|row| BlockHash::from_slice(row.get(0))))
}

/// The block at a height that is committed for certain.
pub async fn committed_block(
    client: &impl GenericClient,
    pipeline: i32,
    height: Height,
) -> Result<BlockRef, RegisterError> {
    let hash = committed_hash(client, pipeline, height).await?;
    let hash = hash.ok_or(RegisterError::Damaged("a committed block is missing in the block log"))?;
    Ok(BlockRef { height, hash })
}

/// The state roots that were recorded with the blocks at these heights, where there are any, the highest first. None are in
/// a database that was set up by an earlier version and not migrated yet.
pub async fn recorded_roots(
    client: &impl GenericClient,
    pipeline: i32,
    heights: &[Height],
) -> Result<Vec<(BlockRef, StateRoot)>, RegisterError> {
    let wanted: Vec<i32> = heights.iter().map(|height| height.to_sql()).collect();
    let rows = client
        .query(
            "-- register::history::recorded_roots\n\
             select height, hash, state_root from debshrew.block \
              where pipeline_id operator(pg_catalog.=) $1 and height operator(pg_catalog.=) any ($2) \
                and state_root is not null \
              order by height using operator(pg_catalog.>)",
            &[&pipeline, &wanted],
        )
        .await;
    let rows = match rows {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => return Ok(Vec::new()),
        other => other.map_err(DbError::statement("read the block log"))?,
    };
    let read = |row: &tokio_postgres::Row| {
        let height = Height::from_sql(row.get(0))?;
        let hash = BlockHash::from_slice(row.get(1))?;
        Some((BlockRef { height, hash }, StateRoot::from_slice(row.get(2))?))
    };
    let damaged = RegisterError::Damaged("a block's height, hash or state root is none");
    rows.iter().map(read).collect::<Option<_>>().ok_or(damaged)
}

/// Why blocks are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The source follows another branch.
    Reorg,
    /// Somebody asked for it.
    Operator,
}

impl Cause {
    fn sql(self) -> &'static str {
        match self {
            Cause::Reorg => "reorg",
            Cause::Operator => "operator",
        }
    }
}

/// What a rollback did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledBack {
    pub from: BlockRef,
    /// The checkpoint now; `None` is before the first block.
    pub to: Option<BlockRef>,
    /// How many blocks were undone.
    pub depth: u32,
    /// How many rows were put back or removed, the state's included.
    pub rows: u64,
}

/// Notes that a rollback has begun, inside the caller's transaction, before the blocks are taken out of the log. Returns its
/// number.
pub async fn begin_rollback(
    client: &Client,
    pipeline: &Registered,
    (from, to): (BlockRef, Option<BlockRef>),
    depth: u32,
    cause: Cause,
) -> Result<i64, RegisterError> {
    let hash = |block: BlockRef| block.hash.as_bytes().to_vec();
    let row = client
        .query_one(
            "-- register::history::begin_rollback\n\
             insert into debshrew.reorg \
               (pipeline_id, from_height, from_hash, to_height, to_hash, depth, rows_restored, cause) \
             values ($1, $2, $3, $4, $5, $6, 0, $7) returning reorg_id",
            &[
                &pipeline.id,
                &from.height.to_sql(),
                &hash(from),
                &to.map(|to| to.height.to_sql()),
                &to.map(hash),
                &i32::try_from(depth).unwrap_or(i32::MAX),
                &cause.sql(),
            ],
        )
        .await
        .map_err(DbError::statement("record the rollback"))?;
    Ok(row.get(0))
}

/// Takes the blocks that were undone out of the log, and notes how many rows that took, inside the caller's transaction.
pub async fn end_rollback(
    client: &Client,
    pipeline: &Registered,
    reorg: i64,
    done: &RolledBack,
) -> Result<(), RegisterError> {
    // Height 0 may be undone too.
    let above = done.to.map_or(-1, |to| to.height.to_sql());
    client
        .execute(
            "-- register::history::forget_blocks\n\
             delete from debshrew.block where pipeline_id operator(pg_catalog.=) $1 and height operator(pg_catalog.>) $2",
            &[&pipeline.id, &above],
        )
        .await
        .map_err(DbError::statement("take blocks out of the block log"))?;
    client
        .execute(
            "-- register::history::end_rollback\n\
             update debshrew.reorg set rows_restored = $2 where reorg_id operator(pg_catalog.=) $1",
            &[&reorg, &i64::try_from(done.rows).unwrap_or(i64::MAX)],
        )
        .await
        .map_err(DbError::statement("record the rollback"))?;
    Ok(())
}
