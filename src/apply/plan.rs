//! From a block's net changes to the statements that are sent, in an order that constraints allow.
//!
//! Pure: what is sent is decided here, sending it is the writer's.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::rows::Targets;
use super::sql::Rows;
use super::target::{Restore, Target};
use crate::change::fold::{Datum, Key, Net};

/// One statement: what it does to which table, with which columns bound.
///
/// Two steps with equal shapes have equal SQL, so that it is prepared once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) table: usize,
    pub(super) action: Action,
    /// Columns beside the key that are bound.
    pub(super) values: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Journal,
    Delete,
    /// Inserts or overwrites.
    Upsert,
    /// Inserts or overwrites, and sets the columns that are not bound to their defaults.
    Replace,
    Update,
    InsertMissing,
}

impl Action {
    /// For messages: "PostgreSQL refused to … table".
    pub(super) fn doing(self) -> &'static str {
        match self {
            Action::Journal => "journal the rows of",
            Action::Delete => "delete from",
            Action::Upsert | Action::Replace => "insert into or update",
            Action::Update => "update",
            Action::InsertMissing => "insert into",
        }
    }
}

/// How many rows a statement must affect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Exactly(u64),
    AtMost(u64),
    /// Together with the statement before it.
    WithPrevious(u64),
}

impl Expected {
    pub(super) fn holds(self, previous: u64, got: u64) -> bool {
        match self {
            Expected::Exactly(rows) => got == rows,
            Expected::AtMost(rows) => got <= rows,
            Expected::WithPrevious(rows) => previous + got == rows,
        }
    }

    pub(super) fn rows(self) -> u64 {
        match self {
            Expected::Exactly(rows) | Expected::AtMost(rows) | Expected::WithPrevious(rows) => rows,
        }
    }
}

/// A statement and its values: one array a bound column, the key's columns first.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) shape: Shape,
    pub(super) arrays: Vec<Vec<Datum>>,
    pub(super) expected: Expected,
}

impl Shape {
    pub(super) fn sql(&self, targets: &Targets) -> String {
        let target = &targets.list()[self.table];
        let rows = Rows::new(target, &self.values);
        match self.action {
            Action::Journal => rows.journal(),
            Action::Delete => rows.delete(),
            Action::Upsert => rows.upsert(&[]),
            Action::Replace => {
                let others: Vec<usize> =
                    target.values().filter(|column| !self.values.contains(column)).collect();
                rows.upsert(&others)
            }
            Action::Update => rows.update(),
            Action::InsertMissing => rows.insert_missing(),
        }
    }
}

/// The journal's statements. They go before all others: they read the rows as the block finds them.
pub(super) fn journal(nets: &[(usize, IndexMap<Key, Net>)]) -> Vec<Step> {
    nets.iter()
        .map(|(table, rows)| {
            let keys: Vec<&Key> = rows.keys().collect();
            step(*table, Action::Journal, Vec::new(), &keys, Vec::new(), Expected::Exactly(keys.len() as u64))
        })
        .collect()
}

/// The statements that change the tables.
///
/// Rows of tables with unique values beside the key are deleted first, so that others may take their values.
/// Other deletes come last, so that whatever referenced a row has let go of it before. Upserts go from the
/// tables that are referenced to those that reference them, deletes the other way.
pub(super) fn statements(targets: &Targets, nets: &[(usize, IndexMap<Key, Net>)]) -> Vec<Step> {
    let by_table: BTreeMap<usize, &IndexMap<Key, Net>> =
        nets.iter().map(|(table, rows)| (*table, rows)).collect();
    let parents_first: Vec<(usize, &Target, &IndexMap<Key, Net>)> = targets
        .parents_first()
        .iter()
        .filter_map(|table| Some((*table, &targets.list()[*table], *by_table.get(table)?)))
        .collect();
    let mut steps = Vec::new();
    for (table, target, rows) in parents_first.iter().rev() {
        if target.restore == Restore::Afresh {
            steps.extend(deletes(*table, rows, |net| !matches!(net, Net::Upsert(_))));
        }
    }
    for (table, target, rows) in &parents_first {
        upserts(*table, target, rows, &mut steps);
    }
    for (table, target, rows) in parents_first.iter().rev() {
        if target.restore == Restore::InPlace {
            steps.extend(deletes(*table, rows, |net| matches!(net, Net::Delete)));
        }
    }
    steps
}

fn deletes(table: usize, rows: &IndexMap<Key, Net>, gone: impl Fn(&Net) -> bool) -> Option<Step> {
    let keys: Vec<&Key> = rows.iter().filter(|(_, net)| gone(net)).map(|(key, _)| key).collect();
    let expected = Expected::AtMost(keys.len() as u64);
    (!keys.is_empty()).then(|| step(table, Action::Delete, Vec::new(), &keys, Vec::new(), expected))
}

/// Rows that set the same columns go together.
#[derive(Default)]
struct Group<'a> {
    keys: Vec<&'a Key>,
    values: Vec<&'a [(usize, Datum)]>,
}

fn upserts(table: usize, target: &Target, rows: &IndexMap<Key, Net>, steps: &mut Vec<Step>) {
    let mut groups: IndexMap<(Action, Vec<usize>), Group<'_>> = IndexMap::new();
    let every: Vec<usize> = target.values().collect();
    for (key, net) in rows {
        let (values, replaces) = match net {
            Net::Delete => continue,
            Net::Upsert(values) => (values, false),
            Net::Replace(values) => (values, true),
        };
        let columns: Vec<usize> = values.iter().map(|(column, _)| *column).collect();
        // PostgreSQL checks `not null` before it sees the conflict, so a row that sets some columns only cannot
        // be offered for insertion when it exists.
        let action = if columns == every && target.has_arbiter() {
            Action::Upsert
        } else if replaces && target.restore == Restore::InPlace {
            Action::Replace
        } else {
            Action::Update
        };
        let group = groups.entry((action, columns)).or_default();
        group.keys.push(key);
        group.values.push(values);
    }
    for ((action, columns), group) in groups {
        let count = group.keys.len() as u64;
        let arrays = |columns: &[usize]| -> Vec<Vec<Datum>> {
            (0..columns.len())
                .map(|index| group.values.iter().map(|row| row[index].1.clone()).collect())
                .collect()
        };
        if action == Action::Update {
            let mut expected = Expected::AtMost(count);
            if !columns.is_empty() {
                let values = arrays(&columns);
                steps.push(step(table, action, columns.clone(), &group.keys, values, expected));
                expected = Expected::WithPrevious(count);
            }
            let values = arrays(&columns);
            steps.push(step(table, Action::InsertMissing, columns, &group.keys, values, expected));
        } else {
            // A table of key columns alone has nothing to overwrite.
            let expected = if every.is_empty() { Expected::AtMost(count) } else { Expected::Exactly(count) };
            let values = arrays(&columns);
            steps.push(step(table, action, columns, &group.keys, values, expected));
        }
    }
}

fn step(
    table: usize,
    action: Action,
    values: Vec<usize>,
    keys: &[&Key],
    arrays: Vec<Vec<Datum>>,
    expected: Expected,
) -> Step {
    let width = keys.first().map_or(0, |key| key.len());
    let key_arrays = (0..width).map(|place| keys.iter().map(|key| Some(key[place].clone())).collect());
    Step { shape: Shape { table, action, values }, arrays: key_arrays.chain(arrays).collect(), expected }
}
