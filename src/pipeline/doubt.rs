//! A block that failed and may yet succeed: what the transform was shown may not be what the source has.

use std::time::{Duration, Instant};

use super::PipelineError;
use super::batch::Failure;
use crate::block::BlockRef;
use crate::failure::Backoff;

/// The block that failed, if one has.
#[derive(Default)]
pub(super) struct Doubt(Option<Doubted>);

struct Doubted {
    at: BlockRef,
    since: Instant,
    pauses: Backoff,
}

/// What to do about a failure.
pub(super) enum Again {
    /// It is the source's tip: when that has come to rest.
    AtRest,
    After(Duration),
    Never,
}

impl Doubt {
    /// A source's failure is tried again for as long as `patience` says, the tip once, and what the transform alone
    /// is to blame for not at all.
    pub(super) fn weigh(&mut self, failure: &Failure, patience: Duration) -> Again {
        if matches!(failure.error, PipelineError::Source(_)) {
            // Servers do not agree on it: the transform is not what failed.
            return Again::Never;
        }
        let known = self.0.take_if(|doubted| doubted.at == failure.at);
        let again = known.is_some();
        let doubted = self.0.insert(known.unwrap_or_else(|| Doubted {
            at: failure.at,
            since: Instant::now(),
            pauses: Backoff::new(Duration::from_millis(200), Duration::from_secs(2)),
        }));
        let left = patience.saturating_sub(doubted.since.elapsed());
        match failure {
            Failure { of_source: true, .. } if !left.is_zero() => {
                Again::After(doubted.pauses.next_pause().min(left))
            }
            Failure { at_tip: true, .. } if !again => Again::AtRest,
            _ => Again::Never,
        }
    }

    /// A block was committed.
    pub(super) fn over(&mut self) {
        self.0 = None;
    }
}
