//! `kill -9` at random moments while the source mines and reorganises: at the end the tables are those of an
//! undisturbed run on the final chain.
//!
//! Goes on for 10 seconds, or as many as `DEBSHREW_TEST_CHAOS_SECONDS` says.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use debshrew::simulate::{Command, Fault, Misbehaviour, Simulator};
use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::support::{COUNTER, Scene, quick};

fn seconds() -> u64 {
    let given = std::env::var("DEBSHREW_TEST_CHAOS_SECONDS").ok();
    given.map_or(10, |text| text.parse().expect("DEBSHREW_TEST_CHAOS_SECONDS is a number of seconds"))
}

/// What the node does before the process is killed again, each with a pause after it in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Mine(u32),
    Reorganise { depth: u32, length: u32 },
}

/// The chain grows slowly, so that a long run does not end with one that takes long to look through.
fn turns() -> impl Strategy<Value = Vec<(Turn, u64)>> {
    let turn = (0..3, 1u32..12, 0u32..2).prop_map(|(kind, depth, more)| match kind {
        0 => Turn::Mine(1 + more),
        _ => Turn::Reorganise { depth, length: depth + more },
    });
    proptest::collection::vec((turn, 0u64..120), 1..6)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_ends_where_an_undisturbed_run_does() {
    let mut runner = TestRunner::default();
    let mut scene = Scene::new("chaos", COUNTER, quick(60)).await;
    scene.add_built("ledger", "ledger");
    scene.succeed(&["migrate"]).await;
    let until_when = Instant::now() + Duration::from_secs(seconds());
    let (mut kills, mut reorganisations) = (0, 0);
    while Instant::now() < until_when {
        let mut running = scene.start(&["run"]);
        let turns = turns().new_tree(&mut runner).unwrap().current();
        println!("{turns:?}");
        for (turn, pause_ms) in turns {
            match turn {
                Turn::Mine(blocks) => scene.mine(blocks).await,
                Turn::Reorganise { depth, length } => {
                    reorganisations += 1;
                    scene.reorganise(depth, length).await
                }
            };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            scene.whole().await;
        }
        running.kill().await.unwrap();
        kills += 1;
    }
    println!("{kills} kills, {reorganisations} reorganisations, {} blocks", scene.source.chain().len());
    scene.brought_to_rest().await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    scene.add_built("undisturbed", "ledger");
    scene.succeed(&["run", "--migrate", "--once"]).await;
    assert_eq!(scene.digests("ledger").await, scene.digests("undisturbed").await);
    assert!(kills > 3 && reorganisations > 3, "{kills} kills, {reorganisations} reorganisations");
}

/// Two servers of one chain, of which the second does everything some turns later, and goes away now and then.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_second_server_that_lags_and_restarts_nothing_is_taken_back_twice() {
    let mut runner = TestRunner::default();
    let mut scene = Scene::new("chaos_two", COUNTER, quick(60)).await;
    let second = Simulator::start(quick(60)).await.unwrap();
    let one = format!("urls = [\"{}\"]\n", scene.source.url());
    let two = format!("urls = [\"{}\", \"{}\"]\nretries = 1\n", scene.source.url(), second.url());
    scene.toml = scene.toml.replace(&one, &two);
    scene.succeed(&["migrate"]).await;
    let until_when = Instant::now() + Duration::from_secs(seconds());
    let mut late: VecDeque<Command> = VecDeque::new();
    let (mut reorganisations, mut rounds) = (0, 0);
    let mut running = scene.start(&["run"]);
    while Instant::now() < until_when {
        let turns = turns().new_tree(&mut runner).unwrap().current();
        println!("{turns:?}");
        for (turn, pause_ms) in turns {
            let command = match turn {
                Turn::Mine(blocks) => Command::Mine { blocks },
                Turn::Reorganise { depth, length } => {
                    reorganisations += 1;
                    let branch = Some(format!("turn-{reorganisations}"));
                    Command::Reorg { depth, length: Some(length), branch }
                }
            };
            scene.source.control(command.clone()).await.unwrap();
            late.push_back(command);
            while late.len() > 3 {
                second.control(late.pop_front().unwrap()).await.unwrap();
            }
            second.control(Command::Restart {}).await.unwrap();
            if pause_ms % 3 == 0 {
                let fault = Misbehaviour { fault: Fault::Drop, calls: None, method: None, view: None };
                second.control(Command::Misbehave(fault)).await.unwrap();
            } else {
                second.control(Command::Clear {}).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(4 * pause_ms)).await;
            scene.whole().await;
        }
        // The first one is well: as soon as it is ahead, its branch is committed, whatever the second one does.
        let ahead = Command::Mine { blocks: 3 };
        scene.source.control(ahead.clone()).await.unwrap();
        late.push_back(ahead);
        scene.brought_to_rest().await;
        scene.caught_up().await;
        rounds += 1;
        if rounds % 3 == 0 {
            running.kill().await.unwrap();
            running = scene.start(&["run"]);
        }
    }
    running.kill().await.unwrap();
    second.control(Command::Clear {}).await.unwrap();
    scene.brought_to_rest().await;
    // Ahead of what the second one may have.
    scene.mine(3).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    let count = scene.client.query_one("select count(*) from debshrew.reorg", &[]).await.unwrap();
    let recorded: i64 = count.get(0);
    println!(
        "{rounds} rounds, {reorganisations} reorganisations, {recorded} rollbacks, {} blocks",
        scene.source.chain().len()
    );
    assert!(recorded <= reorganisations, "{recorded} rollbacks, {reorganisations} reorganisations");
    assert!(recorded > 0 && rounds > 1, "{recorded} rollbacks in {rounds} rounds");
}
