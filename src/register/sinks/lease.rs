//! The right to move a sink's cursor, and its moves.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::{Client, GenericClient};

use super::stream::last_reorg;
use super::{Cursor, SinkRecord, SinkSpec, Stage, block};
use crate::block::{BlockRef, Height};
use crate::db::lock::Lock;
use crate::db::{Db, DbError, migrate};
use crate::register::heartbeat::{Heartbeat, Of, Silence};
use crate::register::{RegisterError, Registered, committed_block, height};

/// A connection that holds the sink's lock, and an epoch that fences off whoever had it before.
pub struct SinkLease {
    client: ClientWrapper,
    pipeline: Registered,
    sink: i32,
    name: String,
    epoch: i64,
    heartbeat: Heartbeat,
}

/// Where a stream is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// With a snapshot at the checkpoint.
    Snapshot,
    /// With the block after the checkpoint.
    Now,
    /// With this block.
    From(Height),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    At(Cursor),
    /// The pipeline has not come to the block yet; blocks from there on are journaled.
    NotYet,
    /// The journals do not reach back to the block any more; the first that they have.
    TooLate {
        first: Height,
    },
}

impl SinkLease {
    /// Registers the sink and takes its lock; `None` while another process has it. One that has gone silent is ended, so that
    /// the lock is free the next time.
    pub async fn try_take(
        db: &Db,
        pipeline: &Registered,
        spec: &SinkSpec,
        silence: &mut Silence,
    ) -> Result<Option<(SinkLease, SinkRecord)>, RegisterError> {
        let client = db.dedicated().await?;
        migrate::refuse_newer(&*client).await?;
        migrate::refuse_older(&*client).await?;
        // What a cursor says is on disk where it must be; see `reserve`.
        execute(&client, "set synchronous_commit = off").await?;
        let sink = register(&client, pipeline, spec).await?;
        if !Lock::Sink(sink).try_take(&client).await? {
            silence.end_relay(&client, sink).await?;
            return Ok(None);
        }
        configure(&client, sink, spec).await?;
        let row = client
            .query_one(
                "-- register::sinks::try_take\n\
                 update debshrew.sink_cursor set epoch = epoch + 1, relay_pid = pg_backend_pid() where sink_id = $1 returning epoch",
                &[&sink],
            )
            .await
            .map_err(DbError::statement("become the one to move the sink's cursor"))?;
        let epoch = row.get(0);
        let heartbeat = Heartbeat::begin(db, &client, Of::Sink(sink), epoch).await?;
        let lease =
            SinkLease { client, pipeline: pipeline.clone(), sink, name: spec.name.clone(), epoch, heartbeat };
        let record = lease.record().await?;
        Ok(Some((lease, record)))
    }

    pub fn pipeline(&self) -> &Registered {
        &self.pipeline
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until this moves the cursor no longer, as far as its heartbeat can tell, and says why.
    pub fn lost(&self) -> impl Future<Output = RegisterError> + Send + use<> {
        self.heartbeat.lost(format!("sink `{}.{}`", self.pipeline.name, self.name), self.fenced())
    }

    /// The sink as it is now; an error if another process has taken it over, or it was dropped or begun again.
    pub async fn record(&self) -> Result<SinkRecord, RegisterError> {
        let sql = format!(
            "-- register::sinks::record\nselect {} from {} where s.sink_id = $1 and c.epoch = $2",
            SinkRecord::COLUMNS,
            SinkRecord::TABLES
        );
        let row = self.client.query_opt(&sql, &[&self.sink, &self.epoch]).await;
        match row.map_err(DbError::statement("read the sink's cursor"))? {
            Some(row) => SinkRecord::read(&row),
            None => Err(self.fenced()),
        }
    }

    /// Begins the stream. From here on the pipeline journals what it needs, and keeps it.
    pub async fn attach(&self, to: Attach) -> Result<Attached, RegisterError> {
        execute(&self.client, "begin; set local synchronous_commit = on").await?;
        let done = self.attach_in_transaction(to).await;
        execute(&self.client, if done.is_ok() { "commit" } else { "rollback" }).await?;
        done
    }

    async fn attach_in_transaction(&self, to: Attach) -> Result<Attached, RegisterError> {
        let failed = || DbError::statement("begin the sink's stream");
        if let Attach::From(first) = to
            && self.waits_for(first).await?
        {
            return Ok(Attached::NotYet);
        }
        // The writer's next move waits, and then sees that the sink is there (`debshrew.advance`).
        let row = self
            .client
            .query_one(
                "-- register::sinks::attach\n\
                 select height, hash, journal_floor from debshrew.checkpoint where pipeline_id = $1 for update",
                &[&self.pipeline.id],
            )
            .await
            .map_err(failed())?;
        let (checkpoint, floor) = (block(&row, "height", "hash")?, height(row.get("journal_floor"))?);
        let reorg = self.last_reorg().await?;
        let generation = self.record().await?.cursor.generation;
        let (stage, holds_from, cursor) = match to {
            Attach::Snapshot => (Stage::Snapshot, Some(0), Cursor { block: checkpoint, reorg, generation }),
            Attach::Now => (Stage::Streaming, Some(0), Cursor { block: checkpoint, reorg, generation }),
            Attach::From(first) => match self.before(first, checkpoint, floor).await? {
                Ok(block) => (Stage::Streaming, Some(0), Cursor { block, reorg, generation }),
                Err(Attached::NotYet) => {
                    (Stage::New, Some(first.to_sql()), Cursor { block: None, reorg: 0, generation })
                }
                Err(other) => return Ok(other),
            },
        };
        let hash = cursor.block.map(|block| block.hash.as_bytes().to_vec());
        let height = cursor.block.map(|block| block.height.to_sql());
        let moved = self
            .client
            .execute(
                "-- register::sinks::attach\n\
                 with moved as ( \
                   update debshrew.sink_cursor set height = $5, hash = $6, reorg_id = $7, reserved = $5, published = false, moved_at = now() \
                    where sink_id = $1 and epoch = $2 returning sink_id \
                 ) \
                 update debshrew.sink s set stage = $3, holds_from = $4, resync = false from moved where s.sink_id = moved.sink_id",
                &[&self.sink, &self.epoch, &stage.sql(), &holds_from, &height, &hash, &cursor.reorg],
            )
            .await
            .map_err(failed())?;
        match (moved, stage) {
            (0, _) => Err(self.fenced()),
            (_, Stage::New) => Ok(Attached::NotYet),
            _ => Ok(Attached::At(cursor)),
        }
    }

    /// Whether it is declared already that the stream begins with this block, and the pipeline has not come there: then there
    /// is nothing to write, and no reason to keep the writer waiting.
    async fn waits_for(&self, first: Height) -> Result<bool, RegisterError> {
        let row = self
            .client
            .query_one(
                "-- register::sinks::waits_for\n\
                 select exists (select from debshrew.sink s join debshrew.checkpoint c using (pipeline_id) \
                   join debshrew.sink_cursor u using (sink_id) \
                   where s.sink_id = $1 and u.epoch = $2 and s.stage = 'new' and s.holds_from = $3 \
                     and coalesce(c.height, $4) < $3 - 1)",
                &[&self.sink, &self.epoch, &first.to_sql(), &(self.pipeline.start_height.to_sql() - 1)],
            )
            .await
            .map_err(DbError::statement("see whether the sink's stream can begin"))?;
        Ok(row.get(0))
    }

    /// The block before `first`, if the journals hold all from there on.
    async fn before(
        &self,
        first: Height,
        checkpoint: Option<BlockRef>,
        floor: Option<Height>,
    ) -> Result<Result<Option<BlockRef>, Attached>, RegisterError> {
        let first = first.max(self.pipeline.start_height);
        let next = checkpoint.map_or(self.pipeline.start_height, |block| block.height.next());
        if next < first {
            return Ok(Err(Attached::NotYet));
        }
        if let Some(floor) = floor.filter(|floor| *floor >= first) {
            return Ok(Err(Attached::TooLate { first: floor.next() }));
        }
        let Some(height) = first.previous().filter(|_| first > self.pipeline.start_height) else {
            return Ok(Ok(None));
        };
        Ok(Ok(Some(committed_block(&*self.client, self.pipeline.id, height).await?)))
    }

    /// The pipeline's last rollback; 0 before the first.
    pub async fn last_reorg(&self) -> Result<i64, RegisterError> {
        last_reorg(&*self.client, self.pipeline.id).await
    }

    /// Declares, before they are published, that blocks up to this one may be; on disk before it returns. A rollback that
    /// began earlier is committed by then.
    pub async fn reserve(&self, height: Height) -> Result<(), RegisterError> {
        let sql = format!(
            "-- register::sinks::reserve\nbegin; set local synchronous_commit = on; \
             update debshrew.sink_cursor set reserved = greatest(reserved, {}) where sink_id = {} and epoch = {}; commit",
            height.to_sql(),
            self.sink,
            self.epoch
        );
        execute(&self.client, &sql).await
    }

    /// Moves the cursor over steps that are published, which had so many events; none, if there was nothing to publish. Returns
    /// the pipeline's last rollback.
    pub async fn advance(&self, to: Cursor, events: Option<u64>) -> Result<i64, RegisterError> {
        let hash = to.block.map(|block| block.hash.as_bytes().to_vec());
        let row = self
            .client
            .query_opt(
                "-- register::sinks::advance\n\
                 update debshrew.sink_cursor set height = $3, hash = $4, reorg_id = $5, events = events + coalesce($6::int8, 0), \
                        published = published or $6 is not null, moved_at = now() \
                  where sink_id = $1 and epoch = $2 \
                 returning (select coalesce(max(reorg_id), 0) from debshrew.reorg where pipeline_id = $7)",
                &[
                    &self.sink,
                    &self.epoch,
                    &to.block.map(|block| block.height.to_sql()),
                    &hash,
                    &to.reorg,
                    &events.map(|events| i64::try_from(events).unwrap_or(i64::MAX)),
                    &self.pipeline.id,
                ],
            )
            .await
            .map_err(DbError::statement("move the sink's cursor"))?;
        row.map(|row| row.get(0)).ok_or_else(|| self.fenced())
    }

    /// The snapshot is published; an error if the sink was lost meanwhile.
    pub async fn snapshot_done(&self) -> Result<(), RegisterError> {
        self.set("stage = 'streaming'", "s.stage = 'snapshot'", "end the sink's snapshot").await
    }

    /// The sink is lost: what it needs is not there any more.
    pub async fn lose(&self, problem: &str) -> Result<(), RegisterError> {
        self.tell(Some(problem), false).await?;
        self.set("stage = 'lost', holds_from = null", "true", "give the sink up").await
    }

    /// Begins the stream more often than whoever came so far.
    pub async fn outlive(&self, generation: i32) -> Result<(), RegisterError> {
        let next = format!("generation = {}", generation.saturating_add(1));
        self.set(&next, "true", "begin the sink's stream again").await
    }

    /// Says what it waits for, or why it halted; nothing when all is well. Why it is lost stays.
    pub async fn tell(&self, problem: Option<&str>, halted: bool) -> Result<(), RegisterError> {
        let problem = problem.map(super::super::activity::storable);
        self.client
            .execute(
                "-- register::sinks::tell\n\
                 update debshrew.sink s set problem = $3, halted = $4, \
                        problem_since = case when $3::text is null then null else coalesce(s.problem_since, now()) end \
                  where s.sink_id = $1 and s.stage <> 'lost' \
                    and exists (select from debshrew.sink_cursor c where c.sink_id = $1 and c.epoch = $2)",
                &[&self.sink, &self.epoch, &problem, &halted],
            )
            .await
            .map_err(DbError::statement("report the sink's state"))?;
        Ok(())
    }

    async fn set(&self, what: &str, condition: &str, doing: &str) -> Result<(), RegisterError> {
        let sql = format!(
            "-- register::sinks::set\nupdate debshrew.sink s set {what} where s.sink_id = $1 and {condition} \
             and exists (select from debshrew.sink_cursor c where c.sink_id = $1 and c.epoch = $2)"
        );
        let done = self.client.execute(&sql, &[&self.sink, &self.epoch]).await;
        match done.map_err(DbError::statement(doing))? {
            0 => Err(self.fenced()),
            _ => Ok(()),
        }
    }

    fn fenced(&self) -> RegisterError {
        RegisterError::SinkFenced { sink: format!("{}.{}", self.pipeline.name, self.name) }
    }
}

/// A sink as it is now, whoever moves its cursor; `None` if it was never run.
pub async fn sink_record(
    client: &impl GenericClient,
    pipeline: i32,
    name: &str,
) -> Result<Option<SinkRecord>, RegisterError> {
    let sql = format!(
        "-- register::sinks::sink_record\nselect {} from {} where s.pipeline_id = $1 and s.name = $2",
        SinkRecord::COLUMNS,
        SinkRecord::TABLES
    );
    let row = client.query_opt(&sql, &[&pipeline, &name]).await;
    row.map_err(DbError::statement("look up the sink"))?.map(|row| SinkRecord::read(&row)).transpose()
}

/// Whether a session has the right to move the sink's cursor. One that has gone silent is ended, so that the right is free the
/// next time.
pub async fn is_taken(
    client: &Client,
    sink: &SinkRecord,
    silence: &mut Silence,
) -> Result<bool, RegisterError> {
    silence.end_relay(client, sink.id).await?;
    Ok(Lock::Sink(sink.id).holder(client).await?.is_some())
}

/// The sink's row, made if there is none. Those who only wait for the lock write nothing.
async fn register(client: &Client, pipeline: &Registered, spec: &SinkSpec) -> Result<i32, RegisterError> {
    let failed = || DbError::statement(format!("register sink `{}`", spec.name));
    let find = async || {
        let sql = "-- register::sinks::register\n\
                   select s.sink_id, s.kind from debshrew.sink s join debshrew.sink_cursor c using (sink_id) \
                    where s.pipeline_id = $1 and s.name = $2";
        client.query_opt(sql, &[&pipeline.id, &spec.name]).await
    };
    let mut found = find().await.map_err(failed())?;
    if found.is_none() {
        // Both at once, so that nobody sees one without the other; somebody else may have been first.
        client
            .execute(
                "-- register::sinks::register\n\
                 with made as ( \
                   insert into debshrew.sink (pipeline_id, name, kind, max_lag, on_lag) \
                   values ($1, $2, $3, interval '0', 'detach') on conflict do nothing returning sink_id \
                 ) \
                 insert into debshrew.sink_cursor (sink_id) select sink_id from made",
                &[&pipeline.id, &spec.name, &spec.kind],
            )
            .await
            .map_err(failed())?;
        found = find().await.map_err(failed())?;
    }
    let row = found.ok_or(RegisterError::Damaged("a sink has no cursor"))?;
    let kind: &str = row.get("kind");
    if kind != spec.kind {
        return Err(RegisterError::SinkKind {
            sink: format!("{}.{}", pipeline.name, spec.name),
            was: kind.to_owned(),
            is: spec.kind,
        });
    }
    Ok(row.get("sink_id"))
}

/// What others must know of the sink is as configured from now on.
async fn configure(client: &Client, sink: i32, spec: &SinkSpec) -> Result<(), RegisterError> {
    let seconds = spec.max_lag.as_secs_f64();
    let on_lag = if spec.blocks { "block" } else { "detach" };
    let confirmations = i32::try_from(spec.confirmations).unwrap_or(i32::MAX);
    client
        .execute(
            "-- register::sinks::configure\n\
             update debshrew.sink set max_lag = make_interval(secs => $2), on_lag = $3, confirmations = $4 where sink_id = $1",
            &[&sink, &seconds, &on_lag, &confirmations],
        )
        .await
        .map_err(DbError::statement(format!("register sink `{}`", spec.name)))?;
    Ok(())
}

async fn execute(client: &Client, sql: &str) -> Result<(), RegisterError> {
    Ok(client.batch_execute(sql).await.map_err(DbError::statement("move the sink's cursor"))?)
}
