//! A rollback: set-based, a few statements a table, in one transaction, which proves what it did before it commits.

use futures_util::TryFutureExt;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::UndoError;
use super::guard::Guard;
use super::images::{self, Journaled};
use super::retract;
use super::statements::{put_back, remove};
use crate::block::{BlockRef, Height};
use crate::db::{DbError, quote};
use crate::failure::crash_point;
use crate::register::{
    self, Cause, Checkpoint, Lease, MoveBack, RegisterError, Registered, RolledBack, committed_hash,
    read_journals,
};
use crate::table::Tables;

/// Whether the journal reaches back that far.
pub fn check_reach(
    pipeline: &Registered,
    checkpoint: Checkpoint,
    to: Option<Height>,
) -> Result<(), UndoError> {
    match checkpoint.floor {
        // `None` sorts below every height, as "before the first block" should.
        Some(floor) if to < Some(floor) => {
            Err(UndoError::TooDeep { pipeline: pipeline.name.clone(), floor, to })
        }
        _ => Ok(()),
    }
}

/// Puts every row and the state back to what they were when `to` was the checkpoint; `None` is before the first block.
/// On a failure nothing has changed.
pub async fn roll_back(
    lease: &mut Lease,
    tables: &Tables,
    to: Option<Height>,
    cause: Cause,
) -> Result<RolledBack, UndoError> {
    check_reach(lease.pipeline(), lease.checkpoint(), to)?;
    let from = lease.checkpoint().block.filter(|block| Some(block.height) > to);
    let Some(from) = from else { return Err(nothing_above(lease.pipeline(), to)) };
    refuse_lost(lease, tables).await?;
    // Names of the user's are seen only while rows are put back.
    execute(lease.client(), "begin; set local search_path = ''", "begin a rollback").await?;
    match transact(lease, tables, from, to, cause).await {
        Ok((checkpoint, done)) => {
            lease.moved(checkpoint);
            Ok(done)
        }
        Err(error) => {
            // Should this not reach the server, the connection is broken, and its transaction ends with it.
            let _ = lease.client().batch_execute("rollback").await;
            Err(error)
        }
    }
}

async fn transact(
    lease: &Lease,
    tables: &Tables,
    from: BlockRef,
    to: Option<Height>,
    cause: Cause,
) -> Result<(Checkpoint, RolledBack), UndoError> {
    let (client, pipeline) = (lease.client(), lease.pipeline());
    let to = match to {
        Some(height) => Some(committed(client, pipeline, height).await?),
        None => None,
    };
    let checkpoint = step(lease.move_back(MoveBack { from, to })).await?;
    execute(client, "set constraints all deferred", "defer constraints").await?;
    // Height 0 may be undone too.
    let above = to.map_or(-1, |to| to.height.to_sql());
    let families = step(images::above(client, tables, above)).await?;
    let guard = step(Guard::begin(client, tables, &families)).await?;
    let depth = to.map_or(from.height.get() + 1 - pipeline.start_height.get(), |to| {
        from.height.blocks_above(to.height)
    });
    let reorg = step(register::begin_rollback(client, pipeline, (from, to), depth, cause)).await?;
    step(retract::keep(client, tables, pipeline, (from, to), reorg)).await?;
    let path = quote(&pipeline.schema);
    execute(client, &format!("set local search_path = {path}"), "set the search path").await?;
    let rows = restore(client, &families, above).await?;
    step(guard.end(client)).await?;
    execute(client, "set local search_path = ''", "reset the search path").await?;
    let done = RolledBack { from, to, depth, rows };
    step(register::end_rollback(client, pipeline, reorg, &done)).await?;
    crash_point("before-rollback-commit");
    execute(client, "commit", "commit a rollback").await?;
    crash_point("after-rollback-commit");
    Ok((checkpoint, done))
}

/// A part of a rollback, before and after which a test may end the process.
async fn step<T, E: Into<UndoError>>(part: impl Future<Output = Result<T, E>>) -> Result<T, UndoError> {
    crash_point("before-rollback-statement");
    let done = part.await.map_err(Into::into)?;
    crash_point("after-rollback-statement");
    Ok(done)
}

fn nothing_above(pipeline: &Registered, to: Option<Height>) -> UndoError {
    let to = to.map_or("the start".to_owned(), |to| format!("height {to}"));
    UndoError::NothingAbove { pipeline: pipeline.name.clone(), to }
}

/// Refuses if a table has a journal and cannot be replicated any more: a rollback would leave it as it is.
pub async fn refuse_lost(lease: &Lease, tables: &Tables) -> Result<(), UndoError> {
    if tables.refused().is_empty() {
        return Ok(());
    }
    let journals = read_journals(lease.client(), lease.pipeline().id).await?;
    match tables.refused().iter().find(|(table, _)| journals.contains_key(*table)) {
        None => Ok(()),
        Some((table, reason)) => Err(UndoError::Refused { table: table.clone(), reason: reason.clone() }),
    }
}

async fn committed(client: &Client, pipeline: &Registered, height: Height) -> Result<BlockRef, UndoError> {
    match committed_hash(client, pipeline.id, height).await? {
        Some(hash) => Ok(BlockRef { height, hash }),
        None => Err(RegisterError::NotCommitted { pipeline: pipeline.name.clone(), height }.into()),
    }
}

/// Rows go back into the tables that are referenced before those that reference them, and what did not exist is taken out
/// the other way: so references hold all the time.
async fn restore(client: &Client, families: &[Vec<Journaled<'_>>], above: i32) -> Result<u64, UndoError> {
    let mut rows = 0;
    for family in families {
        rows += prove(client, family, &put_back(family), above).await?;
    }
    for family in families.iter().rev() {
        if let Some(sql) = remove(family) {
            rows += prove(client, family, &sql, above).await?;
        }
    }
    for table in families.iter().flatten() {
        let (sql, parameters): (_, [&(dyn ToSql + Sync); 1]) = (table.forget(), [&above]);
        let forgotten = client.execute(&sql, &parameters);
        step(forgotten.map_err(|source| refused(std::slice::from_ref(table), source))).await?;
    }
    Ok(rows)
}

/// Runs a statement that says how many rows it was to restore and how many came out right. Returns how many were put back
/// or removed.
async fn prove(client: &Client, family: &[Journaled<'_>], sql: &str, above: i32) -> Result<u64, UndoError> {
    let parameters: [&(dyn ToSql + Sync); 1] = [&above];
    let row = client.query_one(sql, &parameters);
    let row = step(row.map_err(|source| refused(family, source))).await?;
    let (expected, restored): (i64, i64) = (row.get("expected"), row.get("restored"));
    if expected != restored {
        return Err(UndoError::Unproven { table: names(family), expected, restored });
    }
    Ok(u64::try_from(row.get::<_, i64>("rows")).unwrap_or_default())
}

fn names(family: &[Journaled<'_>]) -> String {
    family.iter().map(|table| table.target.table.name.as_str()).collect::<Vec<_>>().join("`, `")
}

fn refused(family: &[Journaled<'_>], source: tokio_postgres::Error) -> UndoError {
    let table = source.as_db_error().and_then(|error| error.table()).map(str::to_owned);
    UndoError::Statement { table: table.unwrap_or_else(|| names(family)), source }
}

async fn execute(client: &Client, sql: &str, what: &'static str) -> Result<(), UndoError> {
    client.batch_execute(sql).await.map_err(|error| DbError::statement(what)(error).into())
}
