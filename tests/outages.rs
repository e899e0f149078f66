//! Sources that fail for a while, or that lack something for good: what passes is waited for and said once, and what
//! does not pass is said soon.

use std::time::{Duration, Instant};

use debshrew::simulate::{Command, Fault, Misbehaviour, Options, Phase, RuleChange, Simulator};
use tokio::process::Child;

use crate::support::{COUNTER, Scene, quick, until};

/// Within which a source that cannot be followed is said to be so.
const SOON: Duration = Duration::from_secs(15);

async fn following(name: &str, height: u32) -> (Scene, Child) {
    let scene = Scene::new(name, COUNTER, quick(height)).await;
    scene.succeed(&["migrate"]).await;
    let running = scene.start(&["run"]);
    scene.caught_up().await;
    (scene, running)
}

async fn said(scene: &Scene) -> String {
    let sql = "select state || ': ' || coalesce(last_error, '') from debshrew.pipelines";
    scene.client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits until it is said, no longer than that.
async fn is_said(scene: &Scene, words: &[&str], soon: Duration) {
    let since = Instant::now();
    loop {
        let said = said(scene).await;
        if words.iter().all(|word| said.contains(word)) {
            return;
        }
        assert!(
            since.elapsed() < soon,
            "after {:?} it is said that `{said}`, not {words:?}",
            since.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn misbehave(scene: &Scene, fault: Fault, method: Option<&str>, view: Option<&str>) {
    let (method, view) = (method.map(str::to_owned), view.map(str::to_owned));
    scene
        .source
        .control(Command::Misbehave(Misbehaviour { fault, calls: None, method, view }))
        .await
        .unwrap();
}

async fn clear(scene: &Scene) {
    scene.source.control(Command::Clear {}).await.unwrap();
}

async fn rules(scene: &Scene, change: RuleChange) {
    scene.source.control(Command::Rules(change)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_it_has_run_is_waited_for() {
    let (scene, mut running) = following("outages_refusals", 10).await;
    let mut ended = Vec::new();
    for code in [400, 401, 403, 404, 407] {
        if running.try_wait().unwrap().is_some() {
            running = scene.start(&["run"]);
            scene.caught_up().await;
        }
        misbehave(&scene, Fault::Status { code }, None, None).await;
        scene.mine(1).await;
        is_said(&scene, &[&format!("HTTP {code}")], SOON).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Some(status) = running.try_wait().unwrap() {
            ended.push((code, status.code()));
        }
        clear(&scene).await;
        if ended.last().is_none_or(|(ended, _)| *ended != code) {
            scene.caught_up().await;
        }
    }
    assert_eq!(ended, []);
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_the_first_start_is_an_error_at_once() {
    let scene = Scene::new("outages_first", COUNTER, quick(10)).await;
    for code in [401, 403, 404] {
        misbehave(&scene, Fault::Status { code }, None, None).await;
        let since = Instant::now();
        let output = scene.run(&["run", "--migrate"]).await;
        assert_eq!(output.code, 4, "{}", output.stderr);
        let (_, cause) = output.stderr.split_once("error: cannot ask the source\n").unwrap();
        assert!(cause.contains(&format!("HTTP {code}")), "{}", output.stderr);
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        clear(&scene).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_fails_below_the_tip_is_asked_again_before_that_halts() {
    let (scene, mut running) = following("outages_view", 10).await;
    let fault = || Fault::Error { message: "the indexer is being deployed".into() };
    misbehave(&scene, fault(), Some("metashrew_view"), Some("blocktracker")).await;
    scene.mine(5).await;
    is_said(&scene, &["block 11"], SOON).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(running.try_wait().unwrap().is_none(), "{}", said(&scene).await);
    assert!(said(&scene).await.starts_with("waiting: "), "{}", said(&scene).await);
    clear(&scene).await;
    scene.caught_up().await;
    scene.follows().await;
    is_said(&scene, &["running"], SOON).await;
    // What does not pass halts in the end.
    drop(running);
    let mut scene = scene;
    scene.toml.push_str("patience = \"2s\"\n");
    misbehave(&scene, fault(), Some("metashrew_view"), Some("blocktracker")).await;
    scene.mine(5).await;
    let mut running = scene.start(&["run"]);
    is_said(&scene, &["waiting: ", "block 16"], SOON).await;
    assert_eq!(running.wait().await.unwrap().code(), Some(3));
    is_said(&scene, &["halted: ", "block 16"], SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_started_above_is_found_out() {
    let scene = Scene::new("outages_above", COUNTER, quick(30)).await;
    rules(&scene, RuleChange { first_hash: Some(12), ..RuleChange::default() }).await;
    scene.succeed(&["migrate"]).await;
    let running = scene.start(&["run"]);
    is_said(&scene, &["waiting: ", "has no hash for block 0", "block 12", "`start_height`"], SOON).await;
    drop(running);
    let output = scene.run(&["check"]).await;
    assert_eq!(output.code, 1, "{}", output.stdout);
    assert!(output.stdout.contains("has no hash for block 0"), "{}", output.stdout);
    assert!(output.stdout.contains("`start_height`"), "{}", output.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_middle_is_found_out() {
    let (scene, running) = following("outages_hole", 30).await;
    rules(&scene, RuleChange { no_hash: Some(vec![35]), ..RuleChange::default() }).await;
    scene.mine(10).await;
    is_said(&scene, &["waiting: ", "has no hash for block 35", "`source.urls`"], SOON).await;
    assert_eq!(scene.height().await, 35, "what stands below it is committed");
    drop(running);
    let output = scene.run(&["check"]).await;
    assert!(output.code == 1 && output.stdout.contains("has no hash for block 35"), "{}", output.stdout);
    let _running = scene.start(&["run"]);
    is_said(&scene, &["waiting: "], SOON).await;
    rules(&scene, RuleChange { no_hash: Some(Vec::new()), ..RuleChange::default() }).await;
    scene.caught_up().await;
    scene.follows().await;
    is_said(&scene, &["running"], Duration::from_secs(5)).await;
}

/// With `confirmations` the checkpoint lies below the fork, so that nothing is missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_wedged_source_is_found_out_when_nothing_is_left_to_do() {
    let mut scene = Scene::new("outages_wedged", COUNTER, Options { max_reorg_depth: 10, ..quick(40) }).await;
    scene.toml.push_str("confirmations = 25\n");
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    until("it has caught up", async || scene.height().await == 16).await;
    scene.reorganise(20, 21).await;
    let wedged = scene.source.until(|status| status.index.phase == Phase::Wedged);
    tokio::time::timeout(SOON, wedged).await.unwrap();
    is_said(&scene, &["waiting: ", "probably wedged"], SOON).await;
    scene.source.control(Command::Restart {}).await.unwrap();
    is_said(&scene, &["running"], Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_never_answers_is_said_to_be_silent() {
    let (scene, running) = following("outages_silent", 10).await;
    misbehave(&scene, Fault::Stall, None, None).await;
    is_said(&scene, &["waiting: ", "has not answered for "], SOON).await;
    clear(&scene).await;
    is_said(&scene, &["running"], Duration::from_secs(5)).await;
    // A view alone, while a block is evaluated.
    misbehave(&scene, Fault::Stall, Some("metashrew_view"), None).await;
    scene.mine(1).await;
    is_said(&scene, &["waiting: ", "has not answered for "], SOON).await;
    clear(&scene).await;
    scene.caught_up().await;
    is_said(&scene, &["running"], Duration::from_secs(5)).await;
    drop(running);
    misbehave(&scene, Fault::Stall, None, None).await;
    for (arguments, code) in [(["check"], 1), (["run"], 4)] {
        let since = Instant::now();
        let run = tokio::time::timeout(2 * SOON, scene.run(&arguments)).await;
        let output = run.unwrap_or_else(|_| panic!("{arguments:?} has not ended after {:?}", 2 * SOON));
        assert_eq!(output.code, code, "{}{}", output.stdout, output.stderr);
        assert!(since.elapsed() < SOON + Duration::from_secs(5), "{:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_it_waits_and_is_not_called_stopped() {
    let (scene, _running) = following("outages_disk", 10).await;
    let full = "create function counter.full_disk() returns trigger language plpgsql set search_path = '' as \
                'begin raise exception using errcode = ''disk_full'', message = ''No space left on device''; end'; \
                create trigger full_disk before insert on counter.seen for each row execute function counter.full_disk()";
    scene.client.batch_execute(full).await.unwrap();
    scene.mine(1).await;
    is_said(&scene, &["No space left on device"], SOON).await;
    let since = Instant::now();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    while since.elapsed() < Duration::from_secs(8) {
        *seen.entry(scene.state().await).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // From one session to the next there is a moment without any.
    let times = |state: &str| seen.get(state).copied().unwrap_or_default();
    assert!(times("waiting") > 20 * times("stopped"), "{seen:?}");
    let pauses: serde_json::Value =
        serde_json::from_str(&scene.run(&["status", "--json"]).await.stdout).unwrap();
    assert_eq!(pauses["pipelines"][0]["standbys"], serde_json::json!([]), "{pauses}");
    scene.client.batch_execute("drop trigger full_disk on counter.seen").await.unwrap();
    scene.caught_up().await;
    until("it is running", async || scene.state().await == "running").await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_comes_back_is_noticed_soon_and_said_once() {
    let (mut scene, _running) = following("outages_back", 10).await;
    let listen = scene.source.url().trim_start_matches("http://").parse().unwrap();
    let told = |scene: &Scene| {
        let log = std::fs::read_to_string(scene.log()).unwrap();
        let told = log.lines().filter(|line| line.contains(" WARN ") || line.contains("going on"));
        told.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = told(&scene).len();
    // Whoever listened there goes.
    scene.source = Simulator::start(quick(10)).await.unwrap();
    is_said(&scene, &["waiting: ", "refused"], SOON).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    is_said(&scene, &["waiting: ", "refused"], Duration::ZERO).await;
    scene.source = Simulator::start(Options { listen, ..quick(10) }).await.unwrap();
    let since = Instant::now();
    until("it is running", async || scene.state().await == "running").await;
    let took = since.elapsed();
    let said = told(&scene).split_off(before);
    assert!(took < Duration::from_secs(5), "noticed after {took:?}; {} lines: {said:#?}", said.len());
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].contains("waiting: ") && said[1].contains("going on waited_ms="), "{said:#?}");
}
