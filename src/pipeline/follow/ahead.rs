//! Evaluates the next batch while one is being committed.

use std::sync::Arc;

use crate::block::{BlockRef, Height};
use crate::pipeline::batch::{self, Evaluated};
use crate::pipeline::cache::StateCache;
use crate::pipeline::evaluation::Context;
use crate::pipeline::habit::Habit;
use crate::pipeline::window::Window;
use crate::pipeline::{Goal, Pipeline, PipelineError};
use crate::source::Server;
use crate::table::Tables;

/// What it takes to evaluate the batch after one that is being committed.
pub(super) struct Ahead<'a> {
    pub(super) goal: Goal,
    pub(super) tables: &'a Arc<Tables>,
    pub(super) pipeline: &'a Arc<Pipeline>,
    pub(super) cache: &'a Arc<StateCache>,
    pub(super) habit: &'a Arc<Habit>,
    pub(super) window: &'a mut Window,
    pub(super) followed: Option<&'a Server>,
    /// Where the source's tip was when the batch that is being committed had been evaluated.
    pub(super) tip: Height,
}

impl Ahead<'_> {
    /// The next batch, if the source has one that stands on `parent`.
    pub(super) async fn evaluate(self, parent: Option<BlockRef>) -> Result<Option<Evaluated>, PipelineError> {
        let Some(parent) = parent else { return Ok(None) };
        let Some(reading) = self.pipeline.source.open_at(self.followed).await? else { return Ok(None) };
        if reading.tip().height < self.tip {
            return Ok(None);
        }
        let common = self.pipeline.source.common_tip(&reading.server(), reading.tip()).await?;
        let confirmed = common.get().checked_sub(self.pipeline.settings.confirmations);
        let Some(mut to) = confirmed.and_then(Height::new) else { return Ok(None) };
        if let Goal::Until(height) = self.goal {
            to = to.min(height);
        }
        if to <= parent.height || reading.hash(parent.height).await? != Some(parent.hash) {
            return Ok(None);
        }
        let heights = parent.height.next()..=to;
        let context = Context::new(self.pipeline, Arc::new(reading), self.tables, self.cache, self.habit);
        batch::evaluate(&context, heights, self.window).await.map(Some)
    }
}
