//! Waits while the source is not at rest.

use std::time::{Duration, Instant};

use super::{Follow, unless_stopped};
use crate::block::Height;
use crate::pipeline::stall::Lacks;
use crate::pipeline::{PipelineError, Waited, wait};

/// After the source has moved under a reading, it is left alone until its tip has stood still for this long, or
/// risen.
const SETTLE: Duration = Duration::from_secs(1);

/// How often the tip is looked at meanwhile.
pub(super) const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

impl Follow<'_> {
    /// A hash may be missing for a moment; for longer, it is said, and what to do.
    pub(super) async fn lacks(&mut self, height: Height) -> Result<(), PipelineError> {
        let begun = self.checkpoint().is_some();
        let weighed = self.lacking.weigh(&self.pipeline.source, self.followed.as_ref(), height, begun);
        match unless_stopped(self.stop, weighed).await? {
            None | Some(Lacks::NoMore) => Ok(()),
            Some(Lacks::Maybe) => self.settle(&format!("the source has no hash for block {height}")).await,
            Some(Lacks::ForGood(reason)) => {
                self.reporter.waiting(reason, Some(height), None).await;
                wait(SETTLE.max(self.pipeline.timing.poll_interval), self.stop).await;
                Ok(())
            }
        }
    }

    /// Lets the source come to rest: while it reorganises, its views answer wrongly. Ends when its tip has risen
    /// above the lowest that it was seen at, or stood there for a while.
    pub(super) async fn settle(&mut self, how: &str) -> Result<(), PipelineError> {
        tracing::debug!(reason = how, "waiting for the source to come to rest");
        self.states.forget();
        let mut lowest: Option<Height> = None;
        let mut since = Instant::now();
        while since.elapsed() < SETTLE && wait(SETTLE_INTERVAL, self.stop).await == Waited::Over {
            let opening = self.pipeline.source.open_at(self.followed.as_ref());
            let Some(Some(reading)) = unless_stopped(self.stop, opening).await? else { continue };
            let now = reading.tip().height;
            match lowest {
                Some(lowest) if now > lowest => break,
                Some(lowest) if now == lowest => {}
                _ => (lowest, since) = (Some(now), Instant::now()),
            }
        }
        self.last_tip = lowest;
        Ok(())
    }
}
