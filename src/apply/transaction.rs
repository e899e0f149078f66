//! A block's transaction: prepared, sent without waiting for replies, looked at when they come; and what can be
//! found out about one that failed.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::pin::Pin;

use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::{FutureExt, TryFutureExt, poll};
use indexmap::IndexMap;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::checkpoint::Registered;
use super::plan::{self, Shape, Step};
use super::rows::Targets;
use super::writer::{Block, Durability, Journaling};
use super::{ApplyError, crash_point, keys, transaction_error};
use crate::block::BlockRef;
use crate::change::fold::{Key, Net, fold};
use crate::db::DbError;
use crate::db::catalog::Column;

/// The most prepared statements that are kept; when there are more, all are prepared again as needed.
const MOST_STATEMENTS: usize = 500;

/// A block that was sent.
pub(super) struct Sent<'a> {
    pub(super) at: BlockRef,
    pub(super) rows: usize,
    pub(super) changes: u64,
    pub(super) journaling: Journaling,
    pub(super) replies: MaybeDone<BoxFuture<'a, Result<(), ApplyError>>>,
}

/// A block that can be sent.
pub(super) struct Prepared {
    at: BlockRef,
    from: Option<BlockRef>,
    /// Rows that are touched, the state's among them.
    pub(super) rows: usize,
    changes: u64,
    journaling: Journaling,
    durability: Durability,
    nets: Vec<(usize, IndexMap<Key, Net>)>,
    /// By shape, all that the block needs.
    statements: HashMap<Shape, Statement>,
    /// A trigger may keep rows out: there COMMIT waits for the counts.
    pub(super) is_watched: bool,
}

impl Prepared {
    fn steps<'a>(&'a self, targets: &Targets) -> Vec<Step<'a>> {
        plan::statements(targets, &self.nets, self.journaling)
    }
}

/// What it takes to send blocks; the writer's parts that do not change meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) client: &'a Client,
    pub(super) pipeline: &'a Registered,
    pub(super) epoch: i64,
    pub(super) targets: &'a Targets,
    pub(super) advance: &'a Statement,
}

impl<'a> Sender<'a> {
    /// Folds the block's changes and prepares the statements that are not prepared yet.
    pub(super) async fn prepare(
        self,
        from: Option<BlockRef>,
        mut block: Block,
        known: &mut HashMap<Shape, Statement>,
    ) -> Result<Prepared, ApplyError> {
        keys::canonicalise(self.client, self.targets.list(), &mut block.rows).await?;
        let Block { at, rows, journaling, durability } = block;
        let nets: Vec<(usize, IndexMap<Key, Net>)> =
            rows.0.into_iter().map(|(table, rows)| (table, fold(rows))).collect();
        if known.len() > MOST_STATEMENTS {
            known.clear();
        }
        let mut statements = HashMap::new();
        for Step { shape, .. } in plan::statements(self.targets, &nets, journaling) {
            let statement = match known.get(&shape) {
                Some(statement) => statement.clone(),
                None => {
                    let prepared = self.client.prepare(&shape.sql(self.targets)).await;
                    let statement = prepared.map_err(|source| self.statement_error(&shape, source))?;
                    known.insert(shape.clone(), statement.clone());
                    statement
                }
            };
            statements.insert(shape, statement);
        }
        let state = self.targets.state();
        let count = |of_state: bool| {
            nets.iter()
                .filter(|(table, _)| (*table == state) == of_state)
                .map(|(_, rows)| rows.len())
                .sum::<usize>()
        };
        let changes = count(false);
        let rows = changes + count(true);
        let is_watched = nets.iter().any(|(table, _)| !self.targets.list()[*table].table.triggers.is_empty());
        let changes = changes as u64;
        Ok(Prepared { at, from, rows, changes, journaling, durability, nets, statements, is_watched })
    }

    /// Sends the whole transaction without waiting for replies.
    pub(super) async fn send(self, block: Prepared) -> Sent<'a> {
        let Prepared { at, rows, changes, journaling, .. } = block;
        let mut replies = maybe_done(self.transact(block).boxed());
        // Sends everything, up to where it waits for the first reply.
        let _ = poll!(&mut replies);
        Sent { at, rows, changes, journaling, replies }
    }

    /// Sends the whole transaction without waiting for replies in between, then looks at all of them.
    ///
    /// The checkpoint moves first: it locks its row, so that a writer that lost its lock fails before it can
    /// touch anything. A statement that fails makes all behind it fail, COMMIT included.
    async fn transact(self, block: Prepared) -> Result<(), ApplyError> {
        let height = block.at.height.to_sql();
        let steps = block.steps(self.targets);
        let parameters: Vec<Vec<&(dyn ToSql + Sync)>> =
            steps.iter().map(|step| bound(step, &height)).collect();
        let begin = match block.durability {
            Durability::Strict => "begin; set constraints all deferred",
            Durability::Lazy => "begin; set local synchronous_commit = off; set constraints all deferred",
        };
        let mut sent = Batch::default();
        sent.start(Part::Begin, self.client.batch_execute(begin).map_ok(|()| 0)).await;
        sent.start(Part::Advance, self.advance(&block)).await;
        for (index, (step, parameters)) in steps.iter().zip(&parameters).enumerate() {
            let statement = &block.statements[&step.shape];
            sent.start(Part::Step(index), self.count(statement, parameters)).await;
        }
        if !block.is_watched {
            sent.start(Part::Commit, self.client.batch_execute("commit").map_ok(|()| 0)).await;
            crash_point("commit-sent");
        }
        let counts = match sent.finish().await {
            Ok(counts) => counts,
            Err((part, source)) => return Err(self.give_up(&steps, part, source).await),
        };
        self.check(&steps, &counts)?;
        if block.is_watched {
            self.client
                .batch_execute("commit")
                .await
                .map_err(|source| self.explain(&steps, Part::Commit, source))?;
        }
        Ok(())
    }

    /// How many rows the statement put or deleted.
    async fn count(
        self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, tokio_postgres::Error> {
        if statement.columns().is_empty() {
            return self.client.execute(statement, parameters).await;
        }
        let row = self.client.query_one(statement, parameters).await?;
        Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
    }

    async fn advance(self, block: &Prepared) -> Result<u64, tokio_postgres::Error> {
        let from_hash = block.from.map(|from| from.hash.as_bytes().to_vec());
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &self.pipeline.id,
            &self.epoch,
            &block.from.map(|from| from.height.to_sql()),
            &from_hash,
            &block.at.height.to_sql(),
            &&block.at.hash.as_bytes()[..],
            &i32::try_from(block.changes).unwrap_or(i32::MAX),
            &(block.journaling == Journaling::Kept),
        ];
        self.client.execute(self.advance, &parameters).await
    }

    /// Rolls the failed transaction back and finds out more about what failed.
    async fn give_up(&self, steps: &[Step<'_>], part: Part, source: tokio_postgres::Error) -> ApplyError {
        // Whether or not this succeeds, the connection is not used for another block.
        if self.client.batch_execute("rollback").await.is_err() {
            return self.explain(steps, part, source);
        }
        let error = self.explain(steps, part, source);
        self.name_column(steps, error).await
    }

    fn explain(&self, steps: &[Step<'_>], part: Part, source: tokio_postgres::Error) -> ApplyError {
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

    fn check(&self, steps: &[Step<'_>], counts: &[u64]) -> Result<(), ApplyError> {
        for (step, got) in steps.iter().zip(counts) {
            if !step.is_done_by(*got) {
                let table = self.targets.list()[step.shape.table].table.name.clone();
                return Err(ApplyError::RowsMissing { table, expected: step.rows, got: *got });
            }
        }
        Ok(())
    }

    /// PostgreSQL does not say which parameter it could not read, or not store in a column of that length or
    /// domain: each column is cast again by itself.
    async fn name_column(&self, steps: &[Step<'_>], error: ApplyError) -> ApplyError {
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

    async fn is_unfit(&self, column: &Column, texts: &[Option<&str>]) -> bool {
        let Column { type_sql, declared, .. } = column;
        // An explicit cast cuts strings off (`varchar`, `char`, `bit`, `varbit`) where an assignment refuses to.
        const CUT_OFF: [u32; 4] = [1043, 1042, 1560, 1562];
        let cut_off = match CUT_OFF.contains(&column.type_oid) {
            true => format!("bool_or(text::{type_sql} <> text::{type_sql}::{declared})"),
            false => "false".to_owned(),
        };
        let sql = format!(
            "-- apply::transaction::is_unfit\n\
             select count(text::{type_sql}::{declared}), coalesce({cut_off}, false) \
               from unnest($1::pg_catalog.text[]) u (text)"
        );
        match self.client.query_one(&sql, &[&texts]).await {
            Ok(row) => row.get(1),
            Err(error) => error.code().is_some(),
        }
    }
}

pub(super) async fn prepare_advance(client: &Client) -> Result<Statement, DbError> {
    client.prepare(ADVANCE).await.map_err(DbError::statement("prepare the checkpoint's move"))
}

const ADVANCE: &str =
    "-- apply::transaction::advance\nselect debshrew.advance($1, $2, $3, $4, $5, $6, $7, $8)";

fn bound<'a>(step: &'a Step<'_>, height: &'a i32) -> Vec<&'a (dyn ToSql + Sync)> {
    let arrays = step.arrays.iter().map(|array| array as &(dyn ToSql + Sync));
    match step.shape.journaling {
        Journaling::Kept => arrays.chain([height as &(dyn ToSql + Sync)]).collect(),
        Journaling::Skipped => arrays.collect(),
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
