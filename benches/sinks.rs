//! What sinks cost: blocks taken to a file, against how fast they are applied; and the pipeline with a sink beside it, against
//! without one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use debshrew::commit::Journaling;
use debshrew::config::{self, Beginning, Compression, Destination, Rotate, Sink};
use debshrew::observe::SinkMetrics;
use debshrew::relay::{self, About, Relay, Until};
use debshrew::simulate::{Command, Status};
use futures_util::FutureExt;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::apply::{Applier, WARM, changes, fill};
use crate::follow::{Scene, TRANSACTIONS, Transform, source};
use crate::report::{Case, Goal, Readings};
use crate::rows::{Chain, NARROW};
use crate::server::{Base, PIPELINE, Server};
use crate::{Group, Outcome};

/// Rows that are in the table at the beginning.
const BEFORE: u64 = 10_000;

const APPLIED: &str = "applied";
const TO_FILE: &str = "to a file";
const WAL: &str = "WAL without a sink";
const WAL_ATTACHED: &str = "WAL with a sink";

pub(crate) fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = [(50, 1_000), (1_000, 100)].into_iter().map(file_group).collect();
    groups.push(catch_up_group());
    groups.push(tip_group());
    groups
}

/// Blocks of so many changes, and how many of them.
fn file_group((size, blocks): (usize, usize)) -> Group {
    let cases = vec![
        Case {
            name: format!("sink-file-{size}"),
            unit: "changes/s",
            reading: TO_FILE,
            baseline: Some(APPLIED),
            goal: (size == 1_000).then_some(Goal::AtLeast(1.0)),
        },
        Case {
            name: format!("sink-wal-{size}"),
            unit: "bytes/change",
            reading: WAL_ATTACHED,
            baseline: Some(WAL),
            goal: Some(Goal::AtMost(1.03)),
        },
    ];
    Group {
        name: format!("sink-file-{size}"),
        cases,
        run: Box::new(move |server| to_file(server, size, blocks).boxed()),
    }
}

/// Blocks are applied with a journal while a sink holds it, then taken to a file; once more with the sink at work beside.
async fn to_file(server: &Server, size: usize, blocks: usize) -> Outcome<Readings> {
    let mut chain = Chain::new(&NARROW, BEFORE);
    let blocks = chain.blocks(WARM + blocks, size);
    let (warm, counted) = blocks.split_at(WARM);
    let count = (size * counted.len()) as f64;
    let base = server.pipeline(NARROW.ddl).await?;
    fill(&base, &NARROW, BEFORE).await?;
    let mut applier = Applier::new(&base, Journaling::Kept).await?;
    applier.apply(changes(&NARROW, warm)).await?;
    let folder = TempDir::new()?;
    let sink = relay(&base, folder.path());
    caught_up(&sink).await?;
    let wal = base.wal().await?;
    let start = Instant::now();
    applier.apply(changes(&NARROW, counted)).await?;
    let applied = start.elapsed();
    let wal = base.wal().await? - wal;
    let start = Instant::now();
    caught_up(&sink).await?;
    let published = start.elapsed();
    refuse_missing(folder.path(), size * counted.len())?;
    let attached = attached_wal(server, &blocks).await?;
    Ok(Readings::from([
        (APPLIED, count / applied.as_secs_f64()),
        (TO_FILE, count / published.as_secs_f64()),
        (WAL, wal / count),
        (WAL_ATTACHED, attached / count),
    ]))
}

/// Bytes of WAL of the same blocks with a sink that publishes each of them meanwhile.
async fn attached_wal(server: &Server, blocks: &[Vec<crate::rows::RowChange>]) -> Outcome<f64> {
    let (warm, counted) = blocks.split_at(WARM);
    let base = server.pipeline(NARROW.ddl).await?;
    fill(&base, &NARROW, BEFORE).await?;
    let mut applier = Applier::new(&base, Journaling::Kept).await?;
    applier.apply(changes(&NARROW, warm)).await?;
    let folder = TempDir::new()?;
    let sink = relay(&base, folder.path());
    caught_up(&sink).await?;
    let until = until();
    let running = tokio::spawn({
        let (sink, until) = (sink.clone(), until.clone());
        async move { sink.run(&until).await }
    });
    let wal = base.wal().await?;
    applier.apply(changes(&NARROW, counted)).await?;
    until.finish.cancel();
    running.await??;
    Ok(base.wal().await? - wal)
}

/// A sink of the pipeline that writes to a file from the next block on.
fn relay(base: &Base, folder: &Path) -> Relay {
    let to = Destination::File(config::File {
        path: folder.to_owned(),
        rotate: Rotate { bytes: 256 << 20, age: Duration::from_secs(3_600) },
        compression: Compression::None,
    });
    let settings = Sink { to, from: Beginning::Now, ..Sink::console(vec!["*".to_owned()]) };
    let about = About {
        pipeline: PIPELINE.to_owned(),
        sink: "file".to_owned(),
        database: "bench".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let made = settings.clone();
    let (_, wake) = tokio::sync::watch::channel(0);
    Relay {
        pipeline: PIPELINE.to_owned(),
        name: "file".to_owned(),
        settings,
        db: base.db.clone(),
        metrics: SinkMetrics::new(PIPELINE, "file"),
        make: Arc::new(move || relay::open(&made, &about)),
        wake,
    }
}

fn until() -> Until {
    Until { stop: CancellationToken::new(), finish: CancellationToken::new() }
}

/// Publishes everything that is committed.
async fn caught_up(sink: &Relay) -> Outcome<()> {
    let until = until();
    until.finish.cancel();
    Ok(sink.run(&until).await?)
}

/// A change may come to nothing, or two of a block to one; most do not.
fn refuse_missing(folder: &Path, changes: usize) -> Outcome<()> {
    let mut lines = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.to_string_lossy().contains("transactions") && !path.to_string_lossy().contains("lock") {
            lines += std::fs::read_to_string(path)?.lines().count();
        }
    }
    match lines * 10 >= changes * 8 {
        true => Ok(()),
        false => Err(format!("{lines} events of {changes} changes are in the file").into()),
    }
}

const WITHOUT: &str = "without a sink";
const WITH: &str = "with a file";
const AWAY: &str = "with one that cannot be reached";

/// Lines of a pipeline's section: a sink that writes to a file from the first block on.
const FILE: &str = "[pipelines.bench.sinks.file]\nkind = 'file'\nfrom = 0\npath = 'out'";

/// And one that nothing listens for.
const NOBODY: &str = "[pipelines.bench.sinks.hook]\nkind = 'webhook'\nfrom = 0\nurl = 'http://127.0.0.1:9/'";

const SINKS: [(&str, &str); 3] = [(WITHOUT, ""), (WITH, FILE), (AWAY, NOBODY)];

fn catch_up_group() -> Group {
    let case = |name: &str, reading, goal| Case {
        name: format!("sink-catch-up-{name}"),
        unit: "blocks/s",
        reading,
        baseline: Some(WITHOUT),
        goal,
    };
    Group {
        name: "sink-catch-up".to_owned(),
        cases: vec![case("file", WITH, None), case("away", AWAY, Some(Goal::AtLeast(0.95)))],
        run: Box::new(|server| catch_up(server).boxed()),
    }
}

/// The ledger from a source that answers at once, every block journaled.
async fn catch_up(server: &Server) -> Outcome<Readings> {
    const BLOCKS: u32 = 1_000;
    let mut readings = Readings::new();
    for (name, settings) in SINKS {
        let source = source(BLOCKS - 1, TRANSACTIONS).await?;
        let scene = Scene::new(server, source, &Transform::Ledger, settings).await?;
        let start = Instant::now();
        let mut running = scene.start()?;
        scene.committed(&mut running, BLOCKS - 1).await?;
        readings.insert(name, f64::from(BLOCKS) / start.elapsed().as_secs_f64());
        running.kill().await?;
    }
    Ok(readings)
}

fn tip_group() -> Group {
    let case = |name: &str, reading| Case {
        name: format!("sink-tip-{name}"),
        unit: "blocks/s",
        reading,
        baseline: Some(WITHOUT),
        goal: Some(Goal::AtLeast(0.95)),
    };
    Group {
        name: "sink-tip".to_owned(),
        cases: vec![case("file", WITH), case("away", AWAY)],
        run: Box::new(|server| tip(server).boxed()),
    }
}

/// One block after the other appears at the source as soon as the one before is committed.
async fn tip(server: &Server) -> Outcome<Readings> {
    const BLOCKS: u32 = 150;
    const BEFORE: u32 = 50;
    let mut readings = Readings::new();
    for (name, settings) in SINKS {
        let source = source(BEFORE, TRANSACTIONS).await?;
        let scene = Scene::new(server, source, &Transform::Ledger, settings).await?;
        let mut running = scene.start()?;
        scene.committed(&mut running, BEFORE).await?;
        let start = Instant::now();
        for height in BEFORE + 1..=BEFORE + BLOCKS {
            scene.source.control(Command::Mine { blocks: 1 }).await?;
            scene.source.until(Status::settled).await;
            scene.committed(&mut running, height).await?;
        }
        readings.insert(name, f64::from(BLOCKS) / start.elapsed().as_secs_f64());
        running.kill().await?;
    }
    Ok(readings)
}
