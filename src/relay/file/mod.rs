//! The sink "file": steps as lines of JSON in segments, each committed by a line in a file beside.
//!
//! A segment's rows lie in `000000000001.jsonl.part` while it is written to, and in `000000000001.jsonl` once it is closed;
//! `000000000001.transactions.jsonl` says where steps begin and end. The rows are on disk before the line that ends
//! their step is written, and that line says how many bytes of rows there are, and where the stream stands.

mod folder;
mod pack;
mod transactions;
mod writer;

use futures_util::future::BoxFuture;

use self::writer::Writer;
use super::format::{About, Lines};
use super::sink::{Position, Sink, SinkError};
use super::step::Step;
use crate::config;

pub(super) struct FileSink {
    settings: config::Sink,
    file: config::File,
    about: About,
    /// Goes along to the thread that writes, and is gone after an error.
    state: Option<State>,
}

struct State {
    writer: Writer,
    lines: Lines,
    rows: Vec<u8>,
}

/// As much memory is kept from one step to the next.
const KEPT: usize = 8 << 20;

impl FileSink {
    pub(super) fn new(settings: &config::Sink, file: &config::File, about: &About) -> FileSink {
        FileSink { settings: settings.clone(), file: file.clone(), about: about.clone(), state: None }
    }

    /// What the folder is known by.
    fn owner(&self) -> String {
        let About { pipeline, sink, database, .. } = &self.about;
        format!("sink `{sink}` of pipeline `{pipeline}` in database `{database}`")
    }

    /// Does something with the open folder on a thread that may wait for the disk.
    async fn with(
        &mut self,
        work: impl FnOnce(&mut State) -> Result<(), SinkError> + Send + 'static,
    ) -> Result<(), SinkError> {
        let mut state =
            self.state.take().ok_or_else(|| SinkError::transient("the sink's folder is not open"))?;
        let state = blocking(move || {
            work(&mut state)?;
            Ok(state)
        });
        self.state = Some(state.await?);
        Ok(())
    }
}

impl Sink for FileSink {
    fn open(&mut self) -> BoxFuture<'_, Result<Position, SinkError>> {
        Box::pin(async move {
            self.state = None;
            let (file, owner) = (self.file.clone(), self.owner());
            let (writer, position) = blocking(move || Writer::open(&file, &owner)).await?;
            let lines = Lines::new(&self.settings, &self.about);
            self.state = Some(State { writer, lines, rows: Vec::new() });
            Ok(position)
        })
    }

    fn publish<'a>(&'a mut self, step: &'a Step) -> BoxFuture<'a, Result<(), SinkError>> {
        let step = step.clone();
        Box::pin(self.with(move |State { writer, lines, rows }| {
            rows.clear();
            rows.shrink_to(KEPT);
            lines.write(&step, rows);
            writer.publish(&step, rows)
        }))
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(self.with(|state| state.writer.flush()))
    }

    fn check(&mut self) -> BoxFuture<'_, Result<Vec<String>, SinkError>> {
        let (path, owner) = (self.file.path.clone(), self.owner());
        Box::pin(blocking(move || folder::check(&path, &owner)))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(SinkError::transient("the thread that writes has ended").because(error)),
    }
}
