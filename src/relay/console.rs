//! The sink "console": steps on standard output, as lines of JSON, or on a terminal in a form for people.
//!
//! It keeps no position, and stops for good when nobody reads.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::sync::{Arc, LazyLock};

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::format::{About, Lines};
use super::readable::readable;
use super::sink::{Position, Sink, SinkError};
use super::step::Step;
use crate::config;
use crate::printable;
use crate::terminal::{Paint, Stdout};

/// Standard output, which all consoles of the process share.
static STDOUT: LazyLock<Output> = LazyLock::new(|| Output::new(Stdout));

/// What is written to. One write is under way at a time: where nobody reads, the others wait without a thread.
#[derive(Clone)]
struct Output(Arc<Mutex<Box<dyn Write + Send>>>);

pub(super) struct ConsoleSink {
    output: Output,
    look: Look,
}

enum Look {
    Json {
        lines: Box<Lines>,
        /// Characters that a terminal obeys are escaped, which JSON leaves as they are but for some.
        is_escaped: bool,
    },
    Readable(Paint),
}

impl Output {
    fn new(to: impl Write + Send + 'static) -> Output {
        Output(Arc::new(Mutex::new(Box::new(to))))
    }

    /// Writes whole lines, on a thread that may wait for whoever reads them. It has its turn until the write has ended, though
    /// the caller may not wait that long.
    async fn write(&self, text: Vec<u8>) -> io::Result<()> {
        let mut turn = Arc::clone(&self.0).lock_owned().await;
        let written = tokio::task::spawn_blocking(move || turn.write_all(&text).and_then(|()| turn.flush()));
        written.await.map_err(io::Error::other)?
    }
}

impl ConsoleSink {
    /// In a form for people on a terminal.
    pub(super) fn new(settings: &config::Sink, about: &About) -> ConsoleSink {
        match io::stdout().is_terminal() {
            true => ConsoleSink { output: STDOUT.clone(), look: Look::Readable(Paint::of_stdout()) },
            false => ConsoleSink::json(settings, about),
        }
    }

    /// As lines of JSON, also on a terminal.
    pub(super) fn json(settings: &config::Sink, about: &About) -> ConsoleSink {
        let lines = Box::new(Lines::new(settings, about));
        let look = Look::Json { lines, is_escaped: io::stdout().is_terminal() };
        ConsoleSink { output: STDOUT.clone(), look }
    }
}

impl Sink for ConsoleSink {
    fn open(&mut self) -> BoxFuture<'_, Result<Position, SinkError>> {
        Box::pin(async { Ok(Position::NotKept) })
    }

    fn publish<'a>(&'a mut self, step: &'a Step) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let text = match &mut self.look {
                Look::Json { lines, is_escaped } => {
                    let mut text = Vec::new();
                    lines.write(step, &mut text);
                    if *is_escaped { fit(text) } else { text }
                }
                Look::Readable(paint) => readable(step, *paint).into_bytes(),
            };
            if text.is_empty() {
                return Ok(());
            }
            self.output.write(text).await.map_err(|error| match error.kind() {
                ErrorKind::BrokenPipe => SinkError::permanent("nobody reads standard output any more")
                    .advise("start it again with a reader, or take the console away from the configuration")
                    .because(error),
                _ => SinkError::transient("cannot write to standard output").because(error),
            })
        })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&mut self) -> BoxFuture<'_, Result<Vec<String>, SinkError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// JSON that says the same, without characters that a terminal obeys.
fn fit(json: Vec<u8>) -> Vec<u8> {
    match std::str::from_utf8(&json).map(printable::lines) {
        Ok(Cow::Owned(fit)) => fit.into_bytes(),
        Ok(Cow::Borrowed(_)) | Err(_) => json,
    }
}
