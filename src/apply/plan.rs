//! From a block's net changes to the statements that are sent, in an order that constraints allow.
//!
//! Pure: what is sent is decided here, sending it is the writer's.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::rows::Targets;
use super::sql::Rows;
use super::target::{Restore, Target};
use super::writer::Journaling;
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
    pub(super) journaling: Journaling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Delete,
    /// Sets the columns that are bound, in a row that exists or in a new one.
    Put,
    /// Sets the columns that are not bound to their defaults, besides.
    Replace,
}

impl Action {
    /// For messages: "PostgreSQL refused to … table".
    pub(super) fn doing(self) -> &'static str {
        match self {
            Action::Delete => "delete from",
            Action::Put | Action::Replace => "insert into or update",
        }
    }
}

/// A statement and its values: one array a bound column, the key's columns first.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) shape: Shape,
    pub(super) arrays: Vec<Vec<Option<&'a str>>>,
    pub(super) rows: u64,
}

impl Step<'_> {
    /// Whether so many rows are what the statement must come to. There may be nothing to delete.
    pub(super) fn is_done_by(&self, rows: u64) -> bool {
        match self.shape.action {
            Action::Delete => rows <= self.rows,
            Action::Put | Action::Replace => rows == self.rows,
        }
    }
}

impl Shape {
    pub(super) fn sql(&self, targets: &Targets) -> String {
        let target = &targets.list()[self.table];
        let rows = Rows::new(target, &self.values, self.journaling);
        match self.action {
            Action::Delete => rows.delete(),
            Action::Put if self.is_upsert(target) => rows.upsert(),
            Action::Put => rows.put(&[]),
            Action::Replace => {
                let others: Vec<usize> =
                    target.values().filter(|column| !self.values.contains(column)).collect();
                rows.put(&others)
            }
        }
    }

    /// Whether nothing is to be journaled, and every column is there for a row that may be new.
    fn is_upsert(&self, target: &Target) -> bool {
        self.journaling == Journaling::Skipped
            && target.has_arbiter()
            && !self.values.is_empty()
            && target.values().eq(self.values.iter().copied())
    }
}

/// The most bytes of values that one statement is sent with, a single row's aside. PostgreSQL takes less than 1 GiB.
const MOST_BYTES: usize = 128 << 20;

/// The statements that change the tables, and journal what they find there.
///
/// Rows of tables with unique values beside the key are deleted first, so that others may take their values.
/// Other deletes come last, so that whatever referenced a row has let go of it before. Rows are put into the
/// tables that are referenced before those that reference them, and deleted the other way.
pub(super) fn statements<'a>(
    targets: &Targets,
    nets: &'a [(usize, IndexMap<Key, Net>)],
    journaling: Journaling,
) -> Vec<Step<'a>> {
    let by_table: BTreeMap<usize, &'a IndexMap<Key, Net>> =
        nets.iter().map(|(table, rows)| (*table, rows)).collect();
    let tables: Vec<Rewrite<'_, 'a>> = targets
        .parents_first()
        .iter()
        .filter_map(|table| {
            let rows = *by_table.get(table)?;
            Some(Rewrite { table: *table, target: &targets.list()[*table], rows, journaling })
        })
        .collect();
    let mut steps = Vec::new();
    for table in tables.iter().rev().filter(|table| table.target.restore == Restore::Afresh) {
        table.delete(|net| !matches!(net, Net::Upsert(_)), &mut steps);
    }
    for table in &tables {
        table.put(&mut steps);
    }
    for table in tables.iter().rev().filter(|table| table.target.restore == Restore::InPlace) {
        table.delete(|net| matches!(net, Net::Delete), &mut steps);
    }
    steps
}

/// What becomes of one table's rows.
struct Rewrite<'t, 'a> {
    table: usize,
    target: &'t Target,
    rows: &'a IndexMap<Key, Net>,
    journaling: Journaling,
}

impl<'a> Rewrite<'_, 'a> {
    fn delete(&self, gone: impl Fn(&Net) -> bool, steps: &mut Vec<Step<'a>>) {
        let mut keys: Vec<&Key> = self.rows.iter().filter(|(_, net)| gone(net)).map(|(key, _)| key).collect();
        self.arrange(&mut keys, |key| key);
        for keys in portions(&keys, MOST_BYTES, |key| key_bytes(key)) {
            steps.push(self.step(Action::Delete, &[], keys.iter().copied(), Vec::new()));
        }
    }

    fn put(&self, steps: &mut Vec<Step<'a>>) {
        // Rows that set the same columns go together.
        let mut groups: IndexMap<(Action, Vec<usize>), Vec<Set<'a>>> = IndexMap::new();
        for (key, net) in self.rows {
            let (values, action) = match net {
                Net::Delete => continue,
                Net::Replace(values) if self.target.restore == Restore::InPlace => (values, Action::Replace),
                // What had to be replaced afresh has been deleted.
                Net::Upsert(values) | Net::Replace(values) => (values, Action::Put),
            };
            let columns: Vec<usize> = values.iter().map(|(column, _)| *column).collect();
            groups.entry((action, columns)).or_default().push((key, values));
        }
        for ((action, columns), mut rows) in groups {
            self.arrange(&mut rows, |(key, _)| key);
            for rows in portions(&rows, MOST_BYTES, set_bytes) {
                let value = |index: usize| {
                    rows.iter()
                        .map(|(_, values)| values[index].1.as_deref())
                        .collect::<Vec<Option<&'a str>>>()
                };
                let arrays = (0..columns.len()).map(value).collect();
                steps.push(self.step(action, &columns, rows.iter().map(|(key, _)| *key), arrays));
            }
        }
    }

    /// By key, where the order makes no other difference: neighbours in the key's index are near one another then.
    fn arrange<T>(&self, rows: &mut [T], key: impl Fn(&T) -> &Key) {
        if self.target.is_order_free() {
            rows.sort_unstable_by(|a, b| self.target.order(key(a), key(b)));
        }
    }

    fn step(
        &self,
        action: Action,
        values: &[usize],
        keys: impl Iterator<Item = &'a Key> + Clone,
        arrays: Vec<Vec<Option<&'a str>>>,
    ) -> Step<'a> {
        let place = |place: usize| keys.clone().map(|key| Some(&*key[place])).collect();
        let keys_and_values = (0..self.target.table.key.len()).map(place).chain(arrays).collect();
        let Rewrite { table, journaling, .. } = *self;
        Step {
            shape: Shape { table, action, values: values.to_vec(), journaling },
            arrays: keys_and_values,
            rows: keys.clone().count() as u64,
        }
    }
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
