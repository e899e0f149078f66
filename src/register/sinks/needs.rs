//! What a pipeline's sinks need of its writer: journals, for as long as they are behind, and what a rollback takes back.

use tokio_postgres::{Client, GenericClient};

use crate::block::Height;
use crate::db::DbError;
use crate::register::{RegisterError, height};

/// What all sinks of a pipeline need together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkNeeds {
    /// Blocks from this height on must be journaled; `None` if none need be.
    pub journaled_from: Option<Height>,
}

/// What the pipeline's sinks need.
pub async fn sink_needs(client: &impl GenericClient, pipeline: i32) -> Result<SinkNeeds, RegisterError> {
    let row = client
        .query_one(
            "-- register::sinks::needs\n\
             select pg_catalog.min(holds_from) from debshrew.sink where pipeline_id operator(pg_catalog.=) $1",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("read what sinks need"))?;
    Ok(SinkNeeds { journaled_from: height(row.get(0))? })
}

/// The lowest cursor of the pipeline's sinks: images above it are needed. `None` without sinks; `Some(None)` is before the
/// first block.
pub async fn sinks_reach(client: &Client, pipeline: i32) -> Result<Option<Option<Height>>, RegisterError> {
    let row = client
        .query_one(
            "-- register::sinks::reach\n\
             select min(coalesce(c.height, -1)) from debshrew.sink s join debshrew.sink_cursor c using (sink_id) \
              where s.pipeline_id = $1 and s.stage in ('snapshot', 'streaming')",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("see how far sinks are"))?;
    Ok(row.get::<_, Option<i32>>(0).map(Height::from_sql))
}

/// Gives up the sinks that have been behind for longer than they may, and says which. Such a sink might have published its
/// next block so long ago.
pub async fn detach_late(client: &Client, pipeline: i32) -> Result<Vec<String>, RegisterError> {
    let sql = format!(
        "-- register::sinks::detach_late\n\
         update debshrew.sink s set stage = 'lost', holds_from = null, problem_since = now(), \
                problem = format('it was behind for more than %s, so that what it needs is kept no longer', s.max_lag) \
           from ({LATE}) late where s.sink_id = late.sink_id and s.on_lag = 'detach' returning s.name"
    );
    let rows = client.query(&sql, &[&pipeline]).await.map_err(DbError::statement("look for late sinks"))?;
    Ok(rows.iter().map(|row| row.get("name")).collect())
}

/// Gives up the sinks that have begun, inside a migration's transaction: what they are to publish next is not what their
/// consumers hold any more. Returns which.
pub async fn lose_sinks(
    client: &impl GenericClient,
    pipeline: i32,
    reason: &str,
) -> Result<Vec<String>, RegisterError> {
    lose(client, pipeline, reason, false).await
}

/// The same of those alone that have not published everything that is committed.
pub async fn lose_sinks_behind(
    client: &impl GenericClient,
    pipeline: i32,
    reason: &str,
) -> Result<Vec<String>, RegisterError> {
    lose(client, pipeline, reason, true).await
}

async fn lose(
    client: &impl GenericClient,
    pipeline: i32,
    reason: &str,
    only_behind: bool,
) -> Result<Vec<String>, RegisterError> {
    let rows = client
        .query(
            "-- register::sinks::lose_sinks\n\
             update debshrew.sink s set stage = 'lost', holds_from = null, problem = $2, problem_since = now() \
               from debshrew.sink_cursor u, debshrew.checkpoint c \
              where s.pipeline_id = $1 and s.stage in ('snapshot', 'streaming') and u.sink_id = s.sink_id \
                and c.pipeline_id = s.pipeline_id and (not $3 or c.hash is distinct from u.hash or s.stage = 'snapshot') \
              returning s.name",
            &[&pipeline, &reason, &only_behind],
        )
        .await
        .map_err(DbError::statement("give sinks up"))?;
    Ok(rows.iter().map(|row| row.get("name")).collect())
}

/// The sink that the pipeline has to wait for, if there is one.
pub async fn late_blocker(client: &Client, pipeline: i32) -> Result<Option<String>, RegisterError> {
    let sql = format!(
        "-- register::sinks::late_blocker\n\
         select s.name from debshrew.sink s join ({LATE}) late using (sink_id) where s.on_lag = 'block' limit 1"
    );
    let row =
        client.query_opt(&sql, &[&pipeline]).await.map_err(DbError::statement("look for late sinks"))?;
    Ok(row.map(|row| row.get("name")))
}

/// Sinks that might have published their next block too long ago: since that which confirms it was committed.
const LATE: &str = "\
  select s.sink_id from debshrew.sink s join debshrew.sink_cursor c on c.sink_id = s.sink_id \
    join debshrew.pipeline p on p.pipeline_id = s.pipeline_id \
    join debshrew.block b on b.pipeline_id = s.pipeline_id and b.height = coalesce(c.height + 1, p.start_height)::int8 + s.confirmations \
   where s.pipeline_id = $1 and s.stage in ('snapshot', 'streaming') and b.committed_at < now() - s.max_lag";
