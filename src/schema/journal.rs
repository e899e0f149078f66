//! The journal tables themselves: made, and kept in step with the tables whose rows they hold.
//!
//! Runs in the transaction of the migrations, so that no block can be committed between a change of a table
//! and that of its journal.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Transaction};

use super::constraints::{self, Constraint};
use super::declared::{Declared, declared_packed, declared_values, store_as_they_are};
use super::record::{Former, Records};
use super::{SchemaError, execute, names};
use crate::db::catalog::{Column, Table};
use crate::db::{DbError, quote};
use crate::register::{self, JournalRecord, Registered, read_journals, write_journals};
use crate::table::{
    PACKED_COLUMN, STATE_JOURNAL, STATE_TABLE, Tables, Target, is_journals_own, journal_schema,
};

/// What was done to the journals, in words for the person who runs `migrate`.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    pub done: Vec<String>,
    /// Blocks committed before this migration can no longer be rolled back, and why.
    pub cut: Vec<String>,
    /// Tables whose journals went with what they held.
    pub dropped: Vec<String>,
    /// Tables that have other names now.
    pub renamed: Vec<String>,
}

/// Makes the state and its journal in the schema of the pipeline's journals.
pub(super) async fn prepare(transaction: &Transaction<'_>, pipeline: &str) -> Result<(), SchemaError> {
    let schema = journal_schema(pipeline);
    let sql = format!(
        "-- schema::journal::prepare\n\
         create table if not exists {schema}.{STATE_TABLE} (\n  \
           key bytea not null,\n  value bytea not null,\n  constraint {STATE_TABLE}_pkey primary key (key)\n);\n\
         comment on table {schema}.{STATE_TABLE} is 'The transform''s state.';\n",
        schema = quote(&schema),
    );
    execute(transaction, &sql, "make the state's table").await
}

/// What a migration has done that the catalog does not show.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Tables whose rows it wrote.
    pub written: Vec<String>,
    /// Tables whose rows it may have converted by expressions that a journal cannot apply.
    pub converted: Vec<String>,
    /// What rows had to meet before.
    pub(super) constraints: BTreeMap<u32, Vec<Constraint>>,
}

/// Brings every journal of the pipeline in step with its table, and drops those whose table is gone.
pub(super) async fn bring_in_step(
    transaction: &Transaction<'_>,
    pipeline: &Registered,
    tables: &Tables,
    journals: &[Table],
    seen: &Seen,
) -> Result<Steps, SchemaError> {
    let schema = journal_schema(&pipeline.name);
    let records = Records::new(read_journals(transaction, pipeline.id).await?, tables);
    let mut work = Work { transaction, schema: &schema, records: &records, steps: Steps::default() };
    let followed: Vec<(&Target, Option<Followed<'_>>)> =
        tables.all().iter().map(|target| (target, work.followed(target, tables.all(), journals))).collect();
    work.drop_others(&followed, tables, journals).await?;
    work.rename_journals(&followed).await?;
    for (target, followed) in &followed {
        match followed {
            Some(followed) => work.follow(target, followed).await?,
            None => work.create(target).await?,
        }
    }
    for table in &seen.written {
        work.steps.cut.push(format!("rows of `{table}` were written by the migration itself"));
    }
    for table in &seen.converted {
        work.steps.cut.push(format!(
            "rows of `{table}` may have been converted by an expression of the migration's (`using …`)"
        ));
    }
    let constraints = names::read_beside_recorded(transaction, &pipeline.schema, &records).await?;
    work.check_constraints(&followed, &seen.constraints, &constraints).await?;
    let mut steps = work.steps;
    let now = followed.iter().map(|(target, followed)| {
        let former = followed.as_ref().map(|followed| followed.record);
        let now = constraints.get(&target.table.oid).map(Vec::as_slice).unwrap_or_default();
        let now = now.iter().map(|constraint| constraint.definition.clone()).collect();
        (target.table.name.clone(), records.renew(target, former, now))
    });
    let mut now: BTreeMap<String, JournalRecord> = now.collect();
    for table in tables.refused().keys().filter(|table| tables.is_suspended(table)) {
        now.extend(records.get(table).map(|record| (table.clone(), record.clone())));
    }
    write_journals(transaction, pipeline.id, &now).await?;
    if register::checkpoint(transaction, pipeline.id).await?.block.is_none() {
        // There is no block that could be rolled back.
        steps.cut.clear();
    }
    if !steps.cut.is_empty() {
        register::cut(transaction, pipeline.id).await?;
    }
    Ok(steps)
}

/// The differences between the tables and what `migrate` found when it ran last.
pub(super) async fn differences(
    client: &Client,
    pipeline: &Registered,
    tables: &Tables,
    journals: &[Table],
) -> Result<Vec<String>, SchemaError> {
    let records = Records::new(read_journals(client, pipeline.id).await?, tables);
    let mut differences = Vec::new();
    for target in tables.all() {
        let table = &target.table;
        let name = journal_name(&table.name);
        let Some(journal) = journals.iter().find(|journal| journal.name == name) else {
            differences.push(format!("table `{}` has no journal", table.name));
            continue;
        };
        let lacking = |wanted: Vec<Declared<'_>>| {
            let lacking =
                wanted.into_iter().find(|wanted| !journal.columns.iter().any(|held| wanted.is(held)))?;
            Some(format!("the journal of `{}` lacks its column `{}`", table.name, lacking.name))
        };
        let difference = lacking(declared_values(target)).or_else(|| records.difference(table));
        let difference = difference.or_else(|| lacking(vec![Declared::held()]));
        differences.extend(difference.or_else(|| lacking(declared_packed(target))));
    }
    Ok(differences)
}

/// The journal of a table, and the table as the journal last followed it.
struct Followed<'a> {
    record: &'a JournalRecord,
    journal: &'a Table,
}

fn journal_name(table: &str) -> &str {
    if table == STATE_TABLE { STATE_JOURNAL } else { table }
}

/// Whether a column that its journal lacks was in the table before: dropped from the journal alone, or generated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WasThere {
    Yes,
    No,
}

/// Journals being brought in step; what it does to their columns is in `columns`.
pub(super) struct Work<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    schema: &'a str,
    records: &'a Records,
    pub(super) steps: Steps,
}

impl<'a> Work<'a> {
    pub(super) async fn run(&mut self, sql: &str, done: &str) -> Result<(), SchemaError> {
        execute(self.transaction, sql, done).await?;
        self.steps.done.push(done.to_owned());
        Ok(())
    }

    fn sql(&self, journal: &str) -> String {
        format!("{}.{}", quote(self.schema), quote(journal))
    }

    fn followed(
        &mut self,
        target: &Target,
        targets: &[Target],
        journals: &'a [Table],
    ) -> Option<Followed<'a>> {
        match self.records.former(&target.table, targets) {
            Former::Same(name, record) => journals
                .iter()
                .find(|journal| journal.name == journal_name(name))
                .map(|journal| Followed { record, journal }),
            Former::MadeAnew(name) => {
                let cut = format!("table `{name}` was dropped and made anew, with other rows");
                self.steps.cut.push(cut);
                None
            }
            Former::New => {
                if self.records.restored {
                    let name = &target.table.name;
                    self.steps.cut.push(format!(
                        "the database was restored from a dump, and which table `{name}` was is not known"
                    ));
                }
                None
            }
        }
    }

    /// Images that are older than a constraint may violate it, and could not be put back.
    async fn check_constraints(
        &mut self,
        followed: &[(&Target, Option<Followed<'_>>)],
        before: &BTreeMap<u32, Vec<Constraint>>,
        now: &BTreeMap<u32, Vec<Constraint>>,
    ) -> Result<(), SchemaError> {
        for (target, followed) in followed {
            let (Some(now), Some(followed)) = (now.get(&target.table.oid), followed) else { continue };
            let recorded = followed.record.constraints.clone();
            // Of a journal that is older than such records, what was there when `migrate` began.
            let before = recorded.unwrap_or_else(|| {
                let before = before.get(&target.table.oid).into_iter().flatten();
                before.map(|constraint| constraint.definition.clone()).collect()
            });
            let target = self.records.with_slots(target, followed.record);
            for violated in constraints::violated(self.transaction, &target, now, &before).await? {
                self.steps.cut.push(format!(
                    "rows that `{}` once had may not meet what is new: {}",
                    target.table.name,
                    violated.described()
                ));
            }
        }
        Ok(())
    }

    /// Drops the journals that no table of now continues.
    async fn drop_others(
        &mut self,
        followed: &[(&Target, Option<Followed<'_>>)],
        tables: &Tables,
        journals: &[Table],
    ) -> Result<(), SchemaError> {
        for journal in journals.iter().filter(|journal| journal.name != STATE_TABLE) {
            if followed.iter().flat_map(|(_, followed)| followed).any(|kept| kept.journal.oid == journal.oid)
            {
                continue;
            }
            if tables.is_suspended(&journal.name) {
                // Once the reason is taken back, it goes on.
                continue;
            }
            let name = &journal.name;
            self.run(&format!("drop table {}", journal.sql()), &format!("dropped the journal of `{name}`"))
                .await?;
            if tables.refused().contains_key(name) || self.is_there(name).await? {
                self.steps.cut.push(format!("table `{name}` is there, but is not replicated any more"));
            } else {
                self.steps.dropped.push(name.clone());
            }
        }
        Ok(())
    }

    async fn is_there(&self, table: &str) -> Result<bool, SchemaError> {
        let Some(record) = self.records.get(table) else { return Ok(false) };
        let sql =
            "-- schema::journal::is_there\nselect exists (select from pg_catalog.pg_class where oid = $1)";
        let row = self.transaction.query_one(sql, &[&record.oid]).await;
        Ok(row.map_err(DbError::statement("look for a table"))?.get(0))
    }

    async fn create(&mut self, target: &Target) -> Result<(), SchemaError> {
        let columns: Vec<String> =
            declared_values(target).iter().chain(&declared_packed(target)).map(Declared::sql).collect();
        let table = self.sql(journal_name(&target.table.name));
        // Heights only grow, so a block range index finds a height's rows at next to no cost for the writer.
        let sql = format!(
            "create table {table} (undo_height integer not null, undo_existed boolean not null, undo_held bytea, {});\n\
             alter table {table} replica identity full;\n\
             create index on {table} using brin (undo_height) with (pages_per_range = 16, autosummarize = on){}",
            columns.join(", "),
            store_as_they_are(&table, &declared_packed(target)),
        );
        self.run(&sql, &format!("made the journal of `{}`", target.table.name)).await
    }

    /// By way of names that nobody uses, since tables may have taken one another's.
    async fn rename_journals(
        &mut self,
        followed: &[(&Target, Option<Followed<'_>>)],
    ) -> Result<(), SchemaError> {
        let renamed: Vec<(&str, &str)> = followed
            .iter()
            .filter_map(|(target, followed)| {
                Some((followed.as_ref()?.journal.name.as_str(), journal_name(&target.table.name)))
            })
            .filter(|(from, to)| from != to)
            .collect();
        let between = |index: usize| format!("debshrew renaming {index}");
        for (index, (from, _)) in renamed.iter().enumerate() {
            let sql = format!("alter table {} rename to {}", self.sql(from), quote(&between(index)));
            execute(self.transaction, &sql, "rename a journal").await?;
        }
        for (index, (from, to)) in renamed.iter().enumerate() {
            let sql = format!("alter table {} rename to {}", self.sql(&between(index)), quote(to));
            self.run(&sql, &format!("renamed the journal of `{from}` to `{to}`")).await?;
            self.steps.renamed.push((*from).to_owned());
        }
        Ok(())
    }

    /// Drops, renames, retypes and adds columns as the table had it.
    async fn follow(&mut self, target: &Target, followed: &Followed<'_>) -> Result<(), SchemaError> {
        let Followed { record, journal } = followed;
        let table = &target.table;
        let journal_sql = self.sql(journal_name(&table.name));
        let held_by = |name: &str| journal.columns.iter().find(|held| held.name == name);
        let recorded =
            |column: &Column| record.columns.iter().find(|was| self.records.same_column(was, column));
        // Each of the table's columns with the one that the journal holds for it.
        let columns: Vec<(&Column, Option<&Column>)> = table
            .stored()
            .map(|column| table.column(column))
            .map(|column| (column, recorded(column).and_then(|was| held_by(&was.name))))
            .collect();
        let was_there: Vec<WasThere> = columns
            .iter()
            .map(|(column, _)| if recorded(column).is_some() { WasThere::Yes } else { WasThere::No })
            .collect();
        for held in journal.columns.iter().filter(|held| !is_journals_own(&held.name)) {
            if !columns.iter().any(|(_, kept)| kept.is_some_and(|kept| kept.number == held.number)) {
                let sql = format!("alter table {journal_sql} drop column {}", quote(&held.name));
                self.run(&sql, &format!("journal of `{}`: dropped `{}`", table.name, held.name)).await?;
            }
        }
        let renamed: Vec<(String, String)> = columns
            .iter()
            .filter_map(|(column, held)| Some((held.as_ref()?.name.clone(), column.name.clone())))
            .filter(|(from, to)| from != to)
            .collect();
        self.rename_columns(table, &journal_sql, &renamed).await?;
        for ((column, held), was_there) in columns.iter().zip(was_there) {
            match held {
                Some(held) if !Declared::of(column).has_type_of(held) => {
                    self.retype_column(table, &journal_sql, &Declared::of(column), column).await?;
                }
                Some(_) => {}
                None => self.add_column(table, &journal_sql, column, was_there).await?,
            }
        }
        if !journal.columns.iter().any(|held| Declared::held().is(held)) {
            let sql = format!("alter table {journal_sql} add column {}", Declared::held().sql());
            execute(self.transaction, &sql, "add a journal's column").await?;
        }
        // It has no key of its own, and a publication of all tables would forbid to take images away.
        let sql = format!("alter table {journal_sql} replica identity full");
        execute(self.transaction, &sql, "set a journal's replica identity").await?;
        self.follow_key(target, followed, &journal_sql).await
    }

    /// Images of rows that did not exist hold the key alone: under another key they say nothing.
    async fn follow_key(
        &mut self,
        target: &Target,
        Followed { record, journal }: &Followed<'_>,
        journal_sql: &str,
    ) -> Result<(), SchemaError> {
        let table = &target.table;
        let was_in_key = |column: &Column| {
            record.columns.iter().any(|was| was.in_key && self.records.same_column(was, column))
        };
        let mut now = table.key.iter().map(|column| table.column(*column));
        let former = record.columns.iter().filter(|was| was.in_key).count();
        let packed = declared_packed(target);
        let mut held: Vec<&Column> =
            journal.columns.iter().filter(|held| held.name.starts_with(PACKED_COLUMN)).collect();
        // Where arrays of the key's type are no longer possible, there are fewer.
        if table.key.len() != former || held.len() > packed.len() || !now.all(was_in_key) {
            self.run(
                &format!("delete from {journal_sql}"),
                &format!("emptied the journal of `{}`", table.name),
            )
            .await?;
            self.steps.cut.push(format!("the primary key of `{}` has changed", table.name));
            for held in held.drain(..) {
                let sql = format!("alter table {journal_sql} drop column {}", quote(&held.name));
                execute(self.transaction, &sql, "drop a journal's column").await?;
            }
        }
        for (wanted, (_, place)) in packed.iter().zip(target.packed_key()) {
            match held.iter().find(|held| held.name == wanted.name) {
                Some(held) if wanted.has_type_of(held) => {}
                Some(_) => {
                    let column = table.column(table.key[place]);
                    self.retype_column(table, journal_sql, wanted, column).await?;
                }
                None => {
                    let sql = format!(
                        "alter table {journal_sql} add column {}{}",
                        wanted.sql(),
                        store_as_they_are(journal_sql, [wanted])
                    );
                    execute(self.transaction, &sql, "add a journal's column").await?;
                }
            }
        }
        Ok(())
    }
}
