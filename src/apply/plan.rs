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
pub(super) struct Step<'a> {
    pub(super) shape: Shape,
    pub(super) arrays: Vec<Vec<Option<&'a str>>>,
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

/// The most bytes of values that one statement is sent with, a single row's aside. PostgreSQL takes less than 1 GiB.
const MOST_BYTES: usize = 128 << 20;

/// The journal's statements. They go before all others: they read the rows as the block finds them.
pub(super) fn journal(nets: &[(usize, IndexMap<Key, Net>)]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for (table, rows) in nets {
        let keys: Vec<&Key> = rows.keys().collect();
        for keys in portions(&keys, MOST_BYTES, |key| key_bytes(key)) {
            let expected = Expected::Exactly(keys.len() as u64);
            steps.push(step(*table, Action::Journal, Vec::new(), keys, Vec::new(), expected));
        }
    }
    steps
}

/// The statements that change the tables.
///
/// Rows of tables with unique values beside the key are deleted first, so that others may take their values.
/// Other deletes come last, so that whatever referenced a row has let go of it before. Upserts go from the
/// tables that are referenced to those that reference them, deletes the other way.
pub(super) fn statements<'a>(targets: &Targets, nets: &'a [(usize, IndexMap<Key, Net>)]) -> Vec<Step<'a>> {
    let by_table: BTreeMap<usize, &'a IndexMap<Key, Net>> =
        nets.iter().map(|(table, rows)| (*table, rows)).collect();
    let parents_first: Vec<(usize, &Target, &'a IndexMap<Key, Net>)> = targets
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

fn deletes(table: usize, rows: &IndexMap<Key, Net>, gone: impl Fn(&Net) -> bool) -> Vec<Step<'_>> {
    let keys: Vec<&Key> = rows.iter().filter(|(_, net)| gone(net)).map(|(key, _)| key).collect();
    let portions = portions(&keys, MOST_BYTES, |key| key_bytes(key));
    portions
        .into_iter()
        .map(|keys| {
            let expected = Expected::AtMost(keys.len() as u64);
            step(table, Action::Delete, Vec::new(), keys, Vec::new(), expected)
        })
        .collect()
}

/// A row's key and the columns that it sets.
type Set<'a> = (&'a Key, &'a [(usize, Datum)]);

fn key_bytes(key: &Key) -> usize {
    key.iter().map(|text| text.len()).sum()
}

fn set_bytes((key, values): &Set<'_>) -> usize {
    let values: usize = values.iter().map(|(_, datum)| datum.as_ref().map_or(0, |text| text.len())).sum();
    key_bytes(key) + values
}

/// Cuts a list where its items would come to more than `most` bytes; an item that is larger stands alone.
fn portions<T>(items: &[T], most: usize, bytes: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut portions = Vec::new();
    let mut begin = 0;
    let mut size = 0;
    for (index, item) in items.iter().enumerate() {
        let more = bytes(item);
        if index > begin && size + more > most {
            portions.push(&items[begin..index]);
            (begin, size) = (index, 0);
        }
        size += more;
    }
    if begin < items.len() {
        portions.push(&items[begin..]);
    }
    portions
}

fn upserts<'a>(table: usize, target: &Target, rows: &'a IndexMap<Key, Net>, steps: &mut Vec<Step<'a>>) {
    // Rows that set the same columns go together.
    let mut groups: IndexMap<(Action, Vec<usize>), Vec<Set<'a>>> = IndexMap::new();
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
        groups.entry((action, columns)).or_default().push((key, values));
    }
    for ((action, columns), group) in groups {
        for rows in portions(&group, MOST_BYTES, set_bytes) {
            sets(table, action, &columns, rows, steps);
        }
    }
}

/// The statements for rows that set the same columns.
fn sets<'a>(table: usize, action: Action, columns: &[usize], rows: &[Set<'a>], steps: &mut Vec<Step<'a>>) {
    let count = rows.len() as u64;
    let keys: Vec<&'a Key> = rows.iter().map(|(key, _)| *key).collect();
    let values = || -> Vec<Vec<Option<&'a str>>> {
        (0..columns.len())
            .map(|index| rows.iter().map(|(_, values)| values[index].1.as_deref()).collect())
            .collect()
    };
    let mut push = |action, expected| {
        steps.push(step(table, action, columns.to_vec(), &keys, values(), expected));
    };
    match action {
        // Nothing to overwrite: rows that exist are left as they are.
        Action::Update | Action::Upsert if columns.is_empty() => {
            let insert = if action == Action::Update { Action::InsertMissing } else { action };
            push(insert, Expected::AtMost(count));
        }
        Action::Update => {
            push(Action::Update, Expected::AtMost(count));
            push(Action::InsertMissing, Expected::WithPrevious(count));
        }
        _ => push(action, Expected::Exactly(count)),
    }
}

fn step<'a>(
    table: usize,
    action: Action,
    values: Vec<usize>,
    keys: &[&'a Key],
    arrays: Vec<Vec<Option<&'a str>>>,
    expected: Expected,
) -> Step<'a> {
    let width = keys.first().map_or(0, |key| key.len());
    let key_arrays = (0..width).map(|place| keys.iter().map(|key| Some(&*key[place])).collect());
    Step { shape: Shape { table, action, values }, arrays: key_arrays.chain(arrays).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_portion_is_larger_than_it_may_be_unless_one_item_is() {
        let cut = |items: &[usize]| -> Vec<Vec<usize>> {
            portions(items, 10, |item| *item).into_iter().map(<[usize]>::to_vec).collect()
        };
        assert_eq!(cut(&[]), [] as [Vec<usize>; 0]);
        assert_eq!(cut(&[5, 5, 1, 9]), [vec![5, 5], vec![1, 9]]);
        assert_eq!(cut(&[11, 1, 12]), [vec![11], vec![1], vec![12]]);
    }
}
