//! One block's call of `process_block`: begun, suspended and resumed, given fuel in portions, and finished.

use std::ops::Range;

use wasmi::{
    Extern, Memory, Store, TypedResumableCall, TypedResumableCallHostTrap, TypedResumableCallOutOfFuel, Val,
};

use super::fuel::{self, PORTION, Price, pay};
use super::host::{Answer, Asked, Host, Stopped};
use super::limits::Limit;
use super::{Compiled, Output, RuntimeError, Step, Transform, Version, v1};
use crate::block::BlockRef;
use crate::change::decode::decode_list;

type Call = TypedResumableCall<i32>;

/// A block's evaluation, with what it takes to begin it again.
pub(super) struct Course {
    transform: Transform,
    at: BlockRef,
    portion: u64,
    /// What was answered so far; kept only where the evaluation may have to begin again.
    answers: Option<Vec<Answer>>,
    /// Where no portion may end: the interpreter's fuel when a `table.grow` began, and with it.
    cuts: Vec<Range<u64>>,
    /// How many bytes the answers have that are kept.
    kept: usize,
    /// Fuel of evaluations that were begun again.
    lost: u64,
}

impl Course {
    pub(super) fn new(transform: &Transform, at: BlockRef) -> Course {
        let Compiled { portion, grows_tables, .. } = &*transform.0;
        let answers = grows_tables.then(Vec::new);
        Course {
            transform: transform.clone(),
            at,
            portion: *portion,
            answers,
            cuts: Vec::new(),
            kept: 0,
            lost: 0,
        }
    }

    pub(super) fn begin(self) -> Result<Step, RuntimeError> {
        let transform = self.transform.clone();
        let Compiled { engine, version, module, linker, limits, .. } = &*transform.0;
        let mut store = Store::new(engine, Host::new(*version, self.at, limits));
        store.limiter(|host| &mut host.room);
        self.refill(&mut store, 0)?;
        let instance = match linker.instantiate_and_start(&mut store, module) {
            Ok(instance) => instance,
            Err(error) if is_out_of_fuel(&error) && store.data().reserve > 0 => {
                return Err(RuntimeError::Misuse(format!(
                    "its start function takes more than {PORTION} units of fuel; `process_block` may take more"
                )));
            }
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
        self.go_on(store, memory, call)
    }

    fn go_on(
        self,
        mut store: Store<Host>,
        memory: Memory,
        mut call: Result<Call, wasmi::Error>,
    ) -> Result<Step, RuntimeError> {
        loop {
            call = match call {
                Ok(Call::Finished(result)) => return finish(store, memory, result).map(Step::Done),
                Ok(Call::HostTrap(call)) => return self.suspend(store, memory, call),
                Ok(Call::OutOfFuel(call)) => {
                    let required = call.required_fuel();
                    let used = self.refill(&mut store, required)?;
                    if store.data().room.cut_off {
                        return self.begin_again(used..used.saturating_add(required));
                    }
                    TypedResumableCallOutOfFuel::resume(call, &mut store)
                }
                Err(error) => return Err(explain(&store, error)),
            }
        }
    }

    fn suspend(
        self,
        store: Store<Host>,
        memory: Memory,
        call: TypedResumableCallHostTrap<i32>,
    ) -> Result<Step, RuntimeError> {
        if let Some(asked) = call.host_error().downcast_ref::<Asked>() {
            let (asked, request) = (asked.clone(), asked.request());
            return Ok(Step::Ask(request, Box::new(Suspended { course: self, store, memory, call, asked })));
        }
        match call.host_error().downcast_ref::<Stopped>() {
            Some(stopped) => Err(stopped.clone().into()),
            None => Err(RuntimeError::Misuse("a host function failed".into())),
        }
    }

    /// Keeps an answer for an evaluation that is begun again, up to as many bytes as the module itself may have.
    fn keep(&mut self, answer: &Answer) {
        let Some(answers) = &mut self.answers else { return };
        self.kept = self.kept.saturating_add(answer.bytes());
        if self.kept <= self.transform.0.limits.memory_bytes {
            answers.push(answer.clone());
        } else {
            self.answers = None;
        }
    }

    /// Gives the interpreter its next portion, or more if what it is about to do needs more; returns how much fuel it
    /// used before.
    fn refill(&self, store: &mut Store<Host>, required: u64) -> Result<u64, Stopped> {
        fuel::settle(&mut *store)?;
        let used = fuel::used(&mut *store);
        let mut end = used.saturating_add(self.portion.max(required));
        for cut in &self.cuts {
            if cut.contains(&end) {
                end = cut.end;
            }
        }
        fuel::give(store, end - used, required)?;
        Ok(used)
    }

    /// The interpreter does not go on after a `table.grow` that its portion did not suffice for. It comes there again
    /// with the same fuel used, and then has enough. All in all a block takes twice its fuel's time at most.
    fn begin_again(mut self, cut: Range<u64>) -> Result<Step, RuntimeError> {
        const MOST: usize = 16;
        self.lost = self.lost.saturating_add(cut.start);
        if self.cuts.len() == MOST || self.lost > self.transform.0.limits.fuel || self.answers.is_none() {
            return Err(RuntimeError::Misuse("it grows its tables too often".into()));
        }
        self.cuts.push(cut);
        self.cuts.sort_by_key(|cut| cut.start);
        let answers = self.answers.replace(Vec::new()).unwrap_or_default();
        self.kept = 0;
        let mut step = self.begin()?;
        for answer in answers {
            step = match step {
                Step::Ask(_, suspended) => suspended.resume(answer)?,
                done @ Step::Done(_) => return Ok(done),
            }
        }
        Ok(step)
    }
}

/// A transform that waits for an answer.
pub struct Suspended {
    course: Course,
    store: Store<Host>,
    memory: Memory,
    call: TypedResumableCallHostTrap<i32>,
    asked: Asked,
}

impl Suspended {
    /// Goes on with the answer, up to the next request or the end.
    pub fn resume(self, answer: Answer) -> Result<Step, RuntimeError> {
        let Suspended { mut course, mut store, memory, call, asked } = self;
        pay(&mut store, Price::Question)?;
        pay(&mut store, Price::Take(answer.bytes()))?;
        course.keep(&answer);
        let value = store.data_mut().answered(asked, answer)?;
        let call = call.resume(&mut store, &[Val::I32(value)]);
        course.go_on(store, memory, call)
    }
}

/// Reads what `process_block` returned: nothing, a failure, or (in version 1) where its list of changes is.
fn finish(mut store: Store<Host>, memory: Memory, result: i32) -> Result<Output, RuntimeError> {
    match result {
        0 => {}
        -1 => return Err(RuntimeError::Failed { last_words: store.data().last_words() }),
        other if store.data().version == Version::Two => {
            return Err(RuntimeError::Misuse(format!(
                "it returned {other}; in version 2 `process_block` returns 0, or -1 when it failed"
            )));
        }
        pointer => take_list(&mut store, memory, pointer)?,
    }
    fuel::settle(&mut store)?;
    let fuel_left = fuel::left(&mut store);
    let memory_bytes = memory.data_size(&store);
    let host = store.into_data();
    Ok(Output {
        changes: host.changes,
        state: host.state.into_iter().collect(),
        log: host.log.lines,
        fuel_used: host.limits.fuel.saturating_sub(fuel_left),
        bytes: host.output_bytes,
        memory_bytes,
    })
}

/// Takes the changes that version 1 returned, behind those that it pushed.
fn take_list(store: &mut Store<Host>, memory: Memory, pointer: i32) -> Result<(), RuntimeError> {
    let length = list(memory.data(&*store), pointer)?.len();
    pay(&mut *store, Price::Json(length))?;
    let affordable = fuel::left(&mut *store);
    let (bytes, host) = memory.data_and_store_mut(&mut *store);
    host.spend_output(length)?;
    let mut recent = std::mem::take(&mut host.recent);
    let mut units = 0;
    decode_list(&mut recent, list(bytes, pointer)?, |recent, change| {
        units += v1::decoded(change.values.len()).units();
        if units > affordable {
            return Err(Stopped::Limit { limit: Limit::Fuel, allowed: host.limits.fuel }.into());
        }
        host.spend_output(recent.take_cost())?;
        Ok::<(), RuntimeError>(host.keep(change)?)
    })?;
    Ok(pay(store, Price::Units(units))?)
}

fn list(memory: &[u8], pointer: i32) -> Result<&[u8], RuntimeError> {
    v1::buffer(memory, pointer as u32).map_err(|problem| {
        RuntimeError::Misuse(format!("it returned {pointer}, which is no buffer: {problem}"))
    })
}

fn is_out_of_fuel(error: &wasmi::Error) -> bool {
    error.as_trap_code() == Some(wasmi::TrapCode::OutOfFuel)
}

/// What an error of the interpreter's means: a limit, if one was met, or a trap of the transform's own.
fn explain(store: &Store<Host>, error: wasmi::Error) -> RuntimeError {
    let host = store.data();
    if host.room.starved || error.as_trap_code() == Some(wasmi::TrapCode::OutOfSystemMemory) {
        return RuntimeError::Starved;
    }
    if is_out_of_fuel(&error) {
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
