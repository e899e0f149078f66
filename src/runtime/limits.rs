//! What one block's evaluation may use.

use wasmi::ResourceLimiter;
use wasmi::errors::{MemoryError, TableError};
use wasmi_core::LimiterError;

use crate::config::Limits;

/// A limit of `[pipelines.NAME.limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Fuel,
    Memory,
    Tables,
    Output,
    Calls,
}

impl Limit {
    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Limit::Fuel => "fuel",
            Limit::Memory => "memory_bytes",
            Limit::Tables => "table_elements",
            Limit::Output => "output_bytes",
            Limit::Calls => "calls",
        }
    }
}

/// How large the module's memory and tables may grow. A module is told that there is no more, as the
/// WebAssembly specification has it; most then trap, and what was refused is remembered to say why.
#[derive(Debug)]
pub(super) struct Room {
    memory_bytes: usize,
    table_elements: usize,
    refused: Option<Limit>,
    /// Whether this machine had no memory for growth that the limits allow.
    pub(super) starved: bool,
    /// Fuel for what has been grown, which is paid where the host has a hand in it.
    pub(super) owed: u64,
    /// The last growth's share of it.
    latest: u64,
    /// Whether fuel gave out within `table.grow`, from where the interpreter cannot go on.
    pub(super) cut_off: bool,
}

/// What growing costs in fuel. Memory that is new costs the operating system more than the interpreter's price for a
/// copy, half a unit a byte.
const BYTES_A_UNIT: u64 = 2;
const UNITS_AN_ELEMENT: u64 = 4;

impl Room {
    pub(super) fn new(limits: &Limits) -> Room {
        Room {
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            refused: None,
            starved: false,
            owed: 0,
            latest: 0,
            cut_off: false,
        }
    }

    pub(super) fn refused(&self) -> Option<(Limit, u64)> {
        self.refused.map(|limit| match limit {
            Limit::Tables => (limit, self.table_elements as u64),
            _ => (limit, self.memory_bytes as u64),
        })
    }

    fn grow(&mut self, limit: Limit, desired: usize, allowed: usize, declared: Option<usize>) -> bool {
        if desired > allowed {
            self.refused = Some(limit);
        }
        desired <= allowed && declared.is_none_or(|most| desired <= most)
    }

    fn owe(&mut self, units: u64) {
        self.owed += units;
        self.latest = units;
    }

    /// The module must not see it: its result would depend on the machine.
    fn starve(&mut self) -> Result<(), LimiterError> {
        self.starved = true;
        Err(LimiterError::ResourceLimiterDeniedAllocation)
    }
}

impl ResourceLimiter for Room {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let allowed = self.grow(Limit::Memory, desired, self.memory_bytes, maximum);
        if allowed {
            self.owe((desired - current) as u64 / BYTES_A_UNIT);
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let allowed = self.grow(Limit::Tables, desired, self.table_elements, maximum);
        if allowed {
            self.owe((desired - current) as u64 * UNITS_AN_ELEMENT);
        }
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, error: &MemoryError) -> Result<(), LimiterError> {
        if matches!(error, MemoryError::OutOfFuel { .. }) {
            // It is done once more when there is fuel.
            self.owed = self.owed.saturating_sub(self.latest);
        }
        if matches!(error, MemoryError::OutOfSystemMemory) { self.starve() } else { Ok(()) }
    }

    fn table_grow_failed(&mut self, error: &TableError) -> Result<(), LimiterError> {
        if matches!(error, TableError::OutOfFuel { .. }) {
            self.owed = self.owed.saturating_sub(self.latest);
            self.cut_off = true;
        }
        if matches!(error, TableError::OutOfSystemMemory) { self.starve() } else { Ok(()) }
    }

    fn instances(&self) -> usize {
        1
    }

    // Tables and memories that one module may have; each may grow to its limit.
    fn tables(&self) -> usize {
        4
    }

    fn memories(&self) -> usize {
        1
    }
}
