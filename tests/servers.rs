//! What servers say of their state: kept with each block, and compared; and following one of several.

use debshrew::simulate::{Command, RuleChange};

use crate::support::{COUNTER, Output, Scene, quick};

async fn rules(scene: &Scene, change: RuleChange) {
    scene.source.control(Command::Rules(change)).await.unwrap();
}

async fn without_roots(scene: &Scene) -> i64 {
    let sql = "select count(*) from debshrew.blocks where state_root is null";
    scene.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn state_roots_are_kept_with_each_block_where_the_server_has_them() {
    let scene = Scene::new("servers_roots", COUNTER, quick(60)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    assert_eq!(without_roots(&scene).await, 0);
    let distinct = "select count(distinct state_root) from debshrew.block";
    assert_eq!(scene.client.query_one(distinct, &[]).await.unwrap().get::<_, i64>(0), 61);
    // After a reorganisation they are those of the new branch, and the blocks below it are found as they were.
    scene.reorganise(10, 12).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    assert_eq!(without_roots(&scene).await, 0);

    // An older server has none; it is asked once, and not for every block.
    rules(&scene, RuleChange { state_roots: Some(false), ..RuleChange::default() }).await;
    let before = scene.source.status().calls("metashrew_stateroot");
    scene.mine(40).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    assert_eq!(without_roots(&scene).await, 40);
    let asked = scene.source.status().calls("metashrew_stateroot") - before;
    assert!(asked < 10, "{asked}");
}

/// Halts, and nothing is committed or taken back.
async fn halts_at_another_state(scene: &Scene, height: u32) {
    let before = scene.whole().await;
    let Output { code, stderr, .. } = scene.run(&["run", "--once"]).await;
    assert_eq!(code, 3, "{stderr}");
    let sql = format!("select state_root, block_hash from debshrew.blocks where height = {height}");
    let row = scene.client.query_one(&sql, &[]).await.unwrap();
    let recorded = format!("and {} was recorded", row.get::<_, &str>(0));
    assert!(stderr.contains(&format!("block {height} ({})", row.get::<_, &str>(1))), "{stderr}");
    assert!(stderr.contains(&recorded) && stderr.contains("answers the state root"), "{stderr}");
    assert!(stderr.contains("another program"), "{stderr}");
    assert_eq!(scene.whole().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_behind_the_same_hashes_halts_at_the_start() {
    let scene = Scene::new("servers_program", COUNTER, quick(60)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    rules(&scene, RuleChange { other_program: Some(true), ..RuleChange::default() }).await;
    scene.mine(3).await;
    scene.settled().await;
    halts_at_another_state(&scene, 60).await;
    rules(&scene, RuleChange { other_program: Some(false), ..RuleChange::default() }).await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_went_wrong_under_the_same_hash_is_found_out_after_a_reorganisation() {
    let scene = Scene::new("servers_rollback", COUNTER, quick(60)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    // Nobody looks while the server goes to another branch and comes back to the first one.
    rules(&scene, RuleChange { broken_rollback: Some(true), ..RuleChange::default() }).await;
    scene.reorganise(5, 6).await;
    scene.settled().await;
    let back = Command::Reorg { depth: 6, length: Some(7), branch: Some("main".into()) };
    scene.source.control(back).await.unwrap();
    scene.settled().await;
    halts_at_another_state(&scene, 60).await;
}
