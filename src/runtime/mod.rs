//! Runs a transform: a WebAssembly module, in the wasmi interpreter, once per block, with binary interface
//! version 1 or 2.
//!
//! Does no I/O. Where the transform asks for a view or for its state, the call is suspended and the request
//! handed to the caller, who resumes it with the answer. The module is compiled once; each block runs in a
//! fresh instance, under limits of fuel, memory, tables, output and calls.

mod call;
mod engine;
mod fuel;
mod guest;
mod host;
mod limits;
mod v1;
mod v2;

use std::sync::Arc;

use wasmi::{Engine, ExternType, Linker, Module, Val, ValType};

pub use call::Suspended;
pub use host::{Answer, LogLine, Request, Stream};
pub use limits::Limit;

use crate::block::BlockRef;
use crate::change::Change;
use crate::change::decode::DecodeError;
use crate::config;
use crate::failure::{Kind, excerpt, some_of};
use call::Course;
use host::{Host, Stopped};

/// Why a module cannot be used, or what it did wrong in a block.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("`{name}` is no valid WebAssembly module")]
    Invalid {
        name: String,
        #[source]
        source: wasmi::Error,
    },
    #[error("`{name}` {problem}")]
    Unsuitable { name: String, problem: String },
    #[error("it used more than `limits.{}` allows ({allowed})", .limit.key())]
    Limit { limit: Limit, allowed: u64 },
    #[error(
        "this machine had no memory left for what `limits` allow the module; give it more, or lower `limits.memory_bytes`"
    )]
    Starved,
    #[error("it trapped{}", said(.last_words))]
    Trap {
        /// The last lines that it wrote to its standard error.
        last_words: String,
        #[source]
        source: wasmi::Error,
    },
    #[error("it returned -1 (failed){}", said(.last_words))]
    Failed { last_words: String },
    #[error("{0}")]
    Misuse(String),
    #[error(transparent)]
    Changes(#[from] DecodeError),
}

fn said(last_words: &str) -> String {
    if last_words.is_empty() { String::new() } else { format!("; its last words: {last_words}") }
}

impl RuntimeError {
    pub fn kind(&self) -> Kind {
        match self {
            // Nothing of it is the transform's doing.
            RuntimeError::Starved => Kind::Transient,
            // A transform is deterministic: it does the same again.
            RuntimeError::Invalid { .. }
            | RuntimeError::Unsuitable { .. }
            | RuntimeError::Limit { .. }
            | RuntimeError::Trap { .. }
            | RuntimeError::Failed { .. }
            | RuntimeError::Misuse(_)
            | RuntimeError::Changes(_) => Kind::Permanent,
        }
    }
}

/// A compiled transform. Cheap to clone.
#[derive(Clone)]
pub struct Transform(Arc<Compiled>);

/// Of the binary interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

struct Compiled {
    engine: Engine,
    version: Version,
    module: Module,
    linker: Linker<Host>,
    limits: config::Limits,
    grows_tables: bool,
    /// How much fuel the interpreter is given at a time.
    portion: u64,
}

/// What a transform does next.
pub enum Step {
    /// It waits for this.
    Ask(Request, Box<Suspended>),
    Done(Output),
}

/// What came of a block.
#[derive(Debug, Default)]
pub struct Output {
    /// Changes that were pushed first, then those of the list that was returned, each in their order.
    pub changes: Vec<Change>,
    /// The state's writes, one a key.
    pub state: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub log: Vec<LogLine>,
    pub fuel_used: u64,
    /// How much it handed over, as `limits.output_bytes` counts it.
    pub bytes: usize,
    /// How large its memory was in the end.
    pub memory_bytes: usize,
}

impl Transform {
    /// Compiles a module and checks all that can be checked before the first block: that it is valid, exports
    /// what it must, and imports nothing that the host does not have. `name` is for messages.
    pub fn compile(
        name: &str,
        wasm: &[u8],
        limits: &config::Limits,
        unknown_imports: config::UnknownImports,
    ) -> Result<Transform, RuntimeError> {
        let engine = engine::engine();
        let unsuitable = |problem| RuntimeError::Unsuitable { name: name.to_owned(), problem };
        if !wasm.starts_with(b"\0asm") {
            return Err(unsuitable("is no WebAssembly module: it does not begin with `\\0asm`".into()));
        }
        let engine::Traits { grows_tables } = engine::inspect(wasm).map_err(unsuitable)?;
        let invalid = |source| RuntimeError::Invalid { name: name.to_owned(), source };
        let module = Module::new(&engine, wasm).map_err(invalid)?;
        check_exports(&module).map_err(unsuitable)?;
        let version = version(&module).map_err(unsuitable)?;
        let linker = link(&engine, &module, version, unknown_imports).map_err(unsuitable)?;
        let (limits, portion) = (limits.clone(), fuel::PORTION);
        Ok(Transform(Arc::new(Compiled { engine, version, module, linker, limits, grows_tables, portion })))
    }

    /// Runs the transform for a block, up to its first request or its end.
    pub fn begin(&self, at: BlockRef) -> Result<Step, RuntimeError> {
        Course::new(self, at).begin()
    }
}

fn check_exports(module: &Module) -> Result<(), String> {
    match module.get_export("memory") {
        Some(ExternType::Memory(_)) => {}
        _ => return Err("does not export its memory as `memory`".into()),
    }
    match module.get_export("process_block") {
        Some(ExternType::Func(function))
            if function.params().is_empty() && *function.results() == [ValType::I32] => {}
        Some(other) => {
            return Err(format!("exports `process_block` as {other:?}; it must be a function `() -> i32`"));
        }
        None => return Err("does not export the function `process_block() -> i32`".into()),
    }
    Ok(())
}

/// The version that the module was built for: an export's name says it, so that it is known before anything runs.
fn version(module: &Module) -> Result<Version, String> {
    const PREFIX: &str = "debshrew_abi_version";
    let mut version = Version::One;
    for export in module.exports() {
        match export.name() {
            "debshrew_abi_version_2" => version = Version::Two,
            other if other.starts_with(PREFIX) => {
                return Err(format!(
                    "asks by its export `{}` for a binary interface that this debshrew does not know; it knows \
                     version 2 (export `{PREFIX}_2`) and version 1 (no such export)",
                    excerpt(other)
                ));
            }
            _ => {}
        }
    }
    Ok(version)
}

fn link(
    engine: &Engine,
    module: &Module,
    version: Version,
    unknown: config::UnknownImports,
) -> Result<Linker<Host>, String> {
    let mut linker = Linker::new(engine);
    match version {
        Version::One => v1::define(&mut linker),
        Version::Two => v2::define(&mut linker),
    }
    .map_err(|error| format!("cannot be linked: {error}"))?;
    let mut strangers = Vec::new();
    for import in module.imports() {
        let name = format!("`{}.{}`", excerpt(import.module()), excerpt(import.name()));
        let ExternType::Func(wanted) = import.ty() else {
            return Err(format!(
                "imports {name}, which is no function; memories, tables and globals cannot be imported"
            ));
        };
        let known = match version {
            Version::One => v1::signature(import.module(), import.name()),
            Version::Two => v2::signature(import.module(), import.name()),
        };
        if let Some(known) = known {
            if known != *wanted {
                return Err(format!("imports {name} as {wanted:?}; it is {known:?}"));
            }
        } else if unknown == config::UnknownImports::Refuse {
            strangers.push(name);
        } else {
            let called = name.clone();
            let trap = move |_: wasmi::Caller<'_, Host>, _: &[Val], _: &mut [Val]| {
                Err(Stopped::misuse(format!("it called the unknown import {called}")).into())
            };
            // One that is imported twice is defined already.
            let _ = linker.func_new(import.module(), import.name(), wanted.clone(), trap);
        }
    }
    if strangers.is_empty() {
        return Ok(linker);
    }
    let hint = match version {
        Version::One if module.imports().any(|import| import.module() == "debshrew") => {
            "imports from `debshrew` are version 2's, which a module asks for by an export \
             `debshrew_abi_version_2`"
        }
        Version::Two
            if module.imports().any(|import| v1::signature(import.module(), import.name()).is_some()) =>
        {
            "it exports `debshrew_abi_version_2`, and imports from `env` are version 1's"
        }
        _ => "if it never calls them, set `unknown_imports = \"trap\"`",
    };
    Err(format!("imports what debshrew does not have: {}; {hint}", some_of(&strangers, ", ")))
}

#[cfg(test)]
mod tests;
