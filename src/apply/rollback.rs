//! The way back: every row and the state as they were when an earlier block was the checkpoint.
//!
//! Set-based, a few statements a table, in one transaction. Of each row's images above the target the oldest
//! is the one to restore.

use tokio_postgres::{Client, Transaction};

use super::checkpoint::{self, Checkpoint, Registered};
use super::rows::Targets;
use super::target::{Restore, Target};
use super::{ApplyError, crash_point};
use crate::block::{BlockHash, BlockRef, Height};
use crate::db::DbError;

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

/// Whether the journal reaches back that far.
pub(super) fn check_reach(
    pipeline: &Registered,
    checkpoint: Checkpoint,
    to: Option<Height>,
) -> Result<(), ApplyError> {
    match checkpoint.floor {
        // `None` sorts below every height, as "before the first block" should.
        Some(floor) if to < Some(floor) => Err(ApplyError::TooDeep {
            pipeline: pipeline.name.clone(),
            schema: pipeline.schema.clone(),
            floor,
            to,
        }),
        _ => Ok(()),
    }
}

pub(super) async fn roll_back(
    client: &mut Client,
    pipeline: &Registered,
    epoch: i64,
    checkpoint: Checkpoint,
    targets: &Targets,
    to: Option<Height>,
    cause: Cause,
) -> Result<RolledBack, ApplyError> {
    check_reach(pipeline, checkpoint, to)?;
    let from = checkpoint.block.filter(|block| Some(block.height) > to);
    let Some(from) = from else { return Err(nothing_above(pipeline, to)) };
    let transaction = client.transaction().await.map_err(DbError::statement("begin a rollback"))?;
    let to = match to {
        Some(height) => Some(committed(&transaction, pipeline, height).await?),
        None => None,
    };
    move_checkpoint(&transaction, pipeline, epoch, from, to).await?;
    execute(&transaction, "set constraints all deferred", "defer constraints").await?;
    // Height 0 may be undone too.
    let above = to.map_or(-1, |to| to.height.to_sql());
    let rows = restore(&transaction, targets, above).await?;
    let depth = to.map_or(from.height.get() + 1 - pipeline.start_height.get(), |to| {
        from.height.blocks_above(to.height)
    });
    let done = RolledBack { from, to, depth, rows };
    record(&transaction, pipeline, above, &done, cause).await?;
    crash_point("before-rollback-commit");
    transaction.commit().await.map_err(DbError::statement("commit a rollback"))?;
    crash_point("after-rollback-commit");
    Ok(done)
}

fn nothing_above(pipeline: &Registered, to: Option<Height>) -> ApplyError {
    let to = to.map_or("the start".to_owned(), |to| format!("height {to}"));
    ApplyError::Db(DbError::Catalog(format!(
        "pipeline `{}` has no block above {to} to roll back",
        pipeline.name
    )))
}

async fn committed(
    transaction: &Transaction<'_>,
    pipeline: &Registered,
    height: Height,
) -> Result<BlockRef, ApplyError> {
    let hash = checkpoint::committed_hash(transaction, pipeline.id, height).await?.ok_or_else(|| {
        let name = &pipeline.name;
        DbError::Catalog(format!(
            "pipeline `{name}` has not committed height {height}, so it cannot be rolled back to it"
        ))
    })?;
    Ok(BlockRef { height, hash })
}

async fn move_checkpoint(
    transaction: &Transaction<'_>,
    pipeline: &Registered,
    epoch: i64,
    from: BlockRef,
    to: Option<BlockRef>,
) -> Result<(), ApplyError> {
    let hash = |hash: &BlockHash| hash.as_bytes().to_vec();
    let moved = transaction
        .execute(
            "-- apply::rollback::move_checkpoint\n\
             update debshrew.checkpoint set height = $5, hash = $6 \
              where pipeline_id = $1 and epoch = $2 and height = $3 and hash = $4",
            &[
                &pipeline.id,
                &epoch,
                &from.height.to_sql(),
                &hash(&from.hash),
                &to.map(|to| to.height.to_sql()),
                &to.map(|to| hash(&to.hash)),
            ],
        )
        .await
        .map_err(DbError::statement("move the checkpoint back"))?;
    if moved == 1 { Ok(()) } else { Err(ApplyError::Fenced { pipeline: pipeline.name.clone() }) }
}

/// Rows with unique values beside their key are taken out first and inserted again, so that no two ever hold
/// the same value; others are overwritten where they are, so that references to them hold all the time.
async fn restore(transaction: &Transaction<'_>, targets: &Targets, above: i32) -> Result<u64, ApplyError> {
    let parents_first: Vec<&Target> =
        targets.parents_first().iter().map(|index| &targets.list()[*index]).collect();
    let children_first = || parents_first.iter().rev();
    let mut rows = 0;
    for target in children_first().filter(|target| target.restore == Restore::Afresh) {
        rows += run(transaction, &target.table.name, &target.undo_created(), above).await?;
        run(transaction, &target.table.name, &target.undo_touched(), above).await?;
    }
    for target in &parents_first {
        rows += run(transaction, &target.table.name, &target.undo_existed(), above).await?;
    }
    for target in children_first().filter(|target| target.restore == Restore::InPlace) {
        rows += run(transaction, &target.table.name, &target.undo_created(), above).await?;
    }
    for target in &parents_first {
        run(transaction, &target.table.name, &target.forget_above(), above).await?;
    }
    Ok(rows)
}

async fn run(transaction: &Transaction<'_>, table: &str, sql: &str, above: i32) -> Result<u64, ApplyError> {
    crash_point("before-rollback-statement");
    let rows = transaction.execute(sql, &[&above]).await.map_err(|source| ApplyError::Statement {
        doing: "roll back",
        table: table.to_owned(),
        column: source.as_db_error().and_then(|error| error.column()).map(str::to_owned),
        source,
    })?;
    crash_point("after-rollback-statement");
    Ok(rows)
}

async fn record(
    transaction: &Transaction<'_>,
    pipeline: &Registered,
    above: i32,
    done: &RolledBack,
    cause: Cause,
) -> Result<(), ApplyError> {
    transaction
        .execute(
            "-- apply::rollback::forget_blocks\ndelete from debshrew.block where pipeline_id = $1 and height > $2",
            &[&pipeline.id, &above],
        )
        .await
        .map_err(DbError::statement("take blocks out of the block log"))?;
    let hash = |block: BlockRef| block.hash.as_bytes().to_vec();
    transaction
        .execute(
            "-- apply::rollback::record\n\
             insert into debshrew.reorg \
               (pipeline_id, from_height, from_hash, to_height, to_hash, depth, rows_restored, cause) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            &[
                &pipeline.id,
                &done.from.height.to_sql(),
                &hash(done.from),
                &done.to.map(|to| to.height.to_sql()),
                &done.to.map(hash),
                &i32::try_from(done.depth).unwrap_or(i32::MAX),
                &i64::try_from(done.rows).unwrap_or(i64::MAX),
                &cause.sql(),
            ],
        )
        .await
        .map_err(DbError::statement("record the rollback"))?;
    Ok(())
}

async fn execute(transaction: &Transaction<'_>, sql: &str, what: &'static str) -> Result<(), ApplyError> {
    transaction.batch_execute(sql).await.map_err(|error| DbError::statement(what)(error).into())
}
