//! The process is killed before and after each statement of a block and of a rollback, before COMMIT, after it
//! was sent and after its reply; PostgreSQL is killed in the middle of both; replies to COMMIT are lost. Whatever
//! had been done by then, the tables end as those of an undisturbed run, and are whole at each look.
//!
//! Needs the feature `failpoints`, which `make test` sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use debshrew::cluster::{Cluster, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::support::{COUNTER, Scene, TestDb, debshrew, quick};

/// Runs with the process ending itself where `point` is reached for the `pass`th time.
async fn killed_at(scene: &Scene, point: &str, pass: u32) -> bool {
    let command = debshrew(&["run", "--once"])
        .file(&scene.toml)
        .variable("FAILPOINTS", &format!("{point}={pass}*off->return"));
    let output = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
    assert!(output.code == 0 || output.code == -1, "{}", output.stderr);
    output.code == -1
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_statement_of_a_block_it_loses_and_doubles_nothing() {
    // More blocks than all runs together can commit.
    let scene = Scene::new("crash_blocks", COUNTER, quick(400)).await;
    scene.succeed(&["migrate"]).await;
    // A block of this transform has seven: begin, checkpoint, two journals, two upserts, commit.
    for pass in 0..16 {
        for point in ["before-statement", "after-statement"] {
            assert!(killed_at(&scene, point, pass).await, "{point} {pass}");
            scene.whole().await;
        }
    }
    for pass in 0..3 {
        assert!(killed_at(&scene, "commit-sent", pass).await, "{pass}");
        scene.whole().await;
    }
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_statement_of_a_rollback_it_rolls_back_once() {
    let scene = Scene::new("crash_rollback", COUNTER, quick(20)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let mut reorgs = 0;
    // Eleven: the checkpoint, what the journals hold, keeping others out, noting the rollback, what sinks need, two that put
    // rows back, of the table and of the state, two that forget images, letting others in, and the log.
    let statements =
        (0..11).flat_map(|pass| [("before-rollback-statement", pass), ("after-rollback-statement", pass)]);
    for (point, pass) in statements.chain([("before-rollback-commit", 0), ("after-rollback-commit", 0)]) {
        reorgs += 1;
        scene.reorganise(5, 5).await;
        scene.settled().await;
        assert!(killed_at(&scene, point, pass).await, "{point} {pass}");
        scene.whole().await;
        scene.succeed(&["run", "--once"]).await;
        scene.follows().await;
        let recorded = "select count(*) from debshrew.reorgs where depth = 5";
        assert_eq!(scene.client.query_one(recorded, &[]).await.unwrap().get::<_, i64>(0), reorgs);
    }
}

/// A server that may be killed, with a database `crash` that has nothing in it.
async fn own_server() -> (Cluster, TestDb) {
    let cluster = Cluster::start(&[("full_page_writes", "off")]).unwrap();
    let (admin, connection) =
        tokio_postgres::connect(&cluster.dsn("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    admin.batch_execute("create database crash").await.unwrap();
    let database = TestDb { dsn: cluster.dsn("crash") };
    (cluster, database)
}

/// Kills PostgreSQL while a transaction of the writer waits for `table`, and starts it again.
async fn kill_server_at(scene: &mut Scene, cluster: &Cluster, table: &str, begin: impl AsyncFnOnce(&Scene)) {
    let mut holder = scene.database.connect().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute(&format!("lock table {table} in share mode")).await.unwrap();
    begin(scene).await;
    scene.held_up().await;
    cluster.stop(Stop::Immediate).unwrap();
    cluster.start_again().unwrap();
    scene.client = scene.database.connect().await;
    scene.whole().await;
    scene.caught_up().await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_killed_in_the_middle_of_blocks_and_rollbacks() {
    let (cluster, database) = own_server().await;
    let mut scene = Scene::over(database, COUNTER, quick(20)).await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    // Before any row is written, and when all but the state's are.
    for table in ["counter.seen", "debshrew_counter.debshrew_state"] {
        kill_server_at(&mut scene, &cluster, table, async |scene| {
            scene.mine(3).await;
        })
        .await;
        kill_server_at(&mut scene, &cluster, table, async |scene| {
            scene.reorganise(5, 6).await;
        })
        .await;
    }
    let reorgs = scene.client.query_one("select count(*) from debshrew.reorgs", &[]).await.unwrap();
    assert_eq!(reorgs.get::<_, i64>(0), 2);
}

/// Stands between the writer and the server; hands COMMIT to the server and then cuts the writer off, so that
/// the reply is lost, the first `times` times.
async fn losing_replies(server: &str, folder: &std::path::Path, times: u32) -> Arc<AtomicU32> {
    let lost = Arc::new(AtomicU32::new(0));
    let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
    let (counted, server) = (Arc::clone(&lost), format!("{server}/.s.PGSQL.5432"));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (counted, server) = (Arc::clone(&counted), UnixStream::connect(&server).await.unwrap());
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let replies =
                    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    let commits = buffer[..length].windows(7).any(|bytes| bytes == b"commit\0");
                    if commits && counted.fetch_add(1, Ordering::SeqCst) < times {
                        // From here on no reply gets through.
                        replies.abort();
                        let _ = replies.await;
                        let _ = to_server.write_all(&buffer[..length]).await;
                        let _ = to_server.shutdown().await;
                        return;
                    }
                    if to_server.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_to_commit_is_found_out() {
    let (cluster, database) = own_server().await;
    let mut scene = Scene::over(database, COUNTER, quick(12)).await;
    scene.succeed(&["migrate"]).await;
    let folder = tempfile::tempdir().unwrap();
    let server = cluster.folder().to_str().unwrap().to_owned();
    let lost = losing_replies(&server, folder.path(), 4).await;
    scene.toml = scene.toml.replace(&server, folder.path().to_str().unwrap());
    scene.succeed(&["run", "--once"]).await;
    // Several may come in one piece, so not every COMMIT is counted.
    assert!(lost.load(Ordering::SeqCst) > 4, "{lost:?}");
    scene.follows().await;
}
