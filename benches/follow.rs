//! The whole of it: the program `debshrew run` between a simulated source and PostgreSQL, as its users have it.
//! The source lives in the process of the benchmark, on the same processors.

use std::process::Stdio;
use std::time::{Duration, Instant};

use debshrew::simulate::{Command, Fault, Misbehaviour, Options, Origin, Simulator, Status};
use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::process::Child;

use crate::evaluate::built;
use crate::report::{Case, Goal, Readings};
use crate::server::{Base, PIPELINE, Server};
use crate::{Group, Outcome};

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the source of `catch_up` takes for a call.
const CALL: Duration = Duration::from_millis(20);

/// How often a follower at the tip looks at the source.
const POLL: Duration = Duration::from_millis(50);

/// With so many transactions a block, the ledger changes about 50 rows.
pub(crate) const TRANSACTIONS: u32 = 5;

pub(crate) fn groups() -> Vec<Group> {
    let mut groups = catch_up_groups();
    groups.push(end_to_end_group());
    groups.push(delay_group());
    groups
}

/// How many blocks are evaluated at once, and how many are to be caught up.
struct Ahead {
    name: &'static str,
    /// Lines of the pipeline's section.
    settings: &'static str,
    blocks: u32,
}

/// One block after the other is so slow that fewer must do; each costs the same.
const ONE_BY_ONE: Ahead = Ahead { name: "one by one", settings: "evaluate_ahead = 1", blocks: 100 };

/// As many at once as by default.
const DEFAULT: Ahead = Ahead { name: "default", settings: "", blocks: 1_000 };

/// What is measured, each but the first against the first.
const AHEADS: [Ahead; 2] = [ONE_BY_ONE, DEFAULT];

fn catch_up_groups() -> Vec<Group> {
    let kinds = [("stateless", STATELESS, 20.0), ("stateful", STATEFUL, 10.0)];
    let group = |(name, wat, goal): (&str, fn() -> String, f64)| Group {
        name: format!("catch-up-{name}"),
        cases: AHEADS
            .iter()
            .map(|ahead| Case {
                name: format!("catch-up-{name}-{}", ahead.name.replace(' ', "-")),
                unit: "blocks/s",
                reading: ahead.name,
                baseline: (ahead.name != ONE_BY_ONE.name).then_some(ONE_BY_ONE.name),
                goal: (ahead.name != ONE_BY_ONE.name).then_some(Goal::AtLeast(goal)),
            })
            .collect(),
        run: Box::new(move |server| catch_up(server, wat()).boxed()),
    };
    kinds.into_iter().map(group).collect()
}

/// A block whose evaluation depends on nothing but the source.
const STATELESS: fn() -> String = || include_str!("views.wat").to_owned();

/// The same, and each block needs what the one before it left in the state.
const STATEFUL: fn() -> String =
    || STATELESS().replace("(global $stateful i32 (i32.const 0))", "(global $stateful i32 (i32.const 1))");

/// Blocks a second from a source that takes its time for each call, with two views a block.
async fn catch_up(server: &Server, wat: String) -> Outcome<Readings> {
    let mut readings = Readings::new();
    for Ahead { name, settings, blocks } in AHEADS {
        let source = source(blocks - 1, 1).await?;
        let ms = u64::try_from(CALL.as_millis())?;
        let slow = Misbehaviour { method: None, view: None, calls: None, fault: Fault::Slow { ms } };
        source.control(Command::Misbehave(slow)).await?;
        let scene = Scene::new(server, source, &Transform::Wat(&wat), settings).await?;
        let start = Instant::now();
        let mut running = scene.start()?;
        scene.committed(&mut running, blocks - 1).await?;
        readings.insert(name, f64::from(blocks) / start.elapsed().as_secs_f64());
        running.kill().await?;
    }
    Ok(readings)
}

const BLOCKS_A_SECOND: &str = "blocks a second";
const CHANGES_A_SECOND: &str = "changes a second";
const CHANGES_A_BLOCK: &str = "changes a block";
const MEMORY: &str = "peak memory";

fn end_to_end_group() -> Group {
    let case = |name: &str, unit, reading, goal| Case {
        name: format!("end-to-end-{name}"),
        unit,
        reading,
        baseline: None,
        goal,
    };
    Group {
        name: "end-to-end".to_owned(),
        cases: vec![
            case("blocks", "blocks/s", BLOCKS_A_SECOND, None),
            case("changes", "changes/s", CHANGES_A_SECOND, None),
            case("block-size", "changes/block", CHANGES_A_BLOCK, None),
            case("memory", "MB", MEMORY, Some(Goal::AtMost(100.0))),
        ],
        run: Box::new(|server| end_to_end(server).boxed()),
    }
}

/// The ledger from a source that answers at once.
async fn end_to_end(server: &Server) -> Outcome<Readings> {
    const BLOCKS: u32 = 2_000;
    let source = source(BLOCKS - 1, TRANSACTIONS).await?;
    let scene = Scene::new(server, source, &Transform::Ledger, "").await?;
    let start = Instant::now();
    let mut running = scene.start()?;
    scene.committed(&mut running, BLOCKS - 1).await?;
    let seconds = start.elapsed().as_secs_f64();
    let memory = peak_memory(&running)?;
    running.kill().await?;
    let sql = "select sum(changes)::float8 from debshrew.block";
    let changes: f64 = scene.base.client.query_one(sql, &[]).await?.get(0);
    Ok(Readings::from([
        (BLOCKS_A_SECOND, f64::from(BLOCKS) / seconds),
        (CHANGES_A_SECOND, changes / seconds),
        (CHANGES_A_BLOCK, changes / f64::from(BLOCKS)),
        (MEMORY, memory),
    ]))
}

/// The most that a process has ever had in memory, in MB. Source: `man 5 proc`, `VmHWM`.
fn peak_memory(process: &Child) -> Outcome<f64> {
    let id = process.id().ok_or("debshrew has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}

const MEDIAN: &str = "median delay";
const LATEST: &str = "delay of the 99th percentile";

fn delay_group() -> Group {
    let case = |name: &str, unit, reading, goal| Case {
        name: format!("delay-{name}"),
        unit,
        reading,
        baseline: None,
        goal,
    };
    Group {
        name: "delay".to_owned(),
        cases: vec![
            case("median", "ms", MEDIAN, None),
            case("99th", "ms beyond polling", LATEST, Some(Goal::AtMost(30.0))),
        ],
        run: Box::new(|server| delay(server).boxed()),
    }
}

/// From a block's appearance at the source until SQL shows it; the ledger's rows, about 50 a block. Of the latest
/// the interval of polling is taken off, which a block may have to wait for at worst.
async fn delay(server: &Server) -> Outcome<Readings> {
    const BLOCKS: u32 = 100;
    const BEFORE: u32 = 50;
    let source = source(BEFORE, TRANSACTIONS).await?;
    let scene = Scene::new(server, source, &Transform::Ledger, "").await?;
    let mut running = scene.start()?;
    scene.committed(&mut running, BEFORE).await?;
    let mut dice = fastrand::Rng::with_seed(1);
    let mut delays = Vec::new();
    for height in BEFORE + 1..=BEFORE + BLOCKS {
        // So that blocks do not fall into step with the looks at the source.
        tokio::time::sleep(POLL.mul_f64(dice.f64())).await;
        scene.source.control(Command::Mine { blocks: 1 }).await?;
        scene.source.until(Status::settled).await;
        let start = Instant::now();
        scene.committed(&mut running, height).await?;
        delays.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    running.kill().await?;
    delays.sort_by(f64::total_cmp);
    // Of a hundred the 99th percentile is the second last: one is later.
    let latest = delays[delays.len() - 2] - POLL.as_secs_f64() * 1_000.0;
    Ok(Readings::from([(MEDIAN, delays[delays.len() / 2]), (LATEST, latest)]))
}

pub(crate) async fn source(height: u32, transactions: u32) -> Outcome<Simulator> {
    let origin = Origin::Generated { seed: 1, height, transactions };
    Ok(Simulator::start(Options { origin, ..Options::default() }).await?)
}

pub(crate) enum Transform<'a> {
    /// `views.wat`
    Wat(&'a str),
    Ledger,
}

/// A source, a database that is empty, and the configuration of a pipeline between them.
pub(crate) struct Scene {
    pub(crate) source: Simulator,
    base: Base,
    folder: TempDir,
}

impl Scene {
    pub(crate) async fn new(
        server: &Server,
        source: Simulator,
        transform: &Transform<'_>,
        settings: &str,
    ) -> Outcome<Scene> {
        let base = server.database().await?;
        let folder = TempDir::new()?;
        let (module, migrations) = match transform {
            Transform::Wat(wat) => {
                let module = folder.path().join("views.wasm");
                std::fs::write(&module, wat::parse_str(wat)?)?;
                let migrations = folder.path().join("migrations");
                std::fs::create_dir(&migrations)?;
                let ddl = "create table seen (height integer primary key, count integer not null)";
                std::fs::write(migrations.join("V1__seen.sql"), ddl)?;
                (module, migrations)
            }
            Transform::Ledger => {
                let root = env!("CARGO_MANIFEST_DIR");
                (built("ledger")?, format!("{root}/transforms/ledger/migrations").into())
            }
        };
        let toml = format!(
            "[database]\nurl = '{}'\n[source]\nurls = ['{}']\npoll_interval = '{}ms'\n\
             [pipelines.{PIPELINE}]\ntransform = '{}'\nmigrations = '{}'\n{settings}\n",
            base.dsn,
            source.url(),
            POLL.as_millis(),
            module.display(),
            migrations.display(),
        );
        std::fs::write(folder.path().join("debshrew.toml"), toml)?;
        Ok(Scene { source, base, folder })
    }

    /// `debshrew run`; killed when it is dropped.
    pub(crate) fn start(&self) -> Outcome<Child> {
        let log = std::fs::File::create(self.folder.path().join("log"))?;
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_debshrew"));
        command.args(["run", "--migrate"]).current_dir(self.folder.path()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        Ok(command.spawn()?)
    }

    /// Waits until SQL shows that this block is committed.
    pub(crate) async fn committed(&self, running: &mut Child, height: u32) -> Outcome<()> {
        const PAUSE: Duration = Duration::from_millis(2);
        let sql = "select to_regclass('debshrew.pipelines') is not null";
        let since = Instant::now();
        let mut there = false;
        loop {
            if !there {
                there = self.base.client.query_one(sql, &[]).await?.get(0);
            } else if self.height().await? >= i64::from(height) {
                return Ok(());
            }
            if running.try_wait()?.is_some() || since.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.folder.path().join("log"))?;
                return Err(format!("debshrew does not commit block {height}; its log:\n{log}").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The last committed block's; -1 before the first.
    async fn height(&self) -> Outcome<i64> {
        let sql = "select coalesce(max(height), -1)::bigint from debshrew.pipelines";
        Ok(self.base.client.query_one(sql, &[]).await?.get(0))
    }
}
