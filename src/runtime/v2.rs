//! Binary interface version 2: the functions that a transform imports from `debshrew`, with pointers and lengths,
//! changes in binary as they are made, and what interpreters are slow at done by the host.

use bitcoin::hashes::{Hash, sha256, sha256d};
use wasmi::errors::LinkerError;
use wasmi::{Caller, FuncType, Linker, ValType};

use super::fuel::{self, Price, pay};
use super::guest::{bytes, load, memory, place};
use super::host::{Host, HostResult, Stopped, Stream};
use super::limits::Limit;
use crate::change::binary::Batch;

/// A copy of the guest's bytes, paid for with fuel, so that copying cannot outlast its limit.
fn take(caller: &mut Caller<'_, Host>, import: &str, pointer: i32, length: i32) -> HostResult<Vec<u8>> {
    let length = length as u32 as usize;
    pay(&mut *caller, Price::Take(length))?;
    let memory = memory(caller)?;
    Ok(bytes(memory.data(&*caller), import, pointer, length)?.to_vec())
}

fn height(mut caller: Caller<'_, Host>) -> HostResult<i32> {
    pay(&mut caller, Price::Call)?;
    Ok(caller.data().height())
}

fn block_hash(mut caller: Caller<'_, Host>, to: i32) -> HostResult<()> {
    pay(&mut caller, Price::Call)?;
    let memory = memory(&mut caller)?;
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    place(bytes, "`debshrew.block_hash`", to, 32)?.copy_from_slice(host.hash());
    Ok(())
}

fn view(
    mut caller: Caller<'_, Host>,
    name: i32,
    name_length: i32,
    input: i32,
    input_length: i32,
) -> HostResult<i32> {
    const IMPORT: &str = "`debshrew.view`";
    pay(&mut caller, Price::Call)?;
    let name = take(&mut caller, IMPORT, name, name_length)?;
    let input = take(&mut caller, IMPORT, input, input_length)?;
    caller.data_mut().ask_view(IMPORT, name, input)
}

fn get_state(mut caller: Caller<'_, Host>, key: i32, length: i32) -> HostResult<i32> {
    pay(&mut caller, Price::Call)?;
    let key = take(&mut caller, "`debshrew.get_state`", key, length)?;
    pay(&mut caller, Price::Key(key.len()))?;
    let own = caller.data().own_bytes(&key);
    pay(&mut caller, Price::Take(own))?;
    caller.data_mut().get_state(key)
}

fn set_state(
    mut caller: Caller<'_, Host>,
    key: i32,
    key_length: i32,
    value: i32,
    value_length: i32,
) -> HostResult<()> {
    const IMPORT: &str = "`debshrew.set_state`";
    pay(&mut caller, Price::Entry)?;
    let key = take(&mut caller, IMPORT, key, key_length)?;
    pay(&mut caller, Price::Key(key.len()))?;
    let value = take(&mut caller, IMPORT, value, value_length)?;
    caller.data_mut().set_state(key, value)
}

fn delete_state(mut caller: Caller<'_, Host>, key: i32, length: i32) -> HostResult<i32> {
    pay(&mut caller, Price::Entry)?;
    let key = take(&mut caller, "`debshrew.delete_state`", key, length)?;
    pay(&mut caller, Price::Key(key.len()))?;
    caller.data_mut().delete_state(key)
}

fn log(mut caller: Caller<'_, Host>, stream: Stream, import: &str, text: i32, length: i32) -> HostResult<()> {
    pay(&mut caller, Price::Call)?;
    let text = take(&mut caller, import, text, length)?;
    caller.data_mut().write_log(stream, &text);
    Ok(())
}

/// Takes changes right from the guest's memory.
fn emit(mut caller: Caller<'_, Host>, batch: i32, length: i32) -> HostResult<()> {
    const IMPORT: &str = "`debshrew.emit`";
    let length = length as u32 as usize;
    // At once, as this is called for every change.
    pay(&mut caller, Price::Units(Price::Call.units() + Price::Take(length).units()))?;
    let affordable = fuel::left(&mut caller);
    let memory = memory(&mut caller)?;
    let (memory, host) = memory.data_and_store_mut(&mut caller);
    let mut batch = Batch::new(bytes(memory, IMPORT, batch, length)?);
    host.spend_output(length)?;
    let mut units = 0;
    loop {
        let index = host.changes.len();
        let next = host.decoder.next(&mut batch);
        // One by one, as few bytes may say many values.
        units += Price::Decode(batch.take_work()).units();
        if units > affordable {
            return Err(Stopped::Limit { limit: Limit::Fuel, allowed: host.limits.fuel }.into());
        }
        let declarations = host.decoder.take_cost();
        host.spend_output(declarations)?;
        match next.map_err(|error| Stopped::misuse(format!("{IMPORT}: change {index}: {error}")))? {
            None => break,
            Some(change) => host.keep(change)?,
        }
    }
    Ok(pay(&mut caller, Price::Units(units))?)
}

/// Writes what `hash` makes of the guest's bytes.
fn digest(
    mut caller: Caller<'_, Host>,
    import: &str,
    (from, length, to): (i32, i32, i32),
    hash: impl Fn(&[u8]) -> [u8; 32],
) -> HostResult<()> {
    let length = length as u32 as usize;
    pay(&mut caller, Price::Call)?;
    pay(&mut caller, Price::Hash(length))?;
    let memory = memory(&mut caller)?;
    let memory = memory.data_mut(&mut caller);
    let hash = hash(bytes(memory, import, from, length)?);
    place(memory, import, to, hash.len())?.copy_from_slice(&hash);
    Ok(())
}

fn hex(mut caller: Caller<'_, Host>, from: i32, length: i32, to: i32) -> HostResult<()> {
    const IMPORT: &str = "`debshrew.hex`";
    let length = length as u32 as usize;
    pay(&mut caller, Price::Call)?;
    pay(&mut caller, Price::Hex(length))?;
    let memory = memory(&mut caller)?;
    let memory = memory.data_mut(&mut caller);
    let digits = hex::encode(bytes(memory, IMPORT, from, length)?);
    place(memory, IMPORT, to, digits.len())?.copy_from_slice(digits.as_bytes());
    Ok(())
}

/// Defines every import of version 2.
pub(super) fn define(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    const MODULE: &str = "debshrew";
    linker.func_wrap(MODULE, "height", height)?;
    linker.func_wrap(MODULE, "block_hash", block_hash)?;
    linker.func_wrap(MODULE, "view", view)?;
    linker
        .func_wrap(MODULE, "load", |caller: Caller<'_, Host>, to: i32| load(caller, "`debshrew.load`", to))?;
    linker.func_wrap(MODULE, "get_state", get_state)?;
    linker.func_wrap(MODULE, "set_state", set_state)?;
    linker.func_wrap(MODULE, "delete_state", delete_state)?;
    linker.func_wrap(MODULE, "emit", emit)?;
    linker.func_wrap(MODULE, "stdout", |caller: Caller<'_, Host>, text: i32, length: i32| {
        log(caller, Stream::Stdout, "`debshrew.stdout`", text, length)
    })?;
    linker.func_wrap(MODULE, "stderr", |caller: Caller<'_, Host>, text: i32, length: i32| {
        log(caller, Stream::Stderr, "`debshrew.stderr`", text, length)
    })?;
    linker.func_wrap(MODULE, "sha256", |caller: Caller<'_, Host>, from: i32, length: i32, to: i32| {
        digest(caller, "`debshrew.sha256`", (from, length, to), |bytes| {
            sha256::Hash::hash(bytes).to_byte_array()
        })
    })?;
    linker.func_wrap(MODULE, "sha256d", |caller: Caller<'_, Host>, from: i32, length: i32, to: i32| {
        digest(caller, "`debshrew.sha256d`", (from, length, to), |bytes| {
            sha256d::Hash::hash(bytes).to_byte_array()
        })
    })?;
    linker.func_wrap(MODULE, "hex", hex)?;
    Ok(())
}

/// The type of an import of version 2.
pub(super) fn signature(module: &str, name: &str) -> Option<FuncType> {
    const I32: ValType = ValType::I32;
    if module != "debshrew" {
        return None;
    }
    let (takes, gives) = match name {
        "height" => (0, 1),
        "block_hash" | "load" => (1, 0),
        "view" => (4, 1),
        "get_state" | "delete_state" => (2, 1),
        "set_state" => (4, 0),
        "emit" | "stdout" | "stderr" => (2, 0),
        "sha256" | "sha256d" | "hex" => (3, 0),
        _ => return None,
    };
    Some(FuncType::new(vec![I32; takes], vec![I32; gives]))
}
