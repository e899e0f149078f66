//! The module's memory, as the host reads and writes it: each pointer and length is the guest's, and checked.

use wasmi::{Caller, Memory};

use super::fuel::{Price, pay};
use super::host::{Host, HostResult, Stopped};

pub(super) fn memory(caller: &mut Caller<'_, Host>) -> HostResult<Memory> {
    // In a start function the host has not noted it yet.
    let memory =
        caller.data().memory.or_else(|| caller.get_export("memory").and_then(wasmi::Extern::into_memory));
    memory.ok_or_else(|| Stopped::misuse("it has no memory".into()).into())
}

/// Copies the pending result into the guest's memory.
pub(super) fn load(mut caller: Caller<'_, Host>, import: &str, pointer: i32) -> HostResult<()> {
    let memory = memory(&mut caller)?;
    let length = caller.data().pending.len();
    pay(&mut caller, Price::Call)?;
    pay(&mut caller, Price::Load(length))?;
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    place(bytes, import, pointer, length)?.copy_from_slice(&host.pending);
    Ok(())
}

/// Where the guest wants so many bytes written.
pub(super) fn place<'a>(
    memory: &'a mut [u8],
    import: &str,
    pointer: i32,
    length: usize,
) -> Result<&'a mut [u8], Stopped> {
    let size = memory.len();
    let place = memory.get_mut(pointer as u32 as usize..).and_then(|rest| rest.get_mut(..length));
    place.ok_or_else(|| outside(import, pointer, length, size))
}

/// So many of the guest's bytes.
pub(super) fn bytes<'a>(
    memory: &'a [u8],
    import: &str,
    pointer: i32,
    length: usize,
) -> Result<&'a [u8], Stopped> {
    let found = memory.get(pointer as u32 as usize..).and_then(|rest| rest.get(..length));
    found.ok_or_else(|| outside(import, pointer, length, memory.len()))
}

fn outside(import: &str, pointer: i32, length: usize, size: usize) -> Stopped {
    Stopped::misuse(format!(
        "{import} was called wrongly: {length} bytes at {} reach beyond the memory of {size} bytes",
        pointer as u32
    ))
}
