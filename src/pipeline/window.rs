//! How many blocks to evaluate at once: as many as pay, by what the last ones took, and no more than the
//! configuration and memory allow.
//!
//! While an evaluation waits for the source, others can compute. Beyond that, more at once is of use on more than
//! one processor, and only if evaluations ahead mostly stand: one that read state which then changed is done twice.

use std::time::Duration;

/// What blocks that are evaluated at once may hold in memory together, as far as can be told beforehand.
const MOST_BYTES: usize = 32 << 20;

/// The weight of what is newest, as a part of one, in what is remembered.
const NEWEST: f64 = 1.0 / 16.0;

/// What an evaluation took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) bytes: usize,
    /// For the source and the database.
    pub(super) waited: Duration,
    pub(super) computed: Duration,
}

pub(super) struct Window {
    most: usize,
    processors: f64,
    /// The most of those seen lately.
    block_bytes: usize,
    /// How much longer evaluations wait than they compute.
    waiting: f64,
    /// How many of those ahead of their turn stood, as a part of one.
    standing: f64,
}

impl Window {
    pub(super) fn new(most: u32) -> Window {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        // Begins with a few, as nothing is known of the blocks.
        let block_bytes = MOST_BYTES / 8;
        Window { most: most as usize, processors, block_bytes, waiting: f64::from(most), standing: 1.0 }
    }

    pub(super) fn size(&self) -> usize {
        let pays =
            if self.standing > 0.5 { self.processors + 2.0 * self.waiting } else { 1.0 + self.waiting };
        // Rounds down: what is done twice should pay for sure.
        (pays as usize).min(MOST_BYTES / self.block_bytes.max(1)).clamp(1, self.most)
    }

    pub(super) fn learn(&mut self, cost: &Cost, stood: bool) {
        self.block_bytes = cost.bytes.max(self.block_bytes - self.block_bytes / 16);
        let waiting = cost.waited.as_secs_f64() / cost.computed.as_secs_f64().max(1e-6);
        self.waiting += (waiting.min(self.most as f64) - self.waiting) * NEWEST;
        if self.size() > 1 || !stood {
            self.standing += (f64::from(u8::from(stood)) - self.standing) * NEWEST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(bytes: usize, waited_ms: u64, computed_ms: u64) -> Cost {
        let (waited, computed) = (Duration::from_millis(waited_ms), Duration::from_millis(computed_ms));
        Cost { bytes, waited, computed }
    }

    fn after(times: usize, cost: Cost, stood: bool) -> Window {
        let mut window = Window::new(32);
        window.processors = 2.0;
        for _ in 0..times {
            window.learn(&cost, stood);
        }
        window
    }

    #[test]
    fn large_blocks_narrow_the_window_and_small_ones_widen_it_again() {
        let mut window = Window::new(32);
        assert_eq!(window.size(), 8);
        let slow = |bytes| cost(bytes, 1_000, 1);
        for _ in 0..100 {
            window.learn(&slow(1 << 10), true);
        }
        assert_eq!(window.size(), 32);
        window.learn(&slow(MOST_BYTES / 3), true);
        assert_eq!(window.size(), 3);
        window.learn(&slow(usize::MAX), true);
        assert_eq!(window.size(), 1);
    }

    #[test]
    fn it_is_as_wide_as_pays() {
        assert_eq!(after(200, cost(1, 60, 2), true).size(), 32, "a slow source, no state");
        assert_eq!(after(200, cost(1, 60, 2), false).size(), 31, "a slow source, all evaluated twice");
        assert_eq!(after(200, cost(1, 0, 5), true).size(), 2, "nothing to wait for: one a processor");
        assert_eq!(after(200, cost(1, 1, 5), false).size(), 1, "all evaluated twice, and little to wait for");
    }

    #[test]
    fn evaluations_that_stand_again_widen_it_again() {
        let mut window = after(200, cost(1, 3, 1), false);
        let narrow = window.size();
        for _ in 0..200 {
            window.learn(&cost(1, 3, 1), true);
        }
        assert!(window.size() > narrow, "{} after {narrow}", window.size());
    }
}
