//! The net effect of a block: many changes of one row become one.
//!
//! The meaning of a list of changes is that of plain SQL run one by one: an upsert inserts the row with the
//! columns given (the others at their defaults) or, where it exists, sets just those columns; a delete removes
//! it. The fold gives one statement a row with the same outcome, and does so without knowing whether the row
//! existed: only a delete makes what came before it irrelevant.
//!
//! Where constraints or triggers tell the two apart, the changes themselves are still there, in the order of emission.

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::{TableId, Tables};
use crate::change::Operation;
use crate::db::catalog::ColumnId;

/// A column's value as PostgreSQL's input text; `None` is SQL's null.
pub type Datum = Option<Box<str>>;

/// The primary key's values, in the key's order. Two changes are of the same row when these are equal: equal keys
/// have equal texts.
pub type Key = Box<[Box<str>]>;

/// One change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    pub table: TableId,
    pub key: Key,
    pub operation: Operation,
    /// Columns beside the key. Nothing for a delete.
    pub values: Vec<(ColumnId, Datum)>,
}

/// What remains of a row's changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    Delete,
    /// Set these columns, in the order of their positions; leave the others as they are, or at their defaults
    /// if the row does not exist.
    Upsert(Vec<(ColumnId, Datum)>),
    /// The row was deleted first: set these columns, and all others to their defaults.
    Replace(Vec<(ColumnId, Datum)>),
}

/// A row that a block changes.
#[derive(Debug, PartialEq, Eq)]
pub struct NetRow {
    pub net: Net,
    /// When the block changed it first, counted from 0.
    place: usize,
    /// All its changes; empty if there is one.
    history: Vec<Past>,
}

/// One of several changes of a row.
#[derive(Debug, PartialEq, Eq)]
struct Past {
    /// When it came, counted from 0.
    place: usize,
    /// The columns that an upsert sets; `None` for a delete.
    values: Option<Vec<(ColumnId, Datum)>>,
}

/// Whether a row is still what it was before the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It is, and this is the block's only change of it.
    Only,
    /// It is, or is gone: there were deletes at most, and a trigger may have kept the row.
    First,
    Again,
}

/// A change in the order of emission.
#[derive(Clone, Copy, Debug)]
pub struct Emitted<'a> {
    pub table: TableId,
    pub key: &'a Key,
    pub touch: Touch,
    /// The columns that an upsert sets; `None` for a delete.
    pub values: Option<&'a [(ColumnId, Datum)]>,
}

/// A block's changes, folded: at most one a row.
#[derive(Debug, Default)]
pub struct ChangeSet {
    /// Per table, rows in the order in which they were first changed.
    tables: Vec<(TableId, IndexMap<Key, NetRow>)>,
}

impl ChangeSet {
    /// Folds changes in the order in which they were emitted. Their keys are in their one form.
    pub(super) fn fold(changes: impl IntoIterator<Item = RowChange>) -> ChangeSet {
        let mut tables: Vec<(TableId, IndexMap<Key, NetRow>)> = Vec::new();
        for (place, change) in changes.into_iter().enumerate() {
            let position = match tables.iter().position(|(table, _)| *table == change.table) {
                Some(position) => position,
                None => {
                    tables.push((change.table, IndexMap::new()));
                    tables.len() - 1
                }
            };
            let RowChange { key, operation, values, .. } = change;
            let values = (operation == Operation::Upsert).then_some(values);
            add(&mut tables[position].1, key, Past { place, values });
        }
        ChangeSet { tables }
    }

    /// The rows of each table that the block changes.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, &IndexMap<Key, NetRow>)> {
        self.tables.iter().map(|(table, rows)| (*table, rows))
    }

    /// How many rows are changed, those of the state aside.
    pub fn changes(&self, tables: &Tables) -> usize {
        self.tables().filter(|(table, _)| Some(*table) != tables.state()).map(|(_, rows)| rows.len()).sum()
    }

    /// How many rows of each table are changed, those of the state aside.
    pub fn changes_by_table<'a>(&self, tables: &'a Tables) -> Vec<(&'a str, u64)> {
        let of_rows = self.tables().filter(|(table, _)| Some(*table) != tables.state());
        of_rows.map(|(table, rows)| (tables.get(table).table.name.as_str(), rows.len() as u64)).collect()
    }

    /// How many rows are changed, the state's among them.
    pub fn rows(&self) -> usize {
        self.tables().map(|(_, rows)| rows.len()).sum()
    }

    /// Whether a row of that table is changed more than once.
    pub fn is_folded(&self, table: TableId) -> bool {
        self.tables().any(|(found, rows)| found == table && rows.values().any(|row| !row.history.is_empty()))
    }

    /// Every change as it was emitted, in that order.
    pub fn in_order(&self) -> Vec<Emitted<'_>> {
        let mut all: Vec<(usize, Emitted<'_>)> = Vec::new();
        for (table, rows) in self.tables() {
            for (key, row) in rows {
                if row.history.is_empty() {
                    let values = row.net.values();
                    all.push((row.place, Emitted { table, key, touch: Touch::Only, values }));
                }
                let mut touch = Touch::First;
                for past in &row.history {
                    let values = past.values.as_deref();
                    all.push((past.place, Emitted { table, key, touch, values }));
                    if values.is_some() {
                        touch = Touch::Again;
                    }
                }
            }
        }
        all.sort_unstable_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, emitted)| emitted).collect()
    }
}

fn add(rows: &mut IndexMap<Key, NetRow>, key: Key, change: Past) {
    let Past { place, values } = change;
    match rows.entry(key) {
        Entry::Vacant(vacant) => {
            let net = values.map_or(Net::Delete, |values| Net::Upsert(sorted(values)));
            vacant.insert(NetRow { net, place, history: Vec::new() });
        }
        Entry::Occupied(mut occupied) => {
            let row = occupied.get_mut();
            if row.history.is_empty() {
                let values = row.net.values().map(<[_]>::to_vec);
                row.history.push(Past { place: row.place, values });
            }
            row.history.push(Past { place, values: values.clone() });
            match (&mut row.net, values) {
                (net, None) => *net = Net::Delete,
                (net @ Net::Delete, Some(values)) => *net = Net::Replace(sorted(values)),
                (Net::Upsert(old) | Net::Replace(old), Some(values)) => merge(old, values),
            }
        }
    }
}

impl Net {
    /// The columns that are set; `None` for a delete.
    fn values(&self) -> Option<&[(ColumnId, Datum)]> {
        match self {
            Net::Delete => None,
            Net::Upsert(values) | Net::Replace(values) => Some(values),
        }
    }
}

fn sorted(mut values: Vec<(ColumnId, Datum)>) -> Vec<(ColumnId, Datum)> {
    values.sort_unstable_by_key(|(column, _)| *column);
    values
}

/// The later value wins, column by column.
fn merge(old: &mut Vec<(ColumnId, Datum)>, new: Vec<(ColumnId, Datum)>) {
    for (column, datum) in new {
        match old.binary_search_by_key(&column, |(column, _)| *column) {
            Ok(place) => old[place].1 = datum,
            Err(place) => old.insert(place, (column, datum)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(0);

    fn key(name: &str) -> Key {
        Box::new([name.into()])
    }

    fn values(values: &[(usize, &str)]) -> Vec<(ColumnId, Datum)> {
        values.iter().map(|(column, text)| (ColumnId::new(*column), Some((*text).into()))).collect()
    }

    fn upsert(name: &str, set: &[(usize, &str)]) -> RowChange {
        RowChange { table: TABLE, key: key(name), operation: Operation::Upsert, values: values(set) }
    }

    fn delete(name: &str) -> RowChange {
        RowChange { table: TABLE, key: key(name), operation: Operation::Delete, values: Vec::new() }
    }

    fn net(changes: Vec<RowChange>) -> Vec<(String, Net)> {
        let set = ChangeSet::fold(changes);
        let rows = set.tables().flat_map(|(_, rows)| rows);
        rows.map(|(key, row)| (key[0].to_string(), row.net.clone())).collect()
    }

    #[test]
    fn later_values_win_column_by_column() {
        let folded = net(vec![
            upsert("a", &[(2, "x"), (1, "y")]),
            upsert("b", &[]),
            upsert("a", &[(1, "z"), (0, "w")]),
        ]);
        let expected = values(&[(0, "w"), (1, "z"), (2, "x")]);
        assert_eq!(folded, [("a".into(), Net::Upsert(expected)), ("b".into(), Net::Upsert(vec![]))]);
    }

    #[test]
    fn a_delete_forgets_what_came_before_and_turns_what_follows_into_a_replacement() {
        assert_eq!(net(vec![upsert("a", &[(1, "x")]), delete("a")]), [("a".into(), Net::Delete)]);
        let replaced = net(vec![
            upsert("a", &[(1, "x")]),
            delete("a"),
            upsert("a", &[(2, "y")]),
            upsert("a", &[(3, "z")]),
        ]);
        let expected = values(&[(2, "y"), (3, "z")]);
        assert_eq!(replaced, [("a".into(), Net::Replace(expected))]);
    }

    #[test]
    fn the_changes_are_still_there_in_their_order() {
        let changes = vec![
            upsert("a", &[(2, "x"), (1, "y")]),
            delete("b"),
            upsert("a", &[(1, "z")]),
            upsert("c", &[(1, "w")]),
            delete("a"),
        ];
        let set = ChangeSet::fold(changes);
        let emitted: Vec<_> = set
            .in_order()
            .into_iter()
            .map(|change| (&*change.key[0], change.touch, change.values.map(<[_]>::to_vec)))
            .collect();
        let expected = [
            ("a", Touch::First, Some(values(&[(1, "y"), (2, "x")]))),
            ("b", Touch::Only, None),
            ("a", Touch::Again, Some(values(&[(1, "z")]))),
            ("c", Touch::Only, Some(values(&[(1, "w")]))),
            ("a", Touch::Again, None),
        ];
        assert_eq!(emitted, expected);
        assert!(set.is_folded(TABLE));
        assert!(!ChangeSet::fold([delete("b"), upsert("c", &[])]).is_folded(TABLE));
    }
}
