//! The one writer of a pipeline: a connection that holds the pipeline's lock, and commits blocks on it in order.
//!
//! Whatever goes wrong, the caller drops the writer and takes over anew, which reads the checkpoint first: so a
//! lost reply to COMMIT is found out, and nothing is ever applied twice.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::{Client, Statement};

use super::checkpoint::{self, Checkpoint, Registered};
use super::plan::Shape;
use super::rollback::{self, Cause, RolledBack};
use super::rows::{Resolved, Targets};
use super::transaction::{self, Sender, Sent};
use super::{ApplyError, setup};
use crate::block::{BlockRef, Height};
use crate::db::lock::Lock;
use crate::db::{Db, DbError, migrate, quote};

/// The most blocks that are sent before the first of them is known to be committed.
const MOST_SENT: usize = 4;

/// No further block is sent while more rows than this are on their way.
const MOST_ROWS_SENT: usize = 5_000;

/// A block to commit.
#[derive(Debug)]
pub struct Block {
    pub at: BlockRef,
    pub rows: Resolved,
    pub journaling: Journaling,
    pub durability: Durability,
}

/// Whether the reply to a block's COMMIT waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// What was replied to outlives a crash of PostgreSQL, and every block before it does.
    Strict,
    /// A crash of PostgreSQL may lose the latest such blocks, each with its checkpoint, so that they are done
    /// again. Source: PostgreSQL's manual, "Asynchronous Commit".
    Lazy,
}

/// Whether a block can be rolled back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Journaling {
    Kept,
    /// Nothing at or below this block can be rolled back to afterwards.
    Skipped,
}

/// The pipeline's writer.
pub struct Writer {
    client: ClientWrapper,
    pipeline: Registered,
    epoch: i64,
    checkpoint: Checkpoint,
    targets: Arc<Targets>,
    advance: Statement,
    statements: HashMap<Shape, Statement>,
}

impl Writer {
    /// Takes the pipeline's lock and the checkpoint with it; `None` while another process has them.
    pub async fn try_take_over(db: &Db, pipeline: &str) -> Result<Option<Writer>, ApplyError> {
        let client = db.dedicated().await?;
        migrate::refuse_newer(&*client).await?;
        let Some(pipeline) = checkpoint::find(&*client, pipeline).await? else {
            return Err(ApplyError::NotSetUp(pipeline.to_owned()));
        };
        if !Lock::Writer(pipeline.id).try_take(&client).await? {
            return Ok(None);
        }
        migrate::refuse_older(&*client).await?;
        let targets = Arc::new(setup::targets_in_step(&client, &pipeline).await?);
        prepare_session(&client, &pipeline).await?;
        let (epoch, checkpoint) = checkpoint::take_epoch(&client, pipeline.id).await?;
        let advance = transaction::prepare_advance(&client).await?;
        let statements = HashMap::new();
        Ok(Some(Writer { client, pipeline, epoch, checkpoint, targets, advance, statements }))
    }

    pub fn pipeline(&self) -> &Registered {
        &self.pipeline
    }

    /// Whether this is still connected, and so the writer, as far as can be told without asking.
    pub fn check_connected(&self) -> Result<(), ApplyError> {
        match self.client.is_closed() {
            false => Ok(()),
            true => Err(ApplyError::Disconnected { pipeline: self.pipeline.name.clone() }),
        }
    }

    /// Takes on what the configuration says of the pipeline, as far as that is safe: its start can move until the
    /// first block is committed.
    pub async fn align(&mut self, schema: &str, start_height: Height) -> Result<(), ApplyError> {
        self.pipeline = checkpoint::align(&*self.client, self.pipeline.clone(), schema, start_height).await?;
        Ok(())
    }

    /// The last committed block, and how far back the journal reaches.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    pub fn targets(&self) -> &Arc<Targets> {
        &self.targets
    }

    /// Tells this writer from those before and after it.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Commits one block, on top of the checkpoint. Returns how many rows it changed.
    pub async fn commit(&mut self, block: Block) -> Result<u64, ApplyError> {
        let mut changed = 0;
        self.commit_all([block], |_, changes| changed = changes).await.map_err(|(_, error)| error)?;
        Ok(changed)
    }

    /// Commits blocks one on top of the other, each in its transaction, the first on the checkpoint. `committed` is
    /// told each one and how many rows it changed. On a failure the blocks before it are committed, it and those
    /// after it are not, and this writer is of no more use.
    ///
    /// Blocks are sent without waiting for the ones before: should one fail, the checkpoint is not where the next
    /// one expects it.
    pub async fn commit_all(
        &mut self,
        blocks: impl IntoIterator<Item = Block>,
        mut committed: impl FnMut(BlockRef, u64),
    ) -> Result<(), (BlockRef, ApplyError)> {
        let Writer { client, pipeline, epoch, checkpoint, targets, advance, statements } = self;
        let sender = Sender { client, pipeline, epoch: *epoch, targets, advance };
        let mut sent: VecDeque<Sent<'_>> = VecDeque::new();
        let mut rows = 0;
        let mut from = checkpoint.block;
        for block in blocks {
            let at = block.at;
            while sent.len() >= MOST_SENT || (rows > MOST_ROWS_SENT && !sent.is_empty()) {
                rows -= arrived(&mut sent, checkpoint, &mut committed).await?;
            }
            let prepared = match sender.prepare(from, block, statements).await {
                Ok(prepared) => prepared,
                Err(error) => {
                    while !sent.is_empty() {
                        arrived(&mut sent, checkpoint, &mut committed).await?;
                    }
                    return Err((at, error));
                }
            };
            from = Some(at);
            rows += prepared.rows;
            let alone = prepared.is_watched;
            sent.push_back(sender.send(prepared).await);
            while alone && !sent.is_empty() {
                rows -= arrived(&mut sent, checkpoint, &mut committed).await?;
            }
        }
        while !sent.is_empty() {
            arrived(&mut sent, checkpoint, &mut committed).await?;
        }
        Ok(())
    }

    /// Puts every row and the state back to what they were when `to` was the checkpoint; `None` is before the
    /// first block.
    pub async fn roll_back(&mut self, to: Option<Height>, cause: Cause) -> Result<RolledBack, ApplyError> {
        let done = rollback::roll_back(
            &mut self.client,
            &self.pipeline,
            self.epoch,
            self.checkpoint,
            &self.targets,
            to,
            cause,
        )
        .await?;
        self.checkpoint.block = done.to;
        Ok(done)
    }

    /// Whether the journal reaches back that far.
    pub fn check_reach(&self, to: Option<Height>) -> Result<(), ApplyError> {
        rollback::check_reach(&self.pipeline, self.checkpoint, to)
    }

    pub(super) fn floor_raised(&mut self, floor: Height) {
        self.checkpoint.floor = self.checkpoint.floor.max(Some(floor));
    }
}

/// The first of the blocks that were sent is committed, or has failed. Returns how many rows it had.
async fn arrived(
    sent: &mut VecDeque<Sent<'_>>,
    checkpoint: &mut Checkpoint,
    committed: &mut impl FnMut(BlockRef, u64),
) -> Result<usize, (BlockRef, ApplyError)> {
    let Some(Sent { at, rows, changes, journaling, mut replies }) = sent.pop_front() else { return Ok(0) };
    (&mut replies).await;
    Pin::new(&mut replies).take_output().unwrap_or(Ok(())).map_err(|error| (at, error))?;
    checkpoint.block = Some(at);
    if journaling == Journaling::Skipped {
        checkpoint.floor = Some(at.height);
    }
    committed(at, changes);
    Ok(rows)
}

/// Whatever the role's or the database's settings are: what a value's text means is the same everywhere, no block
/// is too long, and no pause between two. (Not every version of PostgreSQL has each of those time limits.)
async fn prepare_session(client: &Client, pipeline: &Registered) -> Result<(), ApplyError> {
    // A plan made while a table is small would scan it for ever; compiling plans of this size costs more than
    // running them. Rows of a block stay in memory, where they are kept for several parts of a statement.
    let sql = format!(
        "-- apply::writer::prepare_session\n\
         set enable_seqscan = off; set jit = off; set plan_cache_mode = force_generic_plan; set work_mem = '64MB';\n\
         set timezone = 'UTC'; set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres';\n\
         set extra_float_digits = 1; set bytea_output = 'hex'; set xmloption = 'content'; set array_nulls = on;\n\
         set standard_conforming_strings = on; set transform_null_equals = off;\n\
         set default_transaction_isolation = 'read committed';\n\
         set idle_in_transaction_session_timeout = '60s'; set search_path = {}; set application_name = {};\n\
         select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings \
          where name in ('statement_timeout', 'transaction_timeout', 'idle_session_timeout')",
        quote(&pipeline.schema),
        quote(&format!("debshrew/{}", pipeline.name)),
    );
    client.batch_execute(&sql).await.map_err(DbError::statement("set up the writer's session"))?;
    Ok(())
}
