//! Whoever holds a lock and is gone, or stands still, is replaced within 15 s; at once if it ends in order.

use std::process::Command;
use std::time::{Duration, Instant};

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
async fn two(scene: &mut Scene, folder: &std::path::Path, first_dsn: Option<&str>) -> [Child; 2] {
    scene.toml.push_str(&format!(
        "[pipelines.counter.sinks.events]\nkind = \"file\"\nfrom = 0\npath = \"{}\"\n",
        folder.display()
    ));
    scene.succeed(&["migrate"]).await;
    let mut arguments = vec!["run"];
    arguments.extend(first_dsn.iter().flat_map(|dsn| ["--database-url", dsn]));
    let first = scene.start(&arguments);
    scene.caught_up().await;
    published(scene).await;
    let second = scene.start(&["run"]);
    scene.logged("standing by", 1).await;
    [first, second]
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
    let folder = tempfile::tempdir().unwrap();
    let [mut first, _second] = two(&mut scene, folder.path(), None).await;
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
    let folder = tempfile::tempdir().unwrap();
    let dsn = proxy.database.dsn.clone();
    let [mut first, _second] = two(&mut scene, folder.path(), Some(&dsn)).await;
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
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = two(&mut scene, folder.path(), None).await;
    signal(&first, "-KILL");
    let killed = taken_over(&scene).await;
    let _third = scene.start(&["run"]);
    scene.logged("standing by", 2).await;
    signal(&second, "-TERM");
    let ended = taken_over(&scene).await;
    println!("kill -9: {killed:?}; SIGTERM: {ended:?}");
    assert!(killed < Duration::from_secs(4) && ended < Duration::from_secs(4), "{killed:?} {ended:?}");
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
