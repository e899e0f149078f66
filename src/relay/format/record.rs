//! What a step has for consumers of rows.

use std::sync::Arc;

use crate::relay::step::{Step, StepKind};
use crate::undo::{Event, EventTable, Operation};

/// One message about rows.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// What a consumer holds of the table is void. It has no key.
    Void(&'a Arc<EventTable>),
    Row(&'a Event),
}

/// A step's messages, in the order in which they are to be taken.
pub fn records(step: &Step) -> impl Iterator<Item = Record<'_>> {
    let void = match &step.kind {
        StepKind::Snapshot { void, .. } => void.as_slice(),
        StepKind::Apply { .. } | StepKind::Retract { .. } => &[],
    };
    void.iter().map(Record::Void).chain(step.events.iter().map(Record::Row))
}

/// How many messages a step has.
pub(super) fn count(step: &Step) -> u64 {
    let void = match &step.kind {
        StepKind::Snapshot { void, .. } => void.len(),
        StepKind::Apply { .. } | StepKind::Retract { .. } => 0,
    };
    (void + step.events.len()) as u64
}

impl<'a> Record<'a> {
    pub fn table(self) -> &'a Arc<EventTable> {
        match self {
            Record::Void(table) => table,
            Record::Row(event) => &event.table,
        }
    }

    /// Whether the row is gone after it, so that a tombstone may follow.
    pub fn is_delete(self) -> bool {
        matches!(self, Record::Row(event) if event.operation() == Operation::Delete)
    }

    /// Debezium's letter for it.
    pub(super) fn operation(self, step: &Step) -> u8 {
        match (self, &step.kind) {
            (Record::Void(_), _) => b't',
            (Record::Row(_), StepKind::Snapshot { .. }) => b'r',
            (Record::Row(event), _) => match event.operation() {
                Operation::Create => b'c',
                Operation::Update => b'u',
                Operation::Delete => b'd',
            },
        }
    }
}
