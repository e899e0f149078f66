//! Commits the blocks of a batch, and says in the log how far the pipeline has come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::cache::StateCache;
use super::{PipelineError, Writer};
use crate::block::{BlockRef, Height};
use crate::commit::Block;
use crate::observe::{CommittedBlock, Watched};

/// Commits blocks in order; ends between two when it is to stop. Returns how many it committed.
pub(super) async fn commit(
    writer: &mut Writer,
    blocks: Vec<Block>,
    stop: &CancellationToken,
    cache: &StateCache,
    progress: &mut Progress,
    (watched, tip): (&Watched, Height),
) -> Result<usize, PipelineError> {
    let (mut count, began) = (0, Instant::now());
    let tables = Arc::clone(writer.tables());
    let mut changed: VecDeque<_> =
        blocks.iter().map(|block| block.changes.changes_by_table(&tables)).collect();
    let blocks = blocks.into_iter().take_while(|_| !stop.is_cancelled());
    let committed = writer.commit_all(blocks, |at, changes| {
        cache.committed(at.height);
        let tables = changed.pop_front().unwrap_or_default();
        watched.committed(&CommittedBlock { at, tables: &tables });
        progress.committed(watched.name(), at, changes, tip);
        count += 1;
    });
    let committed = committed.await;
    watched.commits_took(count, began.elapsed());
    committed?;
    Ok(count)
}

/// One line a second at most, however fast blocks are committed.
#[derive(Default)]
pub(super) struct Progress {
    since: Option<Instant>,
    blocks: u32,
    changes: u64,
}

impl Progress {
    fn committed(&mut self, pipeline: &str, at: BlockRef, changes: u64, tip: Height) {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.blocks += 1;
        self.changes += changes;
        let elapsed = since.elapsed();
        let lag = tip.blocks_above(at.height);
        if elapsed < Duration::from_secs(1) && lag > 0 {
            return;
        }
        tracing::info!(
            pipeline,
            blocks = self.blocks,
            changes = self.changes,
            lag_blocks = lag,
            "committed up to block {at}"
        );
        *self = Progress { since: Some(Instant::now()), ..Progress::default() };
    }
}
