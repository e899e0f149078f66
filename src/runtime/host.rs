//! The host's side of binary interface version 1: the functions that a transform imports from `env`, and what
//! is kept of a block while it runs.
//!
//! Whatever a guest hands over is hostile: each pointer and length is checked against its memory.

use std::collections::HashMap;
use std::fmt;

use indexmap::IndexMap;
use wasmi::errors::{HostError, LinkerError};
use wasmi::{Caller, Engine, FuncType, Linker, Memory, ValType};

use super::RuntimeError;
use super::limits::{Limit, Room};
use crate::block::BlockRef;
use crate::change::Change;
use crate::change::decode::decode_one;
use crate::config::Limits;

/// What a transform waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A view's answer at the block's height.
    View { name: String, input: Vec<u8> },
    /// The value of a key of its state, as the block before left it.
    State { key: Vec<u8> },
}

/// The answer to a [`Request`] of the same kind.
#[derive(Clone, Debug)]
pub enum Answer {
    View(Result<Vec<u8>, ViewFailure>),
    State(Option<Vec<u8>>),
}

/// The source said that it could not answer; the transform is told, and may go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ViewFailure {
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What a transform wrote to its standard output or error in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub stream: Stream,
    pub text: String,
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

/// Suspends the call: the host function cannot answer by itself.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    View { name: String, input: Vec<u8> },
    GetState { key: Vec<u8> },
    DeleteState { key: Vec<u8> },
}

impl Asked {
    pub(super) fn request(&self) -> Request {
        match self.clone() {
            Asked::View { name, input } => Request::View { name, input },
            Asked::GetState { key } | Asked::DeleteState { key } => Request::State { key },
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("waiting for an answer")
    }
}

impl HostError for Asked {}

/// Ends the call for good.
#[derive(Clone, Debug)]
pub(super) enum Stopped {
    Limit { limit: Limit, allowed: u64 },
    Misuse(String),
}

impl Stopped {
    pub(super) fn misuse(problem: String) -> Stopped {
        Stopped::Misuse(problem)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Limit { limit, .. } => write!(f, "`limits.{}` is used up", limit.key()),
            Stopped::Misuse(problem) => f.write_str(problem),
        }
    }
}

impl HostError for Stopped {}

impl From<Stopped> for wasmi::Error {
    fn from(stopped: Stopped) -> wasmi::Error {
        wasmi::Error::host(stopped)
    }
}

impl From<Stopped> for RuntimeError {
    fn from(stopped: Stopped) -> RuntimeError {
        match stopped {
            Stopped::Limit { limit, allowed } => RuntimeError::Limit { limit, allowed },
            Stopped::Misuse(problem) => RuntimeError::Misuse(problem),
        }
    }
}

/// A block's evaluation.
pub(super) struct Host {
    at: BlockRef,
    pub(super) limits: Limits,
    pub(super) room: Room,
    pub(super) memory: Option<Memory>,
    /// What `__load` copies.
    pending: Vec<u8>,
    pub(super) changes: Vec<Change>,
    /// The block's own writes, in the order in which their keys were written first.
    pub(super) state: IndexMap<Vec<u8>, Option<Vec<u8>>>,
    /// Whether a key that was asked for had a value before the block: what deletes it later need not ask again.
    existed: HashMap<Vec<u8>, bool>,
    pub(super) log: Log,
    pub(super) output_bytes: usize,
    calls: u32,
}

/// What keeping a write of the state takes beside its bytes, roughly: many short ones must not add up unseen.
const ENTRY_BYTES: usize = 64;

/// Kept up to a number of bytes; that something was written beyond is noted. Empty lines would cost nothing and
/// are not kept.
#[derive(Default)]
pub(super) struct Log {
    pub(super) lines: Vec<LogLine>,
    bytes: usize,
    cut: bool,
}

impl Log {
    fn write(&mut self, stream: Stream, bytes: &[u8], most: usize) {
        let room = most.saturating_sub(self.bytes);
        if bytes.is_empty() {
            return;
        }
        if bytes.len() > room {
            if !self.cut {
                let text =
                    format!("(what the transform wrote beyond {most} bytes is left out: `limits.log_bytes`)");
                self.lines.push(LogLine { stream, text });
                self.cut = true;
            }
            return;
        }
        self.bytes += bytes.len();
        self.lines.push(LogLine { stream, text: String::from_utf8_lossy(bytes).into_owned() });
    }
}

type HostResult<T> = Result<T, wasmi::Error>;

impl Host {
    pub(super) fn new(at: BlockRef, limits: &Limits) -> Host {
        Host {
            at,
            limits: limits.clone(),
            room: Room::new(limits),
            memory: None,
            pending: Vec::new(),
            changes: Vec::new(),
            state: IndexMap::new(),
            existed: HashMap::new(),
            log: Log::default(),
            output_bytes: 0,
            calls: 0,
        }
    }

    /// The end of what was written to the standard error, for messages.
    pub(super) fn last_words(&self) -> String {
        const MOST_LINES: usize = 5;
        let lines: Vec<&str> = self
            .log
            .lines
            .iter()
            .filter(|line| line.stream == Stream::Stderr)
            .map(|line| line.text.trim())
            .collect();
        lines[lines.len().saturating_sub(MOST_LINES)..].join(" / ")
    }

    pub(super) fn spend_output(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.output_bytes = self.output_bytes.saturating_add(bytes);
        if self.output_bytes > self.limits.output_bytes {
            return Err(Stopped::Limit { limit: Limit::Output, allowed: self.limits.output_bytes as u64 });
        }
        Ok(())
    }

    fn spend_call(&mut self) -> Result<(), Stopped> {
        self.calls = self.calls.saturating_add(1);
        if self.calls > self.limits.calls {
            return Err(Stopped::Limit { limit: Limit::Calls, allowed: self.limits.calls.into() });
        }
        Ok(())
    }

    /// Makes a result the pending one, and gives its length.
    fn offer(&mut self, result: Vec<u8>) -> Result<i32, Stopped> {
        let length = i32::try_from(result.len()).map_err(|_| {
            Stopped::misuse(format!("an answer of {} bytes is more than can be handed over", result.len()))
        })?;
        self.pending = result;
        Ok(length)
    }

    /// There is no result: nothing of an earlier one may be taken for it.
    fn withdraw(&mut self, answer: i32) -> i32 {
        self.pending = Vec::new();
        answer
    }

    /// Takes in what was asked for; gives what the import returns.
    pub(super) fn answered(&mut self, asked: Asked, answer: Answer) -> Result<i32, Stopped> {
        match (asked, answer) {
            (Asked::View { .. }, Answer::View(Ok(bytes))) => self.offer(bytes),
            (Asked::View { name, .. }, Answer::View(Err(failure))) => {
                let text = format!("view `{name}` failed: {failure}");
                self.log.write(Stream::Stderr, text.as_bytes(), self.limits.log_bytes);
                Ok(self.withdraw(-1))
            }
            (Asked::GetState { key }, Answer::State(value)) => {
                self.existed.insert(key, value.is_some());
                match value {
                    Some(value) => self.offer(value),
                    None => Ok(self.withdraw(0)),
                }
            }
            (Asked::DeleteState { key }, Answer::State(value)) => {
                self.state.insert(key, None);
                Ok(value.is_some().into())
            }
            (asked, _) => {
                Err(Stopped::misuse(format!("the answer does not fit the request {:?}", asked.request())))
            }
        }
    }
}

/// The bytes of a buffer: at `pointer` a little-endian length of 4 bytes, then that many bytes.
pub(super) fn buffer(memory: &[u8], pointer: u32) -> Result<&[u8], String> {
    let outside = || format!("pointer {pointer} is outside the memory of {} bytes", memory.len());
    let rest = memory.get(pointer as usize..).ok_or_else(outside)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(outside)?;
    let length = u32::from_le_bytes(*length) as usize;
    rest.get(..length).ok_or_else(|| {
        format!(
            "its length of {length} bytes at {pointer} reaches beyond the memory of {} bytes",
            memory.len()
        )
    })
}

/// A copy of the guest's buffer, paid for with fuel, so that copying cannot outlast its limit.
fn take(caller: &mut Caller<'_, Host>, import: &str, pointer: i32) -> HostResult<Vec<u8>> {
    let memory = memory(caller)?;
    let found = buffer(memory.data(&*caller), pointer as u32);
    let bytes = found
        .map_err(|problem| Stopped::misuse(format!("`{import}` was called wrongly: {problem}")))?
        .to_vec();
    spend_fuel(caller, bytes.len())?;
    Ok(bytes)
}

fn memory(caller: &mut Caller<'_, Host>) -> HostResult<Memory> {
    // In a start function the host has not noted it yet.
    let memory =
        caller.data().memory.or_else(|| caller.get_export("memory").and_then(wasmi::Extern::into_memory));
    memory.ok_or_else(|| Stopped::misuse("it has no memory".into()).into())
}

/// About one unit a word, as the interpreter takes for the guest's own copies.
fn spend_fuel(caller: &mut Caller<'_, Host>, bytes: usize) -> HostResult<()> {
    let used_up = Stopped::Limit { limit: Limit::Fuel, allowed: caller.data().limits.fuel };
    let left = caller.get_fuel()?.checked_sub(bytes as u64 / 8).ok_or(used_up)?;
    caller.set_fuel(left)
}

fn height(caller: Caller<'_, Host>) -> i32 {
    caller.data().at.height.to_sql()
}

fn block_hash(mut caller: Caller<'_, Host>) -> HostResult<i32> {
    let hash = caller.data().at.hash.as_bytes().to_vec();
    Ok(caller.data_mut().offer(hash)?)
}

fn view(mut caller: Caller<'_, Host>, name: i32, input: i32) -> HostResult<i32> {
    let name = take(&mut caller, "__view", name)?;
    let input = take(&mut caller, "__view", input)?;
    let host = caller.data_mut();
    host.spend_call()?;
    host.spend_output(name.len() + input.len())?;
    let name = String::from_utf8(name)
        .map_err(|_| Stopped::misuse("`__view` was called with a name that is not UTF-8".into()))?;
    Err(wasmi::Error::host(Asked::View { name, input }))
}

fn load(mut caller: Caller<'_, Host>, pointer: i32) -> HostResult<()> {
    let memory = memory(&mut caller)?;
    let length = caller.data().pending.len();
    spend_fuel(&mut caller, length)?;
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    let size = bytes.len();
    let place = bytes.get_mut(pointer as u32 as usize..).and_then(|rest| rest.get_mut(..length));
    let place = place.ok_or_else(|| {
        Stopped::misuse(format!(
            "`__load` was called wrongly: {length} bytes at {} reach beyond the memory of {size} bytes",
            pointer as u32
        ))
    })?;
    place.copy_from_slice(&host.pending);
    Ok(())
}

fn get_state(mut caller: Caller<'_, Host>, key: i32) -> HostResult<i32> {
    let key = take(&mut caller, "__get_state", key)?;
    let own = caller.data().state.get(&key).and_then(Option::as_ref).map_or(0, Vec::len);
    spend_fuel(&mut caller, own)?;
    let host = caller.data_mut();
    match host.state.get(&key) {
        Some(Some(value)) => {
            let value = value.clone();
            Ok(host.offer(value)?)
        }
        Some(None) => Ok(host.withdraw(0)),
        None => {
            host.spend_call()?;
            host.spend_output(key.len())?;
            Err(wasmi::Error::host(Asked::GetState { key }))
        }
    }
}

fn set_state(mut caller: Caller<'_, Host>, key: i32, value: i32) -> HostResult<i32> {
    let key = take(&mut caller, "__set_state", key)?;
    let value = take(&mut caller, "__set_state", value)?;
    let host = caller.data_mut();
    host.spend_output(key.len() + value.len() + ENTRY_BYTES)?;
    host.state.insert(key, Some(value));
    Ok(1)
}

fn delete_state(mut caller: Caller<'_, Host>, key: i32) -> HostResult<i32> {
    let key = take(&mut caller, "__delete_state", key)?;
    let host = caller.data_mut();
    host.spend_output(key.len() + ENTRY_BYTES)?;
    if let Some(value) = host.state.get_mut(&key) {
        return Ok(value.take().is_some().into());
    }
    if let Some(existed) = host.existed.remove(&key) {
        host.state.insert(key, None);
        return Ok(existed.into());
    }
    host.spend_call()?;
    Err(wasmi::Error::host(Asked::DeleteState { key }))
}

fn log(mut caller: Caller<'_, Host>, stream: Stream, import: &str, text: i32) -> HostResult<()> {
    let memory = memory(&mut caller)?;
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    let text = buffer(bytes, text as u32)
        .map_err(|problem| Stopped::misuse(format!("`{import}` was called wrongly: {problem}")))?;
    host.log.write(stream, text, host.limits.log_bytes);
    Ok(())
}

fn push_change(mut caller: Caller<'_, Host>, message: i32) -> HostResult<i32> {
    let message = take(&mut caller, "__push_cdc_message", message)?;
    let host = caller.data_mut();
    host.spend_output(message.len())?;
    let change = decode_one(host.changes.len(), &message);
    host.changes.push(change.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Stopped::misuse(format!("`__push_cdc_message`: {error}{cause}"))
    })?);
    Ok(0)
}

/// Defines every import of version 1.
pub(super) fn define(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    linker.func_wrap("env", "__height", height)?;
    linker.func_wrap("env", "__block_hash", block_hash)?;
    linker.func_wrap("env", "__view", view)?;
    linker.func_wrap("env", "__load", load)?;
    linker.func_wrap("env", "__get_state", get_state)?;
    linker.func_wrap("env", "__set_state", set_state)?;
    linker.func_wrap("env", "__delete_state", delete_state)?;
    linker.func_wrap("env", "__push_cdc_message", push_change)?;
    linker.func_wrap("env", "__stdout", |caller: Caller<'_, Host>, text: i32| {
        log(caller, Stream::Stdout, "__stdout", text)
    })?;
    linker.func_wrap("env", "__stderr", |caller: Caller<'_, Host>, text: i32| {
        log(caller, Stream::Stderr, "__stderr", text)
    })?;
    Ok(())
}

/// The type of an import that the host has.
pub(super) fn signature(_engine: &Engine, module: &str, name: &str) -> Option<FuncType> {
    const I32: ValType = ValType::I32;
    let (takes, gives) = match (module, name) {
        ("env", "__height" | "__block_hash") => (0, 1),
        ("env", "__view" | "__set_state") => (2, 1),
        ("env", "__get_state" | "__delete_state" | "__push_cdc_message") => (1, 1),
        ("env", "__load" | "__stdout" | "__stderr") => (1, 0),
        _ => return None,
    };
    Some(FuncType::new(vec![I32; takes], vec![I32; gives]))
}
