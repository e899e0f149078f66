//! How much was done a second and a minute of late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

/// How many seconds count for what is done a second now.
const SECONDS: usize = 15;

/// How many minutes are remembered.
const MINUTES: usize = 60;

/// What was done in a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Minute {
    pub blocks: u64,
    pub changes: u64,
}

/// Counts by seconds and minutes since it was made.
#[derive(Debug)]
pub(super) struct Rates {
    began: Instant,
    /// The newest last; one a second, the present one included.
    seconds: VecDeque<Minute>,
    minutes: VecDeque<Minute>,
    /// Which second and minute the last entries are of, counted from the beginning.
    second: u64,
    minute: u64,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Rates {
        Rates {
            began: now,
            seconds: VecDeque::from([Minute::default()]),
            minutes: VecDeque::from([Minute::default()]),
            second: 0,
            minute: 0,
        }
    }

    pub(super) fn add(&mut self, now: Instant, blocks: u64, changes: u64) {
        self.move_on(now);
        for counts in [self.seconds.back_mut(), self.minutes.back_mut()].into_iter().flatten() {
            counts.blocks += blocks;
            counts.changes += changes;
        }
    }

    /// Blocks and changes a second, over the last seconds.
    pub(super) fn a_second(&mut self, now: Instant) -> (f64, f64) {
        self.move_on(now);
        let sum = |of: fn(&Minute) -> u64| self.seconds.iter().map(of).sum::<u64>() as f64;
        let whole = Duration::from_secs(self.second.saturating_sub(self.seconds.len() as u64 - 1));
        let seconds = now.duration_since(self.began).saturating_sub(whole).as_secs_f64().max(0.5);
        (sum(|counts| counts.blocks) / seconds, sum(|counts| counts.changes) / seconds)
    }

    /// The last minutes, the present one last.
    pub(super) fn minutes(&mut self, now: Instant) -> Vec<Minute> {
        self.move_on(now);
        self.minutes.iter().copied().collect()
    }

    fn move_on(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_secs();
        advance(&mut self.seconds, &mut self.second, since, SECONDS);
        advance(&mut self.minutes, &mut self.minute, since / 60, MINUTES);
    }
}

fn advance(counts: &mut VecDeque<Minute>, at: &mut u64, to: u64, most: usize) {
    let passed = usize::try_from(to.saturating_sub(*at)).unwrap_or(usize::MAX).min(most);
    counts.extend(std::iter::repeat_n(Minute::default(), passed));
    while counts.len() > most {
        counts.pop_front();
    }
    *at = to.max(*at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_a_second_is_that_of_the_last_seconds() {
        let began = Instant::now();
        let mut rates = Rates::new(began);
        let at = |seconds| began + Duration::from_secs(seconds);
        for second in 0..100 {
            rates.add(at(second), 10, 100);
        }
        let (blocks, changes) = rates.a_second(at(99) + Duration::from_millis(999));
        assert!((9.9..10.1).contains(&blocks) && (99.0..101.0).contains(&changes), "{blocks} {changes}");
        let (blocks, _) = rates.a_second(at(200));
        assert!(blocks.abs() < f64::EPSILON, "{blocks}");
    }

    #[test]
    fn minutes_without_blocks_are_empty_and_old_ones_are_forgotten() {
        let began = Instant::now();
        let mut rates = Rates::new(began);
        let at = |minutes: u64| began + Duration::from_secs(60 * minutes);
        rates.add(at(0), 1, 2);
        rates.add(at(2), 3, 4);
        let minute = |blocks, changes| Minute { blocks, changes };
        assert_eq!(rates.minutes(at(2)), [minute(1, 2), minute(0, 0), minute(3, 4)]);
        let later = rates.minutes(at(61));
        assert_eq!((later.len(), later[0]), (MINUTES, minute(3, 4)));
        assert_eq!(rates.minutes(at(10_000)), vec![Minute::default(); MINUTES]);
    }
}
