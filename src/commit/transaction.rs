//! A block's transaction: prepared, sent without waiting for replies, looked at when they come.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::{FutureExt, TryFutureExt, poll};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::order::Order;
use super::plan::{self, Images, Shape, Step};
use super::{Block, CommitError, Durability, Journaling};
use crate::block::BlockRef;
use crate::failure::crash_point;
use crate::register::{Checkpoint, Lease, Move, RegisterError};
use crate::table::Tables;

/// The most statements that are kept prepared in the session. A plan takes some hundred kilobytes there.
pub(super) const MAX_STATEMENTS: usize = 256;

/// Statements that are prepared, each with when it was used last.
#[derive(Default)]
pub(super) struct Statements {
    by_shape: HashMap<Shape, (Statement, u64)>,
    uses: u64,
}

impl Statements {
    fn get(&mut self, shape: &Shape) -> Option<Statement> {
        self.uses += 1;
        let (statement, used) = self.by_shape.get_mut(shape)?;
        *used = self.uses;
        Some(statement.clone())
    }

    /// Lets go of the one that was not used for longest, if there are too many.
    fn add(&mut self, shape: &Shape, statement: &Statement) {
        if self.by_shape.len() >= MAX_STATEMENTS {
            let oldest = self.by_shape.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(shape) = oldest.map(|(shape, _)| shape.clone()) {
                self.by_shape.remove(&shape);
            }
        }
        self.by_shape.insert(shape.clone(), (statement.clone(), self.uses));
    }
}

/// A block that can be sent.
pub(super) struct Prepared {
    pub(super) block: Block,
    pub(super) order: Order,
    from: Option<BlockRef>,
    /// Rows that are touched, the state's among them.
    pub(super) rows: usize,
    /// Those of the user's tables.
    pub(super) changes: usize,
    steps: Vec<Step>,
    /// One a step, unless there are too many to have all of them at once.
    statements: Vec<Statement>,
}

impl Prepared {
    /// Whether its statements must be prepared on the way, so that no other block can be on its way with it.
    pub(super) fn is_alone(&self) -> bool {
        self.statements.len() < self.steps.len()
    }

    fn journaled(&self) -> bool {
        self.block.journaling == Journaling::Kept
    }

    fn advance(&self) -> Move {
        Move {
            from: self.from,
            to: self.block.at,
            changes: self.changes,
            journaled: self.journaled(),
            state_root: self.block.state_root,
        }
    }

    fn begin(&self) -> &'static str {
        match self.block.durability {
            Durability::Strict => "begin; set constraints all deferred",
            Durability::Lazy => "begin; set local synchronous_commit = off; set constraints all deferred",
        }
    }
}

/// A block that was sent.
pub(super) struct Sent<'a> {
    pub(super) block: Arc<Prepared>,
    parts: Parts<'a>,
}

impl Sent<'_> {
    /// A part of it did not leave: nothing may be sent behind it.
    pub(super) fn has_gap(&self) -> bool {
        self.parts.unsent.is_some()
    }

    /// Waits for the replies.
    pub(super) async fn replies(self) -> Replied {
        let Sent { block, parts } = self;
        let result = parts.finish().await;
        Replied { block, result }
    }

    /// Takes replies that have come, in their order; says whether all have. The driver reads on only while somebody takes the
    /// replies of the first request that is not answered in full.
    pub(super) async fn take_replies(&mut self) -> bool {
        for (_, request) in &mut self.parts.waiting {
            if !matches!(request, MaybeDone::Done(_)) && poll!(&mut *request).is_pending() {
                return false;
            }
        }
        true
    }
}

/// A block whose replies have come.
pub(super) struct Replied {
    pub(super) block: Arc<Prepared>,
    result: Result<Option<Checkpoint>, Failed>,
}

impl Replied {
    pub(super) fn is_committed(&self) -> bool {
        self.result.is_ok()
    }
}

/// What it takes to send blocks.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) lease: &'a Lease,
    pub(super) tables: &'a Tables,
}

impl<'a> Sender<'a> {
    pub(super) fn client(self) -> &'a Client {
        self.lease.client()
    }

    /// Plans the block and prepares the statements that are not prepared yet.
    pub(super) async fn prepare(
        self,
        from: Option<BlockRef>,
        block: Block,
        order: Order,
        known: &mut Statements,
    ) -> Result<Prepared, (Block, CommitError)> {
        let steps = match plan::steps(self.tables, &block.changes, block.journaling, order) {
            Ok(steps) => steps,
            Err(error) => return Err((block, error)),
        };
        let mut distinct: HashMap<&Shape, Option<Statement>> = HashMap::new();
        for step in &steps {
            distinct.entry(&step.shape).or_default();
        }
        let mut statements = Vec::new();
        if distinct.len() <= MAX_STATEMENTS {
            for step in &steps {
                let found = distinct.get(&step.shape).cloned().flatten();
                let statement = match found {
                    Some(statement) => statement,
                    None => match self.statement(&step.shape, known).await {
                        Ok(statement) => statement,
                        Err(error) => return Err((block, error)),
                    },
                };
                distinct.insert(&step.shape, Some(statement.clone()));
                statements.push(statement);
            }
        }
        drop(distinct);
        let (changes, rows) = (block.changes.changes(self.tables), block.changes.rows());
        Ok(Prepared { block, order, from, rows, changes, steps, statements })
    }

    async fn statement(self, shape: &Shape, known: &mut Statements) -> Result<Statement, CommitError> {
        if let Some(statement) = known.get(shape) {
            return Ok(statement);
        }
        let statement = self.client().prepare(&shape.sql(self.tables)).await;
        let statement = statement.map_err(|source| self.statement_error(shape, source))?;
        known.add(shape, &statement);
        Ok(statement)
    }

    /// Sends the whole transaction without waiting for replies.
    pub(super) async fn send(self, block: Prepared) -> Sent<'a> {
        let block = Arc::new(block);
        let mut parts = Parts::default();
        parts.start(Part::Begin, self.simple(block.begin())).await;
        parts.start(Part::Advance, self.advance(&block)).await;
        for index in 0..block.steps.len() {
            let statement = block.statements[index].clone();
            parts.start(Part::Step(index), self.step(&block, index, statement)).await;
        }
        parts.start(Part::Commit, self.simple("commit")).await;
        if parts.unsent.is_none() {
            crash_point("commit-sent");
        }
        Sent { block, parts }
    }

    /// The checkpoint that there is now, or why the block failed. Nothing else may be on its way: what failed is looked into.
    pub(super) async fn outcome(self, replied: Replied) -> (Arc<Prepared>, Result<Checkpoint, CommitError>) {
        let Replied { block, result } = replied;
        let result = match result {
            Ok(checkpoint) => self.moved(checkpoint),
            Err((part, source)) => Err(self.give_up(&block, part, source).await),
        };
        (block, result)
    }

    /// Sends a block of very many statements, some at a time: they are prepared on the way and let go of again.
    pub(super) async fn send_alone(
        self,
        block: &Arc<Prepared>,
        known: &mut Statements,
    ) -> Result<Checkpoint, CommitError> {
        let mut parts = Parts::default();
        parts.start(Part::Begin, self.simple(block.begin())).await;
        parts.start(Part::Advance, self.advance(block)).await;
        let mut checkpoint = None;
        let indexes: Vec<usize> = (0..block.steps.len()).collect();
        for some in indexes.chunks(MAX_STATEMENTS / 2) {
            for index in some {
                // Were the transaction given up by now, what was sent before says why.
                let statement = match self.statement(&block.steps[*index].shape, known).await {
                    Ok(statement) => statement,
                    Err(error) => {
                        let (part, source) = match parts.finish().await {
                            Ok(_) => return Err(error),
                            Err(failed) => failed,
                        };
                        return Err(self.give_up(block, part, source).await);
                    }
                };
                parts.start(Part::Step(*index), self.step(block, *index, statement)).await;
            }
            match std::mem::take(&mut parts).finish().await {
                Ok(found) => checkpoint = checkpoint.or(found),
                Err((part, source)) => return Err(self.give_up(block, part, source).await),
            }
        }
        let committed = self.client().batch_execute("commit").await;
        committed.map_err(|source| CommitError::Transaction { doing: "commit", source })?;
        self.moved(checkpoint)
    }

    fn moved(self, checkpoint: Option<Checkpoint>) -> Result<Checkpoint, CommitError> {
        let pipeline = &self.lease.pipeline().name;
        checkpoint.ok_or_else(|| RegisterError::Fenced { pipeline: pipeline.clone() }.into())
    }

    fn simple(self, sql: &'static str) -> impl Future<Output = Reply> + Send + 'a {
        self.client().batch_execute(sql).map_ok(|()| None).map_err(Refusal::Postgres)
    }

    fn advance(self, block: &Arc<Prepared>) -> impl Future<Output = Reply> + Send + 'a {
        let step = block.advance();
        self.lease.advance(step).map_ok(Some).map_err(Refusal::Register)
    }

    fn step(
        self,
        block: &Arc<Prepared>,
        index: usize,
        statement: Statement,
    ) -> impl Future<Output = Reply> + Send + 'a {
        let block = Arc::clone(block);
        async move {
            let height = block.block.at.height.to_sql();
            let parameters = bound(&block.steps[index], &height);
            let sent = self.client().execute(&statement, &parameters);
            sent.await.map(|_| None).map_err(Refusal::Postgres)
        }
    }

    /// Rolls the failed transaction back and finds out more about what failed.
    async fn give_up(self, block: &Prepared, part: Part, source: Refusal) -> CommitError {
        // Whether or not this succeeds, nothing of it is in the database.
        let rolled_back = self.client().batch_execute("rollback").await;
        let error = self.explain(&block.steps, part, source);
        match rolled_back {
            Ok(()) => self.name_value(&block.steps, error).await,
            Err(_) => error,
        }
    }

    fn explain(self, steps: &[Step], part: Part, source: Refusal) -> CommitError {
        let source = match source {
            Refusal::Register(error) => return error.into(),
            Refusal::Postgres(source) => source,
        };
        match part {
            Part::Begin => CommitError::Transaction { doing: "begin", source },
            Part::Advance => CommitError::Transaction { doing: "move the checkpoint", source },
            Part::Commit => CommitError::Transaction { doing: "commit", source },
            Part::Step(index) => self.step_error(&steps[index], source),
        }
    }
}

fn bound<'a>(step: &'a Step, height: &'a i32) -> Vec<&'a (dyn ToSql + Sync)> {
    let arrays = step.arrays.iter().map(|array| array as &(dyn ToSql + Sync));
    match step.shape.images {
        Images::None => arrays.collect(),
        Images::Made | Images::Set | Images::Whole => arrays.chain([height as &(dyn ToSql + Sync)]).collect(),
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

/// Why a part failed.
#[derive(Debug)]
enum Refusal {
    Postgres(tokio_postgres::Error),
    Register(RegisterError),
}

/// What came of a part: the checkpoint, of the one that moves it.
type Reply = Result<Option<Checkpoint>, Refusal>;
type Request<'a> = BoxFuture<'a, Reply>;
type Failed = (Part, Refusal);

/// Parts on their way. A request leaves when its future is polled first; so each is polled once, in
/// order, before any reply is waited for.
#[derive(Default)]
struct Parts<'a> {
    waiting: Vec<(Part, MaybeDone<Request<'a>>)>,
    /// One could not even be sent: nothing is sent after it, COMMIT least of all.
    unsent: Option<Failed>,
}

impl<'a> Parts<'a> {
    async fn start(&mut self, part: Part, request: impl Future<Output = Reply> + Send + 'a) {
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
                other => request = maybe_done(ready(other.unwrap_or(Ok(None))).boxed()),
            }
        }
        self.waiting.push((part, request));
    }

    /// The checkpoint, or the first failure: what comes behind it fails because of it.
    async fn finish(self) -> Result<Option<Checkpoint>, Failed> {
        let mut checkpoint = None;
        for (part, mut request) in self.waiting {
            (&mut request).await;
            match Pin::new(&mut request).take_output() {
                Some(Ok(found)) => checkpoint = checkpoint.or(found),
                Some(Err(error)) => return Err((part, error)),
                None => {}
            }
            crash_point("after-statement");
        }
        self.unsent.map_or(Ok(checkpoint), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn nothing_is_sent_behind_a_part_that_did_not_leave() {
        let sent = AtomicUsize::new(0);
        let part = |reply: Option<Reply>| async {
            sent.fetch_add(1, Ordering::Relaxed);
            match reply {
                Some(reply) => reply,
                // On its way: the reply never comes.
                None => std::future::pending().await,
            }
        };
        let unsent = || Refusal::Postgres("port=none".parse::<tokio_postgres::Config>().unwrap_err());
        let mut parts = Parts::default();
        parts.start(Part::Begin, part(None)).await;
        parts.start(Part::Step(0), part(Some(Err(unsent())))).await;
        parts.start(Part::Step(1), part(None)).await;
        parts.start(Part::Commit, part(None)).await;
        assert_eq!(sent.load(Ordering::Relaxed), 2);
        assert!(matches!(parts.unsent, Some((Part::Step(0), _))));
    }
}
