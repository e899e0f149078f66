//! Reorganisations: what each phase answers, what stays unseen, what wedges, and real durations.

use std::time::Duration;

use debshrew::simulate::{
    Command, Options, Order, Origin, Pace, Phase, RuleChange, Simulator, Status, Timing,
};
use serde_json::{Value, json};

use super::http::{attempt, call, in_time};

/// Held in each phase, on 20 generated blocks.
pub async fn stepped() -> Simulator {
    start(Pace::Stepped, 20, Timing::default()).await
}

async fn start(pace: Pace, height: u32, timing: Timing) -> Simulator {
    let origin = Origin::Generated { seed: 5, height, transactions: 2 };
    Simulator::start(Options { origin, pace, timing, ..Options::default() }).await.unwrap()
}

pub async fn reorg(simulator: &Simulator, depth: u32, length: u32) -> Status {
    let command = Command::Reorg { depth, length: Some(length), branch: None };
    simulator.control(command).await.unwrap()
}

pub async fn step(simulator: &Simulator) -> Phase {
    simulator.control(Command::Step { count: 1, until: None }).await.unwrap().index.phase
}

async fn step_until(simulator: &Simulator, phase: Phase) -> Status {
    simulator.control(Command::Step { count: 1, until: Some(phase) }).await.unwrap()
}

pub async fn mine(simulator: &Simulator, blocks: u32) -> Status {
    simulator.control(Command::Mine { blocks }).await.unwrap()
}

async fn refused(simulator: &Simulator, command: Command) -> String {
    simulator.control(command).await.unwrap_err().to_string()
}

async fn height(simulator: &Simulator) -> u32 {
    call(&simulator.url(), "metashrew_height", json!([])).await.parse().unwrap()
}

/// The hashes at these heights; empty where there is none.
async fn hashes(simulator: &Simulator, heights: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut hashes = Vec::new();
    for height in heights {
        let answer = attempt(&simulator.url(), "metashrew_getblockhash", json!([height])).await;
        hashes.push(answer["result"].as_str().unwrap_or_default().to_owned());
    }
    hashes
}

/// The hashes of the blocks that the view answers at these heights; empty where it is empty.
async fn states(simulator: &Simulator, heights: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut hashes = Vec::new();
    for height in heights {
        let block = call(&simulator.url(), "metashrew_view", json!(["getblock", "", height])).await;
        let block = hex::decode(&block[2..]).unwrap();
        let header = block.get(..80).map(|header| bitcoin::consensus::deserialize(header).unwrap());
        let hash = header.map(|header: bitcoin::block::Header| format!("0x{}", header.block_hash()));
        hashes.push(hash.unwrap_or_default());
    }
    hashes
}

async fn tracked(simulator: &Simulator, height: Value) -> usize {
    call(&simulator.url(), "metashrew_view", json!(["blocktracker", "", height])).await.len() / 2 - 1
}

/// A height call and a hash call are held; only views answer.
async fn held(simulator: &Simulator) {
    let url = simulator.url();
    let height = tokio::spawn({
        let url = url.clone();
        async move { attempt(&url, "metashrew_height", json!([])).await }
    });
    let hash = tokio::spawn(async move { attempt(&url, "metashrew_getblockhash", json!([1])).await });
    in_time(simulator.until(|status| status.waiting == 2)).await;
    assert!(!height.is_finished() && !hash.is_finished());
    height.abort();
    hash.abort();
    in_time(simulator.until(|status| status.waiting == 0)).await;
}

#[tokio::test]
async fn each_phase_misleads_in_its_own_way() {
    let simulator = stepped().await;
    let old = hashes(&simulator, 15..=22).await;
    assert_eq!(old[6..], ["", ""]);
    reorg(&simulator, 3, 5).await;
    // Unnoticed: everything is the old branch's.
    assert_eq!(simulator.status().index.phase, Phase::Unnoticed);
    assert_eq!((height(&simulator).await, hashes(&simulator, 15..=22).await), (20, old.clone()));
    assert_eq!(states(&simulator, 15..=20).await, old[..6]);

    assert_eq!(step(&simulator).await, Phase::RollingBack);
    held(&simulator).await;
    assert_eq!(states(&simulator, 15..=20).await, old[..6]);

    assert_eq!(step(&simulator).await, Phase::HalfRolledBack);
    held(&simulator).await;
    // Empty and failing in turn, even below the fork.
    for pinned in [json!(3), json!(17), json!(20), json!("latest")] {
        assert_eq!(tracked(&simulator, pinned.clone()).await, 0);
        let failed = attempt(&simulator.url(), "metashrew_view", json!(["blocktracker", "", pinned])).await;
        let expected =
            "View function error: View function failed: Failed to execute view function 'blocktracker'";
        assert_eq!(failed["error"]["message"], expected);
    }

    assert_eq!(step(&simulator).await, Phase::RolledBack);
    assert_eq!((height(&simulator).await, hashes(&simulator, 15..=22).await), (17, old.clone()));
    let empty = vec![String::new(); 3];
    assert_eq!(states(&simulator, 15..=20).await, [&old[..3], &empty].concat());
    assert_eq!((tracked(&simulator, json!(16)).await, tracked(&simulator, json!("latest")).await), (17, 18));

    for block in 18..=22 {
        // The state comes first: views know a block that height and hash do not.
        assert_eq!(step(&simulator).await, Phase::StateFirst);
        assert_eq!(height(&simulator).await, block - 1);
        assert_eq!(hashes(&simulator, [block]).await[0], old[block as usize - 15]);
        let state = states(&simulator, [block]).await;
        assert!(!state[0].is_empty() && state[0] != old[block as usize - 15]);
        assert_eq!(tracked(&simulator, json!("latest")).await, block as usize + 1);

        let phase = if block == 22 { Phase::Following } else { Phase::Replaced };
        assert_eq!(step(&simulator).await, phase);
        assert_eq!((height(&simulator).await, hashes(&simulator, [block]).await), (block, state));
        let above = hashes(&simulator, block + 1..=22).await;
        assert_eq!(above, old[(block as usize - 14).min(8)..]);
    }
    let status = simulator.status();
    assert!(status.settled() && status.index.fork.is_none());
    let new = hashes(&simulator, 15..=22).await;
    assert_eq!((&new[..3], &states(&simulator, 15..=22).await), (&old[..3], &new));
    assert_eq!(new[7], format!("0x{}", status.node.hash));
    assert_eq!(
        refused(&simulator, Command::Step { count: 1, until: None }).await,
        "no reorganisation is under way"
    );
}

#[tokio::test]
async fn hashes_come_first_and_views_lag_behind_when_they_are_told_to() {
    let simulator = stepped().await;
    let change = RuleChange { order: Some(Order::HashFirst), view_lag_ms: Some(5), ..RuleChange::default() };
    simulator.control(Command::Rules(change)).await.unwrap();
    reorg(&simulator, 2, 3).await;
    step_until(&simulator, Phase::Dropped).await;
    assert_eq!((height(&simulator).await, tracked(&simulator, json!(10)).await), (18, 0));
    assert_eq!(step(&simulator).await, Phase::RolledBack);
    assert_eq!(step(&simulator).await, Phase::HashFirst);
    let hash = hashes(&simulator, [19]).await;
    assert_eq!((height(&simulator).await, states(&simulator, [19]).await), (19, vec![String::new()]));
    assert_eq!(step(&simulator).await, Phase::Replaced);
    assert_eq!(states(&simulator, [19]).await, hash);
}

#[tokio::test]
async fn a_branch_is_unseen_until_it_is_as_long_as_the_old_one() {
    let simulator = stepped().await;
    let old = hashes(&simulator, 18..=20).await;
    reorg(&simulator, 3, 1).await;
    let why = refused(&simulator, Command::Step { count: 1, until: None }).await;
    assert_eq!(
        why,
        "the new branch stays unnoticed until it is as long as the old one; `mine` up to height 20"
    );
    assert_eq!(mine(&simulator, 1).await.node.height.get(), 19);
    refused(&simulator, Command::Step { count: 1, until: None }).await;
    assert_eq!((height(&simulator).await, hashes(&simulator, 18..=20).await), (20, old.clone()));
    mine(&simulator, 1).await;
    assert_eq!(step(&simulator).await, Phase::RollingBack);
    step_until(&simulator, Phase::Following).await;
    let new = hashes(&simulator, 18..=20).await;
    assert!(height(&simulator).await == 20 && new.iter().zip(&old).all(|(new, old)| new != old));

    // A branch that goes away again was never there.
    reorg(&simulator, 2, 1).await;
    let back = Command::Reorg { depth: 1, length: Some(2), branch: Some("fork-1".into()) };
    let status = simulator.control(back).await.unwrap();
    assert!(status.settled(), "{status:?}");
}

#[tokio::test]
async fn too_deep_or_too_high_a_branch_wedges_until_a_restart() {
    let simulator = start(Pace::Stepped, 20, Timing::default()).await;
    // 7 above is still followed.
    reorg(&simulator, 1, 8).await;
    assert!(step_until(&simulator, Phase::Following).await.settled());
    let old = hashes(&simulator, 26..=35).await;
    reorg(&simulator, 1, 9).await;
    let status = step_until(&simulator, Phase::Wedged).await;
    assert_eq!((status.node.height.get(), status.index.height.map(|height| height.get())), (35, Some(26)));
    mine(&simulator, 5).await;
    let why = refused(&simulator, Command::Step { count: 1, until: None }).await;
    assert_eq!(why, "the index is wedged; `restart` ends that");
    assert_eq!((height(&simulator).await, hashes(&simulator, 26..=35).await), (26, old.clone()));
    assert_eq!(states(&simulator, [26, 27]).await, [&old[0], ""]);
    assert!(simulator.control(Command::Restart {}).await.unwrap().settled());

    // Beyond the allowed depth the height falls by that, and then again.
    let change = RuleChange { max_reorg_depth: Some(10), ..RuleChange::default() };
    simulator.control(Command::Rules(change)).await.unwrap();
    let old = hashes(&simulator, 20..=40).await;
    reorg(&simulator, 12, 12).await;
    step_until(&simulator, Phase::RolledBack).await;
    assert_eq!((height(&simulator).await, simulator.status().index.fork.unwrap().get()), (30, 28));
    assert_eq!(step(&simulator).await, Phase::RollingBack);
    step_until(&simulator, Phase::Wedged).await;
    assert_eq!((height(&simulator).await, hashes(&simulator, 20..=40).await), (28, old));
    simulator.control(Command::Restart {}).await.unwrap();
    // As deep as is allowed.
    reorg(&simulator, 10, 10).await;
    assert!(step_until(&simulator, Phase::Following).await.settled());
}

#[tokio::test]
async fn a_reorganisation_within_another_ends_on_the_last_branch() {
    let simulator = stepped().await;
    reorg(&simulator, 5, 6).await;
    step_until(&simulator, Phase::Replaced).await;
    step_until(&simulator, Phase::StateFirst).await;
    reorg(&simulator, 6, 7).await;
    // Only now does the index see that what it is at belongs to neither.
    assert_eq!(step(&simulator).await, Phase::Unnoticed);
    let status = step_until(&simulator, Phase::Following).await;
    assert_eq!((status.settled(), status.node.branch.as_str()), (true, "fork-2"));
    let tip = hashes(&simulator, [status.node.height.get()]).await;
    assert_eq!(tip, [format!("0x{}", status.node.hash)]);
    assert_eq!(
        states(&simulator, 1..=status.node.height.get()).await,
        hashes(&simulator, 1..=status.node.height.get()).await
    );
}

#[tokio::test]
async fn left_to_itself_a_reorganisation_takes_its_time() {
    let simulator = start(Pace::Timed, 20, Timing::default()).await;
    let began = tokio::time::Instant::now();
    reorg(&simulator, 2, 3).await;
    in_time(simulator.until(|status| status.index.phase != Phase::Unnoticed)).await;
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    // Held until the rollback is over.
    assert!((18..=21).contains(&height(&simulator).await));
    assert!(began.elapsed() >= Duration::from_millis(500 + 40), "{:?}", began.elapsed());
    in_time(simulator.until(Status::settled)).await;
    // Three blocks in two halves each, with two pauses between them.
    let least = Duration::from_millis(500 + 40 + 10 + 3 * 15 + 2 * 95);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    assert_eq!(height(&simulator).await, 21);
}

#[tokio::test]
async fn the_index_takes_its_time_for_each_block_and_begins_with_none() {
    let options = Options {
        origin: Origin::Generated { seed: 5, height: 3, transactions: 2 },
        index_delay: Duration::from_secs(3600),
        ..Options::default()
    };
    let simulator = Simulator::start(options).await.unwrap();
    assert_eq!(height(&simulator).await, 0);
    let none = attempt(&simulator.url(), "metashrew_getblockhash", json!([0])).await;
    assert_eq!(none["error"]["message"], "Storage error: Block hash not found for height 0");
    assert_eq!(
        (states(&simulator, [0]).await[0].as_str(), tracked(&simulator, json!("latest")).await),
        ("", 0)
    );
    let change = RuleChange { index_delay_ms: Some(20), ..RuleChange::default() };
    simulator.control(Command::Rules(change)).await.unwrap();
    let began = tokio::time::Instant::now();
    in_time(simulator.until(|status| status.index.height.is_some_and(|height| height.get() >= 1))).await;
    let status = in_time(simulator.until(Status::settled)).await;
    assert_eq!(status.index.height.unwrap().get(), 3);
    assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
    // Time that passed without a block to index does not count.
    for _ in 0..20 {
        height(&simulator).await;
    }
    let began = tokio::time::Instant::now();
    mine(&simulator, 1).await;
    in_time(simulator.until(Status::settled)).await;
    assert!(began.elapsed() >= Duration::from_millis(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn blocks_come_by_themselves_if_they_are_to() {
    let options = Options { mine_every: Some(Duration::from_millis(5)), ..Options::default() };
    let simulator = Simulator::start(options).await.unwrap();
    in_time(simulator.until(|status| status.node.height.get() >= 103 && status.settled())).await;
}
