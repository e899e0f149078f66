//! The net effect of a block: many changes of one row become one.
//!
//! The meaning of a list of changes is that of plain SQL run one by one: an upsert inserts the row with the
//! columns given (the others at their defaults) or, where it exists, sets just those columns; a delete removes
//! it. The fold gives one statement a row with the same outcome, and does so without knowing whether the row
//! existed: only a delete makes what came before it irrelevant.

use indexmap::IndexMap;

use super::Operation;

/// A column's value as PostgreSQL's input text; `None` is SQL's null.
pub type Datum = Option<Box<str>>;

/// The primary key's values, in the key's order. Two changes are of the same row when these are equal, so the
/// caller gives equal keys equal texts.
pub type Key = Box<[Box<str>]>;

/// One change of one row, its columns known by their position in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    pub key: Key,
    pub operation: Operation,
    /// Columns beside the key. Nothing for a delete.
    pub values: Vec<(usize, Datum)>,
}

/// What remains of a row's changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    Delete,
    /// Set these columns, in the order of their positions; leave the others as they are, or at their defaults
    /// if the row does not exist.
    Upsert(Vec<(usize, Datum)>),
    /// The row was deleted first: set these columns, and all others to their defaults.
    Replace(Vec<(usize, Datum)>),
}

/// The net effect on each row, in the order in which the rows were first touched.
pub fn fold(changes: impl IntoIterator<Item = RowChange>) -> IndexMap<Key, Net> {
    let mut rows: IndexMap<Key, Net> = IndexMap::new();
    for RowChange { key, operation, values } in changes {
        match rows.entry(key) {
            indexmap::map::Entry::Vacant(row) => {
                row.insert(match operation {
                    Operation::Upsert => Net::Upsert(sorted(values)),
                    Operation::Delete => Net::Delete,
                });
            }
            indexmap::map::Entry::Occupied(mut row) => match (row.get_mut(), operation) {
                (net, Operation::Delete) => *net = Net::Delete,
                (net @ Net::Delete, Operation::Upsert) => *net = Net::Replace(sorted(values)),
                (Net::Upsert(old) | Net::Replace(old), Operation::Upsert) => merge(old, values),
            },
        }
    }
    rows
}

fn sorted(mut values: Vec<(usize, Datum)>) -> Vec<(usize, Datum)> {
    values.sort_unstable_by_key(|(column, _)| *column);
    values
}

/// The later value wins, column by column.
fn merge(old: &mut Vec<(usize, Datum)>, new: Vec<(usize, Datum)>) {
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

    fn key(name: &str) -> Key {
        Box::new([name.into()])
    }

    fn upsert(name: &str, values: &[(usize, &str)]) -> RowChange {
        let values = values.iter().map(|(column, text)| (*column, Some((*text).into()))).collect();
        RowChange { key: key(name), operation: Operation::Upsert, values }
    }

    fn delete(name: &str) -> RowChange {
        RowChange { key: key(name), operation: Operation::Delete, values: Vec::new() }
    }

    fn net(changes: Vec<RowChange>) -> Vec<(String, Net)> {
        fold(changes).into_iter().map(|(key, net)| (key[0].to_string(), net)).collect()
    }

    #[test]
    fn later_values_win_column_by_column() {
        let folded = net(vec![
            upsert("a", &[(2, "x"), (1, "y")]),
            upsert("b", &[]),
            upsert("a", &[(1, "z"), (0, "w")]),
        ]);
        let expected = vec![(0, Some("w".into())), (1, Some("z".into())), (2, Some("x".into()))];
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
        let expected = vec![(2, Some("y".into())), (3, Some("z".into()))];
        assert_eq!(replaced, [("a".into(), Net::Replace(expected))]);
    }
}
