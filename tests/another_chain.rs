//! Sources that follow another chain than the committed one: nothing is taken back, and it is said where they part.

use debshrew::simulate::{Command, Fault, Misbehaviour, Options, Origin, Simulator};

use crate::support::{COUNTER, DEADLINE, Scene, quick};

/// Deeper than is followed by default.
const HEIGHT: u32 = 150;

/// A source whose blocks are others from height 1 on: the genesis block is the same.
async fn other(height: u32) -> Simulator {
    let options = quick(height);
    let origin = Origin::Generated { seed: 2, height, transactions: 2 };
    Simulator::start(Options { origin, ..options }).await.unwrap()
}

/// A pipeline that has caught up with its source.
async fn committed(name: &str, height: u32, start_height: u32) -> Scene {
    let mut scene = Scene::new(name, COUNTER, quick(height)).await;
    scene.toml = scene.toml.replace("start_height = 0", &format!("start_height = {start_height}"));
    scene.succeed(&["run", "--migrate", "--once"]).await;
    scene
}

async fn last_error(scene: &Scene) -> String {
    let sql = "select state || ': ' || coalesce(last_error, '') from debshrew.pipelines";
    scene.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_takes_nothing_back_until_it_is_said_to_be_right() {
    let mut scene = committed("chain_wrong", HEIGHT, 0).await;
    let before = scene.whole().await;
    let other = other(HEIGHT).await;
    scene.toml = scene.toml.replace(&scene.source.url(), &other.url());
    let output = scene.run(&["run", "--once"]).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert_eq!(scene.whole().await, before);
    let (ours, theirs) = (scene.source.chain(), other.chain());
    let said = last_error(&scene).await;
    for expected in [
        "halted: ".to_owned(),
        format!("block 0 ({}) is the last that both have", ours[0]),
        format!("block 1 is {} there and {} here", theirs[1], ours[1]),
        "150 blocks".to_owned(),
        "`max_reorg_depth` (100)".to_owned(),
        "`debshrew run --accept-reorg 0`".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected}: {said}");
    }
    let output = scene.run(&["run", "--once", "--accept-reorg", "1"]).await;
    assert_eq!(output.code, 3, "another block than it is: {}", output.stderr);
    assert_eq!(scene.whole().await, before);
    scene.succeed(&["run", "--once", "--accept-reorg", "0"]).await;
    scene.source = other;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_failed_over_to_takes_nothing_back() {
    let mut scene = committed("chain_fail_over", HEIGHT, 0).await;
    let before = scene.whole().await;
    let other = other(HEIGHT + 5).await;
    let urls = format!("{}\", \"{}", scene.source.url(), other.url());
    scene.toml = scene.toml.replace(&scene.source.url(), &urls);
    let mut running = scene.start(&["run"]);
    scene.caught_up().await;
    let drop = Misbehaviour { fault: Fault::Drop, calls: None, method: None, view: None };
    scene.source.control(Command::Misbehave(drop)).await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, running.wait()).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(3));
    assert!(last_error(&scene).await.starts_with("halted: "), "{}", last_error(&scene).await);
    assert_eq!(scene.whole().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_that_share_nothing_are_told_from_a_reorganisation() {
    let mut scene = committed("chain_nothing", HEIGHT, 1).await;
    let other = other(20).await;
    scene.toml = scene.toml.replace(&scene.source.url(), &other.url());
    let output = scene.run(&["check"]).await;
    assert_eq!(output.code, 1, "{}", output.stdout);
    assert!(output.stdout.contains("have no block in common"), "{}", output.stdout);
    let output = scene.run(&["run", "--once"]).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    let said = last_error(&scene).await;
    assert!(said.contains("have no block in common"), "{said}");
    assert!(said.contains("`debshrew run --accept-reorg start`"), "{said}");
    let rows = "select count(*) from counter.seen";
    assert_eq!(scene.client.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 150);
    scene.succeed(&["run", "--once", "--accept-reorg", "start"]).await;
    assert_eq!(scene.client.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_compares_what_is_committed_with_the_source() {
    let scene = committed("chain_check", 30, 0).await;
    let output = scene.succeed(&["check"]).await;
    let same = format!("ok    chain of `counter`: block 30 ({}) is the source's", scene.source.chain()[30]);
    assert!(output.stdout.contains(&same), "{}", output.stdout);
    scene.reorganise(5, 6).await;
    scene.settled().await;
    let output = scene.succeed(&["check"]).await;
    assert!(output.stdout.contains("note  chain of `counter`: "), "{}", output.stdout);
    assert!(output.stdout.contains("`run` will roll back 5 blocks"), "{}", output.stdout);
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_that_the_journal_does_not_reach_says_what_happened() {
    let mut scene = Scene::new("chain_too_deep", COUNTER, quick(30)).await;
    scene.toml.push_str("retention = 5\n");
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let (before, old) = (scene.whole().await, scene.source.chain());
    scene.reorganise(12, 13).await;
    scene.settled().await;
    let output = scene.run(&["check"]).await;
    assert!(output.code == 1 && output.stdout.contains("BAD   chain of `counter`"), "{}", output.stdout);
    let output = scene.run(&["run", "--once"]).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert_eq!(scene.whole().await, before);
    let (new, said) = (scene.source.chain(), last_error(&scene).await);
    for expected in [
        format!("block 18 ({}) is the last that both have", old[18]),
        format!("block 19 is {} there and {} here", new[19], old[19]),
        "12 blocks".to_owned(),
        "reaches back to height 25".to_owned(),
        "`debshrew reset counter`, then `debshrew migrate` and `debshrew run`".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected}: {said}");
    }
}
