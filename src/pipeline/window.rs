//! How many blocks to evaluate at once: as many as pay, by what the last ones took, and no more than the
//! configuration and memory allow. And how many before the source is asked whether they count.
//!
//! While an evaluation waits for the source, others can compute. Beyond that, more at once is of use on more than
//! one processor, and only if evaluations ahead mostly stand: one that read state which then changed is done twice.

use std::time::Duration;

use crate::observe::Ahead;

/// What blocks that are evaluated at once may hold in memory together, as far as can be told beforehand.
const MOST_BYTES: usize = 32 << 20;

/// The most blocks of one batch: what is thrown away when the source moves meanwhile.
const MOST_BLOCKS: usize = 512;

/// The weight of what is newest, as a part of one, in what is remembered.
const NEWEST: f64 = 1.0 / 16.0;

/// The weight of what may well mean nothing. A slower answer, in what is remembered of the quickest: waiting for one
/// another shall not look like a slow source.
const SLIGHT: f64 = 1.0 / 256.0;

/// What an evaluation took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) bytes: usize,
    pub(super) computed: Duration,
    /// Of views, how many were answered and how long they were waited for.
    pub(super) views: u32,
    pub(super) waited: Duration,
    pub(super) source: Asked,
    pub(super) database: Asked,
}

/// What an evaluation asked of somebody.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) times: u32,
    pub(super) quickest: Option<Duration>,
}

impl Asked {
    pub(super) fn answered(&mut self, took: Duration) {
        self.times += 1;
        self.quickest = Some(self.quickest.map_or(took, |quickest| quickest.min(took)));
    }
}

/// How soon somebody answers who is not busy with other questions: the quickest answer of late, in seconds.
#[derive(Default)]
struct Quickest(Option<f64>);

impl Quickest {
    fn learn(&mut self, asked: &Asked) {
        let Some(now) = asked.quickest.map(|quickest| quickest.as_secs_f64()) else { return };
        let known = self.0.unwrap_or(now);
        self.0 = Some(if now < known { now } else { known + (now - known) * SLIGHT });
    }

    /// What all the answers would take, one after the other.
    fn all(&self, asked: &Asked) -> f64 {
        self.0.unwrap_or(0.0) * f64::from(asked.times)
    }
}

pub(super) struct Window {
    most: usize,
    processors: f64,
    /// The most blocks that the next batch may have.
    batch: usize,
    /// The most of those seen lately.
    block_bytes: usize,
    source: Quickest,
    database: Quickest,
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
        let (source, database) = (Quickest::default(), Quickest::default());
        let (waiting, standing) = (f64::from(most), 1.0);
        Window {
            most: most as usize,
            processors,
            batch: MOST_BLOCKS,
            block_bytes,
            source,
            database,
            waiting,
            standing,
        }
    }

    /// The most blocks of the next batch.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Whether a batch counted. A source that moves time and again holds still for smaller ones.
    pub(super) fn learn_batch(&mut self, counted: bool) {
        self.batch = if counted { self.batch * 2 } else { self.batch / 2 }.clamp(1, MOST_BLOCKS);
    }

    pub(super) fn size(&self) -> usize {
        let pays = if self.standing > 0.5 {
            self.processors * (1.0 + self.waiting)
        } else {
            // All are evaluated once more, one after the other, with the answers at hand.
            1.0 + self.waiting
        };
        // Rounds down: what is done twice should pay for sure.
        (pays as usize).min(MOST_BYTES / self.block_bytes.max(1)).clamp(1, self.most)
    }

    /// What is evaluated at once now, for whoever watches.
    pub(super) fn ahead(&self) -> Ahead {
        let blocks = self.size();
        Ahead { blocks, bytes: blocks.saturating_mul(self.block_bytes), most_bytes: MOST_BYTES }
    }

    pub(super) fn learn(&mut self, cost: &Cost, stood: bool) {
        self.block_bytes = cost.bytes.max(self.block_bytes - self.block_bytes / 16);
        self.source.learn(&cost.source);
        self.database.learn(&cost.database);
        // Not what it did wait, which is longer the more are under way: that would widen the window without end.
        let waits = self.source.all(&cost.source) + self.database.all(&cost.database);
        let waiting = waits / cost.computed.as_secs_f64().max(1e-6);
        self.waiting += (waiting.min(self.most as f64) - self.waiting) * NEWEST;
        // What is evaluated in its turn stands in any case. That counts for a little, so that more are tried again.
        let weight = if self.size() > 1 || !stood { NEWEST } else { SLIGHT };
        self.standing += (f64::from(u8::from(stood)) - self.standing) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(bytes: usize, waited_ms: u64, computed_ms: u64) -> Cost {
        let source = Asked { times: 1, quickest: Some(Duration::from_millis(waited_ms)) };
        let computed = Duration::from_millis(computed_ms);
        Cost { bytes, computed, source, ..Cost::default() }
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
    fn answers_that_wait_for_one_another_do_not_widen_it() {
        let mut window = after(200, cost(1, 2, 1), true);
        let before = window.size();
        for _ in 0..20 {
            window.learn(&cost(1, 40, 1), true);
        }
        assert!(window.size() <= before + 2 * before / 5, "{} after {before}", window.size());
        // A source that stays slow is found out.
        for _ in 0..2_000 {
            window.learn(&cost(1, 40, 1), true);
        }
        assert_eq!(window.size(), 32);
    }

    #[test]
    fn batches_shrink_while_the_source_moves_and_grow_again() {
        let mut window = Window::new(32);
        (0..20).for_each(|_| window.learn_batch(false));
        assert_eq!(window.batch(), 1);
        (0..20).for_each(|_| window.learn_batch(true));
        assert_eq!(window.batch(), MOST_BLOCKS);
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

    #[test]
    fn one_at_a_time_is_not_for_ever_and_more_are_seldom_tried_in_vain() {
        let little_to_wait_for = cost(1, 1, 5);
        let mut window = after(200, little_to_wait_for, false);
        assert_eq!(window.size(), 1);
        let mut in_vain = 0;
        for _ in 0..1_000 {
            let ahead = window.size() > 1;
            window.learn(&little_to_wait_for, !ahead);
            in_vain += u32::from(ahead);
        }
        assert!((1..100).contains(&in_vain), "{in_vain} of 1,000 in vain");
        for _ in 0..200 {
            window.learn(&little_to_wait_for, true);
        }
        assert_eq!(window.size(), 2);
    }
}
