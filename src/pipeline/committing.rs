//! Commits the blocks of a batch, and says in the log how far the pipeline has come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::cache::StateCache;
use super::{PipelineError, Writer, millis};
use crate::block::{BlockRef, Height};
use crate::commit::Block;
use crate::observe::{CommittedBlock, Evaluated, Watched};
use crate::telemetry::PROGRESS;

/// Between two lines on how far it is, while catching up.
const INTERVAL: Duration = Duration::from_secs(15);

/// Commits blocks in order, each with what its evaluation took; ends between two when it is to stop. Returns how many
/// it committed.
pub(super) async fn commit(
    writer: &mut Writer,
    blocks: Vec<(Block, Evaluated)>,
    stop: &CancellationToken,
    cache: &StateCache,
    progress: &mut Progress,
    (watched, tip): (&Watched, Height),
) -> Result<usize, PipelineError> {
    let (mut count, began) = (0, Instant::now());
    let tables = Arc::clone(writer.tables());
    let mut known: VecDeque<_> =
        blocks.iter().map(|(block, took)| (block.changes.changes_by_table(&tables), *took)).collect();
    let blocks = blocks.into_iter().map(|(block, _)| block).take_while(|_| !stop.is_cancelled());
    let mut last = began;
    let committed = writer.commit_all(blocks, |at, changes| {
        cache.committed(at.height);
        let took = std::mem::replace(&mut last, Instant::now()).elapsed();
        if let Some((tables, evaluated)) = known.pop_front() {
            watched.evaluated(&evaluated);
            watched.committed(&CommittedBlock { at, tables: &tables });
            say_block(at, changes, &evaluated, took);
        }
        progress.committed(at, changes, tip);
        count += 1;
    });
    let committed = committed.await;
    watched.commits_took(count, began.elapsed());
    committed?;
    Ok(count)
}

/// All that a block took; its commit's time is counted from the reply before.
fn say_block(at: BlockRef, changes: u64, evaluated: &Evaluated, commit: Duration) {
    tracing::debug!(
        height = at.height.get(),
        hash = %at.hash,
        changes,
        fuel = evaluated.fuel,
        views = evaluated.views,
        computed_ms = millis(evaluated.computed),
        waited_ms = millis(evaluated.waited),
        commit_ms = millis(commit),
        "block"
    );
}

/// Says now and then how far it is while catching up, and each block at the tip.
pub(super) struct Progress {
    /// So far below the source's tip is as far as it gets.
    confirmations: u32,
    /// When the first of those blocks was committed that are not said yet.
    since: Option<Instant>,
    blocks: u32,
    changes: u64,
}

impl Progress {
    pub(super) fn new(confirmations: u32) -> Progress {
        Progress { confirmations, since: None, blocks: 0, changes: 0 }
    }

    fn committed(&mut self, at: BlockRef, changes: u64, tip: Height) {
        self.blocks += 1;
        self.changes += changes;
        let (height, lag_blocks) = (at.height.get(), tip.blocks_above(at.height));
        let left = lag_blocks.saturating_sub(self.confirmations);
        let elapsed = self.since.get_or_insert_with(Instant::now).elapsed();
        if left > 0 && elapsed < INTERVAL {
            return;
        }
        let Progress { blocks, changes, .. } = *self;
        if left == 0 {
            tracing::info!(target: PROGRESS, height, hash = %at.hash, blocks, changes, lag_blocks, "committed");
        } else {
            let blocks_per_second = f64::from(blocks) / elapsed.as_secs_f64();
            let seconds_left = (f64::from(left) / blocks_per_second).ceil() as u64;
            let blocks_per_second = (blocks_per_second * 10.0).round() / 10.0;
            tracing::info!(
                target: PROGRESS,
                height, blocks, changes, blocks_per_second, lag_blocks, seconds_left,
                "catching up"
            );
        }
        *self = Progress::new(self.confirmations);
    }
}
