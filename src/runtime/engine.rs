//! How the interpreter is set up, and which modules it may translate.

use wasmi::{CompilationMode, Config, Engine};
use wasmparser::{Parser, Payload};

/// All of a module is translated when it is compiled. Were a function translated when it is first called, the block
/// that happens to call it would pay for it: whether its fuel suffices would depend on what ran before it.
pub(super) fn engine() -> Engine {
    let mut config = Config::default();
    config.consume_fuel(true);
    config.compilation_mode(CompilationMode::Eager);
    // Pointers are into the one memory; several would be refused at the first block only.
    config.wasm_multi_memory(false);
    Engine::new(&config)
}

/// Refuses types whose use takes one byte of the module and hundreds of bytes when it is translated: each branch,
/// block and call moves all values of its type. No compiler makes such types.
pub(super) fn check_types(wasm: &[u8]) -> Result<(), String> {
    const MOST_PARAMETERS: usize = 64;
    const MOST_RESULTS: usize = 16;
    // What cannot be read here is no module, which is found out when it is compiled.
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        let Payload::TypeSection(types) = payload else { continue };
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
        break;
    }
    Ok(())
}
