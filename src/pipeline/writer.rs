//! The one writer of a pipeline: the lease, the tables, and what commits blocks and takes them back.
//!
//! Whatever goes wrong, the caller drops it and takes over anew, which reads the checkpoint first.

use std::sync::Arc;

use super::PipelineError;
use crate::block::{BlockRef, Height};
use crate::commit::{self, Block, CommitError};
use crate::db::Db;
use crate::register::{Cause, Checkpoint, Lease, RegisterError, Registered, RolledBack};
use crate::schema;
use crate::table::Tables;
use crate::undo::{self, Pruner};

pub struct Writer {
    lease: Lease,
    tables: Arc<Tables>,
    commits: commit::Writer,
}

impl Writer {
    /// Takes the pipeline's lock and the checkpoint with it; `None` while another process has them.
    pub async fn try_take_over(db: &Db, pipeline: &str) -> Result<Option<Writer>, PipelineError> {
        let Some(lease) = Lease::try_take(db, pipeline).await? else { return Ok(None) };
        let tables = Arc::new(schema::tables_in_step(lease.client(), lease.pipeline()).await?);
        let commits = commit::Writer::new(&lease).await?;
        Ok(Some(Writer { lease, tables, commits }))
    }

    pub fn pipeline(&self) -> &Registered {
        self.lease.pipeline()
    }

    /// The last committed block, and how far back the journal reaches.
    pub fn checkpoint(&self) -> Checkpoint {
        self.lease.checkpoint()
    }

    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Tells this writer from those before and after it.
    pub fn epoch(&self) -> i64 {
        self.lease.epoch()
    }

    /// Whether this is still connected, and so the writer, as far as can be told without asking.
    pub fn check_connected(&self) -> Result<(), PipelineError> {
        match self.lease.is_connected() {
            true => Ok(()),
            false => Err(CommitError::Disconnected { pipeline: self.pipeline().name.clone() }.into()),
        }
    }

    /// Waits until this is not the writer any more, as far as its heartbeat can tell, and says why.
    pub fn lost(&self) -> impl Future<Output = RegisterError> + Send + use<> {
        self.lease.lost()
    }

    /// Takes on what the configuration says of the pipeline, as far as that is safe.
    pub async fn align(&mut self, schema: &str, start_height: Height) -> Result<(), PipelineError> {
        Ok(self.lease.align(schema, start_height).await?)
    }

    /// Whether those who listen on the channel `debshrew` are told of blocks and rollbacks from now on.
    pub fn notify(&mut self, notify: bool) {
        self.lease.notify(notify);
    }

    /// Refuses if what is committed could not be rolled back any more, as a table is not fit for it now.
    pub async fn check_complete(&self) -> Result<(), PipelineError> {
        Ok(undo::refuse_lost(&self.lease, &self.tables).await?)
    }

    /// Commits one block, on top of the checkpoint. Returns how many rows it changed.
    pub async fn commit(&mut self, block: Block) -> Result<u64, PipelineError> {
        let mut changed = 0;
        self.commit_all([block], |_, changes| changed = changes).await?;
        Ok(changed)
    }

    /// Commits blocks one on top of the other; see [`commit::Writer::commit_all`].
    pub async fn commit_all(
        &mut self,
        blocks: impl IntoIterator<Item = Block>,
        committed: impl FnMut(BlockRef, u64),
    ) -> Result<(), PipelineError> {
        let done = self.commits.commit_all(&mut self.lease, &self.tables, blocks, committed).await;
        done.map_err(|(at, source)| PipelineError::Block { height: at.height, source })
    }

    /// Puts every row and the state back to what they were when `to` was the checkpoint; `None` is before the
    /// first block.
    pub async fn roll_back(&mut self, to: Option<Height>, cause: Cause) -> Result<RolledBack, PipelineError> {
        Ok(undo::roll_back(&mut self.lease, &self.tables, to, cause).await?)
    }

    /// Whether the journal reaches back that far.
    pub fn check_reach(&self, to: Option<Height>) -> Result<(), PipelineError> {
        Ok(undo::check_reach(self.pipeline(), self.checkpoint(), to)?)
    }

    /// Lets the pruner take away images that nobody needs any more.
    pub async fn prune(&mut self, pruner: &mut Pruner) {
        pruner.advance(&mut self.lease, &self.tables).await;
    }
}
