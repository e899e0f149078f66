//! The one writer of a pipeline: a connection that holds the pipeline's lock, and the transaction that commits
//! a block.
//!
//! Whatever goes wrong, the caller drops the writer and takes over anew, which reads the checkpoint first: so a
//! lost reply to COMMIT is found out, and nothing is ever applied twice.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::{FutureExt, TryFutureExt, poll};
use indexmap::IndexMap;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::checkpoint::{self, Checkpoint, Registered};
use super::plan::{self, Shape, Step};
use super::rollback::{self, Cause, RolledBack};
use super::rows::{Resolved, Targets};
use super::{ApplyError, crash_point, keys, setup, transaction_error};
use crate::block::{BlockRef, Height};
use crate::change::fold::{Datum, Key, Net, fold};
use crate::db::catalog::Column;
use crate::db::lock::Lock;
use crate::db::{Db, DbError, migrate, quote};

/// The most prepared statements that are kept; when there are more, all are prepared again as needed.
const MOST_STATEMENTS: usize = 500;

/// A block to commit.
#[derive(Debug)]
pub struct Block {
    pub at: BlockRef,
    pub rows: Resolved,
    pub journaling: Journaling,
}

/// Whether a block can be rolled back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let advance =
            client.prepare(ADVANCE).await.map_err(DbError::statement("prepare the checkpoint's move"))?;
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
    pub async fn commit(&mut self, mut block: Block) -> Result<u64, ApplyError> {
        keys::canonicalise(&self.client, self.targets.list(), &mut block.rows).await?;
        let nets: Vec<(usize, IndexMap<Key, Net>)> =
            block.rows.0.into_iter().map(|(table, rows)| (table, fold(rows))).collect();
        let state = self.targets.state();
        let changes =
            nets.iter().filter(|(table, _)| *table != state).map(|(_, rows)| rows.len() as u64).sum();
        let mut steps = match block.journaling {
            Journaling::Kept => plan::journal(&nets),
            Journaling::Skipped => Vec::new(),
        };
        steps.extend(plan::statements(&self.targets, &nets));
        self.prepare(&steps).await?;
        let advance = Advance { at: block.at, changes, journaling: block.journaling };
        self.send(&advance, &steps).await?;
        self.checkpoint.block = Some(block.at);
        if block.journaling == Journaling::Skipped {
            self.checkpoint.floor = Some(block.at.height);
        }
        Ok(changes)
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

    async fn prepare(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        if self.statements.len() > MOST_STATEMENTS {
            self.statements.clear();
        }
        for Step { shape, .. } in steps {
            if !self.statements.contains_key(shape) {
                let prepared = self.client.prepare(&shape.sql(&self.targets)).await;
                let statement = prepared.map_err(|source| self.statement_error(shape, source))?;
                self.statements.insert(shape.clone(), statement);
            }
        }
        Ok(())
    }

    /// Sends the whole transaction without waiting for replies in between, then looks at all of them.
    ///
    /// The checkpoint moves first: it locks its row, so that a writer that lost its lock fails before it can
    /// touch anything. A statement that fails makes all behind it fail, COMMIT included.
    async fn send(&self, block: &Advance, steps: &[Step]) -> Result<(), ApplyError> {
        let height = block.at.height.to_sql();
        let parameters: Vec<Vec<&(dyn ToSql + Sync)>> =
            steps.iter().map(|step| bound(step, &height)).collect();
        let mut sent = Batch::default();
        sent.start(
            Part::Begin,
            self.client.batch_execute("begin; set constraints all deferred").map_ok(|()| 0),
        )
        .await;
        sent.start(Part::Advance, self.advance(block)).await;
        for (index, (step, parameters)) in steps.iter().zip(&parameters).enumerate() {
            let statement = &self.statements[&step.shape];
            sent.start(Part::Step(index), self.client.execute_raw(statement, parameters.iter().copied()))
                .await;
        }
        // A trigger may keep rows out: there COMMIT waits for the counts.
        let watched =
            steps.iter().any(|step| !self.targets.list()[step.shape.table].table.triggers.is_empty());
        if !watched {
            sent.start(Part::Commit, self.client.batch_execute("commit").map_ok(|()| 0)).await;
            crash_point("commit-sent");
        }
        let counts = match sent.finish().await {
            Ok(counts) => counts,
            Err((part, source)) => return Err(self.give_up(steps, part, source).await),
        };
        self.check(steps, &counts)?;
        if watched {
            self.client
                .batch_execute("commit")
                .await
                .map_err(|source| self.explain(steps, Part::Commit, source))?;
        }
        Ok(())
    }

    async fn advance(&self, block: &Advance) -> Result<u64, tokio_postgres::Error> {
        let from = self.checkpoint.block;
        let from_hash = from.map(|from| from.hash.as_bytes().to_vec());
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &self.pipeline.id,
            &self.epoch,
            &from.map(|from| from.height.to_sql()),
            &from_hash,
            &block.at.height.to_sql(),
            &&block.at.hash.as_bytes()[..],
            &i32::try_from(block.changes).unwrap_or(i32::MAX),
            &(block.journaling == Journaling::Kept),
        ];
        self.client.execute(&self.advance, &parameters).await
    }

    /// Rolls the failed transaction back and finds out more about what failed.
    async fn give_up(&self, steps: &[Step], part: Part, source: tokio_postgres::Error) -> ApplyError {
        // Whether or not this succeeds, the connection is not used for another block.
        if self.client.batch_execute("rollback").await.is_err() {
            return self.explain(steps, part, source);
        }
        let error = self.explain(steps, part, source);
        self.name_column(steps, error).await
    }

    fn explain(&self, steps: &[Step], part: Part, source: tokio_postgres::Error) -> ApplyError {
        match part {
            Part::Begin => transaction_error(&self.pipeline.name, "begin", source),
            Part::Advance => transaction_error(&self.pipeline.name, "move the checkpoint", source),
            Part::Commit => transaction_error(&self.pipeline.name, "commit", source),
            Part::Step(index) => self.statement_error(&steps[index].shape, source),
        }
    }

    fn statement_error(&self, shape: &Shape, source: tokio_postgres::Error) -> ApplyError {
        let column = source.as_db_error().and_then(|error| error.column()).map(str::to_owned);
        let table = self.targets.list()[shape.table].table.name.clone();
        ApplyError::Statement { doing: shape.action.doing(), table, column, source }
    }

    fn check(&self, steps: &[Step], counts: &[u64]) -> Result<(), ApplyError> {
        let mut previous = 0;
        for (step, got) in steps.iter().zip(counts) {
            if !step.expected.holds(previous, *got) {
                let table = self.targets.list()[step.shape.table].table.name.clone();
                return Err(ApplyError::RowsMissing { table, expected: step.expected.rows(), got: *got });
            }
            previous = *got;
        }
        Ok(())
    }

    /// PostgreSQL does not say which parameter it could not read, or not store in a column of that length or
    /// domain: each column is cast again by itself.
    async fn name_column(&self, steps: &[Step], error: ApplyError) -> ApplyError {
        let ApplyError::Statement { doing, table, column: None, source } = error else { return error };
        // Class 22: data exceptions. A violation that names no table is a domain's.
        let of_domain = source.as_db_error().is_some_and(|error| {
            error.table().is_none()
                && [SqlState::CHECK_VIOLATION, SqlState::NOT_NULL_VIOLATION].contains(error.code())
        });
        if !of_domain && !source.code().is_some_and(|code| code.code().starts_with("22")) {
            return ApplyError::Statement { doing, table, column: None, source };
        }
        for step in steps.iter().filter(|step| self.targets.list()[step.shape.table].table.name == table) {
            let found = &self.targets.list()[step.shape.table].table;
            for (column, texts) in found.key.iter().chain(&step.shape.values).zip(&step.arrays) {
                let column = &found.columns[*column];
                if self.is_unfit(column, texts).await {
                    return ApplyError::Statement { doing, table, column: Some(column.name.clone()), source };
                }
            }
        }
        ApplyError::Statement { doing, table, column: None, source }
    }

    async fn is_unfit(&self, column: &Column, texts: &Vec<Datum>) -> bool {
        let Column { type_sql, declared, .. } = column;
        // An explicit cast cuts strings off (`varchar`, `char`, `bit`, `varbit`) where an assignment refuses to.
        const CUT_OFF: [u32; 4] = [1043, 1042, 1560, 1562];
        let cut_off = match CUT_OFF.contains(&column.type_oid) {
            true => format!("bool_or(text::{type_sql} <> text::{type_sql}::{declared})"),
            false => "false".to_owned(),
        };
        let sql = format!(
            "-- apply::writer::is_unfit\n\
             select count(text::{type_sql}::{declared}), coalesce({cut_off}, false) \
               from unnest($1::pg_catalog.text[]) u (text)"
        );
        match self.client.query_one(&sql, &[texts]).await {
            Ok(row) => row.get(1),
            Err(error) => error.code().is_some(),
        }
    }
}

/// Where the checkpoint goes.
struct Advance {
    at: BlockRef,
    changes: u64,
    journaling: Journaling,
}

const ADVANCE: &str = "-- apply::writer::advance\nselect debshrew.advance($1, $2, $3, $4, $5, $6, $7, $8)";

/// Whatever the role's or the database's settings are: what a value's text means is the same everywhere, no block
/// is too long, and no pause between two. (Not every version of PostgreSQL has each of those time limits.)
async fn prepare_session(client: &Client, pipeline: &Registered) -> Result<(), ApplyError> {
    // A plan made while a table is small would scan it for ever; compiling plans of this size costs more than
    // running them.
    let sql = format!(
        "-- apply::writer::prepare_session\n\
         set enable_seqscan = off; set jit = off; set plan_cache_mode = force_generic_plan;\n\
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

fn bound<'a>(step: &'a Step, height: &'a i32) -> Vec<&'a (dyn ToSql + Sync)> {
    let arrays = step.arrays.iter().map(|array| array as &(dyn ToSql + Sync));
    match step.shape.action {
        plan::Action::Journal => arrays.chain([height as &(dyn ToSql + Sync)]).collect(),
        _ => arrays.collect(),
    }
}

/// A part of a block's transaction.
#[derive(Clone, Copy, Debug)]
enum Part {
    Begin,
    Advance,
    Step(usize),
    Commit,
}

type Failed = (Part, tokio_postgres::Error);
type Request<'a> = BoxFuture<'a, Result<u64, tokio_postgres::Error>>;

/// Statements on their way. A request leaves when its future is polled first; so each is polled once, in
/// order, before any reply is waited for.
#[derive(Default)]
struct Batch<'a> {
    waiting: Vec<(Part, MaybeDone<Request<'a>>)>,
    /// One could not even be sent: nothing is sent after it, COMMIT least of all.
    unsent: Option<Failed>,
}

impl<'a> Batch<'a> {
    async fn start(
        &mut self,
        part: Part,
        request: impl Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'a,
    ) {
        if self.unsent.is_some() {
            return;
        }
        crash_point("before-statement");
        let mut request = maybe_done(request.boxed());
        if poll!(&mut request).is_ready() {
            match Pin::new(&mut request).take_output() {
                Some(Err(error)) => {
                    self.unsent = Some((part, error));
                    return;
                }
                other => request = maybe_done(ready(other.unwrap_or(Ok(0))).boxed()),
            }
        }
        self.waiting.push((part, request));
    }

    /// How many rows each step affected, or the first failure: what comes behind it fails because of it.
    async fn finish(self) -> Result<Vec<u64>, Failed> {
        let mut counts = Vec::new();
        for (part, mut request) in self.waiting {
            (&mut request).await;
            match (part, Pin::new(&mut request).take_output()) {
                (Part::Step(_), Some(Ok(count))) => counts.push(count),
                (_, Some(Err(error))) => return Err((part, error)),
                _ => {}
            }
            crash_point("after-statement");
        }
        self.unsent.map_or(Ok(counts), Err)
    }
}
