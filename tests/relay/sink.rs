//! A sink in memory, which a test reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use debshrew::config::{self, Beginning, Destination, OnLag, Retry};
use debshrew::relay::{Make, Position, Relay, RelayError, Sink, SinkError, Step, StepKind, Until};
use debshrew::undo::{Event, Operation, Row};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::support::Rig;

/// What was published, all of it.
#[derive(Clone, Default)]
pub struct Memory {
    pub steps: Arc<Mutex<Vec<Step>>>,
    /// Says where it stands, and keeps what was flushed only.
    pub keeps_position: bool,
    /// Every call fails.
    pub refuses: Arc<AtomicBool>,
    /// The next call fails.
    pub fails: Arc<AtomicBool>,
    /// How long a step takes.
    pub pause: Duration,
}

impl Memory {
    pub fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap().clone()
    }

    /// The steps, a line each.
    pub fn told(&self) -> Vec<String> {
        self.steps().iter().map(line).collect()
    }
}

/// A sink that is open.
struct Open {
    memory: Memory,
    taken: Vec<Step>,
}

fn fails(memory: &Memory) -> Result<(), SinkError> {
    if memory.refuses.load(Ordering::Relaxed) {
        return Err(SinkError::transient("it refuses"));
    }
    match memory.fails.swap(false, Ordering::Relaxed) {
        true => Err(SinkError::transient("it was told to fail")),
        false => Ok(()),
    }
}

impl Sink for Open {
    fn open(&mut self) -> BoxFuture<'_, Result<Position, SinkError>> {
        let last = self
            .memory
            .steps
            .lock()
            .unwrap()
            .iter()
            .rev()
            .find(|step| step.completes())
            .map(|step| step.cursor);
        let position = match last {
            _ if !self.memory.keeps_position => Position::NotKept,
            None => Position::Empty,
            Some(cursor) => Position::At(cursor),
        };
        async move { Ok(position) }.boxed()
    }

    fn publish<'a>(&'a mut self, step: &'a Step) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            fails(&self.memory)?;
            tokio::time::sleep(self.memory.pause).await;
            self.taken.push(step.clone());
            if !self.memory.keeps_position {
                self.memory.steps.lock().unwrap().append(&mut self.taken);
            }
            Ok(())
        }
        .boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        async move {
            fails(&self.memory)?;
            self.memory.steps.lock().unwrap().append(&mut self.taken);
            Ok(())
        }
        .boxed()
    }

    fn check(&mut self) -> BoxFuture<'_, Result<Vec<String>, SinkError>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

/// A sink's task, which a test runs as long as it likes.
pub struct Run {
    pub relay: Relay,
    _wake: tokio::sync::watch::Sender<u64>,
}

impl Run {
    /// Publishes all that is committed.
    pub async fn catch_up(&self) -> Result<(), RelayError> {
        let until = Until { stop: CancellationToken::new(), finish: CancellationToken::new() };
        until.finish.cancel();
        self.relay.run(&until).await
    }
}

/// Until it is told to end.
pub fn endless() -> Until {
    Until { stop: CancellationToken::new(), finish: CancellationToken::new() }
}

pub fn relay(rig: &Rig, name: &str, from: Beginning, sink: &Memory) -> Run {
    let memory = sink.clone();
    let make: Make = Arc::new(move || Ok(Box::new(Open { memory: memory.clone(), taken: Vec::new() })));
    let (sender, wake) = tokio::sync::watch::channel(0);
    let relay = Relay {
        pipeline: rig.name.clone(),
        name: name.to_owned(),
        settings: settings(from),
        db: rig.db.clone(),
        metrics: debshrew::observe::SinkMetrics::new(&rig.name, name),
        make,
        wake,
    };
    Run { relay, _wake: sender }
}

fn settings(from: Beginning) -> config::Sink {
    config::Sink {
        to: Destination::Console,
        from,
        tables: vec!["*".to_owned()],
        confirmations: 0,
        max_lag: Duration::from_secs(3600),
        on_lag: OnLag::Detach,
        format: config::Format::Debezium,
        schemas: false,
        tombstones: true,
        retry: Retry {
            initial: Duration::from_millis(10),
            max: Duration::from_millis(50),
            open_after: 10,
            probe: Duration::from_millis(100),
        },
    }
}

pub fn line(step: &Step) -> String {
    let height = step.height().map_or("start".to_owned(), |height| height.to_string());
    let events: Vec<String> = step.events.iter().map(|event| format!(" {}", of_event(step, event))).collect();
    format!("{} {height}:{}", step.name(), events.concat())
}

fn of_event(step: &Step, event: &Event) -> String {
    let row = |row: &Option<Row>| {
        let values = row.as_ref().map(|row| {
            row.values().map(|value| value.unwrap_or("null").to_owned()).collect::<Vec<_>>().join(", ")
        });
        values.unwrap_or_default()
    };
    let (name, before, after) = (&event.table.name, row(&event.before), row(&event.after));
    match event.operation() {
        _ if matches!(step.kind, StepKind::Snapshot { .. }) => format!("r {name}({after})"),
        Operation::Create => format!("c {name}({after})"),
        Operation::Update => format!("u {name}({before} -> {after})"),
        Operation::Delete => format!("d {name}({before})"),
    }
}
