//! Modules of version 2 of the binary interface, well-behaved and hostile.

use super::*;

/// A module of version 2 whose `process_block` has this body; all imports are there, and some data at 1024.
fn module_2(body: &str, data: &str) -> Transform {
    let wat = format!(
        r#"(module
            (import "debshrew" "height" (func $height (result i32)))
            (import "debshrew" "block_hash" (func $block_hash (param i32)))
            (import "debshrew" "view" (func $view (param i32 i32 i32 i32) (result i32)))
            (import "debshrew" "load" (func $load (param i32)))
            (import "debshrew" "get_state" (func $get_state (param i32 i32) (result i32)))
            (import "debshrew" "set_state" (func $set_state (param i32 i32 i32 i32)))
            (import "debshrew" "delete_state" (func $delete_state (param i32 i32) (result i32)))
            (import "debshrew" "emit" (func $emit (param i32 i32)))
            (import "debshrew" "stdout" (func $stdout (param i32 i32)))
            (import "debshrew" "stderr" (func $stderr (param i32 i32)))
            (import "debshrew" "sha256" (func $sha256 (param i32 i32 i32)))
            (import "debshrew" "sha256d" (func $sha256d (param i32 i32 i32)))
            (import "debshrew" "hex" (func $hex (param i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 1024) "{data}")
            (func (export "debshrew_abi_version_2"))
            (func (export "process_block") (result i32) {body}))"#
    );
    compile(&wat).unwrap()
}

fn fails_2(body: &str, data: &str) -> String {
    let answer = |request: &Request| match request {
        Request::View { .. } => Answer::View(Ok(b"abc".to_vec())),
        Request::State { .. } => Answer::State(None),
    };
    run(&module_2(body, data), answer).expect_err("it fails").to_string()
}

/// Table `t` with the columns `a` and `b`, in 12 bytes.
const DECLARED: &str = "\\01\\01\\00t\\02\\00\\01\\00a\\01\\00b";

#[test]
fn a_module_of_version_2_does_all_that_one_of_version_1_does() {
    let body = "(call $block_hash (i32.const 2000))
        (call $set_state (i32.const 1024) (i32.const 1) (i32.const 2000) (i32.const 32))
        (if (i32.ne (call $height) (i32.const 840000)) (then unreachable))
        (if (i32.ne (call $view (i32.const 1024) (i32.const 1) (i32.const 1025) (i32.const 2)) (i32.const 6))
            (then unreachable))
        (call $load (i32.const 3000))
        (call $stdout (i32.const 3000) (i32.const 6))
        (if (i32.ne (call $get_state (i32.const 1025) (i32.const 1)) (i32.const 3)) (then unreachable))
        (call $load (i32.const 3000))
        (call $stderr (i32.const 3000) (i32.const 3))
        (if (i32.ne (call $delete_state (i32.const 1025) (i32.const 1)) (i32.const 1)) (then unreachable))
        (call $emit (i32.const 1028) (i32.const 12))
        (call $emit (i32.const 1040) (i32.const 5))
        (call $emit (i32.const 1045) (i32.const 5))
        (i32.const 0)";
    let data = format!("vin_{DECLARED}\\02\\00\\00\\02\\00\\03\\00\\00\\01\\00");
    let mut asked = Vec::new();
    let output = run(&module_2(body, &data), |request| {
        asked.push(request.clone());
        match request {
            Request::View { .. } => Answer::View(Ok(b"answer".to_vec())),
            Request::State { .. } => Answer::State(Some(b"yes".to_vec())),
        }
    })
    .unwrap();
    let view = Request::View { name: "v".into(), input: b"in".to_vec() };
    assert_eq!(asked, [view, Request::State { key: b"i".to_vec() }]);
    assert_eq!(output.state, [(b"v".to_vec(), Some(vec![7; 32])), (b"i".to_vec(), None)]);
    let log: Vec<_> = output.log.iter().map(|line| (line.stream, line.to_string())).collect();
    assert_eq!(log, [(Stream::Stdout, "answer".into()), (Stream::Stderr, "yes".into())]);
    let change = |operation, a, b| Change::new("t", operation, None, vec![("a", a), ("b", b)]);
    assert_eq!(
        output.changes,
        [
            change(Operation::Upsert, Value::Bool(true), Value::Null),
            change(Operation::Delete, Value::Bool(false), Value::Null),
        ]
    );
    // Each write of the state counts 64 more, each change 64, and each of its values 16; a declaration 64, and each of
    // its columns 48.
    let (state, changes, declaration) = (33 + 64 + 3 + 1 + 1 + 64, 22 + 2 * (64 + 2 * 16), 64 + 2 * 48);
    assert_eq!(output.bytes, state + changes + declaration);
}

#[test]
fn the_host_hashes_and_writes_digits() {
    let body = "(call $sha256 (i32.const 1024) (i32.const 3) (i32.const 2000))
        (call $sha256d (i32.const 1024) (i32.const 3) (i32.const 2032))
        (call $hex (i32.const 2000) (i32.const 2) (i32.const 2064))
        (call $set_state (i32.const 1024) (i32.const 1) (i32.const 2000) (i32.const 68)) (i32.const 0)";
    let output = run(&module_2(body, "abc"), |_| Answer::State(None)).unwrap();
    // Source: FIPS 180-2, appendix B.1; the second is `printf abc | sha256sum | xxd -r -p | sha256sum`.
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\
                    4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358";
    let expected = [hex::decode(expected).unwrap(), b"ba78".to_vec()].concat();
    assert_eq!(output.state, [(b"a".to_vec(), Some(expected))]);
}

#[test]
fn pointers_of_version_2_are_checked() {
    let expect = |body: &str, words: &str| {
        let error = fails_2(&format!("{body} (i32.const 0)"), "\\ff");
        assert!(error.contains(words), "{error}");
    };
    let beyond = "reach beyond the memory of 65536 bytes";
    for (import, wrong) in [
        ("block_hash", "(i32.const 65505)"),
        ("sha256", "(i32.const 0) (i32.const 65537) (i32.const 0)"),
        ("sha256", "(i32.const 0) (i32.const 1) (i32.const 65505)"),
        ("sha256d", "(i32.const 65536) (i32.const 1) (i32.const 0)"),
        ("hex", "(i32.const 0) (i32.const 40000) (i32.const 0)"),
        ("hex", "(i32.const -1) (i32.const 2) (i32.const 0)"),
        ("set_state", "(i32.const 0) (i32.const 1) (i32.const 65530) (i32.const 7)"),
        ("emit", "(i32.const 1) (i32.const 65536)"),
        ("stdout", "(i32.const -4) (i32.const 8)"),
        ("stderr", "(i32.const 65536) (i32.const 1)"),
    ] {
        let error = fails_2(&format!("(call ${import} {wrong}) (i32.const 0)"), "");
        assert!(error.starts_with(&format!("`debshrew.{import}` was called wrongly: ")), "{error}");
        assert!(error.contains(beyond), "{error}");
    }
    expect(
        "(drop (call $view (i32.const 0) (i32.const 65537) (i32.const 0) (i32.const 0)))",
        "`debshrew.view`",
    );
    expect("(drop (call $get_state (i32.const 65536) (i32.const 1)))", "`debshrew.get_state`");
    expect("(drop (call $delete_state (i32.const 65536) (i32.const 1)))", "`debshrew.delete_state`");
    expect("(drop (call $view (i32.const 1024) (i32.const 1) (i32.const 0) (i32.const 0)))", "not UTF-8");
    expect(
        "(drop (call $view (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))) (call $load (i32.const 65534))",
        "`debshrew.load` was called wrongly: 3 bytes at 65534",
    );
    // A length that is negative as a signed number is four gigabytes, more than a block's fuel pays for.
    expect("(call $emit (i32.const 0) (i32.const -1))", "limits.fuel");
    assert_eq!(
        fails_2("(i32.const 1024)", ""),
        "it returned 1024; in version 2 `process_block` returns 0, or -1 when it failed"
    );
    let failed = fails_2("(call $stderr (i32.const 1024) (i32.const 4)) (i32.const -1)", "help");
    assert_eq!(failed, "it returned -1 (failed); its last words: help");
}

#[test]
fn records_that_are_wrong_are_refused_with_the_change_and_the_byte() {
    let emit = |length: usize| format!("(call $emit (i32.const 1024) (i32.const {length})) (i32.const 0)");
    let error = fails_2(&emit(18), &format!("{DECLARED}\\02\\00\\00\\00\\00\\09"));
    assert_eq!(
        error,
        "`debshrew.emit`: change 1: byte 17 of the batch is 0x09, where a record begins: 1 (a declaration), \
         2 (an upsert) or 3 (a delete)"
    );
    let error = fails_2(&emit(3), "\\03\\07\\00");
    assert!(error.contains("change 0: the declaration has the number 7, and 0 are declared"), "{error}");
    // A change does not go on in the next batch.
    let error = fails_2(&emit(16), &format!("{DECLARED}\\02\\00\\00\\00"));
    assert!(
        error.contains("change 0: the batch ends at byte 16, in the middle of a change's values"),
        "{error}"
    );
}

#[test]
fn limits_of_version_2_are_named_when_they_are_met() {
    let named = |body: &str, data: &str, limit: &str| {
        let error = fails_2(&format!("(loop {body} (br 0)) (i32.const 0)"), data);
        assert!(error.contains(limit), "{error}");
    };
    let memory = "(i32.const 0) (i32.const 65536)";
    named(&format!("(call $sha256 {memory} (i32.const 0))"), "", "limits.fuel");
    named(&format!("(call $sha256d {memory} (i32.const 0))"), "", "limits.fuel");
    named("(call $sha256 (i32.const 0) (i32.const 0) (i32.const 0))", "", "limits.fuel");
    named("(call $hex (i32.const 0) (i32.const 20000) (i32.const 20000))", "", "limits.fuel");
    named(&format!("(call $set_state {memory} {memory})"), "", "limits.output_bytes");
    named("(drop (call $view (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))", "", "limits.calls");
    named("(drop (call $get_state (i32.const 0) (i32.const 0)))", "", "limits.calls");
    // A change without columns, in three bytes: what it takes in memory is counted as well.
    let empty = "\\01\\01\\00t\\00\\00\\02\\00\\00";
    let body = "(call $emit (i32.const 1024) (i32.const 6)) (loop (call $emit (i32.const 1030) (i32.const 3)) (br 0))";
    let error = fails_2(&format!("{body} (i32.const 0)"), empty);
    assert!(error.contains("limits.output_bytes"), "{error}");
}

#[test]
fn records_cost_what_it_takes_to_read_them() {
    let fuel = |length: usize, data: &str| {
        let body = format!("(call $emit (i32.const 1024) (i32.const {length})) (i32.const 0)");
        run(&module_2(&body, data), |_| Answer::State(None)).unwrap().fuel_used
    };
    let declaration = "\\01\\01\\00t\\01\\00\\01\\00a";
    let declared = fuel(9, declaration);
    let cost = |length: usize, value: &str| {
        fuel(9 + 3 + length, &format!("{declaration}\\02\\00\\00{value}")) - declared
    };
    let null = cost(1, "\\00");
    assert!(null >= 250, "{null}");
    // An array of 200 floats, each of nine bytes, takes longer than one of 200 nulls, and that longer than a text of 200
    // bytes.
    let array = |count: usize, item: &str| format!("\\0a\\{count:02x}\\00\\00\\00{}", item.repeat(count));
    let floats = cost(5 + 1_800, &array(200, "\\05\\01\\02\\03\\04\\05\\06\\07\\3f"));
    let nulls = cost(5 + 200, &array(200, "\\00"));
    let text = cost(5 + 200, &format!("\\07\\c8\\00\\00\\00{}", "x".repeat(200)));
    assert!(floats - null >= 200 * 500, "{floats}");
    assert!(nulls - null >= 200 * 25, "{nulls}");
    assert!((200..2_000).contains(&(text - null)), "{text}");
}
