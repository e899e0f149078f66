//! What can be found out about a statement that failed: which row and column it was about.

use tokio_postgres::error::SqlState;

use super::plan::{Shape, Step};
use super::transaction::Sender;
use super::{CommitError, ROWS_MISSING, TRIGGER_APPEARED};
use crate::db::catalog::{Column, Trigger};
use crate::table::Target;

impl Sender<'_> {
    /// The error of a statement that was sent. Of one that has a single row, as in the order of emission, the row is known.
    pub(super) fn step_error(self, step: &Step, source: tokio_postgres::Error) -> CommitError {
        let found = self.tables.get(step.shape.table);
        let of_step = match &*step.arrays[0].texts() {
            [_] => Some(row_name(found, step, 0)),
            _ => None,
        };
        match self.statement_error(&step.shape, source) {
            CommitError::RowsMissing { table, counts, by, .. } => {
                CommitError::RowsMissing { table, counts, by, row: of_step }
            }
            CommitError::Statement { doing, table, column, source, .. } => {
                CommitError::Statement { doing, table, column, row: of_step, source }
            }
            other => other,
        }
    }

    pub(super) fn statement_error(self, shape: &Shape, source: tokio_postgres::Error) -> CommitError {
        let found = &self.tables.get(shape.table).table;
        let table = found.name.clone();
        match source.as_db_error() {
            Some(error) if error.code().code() == ROWS_MISSING => {
                let by = keeping_out(&found.triggers);
                CommitError::RowsMissing { table, counts: error.message().to_owned(), by, row: None }
            }
            Some(error) if error.code().code() == TRIGGER_APPEARED => CommitError::TriggerAppeared { table },
            answer => {
                let column = answer.and_then(|error| error.column()).map(str::to_owned);
                CommitError::Statement { doing: shape.action.doing(), table, column, row: None, source }
            }
        }
    }

    /// PostgreSQL does not say which parameter it could not read, or not store in a column of that length or
    /// domain: each column is cast again by itself.
    pub(super) async fn name_value(self, steps: &[Step], error: CommitError) -> CommitError {
        let CommitError::Statement { doing, table, column: None, row, source } = error else { return error };
        // Class 22: data exceptions. A violation that names no table is a domain's.
        let of_domain = source.as_db_error().is_some_and(|error| {
            error.table().is_none()
                && [SqlState::CHECK_VIOLATION, SqlState::NOT_NULL_VIOLATION].contains(error.code())
        });
        if !of_domain && !source.code().is_some_and(|code| code.code().starts_with("22")) {
            return CommitError::Statement { doing, table, column: None, row, source };
        }
        for step in steps.iter().filter(|step| self.tables.get(step.shape.table).table.name == table) {
            let target = self.tables.get(step.shape.table);
            for (id, array) in target.table.key.iter().chain(&*step.shape.values).zip(&step.arrays) {
                let column = target.table.column(*id);
                let texts = array.texts();
                if self.is_unfit(column, &texts).await {
                    let place = self.first_unfit(column, &texts).await;
                    return CommitError::Statement {
                        doing,
                        table,
                        column: Some(column.name.clone()),
                        row: Some(row_name(target, step, place)),
                        source,
                    };
                }
            }
        }
        CommitError::Statement { doing, table, column: None, row, source }
    }

    /// The place of the first of some texts that the column does not take, if one is.
    async fn first_unfit(self, column: &Column, texts: &[Option<&str>]) -> usize {
        let (mut begin, mut end) = (0, texts.len());
        while begin + 1 < end {
            let middle = begin + (end - begin) / 2;
            match self.is_unfit(column, &texts[begin..middle]).await {
                true => end = middle,
                false => begin = middle,
            }
        }
        begin
    }

    async fn is_unfit(self, column: &Column, texts: &[Option<&str>]) -> bool {
        let Column { type_sql, declared, .. } = column;
        // An explicit cast cuts strings off (`varchar`, `char`, `bit`, `varbit`) where an assignment refuses to.
        const CUT_OFF: [u32; 4] = [1043, 1042, 1560, 1562];
        let cut_off = match CUT_OFF.contains(&column.type_oid) {
            true => format!(
                "pg_catalog.bool_or(text::{type_sql} operator(pg_catalog.<>) text::{type_sql}::{declared})"
            ),
            false => "false".to_owned(),
        };
        let sql = format!(
            "-- commit::explain::is_unfit\n\
             select pg_catalog.count(text::{type_sql}::{declared}), coalesce({cut_off}, false) \
               from pg_catalog.unnest($1::pg_catalog.text[]) u (text)"
        );
        match self.client().query_one(&sql, &[&texts]).await {
            Ok(row) => row.get(1),
            Err(error) => error.code().is_some(),
        }
    }
}

/// The key of one of a statement's rows.
fn row_name(target: &Target, step: &Step, place: usize) -> String {
    let keys = step.arrays.iter().take(target.table.key.len());
    let texts: Vec<Option<String>> =
        keys.map(|array| array.texts().get(place).copied().flatten().map(str::to_owned)).collect();
    target.row_name(&texts)
}

/// What may have kept rows out.
fn keeping_out(triggers: &[Trigger]) -> String {
    let names: Vec<String> = triggers
        .iter()
        .filter(|trigger| trigger.before && trigger.for_rows && trigger.for_puts)
        .map(|trigger| format!("`{}`", trigger.name))
        .collect();
    match &*names {
        [] => "a trigger or a rule".to_owned(),
        [one] => format!("its trigger {one}"),
        several => format!("one of its triggers {}", several.join(", ")),
    }
}
