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
