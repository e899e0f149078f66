//! What of the source counts only when several servers agree (`source.quorum`).

use std::time::Instant;

use super::{Follow, unless_stopped};
use crate::block::{BlockRef, Height};
use crate::pipeline::{PipelineError, wait};
use crate::reorg::Parting;
use crate::source::{Claim, Reading};

/// So many blocks are servers apart that index the same block at the same time.
const USUAL_LAG: u32 = 2;

impl Follow<'_> {
    /// The highest block up to `to` that as many servers have as must agree; `None`, after a moment, when that leaves
    /// nothing to commit.
    pub(super) async fn enough_have(
        &mut self,
        reading: &Reading,
        to: Height,
    ) -> Result<Option<Height>, PipelineError> {
        let tip = reading.tip();
        let server = reading.server();
        let asked = self.pipeline.source.common_tip(&server, tip);
        let Some(common) = unless_stopped(self.stop, asked).await? else { return Ok(None) };
        let to = self.highest(common).map(|highest| highest.min(to));
        let to = to.filter(|to| *to >= self.next(self.checkpoint()));
        if to.is_some() {
            self.short_since = None;
        } else {
            let since = *self.short_since.get_or_insert_with(Instant::now);
            let lasts = since.elapsed() >= self.pipeline.timing.wedge_timeout;
            if lasts || tip.height.blocks_above(common) > USUAL_LAG {
                let quorum = self.pipeline.source.quorum();
                let reason = format!(
                    "only up to height {common} do {quorum} servers have a block, as many as must agree on it \
                     (`source.quorum`), while the source is at height {}",
                    tip.height
                );
                self.reporter.waiting(reason, None, Some(tip.height)).await;
            }
            wait(self.pipeline.timing.poll_interval, self.stop).await;
        }
        Ok(to)
    }

    /// Nothing is taken back for a branch that one server alone is on, nor does the pipeline halt at it.
    pub(super) async fn agree_on_fork(
        &self,
        reading: &Reading,
        parting: &Parting,
    ) -> Result<(), PipelineError> {
        let block = BlockRef { height: parting.height, hash: parting.theirs };
        let claim = Claim { block, state_root: None, views: Vec::new() };
        Ok(self.pipeline.source.confirm(&reading.server(), claim).await?)
    }
}
