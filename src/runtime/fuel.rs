//! Fuel: what the host's own work costs, and how fuel is handed to the interpreter.
//!
//! One unit is about the time of one instruction. The prices below were measured so that a block which does nothing
//! but call the host takes about as long for its fuel as one that computes, at most twice as long.

use wasmi::{AsContextMut, StoreContextMut};

use super::host::{Host, Stopped};
use super::limits::Limit;
use crate::change::Work;

/// How much fuel the interpreter gets at a time; with it used up it returns, and is resumed with more. `memory.grow`
/// and `table.grow` take some of the thread's stack each time, up to 200 bytes, which only that gives back: without
/// portions, a module that grows its memory often enough would end the process.
pub(super) const PORTION: u64 = 1_000_000;

/// A call of the host, whatever it does.
const CALL: u64 = 50;
/// A question that the host cannot answer by itself: the evaluation is suspended, and the answer looked for.
const QUESTION: u64 = 2_000;
/// A write of the state that is kept until the block's end.
const ENTRY: u64 = 600;
/// A hash, its last block padded.
const HASH: u64 = 300;

/// What the host does for a call, and what that costs.
#[derive(Clone, Copy)]
pub(super) enum Price {
    Call,
    Question,
    Entry,
    /// A copy of so many bytes into the module's memory.
    Load(usize),
    /// A copy of so many bytes out of it, into memory that is new.
    Take(usize),
    /// Looking up a key of so many bytes.
    Key(usize),
    Hash(usize),
    Hex(usize),
    /// So many bytes of JSON.
    Json(usize),
    Decode(Work),
    /// What was added up before.
    Units(u64),
}

impl Price {
    pub(super) fn units(self) -> u64 {
        let of = |bytes: usize, units: u64| (bytes as u64).saturating_mul(units);
        match self {
            Price::Call => CALL,
            Price::Question => QUESTION,
            Price::Entry => ENTRY,
            Price::Load(bytes) => of(bytes, 1),
            Price::Take(bytes) => of(bytes, 3) / 2,
            Price::Key(bytes) => of(bytes, 2),
            Price::Hash(bytes) => HASH + of(bytes, 3) / 2,
            Price::Hex(bytes) => of(bytes, 4),
            Price::Json(bytes) => of(bytes, 6),
            Price::Decode(Work { changes, columns, values, texts, floats, json_bytes }) => {
                changes * 250 + columns * 200 + values * 25 + texts * 100 + floats * 500 + json_bytes * 6
            }
            Price::Units(units) => units,
        }
    }
}

/// Pays for work of the host's.
pub(super) fn pay(mut context: impl AsContextMut<Data = Host>, price: Price) -> Result<(), Stopped> {
    spend(&mut context.as_context_mut(), price.units())
}

/// Pays for what has been grown so far.
pub(super) fn settle(mut context: impl AsContextMut<Data = Host>) -> Result<(), Stopped> {
    spend(&mut context.as_context_mut(), 0)
}

/// Takes from what the interpreter has not been given yet, so that it does not go on for longer than a portion.
fn spend(context: &mut StoreContextMut<'_, Host>, units: u64) -> Result<(), Stopped> {
    let host = context.data_mut();
    let units = units.saturating_add(std::mem::take(&mut host.room.owed));
    host.paid = host.paid.saturating_add(units);
    if let Some(kept) = host.reserve.checked_sub(units) {
        host.reserve = kept;
        return Ok(());
    }
    let missing = units - std::mem::take(&mut host.reserve);
    let allowed = host.limits.fuel;
    let given = context.get_fuel().unwrap_or(0);
    let left = given.checked_sub(missing).ok_or(Stopped::Limit { limit: Limit::Fuel, allowed })?;
    // It fails only where fuel is not counted.
    let _ = context.set_fuel(left);
    Ok(())
}

/// Lets the interpreter use so much fuel before it returns, if there is as much as it requires.
pub(super) fn give(
    mut context: impl AsContextMut<Data = Host>,
    units: u64,
    required: u64,
) -> Result<(), Stopped> {
    let left = left(&mut context);
    let mut context = context.as_context_mut();
    let host = context.data_mut();
    if left < required {
        return Err(Stopped::Limit { limit: Limit::Fuel, allowed: host.limits.fuel });
    }
    let given = units.min(left);
    host.reserve = left - given;
    let _ = context.set_fuel(given);
    Ok(())
}

/// What the interpreter has used by itself.
pub(super) fn used(mut context: impl AsContextMut<Data = Host>) -> u64 {
    let left = left(&mut context);
    let context = context.as_context_mut();
    context.data().limits.fuel.saturating_sub(left).saturating_sub(context.data().paid)
}

/// What is left of a block's fuel.
pub(super) fn left(mut context: impl AsContextMut<Data = Host>) -> u64 {
    let context = context.as_context_mut();
    context.get_fuel().unwrap_or(0).saturating_add(context.data().reserve)
}
