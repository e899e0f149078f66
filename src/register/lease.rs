//! Who may move a checkpoint, and its moves.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::checkpoint::Checkpoint;
use super::heartbeat::{Heartbeat, Of};
use super::pipelines::{self, Registered};
use super::{RegisterError, height};
use crate::block::{BlockRef, Height, StateRoot};
use crate::db::lock::Lock;
use crate::db::{Db, DbError, migrate};

/// The error code that a move of the checkpoint raises when it is not where the caller believes.
const FENCED: &str = "DS001";

/// The one that it raises when a sink needs the journal of a block that has none.
const JOURNAL_NEEDED: &str = "DS004";

/// The right to write for a pipeline: a connection that holds the pipeline's lock, an epoch that fences off whoever had
/// the right before, and the checkpoint as this process has left it.
pub struct Lease {
    client: ClientWrapper,
    pipeline: Registered,
    epoch: i64,
    checkpoint: Checkpoint,
    advance: Statement,
    notify: bool,
    heartbeat: Heartbeat,
}

/// A move of the checkpoint to the next block.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Where it must stand.
    pub from: Option<BlockRef>,
    pub to: BlockRef,
    /// How many rows the block changes.
    pub changes: usize,
    /// Whether the block can be undone.
    pub journaled: bool,
    /// What the source said of its state there, where it keeps roots.
    pub state_root: Option<StateRoot>,
}

/// A move of the checkpoint to an earlier block.
#[derive(Clone, Copy, Debug)]
pub struct MoveBack {
    pub from: BlockRef,
    /// `None` is before the first block.
    pub to: Option<BlockRef>,
}

impl Lease {
    /// Takes the pipeline's lock, and the checkpoint with it: from here on no transaction of an earlier writer can
    /// commit. `None` while another process has the lock.
    pub async fn try_take(db: &Db, pipeline: &str) -> Result<Option<Lease>, RegisterError> {
        let client = db.dedicated().await?;
        migrate::refuse_newer(&*client).await?;
        let Some(pipeline) = pipelines::find(&*client, pipeline).await? else {
            return Err(RegisterError::NotSetUp(pipeline.to_owned()));
        };
        if !Lock::Writer(pipeline.id).try_take(&client).await? {
            return Ok(None);
        }
        migrate::refuse_older(&*client).await?;
        let (epoch, checkpoint) = take_epoch(&client, pipeline.id).await?;
        let heartbeat = Heartbeat::begin(db, &client, Of::Pipeline(pipeline.id), epoch).await?;
        let advance =
            client.prepare(ADVANCE).await.map_err(DbError::statement("prepare the checkpoint's move"))?;
        Ok(Some(Lease { client, pipeline, epoch, checkpoint, advance, notify: false, heartbeat }))
    }

    /// The session that holds the lock.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn pipeline(&self) -> &Registered {
        &self.pipeline
    }

    /// Tells this writer from those before and after it.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The last committed block, and how far back the journal reaches.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Whether this is still connected, and so the writer, as far as can be told without asking.
    pub fn is_connected(&self) -> bool {
        !self.client.is_closed()
    }

    /// Waits until this is not the writer any more, as far as its heartbeat can tell, and says why.
    pub fn lost(&self) -> impl Future<Output = RegisterError> + Send + use<> {
        self.heartbeat.lost(format!("pipeline `{}`", self.pipeline.name), self.fenced())
    }

    /// Takes on what the configuration says of the pipeline, as far as that is safe: its start can move until the
    /// first block is committed.
    pub async fn align(&mut self, schema: &str, start_height: Height) -> Result<(), RegisterError> {
        let aligned = pipelines::align(&*self.client, self.pipeline.clone(), schema, start_height).await?;
        self.pipeline = aligned;
        Ok(())
    }

    /// Whether those who listen on the channel `debshrew` are told of each move from now on.
    pub fn notify(&mut self, notify: bool) {
        self.notify = notify;
    }

    /// Sends a move to the next block, inside a transaction that the caller has begun. It fails as [`RegisterError::Fenced`] unless
    /// the checkpoint stands where the move begins, this lease is the last one, and the transaction has not moved it
    /// already. Returns the checkpoint that there is once that transaction is committed; then [`Lease::moved`] is told.
    pub async fn advance(&self, step: Move) -> Result<Checkpoint, RegisterError> {
        let from_hash = step.from.map(|from| from.hash.as_bytes().to_vec());
        let state_root = step.state_root.map(|root| root.as_bytes().to_vec());
        let parameters: [&(dyn ToSql + Sync); 10] = [
            &self.pipeline.id,
            &self.epoch,
            &step.from.map(|from| from.height.to_sql()),
            &from_hash,
            &step.to.height.to_sql(),
            &&step.to.hash.as_bytes()[..],
            &i32::try_from(step.changes).unwrap_or(i32::MAX),
            &step.journaled,
            &state_root,
            &self.told_as(),
        ];
        let row = self.client.query_one(&self.advance, &parameters).await.map_err(|error| {
            match error.code().map(|code| code.code()) {
                Some(FENCED) => self.fenced(),
                Some(JOURNAL_NEEDED) => RegisterError::JournalNeeded { pipeline: self.pipeline.name.clone() },
                _ => DbError::statement("move the checkpoint")(error).into(),
            }
        })?;
        Ok(Checkpoint { block: Some(step.to), floor: height(row.get(0))? })
    }

    /// The transaction of a move is committed.
    pub fn moved(&mut self, checkpoint: Checkpoint) {
        self.checkpoint = checkpoint;
    }

    /// Sends a move to an earlier block, inside a transaction that the caller has begun. Returns the checkpoint that
    /// there is once it is committed; then [`Lease::moved`] is told.
    pub async fn move_back(&self, step: MoveBack) -> Result<Checkpoint, RegisterError> {
        let hash = |block: BlockRef| block.hash.as_bytes().to_vec();
        let moved = self
            .client
            .query_opt(
                "-- register::lease::move_back\n\
                 update debshrew.checkpoint set height = $5, hash = $6 \
                  where pipeline_id operator(pg_catalog.=) $1 and epoch operator(pg_catalog.=) $2 and height operator(pg_catalog.=) $3 and hash operator(pg_catalog.=) $4 \
                 returning height, hash, journal_floor, debshrew.tell($7, 'rollback', height, hash)",
                &[
                    &self.pipeline.id,
                    &self.epoch,
                    &step.from.height.to_sql(),
                    &hash(step.from),
                    &step.to.map(|to| to.height.to_sql()),
                    &step.to.map(hash),
                    &self.told_as(),
                ],
            )
            .await
            .map_err(DbError::statement("move the checkpoint back"))?;
        match moved {
            Some(row) => Checkpoint::read(&row),
            None => Err(self.fenced()),
        }
    }

    /// Declares, on a connection beside, that nothing below `floor` will be rolled back to.
    pub async fn raise_floor(&mut self, client: &Client, floor: Height) -> Result<(), RegisterError> {
        let raised = client
            .query_opt(
                "-- register::lease::raise_floor\n\
                 update debshrew.checkpoint set journal_floor = greatest(journal_floor, $3) \
                  where pipeline_id operator(pg_catalog.=) $1 and epoch operator(pg_catalog.=) $2 and height operator(pg_catalog.>=) $3 \
                 returning journal_floor",
                &[&self.pipeline.id, &self.epoch, &floor.to_sql()],
            )
            .await
            .map_err(DbError::statement("raise the journal's floor"))?;
        let Some(row) = raised else {
            return Err(self.fenced());
        };
        self.checkpoint.floor = height(row.get("journal_floor"))?;
        Ok(())
    }

    /// The name under which moves are told, if they are.
    fn told_as(&self) -> Option<&str> {
        self.notify.then_some(self.pipeline.name.as_str())
    }

    fn fenced(&self) -> RegisterError {
        RegisterError::Fenced { pipeline: self.pipeline.name.clone() }
    }
}

const ADVANCE: &str = "-- register::lease::advance\n\
    select debshrew.advance($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Becomes the pipeline's writer. Waits for one that is committing now.
async fn take_epoch(client: &Client, pipeline: i32) -> Result<(i64, Checkpoint), RegisterError> {
    let row = client
        .query_one(
            "-- register::lease::take_epoch\n\
             with writer as ( \
               update debshrew.activity set writer_pid = pg_backend_pid() where pipeline_id = $1) \
             update debshrew.checkpoint set epoch = epoch + 1 where pipeline_id = $1 \
             returning epoch, height, hash, journal_floor",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("take over as the pipeline's writer"))?;
    Ok((row.get("epoch"), Checkpoint::read(&row)?))
}
