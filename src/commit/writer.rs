//! Commits blocks one on top of the other, several of them on their way at once.
//!
//! Whatever goes wrong, the caller drops the lease with its connection and takes a new one, which reads the checkpoint
//! first: so a lost reply to COMMIT is found out, and nothing is ever applied twice.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::pending;
use tokio_postgres::Client;

use super::order::{Order, first_order};
use super::transaction::{Prepared, Sender, Sent, Statements};
use super::{Block, CommitError};
use crate::block::BlockRef;
use crate::db::{DbError, quote};
use crate::register::{Checkpoint, Lease, Registered};
use crate::table::Tables;

/// The most blocks that are sent before the first of them is known to be committed.
const MAX_SENT: usize = 4;

/// No further block is sent while more rows than this are on their way.
const MAX_ROWS_SENT: usize = 5_000;

/// What commits blocks in a lease's session.
#[derive(Default)]
pub struct Writer {
    statements: Statements,
}

/// A block, and the order in which its changes are to be tried.
type Queued = (Block, Order);

/// What stopped blocks on their way.
struct Stopped {
    at: BlockRef,
    order: Order,
    error: CommitError,
    block: Option<Block>,
    /// The blocks behind it that were taken already; nothing of them is in the database.
    behind: Vec<Block>,
}

impl Writer {
    /// Sets up the lease's session for the statements of blocks.
    pub async fn new(lease: &Lease) -> Result<Writer, CommitError> {
        prepare_session(lease.client(), lease.pipeline()).await?;
        Ok(Writer::default())
    }

    /// Commits blocks one on top of the other, each in its transaction, the first on the lease's checkpoint. `committed`
    /// is told each one and how many rows it changed. On a failure the blocks before it are committed, it and those
    /// after it are not, and this lease is of no more use.
    ///
    /// Blocks are sent without waiting for the ones before: should one fail, the checkpoint is not where the next
    /// one expects it.
    pub async fn commit_all(
        &mut self,
        lease: &mut Lease,
        tables: &Tables,
        blocks: impl IntoIterator<Item = Block>,
        mut committed: impl FnMut(BlockRef, u64),
    ) -> Result<(), (BlockRef, CommitError)> {
        let queued = |block: Block| {
            let order = first_order(tables, &block.changes);
            (block, order)
        };
        let mut blocks = blocks.into_iter();
        let mut again: VecDeque<Queued> = VecDeque::new();
        // What the block that is tried again failed with before.
        let mut objection: Option<(BlockRef, CommitError)> = None;
        loop {
            let mut checkpoint = lease.checkpoint();
            let next = || again.pop_front().or_else(|| blocks.next().map(queued));
            let way = Way { sender: Sender { lease, tables }, sent: VecDeque::new(), rows: 0 };
            let mut arrived = |now: Checkpoint, at: BlockRef, changes: usize| {
                checkpoint = now;
                committed(at, changes as u64);
            };
            let done = way.run(next, &mut self.statements, lease.checkpoint().block, &mut arrived).await;
            lease.moved(checkpoint);
            let Err(stopped) = done else { return Ok(()) };
            let Stopped { at, order, error, block, behind } = *stopped;
            let tried = objection.as_ref().is_some_and(|(tried, _)| *tried == at);
            match block {
                Some(block) if !tried && error.may_pass(order.other()) => {
                    let other = order.other();
                    tracing::debug!(height = at.height.get(), order = ?other, "applying the block in another order");
                    let behind = behind.into_iter().map(queued);
                    again = [(block, other)].into_iter().chain(behind).chain(again).collect();
                    objection = Some((at, error));
                }
                // Of both the first says more, but for the row that was kept out: one by one, it is known.
                _ => {
                    let says_row = matches!(error, CommitError::RowsMissing { row: Some(_), .. });
                    let first = objection.filter(|(_, first)| {
                        let same = says_row && matches!(first, CommitError::RowsMissing { .. });
                        tried && !same && error.may_pass(Order::Emission)
                    });
                    return Err(first.unwrap_or((at, error)));
                }
            }
        }
    }
}

/// Blocks on their way to the database.
struct Way<'a> {
    sender: Sender<'a>,
    sent: VecDeque<Sent<'a>>,
    rows: usize,
}

impl Way<'_> {
    async fn run(
        mut self,
        mut next: impl FnMut() -> Option<Queued>,
        statements: &mut Statements,
        mut from: Option<BlockRef>,
        arrived: &mut impl FnMut(Checkpoint, BlockRef, usize),
    ) -> Result<(), Box<Stopped>> {
        while let Some((block, order)) = next() {
            while self.sent.len() >= MAX_SENT || (self.rows > MAX_ROWS_SENT && !self.sent.is_empty()) {
                if let Err(mut stopped) = self.arrive(arrived).await {
                    stopped.behind.push(block);
                    return Err(stopped);
                }
            }
            let at = block.at;
            match self.prepare(from, block, order, statements).await {
                Ok(prepared) if prepared.is_alone() => self.send_alone(prepared, statements, arrived).await?,
                Ok(prepared) => self.send(prepared, arrived).await?,
                Err((block, error)) => {
                    if let Err(mut stopped) = self.arrive_all(arrived).await {
                        stopped.behind.push(block);
                        return Err(stopped);
                    }
                    return Err(Box::new(Stopped {
                        at,
                        order,
                        error,
                        block: Some(block),
                        behind: Vec::new(),
                    }));
                }
            }
            from = Some(at);
        }
        self.arrive_all(arrived).await
    }

    /// Prepares a block while the replies to those on their way are taken.
    async fn prepare(
        &mut self,
        from: Option<BlockRef>,
        block: Block,
        order: Order,
        statements: &mut Statements,
    ) -> Result<Prepared, (Block, CommitError)> {
        let sent = &mut self.sent;
        let taking = async {
            loop {
                for sent in sent.iter_mut() {
                    if !sent.take_replies().await {
                        break;
                    }
                }
                // Woken when the next reply comes.
                pending!();
            }
        };
        tokio::select! {
            biased;
            prepared = self.sender.prepare(from, block, order, statements) => prepared,
            () = taking => unreachable!("it is pending for ever"),
        }
    }

    async fn send(
        &mut self,
        prepared: Prepared,
        arrived: &mut impl FnMut(Checkpoint, BlockRef, usize),
    ) -> Result<(), Box<Stopped>> {
        self.rows += prepared.rows;
        let sent = self.sender.send(prepared).await;
        let has_gap = sent.has_gap();
        self.sent.push_back(sent);
        if has_gap { self.arrive_all(arrived).await } else { Ok(()) }
    }

    async fn send_alone(
        &mut self,
        prepared: Prepared,
        statements: &mut Statements,
        arrived: &mut impl FnMut(Checkpoint, BlockRef, usize),
    ) -> Result<(), Box<Stopped>> {
        if let Err(mut stopped) = self.arrive_all(arrived).await {
            stopped.behind.push(prepared.block);
            return Err(stopped);
        }
        let prepared = Arc::new(prepared);
        match self.sender.send_alone(&prepared, statements).await {
            Ok(checkpoint) => {
                arrived(checkpoint, prepared.block.at, prepared.changes);
                Ok(())
            }
            Err(error) => Err(Stopped::new(prepared, error)),
        }
    }

    async fn arrive_all(
        &mut self,
        arrived: &mut impl FnMut(Checkpoint, BlockRef, usize),
    ) -> Result<(), Box<Stopped>> {
        while !self.sent.is_empty() {
            self.arrive(arrived).await?;
        }
        Ok(())
    }

    /// The first of the blocks that were sent is committed, or has failed and with it all behind it.
    async fn arrive(
        &mut self,
        arrived: &mut impl FnMut(Checkpoint, BlockRef, usize),
    ) -> Result<(), Box<Stopped>> {
        let Some(sent) = self.sent.pop_front() else { return Ok(()) };
        let replied = sent.replies().await;
        let mut behind = Vec::new();
        if !replied.is_committed() {
            // All have failed as well. Their replies are taken first: while they lie there, no other reply comes.
            for sent in self.sent.drain(..) {
                let block = sent.replies().await.block;
                behind.extend(Arc::into_inner(block).map(|prepared| prepared.block));
            }
        }
        let (prepared, result) = self.sender.outcome(replied).await;
        match result {
            Ok(checkpoint) => {
                self.rows -= prepared.rows;
                arrived(checkpoint, prepared.block.at, prepared.changes);
                Ok(())
            }
            Err(error) => Err(Box::new(Stopped { behind, ..*Stopped::new(prepared, error) })),
        }
    }
}

impl Stopped {
    fn new(prepared: Arc<Prepared>, error: CommitError) -> Box<Stopped> {
        let (at, order) = (prepared.block.at, prepared.order);
        let block = Arc::into_inner(prepared).map(|prepared| prepared.block);
        Box::new(Stopped { at, order, error, block, behind: Vec::new() })
    }
}

/// Whatever the role's or the database's settings are: a block's plans are those that stay good.
async fn prepare_session(client: &Client, pipeline: &Registered) -> Result<(), CommitError> {
    // A plan made while a table is small would scan it for ever; compiling plans of this size costs more than
    // running them. Rows of a block stay in memory, where they are kept for several parts of a statement. Triggers
    // and defaults of the user's find their names in the pipeline's schema. Row security that would hide a row is an
    // error.
    let sql = format!(
        "-- commit::writer::prepare_session\n\
         set enable_seqscan = off; set plan_cache_mode = force_generic_plan; set work_mem = '64MB';\n\
         set default_transaction_isolation = 'read committed'; set row_security = off;\n\
         set application_name = {};\n\
         set search_path = {}",
        quote(&format!("debshrew/{}", pipeline.name)),
        quote(&pipeline.schema),
    );
    client.batch_execute(&sql).await.map_err(DbError::statement("set up the writer's session"))?;
    Ok(())
}
