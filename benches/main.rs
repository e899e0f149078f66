//! What debshrew's work costs, each case beside a baseline that is measured in the same run: `make bench`, or
//! `cargo bench --bench bench -- end-to-end` for the cases whose names contain one of the words. See
//! docs/performance.md.
//!
//! Owns the run: which cases, how often, and where the results go. What is measured is in the modules.

// A program for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod apply;
mod baseline;
mod evaluate;
mod follow;
mod growth;
mod report;
mod rollback;
mod rows;
mod server;
mod sinks;
mod watching;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use futures_util::future::BoxFuture;

use report::{Case, Measured, Readings};
use server::Server;

/// Each group of cases is run so many times: odd, so that there is a middle one.
const RUNS: usize = 3;

/// A measurement fails as a whole: there is nothing to be done about any error but to tell it.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures all of a group's readings once.
type Run = Box<dyn Fn(&Server) -> BoxFuture<'_, Outcome<Readings>>>;

/// Cases that are measured in one go, each variant after the other, so that they meet the same machine.
struct Group {
    name: String,
    cases: Vec<Case>,
    run: Run,
}

#[derive(Debug, Parser)]
struct Args {
    /// Measure the cases only whose names contain one of these words
    words: Vec<String>,
    /// Name the cases and measure nothing
    #[arg(long)]
    list: bool,
    /// Draw the growth of applying over the table's size into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn picks(&self, case: &Case) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| case.name.contains(word.as_str()))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", debshrew::failure::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn groups() -> Vec<Group> {
    [
        apply::groups(),
        growth::groups(),
        rollback::groups(),
        evaluate::groups(),
        follow::groups(),
        watching::groups(),
        sinks::groups(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn run(args: &Args) -> Outcome<()> {
    let mut groups = groups();
    for group in &mut groups {
        group.cases.retain(|case| args.picks(case));
    }
    groups.retain(|group| !group.cases.is_empty());
    if groups.is_empty() {
        return Err(
            format!("no case has a name with {}; `--list` names them", args.words.join(" or ")).into()
        );
    }
    if args.list {
        groups.iter().flat_map(|group| &group.cases).for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    let server = Server::start()?;
    let mut measured = Vec::new();
    for group in &groups {
        measured.extend(measure(group, &server).await?);
    }
    println!("{}", report::table(&measured));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench.json");
    std::fs::write(&path, report::json(&measured)?)?;
    println!("the same as JSON: {}", path.display());
    if let Some(path) = &args.plot {
        growth::plot(&measured, path)?;
        println!("the growth as a picture: {}", path.display());
    }
    Ok(())
}

async fn measure<'a>(group: &'a Group, server: &Server) -> Outcome<Vec<Measured<'a>>> {
    let mut runs = Vec::new();
    for number in 1..=RUNS {
        eprintln!("{}: run {number} of {RUNS}", group.name);
        let run = (group.run)(server).await;
        runs.push(run.map_err(|error| {
            format!("cannot measure `{}`: {}", group.name, debshrew::failure::chain(&*error))
        })?);
    }
    group.cases.iter().map(|case| Measured::new(case, &runs)).collect()
}
