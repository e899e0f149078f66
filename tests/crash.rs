//! The process is killed before and after each statement of a block and of a rollback, before COMMIT, after it
//! was sent and after its reply; whatever it had done, the next start ends where an undisturbed run does.
//!
//! Needs the feature `failpoints`, which `make test` sets.

use crate::pipeline::{COUNTER, Set, names};
use crate::support::debshrew;

/// Runs with the process ending itself where `point` is reached for the `pass`th time.
async fn killed_at(set: &Set, point: &str, pass: u32) -> bool {
    let command = debshrew(&["run", "--once"])
        .file(&set.toml)
        .variable("FAILPOINTS", &format!("{point}={pass}*off->return"));
    let output = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
    assert!(output.code == 0 || output.code == -1, "{}", output.stderr);
    output.code == -1
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_statement_of_a_block_it_loses_and_doubles_nothing() {
    let set = Set::up("crash_blocks", COUNTER).await;
    // What was sent before the kill may still commit: up to two blocks a kill.
    set.chain.switch(80, []);
    let (code, _, stderr) = set.run(&["migrate"]).await;
    assert_eq!(code, 0, "{stderr}");
    // A block of this transform has nine points: begin, checkpoint, two journals, two upserts, commit.
    let mut kills = 0;
    for pass in 0..18 {
        for point in ["before-statement", "after-statement"] {
            kills += u32::from(killed_at(&set, point, pass).await);
        }
    }
    assert!(kills >= 30, "{kills}");
    let (code, _, stderr) = set.run(&["run", "--once"]).await;
    assert_eq!(code, 0, "{stderr}");
    set.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_statement_of_a_rollback_it_rolls_back_once() {
    let set = Set::up("crash_rollback", COUNTER).await;
    set.chain.switch(20, []);
    let (code, _, stderr) = set.run(&["run", "--migrate", "--once"]).await;
    assert_eq!(code, 0, "{stderr}");
    let mut kills = 0;
    let mut reorgs = 0;
    for point in [
        "before-rollback-statement",
        "after-rollback-statement",
        "before-rollback-commit",
        "after-rollback-commit",
    ] {
        for pass in 0..7 {
            reorgs += 1;
            set.chain.switch(15, names(&format!("r{reorgs}_"), 15..20));
            if killed_at(&set, point, pass).await {
                kills += 1;
                let (code, _, stderr) = set.run(&["run", "--once"]).await;
                assert_eq!(code, 0, "{stderr}");
            }
            set.follows().await;
            let recorded: i64 = set
                .client
                .query_one("select count(*) from debshrew.reorgs where depth = 5", &[])
                .await
                .unwrap()
                .get(0);
            assert_eq!(recorded, reorgs);
        }
    }
    assert!(kills >= 14, "{kills}");
}
