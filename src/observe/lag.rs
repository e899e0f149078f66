//! Since when the source has had blocks that are not committed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::block::Height;

/// More tips than these are not told apart.
const MOST: usize = 4096;

/// The source's tips above the checkpoint, and when each was first seen; the lowest first.
#[derive(Default)]
pub(super) struct Lag(VecDeque<(Height, Instant)>);

impl Lag {
    pub(super) fn tip(&mut self, now: Instant, tip: Height, is_committed: bool) {
        while self.0.back().is_some_and(|(height, _)| *height > tip) {
            self.0.pop_back();
        }
        if is_committed || self.0.back().is_some_and(|(height, _)| *height == tip) {
            return;
        }
        let is_full = self.0.len() == MOST;
        match self.0.back_mut() {
            Some(last) if is_full => last.0 = tip,
            _ => self.0.push_back((tip, now)),
        }
    }

    pub(super) fn committed(&mut self, height: Height) {
        while self.0.front().is_some_and(|(tip, _)| *tip <= height) {
            self.0.pop_front();
        }
    }

    /// The age of the oldest tip that is not committed.
    pub(super) fn lasts(&self, now: Instant) -> Duration {
        self.0.front().map_or(Duration::ZERO, |(_, seen)| now.saturating_duration_since(*seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_old_as_the_oldest_tip_that_is_not_committed() {
        let height = |height| Height::new(height).unwrap();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut lag = Lag::default();
        assert_eq!(lag.lasts(at(5)), Duration::ZERO);
        lag.tip(at(0), height(10), false);
        lag.tip(at(4), height(12), false);
        lag.tip(at(5), height(12), false);
        lag.committed(height(9));
        assert_eq!(lag.lasts(at(6)), Duration::from_secs(6));
        lag.committed(height(10));
        assert_eq!(lag.lasts(at(6)), Duration::from_secs(2));
        // Another branch, which is shorter.
        lag.tip(at(7), height(11), false);
        assert_eq!(lag.lasts(at(8)), Duration::from_secs(1));
        lag.committed(height(11));
        lag.tip(at(9), height(11), true);
        assert_eq!(lag.lasts(at(10)), Duration::ZERO);
    }
}
