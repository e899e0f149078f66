//! Whoever holds a lock and is gone, or stands still, is replaced within 15 s; at once if it ends in order.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use debshrew::simulate::Options;
use tokio::process::Child;

use crate::support::{COUNTER, Proxy, Rig, Scene, own_server, put, quick, until};

const SOON: Duration = Duration::from_secs(15);

fn signal(child: &Child, signal: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

async fn rows(scene: &Scene) -> i64 {
    scene.client.query_one("select count(*) from counter.seen", &[]).await.unwrap().get(0)
}

/// Blocks are mined until one is committed; how long that takes.
async fn taken_over(scene: &Scene) -> Duration {
    let since = Instant::now();
    scene.mine(2).await;
    let goal = scene.source.chain().len() as i64;
    until("the other process goes on", async || rows(scene).await == goal).await;
    since.elapsed()
}

/// Two processes of a pipeline with a sink, of which the first is the writer and publishes.
async fn two(scene: &mut Scene, first_dsn: Option<&str>) -> [Child; 2] {
    begin(scene).await;
    let mut arguments = vec!["run"];
    arguments.extend(first_dsn.iter().flat_map(|dsn| ["--database-url", dsn]));
    let first = scene.start(&arguments);
    scene.caught_up().await;
    published(scene).await;
    let second = scene.start(&["run"]);
    scene.logged("standing by", 1).await;
    [first, second]
}

async fn begin(scene: &mut Scene) {
    scene.toml.push_str("[pipelines.counter.sinks.events]\nkind = \"console\"\nfrom = 0\n");
    scene.succeed(&["migrate"]).await;
}

/// Waits until the sink has everything.
async fn published(scene: &Scene) {
    let sql = "select height from debshrew.sink_cursor";
    until("all is published", async || {
        let tip = scene.source.chain().len() as i32 - 1;
        let row = scene.client.query_opt(sql, &[]).await.unwrap();
        row.and_then(|row| row.get::<_, Option<i32>>(0)) == Some(tip)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_writer_is_replaced_and_fenced_when_it_comes_back() {
    let mut scene = Scene::new("steady_stopped", COUNTER, quick(20)).await;
    let [mut first, _second] = two(&mut scene, None).await;
    signal(&first, "-STOP");
    let since = Instant::now();
    let took = taken_over(&scene).await;
    published(&scene).await;
    println!("SIGSTOP: rows after {took:?}, the sink after {:?}", since.elapsed());
    assert!(took < SOON && since.elapsed() < SOON + Duration::from_secs(5), "{took:?} {:?}", since.elapsed());
    signal(&first, "-CONT");
    scene.logged("standing by", 2).await;
    scene.mine(3).await;
    scene.caught_up().await;
    scene.follows().await;
    published(&scene).await;
    assert!(first.try_wait().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_packets_are_swallowed_is_replaced() {
    let (_cluster, test) = own_server(&[]).await;
    let proxy = Proxy::start(&test).await;
    let mut scene = Scene::over(test, COUNTER, quick(20)).await;
    let dsn = proxy.database.dsn.clone();
    let [mut first, _second] = two(&mut scene, Some(&dsn)).await;
    proxy.swallow(true);
    let since = Instant::now();
    let took = taken_over(&scene).await;
    published(&scene).await;
    println!("a middlebox that swallows: rows after {took:?}, the sink after {:?}", since.elapsed());
    assert!(took < SOON && since.elapsed() < SOON + Duration::from_secs(5), "{took:?} {:?}", since.elapsed());
    // It finds out by itself.
    scene.logged("has not answered for", 1).await;
    println!("it gave its connection up after {:?}", since.elapsed());
    proxy.swallow(false);
    scene.logged("standing by", 2).await;
    scene.mine(3).await;
    scene.caught_up().await;
    scene.follows().await;
    assert!(first.try_wait().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_is_replaced_at_once() {
    let mut scene = Scene::new("steady_ended", COUNTER, quick(20)).await;
    let [first, second] = two(&mut scene, None).await;
    signal(&first, "-KILL");
    let killed = taken_over(&scene).await;
    let _third = scene.start(&["run"]);
    scene.logged("standing by", 2).await;
    signal(&second, "-TERM");
    let ended = taken_over(&scene).await;
    println!("kill -9: {killed:?}; SIGTERM: {ended:?}");
    // Sooner than any silence is noticed, on a machine that is busy as well.
    let at_once = Duration::from_secs(9);
    assert!(killed < at_once && ended < at_once, "{killed:?} {ended:?}");
    scene.follows().await;
    published(&scene).await;
}

/// Of a writer that has nothing to do, or that waits for an answer of the user's.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_idle_is_not_ended() {
    let scene = Scene::new("steady_idle", COUNTER, quick(20)).await;
    let mut rig = Rig::up(&scene.database, "idle", "create table t (id integer primary key)").await;
    rig.commit(0, vec![put("t", r#"{"id": 0}"#)]).await;
    let mut silence = debshrew::register::Silence::default();
    let pipeline = rig.writer().await.pipeline().id;
    let since = Instant::now();
    while since.elapsed() < SOON {
        silence.end_writer(&scene.client, pipeline).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    rig.commit(1, vec![put("t", r#"{"id": 1}"#)]).await;
}

/// In a network namespace of `scripts/take-over.sh`, whose link is cut.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a network namespace: scripts/take-over.sh"]
async fn a_host_that_vanishes_from_the_network_is_replaced() {
    let [namespace, host] = ["DEBSHREW_TEST_NAMESPACE", "DEBSHREW_TEST_NAMESPACE_HOST"]
        .map(|name| std::env::var(name).expect("scripts/take-over.sh sets it"));
    let rules = tempfile::Builder::new().prefix("pg_hba").tempfile().unwrap();
    std::fs::write(rules.path(), "local all all scram-sha-256\nhost all all 10.231.0.0/16 scram-sha-256\n")
        .unwrap();
    std::fs::set_permissions(rules.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let settings = [("listen_addresses", host.clone()), ("hba_file", rules.path().display().to_string())];
    let settings = settings.map(|(name, value)| (name, &*value.leak())).to_vec().leak();
    let (_cluster, test) = own_server(settings).await;
    let (before, after) = test.dsn.split_once("host=").unwrap();
    let (_, after) = after.split_once('&').unwrap();
    let far = format!("{before}host={host}&{after}");
    let listen = format!("{host}:0").parse().unwrap();
    let mut scene = Scene::over(test, COUNTER, Options { listen, ..quick(20) }).await;
    begin(&mut scene).await;
    // Writes the configuration.
    drop(scene.start(&["--version"]));
    let log = std::fs::OpenOptions::new().append(true).open(scene.log()).unwrap();
    let _first = tokio::process::Command::new("ip")
        .args(["netns", "exec", &namespace, env!("CARGO_BIN_EXE_debshrew"), "run", "--database-url", &far])
        .current_dir(scene.log().parent().unwrap())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    scene.caught_up().await;
    published(&scene).await;
    let _second = scene.start(&["run"]);
    scene.logged("standing by", 1).await;
    let link = |state: &str| Command::new("ip").args(["link", "set", &namespace, state]).status().unwrap();
    assert!(link("down").success());
    let since = Instant::now();
    let took = taken_over(&scene).await;
    published(&scene).await;
    println!("host vanished: rows after {took:?}, the sink after {:?}", since.elapsed());
    assert!(took < SOON, "{took:?}");
    let sql = "select count(*) from pg_stat_activity where host(client_addr) like '10.231.%'";
    until("its sessions are gone", async || {
        scene.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    println!("its last session ended after {:?}", since.elapsed());
    assert!(link("up").success());
    scene.logged("standing by", 2).await;
    println!("it stands by after {:?}", since.elapsed());
    scene.mine(3).await;
    scene.caught_up().await;
    scene.follows().await;
}
