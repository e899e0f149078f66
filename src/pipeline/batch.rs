//! Evaluates consecutive blocks inside one reading of the source, so that whether they may be trusted costs
//! the same few calls for many blocks as for one.
//!
//! Nothing here writes to the database.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::cache::StateCache;
use super::{Pipeline, PipelineError};
use crate::apply::{Block, Journaling, Targets, state};
use crate::block::{BlockRef, Height};
use crate::failure::Kind;
use crate::runtime::{Answer, Output, Request, RuntimeError, Step, ViewFailure};
use crate::source::{Reading, Verdict};

/// The most blocks of one batch: what is thrown away when the source moves meanwhile.
const MOST_BLOCKS: usize = 64;

/// No further block is begun once the transform has handed over this many bytes in the batch.
const MOST_BYTES: usize = 32 << 20;

/// Blocks whose evaluation counts, in order, ready to be committed.
pub(super) struct Batch {
    /// Where the source's tip was.
    pub(super) tip: Height,
    pub(super) blocks: Vec<Block>,
    /// Why the block after them cannot be committed, if it cannot.
    pub(super) failed: Option<Failure>,
}

/// A block that cannot be committed.
pub(super) struct Failure {
    pub(super) at: BlockRef,
    /// Whether it was the source's tip.
    pub(super) at_tip: bool,
    pub(super) error: PipelineError,
}

pub(super) enum Evaluated {
    Batch(Batch),
    /// The source moved meanwhile: nothing of it counts.
    Moved(String),
}

/// Evaluates blocks of `heights`, as many as a batch may have, and then asks the source whether they count.
///
/// What a transform reports wrong counts only if the reading held, since a server in the middle of a
/// reorganisation answers wrongly.
pub(super) async fn evaluate(
    pipeline: &Pipeline,
    reading: Arc<Reading>,
    heights: RangeInclusive<Height>,
    targets: &Arc<Targets>,
    cache: &Arc<StateCache>,
) -> Result<Evaluated, PipelineError> {
    let tip = reading.tip().height;
    let mut batch = Batch { tip, blocks: Vec::new(), failed: None };
    let mut logs = Vec::new();
    let mut bytes = 0;
    let mut height = *heights.start();
    while height <= *heights.end() && batch.blocks.len() < MOST_BLOCKS && bytes < MOST_BYTES {
        let Some(hash) = reading.hash(height).await? else {
            return Ok(Evaluated::Moved(format!("the source has no hash for block {height} any more")));
        };
        let at = BlockRef { height, hash };
        let failure = |error| Some(Failure { at, at_tip: height == tip, error });
        match one(pipeline, &reading, at, cache).await {
            Ok(Output { changes, state, log, bytes: handed_over, .. }) => {
                logs.push((height, log));
                bytes += handed_over;
                cache.wrote(height, &state);
                match targets.resolve(changes, state) {
                    Ok(rows) => {
                        // The checkpoint will stand `confirmations` below the tip, and is what retention counts from.
                        let above = tip.blocks_above(height).saturating_sub(pipeline.settings.confirmations);
                        let deep = above >= pipeline.settings.retention;
                        let journaling = if deep { Journaling::Skipped } else { Journaling::Kept };
                        batch.blocks.push(Block { at, rows, journaling });
                    }
                    Err(source) => {
                        batch.failed = failure(PipelineError::Block { height, source: source.into() })
                    }
                }
            }
            Err(Failed::Transform(source)) => {
                batch.failed = failure(PipelineError::Transform { height, source })
            }
            // What is not cured by asking again is said of this block, and those before it are committed.
            Err(Failed::Other(error)) if error.kind() == Kind::Permanent => {
                batch.failed = failure(PipelineError::Question { height, source: error })
            }
            Err(Failed::Other(error)) => return Err(*error),
        }
        if batch.failed.is_some() {
            break;
        }
        height = height.next();
    }
    match reading.close().await? {
        Verdict::Held => {}
        Verdict::Moved(how) => return Ok(Evaluated::Moved(how)),
    }
    for (height, lines) in logs {
        for line in lines {
            tracing::info!(target: "debshrew::transform", pipeline = pipeline.name, %height, "{line}");
        }
    }
    Ok(Evaluated::Batch(batch))
}

enum Failed {
    Transform(RuntimeError),
    Other(Box<PipelineError>),
}

/// Runs the transform for one block, on a thread that may block: it computes for long, and waits there for the
/// views and the state that it asks for.
async fn one(
    pipeline: &Pipeline,
    reading: &Arc<Reading>,
    at: BlockRef,
    cache: &Arc<StateCache>,
) -> Result<Output, Failed> {
    let (pipeline, reading, cache) = (pipeline.clone(), Arc::clone(reading), Arc::clone(cache));
    let runtime = Handle::current();
    let run = move || {
        let mut step = pipeline.transform.begin(at).map_err(Failed::Transform)?;
        loop {
            match step {
                Step::Done(output) => return Ok(output),
                Step::Ask(request, suspended) => {
                    let answer = runtime
                        .block_on(answer(&pipeline, &reading, at.height, &cache, request))
                        .map_err(|error| Failed::Other(Box::new(error)))?;
                    step = suspended.resume(answer).map_err(Failed::Transform)?;
                }
            }
        }
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result,
        Err(_) => Err(Failed::Other(Box::new(PipelineError::CutOff { height: at.height }))),
    }
}

async fn answer(
    pipeline: &Pipeline,
    reading: &Reading,
    height: Height,
    cache: &StateCache,
    request: Request,
) -> Result<Answer, PipelineError> {
    match request {
        Request::View { name, input } => {
            let answer = reading.view(&name, &input, height).await?;
            Ok(Answer::View(answer.map_err(|failure| ViewFailure { message: failure.message })))
        }
        Request::State { key } => {
            if let Some(value) = cache.get(&key) {
                return Ok(Answer::State(value));
            }
            let client = pipeline.db.client().await?;
            let value = state::read(&**client, &pipeline.name, &key).await?;
            cache.read(&key, value.as_ref());
            Ok(Answer::State(value))
        }
    }
}
