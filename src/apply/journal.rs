//! The journal tables themselves: made, and kept in step with the tables whose rows they hold.
//!
//! Runs in the transaction of the migrations, so that no block can be committed between a change of a table
//! and that of its journal.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::ApplyError;
use super::target::{STATE_JOURNAL, STATE_TABLE, Target, journal_schema};
use crate::db::catalog::{self, Column, Table};
use crate::db::{DbError, quote};

/// What was done to the journals, in words for the person who runs `migrate`.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    pub done: Vec<String>,
    /// Blocks committed before this migration can no longer be rolled back, and why.
    pub cut: Vec<String>,
}

/// Makes the schema of the pipeline's journals, with its state and the state's journal.
pub async fn prepare(transaction: &Transaction<'_>, pipeline: &str) -> Result<(), ApplyError> {
    let schema = journal_schema(pipeline);
    let sql = format!(
        "-- apply::journal::prepare\n\
         create schema if not exists {schema};\n\
         comment on schema {schema} is 'debshrew: state and undo journals of a pipeline; not for use by others';\n\
         create table if not exists {schema}.{STATE_TABLE} (\n  \
           key bytea not null,\n  value bytea not null,\n  constraint {STATE_TABLE}_pkey primary key (key)\n);\n\
         comment on table {schema}.{STATE_TABLE} is 'The transform''s state.';\n",
        schema = quote(&schema),
    );
    execute(transaction, &sql, "make the journal schema").await
}

/// Brings every journal of the pipeline in step with its table, and drops those whose table is gone.
pub async fn bring_in_step(
    transaction: &Transaction<'_>,
    pipeline: i32,
    name: &str,
    targets: &[Target],
) -> Result<Steps, ApplyError> {
    let schema = journal_schema(name);
    let journals = catalog::tables(transaction.client(), &schema).await?;
    let recorded = recorded(transaction, pipeline).await?;
    let mut work = Work { transaction, schema: &schema, steps: Steps::default() };
    let mut kept = vec![STATE_TABLE.to_owned()];
    for target in targets {
        let journal_name = journal_name(&target.table);
        let former = recorded.iter().find(|(table, record)| {
            **table == target.table.name
                || (record.oid == target.table.oid
                    && !targets.iter().any(|other| other.table.name == **table))
        });
        let old_name = former
            .map(|(table, _)| if *table == STATE_TABLE { STATE_JOURNAL.to_owned() } else { table.clone() });
        let journal = old_name.and_then(|name| journals.iter().find(|journal| journal.name == name));
        match (former, journal) {
            (Some((_, record)), Some(journal)) => {
                kept.push(journal.name.clone());
                work.rename(journal, &journal_name).await?;
                work.follow(target, record, journal).await?;
            }
            _ => work.create(target, &journal_name).await?,
        }
    }
    for journal in journals.iter().filter(|journal| !kept.contains(&journal.name)) {
        work.run(
            &format!("drop table {}", journal.sql()),
            &format!("dropped the journal of `{}`", journal.name),
        )
        .await?;
    }
    let steps = work.steps;
    record(transaction, pipeline, targets).await?;
    if !steps.cut.is_empty() {
        transaction
            .execute(
                "-- apply::journal::cut\nupdate debshrew.checkpoint set journal_floor = height where pipeline_id = $1",
                &[&pipeline],
            )
            .await
            .map_err(DbError::statement("raise the journal's floor"))?;
    }
    Ok(steps)
}

/// The differences between the journals and their tables; none when `migrate` has been run since the tables
/// last changed.
pub fn differences(targets: &[Target], journals: &[Table]) -> Vec<String> {
    let mut differences = Vec::new();
    for target in targets {
        let name = journal_name(&target.table);
        let Some(journal) = journals.iter().find(|journal| journal.name == name) else {
            differences.push(format!("table `{}` has no journal", target.table.name));
            continue;
        };
        for column in target.table.stored().map(|column| &target.table.columns[column]) {
            let in_step =
                journal.columns.iter().any(|held| held.name == column.name && same_type(held, column));
            if !in_step {
                differences.push(format!(
                    "the journal of `{}` lacks its column `{}`",
                    target.table.name, column.name
                ));
            }
        }
    }
    differences
}

fn journal_name(table: &Table) -> String {
    if table.name == STATE_TABLE { STATE_JOURNAL.to_owned() } else { table.name.clone() }
}

fn same_type(held: &Column, column: &Column) -> bool {
    held.type_sql == column.type_sql && held.collation == column.collation
}

/// A column as a journal declares it: always nullable, since a row that did not exist has no values.
fn declaration(column: &Column) -> String {
    let collate = column.collation.as_ref().map(|name| format!(" collate {name}")).unwrap_or_default();
    format!("{} {}{collate}", quote(&column.name), column.type_sql)
}

struct Record {
    oid: u32,
    /// Column names by the catalog's number, and whether they are part of the key.
    columns: BTreeMap<i16, (String, bool)>,
}

async fn recorded(
    transaction: &Transaction<'_>,
    pipeline: i32,
) -> Result<BTreeMap<String, Record>, ApplyError> {
    let rows = transaction
        .query(
            "-- apply::journal::recorded\n\
             select table_name, table_oid, column_name, attribute_number, in_key from debshrew.journal_column \
              where pipeline_id = $1",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("read the journals' columns"))?;
    let mut tables: BTreeMap<String, Record> = BTreeMap::new();
    for row in &rows {
        let record = tables
            .entry(row.get("table_name"))
            .or_insert_with(|| Record { oid: row.get("table_oid"), columns: BTreeMap::new() });
        record.columns.insert(row.get("attribute_number"), (row.get("column_name"), row.get("in_key")));
    }
    Ok(tables)
}

async fn record(transaction: &Transaction<'_>, pipeline: i32, targets: &[Target]) -> Result<(), ApplyError> {
    let failed = || DbError::statement("record the journals' columns");
    transaction
        .execute("delete from debshrew.journal_column where pipeline_id = $1", &[&pipeline])
        .await
        .map_err(failed())?;
    for target in targets {
        let stored: Vec<usize> = target.table.stored().collect();
        let names: Vec<&str> =
            stored.iter().map(|column| target.table.columns[*column].name.as_str()).collect();
        let numbers: Vec<i16> = stored.iter().map(|column| target.table.columns[*column].number).collect();
        let in_key: Vec<bool> = stored.iter().map(|column| target.table.key.contains(column)).collect();
        transaction
            .execute(
                "-- apply::journal::record\n\
                 insert into debshrew.journal_column \
                   (pipeline_id, table_name, table_oid, column_name, attribute_number, in_key) \
                 select $1, $2, $3, c.* from unnest($4::text[], $5::int2[], $6::bool[]) c",
                &[&pipeline, &target.table.name, &target.table.oid, &names, &numbers, &in_key],
            )
            .await
            .map_err(failed())?;
    }
    Ok(())
}

struct Work<'a> {
    transaction: &'a Transaction<'a>,
    schema: &'a str,
    steps: Steps,
}

impl Work<'_> {
    async fn run(&mut self, sql: &str, done: &str) -> Result<(), ApplyError> {
        execute(self.transaction, sql, done).await?;
        self.steps.done.push(done.to_owned());
        Ok(())
    }

    fn sql(&self, journal: &str) -> String {
        format!("{}.{}", quote(self.schema), quote(journal))
    }

    async fn create(&mut self, target: &Target, name: &str) -> Result<(), ApplyError> {
        let columns: Vec<String> =
            target.table.stored().map(|column| declaration(&target.table.columns[column])).collect();
        let table = self.sql(name);
        // Heights only grow, so a block range index finds a height's rows at next to no cost for the writer.
        let sql = format!(
            "create table {table} (undo_height integer not null, undo_existed boolean not null, {});\n\
             create index on {table} using brin (undo_height) with (pages_per_range = 16, autosummarize = on)",
            columns.join(", ")
        );
        self.run(&sql, &format!("made the journal of `{}`", target.table.name)).await
    }

    async fn rename(&mut self, journal: &Table, name: &str) -> Result<(), ApplyError> {
        if journal.name == name {
            return Ok(());
        }
        let sql = format!("alter table {} rename to {}", journal.sql(), quote(name));
        self.run(&sql, &format!("renamed the journal of `{}` to `{name}`", journal.name)).await
    }

    /// Drops, renames, retypes and adds columns as the table had it.
    async fn follow(&mut self, target: &Target, record: &Record, journal: &Table) -> Result<(), ApplyError> {
        let table = &target.table;
        let journal_sql = self.sql(&journal_name(table));
        let same_table = record.oid == table.oid;
        let mut held: Vec<String> = Vec::new();
        let mut renamed: Vec<(String, String)> = Vec::new();
        for (number, (name, _)) in &record.columns {
            let now = table
                .stored()
                .map(|column| &table.columns[column])
                .find(|column| if same_table { column.number == *number } else { column.name == *name });
            match now {
                None => {
                    let sql = format!("alter table {journal_sql} drop column {}", quote(name));
                    self.run(&sql, &format!("journal of `{}`: dropped `{name}`", table.name)).await?;
                }
                Some(column) => {
                    held.push(column.name.clone());
                    if column.name != *name {
                        renamed.push((name.clone(), column.name.clone()));
                    }
                }
            }
        }
        self.rename_columns(table, &journal_sql, &renamed).await?;
        for column in table.stored().map(|column| &table.columns[column]) {
            if !held.contains(&column.name) {
                self.add_column(table, &journal_sql, column).await?;
                continue;
            }
            let former =
                renamed.iter().find(|(_, to)| *to == column.name).map_or(&column.name, |(from, _)| from);
            let held = journal.columns.iter().find(|held| held.name == *former);
            if held.is_some_and(|held| !same_type(held, column)) {
                self.retype_column(table, &journal_sql, column).await?;
            }
        }
        self.follow_key(target, record, &journal_sql).await
    }

    /// By way of names that nobody uses, since two columns may have swapped theirs.
    async fn rename_columns(
        &mut self,
        table: &Table,
        journal_sql: &str,
        renamed: &[(String, String)],
    ) -> Result<(), ApplyError> {
        let between = |index: usize| quote(&format!("undo renaming {index}"));
        for (index, (from, _)) in renamed.iter().enumerate() {
            let sql =
                format!("alter table {journal_sql} rename column {} to {}", quote(from), between(index));
            execute(self.transaction, &sql, "rename a journal's column").await?;
        }
        for (index, (from, to)) in renamed.iter().enumerate() {
            let sql = format!("alter table {journal_sql} rename column {} to {}", between(index), quote(to));
            self.run(&sql, &format!("journal of `{}`: renamed `{from}` to `{to}`", table.name)).await?;
        }
        Ok(())
    }

    /// The images are of rows that got the column's default when it was added.
    async fn add_column(
        &mut self,
        table: &Table,
        journal_sql: &str,
        column: &Column,
    ) -> Result<(), ApplyError> {
        let default = match (&column.default, &column.volatile_default) {
            (Some(default), None) => Some(default),
            _ => None,
        };
        let name = quote(&column.name);
        let with_default = default.map(|text| format!(" default {text}")).unwrap_or_default();
        let mut sql = format!("alter table {journal_sql} add column {}{with_default};", declaration(column));
        if default.is_some() {
            sql.push_str(&format!("\nalter table {journal_sql} alter column {name} drop default"));
        }
        self.run(&sql, &format!("journal of `{}`: added `{}`", table.name, column.name)).await?;
        if default.is_none() && (column.not_null || column.volatile_default.is_some()) {
            self.steps.cut.push(format!(
                "column `{}` of `{}` is new, and what it holds in rows of before is not known",
                column.name, table.name
            ));
        }
        Ok(())
    }

    async fn retype_column(
        &mut self,
        table: &Table,
        journal_sql: &str,
        column: &Column,
    ) -> Result<(), ApplyError> {
        let name = quote(&column.name);
        let collate = column.collation.as_ref().map(|name| format!(" collate {name}")).unwrap_or_default();
        let retype = format!(
            "alter table {journal_sql} alter column {name} type {}{collate} using {name}::{}",
            column.type_sql, column.type_sql
        );
        let done = format!("journal of `{}`: `{}` is now {}", table.name, column.name, column.declared);
        execute(self.transaction, "savepoint retype", "set a savepoint").await?;
        if execute(self.transaction, &retype, &done).await.is_ok() {
            self.steps.done.push(done);
            return execute(self.transaction, "release savepoint retype", "release a savepoint").await;
        }
        let anew = format!(
            "rollback to savepoint retype; release savepoint retype;\n\
             alter table {journal_sql} drop column {name};\nalter table {journal_sql} add column {}",
            declaration(column)
        );
        self.run(&anew, &done).await?;
        self.steps.cut.push(format!(
            "the former values of column `{}` of `{}` cannot be cast to {}",
            column.name, table.name, column.declared
        ));
        Ok(())
    }

    /// Images of rows that did not exist hold the key alone: under another key they say nothing.
    async fn follow_key(
        &mut self,
        target: &Target,
        record: &Record,
        journal_sql: &str,
    ) -> Result<(), ApplyError> {
        let table = &target.table;
        let same_table = record.oid == table.oid;
        let was_in_key = |column: &Column| {
            record.columns.iter().any(|(number, (name, in_key))| {
                *in_key && if same_table { column.number == *number } else { column.name == *name }
            })
        };
        let now = table.key.iter().map(|column| &table.columns[*column]);
        let former = record.columns.values().filter(|(_, in_key)| *in_key).count();
        if table.key.len() == former && now.clone().all(was_in_key) {
            return Ok(());
        }
        self.run(&format!("delete from {journal_sql}"), &format!("emptied the journal of `{}`", table.name))
            .await?;
        self.steps.cut.push(format!("the primary key of `{}` has changed", table.name));
        Ok(())
    }
}

async fn execute(transaction: &Transaction<'_>, sql: &str, what: &str) -> Result<(), ApplyError> {
    transaction.batch_execute(sql).await.map_err(|error| DbError::statement(what)(error).into())
}
