//! What is done to a journal's columns when those of its table have changed.

use super::constraints;
use super::declared::Declared;
use super::journal::{WasThere, Work};
use super::{SchemaError, execute};
use crate::db::catalog::{Column, Table};
use crate::db::quote;
use crate::failure::Kind;
use crate::table::PACKED_COLUMN;

impl Work<'_> {
    /// By way of names that nobody uses, since two columns may have swapped theirs.
    pub(super) async fn rename_columns(
        &mut self,
        table: &Table,
        journal_sql: &str,
        renamed: &[(String, String)],
    ) -> Result<(), SchemaError> {
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

    /// The images are of rows that got a value when the column was added: PostgreSQL remembers which, unless it
    /// had to write one into every row.
    pub(super) async fn add_column(
        &mut self,
        table: &Table,
        journal_sql: &str,
        column: &Column,
        was_there: WasThere,
    ) -> Result<(), SchemaError> {
        let name = quote(&column.name);
        let missing = column.missing.as_ref().filter(|_| was_there == WasThere::No);
        let default =
            missing.map(|value| format!(" default {value}::{}", column.type_sql)).unwrap_or_default();
        let sql = format!(
            "alter table {journal_sql} add column {}{default};\n\
             alter table {journal_sql} alter column {name} drop default",
            Declared::of(column).sql()
        );
        self.run(&sql, &format!("journal of `{}`: added `{}`", table.name, column.name)).await?;
        let null = column.default.is_none() && column.varying_default.is_none() && !column.not_null;
        if was_there == WasThere::Yes {
            self.steps.cut.push(format!(
                "the former values of column `{}` of `{}` are not in the journal",
                column.name, table.name
            ));
        } else if missing.is_none() && !null {
            self.steps.cut.push(format!(
                "column `{}` of `{}` is new, and what it holds in rows of before is not known",
                column.name, table.name
            ));
        }
        Ok(())
    }

    /// `held`: the journal's column. `column`: the table's, whose values it holds.
    pub(super) async fn retype_column(
        &mut self,
        table: &Table,
        journal_sql: &str,
        held: &Declared<'_>,
        column: &Column,
    ) -> Result<(), SchemaError> {
        let name = quote(&held.name);
        // By way of the declared type, whose scale or length the table's values have been given too.
        let array = if held.name.starts_with(PACKED_COLUMN) { "[]" } else { "" };
        let declared = format!("{}{array}", column.declared);
        let retype = format!(
            "alter table {journal_sql} alter column {name} type {} using {name}::{declared}::{}",
            held.type_and_collation(),
            held.type_sql
        );
        let done = format!("journal of `{}`: `{}` is now {}", table.name, held.name, column.declared);
        execute(self.transaction, "savepoint retype", "set a savepoint").await?;
        let cut_off =
            constraints::is_cut_off(self.transaction, journal_sql, &held.name, &held.type_sql, &declared)
                .await?;
        if cut_off {
            self.steps.cut.push(format!(
                "former values of column `{}` of `{}` do not fit into {}",
                column.name, table.name, column.declared
            ));
        }
        match execute(self.transaction, &retype, &done).await {
            Ok(()) => {
                self.steps.done.push(done);
                return execute(self.transaction, "release savepoint retype", "release a savepoint").await;
            }
            Err(error) if error.kind() == Kind::Transient => return Err(error),
            Err(_) => {}
        }
        let anew = format!(
            "rollback to savepoint retype; release savepoint retype;\n\
             alter table {journal_sql} drop column {name};\nalter table {journal_sql} add column {}",
            held.sql()
        );
        self.run(&anew, &done).await?;
        self.steps.cut.push(format!(
            "the former values of column `{}` of `{}` cannot be cast to {}",
            column.name, table.name, column.declared
        ));
        Ok(())
    }
}
