//! However many blocks are evaluated at once, the outcome is that of one after the other: rows, state and
//! journals are the same, byte for byte.
//!
//! Over 400 blocks, or as many as `DEBSHREW_TEST_AHEAD_BLOCKS` says.

use debshrew::simulate::{Command, Fault, Misbehaviour};
use proptest::prelude::{Strategy, any};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::support::{DEADLINE, Scene, quick};

/// A transform whose every block depends on the state in another way: from the block's hash it takes which of a
/// few keys to read, which to write, and which to delete; what it writes is made of what it read.
fn stateful(salt: u8) -> String {
    format!(
        r#"(module
      (import "env" "__height" (func $height (result i32)))
      (import "env" "__block_hash" (func $block_hash (result i32)))
      (import "env" "__view" (func $view (param i32 i32) (result i32)))
      (import "env" "__load" (func $load (param i32)))
      (import "env" "__get_state" (func $get_state (param i32) (result i32)))
      (import "env" "__set_state" (func $set_state (param i32 i32) (result i32)))
      (import "env" "__delete_state" (func $delete_state (param i32) (result i32)))
      (import "env" "__push_cdc_message" (func $push (param i32) (result i32)))
      (memory (export "memory") 2)
      (data (i32.const 100) "\0c\00\00\00blocktracker")
      (data (i32.const 120) "\00\00\00\00")
      (data (i32.const 200) "{{\22payload\22:{{\22operation\22:\22create\22,\22table\22:\22seen\22,\22after\22:{{\22height\22:")
      (data (i32.const 300) ",\22count\22:")
      (data (i32.const 320) ",\22hash\22:\22\22,\22tracker\22:\22\22}}}}}}")
      (global $end (mut i32) (i32.const 0))
      ;; A key of one byte, one of four.
      (func $key (param $at i32) (param $which i32)
        (i32.store (local.get $at) (i32.const 1))
        (i32.store8 (i32.add (local.get $at) (i32.const 4)) (i32.and (local.get $which) (i32.const 3))))
      (func $append (param $from i32) (param $length i32)
        (memory.copy (global.get $end) (local.get $from) (local.get $length))
        (global.set $end (i32.add (global.get $end) (local.get $length))))
      (func $number (param $value i32)
        (if (i32.ge_u (local.get $value) (i32.const 10))
          (then (call $number (i32.div_u (local.get $value) (i32.const 10)))))
        (i32.store8 (global.get $end) (i32.add (i32.const 48) (i32.rem_u (local.get $value) (i32.const 10))))
        (global.set $end (i32.add (global.get $end) (i32.const 1))))
      (func $row (param $height i32) (param $count i32)
        (global.set $end (i32.const 5004))
        (call $append (i32.const 200) (i32.const 66))
        (call $number (local.get $height))
        (call $append (i32.const 300) (i32.const 9))
        (call $number (local.get $count))
        (call $append (i32.const 320) (i32.const 26))
        (i32.store (i32.const 5000) (i32.sub (global.get $end) (i32.const 5004)))
        (drop (call $push (i32.const 5000))))
      (func (export "process_block") (result i32)
        (local $sum i32) (local $dice i32)
        (drop (call $block_hash))
        (call $load (i32.const 1000))
        (local.set $dice (i32.add (i32.load (i32.const 1028)) (i32.const {salt})))
        (if (i32.lt_s (call $view (i32.const 100) (i32.const 120)) (i32.const 1)) (then (return (i32.const -1))))
        ;; Of some blocks, the state is not read at all.
        (if (i32.and (local.get $dice) (i32.const 3)) (then
          (call $key (i32.const 2000) (i32.shr_u (local.get $dice) (i32.const 2)))
          (if (i32.gt_s (call $get_state (i32.const 2000)) (i32.const 0)) (then
            (call $load (i32.const 2100))
            (local.set $sum (i32.load (i32.const 2100)))))
          ;; What is asked for next depends on what was read.
          (call $key (i32.const 2000) (i32.add (local.get $sum) (i32.shr_u (local.get $dice) (i32.const 4))))
          (if (i32.gt_s (call $get_state (i32.const 2000)) (i32.const 0)) (then
            (call $load (i32.const 2100))
            (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 2100))))))))
        (local.set $sum (i32.and (i32.add (i32.add (local.get $sum) (local.get $dice)) (call $height)) (i32.const 65535)))
        (call $key (i32.const 2200) (i32.shr_u (local.get $dice) (i32.const 6)))
        (if (i32.and (local.get $dice) (i32.const 256))
          (then (local.set $sum (i32.add (local.get $sum) (call $delete_state (i32.const 2200)))))
          (else
            (i32.store (i32.const 2300) (i32.const 4))
            (i32.store (i32.const 2304) (local.get $sum))
            (drop (call $set_state (i32.const 2200) (i32.const 2300)))))
        (call $row (call $height) (local.get $sum))
        (i32.const 0)))"#
    )
}

fn blocks() -> u32 {
    let given = std::env::var("DEBSHREW_TEST_AHEAD_BLOCKS").ok();
    given.map_or(400, |text| text.parse().expect("DEBSHREW_TEST_AHEAD_BLOCKS is a number of blocks"))
}

const PIPELINES: [(&str, &str); 3] = [("one", "1"), ("few", "8"), ("many", "64")];

async fn all_equal(scene: &Scene) {
    let mut first = None;
    for (name, _) in PIPELINES {
        let rows = scene.digests(name).await;
        // Images of the first blocks are there for tables and state alike.
        let journals = scene.digests(&format!("debshrew_{name}")).await;
        assert_eq!(journals.len(), 3, "{journals:?}");
        let found = (rows, journals);
        assert_eq!(*first.get_or_insert_with(|| found.clone()), found, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_few_and_many_at_once_have_the_same_outcome() {
    let salt = any::<u8>().new_tree(&mut TestRunner::default()).unwrap().current();
    println!("salt {salt}");
    let mut scene = Scene::new("ahead", &stateful(salt), quick(blocks())).await;
    let pipelines = scene.toml.find("[pipelines.").unwrap();
    scene.toml.truncate(pipelines);
    for (name, ahead) in PIPELINES {
        scene.add_pipeline(name, &stateful(salt), &format!("retention = 5000\nevaluate_ahead = {ahead}"));
    }
    scene.succeed(&["run", "--migrate", "--once"]).await;
    all_equal(&scene).await;
    let depths =
        proptest::collection::vec(1u32..60, 3).new_tree(&mut TestRunner::default()).unwrap().current();
    println!("depths {depths:?}");
    for depth in depths {
        scene.reorganise(depth, depth + 1).await;
        scene.settled().await;
        scene.succeed(&["run", "--once"]).await;
        all_equal(&scene).await;
    }
    let reorgs = "select count(*) from debshrew.reorgs";
    assert_eq!(scene.client.query_one(reorgs, &[]).await.unwrap().get::<_, i64>(0), 9);
}

/// Asks for the views `getblock` and `blocktracker` of each block, and writes a row.
const VIEWS: &str = include_str!("../benches/views.wat");

/// A pipeline with a transform made of [`VIEWS`] that has followed a source of five blocks, and goes on.
async fn of_views(name: &str, wat: &str) -> (Scene, tokio::process::Child) {
    let mut scene = Scene::new(name, wat, quick(5)).await;
    scene.toml.push_str("patience = \"1ms\"\n");
    scene.succeed(&["migrate"]).await;
    // The transform leaves these out.
    let sql = "alter table counter.seen alter hash drop not null, alter tracker drop not null";
    scene.client.batch_execute(sql).await.unwrap();
    let running = scene.start(&["run"]);
    scene.caught_up().await;
    (scene, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_block_asks_is_asked_at_once() {
    let (scene, _running) = of_views("ahead_together", VIEWS).await;
    let stall =
        Misbehaviour { fault: Fault::Stall, calls: None, method: Some("metashrew_view".into()), view: None };
    scene.source.control(Command::Misbehave(stall)).await.unwrap();
    scene.mine(1).await;
    let both = scene.source.until(|status| status.waiting == 2);
    tokio::time::timeout(DEADLINE, both).await.expect("neither view waits for the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usual_view_that_is_not_asked_for_holds_nothing_up() {
    const SECOND: &str = "(if (call $ask (i32.const 100)) (then (return (i32.const -1))))";
    // Instead, later blocks read the state.
    let until_5 =
        format!("(if (i32.le_u (call $height) (i32.const 5)) (then {SECOND}) (else (drop (call $count))))");
    let wat = VIEWS.replace(SECOND, &until_5);
    assert_ne!(wat, VIEWS);
    let (scene, _running) = of_views("ahead_unwanted", &wat).await;
    let view = Some("blocktracker".to_owned());
    let stall = Misbehaviour { fault: Fault::Stall, calls: None, method: None, view };
    scene.source.control(Command::Misbehave(stall)).await.unwrap();
    // The evaluation stands at the state, behind the first view, until the second one is seen to wait.
    let lock = "begin; lock table debshrew_counter.debshrew_state in access exclusive mode";
    scene.client.batch_execute(lock).await.unwrap();
    scene.mine(1).await;
    // It is begun, since the blocks before asked for it.
    let begun = tokio::time::timeout(DEADLINE, scene.source.until(|status| status.waiting == 1)).await;
    begun.expect("the view is asked for beside the other");
    scene.client.batch_execute("commit").await.unwrap();
    scene.caught_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_fails_before_it_is_asked_for_is_asked_again() {
    let (scene, mut running) = of_views("ahead_failed", VIEWS).await;
    let fault = Fault::Error { message: "too many at once".to_owned() };
    let once = Misbehaviour { fault, calls: Some(1), method: None, view: Some("blocktracker".to_owned()) };
    scene.source.control(Command::Misbehave(once)).await.unwrap();
    // Below the tip, where what fails is not tried once more in any case.
    scene.mine(20).await;
    scene.caught_up().await;
    assert!(running.try_wait().unwrap().is_none(), "it has halted");
    assert_eq!(scene.source.status().misbehaviours, 0, "the view has failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_evaluated_at_once_where_only_hashes_are_waited_for() {
    const IDLE: &str =
        r#"(module (memory (export "memory") 1) (func (export "process_block") (result i32) i32.const 0))"#;
    let mut scene = Scene::new("ahead_hashes", IDLE, quick(500)).await;
    let pipelines = scene.toml.find("[pipelines.").unwrap();
    scene.toml.truncate(pipelines);
    scene.add_pipeline("counter", IDLE, "evaluate_ahead = 32");
    scene.succeed(&["migrate"]).await;
    let hashes = |fault| {
        let method = Some("metashrew_getblockhash".to_owned());
        Command::Misbehave(Misbehaviour { fault, calls: None, method, view: None })
    };
    scene.source.control(hashes(Fault::Slow { ms: 50 })).await.unwrap();
    let _running = scene.start(&["run"]);
    // So many blocks tell how slow the source is.
    let asked = scene.source.until(|status| status.calls("metashrew_getblockhash") > 100);
    tokio::time::timeout(DEADLINE, asked).await.expect("blocks are evaluated");
    scene.source.control(Command::Clear {}).await.unwrap();
    scene.source.control(hashes(Fault::Stall)).await.unwrap();
    let many = scene.source.until(|status| status.waiting >= 16);
    tokio::time::timeout(DEADLINE, many).await.expect("many blocks wait for their hashes");
}
