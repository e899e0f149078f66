//! Says in the log how far a pipeline has come.

use std::time::{Duration, Instant};

use crate::block::{BlockRef, Height};

/// One line a second at most, however fast blocks are committed.
#[derive(Default)]
pub(super) struct Progress {
    since: Option<Instant>,
    blocks: u32,
    changes: u64,
}

impl Progress {
    pub(super) fn committed(&mut self, pipeline: &str, at: BlockRef, changes: u64, tip: Height) {
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
