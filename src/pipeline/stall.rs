//! Sources that cannot be followed for now: how long to leave them alone, and what is wrong with those that answer.

use std::time::{Duration, Instant};

use super::PipelineError;
use super::parting::explain_lacking;
use crate::block::Height;
use crate::failure::Backoff;
use crate::source::{Reading, Server, Source, SourceError};

/// How long a block's hash may be missing below the source's tip before it is said.
const LACKING: Duration = Duration::from_secs(5);

/// How often a source that stands still is asked whether it is wedged.
const STANDING_INTERVAL: Duration = Duration::from_secs(2);

/// Pauses between tries of a source that fails.
pub(super) struct Pauses {
    /// Short, so that a server that is back is noticed soon, however long it was away.
    away: Backoff,
    refused: Backoff,
}

impl Pauses {
    pub(super) fn new() -> Pauses {
        Pauses {
            away: Backoff::new(Duration::from_millis(200), Duration::from_millis(1_500)),
            refused: Backoff::new(Duration::from_millis(500), Duration::from_secs(15)),
        }
    }

    pub(super) fn after(&mut self, error: &SourceError) -> Duration {
        match error {
            SourceError::Resting { wait_ms, .. } => {
                Duration::from_millis(u64::try_from(*wait_ms).unwrap_or_default() + 1)
            }
            SourceError::NoQuorum { .. } => self.refused.next_pause(),
            error if error.is_refusal() => self.refused.next_pause(),
            _ => self.away.next_pause(),
        }
    }

    pub(super) fn reset(&mut self) {
        self.away.reset();
        self.refused.reset();
    }
}

/// A tip that stands still, if it does.
#[derive(Default)]
pub(super) struct Standing(Option<Still>);

struct Still {
    tip: Height,
    since: Instant,
    asked: Option<Instant>,
    /// How often in a row the source had a hash above it. A block that is just being indexed has that once.
    had_above: u32,
}

impl Standing {
    /// What to say of a tip that has stood for so long below blocks that the source still has: the trace of a
    /// reorganisation that it could not finish.
    pub(super) async fn wedged(
        &mut self,
        reading: &Reading,
        timeout: Duration,
    ) -> Result<Option<String>, SourceError> {
        let tip = reading.tip().height;
        let known = self.0.take().filter(|still| still.tip == tip);
        let still =
            self.0.insert(known.unwrap_or(Still { tip, since: Instant::now(), asked: None, had_above: 0 }));
        if still.since.elapsed() < timeout {
            return Ok(None);
        }
        if still.asked.is_none_or(|asked| asked.elapsed() >= STANDING_INTERVAL) {
            still.asked = Some(Instant::now());
            let has_above = reading.hash_above_tip(tip.next()).await?.is_some();
            still.had_above = if has_above { still.had_above + 1 } else { 0 };
        }
        Ok((still.had_above >= 2).then(|| {
            format!(
                "the source has stood at height {tip} for long, while it still has hashes above: it is probably \
                 wedged after a reorganisation that it could not follow; restart it or index anew"
            )
        }))
    }

    pub(super) fn over(&mut self) {
        self.0 = None;
    }
}

/// A block below the source's tip that it has no hash for, if there is one.
#[derive(Default)]
pub(super) struct Lacking(Option<Lacked>);

struct Lacked {
    height: Height,
    since: Instant,
    explained: Option<String>,
}

/// What a missing hash means.
pub(super) enum Lacks {
    /// Nothing yet: one may be missing for a moment.
    Maybe,
    /// It is missing for good; in words, why, and what to do.
    ForGood(String),
    /// It is there now.
    NoMore,
}

impl Lacking {
    /// `begun`: whether blocks are committed.
    pub(super) async fn weigh(
        &mut self,
        source: &Source,
        followed: Option<&Server>,
        height: Height,
        begun: bool,
    ) -> Result<Lacks, PipelineError> {
        let known = self.0.take().filter(|lacked| lacked.height == height);
        let lacked =
            self.0.insert(known.unwrap_or(Lacked { height, since: Instant::now(), explained: None }));
        if lacked.since.elapsed() < LACKING {
            return Ok(Lacks::Maybe);
        }
        let Some(reading) = source.open_at(followed).await? else { return Ok(Lacks::Maybe) };
        if reading.tip().height < height || reading.hash(height).await?.is_some() {
            self.0 = None;
            return Ok(Lacks::NoMore);
        }
        // Another server may have it.
        reading.distrust();
        let explained = match lacked.explained.take() {
            Some(explained) => explained,
            None => explain_lacking(&reading, height, begun).await?,
        };
        lacked.explained = Some(explained.clone());
        Ok(Lacks::ForGood(explained))
    }

    pub(super) fn over(&mut self) {
        self.0 = None;
    }
}
