//! What people see of sinks, and what they tell them to do.

use tokio_postgres::{Client, GenericClient};

use crate::db::DbError;
use crate::db::lock::Lock;
use crate::register::{RegisterError, is_missing};

/// A sink as people see it: a row of `debshrew.sinks`, whose columns are described there.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SinkOverview {
    pub pipeline: String,
    pub sink: String,
    pub kind: String,
    pub state: String,
    pub height: Option<i32>,
    pub block_hash: Option<String>,
    pub lag_blocks: Option<i32>,
    pub lag_seconds: Option<f64>,
    pub events: i64,
    pub last_error: Option<String>,
    pub last_error_age_seconds: Option<f64>,
    pub last_step_age_seconds: Option<f64>,
    pub generation: i32,
    pub holds_journals: bool,
    #[serde(skip)]
    id: i32,
}

/// Every sink that was ever run, by pipeline and name; none when nothing is set up yet.
pub async fn sink_overview(client: &impl GenericClient) -> Result<Vec<SinkOverview>, RegisterError> {
    let rows = client
        .query(
            "-- register::sinks::overview\n\
             select v.pipeline, v.sink, v.kind, v.state, v.height, v.block_hash, v.lag_blocks, v.lag_seconds, v.events, \
                    v.last_error, extract(epoch from now() - v.last_error_since)::float8 as last_error_age_seconds, \
                    extract(epoch from now() - v.last_step_at)::float8 as last_step_age_seconds, v.generation, \
                    v.holds_journals, s.sink_id \
               from debshrew.sinks v join debshrew.pipeline p on p.name = v.pipeline \
               join debshrew.sink s on s.pipeline_id = p.pipeline_id and s.name = v.sink order by 1, 2",
            &[],
        )
        .await;
    let rows = match rows {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        other => other.map_err(DbError::statement("read `debshrew.sinks`"))?,
    };
    let read = |row: &tokio_postgres::Row| SinkOverview {
        pipeline: row.get("pipeline"),
        sink: row.get("sink"),
        kind: row.get("kind"),
        state: row.get("state"),
        height: row.get("height"),
        block_hash: row.get("block_hash"),
        lag_blocks: row.get("lag_blocks"),
        lag_seconds: row.get("lag_seconds"),
        events: row.get("events"),
        last_error: row.get("last_error"),
        last_error_age_seconds: row.get("last_error_age_seconds"),
        last_step_age_seconds: row.get("last_step_age_seconds"),
        generation: row.get("generation"),
        holds_journals: row.get("holds_journals"),
        id: row.get("sink_id"),
    };
    Ok(rows.iter().map(read).collect())
}

/// What a sink is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkOrder {
    /// Publish nothing for now; journals are kept, within `max_lag`.
    Pause,
    Resume,
    /// Try again, after it halted.
    Retry,
    /// Begin again with a snapshot.
    Resync,
    /// Begin again as configured.
    Reset,
    /// Be forgotten.
    Drop,
}

/// Tells a sink. A process that runs it sees that within seconds. Says whether that was possible: one that a process runs
/// cannot be dropped.
pub async fn order_sink(
    client: &mut Client,
    sink: &SinkOverview,
    order: SinkOrder,
) -> Result<bool, RegisterError> {
    let failed = || DbError::statement("tell the sink");
    let sql = match order {
        SinkOrder::Pause => "update debshrew.sink set paused = true where sink_id = $1",
        SinkOrder::Resume => "update debshrew.sink set paused = false where sink_id = $1",
        SinkOrder::Retry => {
            "update debshrew.sink set halted = false, problem = null, problem_since = null \
             where sink_id = $1 and stage <> 'lost'"
        }
        SinkOrder::Resync => return begin_again(client, sink.id, true).await.map(|()| true),
        SinkOrder::Reset => return begin_again(client, sink.id, false).await.map(|()| true),
        SinkOrder::Drop => {
            if !Lock::Sink(sink.id).try_take(client).await? {
                return Ok(false);
            }
            let done = client.execute("delete from debshrew.sink where sink_id = $1", &[&sink.id]).await;
            Lock::Sink(sink.id).release(client).await?;
            done.map_err(failed())?;
            return Ok(true);
        }
    };
    client.execute(sql, &[&sink.id]).await.map_err(failed())?;
    Ok(true)
}

/// Whoever moves the cursor now cannot any more.
async fn begin_again(client: &mut Client, sink: i32, resync: bool) -> Result<(), RegisterError> {
    let failed = || DbError::statement("begin the sink's stream again");
    let transaction = client.transaction().await.map_err(failed())?;
    transaction
        .execute(
            "-- register::sinks::begin_again\n\
             update debshrew.sink_cursor set epoch = epoch + 1, height = null, hash = null, reserved = null, reorg_id = 0 \
              where sink_id = $1",
            &[&sink],
        )
        .await
        .map_err(failed())?;
    transaction
        .execute(
            "-- register::sinks::begin_again\n\
             update debshrew.sink set stage = 'new', resync = $2, generation = generation + 1, holds_from = null, \
                    halted = false, problem = null, problem_since = null where sink_id = $1",
            &[&sink, &resync],
        )
        .await
        .map_err(failed())?;
    transaction.commit().await.map_err(failed())?;
    Ok(())
}
