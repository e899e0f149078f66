//! Pipelines as the database knows them: registered, checkpointed, reported on.

use tokio_postgres::{Client, GenericClient, Row};

use super::ApplyError;
use crate::block::{BlockHash, BlockRef, Height};
use crate::db::DbError;
use crate::db::lock::Lock;

/// A pipeline's row in `debshrew.pipeline`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub id: i32,
    pub name: String,
    pub schema: String,
    pub start_height: Height,
}

/// How far a pipeline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last committed block; `None` before the first.
    pub block: Option<BlockRef>,
    /// The lowest height that the journal can roll back to; `None` when it reaches back to before the first
    /// block.
    pub floor: Option<Height>,
}

impl Checkpoint {
    fn read(row: &Row) -> Result<Checkpoint, ApplyError> {
        let height_found = height(row.get("height"))?;
        let hash: Option<&[u8]> = row.get("hash");
        let block = match (height_found, hash.and_then(BlockHash::from_slice)) {
            (Some(height), Some(hash)) => Some(BlockRef { height, hash }),
            (None, None) => None,
            _ => return Err(corrupt("a checkpoint's height and hash do not go together")),
        };
        Ok(Checkpoint { block, floor: height(row.get("journal_floor"))? })
    }
}

fn height(value: Option<i32>) -> Result<Option<Height>, ApplyError> {
    value.map(|height| Height::from_sql(height).ok_or_else(|| corrupt("a height is negative"))).transpose()
}

fn corrupt(what: &str) -> ApplyError {
    ApplyError::Db(DbError::Catalog(format!("debshrew's tables are damaged: {what}")))
}

/// The pipeline of that name, if `migrate` has set it up.
pub async fn find(client: &impl GenericClient, name: &str) -> Result<Option<Registered>, ApplyError> {
    let row = client
        .query_opt(
            "-- apply::checkpoint::find\n\
             select pipeline_id, schema_name, start_height from debshrew.pipeline where name = $1",
            &[&name],
        )
        .await;
    let row = match row {
        // No `debshrew` schema, or an empty one: nothing is set up.
        Err(error) if is_missing(&error) => return Ok(None),
        other => other.map_err(DbError::statement("look up the pipeline"))?,
    };
    let Some(row) = row else { return Ok(None) };
    let start = height(Some(row.get("start_height")))?.ok_or_else(|| corrupt("a pipeline has no start"))?;
    Ok(Some(Registered {
        id: row.get("pipeline_id"),
        name: name.to_owned(),
        schema: row.get("schema_name"),
        start_height: start,
    }))
}

fn is_missing(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    error.code().is_some_and(|code| [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code))
}

/// Registers the pipeline, or brings what is registered in line with the configuration as far as that is safe:
/// the start can move until the first block is committed, the schema cannot.
pub async fn register(
    client: &impl GenericClient,
    name: &str,
    schema: &str,
    start_height: Height,
) -> Result<Registered, ApplyError> {
    let failed = || DbError::statement(format!("register pipeline `{name}`"));
    if let Some(found) = find(client, name).await? {
        return align(client, found, schema, start_height).await;
    }
    let row = client
        .query_one(
            "-- apply::checkpoint::register\n\
             insert into debshrew.pipeline (name, schema_name, start_height) values ($1, $2, $3) \
             returning pipeline_id",
            &[&name, &schema, &start_height.to_sql()],
        )
        .await
        .map_err(failed())?;
    let id: i32 = row.get(0);
    client
        .execute("insert into debshrew.checkpoint (pipeline_id) values ($1)", &[&id])
        .await
        .map_err(failed())?;
    client
        .execute("insert into debshrew.activity (pipeline_id, state) values ($1, 'new')", &[&id])
        .await
        .map_err(failed())?;
    Ok(Registered { id, name: name.to_owned(), schema: schema.to_owned(), start_height })
}

/// Brings what is registered in line with the configuration; refuses one that contradicts what has been committed
/// under another.
pub(super) async fn align(
    client: &impl GenericClient,
    found: Registered,
    schema: &str,
    start_height: Height,
) -> Result<Registered, ApplyError> {
    let contradicts = |key: &'static str, was: String, is: String| ApplyError::Contradiction {
        pipeline: found.name.clone(),
        key,
        was,
        is,
    };
    if found.schema != schema {
        return Err(contradicts("schema", found.schema.clone(), schema.to_owned()));
    }
    if found.start_height == start_height {
        return Ok(found);
    }
    if checkpoint(client, found.id).await?.block.is_some() {
        return Err(contradicts("start_height", found.start_height.to_string(), start_height.to_string()));
    }
    client
        .execute(
            "-- apply::checkpoint::align\nupdate debshrew.pipeline set start_height = $2 where pipeline_id = $1",
            &[&found.id, &start_height.to_sql()],
        )
        .await
        .map_err(DbError::statement("move the pipeline's start"))?;
    Ok(Registered { start_height, ..found })
}

/// Where the pipeline stands now.
pub async fn checkpoint(client: &impl GenericClient, pipeline: i32) -> Result<Checkpoint, ApplyError> {
    let row = client
        .query_one(
            "-- apply::checkpoint::checkpoint\n\
             select height, hash, journal_floor from debshrew.checkpoint where pipeline_id = $1",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("read the checkpoint"))?;
    Checkpoint::read(&row)
}

/// Becomes the pipeline's writer: from here on, no transaction of an earlier writer can commit. Waits for one
/// that is committing now.
pub(super) async fn take_epoch(client: &Client, pipeline: i32) -> Result<(i64, Checkpoint), ApplyError> {
    let row = client
        .query_one(
            "-- apply::checkpoint::take_epoch\n\
             update debshrew.checkpoint set epoch = epoch + 1 where pipeline_id = $1 \
             returning epoch, height, hash, journal_floor",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("take over as the pipeline's writer"))?;
    Ok((row.get("epoch"), Checkpoint::read(&row)?))
}

/// The hash under which a height was committed on the branch that is followed.
pub async fn committed_hash(
    client: &impl GenericClient,
    pipeline: i32,
    height: Height,
) -> Result<Option<BlockHash>, ApplyError> {
    let row = client
        .query_opt(
            "-- apply::checkpoint::committed_hash\n\
             select hash from debshrew.block where pipeline_id = $1 and height = $2",
            &[&pipeline, &height.to_sql()],
        )
        .await
        .map_err(DbError::statement("read the block log"))?;
    Ok(row.and_then(|row| BlockHash::from_slice(row.get(0))))
}

/// What a pipeline is doing, as shown by `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Running,
    /// Nothing can be done until something outside changes; the reason says what.
    Waiting,
    /// It has met what it cannot get past.
    Halted,
    Stopped,
}

impl Activity {
    fn sql(self) -> &'static str {
        match self {
            Activity::Running => "running",
            Activity::Waiting => "waiting",
            Activity::Halted => "halted",
            Activity::Stopped => "stopped",
        }
    }
}

/// What is said of a pipeline.
#[derive(Clone, Debug)]
pub struct Report {
    pub activity: Activity,
    pub reason: Option<String>,
    /// The block that the reason is about.
    pub reason_height: Option<Height>,
    /// The source's tip, if it was looked at.
    pub source_tip: Option<Height>,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The writer, or who was it last.
    Writer { epoch: i64 },
    /// A process that has not become the writer.
    Bystander,
}

/// The longest reason that is kept, in characters: a transform has a say in it.
const LONGEST_REASON: usize = 4000;

/// Says what the pipeline is doing. `since` moves when the state or its reason changes. Of a pipeline that another
/// process writes nothing is said: that one knows better.
pub async fn report(client: &Client, pipeline: i32, role: Role, report: &Report) -> Result<(), ApplyError> {
    let epoch = match role {
        Role::Writer { epoch } => Some(epoch),
        Role::Bystander if Lock::Writer(pipeline).is_taken(client).await? => return Ok(()),
        Role::Bystander => None,
    };
    client
        .execute(
            "-- apply::checkpoint::report\n\
             update debshrew.activity a \
                set state = $2, reason = $3, reason_height = $4, \
                    since = case when (a.state, a.reason) is distinct from ($2, $3) then clock_timestamp() \
                                 else a.since end, \
                    source_height = coalesce($5, a.source_height), \
                    source_seen_at = case when $5::int4 is null then a.source_seen_at else clock_timestamp() end \
              where pipeline_id = $1 \
                and ($6::int8 is null or exists ( \
                      select from debshrew.checkpoint c where c.pipeline_id = $1 and c.epoch = $6))",
            &[
                &pipeline,
                &report.activity.sql(),
                &report.reason.as_deref().map(storable),
                &report.reason_height.map(Height::to_sql),
                &report.source_tip.map(Height::to_sql),
                &epoch,
            ],
        )
        .await
        .map_err(DbError::statement("report the pipeline's state"))?;
    Ok(())
}

/// PostgreSQL's texts hold no NUL.
fn storable(reason: &str) -> String {
    reason
        .chars()
        .take(LONGEST_REASON)
        .map(|character| if character == '\0' { char::REPLACEMENT_CHARACTER } else { character })
        .collect()
}

/// A pipeline as people see it: a row of `debshrew.pipelines`, whose columns are described there.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Overview {
    pub pipeline: String,
    pub schema: String,
    pub height: Option<i32>,
    pub block_hash: Option<String>,
    pub source_height: Option<i32>,
    pub lag_blocks: Option<i32>,
    pub state: String,
    pub last_error: Option<String>,
    pub last_error_height: Option<i32>,
    /// As PostgreSQL writes a time in ISO 8601.
    pub last_block_at: Option<String>,
    pub rollback_floor: Option<i32>,
    pub start_height: i32,
}

/// Every pipeline that is set up in the database, by name; none when nothing is set up yet.
pub async fn overview(client: &impl GenericClient) -> Result<Vec<Overview>, ApplyError> {
    let rows = client
        .query(
            "-- apply::checkpoint::overview\n\
             select pipeline, schema, height, block_hash, source_height, lag_blocks, state, last_error, \
                    last_error_height, rollback_floor, start_height, \
                    to_char(last_block_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as last_block_at \
               from debshrew.pipelines order by pipeline",
            &[],
        )
        .await;
    let rows = match rows {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        other => other.map_err(DbError::statement("read `debshrew.pipelines`"))?,
    };
    Ok(rows
        .iter()
        .map(|row| Overview {
            pipeline: row.get("pipeline"),
            schema: row.get("schema"),
            height: row.get("height"),
            block_hash: row.get("block_hash"),
            source_height: row.get("source_height"),
            lag_blocks: row.get("lag_blocks"),
            state: row.get("state"),
            last_error: row.get("last_error"),
            last_error_height: row.get("last_error_height"),
            last_block_at: row.get("last_block_at"),
            rollback_floor: row.get("rollback_floor"),
            start_height: row.get("start_height"),
        })
        .collect())
}
