//! What is done about a failure: which kinds there are, and how long to wait before another try.
//!
//! Every module's error says its [`Kind`]; the pipeline alone acts on it.

use std::error::Error;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It may pass by itself (a network, a restart, a lock): the same thing is tried again after a while.
    Transient,
    /// It comes back however often it is tried (a trap, an unknown table, a refused login): the pipeline
    /// halts and says why.
    Permanent,
}

/// What an error's causes say, from the nearest to the first, without what says nothing new.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let message = inner.to_string().trim_end().to_owned();
        // Some crates repeat their cause in their own text; tokio-postgres says no more than "db error" of what
        // the server answered, which is the next cause.
        if !said.contains(&message) && message != "db error" {
            causes.push(message.clone());
        }
        said = message;
        cause = inner.source();
    }
    causes
}

/// An error and its causes in one line. PostgreSQL says details and hints in lines of their own.
pub fn chain(error: &dyn Error) -> String {
    let mut all = vec![error.to_string()];
    all.extend(causes(error));
    all.join(": ").replace('\n', " ")
}

/// The first of several things, and how many more there are.
pub fn some_of(all: &[String], separator: &str) -> String {
    const MOST: usize = 40;
    match all.len().checked_sub(MOST) {
        None | Some(0) => all.join(separator),
        Some(more) => format!("{} and {more} more", all[..MOST].join(separator)),
    }
}

/// The beginning of a text of any length.
pub fn excerpt(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Growing, jittered pauses between tries, so that many clients do not come back at the same instant.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Pauses that double from `first` up to `longest`, each lengthened by up to its own length.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        let builder = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times();
        Backoff { pauses: builder.build(), builder }
    }

    /// The pause before the next try.
    pub fn next_pause(&mut self) -> Duration {
        // Without a limit of tries the iterator never ends.
        self.pauses.next().unwrap_or(Duration::from_secs(1))
    }

    /// Something went well: the next pause is a short one again.
    pub fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

/// A named point at which a test may end the process (the feature `failpoints`).
pub fn crash_point(_name: &str) {
    fail::fail_point!(_name, |_| -> () { std::process::abort() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(80));
        let pauses: Vec<_> = (0..20).map(|_| backoff.next_pause()).collect();
        assert!(pauses[0] >= Duration::from_millis(10) && pauses[0] <= Duration::from_millis(20));
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_millis(160)));
        assert!(pauses[19] >= Duration::from_millis(80));
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(20));
    }
}
