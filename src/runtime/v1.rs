//! Binary interface version 1: the functions that a transform imports from `env`, with buffers that carry their
//! own length, and changes as JSON.

use wasmi::errors::LinkerError;
use wasmi::{Caller, FuncType, Linker, ValType};

use super::fuel::{Price, pay};
use super::guest::{self, memory};
use super::host::{Host, HostResult, Stopped, Stream};
use crate::change::Work;
use crate::change::decode::decode_one;

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
    pay(caller, Price::Take(bytes.len()))?;
    Ok(bytes)
}

/// A change's share in the price of a message, beside its bytes.
pub(super) fn decoded(columns: usize) -> Price {
    Price::Decode(Work { changes: 1, columns: columns as u64, ..Work::default() })
}

fn height(mut caller: Caller<'_, Host>) -> HostResult<i32> {
    pay(&mut caller, Price::Call)?;
    Ok(caller.data().height())
}

fn block_hash(mut caller: Caller<'_, Host>) -> HostResult<i32> {
    pay(&mut caller, Price::Call)?;
    let hash = caller.data().hash().to_vec();
    Ok(caller.data_mut().offer(hash)?)
}

fn view(mut caller: Caller<'_, Host>, name: i32, input: i32) -> HostResult<i32> {
    pay(&mut caller, Price::Call)?;
    let name = take(&mut caller, "__view", name)?;
    let input = take(&mut caller, "__view", input)?;
    caller.data_mut().ask_view("`__view`", name, input)
}

fn load(caller: Caller<'_, Host>, pointer: i32) -> HostResult<()> {
    guest::load(caller, "`__load`", pointer)
}

fn get_state(mut caller: Caller<'_, Host>, key: i32) -> HostResult<i32> {
    pay(&mut caller, Price::Call)?;
    let key = take(&mut caller, "__get_state", key)?;
    pay(&mut caller, Price::Key(key.len()))?;
    let own = caller.data().own_bytes(&key);
    pay(&mut caller, Price::Take(own))?;
    caller.data_mut().get_state(key)
}

fn set_state(mut caller: Caller<'_, Host>, key: i32, value: i32) -> HostResult<i32> {
    pay(&mut caller, Price::Entry)?;
    let key = take(&mut caller, "__set_state", key)?;
    pay(&mut caller, Price::Key(key.len()))?;
    let value = take(&mut caller, "__set_state", value)?;
    caller.data_mut().set_state(key, value)?;
    Ok(1)
}

fn delete_state(mut caller: Caller<'_, Host>, key: i32) -> HostResult<i32> {
    pay(&mut caller, Price::Entry)?;
    let key = take(&mut caller, "__delete_state", key)?;
    pay(&mut caller, Price::Key(key.len()))?;
    caller.data_mut().delete_state(key)
}

fn log(mut caller: Caller<'_, Host>, stream: Stream, import: &str, text: i32) -> HostResult<()> {
    pay(&mut caller, Price::Call)?;
    let text = take(&mut caller, import, text)?;
    caller.data_mut().write_log(stream, &text);
    Ok(())
}

fn push_change(mut caller: Caller<'_, Host>, message: i32) -> HostResult<i32> {
    pay(&mut caller, Price::Call)?;
    let message = take(&mut caller, "__push_cdc_message", message)?;
    pay(&mut caller, Price::Json(message.len()))?;
    let host = caller.data_mut();
    host.spend_output(message.len())?;
    let change = decode_one(&mut host.recent, host.changes.len(), &message).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Stopped::misuse(format!("`__push_cdc_message`: {error}{cause}"))
    })?;
    let price = decoded(change.values.len());
    let names = host.recent.take_cost();
    host.spend_output(names)?;
    host.keep(change)?;
    pay(&mut caller, price)?;
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

/// The type of an import of version 1.
pub(super) fn signature(module: &str, name: &str) -> Option<FuncType> {
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
