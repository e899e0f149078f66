//! What a module is charged and refused, whatever the process did before, and whatever else the machine does.

use super::*;

/// A module of version 1 without imports, whose `process_block` has this body.
fn bare(body: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 1) (table $t 1 funcref)
        (func $other (result i32) (i32.const 0)) (elem declare func $other)
        (func (export "process_block") (result i32) {body}))"#
    )
}

fn output(transform: &Transform) -> Result<Output, RuntimeError> {
    run(transform, |_| Answer::State(None))
}

#[test]
fn a_block_costs_the_same_fuel_whatever_ran_before_it() {
    let wat = bare("(drop (call $other)) (i32.const 0)");
    let transform = compile(&wat).unwrap();
    let (first, second) = (output(&transform).unwrap().fuel_used, output(&transform).unwrap().fuel_used);
    assert_eq!(first, second);
    // What the second block needs is enough for the first one of a new process.
    let limits = Limits { fuel: second, ..limits() };
    let wasm = wat::parse_str(&wat).unwrap();
    let again = Transform::compile("test.wasm", &wasm, &limits, UnknownImports::Refuse).unwrap();
    assert_eq!(output(&again).unwrap().fuel_used, second);
}

#[test]
fn functions_that_cannot_be_translated_are_found_before_the_first_block() {
    let deep = format!("{} unreachable", "(i32.const 1)".repeat(70_000));
    let error = compile(&bare(&deep)).map(drop).unwrap_err();
    assert!(matches!(error, RuntimeError::Invalid { .. }), "{error}");
}

#[test]
fn types_that_blow_a_module_up_are_refused() {
    let with = |count: usize, results: usize| {
        let (parameters, results) = ("i32 ".repeat(count), "i32 ".repeat(results));
        bare(&format!("(i32.const 0)) (func (param {parameters}) (result {results}) unreachable"))
    };
    for allowed in [(64, 16), (0, 0)] {
        compile(&with(allowed.0, allowed.1)).unwrap();
    }
    let error = |count, results| compile(&with(count, results)).map(drop).unwrap_err().to_string();
    assert_eq!(error(65, 0), "`test.wasm` has a type (number 1) of 65 parameters; 64 are allowed");
    assert_eq!(error(0, 17), "`test.wasm` has a type (number 1) of 17 results; 16 are allowed");
}

#[test]
fn modules_made_to_be_hard_to_translate_are_translated_soon() {
    let targets = "0 ".repeat(60_000);
    let values = "(i32.const 1) ".repeat(16);
    let results = "i32 ".repeat(16);
    let drops = "drop ".repeat(16);
    let bombs = [
        ("branches", "(block (br_if 0 (i32.const 0)))".repeat(20_000)),
        ("targets", format!("(block (br_table {targets} (i32.const 0)))")),
        (
            "targets of values",
            format!("(block (result {results}) {values} i32.const 0 br_table {targets}) {drops}"),
        ),
        ("depth", format!("{} {}", "(block ".repeat(3_000), ")".repeat(3_000))),
        ("loops", format!("{} {}", "loop ".repeat(50_000), "end ".repeat(50_000))),
        ("calls", "(drop (call $other))".repeat(50_000)),
        ("functions", format!("(i32.const 0)) {} (func (result i32)", "(func)".repeat(50_000))),
        (
            "locals",
            format!(
                "(i32.const 0)) {} (func (result i32)",
                format!("(func (local {}))", "i32 ".repeat(400)).repeat(200)
            ),
        ),
    ];
    for (name, bomb) in bombs {
        let wasm = wat::parse_str(bare(&format!("{bomb} (i32.const 0)"))).unwrap();
        let began = std::time::Instant::now();
        let done = Transform::compile("test.wasm", &wasm, &limits(), UnknownImports::Refuse);
        done.map(drop).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{name}: {:?}", began.elapsed());
    }
}

#[test]
fn what_is_not_a_number_has_the_same_bits_on_every_machine() {
    const F32: u64 = 0x7fc0_0000;
    const F64: u64 = 0x7ff8_0000_0000_0000;
    let bits_64 = |float: &str| format!("(i64.reinterpret_f64 {float})");
    let bits_32 = |float: &str| format!("(i64.extend_i32_u (i32.reinterpret_f32 {float}))");
    // Loaded, so that no compiler computes with it; the first has a payload and a sign.
    let (wide, narrow) = ("(f64.load (i32.const 8))", "(f32.load (i32.const 16))");
    let cases = [
        (F64, bits_64(&format!("(f64.add {wide} (f64.const 1))"))),
        (F64, bits_64(&format!("(f64.div (f64.mul {wide} (f64.const 0)) (f64.const 2))"))),
        (F64, bits_64("(f64.div (f64.load (i32.const 24)) (f64.load (i32.const 24)))")),
        (F64, bits_64("(f64.sqrt (f64.sub (f64.load (i32.const 24)) (f64.const 1)))")),
        (F64, bits_64(&format!("(f64.min (f64.const 1) {wide})"))),
        (F64, bits_64(&format!("(f64.floor {wide})"))),
        (F64, bits_64(&format!("(f64.promote_f32 {narrow})"))),
        (F32, bits_32(&format!("(f32.demote_f64 {wide})"))),
        (F32, bits_32(&format!("(f32.add {narrow} (f32.const 1))"))),
        (F32, bits_32("(f32.div (f32.load (i32.const 24)) (f32.load (i32.const 24)))")),
        (F32, bits_32(&format!("(f32.nearest {narrow})"))),
    ];
    let wrong = cases.iter().filter(|(bits, case)| {
        let body = format!(
            "(i64.store (i32.const 8) (i64.const 0xfff4_0000_0000_1234)) (i32.store (i32.const 16) (i32.const 0xffa0_0123))
             (if (i64.ne {case} (i64.const {bits})) (then unreachable)) (i32.const 0)"
        );
        output(&compile(&bare(&body)).unwrap()).is_err()
    });
    assert_eq!(wrong.map(|(_, case)| case).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Grows by a megabyte until there is no more, and writes how often it could.
const GREEDY: &str = "(local $pages i32)
    (loop $again (if (i32.ne (memory.grow (i32.const 16)) (i32.const -1))
      (then (local.set $pages (i32.add (local.get $pages) (i32.const 16))) (br $again))))
    (i32.store (i32.const 2000) (i32.const 4)) (i32.store (i32.const 2004) (local.get $pages))
    (drop (call $set_state (i32.const 2000) (i32.const 2000))) (i32.const 0)";

/// The same of a table.
const GREEDY_TABLE: &str = "(local $elements i32)
    (loop $again (if (i32.ne (table.grow (ref.null func) (i32.const 16777216)) (i32.const -1))
      (then (local.set $elements (i32.add (local.get $elements) (i32.const 1))) (br $again))))
    (i32.store (i32.const 2000) (i32.const 4)) (i32.store (i32.const 2004) (local.get $elements))
    (drop (call $set_state (i32.const 2000) (i32.const 2000))) (i32.const 0)";

/// Says what came of a greedy module that may take 4 GiB, for [`memory_that_the_machine_lacks_is_not_told_the_module`].
#[test]
#[ignore = "is run by another test, with little memory"]
fn greedy() {
    let body = std::env::var("DEBSHREW_TEST_GREEDY").unwrap();
    let limits = Limits {
        fuel: 1_000_000_000_000,
        memory_bytes: 1 << 32,
        table_elements: u32::MAX as usize,
        ..limits()
    };
    let wat = if body.starts_with("(module") { body } else { module_text(&body, "") };
    let transform =
        Transform::compile("greedy", &wat::parse_str(wat).unwrap(), &limits, UnknownImports::Refuse).unwrap();
    match output(&transform) {
        Ok(output) => println!("it committed {:?}", output.state[0].1),
        Err(error) => println!("it failed: {:?}: {error}", error.kind()),
    }
}

/// Asks for the digits of more bytes than there are.
const GREEDY_HEX: &str = r#"(module (import "debshrew" "hex" (func $hex (param i32 i32 i32)))
    (memory (export "memory") 1) (global (export "debshrew_abi_version_2") i32 (i32.const 1))
    (func (export "process_block") (result i32)
      (call $hex (i32.const 0) (i32.const -1) (i32.const 0)) (i32.const 0)))"#;

#[test]
fn memory_that_the_machine_lacks_is_not_told_the_module() {
    let program = std::env::current_exe().unwrap();
    let lacking = "it failed: Transient: this machine had no memory left";
    let outside = "it failed: Permanent: `debshrew.hex` was called wrongly";
    for (body, expected) in [(GREEDY, lacking), (GREEDY_TABLE, lacking), (GREEDY_HEX, outside)] {
        let child = std::process::Command::new("sh")
            .args([
                "-c",
                "ulimit -v 600000; exec \"$0\" --ignored --exact --nocapture runtime::tests::sandbox::greedy",
            ])
            .arg(&program)
            .env("DEBSHREW_TEST_GREEDY", body)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(said.contains(expected), "{child:?}");
    }
}

#[test]
fn growing_as_often_as_fuel_allows_does_not_end_the_process() {
    for grow in [
        "memory.grow (i32.const 0)",
        "memory.grow (i32.const 1)",
        "memory.grow (i32.const -1)",
        "table.grow (ref.null func) (i32.const 0)",
        "table.grow (ref.null func) (i32.const 1)",
        "table.grow (ref.null func) (i32.const -1)",
    ] {
        // The amount is not a constant to the interpreter.
        let grow = grow.replace("(i32.const ", "(i32.add (i32.load (i32.const 0)) (i32.const ") + ")";
        let wat = bare(&format!("(loop $again (drop ({grow})) (br $again)) (i32.const 0)"));
        let limits = Limits { fuel: 30_000_000, ..limits() };
        let wasm = wat::parse_str(wat).unwrap();
        let transform = Transform::compile("grows", &wasm, &limits, UnknownImports::Refuse).unwrap();
        let error = output(&transform).unwrap_err();
        assert!(matches!(error, RuntimeError::Limit { limit: Limit::Fuel, .. }), "{grow}: {error}");
    }
}

/// Asks, grows a table over and over, and writes what came of it.
const TABLES: &str = "(local $i i32) (drop (call $get_state (i32.const 1024)))
    (loop $again (call $load (i32.const 3000))
      (drop (table.grow (ref.null func) (i32.const 40)))
      (memory.copy (i32.const 5000) (i32.const 3000) (i32.const 1000))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 2000))))
    (i32.store (i32.const 2000) (i32.const 8)) (i32.store (i32.const 2004) (local.get $i))
    (i32.store (i32.const 2008) (table.size))
    (drop (call $set_state (i32.const 2000) (i32.const 2000))) (i32.const 0)";

#[test]
fn how_fuel_is_portioned_changes_no_result() {
    let wasm = wat::parse_str(module_text(TABLES, "\\01\\00\\00\\00k")).unwrap();
    let limits = Limits { table_elements: 100_000, ..limits() };
    let with = |portion: u64| {
        let transform = Transform::compile("tables", &wasm, &limits, UnknownImports::Refuse).unwrap();
        let mut compiled = std::sync::Arc::into_inner(transform.0).unwrap();
        compiled.portion = portion;
        let mut asked = 0;
        let output = run(&Transform(std::sync::Arc::new(compiled)), |_| {
            asked += 1;
            Answer::State(Some(vec![7; 500]))
        });
        assert_eq!(asked, 1);
        output.map(|output| (output.state, output.fuel_used)).unwrap()
    };
    let whole = with(limits.fuel);
    for portion in [100_000, 100_500, 99_999, 50_021, 20_000] {
        assert_eq!(with(portion), whole, "{portion}");
    }
}

#[test]
fn blocks_that_are_begun_again_take_no_more_than_their_fuel_once_more() {
    let with = |rounds: u32| {
        let wat = bare(&format!(
            "(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const {rounds}))))
             (local.set $i (i32.const 0))
             (loop $l (drop (table.grow $t (ref.null func) (i32.const 20000))) (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const 10)))) (i32.const 0)"
        ));
        let limits = Limits { table_elements: 1 << 20, ..limits() };
        let wasm = wat::parse_str(wat).unwrap();
        let transform = Transform::compile("grows", &wasm, &limits, UnknownImports::Refuse).unwrap();
        let mut compiled = std::sync::Arc::into_inner(transform.0).unwrap();
        compiled.portion = 1_000;
        output(&Transform(std::sync::Arc::new(compiled))).map(|output| output.fuel_used)
    };
    with(1_000).unwrap();
    assert_eq!(with(650_000).unwrap_err().to_string(), "it grows its tables too often");
}

#[test]
fn answers_are_kept_up_to_the_memory_that_the_module_may_have() {
    let grow = "(drop (call $get_state (i32.const 1024)))
        (loop $l (drop (table.grow (ref.null func) (i32.const 20000))) (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $l (i32.lt_u (local.get $i) (i32.const 10)))) (i32.const 0)";
    let wat = module_text(&format!("(local $i i32) {grow}"), "\\01\\00\\00\\00k");
    let wasm = wat::parse_str(wat).unwrap();
    let with = |bytes: usize| {
        let limits = Limits { table_elements: 1 << 20, ..limits() };
        let transform = Transform::compile("grows", &wasm, &limits, UnknownImports::Refuse).unwrap();
        let mut compiled = std::sync::Arc::into_inner(transform.0).unwrap();
        compiled.portion = 1_000;
        run(&Transform(std::sync::Arc::new(compiled)), |_| Answer::State(Some(vec![0; bytes])))
    };
    with(1 << 20).unwrap();
    assert_eq!(with(5 << 20).unwrap_err().to_string(), "it grows its tables too often");
}

#[test]
fn a_start_function_is_short() {
    let wat = |rounds: u32| {
        format!(
            r#"(module (memory (export "memory") 1)
            (func $start (local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $l (i32.lt_u (local.get $i) (i32.const {rounds})))))
            (start $start) (func (export "process_block") (result i32) (i32.const 0)))"#
        )
    };
    output(&compile(&wat(10_000)).unwrap()).unwrap();
    let error = output(&compile(&wat(1_000_000)).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("its start function takes more than 1000000 units of fuel"), "{error}");
}

#[test]
fn answers_cost() {
    let ask = "(drop (call $view (i32.const 1024) (i32.const 1024)))";
    let answered = |count: usize| {
        let transform = module(&format!("{} (i32.const 0)", ask.repeat(count)), "\\00\\00\\00\\00");
        run(&transform, |_| Answer::View(Ok(vec![1; 1 << 20]))).unwrap().fuel_used
    };
    let (one, two) = (answered(1), answered(2));
    assert!(two - one >= 1 << 20, "the same answer a second time costs {} units", two - one);
    let own = "(drop (call $get_state (i32.const 1024)))";
    let transform = module(&format!("{own} (i32.const 0)"), "\\01\\00\\00\\00k");
    let fuel = run(&transform, |_| Answer::State(Some(vec![1; 1 << 20]))).unwrap().fuel_used;
    assert!(fuel >= 1 << 20, "{fuel}");
}

#[test]
fn messages_of_version_1_count_as_the_records_of_version_2_do() {
    let message = r#"{"payload":{"operation":"create","table":"t","after":{"a":null,"b":null}}}"#;
    let text = |text: &str| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        length.iter().chain(text.as_bytes()).map(|byte| format!("\\{byte:02x}")).collect::<String>()
    };
    // Each change counts 64, each value 16, and the names that both have 64 and 48 a column.
    let counted = 2 * (64 + 2 * 16) + 64 + 2 * 48;
    let push = "(drop (call $push (i32.const 1024)))";
    let pushed = output(&module(&format!("{push} {push} (i32.const 0)"), &text(message))).unwrap();
    assert_eq!(pushed.bytes, 2 * message.len() + counted);
    let list = format!("[{message},{message}]");
    let listed = output(&module("(i32.const 1024)", &text(&list))).unwrap();
    assert_eq!(listed.bytes, list.len() + counted);
    assert_eq!(listed.changes, pushed.changes);
    // A list that holds too much is given up.
    let many = format!("[{}{message}]", format!("{message},").repeat(7_000));
    assert!(many.len() < limits().output_bytes);
    let wat = module_text("(i32.const 4096)", "")
        .replace("(i32.const 1024) \"\"", &format!("(i32.const 4096) \"{}\"", text(&many)));
    let transform =
        compile(&wat.replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 16)")).unwrap();
    let error = output(&transform).unwrap_err().to_string();
    assert!(error.contains("limits.output_bytes"), "{error}");
}

#[test]
fn a_hundred_thousand_unknown_imports_are_summed_up() {
    let imports: String = (0..100_000).map(|i| format!(r#"(import "x" "f{i}" (func))"#)).collect();
    let error = compile(&bare("(i32.const 0)").replacen("(module", &format!("(module {imports}"), 1));
    let error = error.map(drop).unwrap_err().to_string();
    assert!(
        error.contains("`x.f0`, `x.f1`,") && error.contains("and 99960 more; if it never"),
        "{error:.2000}"
    );
    assert!(error.len() < 2_000, "{} bytes", error.len());
    let long = "n".repeat(50_000);
    for (module, part) in [
        (format!(r#"(import "x" "{long}" (func))"#), "imports what debshrew does not have"),
        (format!(r#"(import "x" "{long}" (global i32))"#), "which is no function"),
        (
            format!(r#"(global (export "debshrew_abi_version{long}") i32 (i32.const 1))"#),
            "asks by its export",
        ),
    ] {
        let error = compile(&bare("(i32.const 0)").replacen("(module", &format!("(module {module}"), 1));
        let error = error.map(drop).unwrap_err().to_string();
        assert!(error.contains(part) && error.len() < 2_000, "{} bytes: {error:.2000}", error.len());
    }
}
