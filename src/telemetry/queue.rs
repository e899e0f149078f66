//! What is to be written on standard error, on its way there: a thread writes it, so that nobody waits for a pipe that is
//! not read or a terminal that is held. What there is no room for is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// So many texts wait at most.
const ROOM: usize = 4096;

/// How long the end of the process is held up by what is not written yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    texts: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

impl Queue {
    /// Begins to write to `out`; `said` is the line that says how many were dropped.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        said: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Queue> {
        let (texts, waiting) = sync_channel(ROOM);
        let counts = Arc::new(Counts::default());
        let seen = Arc::clone(&counts);
        thread::Builder::new().name("log".into()).spawn(move || write(&waiting, &seen, out, said))?;
        Ok(Queue { texts, counts })
    }

    /// Takes a text if there is room for it. Never waits.
    pub(super) fn take(&self, text: &[u8]) {
        self.counts.taken.fetch_add(1, Ordering::SeqCst);
        if self.texts.try_send(text.to_vec()).is_err() {
            self.counts.taken.fetch_sub(1, Ordering::SeqCst);
            self.counts.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until what was taken is written, but not for long.
    pub(super) fn drain(&self) {
        let since = Instant::now();
        let is_written =
            || self.counts.written.load(Ordering::SeqCst) >= self.counts.taken.load(Ordering::SeqCst);
        while !is_written() && since.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn write(waiting: &Receiver<Vec<u8>>, counts: &Counts, mut out: impl Write, said: impl Fn(u64) -> String) {
    while let Ok(text) = waiting.recv() {
        // There is nobody to tell when even this cannot be written.
        let _ = out.write_all(&text);
        let dropped = counts.dropped.swap(0, Ordering::SeqCst);
        if dropped > 0 {
            let _ = out.write_all(said(dropped).as_bytes());
        }
        counts.written.fetch_add(1, Ordering::SeqCst);
    }
}

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// Writes nothing before it is told to.
    struct Held(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once whoever holds it is gone, all is written.
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_said() {
        let (go, held) = mpsc::channel();
        let written = Arc::default();
        let out = Held(held, Arc::clone(&written));
        let queue = Queue::start(out, |dropped| format!("{dropped} dropped\n")).unwrap();
        queue.take(b"first\n");
        // The thread has taken the first, or is about to.
        (0..2 * ROOM).for_each(|_| queue.take(b"line\n"));
        let dropped = queue.counts.dropped.load(Ordering::SeqCst);
        assert!((ROOM as u64 - 1..=ROOM as u64 + 1).contains(&dropped), "{dropped}");
        drop(go);
        queue.drain();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| *line == "line").count();
        assert_eq!(lines as u64 + dropped, 2 * ROOM as u64);
        assert!(text.starts_with(&format!("first\n{dropped} dropped\nline\n")), "{}", &text[..100]);
    }
}
