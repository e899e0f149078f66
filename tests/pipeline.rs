//! The whole way from a source to rows: catching up, reorganisations, restarts, halting, standing by.

use crate::support::{COUNTER, Output, Scene, debshrew, quick, until};

#[tokio::test(flavor = "multi_thread")]
async fn it_catches_up_follows_a_reorganisation_and_goes_on() {
    let scene = Scene::new("pipeline_follow", COUNTER, quick(199)).await;
    let Output { code, stderr, .. } = scene.run(&["run", "--once"]).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("migrations are pending"), "{stderr}");
    let migrated = scene.succeed(&["migrate"]).await;
    assert!(migrated.stdout.contains("counter: made the journal of `seen`"), "{}", migrated.stdout);
    scene.succeed(&["run", "--until", "150"]).await;
    assert_eq!(scene.whole().await.len(), 151);
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;

    scene.reorganise(10, 15).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    let reorg = scene.client.query_one("select depth, fork_height from debshrew.reorgs", &[]).await.unwrap();
    assert_eq!((reorg.get::<_, i32>(0), reorg.get::<_, i32>(1)), (10, 189));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_undone_when_the_branches_have_no_block_in_common() {
    let mut scene = Scene::new("pipeline_undone", COUNTER, quick(50)).await;
    scene.toml = scene.toml.replace("start_height = 0", "start_height = 1");
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let rows = "select count(*), min(height) from counter.seen";
    let row = scene.client.query_one(rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (50, 1));
    scene.reorganise(50, 51).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    let row = scene.client.query_one("select depth, fork_height from debshrew.reorgs", &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, Option<i32>>(1)), (50, None));
    let hashes = "select hash from counter.seen order by height";
    let hashes: Vec<String> =
        scene.client.query(hashes, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let chain: Vec<String> = scene.source.chain()[1..].iter().map(ToString::to_string).collect();
    assert_eq!(hashes, chain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_deeper_than_the_journal_halts_and_undoes_nothing() {
    let mut scene = Scene::new("pipeline_too_deep", COUNTER, quick(100)).await;
    scene.toml.push_str("retention = 10\n");
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let before = scene.whole().await;
    scene.reorganise(20, 21).await;
    scene.settled().await;
    let Output { code, stderr, .. } = scene.run(&["run", "--once"]).await;
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("reaches back to height 90, and"), "{stderr}");
    assert_eq!(scene.whole().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_rolled_back_by_hand_and_says_how_it_fares() {
    let scene = Scene::new("pipeline_by_hand", COUNTER, quick(199)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let Output { code, stderr, .. } = scene.run(&["rollback", "--to", "100"]).await;
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--yes"), "{stderr}");
    let Output { stdout, .. } = scene.succeed(&["rollback", "--to", "100", "--yes"]).await;
    assert!(stdout.contains("rolled back 99 blocks"), "{stdout}");
    assert_eq!(scene.whole().await.len(), 101);
    let Output { stdout, .. } = scene.succeed(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(status["pipelines"][0]["height"], 100);
    assert_eq!(status["pipelines"][0]["state"], "stopped");
    let Output { stdout, .. } = scene.succeed(&["check"]).await;
    assert!(stdout.contains("ok    tables of `counter`: `seen`"), "{stdout}");
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_cannot_be_applied_halts_its_pipeline_alone() {
    let broken = COUNTER.replace(r"\22count\22:", r"\22coumt\22:");
    let mut scene = Scene::new("pipeline_halt", COUNTER, quick(60)).await;
    scene.add_pipeline("broken", &broken, "");
    let Output { code, stderr, .. } = scene.run(&["run", "--migrate", "--once"]).await;
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("pipeline `broken` has halted"), "{stderr}");
    scene.follows().await;
    let Output { code, stdout, stderr } = scene.run(&["status"]).await;
    // `status` does not send one to `status`.
    assert_eq!(stderr, "error: pipeline `broken` has halted\n");
    assert_eq!(code, 3);
    let reason = "table `seen` has no column `coumt`; it has `height`, `count`, `hash`, `tracker`";
    assert!(stdout.contains(reason), "{stdout}");
    let sql = "select state, height, last_error_height from debshrew.pipelines where pipeline = 'broken'";
    let row = scene.client.query_one(sql, &[]).await.unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, Option<i32>>(1), row.get::<_, i32>(2)),
        ("halted", None, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_stands_by_and_takes_over_when_the_first_is_killed() {
    let scene = Scene::new("pipeline_standby", COUNTER, quick(20)).await;
    scene.succeed(&["migrate"]).await;
    let mut first = scene.start(&["run"]);
    scene.caught_up().await;
    // Nothing is pending, so that it need not write the tables now.
    let second = scene.start(&["run", "--migrate"]);
    until("the second stands by", async || {
        std::fs::read_to_string(scene.log()).unwrap().contains("standing by")
    })
    .await;
    // One has the lock, and one is seen to wait for it.
    let locks = "select array_agg(mode order by mode) from pg_locks where locktype = 'advisory' and granted and objsubid = 2 \
                 and database = (select oid from pg_database where datname = current_database())";
    let locks = async || scene.client.query_one(locks, &[]).await.unwrap().get::<_, Vec<String>>(0);
    until("both are seen", async || locks().await == ["ExclusiveLock", "ShareLock"]).await;
    scene.mine(3).await;
    scene.caught_up().await;
    first.kill().await.unwrap();
    scene.mine(3).await;
    scene.caught_up().await;
    scene.follows().await;
    until("nobody stands by any more", async || locks().await == ["ExclusiveLock"]).await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_show_that_it_stands_by_takes_over_all_the_same() {
    let scene = Scene::new("pipeline_unseen", COUNTER, quick(20)).await;
    scene.succeed(&["migrate"]).await;
    let mut first = scene.start(&["run"]);
    scene.caught_up().await;
    let away = "alter function pg_catalog.pg_try_advisory_lock_shared(int4, int4) rename to no_such_function";
    scene.client.batch_execute(away).await.unwrap();
    let _second = scene.start(&["run", "--log", "debug"]);
    scene.logged("cannot show that it stands by", 1).await;
    first.kill().await.unwrap();
    scene.mine(3).await;
    scene.caught_up().await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_loses_its_lock_within_a_block_commits_nothing_of_it() {
    let scene = Scene::new("pipeline_lock_lost", COUNTER, quick(20)).await;
    scene.succeed(&["migrate"]).await;
    let first = scene.start(&["run"]);
    scene.caught_up().await;
    // The block's transaction waits for this lock when its rows are written and its state is not.
    let mut holder = scene.database.connect().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("lock table debshrew_counter.debshrew_state in share mode").await.unwrap();
    scene.mine(1).await;
    scene.held_up().await;
    let before = scene.whole().await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where application_name = 'debshrew/counter' and datname = current_database()";
    assert_eq!(scene.client.query_one(cut, &[]).await.unwrap().get::<_, i64>(0), 1);
    let second = scene.start(&["run"]);
    scene.held_up().await;
    assert_eq!(scene.whole().await, before);
    lock.commit().await.unwrap();
    scene.caught_up().await;
    scene.mine(2).await;
    scene.caught_up().await;
    scene.follows().await;
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_it_between_blocks_with_success() {
    let scene = Scene::new("pipeline_signals", COUNTER, quick(30)).await;
    scene.succeed(&["migrate"]).await;
    for signal in ["-INT", "-TERM"] {
        let mut running = scene.start(&["run"]);
        scene.caught_up().await;
        let pid = running.id().unwrap().to_string();
        let kill = tokio::process::Command::new("kill").args([signal, &pid]).status().await.unwrap();
        assert!(kill.success());
        assert_eq!(running.wait().await.unwrap().code(), Some(0), "{signal}");
        let state = "select state from debshrew.pipelines";
        assert_eq!(scene.client.query_one(state, &[]).await.unwrap().get::<_, &str>(0), "stopped");
        scene.mine(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_while_the_source_does_not_answer() {
    use debshrew::simulate::{Command, Fault, Misbehaviour};
    let scene = Scene::new("pipeline_signal_stalled", COUNTER, quick(30)).await;
    scene.succeed(&["migrate"]).await;
    let stall =
        Misbehaviour { fault: Fault::Stall, calls: None, method: Some("metashrew_view".into()), view: None };
    scene.source.control(Command::Misbehave(stall)).await.unwrap();
    let ends = async |mut running: tokio::process::Child| {
        scene.source.until(|status| status.waiting > 0).await;
        let pid = running.id().unwrap().to_string();
        assert!(tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        // The source's time limit is 30 s.
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), running.wait()).await;
        assert_eq!(ended.expect("it waits for the source").unwrap().code(), Some(0));
    };
    ends(scene.start(&["run"])).await;
    // Also at the start, when it looks whether the source can be reached.
    scene.source.control(Command::Clear {}).await.unwrap();
    scene.source.until(|status| status.waiting == 0).await;
    let stall = Misbehaviour { fault: Fault::Stall, calls: None, method: None, view: None };
    scene.source.control(Command::Misbehave(stall)).await.unwrap();
    ends(scene.start(&["run"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_at_the_start_is_said_at_once() {
    let scene = Scene::new("pipeline_unreachable", COUNTER, quick(1)).await;
    let nowhere = ["run", "--source-url", "http://127.0.0.1:1"];
    let command = debshrew(&nowhere).file(&scene.toml).variable("DEBSHREW__SOURCE__RETRIES", "0");
    let output = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
    assert_eq!(output.code, 4, "{}", output.stderr);
    let Output { code, stderr, .. } =
        scene.run(&["run", "--database-url", "postgres://nobody@127.0.0.1:1/x"]).await;
    assert_eq!(code, 4, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_by_says_nothing_of_the_pipeline() {
    let scene = Scene::new("pipeline_bystander", COUNTER, quick(20)).await;
    scene.succeed(&["migrate"]).await;
    let _first = scene.start(&["run"]);
    scene.caught_up().await;
    let mut second = scene.start(&["run"]);
    scene.logged("standing by", 1).await;
    let pid = second.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(second.wait().await.unwrap().code(), Some(0));
    assert_eq!(scene.state().await, "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_source_is_away_waits_and_is_not_called_stopped() {
    use debshrew::simulate::{Command, Fault, Misbehaviour};
    let mut scene = Scene::new("pipeline_waiting", COUNTER, quick(20)).await;
    scene.toml = scene.toml.replace("poll_interval", "retries = 0\npoll_interval");
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    let fault = Fault::Status { code: 500 };
    let misbehaviour = Misbehaviour { fault, calls: None, method: None, view: None };
    scene.source.control(Command::Misbehave(misbehaviour)).await.unwrap();
    let epoch = "select epoch from debshrew.checkpoint";
    let before: i64 = scene.client.query_one(epoch, &[]).await.unwrap().get(0);
    // The last of these is followed by a long pause, in which a session that was given up would end.
    let asked = scene.source.status().calls("metashrew_height");
    scene.source.until(|status| status.calls("metashrew_height") >= asked + 5).await;
    assert_eq!(scene.state().await, "waiting");
    let after: i64 = scene.client.query_one(epoch, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "it became the writer again");
    scene.source.control(Command::Clear {}).await.unwrap();
    scene.mine(1).await;
    scene.caught_up().await;
    until("it is running", async || scene.state().await == "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_below_the_first_block_is_reached_at_once() {
    let mut scene = Scene::new("pipeline_until", COUNTER, quick(20)).await;
    scene.toml = scene.toml.replace("start_height = 0", "start_height = 10");
    scene.succeed(&["migrate"]).await;
    let mut running = scene.start(&["run", "--until", "9"]);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), running.wait()).await;
    assert_eq!(ended.expect("it never ends").unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_can_be_moved_until_the_first_block_is_committed() {
    let mut scene = Scene::new("pipeline_start", COUNTER, quick(20)).await;
    scene.succeed(&["migrate"]).await;
    scene.toml = scene.toml.replace("start_height = 0", "start_height = 10");
    scene.succeed(&["run", "--once"]).await;
    scene.succeed(&["run", "--once"]).await;
    let heights = "select min(height), count(*) from counter.seen";
    let row = scene.client.query_one(heights, &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i64>(1)), (10, 11));

    scene.toml = scene.toml.replace("start_height = 10", "start_height = 18");
    let Output { code, stderr, .. } = scene.run(&["run", "--once"]).await;
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("was set up with start_height `10`"), "{stderr}");
    // What was committed is rolled back by where it began.
    scene.succeed(&["rollback", "--to", "15", "--yes"]).await;
    let row = scene.client.query_one(heights, &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i64>(1)), (10, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn why_it_halted_is_said_whatever_the_transform_wrote() {
    // PostgreSQL's texts hold no NUL, and a reason is to be read by people.
    let words = format!("a\\00b{}", "x".repeat(30_000));
    let wat = format!(
        r#"(module (import "env" "__stderr" (func $stderr (param i32))) (memory (export "memory") 1)
            (data (i32.const 0) "\33\75\00\00{words}")
            (func (export "process_block") (result i32) (call $stderr (i32.const 0)) (i32.const -1)))"#
    );
    let scene = Scene::new("pipeline_nul", &wat, quick(5)).await;
    let Output { code, stderr, .. } = scene.run(&["run", "--migrate", "--once"]).await;
    assert_eq!(code, 3, "{stderr}");
    assert_eq!(scene.state().await, "halted");
    let reason = "select last_error from debshrew.pipelines";
    let reason: String = scene.client.query_one(reason, &[]).await.unwrap().get(0);
    assert!(reason.contains("returned -1 (failed); its last words: a\\u0000bxxx"), "{reason}");
    assert!(reason.len() < 5_000, "{} bytes", reason.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_other_commands_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let scene = Scene::new("pipeline_signal_status", COUNTER, quick(1)).await;
    scene.succeed(&["migrate"]).await;
    let mut holder = scene.database.connect().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("lock table debshrew.activity").await.unwrap();
    let mut status = scene.start(&["status"]);
    let waits = "select exists (select from pg_stat_activity where application_name = 'debshrew' \
                 and datname = current_database() and wait_event_type = 'Lock')";
    until("it waits", async || scene.client.query_one(waits, &[]).await.unwrap().get(0)).await;
    let pid = status.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), status.wait()).await;
    assert_eq!(ended.expect("it goes on").unwrap().signal(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_halt_at_a_block_that_it_was_stopped_before() {
    let failing = COUNTER.replace(
        "(local $count i32) (local $length i32)\n",
        "(local $count i32) (local $length i32) (if (i32.eq (call $height) (i32.const 40)) (then unreachable))\n",
    );
    assert!(failing.contains("unreachable"));
    let scene = Scene::new("pipeline_stop_first", &failing, quick(60)).await;
    scene.succeed(&["migrate"]).await;
    let mut holder = scene.database.connect().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("lock table debshrew_counter.debshrew_state in share mode").await.unwrap();
    let mut running = scene.start(&["run"]);
    scene.held_up().await;
    let pid = running.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    scene.logged("stopping after the block at hand", 1).await;
    lock.commit().await.unwrap();
    assert_eq!(running.wait().await.unwrap().code(), Some(0));
    assert_eq!(scene.whole().await.len(), 1);
    assert_eq!(scene.state().await, "stopped");
    assert_eq!(scene.run(&["run"]).await.code, 3);
    assert_eq!(scene.whole().await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_noticed_before_the_next_block() {
    let scene = Scene::new("pipeline_lost", COUNTER, quick(20)).await;
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where application_name = 'debshrew/counter' and datname = current_database()";
    assert_eq!(scene.client.query_one(cut, &[]).await.unwrap().get::<_, i64>(0), 1);
    let again = "select epoch > 1 from debshrew.checkpoint";
    until("it is the writer again", async || scene.client.query_one(again, &[]).await.unwrap().get(0)).await;
    until("it says so", async || scene.state().await == "running").await;
}
