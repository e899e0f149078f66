//! What a block and a rollback come to, whatever triggers, constraints, migrations and settings there are: a block
//! is what its changes are one by one in plain SQL, or is not there; a rollback gives what was, and touches nothing
//! else.

mod advice;
mod bounds;
mod conversions;
mod cost;
mod defaults;
mod meanwhile;
mod messages;
mod order;
mod outcome;
mod outside;
mod parents;
mod patterns;
mod plain;
mod publication;
pub mod random;
mod review;
mod schemas;
mod triggers;
mod values;

use debshrew::change::Change;

use crate::support::{Rig, changes, whole};

/// Each trigger of the pipeline's tables with whether and when it is enabled.
async fn trigger_states(rig: &Rig) -> Vec<String> {
    let sql = "select format('%s %s', t.tgname, t.tgenabled) from pg_trigger t join pg_class c on c.oid = t.tgrelid \
                where c.relnamespace::regnamespace::text = $1 and not t.tgisinternal order by 1";
    let name = debshrew::db::quote(&rig.name);
    let name = name.trim_matches('"');
    rig.client.query(sql, &[&name]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

fn blocks_of(texts: &[&str]) -> Vec<Vec<Change>> {
    texts.iter().map(|text| changes(text)).collect()
}

/// Commits the blocks from height 0 on, rolls back one by one, commits them once more and rolls all of them back at
/// once: each time the tables are what they were at that height. Returns what they are after the last block, or what
/// was wrong.
async fn forth_and_back(rig: &mut Rig, blocks: &[&str]) -> Result<Vec<String>, String> {
    let triggers = trigger_states(rig).await;
    let mut states = vec![rig.everything().await];
    for (height, block) in (0..).zip(blocks_of(blocks)) {
        let done = rig.try_commit(height, block).await;
        done.map_err(|error| format!("block {height}: {}", whole(&error)))?;
        states.push(rig.everything().await);
    }
    for height in (1..blocks.len()).rev() {
        undo(rig, Some(height as u32 - 1), &states[height]).await?;
    }
    for (height, block) in (1..).zip(blocks_of(&blocks[1..])) {
        let done = rig.try_commit(height, block).await;
        done.map_err(|error| format!("block {height} once more: {}", whole(&error)))?;
    }
    undo(rig, Some(0), &states[1]).await?;
    undo(rig, None, &states[0]).await?;
    match trigger_states(rig).await {
        now if now == triggers => Ok(states.pop().unwrap()),
        now => Err(format!("triggers are enabled otherwise: {now:?}, before {triggers:?}")),
    }
}

async fn undo(rig: &mut Rig, to: Option<u32>, expected: &[String]) -> Result<(), String> {
    let done = match to {
        Some(height) => rig.roll_back(height).await,
        None => rig.roll_back_to_start().await,
    };
    done.map_err(|error| format!("rolling back to {to:?}: {}", whole(&error)))?;
    match rig.everything().await {
        rows if rows == expected => Ok(()),
        rows => Err(format!("back to {to:?}: {rows:?}, was {expected:?}")),
    }
}

/// What goes wrong in the cases of a table, by name.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn note<T>(&mut self, name: &str, done: Result<T, impl std::fmt::Display>) -> Option<T> {
        done.map_err(|error| self.0.push(format!("{name}: {error}"))).ok()
    }

    /// Fails if anything was wrong.
    fn settle(self) {
        assert!(self.0.is_empty(), "{} cases:\n{}", self.0.len(), self.0.join("\n"));
    }
}
