//! Transforms that do everything wrong, all in one process with one that does not: each halts by itself at its
//! first block with the reason, nothing of it is applied, and the good one goes on.

use crate::support::{COUNTER, Output, Scene, quick, until};

/// A module whose `process_block` has this body; `data` stands at 1024, behind its length of 4 bytes.
fn module(body: &str, data: &str) -> String {
    let length = u32::try_from(data.len()).unwrap().to_le_bytes();
    let escaped: String = length.iter().chain(data.as_bytes()).map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
          (import "env" "__view" (func $view (param i32 i32) (result i32)))
          (import "env" "__load" (func $load (param i32)))
          (import "env" "__stderr" (func $stderr (param i32)))
          (import "env" "__push_cdc_message" (func $push (param i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 1024) "{escaped}")
          (func (export "process_block") (result i32) {body}))"#
    )
}

/// A module that returns this text as its changes.
fn returns(json: &str) -> String {
    module("(i32.const 1024)", json)
}

fn row(after: &str) -> String {
    returns(&format!(r#"[{{"payload":{{"operation":"create","table":"seen","after":{after}}}}}]"#))
}

/// Name, module, keys of its section, and what is to be said of it.
fn hostile() -> Vec<(&'static str, String, &'static str, &'static str)> {
    vec![
        (
            "endless",
            module("(loop $again (br $again)) (i32.const 0)", ""),
            "limits.fuel = 1000000",
            "`limits.fuel`",
        ),
        (
            "memory_bomb",
            module(
                "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable",
                "",
            ),
            "limits.memory_bytes = \"8MiB\"",
            "`limits.memory_bytes`",
        ),
        (
            "huge_output",
            module(
                "(loop $again (drop (call $push (i32.const 1024))) (br $again)) (i32.const 0)",
                r#"{"payload":{"operation":"delete","table":"seen","key":1}}"#,
            ),
            "limits.output_bytes = \"1MiB\"",
            "`limits.output_bytes`",
        ),
        ("bad_json", returns("[{\"payload\":"), "", "no JSON array of messages"),
        (
            "bad_utf8",
            module("(i32.store8 (i32.const 1029) (i32.const 255)) (i32.const 1024)", "[  ]"),
            "",
            "not UTF-8",
        ),
        ("wild_pointer", module("(i32.const -65536)", ""), "", "which is no buffer"),
        (
            "wild_view",
            module("(call $view (i32.const 65534) (i32.const 0))", ""),
            "",
            "`__view` was called wrongly",
        ),
        ("wild_load", module("(call $load (i32.const -1)) (i32.const 0)", ""), "", "`__load`"),
        (
            "minus_one",
            module("(call $stderr (i32.const 1024)) (i32.const -1)", "no such coin"),
            "",
            "no such coin",
        ),
        ("traps", module("unreachable", ""), "", "it trapped"),
        (
            "unknown_table",
            returns(r#"[{"payload":{"operation":"create","table":"sean","after":{}}}]"#),
            "",
            "no table `sean` in this pipeline; it has `seen`",
        ),
        ("unknown_column", row(r#"{"hight":1}"#), "", "no column `hight`"),
        ("wrong_type", row(r#"{"height":1,"count":"many","hash":"","tracker":""}"#), "", "column `count`"),
        ("nul", row(r#"{"height":1,"count":1,"hash":"a\u0000b","tracker":""}"#), "", "NUL"),
        ("too_large", row(r#"{"height":1,"count":2147483648,"hash":"","tracker":""}"#), "", "column `count`"),
        ("null_key", row(r#"{"height":null,"count":1,"hash":"","tracker":""}"#), "", "key column `height`"),
        ("missing", row(r#"{"height":1,"count":1,"hash":""}"#), "", "`tracker`"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_halts_by_itself_with_the_reason_and_the_good_one_goes_on() {
    let mut scene = Scene::new("hostile_transforms", COUNTER, quick(30)).await;
    for (name, wat, keys, _) in hostile() {
        scene.add_pipeline(name, &wat, keys);
    }
    scene.succeed(&["migrate"]).await;
    let mut running = scene.start(&["run"]);
    let halted = "select count(*) from debshrew.pipelines where state = 'halted'";
    until("all of them have halted", async || {
        let count: i64 = scene.client.query_one(halted, &[]).await.unwrap().get(0);
        count as usize == hostile().len()
    })
    .await;
    for (name, _, _, expected) in hostile() {
        let sql = "select coalesce(last_error, ''), last_error_height, height from debshrew.pipelines where pipeline = $1";
        let row = scene.client.query_one(sql, &[&name]).await.unwrap();
        let (error, at, height): (String, Option<i32>, Option<i32>) = (row.get(0), row.get(1), row.get(2));
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!((at, height), (Some(0), None), "{name}");
        let rows = format!("select count(*) from {name}.seen");
        assert_eq!(scene.client.query_one(&rows, &[]).await.unwrap().get::<_, i64>(0), 0, "{name}");
    }
    scene.caught_up().await;
    scene.mine(3).await;
    scene.caught_up().await;
    scene.follows().await;
    assert!(running.try_wait().unwrap().is_none(), "the process has ended");
    let Output { code, stdout, .. } = scene.run(&["status"]).await;
    assert_eq!(code, 3);
    assert!(stdout.contains("endless") && stdout.contains("no such coin"), "{stdout}");
}
