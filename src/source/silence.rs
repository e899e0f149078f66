//! How long a server has answered nothing while it was asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is waited for. A server may answer looks at its tip, which go on meanwhile, and let a view wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Look,
    View,
}

#[derive(Default)]
pub(super) struct Silence(Mutex<State>);

#[derive(Default)]
struct State {
    under_way: usize,
    /// The last answer, or the first request after it.
    since: Option<Instant>,
}

/// A request that is under way.
pub(super) struct Asking<'a> {
    silence: &'a Silence,
    timed_out: bool,
}

impl Silence {
    pub(super) fn begin(&self) -> Asking<'_> {
        let mut state = self.state();
        state.under_way += 1;
        state.since.get_or_insert_with(Instant::now);
        Asking { silence: self, timed_out: false }
    }

    /// `None` while nothing is asked.
    pub(super) fn lasts(&self) -> Option<Duration> {
        let state = self.state();
        state.since.filter(|_| state.under_way > 0).map(|since| since.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// Whatever came is an answer, a refused connection too; when the time was up, nothing came.
    pub(super) fn end(mut self, timed_out: bool) {
        self.timed_out = timed_out;
        if !timed_out {
            self.silence.state().since = Some(Instant::now());
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.silence.state();
        state.under_way -= 1;
        if state.under_way == 0 && !self.timed_out {
            state.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_from_the_last_answer_on_through_requests_whose_time_is_up() {
        let silence = Silence::default();
        assert_eq!(silence.lasts(), None);
        let first = silence.begin();
        std::thread::sleep(Duration::from_millis(20));
        first.end(true);
        assert_eq!(silence.lasts(), None, "nothing is asked");
        let second = silence.begin();
        assert!(silence.lasts().unwrap() >= Duration::from_millis(20), "{:?}", silence.lasts());
        let other = silence.begin();
        other.end(false);
        assert!(silence.lasts().unwrap() < Duration::from_millis(20), "{:?}", silence.lasts());
        // Given up by whoever asked.
        drop(second);
        let third = silence.begin();
        assert!(silence.lasts().unwrap() < Duration::from_millis(20), "{:?}", silence.lasts());
        third.end(false);
        assert_eq!(silence.lasts(), None);
    }
}
