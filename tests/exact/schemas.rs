//! Random schemas and random blocks, with random rollbacks at random retention: each block comes to what plain SQL
//! makes of it one by one, journaled or not, or is refused alike; each rollback gives what was.
//!
//! Goes on for 3 seconds, or as many as `DEBSHREW_TEST_SCHEMAS_SECONDS` says. `DEBSHREW_TEST_SCHEMAS_SEED` begins with
//! the schema that a failure names.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use debshrew::change::Change;

use crate::exact::plain::Plain;
use crate::exact::random::{Edit, Random, Schema};
use crate::support::{Journaling, Rig, TestDb, database, number, whole};

/// A pipeline and its opposite, which journals what the other does not, beside the oracle.
struct Trial {
    schema: Schema,
    ours: Rig,
    opposite: Rig,
    plain: Plain,
    /// The oracle's rows after each block.
    states: Vec<Vec<String>>,
    /// Blocks of the opposite.
    opposite_height: u32,
    /// Blocks below this height are committed without a journal.
    journaled_from: u32,
    happened: Vec<String>,
}

impl Trial {
    /// `None` when the schema is refused up front.
    async fn set_up(test: &TestDb, number: u64, random: &mut Random) -> Option<Trial> {
        let schema = Schema::random(random);
        let mut rigs = Vec::new();
        for name in [format!("ours_{number}"), format!("opposite_{number}")] {
            let (rig, report) = Rig::up_with_report(test, &name, &schema.sql).await;
            if !report.pipelines[0].refused.is_empty() {
                return None;
            }
            rigs.push(rig);
        }
        let plain = Plain::up(test, &format!("plain_{number}"), &schema.sql).await;
        plain.run(&format!("create schema plain_{number}_kept")).await;
        let [ours, opposite] = <[Rig; 2]>::try_from(rigs).ok().unwrap();
        let (journaled_from, states) = (random.below(6) as u32, Vec::new());
        let happened = vec![format!("journaled from {journaled_from} on\n{}", schema.sql)];
        Some(Trial { schema, ours, opposite, plain, states, opposite_height: 0, journaled_from, happened })
    }

    async fn run(&mut self, random: &mut Random) -> Result<(), String> {
        for _ in 0..4 + random.below(16) {
            let edits = self.schema.block(random);
            self.block(&edits).await?;
            if random.below(4) == 0 {
                self.roll_back(random).await?;
            }
        }
        self.roll_back(random).await
    }

    async fn block(&mut self, edits: &[Edit]) -> Result<(), String> {
        let height = self.states.len() as u32;
        let lines: Vec<String> = edits.iter().map(|edit| edit.line(&self.schema)).collect();
        self.happened.push(format!("block {height}:\n{}", lines.join("\n")));
        let body: String = edits.iter().map(|edit| edit.sql(&self.schema, &self.plain.name())).collect();
        let plainly = self.plain.apply_sql(&body).await;
        self.happened.push(format!("plainly {plainly:?}"));
        let changes: Vec<Change> = edits.iter().map(|edit| edit.change(&self.schema)).collect();
        let (journaling, other) = match height < self.journaled_from {
            true => (Journaling::Skipped, Journaling::Kept),
            false => (Journaling::Kept, Journaling::Skipped),
        };
        let ours = self.ours.try_commit_with(height, changes.clone(), journaling).await;
        let opposite = self.opposite.try_commit_with(self.opposite_height, changes, other).await;
        let (ours, opposite) = (ours.map_err(|error| whole(&error)), opposite.map_err(|error| whole(&error)));
        self.opposite_height += u32::from(opposite.is_ok());
        let rows = (self.ours.everything().await, self.opposite.everything().await);
        if ours.is_ok() != opposite.is_ok() || rows.0 != rows.1 {
            return Err(format!(
                "{journaling:?} {ours:?}:\n{}\n{other:?} {opposite:?}:\n{}",
                rows.0.join("\n"),
                rows.1.join("\n")
            ));
        }
        let expected = self.plain.everything().await;
        match (plainly, ours) {
            (Ok(()), Err(error)) => return Err(format!("refused: {error}")),
            (Ok(()), Ok(())) => self.states.push(expected.clone()),
            (Err(_), Err(_)) => {}
            // All at once, a block may be valid that is not one by one; it is left out.
            (Err(_), Ok(())) => return self.leave_out(height, journaling, &expected).await,
        }
        match rows.0 == expected {
            true => self.keep(height).await,
            false => Err(format!("ours:\n{}\nplainly:\n{}", rows.0.join("\n"), expected.join("\n"))),
        }
    }

    async fn keep(&self, height: u32) -> Result<(), String> {
        self.plain.run(&self.schema.snapshot(&self.plain.name(), height)).await;
        Ok(())
    }

    async fn leave_out(
        &mut self,
        height: u32,
        journaling: Journaling,
        expected: &[String],
    ) -> Result<(), String> {
        match (journaling, height.checked_sub(1)) {
            // Nothing can be rolled back: the block stays, empty.
            (Journaling::Skipped, _) => {
                self.plain.run(&self.schema.restore(&self.ours.name, &self.plain.name())).await;
                self.states.push(expected.to_vec());
                self.keep(height).await?;
            }
            (Journaling::Kept, Some(to)) => {
                self.ours.roll_back(to).await.map_err(|error| whole(&error))?;
            }
            (Journaling::Kept, None) => {
                self.ours.roll_back_to_start().await.map_err(|error| whole(&error))?;
            }
        }
        self.plain.run(&self.schema.restore(&self.opposite.name, &self.plain.name())).await;
        match self.ours.everything().await {
            rows if rows == expected => Ok(()),
            rows => Err(format!("left out:\n{}\nwas:\n{}", rows.join("\n"), expected.join("\n"))),
        }
    }

    async fn roll_back(&mut self, random: &mut Random) -> Result<(), String> {
        // The last block without a journal is as far as it goes.
        let lowest = self.journaled_from.saturating_sub(1) as usize;
        let Some(highest) = self.states.len().checked_sub(2) else { return Ok(()) };
        if lowest > highest || self.states.len() <= self.journaled_from as usize {
            return Ok(());
        }
        let to = lowest + random.below(highest - lowest + 1);
        self.happened.push(format!("back to {to}"));
        let logged = self.logged().await;
        self.ours.roll_back(to as u32).await.map_err(|error| whole(&error))?;
        if self.logged().await != logged {
            return Err("a trigger fired".into());
        }
        self.states.truncate(to + 1);
        let (rows, expected) = (self.ours.everything().await, &self.states[to]);
        if rows != *expected {
            return Err(format!("it is:\n{}\nwas:\n{}", rows.join("\n"), expected.join("\n")));
        }
        let snapshot = self.schema.of_snapshot(&self.plain.name(), to as u32);
        for name in [self.plain.name(), self.opposite.name.clone()] {
            self.plain.run(&self.schema.restore_from(&name, &snapshot)).await;
        }
        Ok(())
    }

    async fn logged(&self) -> i64 {
        self.ours.client.query_one("select count(*) from elsewhere.log", &[]).await.unwrap().get(0)
    }

    async fn tear_down(mut self) {
        self.ours.stop().await;
        self.opposite.stop().await;
        let mut sql = "set client_min_messages = warning;\n".to_owned();
        for name in [&self.ours.name, &self.opposite.name] {
            sql.push_str(&format!(
                "drop schema {name}, debshrew_{name} cascade; drop table debshrew.migrations_{name};\n\
                 delete from debshrew.pipeline where name = '{name}';\n"
            ));
        }
        let name = self.plain.name();
        self.plain.run(&format!("{sql}drop schema {name}, {name}_kept cascade")).await;
    }
}

#[tokio::test]
async fn whatever_the_schema_blocks_and_rollbacks_come_to_what_plain_sql_does() {
    let test = database("exact_schemas").await;
    test.connect().await.batch_execute(crate::exact::random::OUTSIDE).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let first = number("DEBSHREW_TEST_SCHEMAS_SEED").unwrap_or(now % 1_000_000_000);
    let seconds = number("DEBSHREW_TEST_SCHEMAS_SECONDS").unwrap_or(3);
    let until = Instant::now() + Duration::from_secs(seconds);
    println!("seed {first}");
    let (mut tried, mut refused) = (0, 0);
    for seed in first.. {
        let mut random = Random::new(seed);
        match Trial::set_up(&test, seed, &mut random).await {
            None => refused += 1,
            Some(mut trial) => {
                if let Err(wrong) = trial.run(&mut random).await {
                    panic!("DEBSHREW_TEST_SCHEMAS_SEED={seed}\n{}\n{wrong}", trial.happened.join("\n"));
                }
                trial.tear_down().await;
                tried += 1;
            }
        }
        if Instant::now() > until {
            break;
        }
    }
    println!("{tried} schemas, {refused} refused");
    assert!(tried > 0, "all of {refused} schemas were refused");
}
