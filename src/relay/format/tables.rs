//! What is the same for all rows of a table, written once.

use std::sync::Arc;

use super::json;
use super::value::value;
use crate::undo::{Event, EventTable, Row};

/// So many descriptions are kept; a table has a new one after its columns changed.
const MOST: usize = 1_000;

/// The tables that were met, each with `T`, which is made when it is met first.
pub(super) struct Tables<T> {
    met: Vec<(Names, T)>,
    /// The one that was asked for last.
    last: usize,
}

/// A table's names as JSON.
pub(super) struct Names {
    pub(super) table: Arc<EventTable>,
    /// Per column, what stands before its value: `{"first":`, `,"second":`.
    columns: Vec<Box<[u8]>>,
    /// The same for the columns of the key.
    key: Vec<Box<[u8]>>,
}

impl<T> Tables<T> {
    pub(super) fn new() -> Tables<T> {
        Tables { met: Vec::new(), last: 0 }
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut T> {
        self.met.iter_mut().map(|(_, of)| of)
    }

    pub(super) fn get(&mut self, table: &Arc<EventTable>, make: impl FnOnce() -> T) -> &mut (Names, T) {
        let is_it = |met: &&(Names, T)| Arc::ptr_eq(&met.0.table, table);
        if self.met.get(self.last).as_ref().is_none_or(|met| !is_it(met)) {
            self.last = self.place(table).unwrap_or_else(|| {
                if self.met.len() >= MOST {
                    self.met.clear();
                }
                self.met.push((Names::new(table), make()));
                self.met.len() - 1
            });
        }
        &mut self.met[self.last]
    }

    fn place(&mut self, table: &Arc<EventTable>) -> Option<usize> {
        let same = self.met.iter().position(|(names, _)| Arc::ptr_eq(&names.table, table));
        same.or_else(|| {
            let equal = self.met.iter().position(|(names, _)| names.table == *table)?;
            // Each reading describes the tables anew.
            self.met[equal].0.table = Arc::clone(table);
            Some(equal)
        })
    }
}

impl Names {
    fn new(table: &Arc<EventTable>) -> Names {
        let before = |(place, column): (usize, usize)| {
            let mut text = vec![if place == 0 { b'{' } else { b',' }];
            json::string(&table.columns[column].name, &mut text);
            text.push(b':');
            text.into_boxed_slice()
        };
        Names {
            columns: (0..table.columns.len()).map(|column| before((column, column))).collect(),
            key: table.key.iter().copied().enumerate().map(before).collect(),
            table: Arc::clone(table),
        }
    }

    /// A row as an object, or `null`.
    pub(super) fn row(&self, row: Option<&Row>, out: &mut Vec<u8>) {
        let Some(row) = row else {
            out.extend_from_slice(b"null");
            return;
        };
        for (place, (name, column)) in self.columns.iter().zip(&self.table.columns).enumerate() {
            out.extend_from_slice(name);
            value(&column.type_, row.get(place), out);
        }
        out.extend_from_slice(if self.columns.is_empty() { b"{}" } else { b"}" });
    }

    /// The key of an event's row as an object.
    pub(super) fn key(&self, event: &Event, out: &mut Vec<u8>) {
        for (name, (column, text)) in self.key.iter().zip(event.key()) {
            out.extend_from_slice(name);
            value(&column.type_, text, out);
        }
        out.extend_from_slice(if self.key.is_empty() { b"{}" } else { b"}" });
    }
}
