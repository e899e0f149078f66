//! What servers say of their state: kept with each block, and compared; and following one of several.

use debshrew::simulate::{Command, Fault, Misbehaviour, RuleChange, Simulator, Status};

use crate::support::{COUNTER, Output, Scene, quick, until};

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

/// A real server writes a block's state root after the block, and answers the one below it until then.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_not_there_yet_is_not_taken_for_the_tips() {
    let scene = Scene::new("servers_late_root", COUNTER, quick(60)).await;
    rules(&scene, RuleChange { late_root: Some(true), ..RuleChange::default() }).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let heights = "select array_agg(height order by height) from debshrew.blocks where state_root is null";
    let row = scene.client.query_one(heights, &[]).await.unwrap();
    assert_eq!(row.get::<_, Option<Vec<i32>>>(0), Some(vec![60]), "of the others it is known");
    rules(&scene, RuleChange { late_root: Some(false), ..RuleChange::default() }).await;
    scene.mine(3).await;
    scene.settled().await;
    // Nothing that was recorded is another one now.
    scene.succeed(&["run", "--once"]).await;
    assert_eq!(without_roots(&scene).await, 1);
    scene.follows().await;
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

/// Another server of the same chain, as the second one of the configuration.
async fn second(scene: &mut Scene, height: u32) -> Simulator {
    let second = Simulator::start(quick(height)).await.unwrap();
    let urls = format!("urls = [\"{}\", \"{}\"]\nretries = 0\n", scene.source.url(), second.url());
    let one = format!("urls = [\"{}\"]\n", scene.source.url());
    scene.toml = scene.toml.replace(&one, &urls);
    second
}

/// Lets each call end without an answer, until it is cleared.
pub async fn goes_away(server: &Simulator) {
    let gone = Misbehaviour { fault: Fault::Drop, calls: None, method: None, view: None };
    server.control(Command::Misbehave(gone)).await.unwrap();
}

pub async fn comes_back(server: &Simulator) {
    server.control(Command::Clear {}).await.unwrap();
}

/// Waits until the pipeline has looked several times more.
async fn looked_at(server: &Simulator) {
    let before = server.status().calls("metashrew_height");
    let more = server.until(|status| status.calls("metashrew_height") >= before + 3);
    tokio::time::timeout(crate::support::DEADLINE, more).await.expect("the pipeline looks at the source");
}

async fn reaches(scene: &Scene, server: &Simulator) {
    let sql = "select block_hash = $1 from debshrew.pipelines";
    let tip = server.chain().last().unwrap().to_string();
    until("the tip is committed", async || {
        let row = scene.client.query_one(sql, &[&tip]).await.unwrap();
        row.get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
}

async fn reorgs(scene: &Scene) -> i64 {
    scene.client.query_one("select count(*) from debshrew.reorg", &[]).await.unwrap().get(0)
}

/// Both servers' nodes take the same branch at the time that the test chooses.
pub fn new_branch() -> Command {
    Command::Reorg { depth: 10, length: Some(15), branch: Some("new".into()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_a_shorter_branch_is_not_followed_while_the_first_comes_and_goes() {
    let mut scene = Scene::new("servers_fail_over", COUNTER, quick(60)).await;
    let second = second(&mut scene, 60).await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    scene.source.control(new_branch()).await.unwrap();
    scene.settled().await;
    scene.caught_up().await;
    assert_eq!(reorgs(&scene).await, 1);

    // The second one's node still has the old branch, and ten blocks less.
    for _ in 0..3 {
        goes_away(&scene.source).await;
        looked_at(&second).await;
        comes_back(&scene.source).await;
        scene.mine(1).await;
        scene.caught_up().await;
    }
    assert_eq!(reorgs(&scene).await, 1, "{:?}", rollbacks(&scene).await);
    let log = std::fs::read_to_string(scene.log()).unwrap();
    assert!(log.contains("it is not followed before it is ahead"), "{log}");

    // Once it has caught up it takes the first one's place, and that one is not gone back to while it is behind.
    second.control(new_branch()).await.unwrap();
    second.until(Status::settled).await;
    second.control(Command::Mine { blocks: 6 }).await.unwrap();
    second.until(Status::settled).await;
    goes_away(&scene.source).await;
    reaches(&scene, &second).await;
    comes_back(&scene.source).await;
    looked_at(&second).await;
    second.control(Command::Mine { blocks: 1 }).await.unwrap();
    reaches(&scene, &second).await;
    assert_eq!(reorgs(&scene).await, 1, "{:?}", rollbacks(&scene).await);
    scene.whole().await;
}

/// From where to where it was rolled back.
async fn rollbacks(scene: &Scene) -> Vec<(i32, Option<i32>)> {
    let sql = "select from_height, to_height from debshrew.reorg order by reorg_id";
    scene.client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The pipeline's state, and why.
async fn said(scene: &Scene) -> (String, String) {
    let sql = "select state, coalesce(last_error, '') from debshrew.pipelines";
    let row = scene.client.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn waits_for(scene: &Scene, words: &str) -> String {
    until(words, async || {
        let (state, reason) = said(scene).await;
        state == "waiting" && reason.contains(words)
    })
    .await;
    said(scene).await.1
}

fn must_agree(scene: &mut Scene, servers: usize) {
    scene.toml = scene.toml.replace("retries = 0\n", &format!("retries = 0\nquorum = {servers}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_count_when_as_many_servers_as_must_agree_have_them() {
    let mut scene = Scene::new("servers_quorum", COUNTER, quick(60)).await;
    let second = second(&mut scene, 50).await;
    must_agree(&mut scene, 3);
    let Output { stderr, .. } = scene.run(&["check"]).await;
    assert!(
        stderr.contains("`source.quorum` asks for 3 servers that agree, and `source.urls` names 2"),
        "{stderr}"
    );
    scene.toml = scene.toml.replace("quorum = 3", "quorum = 2");
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    waits_for(&scene, "only up to height 50").await;
    assert_eq!(scene.whole().await.len(), 51);
    // The source's own height is no news.
    scene.mine(3).await;
    waits_for(&scene, "while the source is at height 63").await;
    let log = std::fs::read_to_string(scene.log()).unwrap();
    assert_eq!(log.matches("waiting: only up to height 50").count(), 1, "{log}");
    second.control(Command::Mine { blocks: 13 }).await.unwrap();
    scene.caught_up().await;
    scene.follows().await;
    until("it is running", async || said(&scene).await.0 == "running").await;

    // What one server alone has left is not taken back.
    scene.source.control(new_branch()).await.unwrap();
    scene.settled().await;
    let reason = waits_for(&scene, "too few servers agree on block ").await;
    let (new, old) = (scene.source.chain()[54], second.chain()[54]);
    assert!(
        reason.contains(&format!("says hash {new}, and")) && reason.contains(&format!("says hash {old}")),
        "{reason}"
    );
    assert_eq!(reorgs(&scene).await, 0);
    second.control(new_branch()).await.unwrap();
    scene.caught_up().await;
    scene.follows().await;
    assert_eq!(reorgs(&scene).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disagreement_is_an_alarm_with_both_values_and_nothing_is_committed() {
    for (name, state_roots, what) in
        [("servers_roots_differ", true, "state root"), ("servers_views_differ", false, "the answer of view")]
    {
        let mut scene = Scene::new(name, COUNTER, quick(60)).await;
        let second = second(&mut scene, 60).await;
        must_agree(&mut scene, 2);
        // The views are asked where one of the two has no roots.
        let change =
            RuleChange { other_program: Some(true), state_roots: Some(state_roots), ..RuleChange::default() };
        second.control(Command::Rules(change)).await.unwrap();
        scene.succeed(&["migrate"]).await;
        let _running = scene.start(&["run"]);
        let reason = waits_for(&scene, "too few servers agree on block ").await;
        assert_eq!(reason.matches(what).count(), 2, "{reason}");
        assert!(reason.contains(&scene.source.url()) && reason.contains(&second.url()), "{reason}");
        scene.logged("servers disagree on a block: ", 1).await;
        assert_eq!(scene.whole().await.len(), 0);
        // It is tried again meanwhile, which is nothing new.
        for _ in 0..3 {
            looked_at(&second).await;
        }
        let log = std::fs::read_to_string(scene.log()).unwrap();
        assert_eq!(log.matches("servers disagree on a block: ").count(), 1, "{log}");
        let change = RuleChange { other_program: Some(false), ..RuleChange::default() };
        second.control(Command::Rules(change)).await.unwrap();
        scene.logged("servers agree again: ", 1).await;
        scene.caught_up().await;
        scene.follows().await;
    }
}

/// No client can see from this server alone that its rollback went wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_rollback_went_wrong_is_outvoted() {
    let mut scene = Scene::new("servers_outvoted", COUNTER, quick(60)).await;
    let second = second(&mut scene, 60).await;
    let third = Simulator::start(quick(60)).await.unwrap();
    scene.toml = scene.toml.replace("\"]\nretries", &format!("\", \"{}\"]\nretries", third.url()));
    must_agree(&mut scene, 2);
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    rules(&scene, RuleChange { broken_rollback: Some(true), ..RuleChange::default() }).await;
    for server in [&scene.source, &second, &third] {
        server.control(new_branch()).await.unwrap();
    }
    scene.caught_up().await;
    scene.follows().await;
    let log = std::fs::read_to_string(scene.log()).unwrap();
    let alarm = |line: &str| line.contains("servers disagree on a block: ") && line.contains(" height=51 ");
    assert!(log.lines().any(alarm), "{log}");
    assert_eq!(reorgs(&scene).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_the_followed_server_lacks_comes_from_another() {
    let mut scene = Scene::new("servers_hole", COUNTER, quick(60)).await;
    let second = second(&mut scene, 60).await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    rules(&scene, RuleChange { no_hash: Some(vec![65]), ..RuleChange::default() }).await;
    for server in [&scene.source, &second] {
        server.control(Command::Mine { blocks: 10 }).await.unwrap();
    }
    scene.caught_up().await;
    scene.follows().await;
    scene.logged(&format!("following another server server={}", second.url()), 1).await;
}

/// Nor does the pipeline halt at a branch that is too deep, while one server alone is on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_too_deep_halts_when_as_many_as_must_agree_are_on_it() {
    let mut scene = Scene::new("servers_deep", COUNTER, quick(60)).await;
    let second = second(&mut scene, 60).await;
    must_agree(&mut scene, 2);
    scene.toml.push_str("max_reorg_depth = 5\n");
    scene.succeed(&["migrate"]).await;
    let mut running = scene.start(&["run"]);
    scene.caught_up().await;
    let before = scene.whole().await;
    scene.source.control(new_branch()).await.unwrap();
    scene.settled().await;
    waits_for(&scene, "too few servers agree on block ").await;
    assert!(running.try_wait().unwrap().is_none());
    second.control(new_branch()).await.unwrap();
    let ended = tokio::time::timeout(crate::support::DEADLINE, running.wait()).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(3));
    let (state, reason) = said(&scene).await;
    assert!(state == "halted" && reason.contains("`max_reorg_depth` (5)"), "{state}: {reason}");
    assert_eq!(scene.whole().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_it_found_of_each_server_and_of_the_quorum() {
    let mut scene = Scene::new("servers_check", COUNTER, quick(60)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let tip = scene.source.chain()[60];
    let Output { stdout, .. } = scene.succeed(&["check"]).await;
    let same =
        format!("chain of `counter`: block 60 ({tip}) is the source's as well, and so is its state root");
    assert!(stdout.contains(&same), "{stdout}");
    let second = second(&mut scene, 62).await;
    must_agree(&mut scene, 2);
    let Output { stdout, .. } = scene.succeed(&["check"]).await;
    for expected in [
        format!("ok    source {}: reachable, tip at height 60", scene.source.url()),
        format!("ok    source {}: reachable, tip at height 62", second.url()),
        format!("ok    quorum: 2 servers agree on block 60 ({tip})"),
        format!("ok    chain of `counter` at {}: block 60 ({tip}) is the source's as well", second.url()),
    ] {
        assert!(stdout.contains(&expected), "{expected}: {stdout}");
    }
    // What `run` does with one of several is not what it does with the only one.
    second.control(Command::Reorg { depth: 4, length: Some(6), branch: None }).await.unwrap();
    second.until(Status::settled).await;
    let Output { stdout, .. } = scene.run(&["check"]).await;
    assert!(stdout.contains("will roll back 2 blocks if it follows this server"), "{stdout}");
    second.control(Command::Reorg { depth: 6, length: Some(8), branch: Some("main".into()) }).await.unwrap();
    second.until(Status::settled).await;
    // Another program.
    let change = RuleChange { other_program: Some(true), ..RuleChange::default() };
    second.control(Command::Rules(change)).await.unwrap();
    let Output { code, stdout, .. } = scene.run(&["check"]).await;
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("BAD   quorum: ") && stdout.contains("says state root"), "{stdout}");
    let other = format!("BAD   chain of `counter` at {}: block 60", second.url());
    assert!(stdout.contains(&other) && stdout.contains("was recorded"), "{stdout}");
    // One that cannot be reached.
    goes_away(&second).await;
    let Output { code, stdout, .. } = scene.run(&["check"]).await;
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains(&format!("BAD   source {}: ", second.url())), "{stdout}");
    assert!(stdout.contains("BAD   quorum: 1 of `source.urls` answer, and 2 must agree"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_named_twice_does_not_agree_with_itself() {
    let mut scene = Scene::new("servers_twice", COUNTER, quick(60)).await;
    let _second = second(&mut scene, 60).await;
    let url = scene.source.url();
    scene.toml = scene.toml.replace("urls = [", &format!("urls = [\"{url}/\", "));
    must_agree(&mut scene, 2);
    scene.succeed(&["migrate"]).await;
    for command in [&["check"][..], &["run", "--once"]] {
        let Output { code, stdout, stderr } = scene.run(command).await;
        let said = stdout + &stderr;
        assert!(code != 0 && said.contains(&format!("names {url} twice")), "{code}: {said}");
    }
}

/// It is the others, who agree, that are followed.
#[tokio::test(flavor = "multi_thread")]
async fn one_server_with_another_state_does_not_halt_what_a_quorum_goes_on_with() {
    let mut scene = Scene::new("servers_one_other", COUNTER, quick(60)).await;
    let second = second(&mut scene, 60).await;
    let third = Simulator::start(quick(60)).await.unwrap();
    scene.toml = scene.toml.replace("\"]\nretries", &format!("\", \"{}\"]\nretries", third.url()));
    must_agree(&mut scene, 2);
    scene.succeed(&["run", "--migrate", "--once"]).await;
    rules(&scene, RuleChange { other_program: Some(true), ..RuleChange::default() }).await;
    for server in [&scene.source, &second, &third] {
        server.control(Command::Mine { blocks: 3 }).await.unwrap();
        server.until(Status::settled).await;
    }
    let Output { code, stderr, .. } = scene.run(&["run", "--until", "63"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains(&format!("following another server server={}", second.url())), "{stderr}");
    reaches(&scene, &second).await;
    // When the others say it as well, it is the source's state.
    for server in [&second, &third] {
        let change = RuleChange { other_program: Some(true), ..RuleChange::default() };
        server.control(Command::Rules(change)).await.unwrap();
    }
    halts_at_another_state(&scene, 63).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_stays_one_block_behind_is_said() {
    let mut scene = Scene::new("servers_one_behind", COUNTER, quick(60)).await;
    let _second = second(&mut scene, 60).await;
    must_agree(&mut scene, 2);
    scene.toml = scene.toml.replace("retries = 0\n", "retries = 0\nwedge_timeout = \"2s\"\n");
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    scene.mine(1).await;
    waits_for(&scene, "only up to height 60").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_passes_is_not_taken_for_a_server_without_state_roots() {
    let scene = Scene::new("servers_refused_roots", COUNTER, quick(60)).await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    for method in [Some("metashrew_stateroot"), Some("metashrew_view"), None] {
        let method = method.map(str::to_owned);
        let refuses = Misbehaviour { fault: Fault::Status { code: 403 }, calls: None, method, view: None };
        scene.source.control(Command::Misbehave(refuses.clone())).await.unwrap();
        if refuses.method.as_deref() == Some("metashrew_view") {
            scene.mine(1).await;
            waits_for(&scene, "403").await;
        }
    }
    looked_at(&scene.source).await;
    comes_back(&scene.source).await;
    scene.mine(3).await;
    scene.caught_up().await;
    assert!(without_roots(&scene).await <= 1);
}
