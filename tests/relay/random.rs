//! Random schemas, blocks and rollbacks, beside sinks that are near and far, and that are killed at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::config::Beginning;
use debshrew::relay::{Step, StepKind};
use debshrew::undo::Event;

use super::replica::{Replica, Values};
use super::sink::{Memory, Run, relay};
use crate::exact::random::{OUTSIDE, Random, Schema};
use crate::support::{Rig, TestDb, database, number, whole};

/// A block on the chain of this number.
pub fn at(height: u32, chain: u8) -> BlockRef {
    let mut hash = [chain; 32];
    hash[..4].copy_from_slice(&height.to_be_bytes());
    BlockRef { height: Height::new(height).unwrap(), hash: BlockHash::new(hash) }
}

/// A sink, and what its consumer had when the stream began.
struct Consumer {
    name: &'static str,
    run: Run,
    sink: Memory,
    /// It is asked to catch up at one turn in so many.
    every: usize,
    start: Option<BTreeSet<(String, Values)>>,
}

impl Consumer {
    fn new(rig: &Rig, name: &'static str, from: Beginning, every: usize, keeps_position: bool) -> Consumer {
        let sink = Memory { keeps_position, ..Memory::default() };
        Consumer { name, run: relay(rig, name, from, &sink), sink, every, start: None }
    }

    /// Catches up, perhaps with failures and kills on the way; says what its consumer then holds, and should hold.
    async fn turn(
        &mut self,
        rig: &Rig,
        random: &mut Random,
        keys: &BTreeMap<String, Vec<usize>>,
    ) -> Result<(), String> {
        if random.below(self.every) > 0 {
            return Ok(());
        }
        for _ in 0..random.below(3) {
            self.sink.fails.store(random.below(2) == 0, Ordering::Relaxed);
            let limit = Duration::from_micros(random.below(60_000) as u64);
            // Given up wherever it is.
            let _ = tokio::time::timeout(limit, self.run.catch_up()).await;
        }
        self.sink.fails.store(false, Ordering::Relaxed);
        let since = Instant::now();
        // The session that was given up may still hold the lock.
        loop {
            let done = self.run.catch_up().await;
            if done.is_ok() && self.is_done(rig).await {
                break;
            }
            if since.elapsed() > Duration::from_secs(30) {
                let why = done.err().map(|error| whole(&error));
                return Err(format!("{} does not catch up: {}", self.name, why.unwrap_or_default()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.check(rig, keys).await
    }

    /// Whether the stream is where the checkpoint is.
    async fn is_done(&self, rig: &Rig) -> bool {
        let sql = "select exists (select from debshrew.sinks s join debshrew.pipelines p using (pipeline) \
                    where s.pipeline = $1 and s.sink = $2 and s.lag_blocks = 0 \
                      and s.block_hash is not distinct from p.block_hash)";
        rig.client.query_one(sql, &[&rig.name, &self.name]).await.unwrap().get(0)
    }

    async fn check(&mut self, rig: &Rig, keys: &BTreeMap<String, Vec<usize>>) -> Result<(), String> {
        let contents = rig.contents().await;
        let start = self.start.get_or_insert_with(|| match self.run.relay.settings.from {
            Beginning::Now => contents.clone(),
            _ => BTreeSet::new(),
        });
        let key = |table: &str, row: &Values| keys[table].iter().map(|place| row[*place].clone()).collect();
        let mut replica = Replica::of(start, key);
        let steps = self.sink.steps();
        replica.replay(&steps).map_err(|wrong| format!("{}: {wrong}", self.name))?;
        let rows = replica.rows();
        if rows != contents {
            let missing: Vec<_> = contents.difference(&rows).collect();
            let extra: Vec<_> = rows.difference(&contents).collect();
            return Err(format!("{}: missing {missing:?}, too many {extra:?}", self.name));
        }
        both_ways(&steps).map_err(|wrong| format!("{}: {wrong}", self.name))?;
        let mut ids = BTreeSet::new();
        let again = steps.iter().map(|step| step.id()).find(|id| !ids.insert(id.clone()));
        match again {
            Some(id) if self.sink.keeps_position && !id.contains("snapshot") => {
                Err(format!("{}: step {id} was published twice", self.name))
            }
            _ => Ok(()),
        }
    }
}

/// What a rollback kept of a block is what was derived of it while it was committed, the other way round.
fn both_ways(steps: &[Step]) -> Result<(), String> {
    let mut applied: BTreeMap<BlockRef, &[Event]> = BTreeMap::new();
    for step in steps {
        match &step.kind {
            StepKind::Apply { block, .. } => {
                applied.insert(*block, &step.events);
            }
            StepKind::Retract { block, .. } => {
                let undone: Vec<Event> = step.events.iter().rev().cloned().map(Event::inverted).collect();
                if applied.get(block).is_some_and(|events| *events != undone) {
                    return Err(format!(
                        "block {block}: {:?} applied, {undone:?} taken back",
                        applied[block]
                    ));
                }
            }
            StepKind::Snapshot { .. } => {}
        }
    }
    Ok(())
}

struct Trial {
    schema: Schema,
    rig: Rig,
    keys: BTreeMap<String, Vec<usize>>,
    consumers: Vec<Consumer>,
    chain: Vec<BlockRef>,
    happened: Vec<String>,
}

impl Trial {
    async fn set_up(test: &TestDb, seed: u64, random: &mut Random) -> Option<Trial> {
        let schema = Schema::random(random);
        let name = format!("stream_{seed}");
        let (rig, report) = Rig::up_with_report(test, &name, &schema.sql).await;
        if report.pipelines.iter().any(|pipeline| !pipeline.refused.is_empty()) {
            return None;
        }
        let first = Beginning::Height(Height::new(0).unwrap());
        let consumers = vec![
            Consumer::new(&rig, "near", first, 1, true),
            Consumer::new(&rig, "far", first, 7, false),
            Consumer::new(&rig, "farther", first, 12, true),
            Consumer::new(&rig, "snapshot", Beginning::Snapshot, 4, false),
            Consumer::new(&rig, "kept_snapshot", Beginning::Snapshot, 5, true),
            Consumer::new(&rig, "now", Beginning::Now, 3, false),
        ];
        let keys = rig.key_places().await;
        Some(Trial {
            schema,
            rig,
            keys,
            consumers,
            chain: Vec::new(),
            happened: vec![format!("schema {name}")],
        })
    }

    async fn run(&mut self, random: &mut Random) -> Result<(), String> {
        for chain in 0..40 {
            match random.below(4) {
                0 if !self.chain.is_empty() => self.roll_back(random).await?,
                _ => {
                    for _ in 0..=random.below(3) {
                        self.commit(random, chain).await;
                    }
                }
            }
            for consumer in &mut self.consumers {
                consumer.turn(&self.rig, random, &self.keys).await?;
            }
        }
        for consumer in &mut self.consumers {
            consumer.every = 1;
            consumer.turn(&self.rig, random, &self.keys).await?;
        }
        Ok(())
    }

    /// A block, unless a constraint is against it.
    async fn commit(&mut self, random: &mut Random, chain: u8) {
        let block = at(self.chain.len() as u32, chain);
        let edits = self.schema.block(random);
        let changes = edits.iter().map(|edit| edit.change(&self.schema)).collect();
        let lines: Vec<String> = edits.iter().map(|edit| edit.line(&self.schema)).collect();
        if self.rig.commit_at(block, changes).await.is_ok() {
            self.happened.push(format!("block {} of chain {chain}:\n  {}", block.height, lines.join("\n  ")));
            self.chain.push(block);
        }
    }

    /// Mostly a few blocks, and now and then most of them.
    async fn roll_back(&mut self, random: &mut Random) -> Result<(), String> {
        let most = if random.below(4) == 0 { self.chain.len() } else { self.chain.len().min(4) };
        let depth = 1 + random.below(most);
        let left = self.chain.len() - depth;
        let done = match left.checked_sub(1) {
            Some(to) => self.rig.roll_back(to as u32).await,
            None => self.rig.roll_back_to_start().await,
        };
        done.map_err(|error| format!("cannot roll back: {}", whole(&error)))?;
        self.chain.truncate(left);
        self.happened.push(format!("rolled back to {left} blocks"));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_replayed_gives_the_tables_at_its_cursor() {
    let test = database("relay_random").await;
    test.connect().await.batch_execute(OUTSIDE).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let first = number("DEBSHREW_TEST_STREAMS_SEED").unwrap_or(now % 1_000_000_000);
    let seconds = number("DEBSHREW_TEST_STREAMS_SECONDS").unwrap_or(10);
    let until = Instant::now() + Duration::from_secs(seconds);
    println!("seed {first}");
    let mut tried = 0;
    for seed in first.. {
        let mut random = Random::new(seed);
        if let Some(mut trial) = Trial::set_up(&test, seed, &mut random).await {
            if let Err(wrong) = trial.run(&mut random).await {
                panic!(
                    "DEBSHREW_TEST_STREAMS_SEED={seed}\n{}\n{}\n{wrong}",
                    trial.schema.sql,
                    trial.happened.join("\n")
                );
            }
            tried += 1;
        }
        if Instant::now() > until {
            break;
        }
    }
    println!("{tried} schemas");
    assert!(tried > 0);
}
