//! Transforms that do what they must, and transforms that do what they must not.

mod sandbox;
mod version_2;

use super::*;
use crate::block::{BlockHash, Height};
use crate::change::{Operation, Value};
use crate::config::{Limits, UnknownImports};

const ORIGINAL_V1: &str = include_str!("../../tests/transforms/original_v1.wat");

fn at() -> BlockRef {
    BlockRef { height: Height::new(840_000).unwrap(), hash: BlockHash::new([7; 32]) }
}

fn limits() -> Limits {
    Limits {
        fuel: 10_000_000,
        memory_bytes: 4 << 20,
        table_elements: 100,
        output_bytes: 1 << 20,
        log_bytes: 100,
        calls: 10,
    }
}

fn compile(wat: &str) -> Result<Transform, RuntimeError> {
    Transform::compile("test.wasm", &wat::parse_str(wat).unwrap(), &limits(), UnknownImports::Refuse)
}

/// A module whose `process_block` has this body; all imports are there, and some data at 1024.
fn module(body: &str, data: &str) -> Transform {
    compile(&module_text(body, data)).unwrap()
}

fn module_text(body: &str, data: &str) -> String {
    format!(
        r#"(module
            (import "env" "__view" (func $view (param i32 i32) (result i32)))
            (import "env" "__load" (func $load (param i32)))
            (import "env" "__get_state" (func $get_state (param i32) (result i32)))
            (import "env" "__set_state" (func $set_state (param i32 i32) (result i32)))
            (import "env" "__delete_state" (func $delete_state (param i32) (result i32)))
            (import "env" "__block_hash" (func $block_hash (result i32)))
            (import "env" "__stderr" (func $stderr (param i32)))
            (import "env" "__push_cdc_message" (func $push (param i32) (result i32)))
            (memory (export "memory") 1)
            (table 1 funcref)
            (data (i32.const 1024) "{data}")
            (func (export "process_block") (result i32) {body}))"#
    )
}

/// Runs a block to its end, with these answers to what it asks.
fn run(transform: &Transform, mut answer: impl FnMut(&Request) -> Answer) -> Result<Output, RuntimeError> {
    let mut step = transform.begin(at())?;
    loop {
        match step {
            Step::Done(output) => return Ok(output),
            Step::Ask(request, suspended) => step = suspended.resume(answer(&request))?,
        }
    }
}

fn fails(body: &str, data: &str) -> String {
    let answer = |request: &Request| match request {
        Request::View { .. } => Answer::View(Ok(b"abc".to_vec())),
        Request::State { .. } => Answer::State(None),
    };
    run(&module(body, data), answer).expect_err("it fails").to_string()
}

#[test]
fn a_module_of_the_original_interface_runs_unchanged() {
    let transform = compile(ORIGINAL_V1).unwrap();
    let mut asked = Vec::new();
    let output = run(&transform, |request| {
        asked.push(request.clone());
        match request {
            Request::View { .. } => Answer::View(Ok(b"answer".to_vec())),
            Request::State { key } if key == b"seen" => Answer::State(Some(b"yes".to_vec())),
            Request::State { .. } => Answer::State(None),
        }
    })
    .unwrap();
    assert_eq!(
        asked,
        [
            Request::View { name: "getblock".into(), input: b"in".to_vec() },
            Request::State { key: b"seen".to_vec() },
            Request::State { key: b"gone".to_vec() },
        ]
    );
    assert_eq!(output.state, [(b"gone".to_vec(), None), (b"seen".to_vec(), Some(b"answer".to_vec()))]);
    let rows: Vec<_> = output
        .changes
        .iter()
        .map(|change| (change.table(), change.operation, change.columns().collect::<Vec<_>>()))
        .collect();
    assert_eq!(rows[0], ("pushed", Operation::Upsert, vec![("a", &Value::Number("1".into()))]));
    assert_eq!(rows[1], ("listed", Operation::Delete, vec![]));
    assert_eq!(rows.len(), 2);
    let log: Vec<_> = output.log.iter().map(|line| (line.stream, line.to_string())).collect();
    assert_eq!(log, [(Stream::Stdout, "hello".into()), (Stream::Stderr, "uh \u{fffd}".into())]);
    assert!(output.fuel_used > 0);
}

#[test]
fn the_hash_is_given_as_the_source_gives_it_and_a_failed_view_is_negative() {
    // Pushes what `__block_hash` loads as a state value, with the view's result as length.
    let body = "(i32.store (i32.const 2000) (call $block_hash)) (call $load (i32.const 2004))
        (drop (call $set_state (i32.const 1024) (i32.const 2000)))
        (i32.store8 (i32.const 3004) (call $view (i32.const 1024) (i32.const 1024)))
        (i32.store (i32.const 3000) (i32.const 1))
        (drop (call $set_state (i32.const 2000) (i32.const 3000))) (i32.const 0)";
    let failure = crate::view::ViewFailure { message: "no".into() };
    let output = run(&module(body, "\\01\\00\\00\\00k"), |_| Answer::View(Err(failure.clone()))).unwrap();
    assert_eq!(output.state[0], (b"k".to_vec(), Some(vec![7; 32])));
    assert_eq!(output.state[1], (vec![7; 32], Some(vec![0xff])));
}

#[test]
fn limits_are_named_when_they_are_met() {
    let named = |body: &str, data: &str, limit: &str| {
        let error = fails(body, data);
        assert!(error.contains(limit), "{error}");
    };
    named("(loop (br 0)) (i32.const 0)", "", "limits.fuel");
    named(
        "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable)) (i32.const 0)",
        "",
        "limits.memory_bytes",
    );
    named(
        "(if (i32.eq (table.grow (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable)) (i32.const 0)",
        "",
        "limits.table_elements",
    );
    let sixteen = "\\00\\80\\00\\00";
    named(
        "(loop (drop (call $set_state (i32.const 1024) (i32.const 1024))) (br 0)) (i32.const 0)",
        sixteen,
        "limits.output_bytes",
    );
    named(
        "(loop (drop (call $view (i32.const 1024) (i32.const 1024))) (br 0)) (i32.const 0)",
        "\\01\\00\\00\\00v",
        "limits.calls",
    );
    named(
        "(loop (drop (call $get_state (i32.const 1024))) (br 0)) (i32.const 0)",
        "\\01\\00\\00\\00v",
        "limits.calls",
    );
    let large = r#"(module (memory (export "memory") 1000) (func (export "process_block") (result i32) (i32.const 0)))"#;
    let error = compile(large).unwrap().begin(at()).map(drop).unwrap_err();
    assert!(error.to_string().contains("limits.memory_bytes"), "{error}");
}

#[test]
fn copying_is_paid_for() {
    // 10,000 loads of 3 MB would copy 30 GB; the fuel ends it first.
    let body = "(drop (memory.grow (i32.const 60))) (drop (call $view (i32.const 1024) (i32.const 1024)))
        (loop (call $load (i32.const 4096)) (br 0)) (i32.const 0)";
    let error = run(&module(body, "\\00\\00\\00\\00"), |_| Answer::View(Ok(vec![1; 3 << 20]))).unwrap_err();
    assert!(error.to_string().contains("limits.fuel"), "{error}");
}

#[test]
fn pointers_and_texts_that_are_wrong_are_refused() {
    let expect = |error: String, words: &str| assert!(error.contains(words), "{error}");
    expect(fails("(i32.const -2)", ""), "it returned -2, which is no buffer");
    expect(fails("(i32.const 65535)", ""), "outside the memory of 65536 bytes");
    expect(fails("(i32.const 1024)", "\\ff\\ff\\ff\\ff"), "reaches beyond the memory");
    expect(fails("(i32.const 1024)", "\\04\\00\\00\\00nope"), "no JSON array of messages");
    expect(fails("(i32.const 1024)", "\\03\\00\\00\\00[\\ff]"), "not UTF-8");
    expect(fails("(call $push (i32.const 1024))", "\\02\\00\\00\\00{}"), "__push_cdc_message");
    expect(fails("(call $view (i32.const 1024) (i32.const -1))", ""), "`__view` was called wrongly");
    expect(fails("(call $view (i32.const 1024) (i32.const 1030))", "\\01\\00\\00\\00\\ff"), "not UTF-8");
    expect(
        fails("(drop (call $block_hash)) (call $load (i32.const -8)) (i32.const 0)", ""),
        "`__load` was called wrongly",
    );
}

#[test]
fn traps_and_minus_one_say_the_last_words() {
    let words = "\\04\\00\\00\\00help";
    let trap = fails("(call $stderr (i32.const 1024)) unreachable", words);
    assert_eq!(trap, "it trapped; its last words: help");
    let failed = fails("(call $stderr (i32.const 1024)) (i32.const -1)", words);
    assert_eq!(failed, "it returned -1 (failed); its last words: help");
    let deep = r#"(module (memory (export "memory") 1)
        (func $f (export "process_block") (result i32) (call $f)))"#;
    let error = compile(deep).unwrap().begin(at()).map(drop).unwrap_err();
    assert!(matches!(error, RuntimeError::Trap { .. }), "{error}");
}

#[test]
fn logs_are_cut_and_say_so() {
    let body = "(call $stderr (i32.const 1024)) (call $stderr (i32.const 1024)) (call $stderr (i32.const 1024)) (i32.const 0)";
    let sixty = format!("\\3c\\00\\00\\00{}", "x".repeat(60));
    let output = run(&module(body, &sixty), |_| Answer::State(None)).unwrap();
    assert_eq!(output.log.len(), 2);
    assert!(output.log[1].text.contains("limits.log_bytes"));
}

#[test]
fn the_state_sees_its_own_writes_and_is_asked_for_once() {
    let body = "(if (call $delete_state (i32.const 1024)) (then unreachable))
        (drop (call $set_state (i32.const 1024) (i32.const 1024)))
        (if (i32.ne (call $get_state (i32.const 1024)) (i32.const 1)) (then unreachable))
        (if (i32.ne (call $delete_state (i32.const 1024)) (i32.const 1)) (then unreachable))
        (if (call $get_state (i32.const 1024)) (then unreachable)) (i32.const 0)";
    let mut asked = 0;
    let output = run(&module(body, "\\01\\00\\00\\00k"), |_| {
        asked += 1;
        Answer::State(None)
    });
    assert_eq!(output.unwrap().state, [(b"k".to_vec(), None)]);
    assert_eq!(asked, 1);
}

#[test]
fn a_key_that_was_read_is_deleted_without_asking_again() {
    let body = "(if (i32.ne (call $get_state (i32.const 1024)) (i32.const 2)) (then unreachable))
        (if (i32.ne (call $delete_state (i32.const 1024)) (i32.const 1)) (then unreachable))
        (if (call $get_state (i32.const 1024)) (then unreachable))
        (if (call $delete_state (i32.const 1024)) (then unreachable)) (i32.const 0)";
    let mut asked = 0;
    let output = run(&module(body, "\\01\\00\\00\\00k"), |_| {
        asked += 1;
        Answer::State(Some(b"xy".to_vec()))
    });
    assert_eq!(output.unwrap().state, [(b"k".to_vec(), None)]);
    assert_eq!(asked, 1);
}

#[test]
fn modules_that_cannot_run_are_refused_with_the_reason() {
    let refused = |wat: &str, words: &str| {
        let error = compile(wat).map(drop).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused("(module)", "does not export its memory");
    refused(r#"(module (memory (export "memory") 1))"#, "process_block() -> i32");
    refused(
        r#"(module (memory (export "memory") 1) (func (export "process_block")))"#,
        "must be a function `() -> i32`",
    );
    let with = |import: &str| {
        format!(
            r#"(module {import} (memory (export "memory") 1) (func (export "process_block") (result i32) (i32.const 0)))"#
        )
    };
    refused(&with(r#"(import "env" "__height" (func (param i32)))"#), "imports `env.__height` as");
    refused(&with(r#"(import "env" "m" (global i32))"#), "which is no function");
    refused(
        &with(r#"(import "__wbindgen_placeholder__" "__wbindgen_throw" (func (param i32 i32)))"#),
        "__wbindgen_throw",
    );
    assert!(Transform::compile("x", b"\0asm", &limits(), UnknownImports::Refuse).is_err());
    let text = Transform::compile("x", b"(module)", &limits(), UnknownImports::Refuse).map(drop).unwrap_err();
    assert!(text.to_string().starts_with("`x` is no WebAssembly module"), "{text}");
    let newer = r#"(module (memory (export "memory") 1) (global (export "debshrew_abi_version") i32 (i32.const 9))
        (func (export "process_block") (result i32) (i32.const 0)))"#;
    refused(newer, "knows version 2 (export `debshrew_abi_version_2`) and version 1 (no such export)");
    let third = newer.replace("abi_version", "abi_version_3");
    refused(&third, "asks by its export `debshrew_abi_version_3` for a binary interface");
    refused(
        &with(r#"(import "debshrew" "height" (func (result i32)))"#),
        "imports from `debshrew` are version 2's",
    );
    let second =
        |import: &str| with(import).replace("(memory", r#"(func (export "debshrew_abi_version_2")) (memory"#);
    refused(
        &second(r#"(import "env" "__height" (func (result i32)))"#),
        "imports from `env` are version 1's",
    );
    refused(&second(r#"(import "debshrew" "emit" (func (param i32)))"#), "imports `debshrew.emit` as");
    refused(&second(r#"(import "debshrew" "clock" (func (result i64)))"#), "`debshrew.clock`");
}

#[test]
fn an_unknown_import_traps_when_it_is_called_if_so_configured() {
    let wat = r#"(module (import "__wbindgen_placeholder__" "f" (func $f)) (memory (export "memory") 1)
        (func (export "process_block") (result i32) (call $f) (i32.const 0)))"#;
    let transform =
        Transform::compile("x", &wat::parse_str(wat).unwrap(), &limits(), UnknownImports::Trap).unwrap();
    let error = transform.begin(at()).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "it called the unknown import `__wbindgen_placeholder__.f`");
}

#[test]
fn lines_and_writes_that_hold_nothing_take_no_room_unseen() {
    // 10,000 empty lines and two others.
    let body = "(local $i i32) (call $stderr (i32.const 1024))
        (loop $l (call $stderr (i32.const 2000)) (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $l (i32.lt_u (local.get $i) (i32.const 10000))))
        (call $stderr (i32.const 1024)) (i32.const 0)";
    let output = run(&module(body, "\\01\\00\\00\\00x"), |_| Answer::State(None)).unwrap();
    assert_eq!(output.log.len(), 2);

    // 50,000 keys of four bytes each hold 200 kB of the 1 MiB that is allowed, and cost more to keep.
    let body = "(local $i i32) (i32.store (i32.const 1024) (i32.const 4))
        (loop $l (i32.store (i32.const 1028) (local.get $i)) (drop (call $set_state (i32.const 1024) (i32.const 2000)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $l (i32.lt_u (local.get $i) (i32.const 50000)))) (i32.const 0)";
    assert!(fails(body, "").contains("limits.output_bytes"));
}

#[test]
fn reading_its_own_writes_is_paid_for() {
    // Each copies 500 kB: 10 million instructions' worth of them would copy 500 GB.
    let body = "(drop (memory.grow (i32.const 10))) (i32.store (i32.const 4096) (i32.const 500000))
        (drop (call $set_state (i32.const 1024) (i32.const 4096)))
        (loop (drop (call $get_state (i32.const 1024))) (br 0)) (i32.const 0)";
    let began = std::time::Instant::now();
    assert!(fails(body, "\\01\\00\\00\\00k").contains("limits.fuel"));
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_question_without_an_answer_leaves_no_result_of_an_earlier_one() {
    for question in ["(call $view (i32.const 1024) (i32.const 1024))", "(call $get_state (i32.const 1024))"] {
        let body = format!(
            "(drop (call $block_hash)) (drop {question}) (call $load (i32.const 2000))
             (if (i32.load8_u (i32.const 2000)) (then unreachable)) (i32.const 0)"
        );
        let answer = |request: &Request| match request {
            Request::View { .. } => Answer::View(Err(crate::view::ViewFailure { message: "no".into() })),
            Request::State { .. } => Answer::State(None),
        };
        run(&module(&body, "\\01\\00\\00\\00k"), answer).unwrap();
    }
}

#[test]
fn a_start_function_that_asks_is_told_so() {
    let wat = r#"(module (import "env" "__get_state" (func $get_state (param i32) (result i32)))
        (memory (export "memory") 1) (func $start (drop (call $get_state (i32.const 0)))) (start $start)
        (func (export "process_block") (result i32) (i32.const 0)))"#;
    let error = compile(wat).unwrap().begin(at()).map(drop).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it asked for a view or for its state in its start function; only `process_block` may"
    );
}

#[test]
fn memories_of_unusual_kinds_are_refused_before_the_first_block() {
    let module = |memories: &str| {
        format!(r#"(module {memories} (func (export "process_block") (result i32) (i32.const 0)))"#)
    };
    for refused in [
        r#"(memory 1) (memory (export "memory") 1)"#,
        r#"(memory (export "memory") 1 2 shared)"#,
        r#"(import "env" "memory" (memory 1)) (export "memory" (memory 0))"#,
        r#"(memory (export "memory") i64 1)"#,
    ] {
        compile(&module(refused)).map(drop).expect_err(refused);
    }
    compile(&module(r#"(memory (export "memory") 1)"#)).unwrap();
}
