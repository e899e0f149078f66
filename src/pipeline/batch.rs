//! Evaluates consecutive blocks inside one reading of the source, so that whether they may be trusted costs
//! the same few calls for many blocks as for one; several blocks at once, so that the source's delay does not set
//! the pace.
//!
//! Nothing here writes to the database.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use tokio_util::task::AbortOnDropHandle;
use tracing::Span;
use tracing::instrument::{Instrument, Instrumented};

use super::PipelineError;
use super::evaluation::{Context, Evaluation, Failed};
use super::window::Window;
use crate::block::{BlockRef, Height};
use crate::commit::{Block, Durability, Journaling};
use crate::failure::Kind;
use crate::observe;
use crate::runtime::LogLine;
use crate::source::{Claim, Verdict};

/// No further block is begun once the transform has handed over this many bytes in the batch.
const MOST_BYTES: usize = 32 << 20;

/// Blocks whose evaluation counts, in order, ready to be committed; each with what it took.
pub(super) struct Batch {
    /// Where the source's tip was in the end.
    pub(super) tip: Height,
    pub(super) blocks: Vec<(Block, observe::Evaluated)>,
    /// Why the block after them cannot be committed, if it cannot.
    pub(super) failed: Option<Failure>,
}

/// A block that cannot be committed.
pub(super) struct Failure {
    pub(super) at: BlockRef,
    /// Whether it was the source's tip.
    pub(super) at_tip: bool,
    /// Whether the source had failed to answer, so that the transform may not be to blame.
    pub(super) of_source: bool,
    pub(super) error: PipelineError,
}

pub(super) enum Evaluated {
    Batch(Batch),
    /// The source has no hash for the first block, which its tip lies above.
    Lacking(Height),
    /// The source moved meanwhile: nothing of it counts.
    Moved(String),
}

type Started = AbortOnDropHandle<Result<Option<Evaluation>, PipelineError>>;

/// Evaluates blocks of `heights`, as many as a batch may have, and then asks the source whether they count.
///
/// Results are taken in order. One that read a state which a block below it then changed is evaluated again, so
/// the outcome is that of one block after the other, however many run at once.
///
/// What a transform reports wrong counts only if the reading held, since a server in the middle of a
/// reorganisation answers wrongly.
pub(super) async fn evaluate(
    context: &Context,
    heights: RangeInclusive<Height>,
    window: &mut Window,
) -> Result<Evaluated, PipelineError> {
    let evaluated = evaluate_some(context, heights, window).await?;
    window.learn_batch(!matches!(evaluated, Evaluated::Moved(_)));
    context.pipeline.watched.evaluates(&window.ahead());
    Ok(evaluated)
}

async fn evaluate_some(
    context: &Context,
    heights: RangeInclusive<Height>,
    window: &mut Window,
) -> Result<Evaluated, PipelineError> {
    // Whatever is still being evaluated in the end has nobody to wait for it.
    let _given_up = context.given_up.clone().drop_guard();
    let mut building = Building::new(context, window.batch());
    let mut started: VecDeque<Started> = VecDeque::new();
    let mut next = *heights.start();
    loop {
        while next <= *heights.end() && started.len() < window.size() && building.has_room(started.len()) {
            let (context, height) = (context.clone(), next);
            let span = block_span(&context.pipeline.name, height);
            let evaluation = async move { context.evaluate(height).await };
            started.push_back(AbortOnDropHandle::new(tokio::spawn(in_span(span, evaluation))));
            next = next.next();
        }
        let Some(first) = started.pop_front() else { break };
        let height = building.next_height(*heights.start());
        let evaluation = first.await.unwrap_or(Err(PipelineError::CutOff { height }))?;
        let Some(mut evaluation) = evaluation else {
            building.lacking = Some(height);
            break;
        };
        let holds = evaluation.holds(&context.cache);
        window.learn(&evaluation.cost, holds);
        if !holds {
            let span = block_span(&context.pipeline.name, height);
            evaluation = in_span(span, evaluation.again(context)).await;
        }
        building.add(evaluation)?;
        if building.batch.failed.is_some() {
            break;
        }
    }
    drop(started);
    building.finish().await
}

/// Not below its pipeline's span, which lasts as long as the process: a block is a trace of its own.
fn block_span(pipeline: &str, height: Height) -> Span {
    tracing::debug_span!(parent: None, "block", pipeline, height = height.get())
}

/// Where the filter leaves a block's span out, its pipeline's is still there.
fn in_span<F: Future>(span: Span, work: F) -> Instrumented<F> {
    let span = if span.is_disabled() { Span::current() } else { span };
    work.instrument(span)
}

/// A batch that is being put together.
struct Building<'a> {
    context: &'a Context,
    most_blocks: usize,
    /// Where the source's tip was when the reading began.
    tip: Height,
    batch: Batch,
    logs: Vec<(Height, Vec<LogLine>)>,
    /// What blocks were made from, also the one that failed.
    claims: Vec<Claim>,
    /// What the transform has handed over so far.
    bytes: usize,
    /// The block after those of the batch, which the source has no hash for.
    lacking: Option<Height>,
}

impl<'a> Building<'a> {
    fn new(context: &'a Context, most_blocks: usize) -> Building<'a> {
        let tip = context.reading.tip().height;
        let batch = Batch { tip, blocks: Vec::new(), failed: None };
        Building {
            context,
            most_blocks,
            tip,
            batch,
            logs: Vec::new(),
            claims: Vec::new(),
            bytes: 0,
            lacking: None,
        }
    }

    fn next_height(&self, first: Height) -> Height {
        self.batch.blocks.last().map_or(first, |(block, _)| block.at.height.next())
    }

    /// Whether another block may be begun, when so many are begun already.
    fn has_room(&self, begun: usize) -> bool {
        let blocks = self.batch.blocks.len();
        let expected = self.bytes + self.bytes / blocks.max(1) * begun;
        blocks + begun < self.most_blocks && expected < MOST_BYTES
    }

    /// Takes the next block's result.
    fn add(&mut self, mut evaluation: Evaluation) -> Result<(), PipelineError> {
        self.claims.push(evaluation.claim());
        let Evaluation { at, state_root, view_failed, cost, .. } = evaluation;
        let error = match evaluation.result {
            Ok(outcome) => {
                self.logs.push((at.height, outcome.log));
                self.bytes += outcome.bytes;
                let evaluated = observe::Evaluated {
                    at,
                    fuel: outcome.fuel_used,
                    computed: cost.computed,
                    views: cost.views,
                    waited: cost.waited,
                };
                self.context.cache.wrote(at.height, &outcome.state);
                match outcome.changes {
                    Ok(changes) => {
                        let (journaling, durability) =
                            (self.journaling(at.height), self.durability(at.height));
                        let block = Block { at, changes, journaling, durability, state_root };
                        self.batch.blocks.push((block, evaluated));
                        return Ok(());
                    }
                    Err(source) => PipelineError::Changes { height: at.height, source },
                }
            }
            Err(Failed::Transform(source)) => PipelineError::Transform { height: at.height, source },
            // What is not cured by asking again is said of this block, and those before it are committed.
            Err(Failed::Other(error)) if error.kind() == Kind::Permanent => {
                PipelineError::Question { height: at.height, source: error }
            }
            Err(Failed::Other(error)) => return Err(*error),
        };
        let unanswered = matches!(&error, PipelineError::Question { source, .. }
            if matches!(**source, PipelineError::Source(_)));
        let of_source = view_failed || unanswered;
        self.batch.failed = Some(Failure { at, at_tip: at.height == self.tip, of_source, error });
        Ok(())
    }

    fn journaling(&self, height: Height) -> Journaling {
        let settings = &self.context.pipeline.settings;
        // The checkpoint will stand `confirmations` below the tip, and is what retention counts from.
        let above = self.tip.blocks_above(height).saturating_sub(settings.confirmations);
        if above >= settings.retention { Journaling::Skipped } else { Journaling::Kept }
    }

    /// While catching up, the disk is not waited for: the tip's block takes those below it along.
    fn durability(&self, height: Height) -> Durability {
        let confirmations = self.context.pipeline.settings.confirmations;
        if self.tip.blocks_above(height) > confirmations { Durability::Lazy } else { Durability::Strict }
    }

    /// Keeps those blocks, from the first on, that enough servers agree on.
    async fn hold_to_quorum(&mut self) {
        let source = &self.context.pipeline.source;
        if source.quorum() < 2 {
            return;
        }
        let agreed = source.agree(&self.context.reading.server(), &self.claims).await;
        let (Some(error), Some(claim)) = (agreed.short, self.claims.get(agreed.claims)) else { return };
        let at = claim.block;
        self.batch.blocks.truncate(agreed.claims);
        self.logs.retain(|(height, _)| *height < at.height);
        self.batch.failed = Some(Failure { at, at_tip: false, of_source: false, error: error.into() });
    }

    /// The batch, if the reading held.
    async fn finish(mut self) -> Result<Evaluated, PipelineError> {
        match self.context.reading.close().await? {
            Verdict::Held { tip } => self.batch.tip = tip,
            Verdict::Moved(how) => return Ok(Evaluated::Moved(how)),
        }
        if let Some(height) = self.lacking.filter(|_| self.batch.blocks.is_empty()) {
            return Ok(Evaluated::Lacking(height));
        }
        self.hold_to_quorum().await;
        for (height, lines) in self.logs {
            for line in lines {
                tracing::info!(target: "debshrew::transform", height = height.get(), "{line}");
            }
        }
        Ok(Evaluated::Batch(self.batch))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::span::{Attributes, Id};
    use tracing_subscriber::layer::{Context, SubscriberExt};
    use tracing_subscriber::{Layer, Registry, registry::LookupSpan};

    use super::*;

    /// The spans that lie in no other, by name.
    #[derive(Clone, Default)]
    struct Roots(Arc<Mutex<Vec<&'static str>>>);

    impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Roots {
        fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
            if context.span(id).is_some_and(|span| span.parent().is_none()) {
                self.0.lock().unwrap().push(attributes.metadata().name());
            }
        }
    }

    #[test]
    fn a_block_is_a_trace_of_its_own() {
        let roots = Roots::default();
        tracing::subscriber::with_default(Registry::default().with(roots.clone()), || {
            let _pipeline = tracing::error_span!("pipeline", pipeline = "ledger").entered();
            block_span("ledger", Height::new(7).unwrap());
        });
        assert_eq!(*roots.0.lock().unwrap(), ["pipeline", "block"]);
    }
}
