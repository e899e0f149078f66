//! Row changes applied through the writer, as the pipeline's loop does, with and without journal.

use std::sync::Arc;
use std::time::Instant;

use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::change::Change;
use debshrew::commit::{Block, Durability, Journaling};
use debshrew::db::Db;
use debshrew::pipeline::Writer;
use futures_util::FutureExt;

use crate::baseline;
use crate::report::{Case, Goal, Readings};
use crate::rows::{Chain, NARROW, RowChange, TUNED, Table, WIDE};
use crate::server::{Base, Server};
use crate::{Group, Outcome};

/// Rows that are in the table at the beginning.
const BEFORE: u64 = 10_000;

/// Blocks that come before those that are counted: the first prepares its statements.
pub(crate) const WARM: usize = 3;

const COPY: &str = "copy";
const STATEMENTS: &str = "a statement a row";
const KEPT: &str = "with journal";
const SKIPPED: &str = "without journal";
const WAL_KEPT: &str = "WAL with journal";
const WAL_SKIPPED: &str = "WAL without journal";

/// Blocks of one size on one table.
struct Plan {
    name: &'static str,
    table: &'static Table,
    changes: usize,
    blocks: usize,
    goals: Goals,
}

/// Ratios; see docs/performance.md.
#[derive(Default)]
struct Goals {
    kept_to_copy: Option<Goal>,
    skipped_to_copy: Option<Goal>,
    kept_to_statements: Option<Goal>,
    wal: Option<Goal>,
}

pub(crate) fn groups() -> Vec<Group> {
    let plans = [
        Plan { name: "5", table: &NARROW, changes: 5, blocks: 400, goals: Goals::default() },
        Plan {
            name: "50",
            table: &NARROW,
            changes: 50,
            blocks: 500,
            goals: Goals { kept_to_copy: Some(Goal::AtLeast(0.30)), ..Goals::default() },
        },
        Plan {
            name: "1000",
            table: &NARROW,
            changes: 1_000,
            blocks: 50,
            goals: Goals {
                kept_to_copy: Some(Goal::AtLeast(0.35)),
                skipped_to_copy: Some(Goal::AtLeast(0.60)),
                kept_to_statements: Some(Goal::AtLeast(6.0)),
                wal: Some(Goal::AtMost(1.3)),
            },
        },
        Plan { name: "10000", table: &NARROW, changes: 10_000, blocks: 6, goals: Goals::default() },
        Plan { name: "tuned", table: &TUNED, changes: 1_000, blocks: 50, goals: Goals::default() },
        Plan { name: "wide", table: &WIDE, changes: 1_000, blocks: 30, goals: Goals::default() },
    ];
    plans.into_iter().map(group).collect()
}

fn group(plan: Plan) -> Group {
    let Goals { kept_to_copy, skipped_to_copy, kept_to_statements, wal } = plan.goals;
    let case = |name: &str, unit, reading, baseline, goal| Case {
        name: format!("{name}-{}", plan.name),
        unit,
        reading,
        baseline: Some(baseline),
        goal,
    };
    let cases = vec![
        case("apply-journal-to-copy", "changes/s", KEPT, COPY, kept_to_copy),
        case("apply-plain-to-copy", "changes/s", SKIPPED, COPY, skipped_to_copy),
        case("apply-journal-to-statements", "changes/s", KEPT, STATEMENTS, kept_to_statements),
        case("apply-plain-to-statements", "changes/s", SKIPPED, STATEMENTS, None),
        case("apply-wal", "bytes/change", WAL_KEPT, WAL_SKIPPED, wal),
    ];
    let Plan { table, changes, blocks, .. } = plan;
    Group {
        name: format!("apply-{}", plan.name),
        cases,
        run: Box::new(move |server| run(server, table, changes, blocks).boxed()),
    }
}

async fn run(server: &Server, table: &'static Table, changes: usize, blocks: usize) -> Outcome<Readings> {
    let mut chain = Chain::new(table, BEFORE);
    let blocks = chain.blocks(WARM + blocks, changes);
    let rows = (changes * (blocks.len() - WARM)) as u64;
    let copied = baseline::copied(server, table, BEFORE, rows).await?;
    let kept = applied(server, table, &blocks, &chain, Journaling::Kept).await?;
    let statements = baseline::statements(server, table, BEFORE, &blocks, WARM).await?;
    let skipped = applied(server, table, &blocks, &chain, Journaling::Skipped).await?;
    Ok(Readings::from([
        (COPY, copied),
        (STATEMENTS, statements),
        (KEPT, kept.changes_per_second),
        (SKIPPED, skipped.changes_per_second),
        (WAL_KEPT, kept.wal_per_change),
        (WAL_SKIPPED, skipped.wal_per_change),
    ]))
}

struct Applied {
    changes_per_second: f64,
    wal_per_change: f64,
}

async fn applied(
    server: &Server,
    table: &Table,
    blocks: &[Vec<RowChange>],
    chain: &Chain,
    journaling: Journaling,
) -> Outcome<Applied> {
    let base = server.pipeline(table.ddl).await?;
    fill(&base, table, BEFORE).await?;
    let mut applier = Applier::new(&base, journaling).await?;
    let (warm, counted) = blocks.split_at(WARM);
    applier.apply(changes(table, warm)).await?;
    let counted = changes(table, counted);
    let count: usize = counted.iter().map(Vec::len).sum();
    let wal = base.wal().await?;
    let start = Instant::now();
    applier.apply(counted).await?;
    let took = start.elapsed();
    let wal = base.wal().await? - wal;
    let rows = base.rows(table.name).await?;
    if rows != chain.rows() {
        return Err(format!("the table has {rows} rows, and should have {}", chain.rows()).into());
    }
    Ok(Applied { changes_per_second: count as f64 / took.as_secs_f64(), wal_per_change: wal / count as f64 })
}

/// Puts the rows 0 to `rows` into the table, and lets PostgreSQL know it as it would a table that grew.
pub(crate) async fn fill(base: &Base, table: &Table, rows: u64) -> Outcome<()> {
    baseline::copy(&base.client, table, table.copy(0..rows)).await?;
    Ok(base.client.batch_execute(&format!("vacuum analyze {}", table.name)).await?)
}

pub(crate) fn changes(table: &Table, blocks: &[Vec<RowChange>]) -> Vec<Vec<Change>> {
    blocks.iter().map(|block| table.changes(block)).collect()
}

/// Applies blocks as the pipeline's loop does; what else measures it goes through here.
pub(crate) struct Applier {
    pub(crate) writer: Writer,
    pub(crate) journaling: Journaling,
    db: Db,
    height: u32,
}

impl Applier {
    pub(crate) async fn new(base: &Base, journaling: Journaling) -> Outcome<Applier> {
        Ok(Applier { writer: base.writer().await?, journaling, db: base.db.clone(), height: 0 })
    }

    /// Commits these changes, a block each.
    pub(crate) async fn apply(&mut self, blocks: Vec<Vec<Change>>) -> Outcome<()> {
        let tables = Arc::clone(self.writer.tables());
        let first = self.height;
        self.height += u32::try_from(blocks.len())?;
        let mut wrong = None;
        let blocks = blocks.into_iter().zip(first..).map_while(|(changes, height)| {
            let block = || -> Outcome<Block> {
                let folding = tables.resolve(changes, Vec::new())?.fold(&tables, &self.db);
                let changes = folding.now_or_never().ok_or("PostgreSQL is asked for the keys")??;
                // As while catching up.
                let durability = Durability::Lazy;
                Ok(Block {
                    at: at(height)?,
                    changes,
                    journaling: self.journaling,
                    durability,
                    state_root: None,
                })
            };
            block().map_err(|error| wrong = Some(error)).ok()
        });
        self.writer.commit_all(blocks, |_, _| ()).await?;
        wrong.map_or(Ok(()), Err)
    }
}

fn at(height: u32) -> Outcome<BlockRef> {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    let height = Height::new(height).ok_or("too high a block")?;
    Ok(BlockRef { height, hash: BlockHash::new(hash) })
}
