//! The events of blocks that were rolled back, for the sinks that may have published them.

use tokio_postgres::{Client, GenericClient};

use crate::block::{BlockHash, BlockRef, Height};
use crate::db::DbError;
use crate::register::RegisterError;

/// A block's events, or a part of them.
#[derive(Clone, Debug)]
pub struct Retracted {
    pub block: BlockRef,
    /// From 0 on.
    pub part: i32,
    /// A JSON array a line.
    pub events: String,
}

/// The highest block that a sink may have published, inside the rollback's transaction: none publishes a further one
/// before that has ended. `None` if there is no sink, or none has published anything.
pub async fn lock_reserved(client: &Client, pipeline: i32) -> Result<Option<Height>, RegisterError> {
    let rows = client
        .query(
            "-- register::sinks::lock_reserved\n\
             select c.reserved from debshrew.sink s join debshrew.sink_cursor c on c.sink_id operator(pg_catalog.=) s.sink_id \
              where s.pipeline_id operator(pg_catalog.=) $1 and s.stage operator(pg_catalog.<>) 'lost' for update of c",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("see what sinks may have published"))?;
    let reserved = rows.iter().filter_map(|row| row.get::<_, Option<i32>>(0)).max();
    Ok(reserved.and_then(Height::from_sql))
}

/// Keeps a block's events, inside the rollback's transaction.
pub async fn write_retracted(
    client: &Client,
    pipeline: i32,
    reorg: i64,
    retracted: &Retracted,
) -> Result<(), RegisterError> {
    client
        .execute(
            "-- register::sinks::write_retracted\n\
             insert into debshrew.retracted (pipeline_id, reorg_id, height, part, hash, events) \
             values ($1, $2, $3, $4, $5, $6)",
            &[
                &pipeline,
                &reorg,
                &retracted.block.height.to_sql(),
                &retracted.part,
                &&retracted.block.hash.as_bytes()[..],
                &retracted.events,
            ],
        )
        .await
        .map_err(DbError::statement("keep what is rolled back for the sinks"))?;
    Ok(())
}

/// A block's events, in parts; none if they were not kept.
pub async fn read_retracted(
    client: &impl GenericClient,
    pipeline: i32,
    reorg: i64,
    block: BlockRef,
) -> Result<Vec<String>, RegisterError> {
    let rows = client
        .query(
            "-- register::sinks::read_retracted\n\
             select events from debshrew.retracted \
              where pipeline_id = $1 and reorg_id = $2 and height = $3 and hash = $4 order by part",
            &[&pipeline, &reorg, &block.height.to_sql(), &&block.hash.as_bytes()[..]],
        )
        .await
        .map_err(DbError::statement("read what was rolled back"))?;
    Ok(rows.iter().map(|row| row.get("events")).collect())
}

/// The block at a height of the chain that a rollback took back, if it was kept.
pub async fn retracted_block(
    client: &impl GenericClient,
    pipeline: i32,
    reorg: i64,
    height: Height,
) -> Result<Option<BlockRef>, RegisterError> {
    let row = client
        .query_opt(
            "-- register::sinks::retracted_block\n\
             select hash from debshrew.retracted where pipeline_id = $1 and reorg_id = $2 and height = $3 and part = 0",
            &[&pipeline, &reorg, &height.to_sql()],
        )
        .await
        .map_err(DbError::statement("read what was rolled back"))?;
    let hash = row.and_then(|row| BlockHash::from_slice(row.get("hash")));
    Ok(hash.map(|hash| BlockRef { height, hash }))
}

/// Takes away what all sinks have taken back.
pub async fn forget_retracted(client: &Client, pipeline: i32) -> Result<u64, RegisterError> {
    let done = client
        .execute(
            "-- register::sinks::forget_retracted\n\
             delete from debshrew.retracted r where r.pipeline_id = $1 and not exists ( \
               select from debshrew.sink s join debshrew.sink_cursor c using (sink_id) \
                where s.pipeline_id = $1 and s.stage in ('snapshot', 'streaming') and c.reorg_id < r.reorg_id)",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("take away what was rolled back"))?;
    Ok(done)
}
