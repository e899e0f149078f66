//! Pauses between tries: they grow, and after many failures in a row it is tried only now and then.

use std::time::Duration;

use crate::config::Retry;
use crate::failure::Backoff;

pub(super) struct Breaker {
    retry: Retry,
    pauses: Backoff,
    failures: u32,
}

impl Breaker {
    pub(super) fn new(retry: Retry) -> Breaker {
        Breaker { retry, pauses: Backoff::new(retry.initial, retry.max), failures: 0 }
    }

    /// One more failure; how long to wait. `asked`: the other side said so.
    pub(super) fn failed(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = if self.is_open() { self.retry.probe } else { self.pauses.next_pause() };
        asked.map_or(pause, |asked| asked.max(pause))
    }

    /// Returns how often it had failed in a row.
    pub(super) fn succeeded(&mut self) -> u32 {
        self.pauses.reset();
        std::mem::take(&mut self.failures)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures >= self.retry.open_after
    }
}
