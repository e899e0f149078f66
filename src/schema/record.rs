//! What each journal followed when `migrate` ran last, by the catalog's own numbers: they tell a renamed table
//! or column from one that was dropped and another that took its name.
//!
//! What follows from the differences is `journal`'s business.

use std::collections::{BTreeMap, BTreeSet};

use crate::db::catalog::{Column, ColumnId, Table};
use crate::register::{JournalRecord, RecordedColumn};
use crate::table::{STATE_TABLE, Tables, Target};

/// All tables of a pipeline as they were, by name.
#[derive(Debug)]
pub(super) struct Records {
    tables: BTreeMap<String, JournalRecord>,
    /// The database was restored from a dump, which gives every table and column another number: names are
    /// all there is to go by.
    pub(super) restored: bool,
}

/// What a table was before.
#[derive(Debug)]
pub(super) enum Former<'a> {
    /// It was this, under this name.
    Same(&'a str, &'a JournalRecord),
    /// Another table had its name, and is gone.
    MadeAnew(&'a str),
    /// It was not there.
    New,
}

impl Records {
    pub(super) fn new(tables: BTreeMap<String, JournalRecord>, now: &Tables) -> Records {
        Records::of(tables, now.all().iter().map(|target| &target.table))
    }

    pub(super) fn of<'a>(
        tables: BTreeMap<String, JournalRecord>,
        mut now: impl Iterator<Item = &'a Table>,
    ) -> Records {
        // No migration of a user's makes the state's table anew.
        let state = now.find(|table| table.name == STATE_TABLE);
        let restored = state.zip(tables.get(STATE_TABLE)).is_some_and(|(now, was)| now.oid != was.oid);
        Records { tables, restored }
    }

    pub(super) fn get(&self, table: &str) -> Option<&JournalRecord> {
        self.tables.get(table)
    }

    /// All of them, with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &JournalRecord)> {
        self.tables.iter().map(|(name, record)| (name.as_str(), record))
    }

    pub(super) fn former(&self, table: &Table, targets: &[Target]) -> Former<'_> {
        let by_name = self.tables.get_key_value(&table.name);
        if self.restored {
            return by_name.map_or(Former::New, |(name, record)| Former::Same(name, record));
        }
        if let Some((name, record)) = self.tables.iter().find(|(_, record)| record.oid == table.oid) {
            return Former::Same(name, record);
        }
        match by_name {
            Some((name, record)) if targets.iter().all(|other| other.table.oid != record.oid) => {
                Former::MadeAnew(name)
            }
            _ => Former::New,
        }
    }

    /// Whether a column is the one that was recorded.
    pub(super) fn same_column(&self, was: &RecordedColumn, now: &Column) -> bool {
        if self.restored { was.name == now.name } else { was.number == now.number }
    }

    /// How a table differs from what its journal followed; what its columns are now is not looked at.
    pub(super) fn difference(&self, table: &Table) -> Option<String> {
        let name = &table.name;
        let Some(record) = self.tables.get(name) else { return Some(format!("table `{name}` is new")) };
        if !self.restored && record.oid != table.oid {
            return Some(format!("table `{name}` is another one than before"));
        }
        let key_was: BTreeSet<&str> =
            record.columns.iter().filter(|column| column.in_key).map(|column| column.name.as_str()).collect();
        let key_is: BTreeSet<&str> =
            table.key.iter().map(|column| table.column(*column).name.as_str()).collect();
        if key_was != key_is {
            return Some(format!("table `{name}` has another primary key"));
        }
        let stranger = table.stored().map(|column| table.column(column)).find(|column| {
            !record.columns.iter().any(|was| was.name == column.name && self.same_column(was, column))
        });
        stranger.map(|column| format!("column `{}` of `{name}` is another one than before", column.name))
    }

    /// After a restore from a dump, the records with the numbers that tables and columns have now, by their names.
    pub(super) fn renumbered(&self, now: &[Table]) -> Option<BTreeMap<String, JournalRecord>> {
        if !self.restored {
            return None;
        }
        let mut tables = self.tables.clone();
        for table in now {
            let Some(record) = tables.get_mut(&table.name) else { continue };
            record.oid = table.oid;
            for was in &mut record.columns {
                let column = table.columns.iter().find(|column| column.name == was.name);
                was.number = column.map_or(was.number, |column| column.number);
            }
        }
        Some(tables)
    }

    /// The table with the slots that its columns had; those of new columns are in no image.
    pub(super) fn with_slots(&self, target: &Target, former: &JournalRecord) -> Target {
        let mut target = target.clone();
        let slots = slots(&target.table, &former.columns, |was, now| self.same_column(was, now));
        target.slots = slots.into_iter().map(i16::unsigned_abs).collect();
        target
    }

    /// The record of a table as it is now; columns that it had before keep their slots.
    pub(super) fn renew(
        &self,
        target: &Target,
        former: Option<&JournalRecord>,
        constraints: Vec<String>,
    ) -> JournalRecord {
        let table = &target.table;
        let recorded = former.map(|former| former.columns.as_slice()).unwrap_or_default();
        let slots = slots(table, recorded, |was, now| self.same_column(was, now));
        let columns = (0..).map(ColumnId::new).zip(slots).map(|(id, slot)| {
            let column = table.column(id);
            RecordedColumn {
                number: column.number,
                name: column.name.clone(),
                in_key: table.key.contains(&id),
                slot: Some(slot),
            }
        });
        JournalRecord { oid: table.oid, columns: columns.collect(), constraints: Some(constraints) }
    }
}

/// Gives each column the slot that it has in the record.
pub(super) fn number(target: &mut Target, record: Option<&JournalRecord>) {
    let recorded = record.map(|record| record.columns.as_slice()).unwrap_or_default();
    let slots = slots(&target.table, recorded, |was, now| was.name == now.name);
    target.slots = slots.into_iter().map(i16::unsigned_abs).collect();
}

/// Each column's slot: the one that it was recorded with, or one that no recorded column has.
fn slots(
    table: &Table,
    recorded: &[RecordedColumn],
    same: impl Fn(&RecordedColumn, &Column) -> bool,
) -> Vec<i16> {
    let last = recorded.iter().filter_map(|was| was.slot).max();
    let mut free = last.map_or(0, |slot| slot.saturating_add(1))..;
    let slot = |column| {
        let slot = recorded.iter().find(|was| same(was, column)).and_then(|was| was.slot);
        slot.or_else(|| free.next()).unwrap_or_default()
    };
    table.columns.iter().map(slot).collect()
}
