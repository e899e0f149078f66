//! What the host keeps of a block while its transform runs, and what both versions of the binary interface do
//! with it.
//!
//! Knows nothing of how a version passes its arguments: `v1` and `v2` do.

use std::collections::HashMap;
use std::fmt;

use indexmap::IndexMap;
use wasmi::Memory;
use wasmi::errors::HostError;

use super::limits::{Limit, Room};
use super::{RuntimeError, Version};
use crate::block::BlockRef;
use crate::change::binary::Decoder;
use crate::change::{Change, Recent};
use crate::config::Limits;
use crate::view;

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
    View(view::Answer),
    State(Option<Vec<u8>>),
}

impl Answer {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Answer::View(answer) => answer.as_ref().map_or(0, Vec::len),
            Answer::State(value) => value.as_ref().map_or(0, Vec::len),
        }
    }
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
    pub(super) version: Version,
    at: BlockRef,
    pub(super) limits: Limits,
    pub(super) room: Room,
    /// Fuel that the interpreter has not been given yet.
    pub(super) reserve: u64,
    /// Fuel that the host's own work took.
    pub(super) paid: u64,
    pub(super) memory: Option<Memory>,
    /// What `__load` copies.
    pub(super) pending: Vec<u8>,
    pub(super) changes: Vec<Change>,
    /// What version 1's messages have in common with those before them.
    pub(super) recent: Recent,
    /// What version 2 has declared so far.
    pub(super) decoder: Decoder,
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

pub(super) type HostResult<T> = Result<T, wasmi::Error>;

impl Host {
    pub(super) fn new(version: Version, at: BlockRef, limits: &Limits) -> Host {
        Host {
            version,
            at,
            limits: limits.clone(),
            room: Room::new(limits),
            reserve: limits.fuel,
            paid: 0,
            memory: None,
            pending: Vec::new(),
            changes: Vec::new(),
            recent: Recent::default(),
            decoder: Decoder::default(),
            state: IndexMap::new(),
            existed: HashMap::new(),
            log: Log::default(),
            output_bytes: 0,
            calls: 0,
        }
    }

    pub(super) fn height(&self) -> i32 {
        self.at.height.to_sql()
    }

    pub(super) fn hash(&self) -> &[u8; 32] {
        self.at.hash.as_bytes()
    }

    pub(super) fn write_log(&mut self, stream: Stream, bytes: &[u8]) {
        self.log.write(stream, bytes, self.limits.log_bytes);
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

    /// Keeps a change, if there is room for it.
    pub(super) fn keep(&mut self, change: Change) -> Result<(), Stopped> {
        self.spend_output(change.cost())?;
        self.changes.push(change);
        Ok(())
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

    /// Suspends the call to ask for a view; `import` is for messages.
    pub(super) fn ask_view(&mut self, import: &str, name: Vec<u8>, input: Vec<u8>) -> HostResult<i32> {
        self.spend_call()?;
        self.spend_output(name.len() + input.len())?;
        let name = String::from_utf8(name)
            .map_err(|_| Stopped::misuse(format!("{import} was called with a name that is not UTF-8")))?;
        Err(wasmi::Error::host(Asked::View { name, input }))
    }

    /// How long a value is that the block has written itself: reading it copies it.
    pub(super) fn own_bytes(&self, key: &[u8]) -> usize {
        self.state.get(key).and_then(Option::as_ref).map_or(0, Vec::len)
    }

    /// Gives the value's length, the value becoming the pending result; 0 without one. Suspends the call to ask
    /// for what the block has not written itself.
    pub(super) fn get_state(&mut self, key: Vec<u8>) -> HostResult<i32> {
        match self.state.get(&key) {
            Some(Some(value)) => {
                let value = value.clone();
                Ok(self.offer(value)?)
            }
            Some(None) => Ok(self.withdraw(0)),
            None => {
                self.spend_call()?;
                self.spend_output(key.len())?;
                Err(wasmi::Error::host(Asked::GetState { key }))
            }
        }
    }

    pub(super) fn set_state(&mut self, key: Vec<u8>, value: Vec<u8>) -> HostResult<()> {
        self.spend_output(key.len() + value.len() + ENTRY_BYTES)?;
        self.state.insert(key, Some(value));
        Ok(())
    }

    /// Gives 1 if the key was there, else 0; suspends the call to ask where the block does not know.
    pub(super) fn delete_state(&mut self, key: Vec<u8>) -> HostResult<i32> {
        self.spend_output(key.len() + ENTRY_BYTES)?;
        if let Some(value) = self.state.get_mut(&key) {
            return Ok(value.take().is_some().into());
        }
        if let Some(existed) = self.existed.remove(&key) {
            self.state.insert(key, None);
            return Ok(existed.into());
        }
        self.spend_call()?;
        Err(wasmi::Error::host(Asked::DeleteState { key }))
    }

    /// Makes a result the pending one, and gives its length.
    pub(super) fn offer(&mut self, result: Vec<u8>) -> Result<i32, Stopped> {
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
                self.write_log(Stream::Stderr, text.as_bytes());
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
