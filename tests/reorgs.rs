//! Reorganisations as a real server goes through them: while its answers mislead, nothing wrong is committed.

use std::time::Duration;

use debshrew::simulate::{Command, Options, Order, Pace, Phase, Status, Timing};
use proptest::prelude::{Strategy, any};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::support::{COUNTER, DEADLINE, Scene, quick, until};

/// Gives a stalled call up soon: the stand-in is held in phases in which calls wait.
const IMPATIENT: &str = "request_timeout = \"300ms\"\nretries = 1\npoll_interval = \"20ms\"\n";

fn impatient(scene: &mut Scene) {
    scene.toml = scene.toml.replace("poll_interval = \"20ms\"\n", IMPATIENT);
}

/// Waits until the pipeline has asked for several more things, or waits for an answer.
async fn looked_at(scene: &Scene) {
    let calls = |status: &Status| status.calls.values().sum::<u64>();
    let before = calls(&scene.source.status());
    scene.source.until(|status| calls(status) >= before + 10 || status.waiting > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_in_each_misleading_phase_nothing_wrong_is_committed() {
    let options = Options { pace: Pace::Stepped, ..quick(40) };
    let timing = Timing { view_lag: Duration::from_millis(1), ..options.timing };
    let mut scene = Scene::new("reorgs_held", COUNTER, Options { timing, ..options }).await;
    impatient(&mut scene);
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    let old: Vec<String> = scene.source.chain().iter().map(ToString::to_string).collect();
    scene.reorganise(6, 7).await;
    let new: Vec<String> = scene.source.chain().iter().map(ToString::to_string).collect();
    let mut phases = Vec::new();
    loop {
        looked_at(&scene).await;
        let status = scene.source.status();
        phases.push(status.index.phase);
        let rows = scene.whole().await;
        assert!(old.starts_with(&rows) || new.starts_with(&rows), "{:?}", status.index);
        if status.index.phase == Phase::Following {
            break;
        }
        scene.source.control(Command::Step { count: 1, until: None }).await.unwrap();
    }
    for phase in [
        Phase::Unnoticed,
        Phase::RollingBack,
        Phase::HalfRolledBack,
        Phase::Dropped,
        Phase::RolledBack,
        Phase::StateFirst,
        Phase::Replaced,
    ] {
        assert!(phases.contains(&phase), "{phase:?} is not among {phases:?}");
    }
    scene.caught_up().await;
    scene.follows().await;
}

/// Views that are wrong for a moment after the height fell, even below the fork, are nothing that a reading could
/// tell; so after a fall nothing is evaluated at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_does_not_ask_views_right_after_the_tip_fell() {
    let options = quick(1_500);
    let timing =
        Timing { view_lag: Duration::from_millis(40), block: Duration::from_millis(60), ..options.timing };
    let scene = Scene::new("reorgs_view_lag", COUNTER, Options { timing, ..options }).await;
    scene.succeed(&["migrate"]).await;
    let mut running = scene.start(&["run"]);
    let mut reorganisations = 0;
    while scene.source.chain().len() > 20 + scene.height().await {
        scene.reorganise(2, 3).await;
        scene.settled().await;
        reorganisations += 1;
        // A fall can be told from where the tip was when it was looked at before.
        let looks = scene.source.status().calls("metashrew_height");
        let more = scene.source.until(|status| status.calls("metashrew_height") > looks + 4);
        tokio::time::timeout(DEADLINE, more).await.expect("the pipeline looks at the source");
        assert!(running.try_wait().unwrap().is_none(), "it has ended");
    }
    assert!(reorganisations > 3, "{reorganisations}");
    scene.caught_up().await;
    scene.follows().await;
}

/// Of a server that had a block's hash before its state, a client cannot know that the state is missing. A
/// transform that fails without it is given a second chance.
#[tokio::test(flavor = "multi_thread")]
async fn a_tip_whose_state_comes_after_its_hash_is_tried_once_more() {
    // Fails where the view's answer is shorter than one byte a block.
    let strict = COUNTER.replace(
        "(call $load (i32.const 2000))",
        "(if (i32.ne (local.get $length) (i32.add (call $height) (i32.const 1))) (then (return (i32.const -1))))
         (call $load (i32.const 2000))",
    );
    assert_ne!(strict, COUNTER);
    let options = Options { order: Order::HashFirst, index_delay: Duration::from_millis(300), ..quick(20) };
    let options =
        Options { timing: Timing { between: Duration::from_millis(200), ..options.timing }, ..options };
    let scene = Scene::new("reorgs_hash_first", &strict, options).await;
    scene.settled().await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    for _ in 0..3 {
        scene.mine(1).await;
        scene.caught_up().await;
    }
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_wedged_is_waited_for_and_said_to_be() {
    let options = Options { max_reorg_depth: 10, ..quick(40) };
    let mut scene = Scene::new("reorgs_wedged", COUNTER, options).await;
    scene.toml = scene.toml.replace("poll_interval", "wedge_timeout = \"200ms\"\npoll_interval");
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    let old = scene.whole().await;
    scene.reorganise(20, 21).await;
    let said = "select coalesce(state = 'waiting' and last_error like '%probably wedged%', false) \
                from debshrew.pipelines";
    until("it is said that the source is wedged", async || {
        scene.client.query_one(said, &[]).await.unwrap().get(0)
    })
    .await;
    assert_eq!(scene.whole().await, old);
    scene.source.control(Command::Restart {}).await.unwrap();
    scene.caught_up().await;
    scene.follows().await;
}

/// What the node does next: mine, or leave some blocks for more, fewer or as many others.
#[derive(Clone, Debug)]
enum Turn {
    Mine(u32),
    Reorganise(u32, u32),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = (any::<bool>(), 1u32..8, 0u32..3).prop_map(|(mines, depth, more)| {
        if mines { Turn::Mine(depth) } else { Turn::Reorganise(depth, depth + more) }
    });
    proptest::collection::vec(turn, 8)
}

#[tokio::test(flavor = "multi_thread")]
async fn through_reorganisations_at_any_moment_every_snapshot_is_whole() {
    let scene = Scene::new("reorgs_any", COUNTER, quick(30)).await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    let mut runner = TestRunner::default();
    for _ in 0..6 {
        let turns = turns().new_tree(&mut runner).unwrap().current();
        println!("{turns:?}");
        for turn in &turns {
            match turn {
                Turn::Mine(blocks) => scene.mine(*blocks).await,
                Turn::Reorganise(depth, length) => scene.reorganise(*depth, *length).await,
            };
            // Not waiting for the end of one before the next.
            for _ in 0..5 {
                scene.whole().await;
            }
        }
        scene.brought_to_rest().await;
        scene.caught_up().await;
        scene.follows().await;
    }
}
