//! The evaluation of a real block: mainnet's 702861 in the example transform `ledger`, interpreted, against the
//! same code compiled for this machine.

use std::path::PathBuf;
use std::time::Instant;

use bitcoin_test_data::blocks::mainnet_702861;
use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::config::{Limits, UnknownImports};
use debshrew::runtime::{Answer, Output, Request, Step, Transform};
use debshrew_sdk::testing::Host;
use futures_util::FutureExt;
use ledger::Ledger;

use crate::report::{Case, Goal, Readings};
use crate::{Group, Outcome};

const HEIGHT: u32 = 702_861;

/// How often the block is evaluated for one reading.
const TIMES: u32 = 20;

const NATIVE: &str = "native code";

/// A module with the ledger in it, and what its time is called.
struct Interface {
    case: &'static str,
    /// Below the target folder of the transforms.
    folder: &'static str,
    goal: Option<Goal>,
}

/// One for each version of the binary interface.
const INTERFACES: [Interface; 2] = [
    Interface { case: "evaluate-version-1", folder: "version-1/", goal: None },
    Interface { case: "evaluate-version-2", folder: "", goal: Some(Goal::AtMost(6.0)) },
];

pub(crate) fn groups() -> Vec<Group> {
    let cases = INTERFACES.iter().map(|interface| Case {
        name: interface.case.to_owned(),
        unit: "ms",
        reading: interface.case,
        baseline: Some(NATIVE),
        goal: interface.goal,
    });
    vec![Group {
        name: "evaluate".to_owned(),
        cases: cases.collect(),
        run: Box::new(|_| async { tokio::task::spawn_blocking(run).await? }.boxed()),
    }]
}

fn run() -> Outcome<Readings> {
    let mut readings = Readings::from([(NATIVE, native()?)]);
    for Interface { case, folder, .. } in INTERFACES {
        let wasm = std::fs::read(in_target(folder, "ledger")?)?;
        let transform = Transform::compile(case, &wasm, &Limits::default(), UnknownImports::Refuse)?;
        readings.insert(case, interpreted(&transform)?);
    }
    Ok(readings)
}

/// Where `make transforms` puts a module.
pub(crate) fn built(module: &str) -> Outcome<PathBuf> {
    in_target("", module)
}

fn in_target(folder: &str, module: &str) -> Outcome<PathBuf> {
    let target = format!("{}/transforms/target/{folder}", env!("CARGO_MANIFEST_DIR"));
    let path = PathBuf::from(format!("{target}wasm32-unknown-unknown/release/{module}.wasm"));
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("there is no {}: run `make transforms`", path.display()).into())
    }
}

/// Milliseconds of a block, from the first call to decoded changes.
fn interpreted(transform: &Transform) -> Outcome<f64> {
    let start = Instant::now();
    for _ in 0..TIMES {
        let output = evaluate(transform)?;
        if output.changes.is_empty() {
            return Err("the block gave no changes".into());
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1_000.0 / f64::from(TIMES))
}

fn evaluate(transform: &Transform) -> Outcome<Output> {
    let height = Height::new(HEIGHT).ok_or("too high a block")?;
    let mut step = transform.begin(BlockRef { height, hash: BlockHash::new([1; 32]) })?;
    loop {
        step = match step {
            Step::Done(output) => return Ok(output),
            Step::Ask(Request::View { .. }, waiting) => {
                waiting.resume(Answer::View(Ok(mainnet_702861().to_vec())))?
            }
            Step::Ask(Request::State { .. }, waiting) => waiting.resume(Answer::State(None))?,
        };
    }
}

/// Milliseconds of a block, until its changes are handed over.
fn native() -> Outcome<f64> {
    let mut host = Host::new();
    host.answer("getblock", b"", mainnet_702861());
    let mut seconds = 0.0;
    for _ in 0..TIMES {
        let mut host = host.clone();
        let start = Instant::now();
        let emitted = host.emit::<Ledger>(HEIGHT, [1; 32])?;
        seconds += start.elapsed().as_secs_f64();
        if emitted.is_empty() {
            return Err("the block gave no changes".into());
        }
    }
    Ok(seconds * 1_000.0 / f64::from(TIMES))
}
