//! What each journal followed when `migrate` ran last, by the catalog's own numbers: they tell a renamed table
//! or column from one that was dropped and another that took its name.
//!
//! Reads and writes `debshrew.journal_column`; what follows from the differences is `journal`'s business.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{GenericClient, Transaction};

use super::ApplyError;
use super::target::{STATE_TABLE, Target};
use crate::db::DbError;
use crate::db::catalog::{Column, Table};

/// A table as it was.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) oid: u32,
    pub(super) columns: Vec<RecordedColumn>,
}

#[derive(Debug)]
pub(super) struct RecordedColumn {
    pub(super) number: i16,
    pub(super) name: String,
    pub(super) in_key: bool,
}

/// All tables of a pipeline as they were, by name.
#[derive(Debug)]
pub(super) struct Records {
    tables: BTreeMap<String, Record>,
    /// The database was restored from a dump, which gives every table and column another number: names are
    /// all there is to go by.
    pub(super) restored: bool,
}

/// What a table was before.
#[derive(Debug)]
pub(super) enum Former<'a> {
    /// It was this, under this name.
    Same(&'a str, &'a Record),
    /// Another table had its name, and is gone.
    MadeAnew(&'a str),
    /// It was not there.
    New,
}

impl Records {
    pub(super) async fn read(
        client: &impl GenericClient,
        pipeline: i32,
        targets: &[Target],
    ) -> Result<Records, ApplyError> {
        let rows = client
            .query(
                "-- apply::record::read\n\
                 select table_name, table_oid, column_name, attribute_number, in_key from debshrew.journal_column \
                  where pipeline_id = $1",
                &[&pipeline],
            )
            .await
            .map_err(DbError::statement("read what the journals follow"))?;
        let mut tables: BTreeMap<String, Record> = BTreeMap::new();
        for row in &rows {
            tables
                .entry(row.get("table_name"))
                .or_insert_with(|| Record { oid: row.get("table_oid"), columns: Vec::new() })
                .columns
                .push(RecordedColumn {
                    number: row.get("attribute_number"),
                    name: row.get("column_name"),
                    in_key: row.get("in_key"),
                });
        }
        // No migration of a user's makes the state's table anew.
        let state = targets.iter().find(|target| target.table.name == STATE_TABLE);
        let restored = state.zip(tables.get(STATE_TABLE)).is_some_and(|(now, was)| now.table.oid != was.oid);
        Ok(Records { tables, restored })
    }

    pub(super) fn get(&self, table: &str) -> Option<&Record> {
        self.tables.get(table)
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
            table.key.iter().map(|column| table.columns[*column].name.as_str()).collect();
        if key_was != key_is {
            return Some(format!("table `{name}` has another primary key"));
        }
        let stranger = table.stored().map(|column| &table.columns[column]).find(|column| {
            !record.columns.iter().any(|was| was.name == column.name && self.same_column(was, column))
        });
        stranger.map(|column| format!("column `{}` of `{name}` is another one than before", column.name))
    }
}

/// Records the tables as they are now.
pub(super) async fn write(
    transaction: &Transaction<'_>,
    pipeline: i32,
    targets: &[Target],
) -> Result<(), ApplyError> {
    let failed = || DbError::statement("record what the journals follow");
    transaction
        .execute("delete from debshrew.journal_column where pipeline_id = $1", &[&pipeline])
        .await
        .map_err(failed())?;
    for Target { table, .. } in targets {
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let numbers: Vec<i16> = table.columns.iter().map(|column| column.number).collect();
        let in_key: Vec<bool> = (0..table.columns.len()).map(|column| table.key.contains(&column)).collect();
        transaction
            .execute(
                "-- apply::record::write\n\
                 insert into debshrew.journal_column \
                   (pipeline_id, table_name, table_oid, column_name, attribute_number, in_key) \
                 select $1, $2, $3, c.* from unnest($4::text[], $5::int2[], $6::bool[]) c",
                &[&pipeline, &table.name, &table.oid, &names, &numbers, &in_key],
            )
            .await
            .map_err(failed())?;
    }
    Ok(())
}
