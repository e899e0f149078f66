//! Runs a transform: a WebAssembly module, in the wasmi interpreter, once per block, with binary interface
//! version 1 or 2.
//!
//! Does no I/O. Where the transform asks for a view or for its state, the call is suspended and the request
//! handed to the caller, who resumes it with the answer. The module is compiled once; each block runs in a
//! fresh instance, under limits of fuel, memory, tables, output and calls.

mod engine;
mod host;
mod limits;
mod v1;
mod v2;

use std::sync::Arc;

use wasmi::{
    Engine, Extern, ExternType, Linker, Memory, Module, Store, TypedResumableCall,
    TypedResumableCallHostTrap, Val, ValType,
};

pub use host::{Answer, LogLine, Request, Stream};
pub use limits::Limit;

use crate::block::BlockRef;
use crate::change::Change;
use crate::change::decode::{DecodeError, decode_list};
use crate::config;
use crate::failure::Kind;
use host::{Asked, Host, Stopped};

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
        engine::check_types(wasm).map_err(unsuitable)?;
        let invalid = |source| RuntimeError::Invalid { name: name.to_owned(), source };
        let module = Module::new(&engine, wasm).map_err(invalid)?;
        check_exports(&module).map_err(unsuitable)?;
        let version = version(&module).map_err(unsuitable)?;
        let linker = link(&engine, &module, version, unknown_imports).map_err(unsuitable)?;
        Ok(Transform(Arc::new(Compiled { engine, version, module, linker, limits: limits.clone() })))
    }

    /// Runs the transform for a block, up to its first request or its end.
    pub fn begin(&self, at: BlockRef) -> Result<Step, RuntimeError> {
        let Compiled { engine, version, module, linker, limits } = &*self.0;
        let mut store = Store::new(engine, Host::new(*version, at, limits));
        store.limiter(|host| &mut host.room);
        set_fuel(&mut store, limits.fuel)?;
        let instance = match linker.instantiate_and_start(&mut store, module) {
            Ok(instance) => instance,
            Err(error) => return Err(explain(&store, error)),
        };
        let Some(Extern::Memory(memory)) = instance.get_export(&store, "memory") else {
            return Err(RuntimeError::Misuse("its export `memory` is gone".into()));
        };
        store.data_mut().memory = Some(memory);
        let process_block = match instance.get_typed_func::<(), i32>(&store, "process_block") {
            Ok(function) => function,
            Err(error) => return Err(explain(&store, error)),
        };
        let call = process_block.call_resumable(&mut store, ());
        go_on(store, memory, call)
    }
}

/// A transform that waits for an answer.
pub struct Suspended {
    store: Store<Host>,
    memory: Memory,
    call: TypedResumableCallHostTrap<i32>,
    asked: Asked,
}

impl Suspended {
    /// Goes on with the answer, up to the next request or the end.
    pub fn resume(self, answer: Answer) -> Result<Step, RuntimeError> {
        let Suspended { mut store, memory, call, asked } = self;
        let value = store.data_mut().answered(asked, answer)?;
        let call = call.resume(&mut store, &[Val::I32(value)]);
        go_on(store, memory, call)
    }
}

fn go_on(
    mut store: Store<Host>,
    memory: Memory,
    call: Result<TypedResumableCall<i32>, wasmi::Error>,
) -> Result<Step, RuntimeError> {
    match call {
        Ok(TypedResumableCall::Finished(result)) => finish(store, memory, result).map(Step::Done),
        Ok(TypedResumableCall::HostTrap(call)) => {
            if let Some(asked) = call.host_error().downcast_ref::<Asked>() {
                let asked = asked.clone();
                return Ok(Step::Ask(asked.request(), Box::new(Suspended { store, memory, call, asked })));
            }
            match call.host_error().downcast_ref::<Stopped>() {
                Some(stopped) => Err(stopped.clone().into()),
                None => Err(RuntimeError::Misuse("a host function failed".into())),
            }
        }
        Ok(TypedResumableCall::OutOfFuel(_)) => {
            let allowed = store.data_mut().limits.fuel;
            Err(RuntimeError::Limit { limit: Limit::Fuel, allowed })
        }
        Err(error) => Err(explain(&store, error)),
    }
}

/// Reads what `process_block` returned: nothing, a failure, or (in version 1) where its list of changes is.
fn finish(mut store: Store<Host>, memory: Memory, result: i32) -> Result<Output, RuntimeError> {
    let list = match result {
        0 => Vec::new(),
        -1 => return Err(RuntimeError::Failed { last_words: store.data().last_words() }),
        other if store.data().version == Version::Two => {
            return Err(RuntimeError::Misuse(format!(
                "it returned {other}; in version 2 `process_block` returns 0, or -1 when it failed"
            )));
        }
        pointer => {
            let (bytes, host) = memory.data_and_store_mut(&mut store);
            let buffer = v1::buffer(bytes, pointer as u32).map_err(|problem| {
                RuntimeError::Misuse(format!("it returned {pointer}, which is no buffer: {problem}"))
            })?;
            host.spend_output(buffer.len())?;
            decode_list(&mut host.recent, buffer)?
        }
    };
    let fuel_left = store.get_fuel().unwrap_or(0);
    let memory_bytes = memory.data_size(&store);
    let host = store.into_data();
    let mut changes = host.changes;
    changes.extend(list);
    Ok(Output {
        changes,
        state: host.state.into_iter().collect(),
        log: host.log.lines,
        fuel_used: host.limits.fuel.saturating_sub(fuel_left),
        bytes: host.output_bytes,
        memory_bytes,
    })
}

/// What an error of the interpreter's means: a limit, if one was met, or a trap of the transform's own.
fn explain(store: &Store<Host>, error: wasmi::Error) -> RuntimeError {
    let host = store.data();
    if host.room.starved || error.as_trap_code() == Some(wasmi::TrapCode::OutOfSystemMemory) {
        return RuntimeError::Starved;
    }
    if error.as_trap_code() == Some(wasmi::TrapCode::OutOfFuel) {
        return RuntimeError::Limit { limit: Limit::Fuel, allowed: host.limits.fuel };
    }
    if let Some((limit, allowed)) = host.room.refused() {
        return RuntimeError::Limit { limit, allowed };
    }
    let last_words = host.last_words();
    if error.downcast_ref::<Asked>().is_some() {
        // Only a call of `process_block` can be suspended.
        let problem = "it asked for a view or for its state in its start function; only `process_block` may";
        return RuntimeError::Misuse(problem.into());
    }
    match error.downcast_ref::<Stopped>() {
        Some(stopped) => stopped.clone().into(),
        None => RuntimeError::Trap { last_words, source: error },
    }
}

fn set_fuel(store: &mut Store<Host>, fuel: u64) -> Result<(), RuntimeError> {
    store.set_fuel(fuel).map_err(|source| RuntimeError::Trap { last_words: String::new(), source })
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
                    "asks by its export `{other}` for a binary interface that this debshrew does not know; it knows \
                     version 2 (export `{PREFIX}_2`) and version 1 (no such export)"
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
        let name = format!("`{}.{}`", import.module(), import.name());
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
    Err(format!("imports what debshrew does not have: {}; {hint}", strangers.join(", ")))
}

#[cfg(test)]
mod tests;
