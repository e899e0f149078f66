//! What a pipeline's tables are to replication: which are fit, what a value's and a key's text is, which rows a
//! block's changes are about, and their net effect, the [`ChangeSet`].
//!
//! Sends two kinds of questions to PostgreSQL: which keys it calls equal, and what the state holds. Knows nothing of
//! how rows are written, journaled or put back.

mod change_set;
mod datum;
mod fit;
mod keys;
mod leaves;
mod order;
mod placement;
mod resolve;
pub mod state;
mod target;
mod trigger;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use change_set::{ChangeSet, Datum, Emitted, Key, Net, NetRow, RowChange, Touch};
pub use datum::DatumError;
pub use fit::{Reference, Refusal, advice, relation_refusals, replicable, take_out_referenced};
pub use resolve::{Resolved, StateWrite};
pub use target::{
    KeyForm, Restore, Role, STATE_JOURNAL, STATE_TABLE, Target, is_journals_own, journal_schema,
};
pub use target::{PACKED_COLUMN, cast, join};

use crate::db::{DbError, kind_of};
use crate::failure::{Kind, excerpt, some_of};

/// A table's position in its [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(usize);

/// The tables that a pipeline may write, by name, and its state.
#[derive(Debug)]
pub struct Tables {
    list: Vec<Target>,
    by_name: HashMap<String, TableId>,
    /// Tables of the schema that cannot be replicated, with the reason.
    refused: BTreeMap<String, String>,
    /// Those of them whose reasons can be taken back without harm to their rows.
    suspended: BTreeSet<String>,
    /// Tables that reference one another in a circle are one family.
    parents_first: Vec<Vec<TableId>>,
}

impl Tables {
    /// `state`: the table that holds the transform's state, which no change can name.
    pub fn new(mut list: Vec<Target>, state: Target, refused: BTreeMap<String, String>) -> Tables {
        let ids = (0..).map(TableId);
        let by_name = list.iter().zip(ids).map(|(target, id)| (target.table.name.clone(), id)).collect();
        list.push(state);
        let families = order::parents_first(&list).into_iter();
        let parents_first = families.map(|family| family.into_iter().map(TableId).collect()).collect();
        Tables { list, by_name, refused, suspended: BTreeSet::new(), parents_first }
    }

    pub fn get(&self, id: TableId) -> &Target {
        &self.list[id.0]
    }

    /// All of them, the state's among them.
    pub fn all(&self) -> &[Target] {
        &self.list
    }

    /// Those whose rows the transform's changes are about.
    pub fn of_rows(&self) -> impl Iterator<Item = &Target> {
        self.list.iter().filter(|target| target.role == Role::Rows)
    }

    /// Tables of the schema that cannot be replicated, with the reason.
    pub fn refused(&self) -> &BTreeMap<String, String> {
        &self.refused
    }

    /// `suspended`: those of the refused tables whose reasons can be taken back without harm to their rows.
    pub fn with_suspended(self, suspended: BTreeSet<String>) -> Tables {
        Tables { suspended, ..self }
    }

    /// Whether a refused table's journal is to be kept until the reason is taken back.
    pub fn is_suspended(&self, table: &str) -> bool {
        self.suspended.contains(table)
    }

    /// Referenced tables before those that reference them; those that reference one another in a circle together.
    pub fn parents_first(&self) -> impl DoubleEndedIterator<Item = &[TableId]> {
        self.parents_first.iter().map(Vec::as_slice)
    }

    /// Whether a foreign key of a table's that is checked statement by statement references the table itself, or one that
    /// references it in a circle: then no order of tables is right for all rows.
    pub fn has_immediate_circle(&self, id: TableId) -> bool {
        let target = self.get(id);
        let mut families = self.parents_first();
        let family = families.find(|family| family.contains(&id)).unwrap_or_default();
        let in_family = |oid: u32| family.iter().any(|member| self.get(*member).table.oid == oid);
        target.table.foreign_keys.iter().any(|key| !key.deferrable && in_family(key.references))
    }

    fn state(&self) -> Option<TableId> {
        self.list.iter().position(|target| target.role == Role::State).map(TableId)
    }

    fn find(&self, table: &str) -> Result<TableId, TableError> {
        if let Some(id) = self.by_name.get(table) {
            return Ok(*id);
        }
        Err(match self.refused.get(table) {
            Some(reason) => TableError::RefusedTable { table: excerpt(table), reason: reason.clone() },
            None => {
                let names = names(self.of_rows().map(|target| target.table.name.as_str()));
                TableError::UnknownTable { table: excerpt(table), known: names }
            }
        })
    }
}

/// Why a block's changes are not changes of this pipeline's rows.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("there is no table `{table}` in this pipeline; it has {known}")]
    UnknownTable { table: String, known: String },
    #[error("table `{table}` cannot be replicated: {reason}")]
    RefusedTable { table: String, reason: String },
    #[error("table `{table}` has no column `{column}`; it has {known}")]
    UnknownColumn { table: String, column: String, known: String },
    #[error("column `{column}` of table `{table}` is generated by PostgreSQL; leave it out")]
    Generated { table: String, column: String },
    #[error(
        "a change of table `{table}` does not say its key column `{column}`, neither in the row nor in `key`"
    )]
    KeyMissing { table: String, column: String },
    #[error("a change of table `{table}` has a null in its key column `{column}`")]
    KeyNull { table: String, column: String },
    #[error(
        "a change of table `{table}` has the key {got}; its key has {columns} columns, so that must be a JSON array \
         of as many values or an object by column name"
    )]
    KeyShape { table: String, got: String, columns: usize },
    #[error(
        "a change of table `{table}` names two rows: its `key` says {key} for column `{column}`, and the row itself \
         says {row}"
    )]
    KeyConflict { table: String, column: String, key: String, row: String },
    #[error("column `{column}` of table `{table}`, which is {declared}{}", in_row(.row))]
    Value {
        table: String,
        column: String,
        declared: String,
        /// As much of the row's key as is known.
        row: Box<str>,
        #[source]
        source: Box<DatumError>,
    },
    #[error("key column `{column}` of table `{table}` is {declared} and cannot hold {got}{}", in_row(.row))]
    KeyValue { table: String, column: String, declared: String, got: String, row: Box<str> },
    #[error(
        "key column `{column}` of table `{table}` is {declared} and would store {got} as another value{}",
        in_row(.row)
    )]
    KeyChanged { table: String, column: String, declared: String, got: String, row: Box<str> },
    #[error("PostgreSQL refused to read the keys for table `{table}`, at column `{column}`")]
    KeyRefused {
        table: String,
        column: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error(transparent)]
    Db(#[from] DbError),
}

impl TableError {
    /// Says which row it is about.
    fn of_row(mut self, name: String) -> TableError {
        if let TableError::Value { row, .. } | TableError::KeyValue { row, .. } = &mut self {
            *row = name.into();
        }
        self
    }

    pub fn kind(&self) -> Kind {
        match self {
            TableError::Db(error) => error.kind(),
            TableError::KeyRefused { source, .. } => kind_of(source),
            TableError::UnknownTable { .. }
            | TableError::RefusedTable { .. }
            | TableError::UnknownColumn { .. }
            | TableError::Generated { .. }
            | TableError::KeyMissing { .. }
            | TableError::KeyNull { .. }
            | TableError::KeyShape { .. }
            | TableError::KeyConflict { .. }
            | TableError::Value { .. }
            | TableError::KeyValue { .. }
            | TableError::KeyChanged { .. } => Kind::Permanent,
        }
    }
}

fn in_row(row: &str) -> String {
    if row.is_empty() { String::new() } else { format!(", in the row {row}") }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if all.is_empty() { "none".into() } else { some_of(&all, ", ") }
}
