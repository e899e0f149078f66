//! The order in which a block's changes are tried first: by column sets, unless something in the database could tell that
//! from one change after the other.
//!
//! Pure. Where nothing counts and nothing looks, which is what most tables are like, no change is looked at.

use std::collections::BTreeSet;

use crate::db::catalog::{ColumnId, Dependence};
use crate::table::{ChangeSet, Emitted, Role, TableId, Tables, Target};

/// In which order a block's changes are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By table and column set, many rows a statement.
    Sets,
    /// As they were emitted, a statement a change.
    Emission,
}

impl Order {
    pub(super) fn other(self) -> Order {
        match self {
            Order::Sets => Order::Emission,
            Order::Emission => Order::Sets,
        }
    }
}

/// The order in which a block is tried first.
pub(super) fn first_order(tables: &Tables, changes: &ChangeSet) -> Order {
    let touched: Vec<(TableId, &Target)> = changes.tables().map(|(id, _)| (id, tables.get(id))).collect();
    // A trigger fires for every change of a row.
    if touched.iter().any(|(id, target)| target.has_triggers() && changes.is_folded(*id)) {
        return Order::Emission;
    }
    let looks = touched.iter().any(|(_, target)| target.has_looking_trigger());
    if !looks && touched.iter().all(|(_, target)| target.dependent_defaults().next().is_none()) {
        return Order::Sets;
    }
    let emitted: Vec<Emitted<'_>> = changes.in_order();
    let emitted: Vec<&Emitted<'_>> =
        emitted.iter().filter(|change| tables.get(change.table).role == Role::Rows).collect();
    if emitted.len() > 1 && (looks || defaults_tell(tables, changes, &touched, &emitted)) {
        Order::Emission
    } else {
        Order::Sets
    }
}

/// A statement of many rows: its table, and the columns that they set.
type Set = (TableId, Option<Vec<ColumnId>>);

/// Whether the defaults of columns that changes leave out could tell column sets from the order of emission. Within a
/// statement rows go in that order, where a default depends on it.
fn defaults_tell(
    tables: &Tables,
    changes: &ChangeSet,
    touched: &[(TableId, &Target)],
    emitted: &[&Emitted<'_>],
) -> bool {
    let sets: BTreeSet<Set> = emitted.iter().map(|change| set(change)).collect();
    let left_out: Vec<(&Set, &Dependence)> = sets.iter().flat_map(|set| left_out(tables, set)).collect();
    let folded: Vec<TableId> =
        touched.iter().map(|(id, _)| *id).filter(|table| changes.is_folded(*table)).collect();
    let tells =
        |(set, dependence): &(&Set, &Dependence)| **dependence == Dependence::Rows || folded.contains(&set.0);
    if left_out.iter().any(tells) {
        return true;
    }
    // What depends on its turn may take from any sequence.
    let in_turn = left_out.iter().any(|(_, dependence)| **dependence == Dependence::Turn);
    let takers: BTreeSet<(u32, &Set)> = left_out
        .iter()
        .flat_map(|(set, dependence)| {
            let sequences = match dependence {
                Dependence::Sequences(sequences) if !in_turn => sequences.as_slice(),
                _ => &[0],
            };
            sequences.iter().map(|sequence| (*sequence, *set))
        })
        .collect();
    let sequences: BTreeSet<u32> = takers.iter().map(|(sequence, _)| *sequence).collect();
    let is_shared = takers.len() > sequences.len();
    // Numbers that a first try took are gone when it fails.
    let may_fail = |(id, target): &(TableId, &Target)| {
        target.table.immediate_unique.is_some() || tables.has_immediate_circle(*id)
    };
    is_shared || (!left_out.is_empty() && sets.len() > 1 && touched.iter().any(may_fail))
}

/// What the defaults depend on that rows of a set have where they are new.
fn left_out<'a>(tables: &'a Tables, set: &'a Set) -> impl Iterator<Item = (&'a Set, &'a Dependence)> {
    let defaults = set.1.iter().flat_map(|columns| {
        let defaults = tables.get(set.0).dependent_defaults();
        defaults.filter(|(column, _)| columns.binary_search(column).is_err())
    });
    defaults.map(move |(_, dependence)| (set, dependence))
}

fn set(change: &Emitted<'_>) -> Set {
    let columns = change.values.map(|values| {
        let mut columns: Vec<ColumnId> = values.iter().map(|(column, _)| *column).collect();
        columns.sort_unstable();
        columns
    });
    (change.table, columns)
}
