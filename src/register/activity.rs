//! What a pipeline's process says that it is doing, and what people see of all pipelines.

use deadpool_postgres::{ClientWrapper, Object};
use tokio_postgres::{Client, GenericClient};

use super::{RegisterError, Registered, find, is_missing};
use crate::block::Height;
use crate::db::lock::{Holder, Lock};
use crate::db::{Db, DbError};
use crate::printable;

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

/// Says what the pipeline is doing. `since` moves when the state changes, and not with its reason: one may name heights that rise. Of a pipeline that another
/// process writes nothing is said: that one knows better.
pub async fn report(
    client: &Client,
    pipeline: i32,
    role: Role,
    report: &Report,
) -> Result<(), RegisterError> {
    let epoch = match role {
        Role::Writer { epoch } => Some(epoch),
        Role::Bystander if holder(client, pipeline).await?.is_some_and(|held| held.is_writer) => {
            return Ok(());
        }
        Role::Bystander => None,
    };
    client
        .execute(
            "-- register::activity::report\n\
             update debshrew.activity a \
                set state = $2, reason = $3, reason_height = $4, \
                    since = case when a.state is distinct from $2 then clock_timestamp() \
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

/// Says the same by a session that shows this process while it pauses, without the writer's lock; to be kept meanwhile.
pub async fn report_pause(
    db: &Db,
    pipeline: &Registered,
    role: Role,
    said: &Report,
) -> Result<ClientWrapper, RegisterError> {
    let client = stand_by(db, &pipeline.name).await?;
    report(&client, pipeline.id, role, said).await?;
    if let Role::Writer { epoch } = role {
        // The row's lock sees to it that no later writer's session is written over.
        client
            .execute(
                "-- register::activity::report_pause\n\
                 with mine as materialized ( \
                   select from debshrew.checkpoint where pipeline_id = $1 and epoch = $2 for share) \
                 update debshrew.activity set writer_pid = pg_catalog.pg_backend_pid() \
                  where pipeline_id = $1 and exists (select from mine)",
                &[&pipeline.id, &epoch],
            )
            .await
            .map_err(DbError::statement("show the pipeline's process"))?;
    }
    Ok(client)
}

/// That a pipeline halted, and no process has gone on with it since.
#[derive(Clone, Debug)]
pub struct Halt {
    pub reason: Option<String>,
    pub age_seconds: f64,
}

/// Whether the pipeline has halted. Also where debshrew's own migrations are pending.
pub async fn halt(client: &impl GenericClient, pipeline: i32) -> Result<Option<Halt>, RegisterError> {
    let row = client
        .query_opt(
            "-- register::activity::halt\n\
             select reason, extract(epoch from clock_timestamp() - since)::float8 as age_seconds \
               from debshrew.activity where pipeline_id = $1 and state = $2",
            &[&pipeline, &Activity::Halted.sql()],
        )
        .await
        .map_err(DbError::statement("look whether the pipeline has halted"))?;
    Ok(row.map(|row| Halt { reason: row.get("reason"), age_seconds: row.get("age_seconds") }))
}

/// Who holds a pipeline's lock.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Held {
    pub by: Holder,
    /// It is the pipeline's writer. Other sessions can hold the lock as well, if only to be in the way.
    pub is_writer: bool,
}

impl Held {
    /// For messages, with what to do about it.
    pub fn explained(&self) -> String {
        match self.is_writer {
            true => format!("a running debshrew writes it ({})", self.by),
            false => format!(
                "its lock is held by a session that is not its writer ({}); `select pg_terminate_backend({})` ends that \
                 session",
                self.by, self.by.pid
            ),
        }
    }
}

/// The session that holds the lock of the pipeline of that name, if one does.
pub async fn holder_of(client: &Client, name: &str) -> Result<Option<Held>, RegisterError> {
    match find(client, name).await? {
        Some(found) => holder(client, found.id).await,
        None => Ok(None),
    }
}

/// Who writes for a pipeline, and who waits to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Processes {
    pub writer: Option<Held>,
    pub standbys: Vec<Holder>,
}

/// The sessions of all processes that write for the pipeline, or stand by.
pub async fn processes(client: &Client, pipeline: i32) -> Result<Processes, RegisterError> {
    let writer = holder(client, pipeline).await?;
    let mut standbys = Lock::Standby(pipeline).holders(client).await?;
    // The writer that pauses is none.
    let pausing = client
        .query_opt(
            "-- register::activity::processes\n\
             select writer_pid from debshrew.activity where pipeline_id = $1",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("look up the pipeline's writer"))?
        .and_then(|row| row.get::<_, Option<i32>>(0));
    standbys.retain(|standby| Some(standby.pid) != pausing);
    Ok(Processes { writer, standbys })
}

/// A session that shows, as long as it lasts, that this process stands by for the pipeline.
pub async fn stand_by(db: &Db, name: &str) -> Result<ClientWrapper, RegisterError> {
    // One that is there already, as a rule, so that there is no moment without.
    let client = Object::take(db.client().await?);
    let found = find(&*client, name).await?.ok_or_else(|| RegisterError::NotSetUp(name.to_owned()))?;
    // Nobody holds it alone.
    Lock::Standby(found.id).try_share(&client).await?;
    Ok(client)
}

async fn holder(client: &Client, pipeline: i32) -> Result<Option<Held>, RegisterError> {
    let Some(by) = Lock::Writer(pipeline).holder(client).await? else { return Ok(None) };
    let row = client
        .query_opt(
            "-- register::activity::holder\n\
             select 1 from debshrew.activity where pipeline_id = $1 and writer_pid = $2",
            &[&pipeline, &by.pid],
        )
        .await
        .map_err(DbError::statement("look up the pipeline's writer"))?;
    Ok(Some(Held { by, is_writer: row.is_some() }))
}

/// In one line, which a terminal may show. (And without NUL, which PostgreSQL's texts do not hold.)
pub(super) fn storable(reason: &str) -> String {
    printable::line(reason).chars().take(LONGEST_REASON).collect()
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
    /// By the database's clock, as of this look.
    pub block_age_seconds: Option<f64>,
    pub state_age_seconds: f64,
    pub rollback_floor: Option<i32>,
    pub start_height: i32,
}

/// Every pipeline that is set up in the database, by name; none when nothing is set up yet.
pub async fn overview(client: &impl GenericClient) -> Result<Vec<Overview>, RegisterError> {
    let rows = client
        .query(
            "-- register::activity::overview\n\
             select pipeline, schema, height, block_hash, source_height, lag_blocks, state, last_error, \
                    last_error_height, rollback_floor, start_height, \
                    extract(epoch from clock_timestamp() - last_block_at)::float8 as block_age_seconds, \
                    extract(epoch from clock_timestamp() - since)::float8 as state_age_seconds, \
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
            block_age_seconds: row.get("block_age_seconds"),
            state_age_seconds: row.get("state_age_seconds"),
            rollback_floor: row.get("rollback_floor"),
            start_height: row.get("start_height"),
        })
        .collect())
}
