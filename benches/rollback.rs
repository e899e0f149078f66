//! A deep reorganisation: how fast rows go back, against how fast they came.

use std::time::Instant;

use debshrew::block::Height;
use debshrew::commit::Journaling;
use debshrew::register::Cause;
use futures_util::FutureExt;

use crate::apply::{Applier, WARM, changes, fill};
use crate::report::{Case, Goal, Readings};
use crate::rows::{Chain, NARROW};
use crate::server::Server;
use crate::{Group, Outcome};

const BEFORE: u64 = 10_000;
const BLOCKS: usize = 100;
const CHANGES: usize = 1_000;

const ROLLBACK: &str = "rollback";
const APPLY: &str = "apply with journal";

pub(crate) fn groups() -> Vec<Group> {
    let case = Case {
        name: "rollback-100-blocks".to_owned(),
        unit: "rows/s",
        reading: ROLLBACK,
        baseline: Some(APPLY),
        goal: Some(Goal::AtLeast(1.0)),
    };
    vec![Group {
        name: "rollback".to_owned(),
        cases: vec![case],
        run: Box::new(|server| run(server).boxed()),
    }]
}

async fn run(server: &Server) -> Outcome<Readings> {
    let table = &NARROW;
    let base = server.pipeline(table.ddl).await?;
    fill(&base, table, BEFORE).await?;
    let mut chain = Chain::new(table, BEFORE);
    let mut applier = Applier::new(&base, Journaling::Kept).await?;
    applier.apply(changes(table, &chain.blocks(WARM, CHANGES))).await?;
    let digest = base.digest(table.name).await?;
    let blocks = changes(table, &chain.blocks(BLOCKS, CHANGES));
    let start = Instant::now();
    applier.apply(blocks).await?;
    let applied = start.elapsed();
    let to = Height::new(WARM as u32 - 1);
    let start = Instant::now();
    let done = applier.writer.roll_back(to, Cause::Operator).await?;
    let rolled_back = start.elapsed();
    if base.digest(table.name).await? != digest {
        return Err("the table is not what it was before".into());
    }
    Ok(Readings::from([
        (ROLLBACK, done.rows as f64 / rolled_back.as_secs_f64()),
        (APPLY, (BLOCKS * CHANGES) as f64 / applied.as_secs_f64()),
    ]))
}
