//! What fails beside the stream does not stop it: pruning, reports, the log.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::support::{COUNTER, Scene, quick, until};

async fn rows(scene: &Scene) -> i64 {
    scene.client.query_one("select count(*) from counter.seen", &[]).await.unwrap().get(0)
}

async fn goes_on(scene: &Scene, blocks: u32) {
    scene.mine(blocks).await;
    let goal = scene.source.chain().len() as i64;
    until("blocks are committed", async || rows(scene).await == goal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_that_fails_is_said_and_tried_again() {
    let mut scene = Scene::new("steady_prune", COUNTER, quick(10)).await;
    scene.toml.push_str("retention = 10\n");
    scene.succeed(&["migrate"]).await;
    let refuse = "create function debshrew_counter.refuse() returns trigger language plpgsql as \
                    'begin raise exception ''no pruning''; end'; \
                  create trigger refuse before delete on debshrew_counter.seen \
                    for each statement execute function debshrew_counter.refuse()";
    scene.client.batch_execute(refuse).await.unwrap();
    let mut running = scene.start(&["run"]);
    for _ in 0..12 {
        goes_on(&scene, 10).await;
    }
    scene.logged("cannot prune the journals", 1).await;
    assert!(running.try_wait().unwrap().is_none());
    assert_eq!(scene.state().await, "running");
    scene.client.batch_execute("drop trigger refuse on debshrew_counter.seen").await.unwrap();
    let left = "select count(*) from debshrew_counter.seen where undo_height < 60";
    until("it is pruned", async || {
        goes_on(&scene, 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        scene.client.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_written_holds_nothing_up() {
    let scene = Scene::new("steady_report", COUNTER, quick(10)).await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    let other = scene.database.connect().await;
    other.batch_execute("begin; lock table debshrew.activity in share row exclusive mode").await.unwrap();
    for _ in 0..3 {
        goes_on(&scene, 2).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    scene.logged("cannot record what the pipeline does", 1).await;
    other.batch_execute("rollback").await.unwrap();
    scene.mine(1).await;
    scene.caught_up().await;
    let tip = scene.source.chain().len() as i32 - 1;
    let sql = "select source_height from debshrew.pipelines";
    until("it is said again", async || {
        scene.client.query_one(sql, &[]).await.unwrap().get::<_, Option<i32>>(0) == Some(tip)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_error_that_nobody_reads_or_that_is_closed_stops_nothing() {
    let scene = Scene::new("steady_stderr", COUNTER, quick(2000)).await;
    scene.succeed(&["migrate"]).await;
    // Writes the configuration.
    drop(scene.start(&["--version"]));
    let spawn = |stderr: Stdio| {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_debshrew"))
            .args(["run", "--log", "debug"])
            .current_dir(scene.log().parent().unwrap())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    };
    let mut full = spawn(Stdio::piped());
    scene.caught_up().await;
    goes_on(&scene, 3000).await;
    let mut log = String::new();
    let mut pipe = full.stderr.take().unwrap();
    let mut part = vec![0; 1 << 16];
    until("it is said that lines were dropped", async || {
        let length = pipe.read(&mut part).await.unwrap();
        log.push_str(&String::from_utf8_lossy(&part[..length]));
        log.contains(" dropped=")
    })
    .await;
    drop(full);
    let mut closed = spawn(Stdio::piped());
    drop(closed.stderr.take());
    goes_on(&scene, 5).await;
    assert!(closed.try_wait().unwrap().is_none());
    scene.follows().await;
}
