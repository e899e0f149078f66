//! How the interpreter is set up, and which modules it may translate.

use wasmi::{CompilationMode, Config, CustomFuelCosts, Engine, OperatorCost};
use wasmparser::{FunctionBody, Operator, Parser, Payload, TypeSectionReader};

/// All of a module is translated when it is compiled. Were a function translated when it is first called, the block
/// that happens to call it would pay for it: whether its fuel suffices would depend on what ran before it.
pub(super) fn engine() -> Engine {
    let mut config = Config::default();
    config.consume_fuel(true);
    config.compilation_mode(CompilationMode::Eager);
    config.operator_cost(operator_cost());
    // Validating and translating are nothing that a block pays for.
    config.fuel_cost(CustomFuelCosts {
        bytes_copied_per_fuel: 16,
        fuel_per_bytes_translated: 0,
        fuel_per_bytes_validated: 0,
    });
    // Pointers are into the one memory; several would be refused at the first block only.
    config.wasm_multi_memory(false);
    Engine::new(&config)
}

/// What takes several times as long as an addition, which costs 1.
fn operator_cost() -> OperatorCost {
    OperatorCost {
        call: 6,
        call_indirect: 8,
        return_call: 8,
        return_call_indirect: 12,
        br_table: 4,
        memory_copy: 6,
        memory_fill: 6,
        memory_init: 6,
        memory_size: 2,
        data_drop: 3,
        table_copy: 8,
        table_fill: 6,
        table_init: 8,
        elem_drop: 3,
        // As much as can be: each takes some of the thread's stack until the interpreter returns; see `fuel::PORTION`.
        memory_grow: u8::MAX,
        table_grow: u8::MAX,
        ..OperatorCost::default()
    }
}

/// What must be known of a module before it is translated.
#[derive(Default)]
pub(super) struct Traits {
    pub(super) grows_tables: bool,
}

/// Looks a module over. What cannot be read here is no module, which is found out when it is compiled.
pub(super) fn inspect(wasm: &[u8]) -> Result<Traits, String> {
    let mut traits = Traits::default();
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match payload {
            Payload::TypeSection(types) => check_types(types)?,
            Payload::CodeSectionEntry(body) => traits.grows_tables |= grows_tables(&body),
            _ => {}
        }
    }
    Ok(traits)
}

/// Refuses types whose use takes one byte of the module and hundreds of bytes when it is translated: each branch,
/// block and call moves all values of its type. No compiler makes such types.
fn check_types(types: TypeSectionReader<'_>) -> Result<(), String> {
    const MOST_PARAMETERS: usize = 64;
    const MOST_RESULTS: usize = 16;
    for (index, function) in types.into_iter_err_on_gc_types().map_while(Result::ok).enumerate() {
        for (what, count, most) in [
            ("parameters", function.params().len(), MOST_PARAMETERS),
            ("results", function.results().len(), MOST_RESULTS),
        ] {
            if count > most {
                return Err(format!("has a type (number {index}) of {count} {what}; {most} are allowed"));
            }
        }
    }
    Ok(())
}

fn grows_tables(body: &FunctionBody<'_>) -> bool {
    let operators = body.get_operators_reader().into_iter().flatten().map_while(Result::ok);
    operators.into_iter().any(|operator| matches!(operator, Operator::TableGrow { .. }))
}
