//! What it costs to be watched: the metrics, the server that is scraped, a status page that is open.

use std::time::{Duration, Instant};

use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::config::{Inputs, load};
use debshrew::observe::{Ahead, CommittedBlock, Evaluated, Observer};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::task::JoinSet;

use crate::follow::{Scene, TRANSACTIONS, Transform, source};
use crate::report::{Case, Goal, Readings};
use crate::server::Server;
use crate::{Group, Outcome};

/// As often as one Prometheus would at the most.
const SCRAPED_EVERY: Duration = Duration::from_secs(1);

const TOLD: &str = "told";
const WATCHED: &str = "watched";
const UNWATCHED: &str = "not watched";

pub(crate) fn groups() -> Vec<Group> {
    let case = |name: &str, reading, goal| Case {
        name: format!("watching-{name}"),
        unit: "µs of processor/block",
        reading,
        baseline: Some(UNWATCHED),
        goal,
    };
    vec![Group {
        name: "watching".to_owned(),
        cases: vec![case("metrics", TOLD, Some(Goal::AtMost(0.01))), case("server", WATCHED, None)],
        run: Box::new(|server| watching(server).boxed()),
    }]
}

/// The ledger end to end without a server and with one in turn, in the order ABBA, since runs grow or shrink with time.
async fn watching(server: &Server) -> Outcome<Readings> {
    let mut readings = Readings::from([(WATCHED, 0.0), (UNWATCHED, 0.0), (TOLD, told().await?)]);
    for name in [UNWATCHED, WATCHED, WATCHED, UNWATCHED] {
        let took = end_to_end(server, name == WATCHED).await?;
        readings.entry(name).and_modify(|sum| *sum += took / 2.0);
    }
    Ok(readings)
}

/// Microseconds of processor time a block that `debshrew run` takes, without PostgreSQL's.
async fn end_to_end(server: &Server, is_watched: bool) -> Outcome<f64> {
    const BLOCKS: u32 = 6_000;
    let source = source(BLOCKS - 1, TRANSACTIONS).await?;
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
    let settings = if is_watched { format!("[server]\nlisten = '{address}'") } else { String::new() };
    let scene = Scene::new(server, source, &Transform::Ledger, &settings).await?;
    let mut running = scene.start()?;
    let mut watchers = JoinSet::new();
    if is_watched {
        watchers.spawn(scrape(address.clone()));
        watchers.spawn(watch(address));
    }
    scene.committed(&mut running, BLOCKS - 1).await?;
    let took = processor_time(&running)?;
    if let Some(ended) = watchers.try_join_next() {
        return Err(format!("nobody watches any more: {ended:?}").into());
    }
    running.kill().await?;
    Ok(took.as_secs_f64() * 1e6 / f64::from(BLOCKS))
}

/// Asks for the metrics again and again, as Prometheus does.
async fn scrape(address: String) -> Outcome<()> {
    loop {
        tokio::time::sleep(SCRAPED_EVERY).await;
        let mut answer = Vec::new();
        ask(&address, "/metrics").await?.read_to_end(&mut answer).await?;
        let is_there = String::from_utf8_lossy(&answer).contains("\ndebshrew_blocks_committed_total{");
        if !is_there {
            return Err("the metrics of the pipeline are missing".into());
        }
    }
}

/// Takes every event that an open status page gets.
async fn watch(address: String) -> Outcome<()> {
    tokio::time::sleep(SCRAPED_EVERY).await;
    let mut events = ask(&address, "/events").await?;
    let mut taken = vec![0; 64 << 10];
    while events.read(&mut taken).await? > 0 {}
    Ok(())
}

async fn ask(address: &str, path: &str) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// What a process used so far, all of its threads together. Source: `man 5 proc`, `stat`; a tick is 10 ms on Linux.
fn processor_time(process: &Child) -> Outcome<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let id = process.id().ok_or("debshrew has ended")?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name before it may have blanks and brackets.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/…/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let ticks = ticks.sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

/// Microseconds that all a pipeline tells of a block takes while metrics are collected.
async fn told() -> Outcome<f64> {
    const BLOCKS: u32 = 100_000;
    let listen = ("DEBSHREW__SERVER__LISTEN".to_owned(), "127.0.0.1:0".to_owned());
    let config = load(&Inputs { environment: [listen].into(), ..Inputs::default() })?;
    let observer = Observer::default();
    // Metrics can be collected once in a process: runs after the first have the first one's.
    let served = debshrew::server::Server::start(&config, &observer).await;
    let start = Instant::now();
    let watched = observer.pipeline("bench", height(0)?, 0);
    let tables = [("address", 15), ("holding", 15), ("holder", 20)];
    for block in 0..BLOCKS {
        let at = BlockRef { height: height(block)?, hash: BlockHash::new([7; 32]) };
        let computed = Duration::from_micros(300);
        watched.source_tip(height(BLOCKS)?);
        watched.evaluates(&Ahead { blocks: 8, bytes: 1 << 20, most_bytes: 512 << 20 });
        watched.evaluated(&Evaluated { at, fuel: 1_000_000, computed, views: 2, waited: computed });
        watched.committed(&CommittedBlock { at, tables: &tables });
        watched.commits_took(1, computed);
    }
    let took = start.elapsed();
    drop(served);
    Ok(took.as_secs_f64() * 1e6 / f64::from(BLOCKS))
}

fn height(height: u32) -> Outcome<Height> {
    Ok(Height::new(height).ok_or("not a height")?)
}
