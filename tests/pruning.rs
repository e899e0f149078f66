//! Images go while blocks and rollbacks come: within the floor every rollback is exact, below it none is tried.

use std::time::{Duration, Instant};

use debshrew::block::Height;
use debshrew::change::Change;
use debshrew::commit::{Block, Durability, Journaling};
use debshrew::pipeline::PipelineError;
use debshrew::register::Cause;
use debshrew::undo::{Pruner, UndoError};

use crate::support::{COUNTER, Rig, Scene, at, connect_as, database, delete, put, quick};

const RETENTION: u32 = 10;

/// Every block touches old rows and new ones.
fn changes(height: u32, round: u32) -> Vec<Change> {
    vec![
        put("t", &format!(r#"{{"id": {}, "x": "{round}/{height}"}}"#, height % 7)),
        put("t", &format!(r#"{{"id": {}, "x": "new"}}"#, 1000 + height)),
        delete("t", &format!(r#"{{"id": {}}}"#, 1000 + height.saturating_sub(3))),
    ]
}

#[tokio::test]
async fn rollbacks_within_the_floor_are_exact_while_the_journal_is_pruned() {
    let test = database("pruning").await;
    let mut rig = Rig::up(&test, "pruned", "create table t (id integer primary key, x text)").await;
    let mut pruner = Pruner::new(connect_as(&test.dsn), RETENTION);
    let mut states: Vec<Vec<String>> = Vec::new();
    for round in 0..20 {
        let next = states.len() as u32;
        for height in next..next + 25 {
            rig.commit(height, changes(height, round)).await;
            states.push(rig.everything().await);
            rig.writer().await.prune(&mut pruner).await;
        }
        // At once, so that pruning may still be under way.
        let to = states.len() as u32 - 1 - (round % RETENTION + 1);
        rig.roll_back(to).await.unwrap();
        states.truncate(to as usize + 1);
        assert_eq!(Some(&rig.everything().await), states.last(), "rolled back to {to}");
    }
    let floor = rig.writer().await.checkpoint().floor.expect("something was pruned");
    let error = rig.roll_back(floor.get() - 1).await.unwrap_err();
    assert!(matches!(error, PipelineError::Undo(UndoError::TooDeep { .. })), "{error:?}");
    let left = "select count(*) from debshrew_pruned.t where undo_height <= $1";
    let deadline = Instant::now() + Duration::from_secs(30);
    while rig.client.query_one(left, &[&floor.to_sql()]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "images below the floor are still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn from_the_first_block_with_a_journal_on_everything_can_be_rolled_back_and_nothing_before() {
    let test = database("pruning_skipped").await;
    let mut rig = Rig::up(&test, "skipped", "create table t (id integer primary key, x text)").await;
    let mut states = Vec::new();
    for height in 0..20 {
        let journaling = if height < 10 { Journaling::Skipped } else { Journaling::Kept };
        let state = vec![(vec![1], Some(vec![height as u8]))];
        let changes = rig.folded(changes(height, 0), state).await.unwrap();
        let writer = rig.writer().await;
        writer
            .commit(Block {
                at: at(height),
                changes,
                journaling,
                durability: Durability::Lazy,
                state_root: None,
            })
            .await
            .unwrap();
        states.push(rig.everything().await);
        // What the database says is what the process believes.
        if height == 12 {
            rig.stop().await;
        }
    }
    for below in [Some(8), None] {
        let to = below.and_then(Height::new);
        let error = rig.writer().await.roll_back(to, Cause::Reorg).await.unwrap_err();
        assert!(error.to_string().contains("reaches back to height 9"), "{error}");
    }
    rig.roll_back(9).await.unwrap();
    assert_eq!(rig.everything().await, states[9]);
    let client = rig.db.client().await.unwrap();
    let state = debshrew::table::state::read(&client, "skipped", &[1]).await.unwrap();
    assert_eq!(state, Some(vec![9]));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_counts_from_the_checkpoint_however_far_that_is_below_the_tip() {
    let mut scene = Scene::new("pruning_confirmations", COUNTER, quick(100)).await;
    scene.toml.push_str("confirmations = 20\nretention = 10\n");
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let row = "select height, rollback_floor from debshrew.pipelines";
    let row = scene.client.query_one(row, &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, Option<i32>>(1)), (80, Some(70)));
    scene.succeed(&["rollback", "--to", "70", "--yes"]).await;
    assert_eq!(scene.whole().await.len(), 71);
}
