//! What `migrate` does: it sets a database up for its pipelines and brings it up to date, their journals in step with their
//! tables; and what every writer looks at first: the tables as they are now, if their journals fit them.

mod columns;
mod constraints;
mod declared;
mod grant;
mod journal;
mod names;
mod record;
mod reset;
mod setup;
mod text;
mod witness;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tokio_postgres::{Client, Transaction};

pub use reset::{Reset, reset};
pub use setup::{Mode, PipelineReport, Progress, Report, Roles, history, migrate, progress};
pub use writer::{lacking, other_owner};

use crate::block::Height;
use crate::db::catalog::{self, Table};
use crate::db::owners::{refuse_foreign_objects, refuse_foreign_schemas};
use crate::db::{DbError, kind_of};
use crate::failure::{Kind, some_of};
use crate::register::{self, RegisterError, Registered, read_journals};
use crate::table::{
    Reference, Refusal, Role, STATE_JOURNAL, STATE_TABLE, Tables, journal_schema, relation_refusals,
    replicable, take_out_referenced,
};

/// A pipeline as the configuration has it.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: String,
    pub schema: String,
    /// The folder of its migrations, if it has any.
    pub migrations: Option<PathBuf>,
    pub start_height: Height,
}

/// Why a database is not set up for its pipelines.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(
        "the tables of pipeline `{pipeline}` have changed since `debshrew migrate` was run last ({differences}); run it"
    )]
    OutOfStep { pipeline: String, differences: String },
    #[error("pipeline `{pipeline}` cannot be had for now: {by}; stop it first")]
    Running { pipeline: String, by: String },
    #[error(
        "`migrate` is for `{owner}`, to whom the schema `debshrew` belongs, or a role that is a member of it: this role may \
         not create anything there"
    )]
    NotOwner { owner: String },
    #[error(
        "pipeline `{pipeline}` was not reset: what would go with it is no longer what was said; try once more"
    )]
    Meanwhile { pipeline: String },
    #[error("table `{table}` cannot be replicated: {reasons}")]
    Refused { table: String, reasons: String },
}

impl SchemaError {
    pub fn kind(&self) -> Kind {
        match self {
            SchemaError::Db(error) => error.kind(),
            SchemaError::Register(error) => error.kind(),
            SchemaError::OutOfStep { .. }
            | SchemaError::Running { .. }
            | SchemaError::NotOwner { .. }
            | SchemaError::Meanwhile { .. }
            | SchemaError::Refused { .. } => Kind::Permanent,
        }
    }

    /// What to do about it, where the message does not say it.
    pub fn advice(&self) -> Option<String> {
        match self {
            SchemaError::Register(error) => error.advice(),
            SchemaError::Db(_)
            | SchemaError::OutOfStep { .. }
            | SchemaError::Running { .. }
            | SchemaError::NotOwner { .. }
            | SchemaError::Meanwhile { .. }
            | SchemaError::Refused { .. } => None,
        }
    }
}

/// debshrew's own tables for the pipeline: its state and the journals.
async fn read_own(client: &Client, pipeline: &Registered) -> Result<Vec<Table>, SchemaError> {
    Ok(catalog::tables(client, &journal_schema(&pipeline.name)).await?)
}

/// The pipeline's tables as they are now, and its state, which is one of `own`.
async fn read_tables(client: &Client, pipeline: &Registered, own: &[Table]) -> Result<Tables, SchemaError> {
    let journals = journal_schema(&pipeline.name);
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = Vec::new();
    let mut references = Vec::new();
    let mut lasting = BTreeSet::new();
    for table in catalog::tables(client, &pipeline.schema).await? {
        let name = table.name.clone();
        references.extend(table.foreign_keys.iter().map(|key| Reference {
            from: (table.oid, table.sql()),
            to: key.references,
            name: key.name.clone(),
        }));
        match replicable(table, Role::Rows, &journals, &name) {
            Ok(target) => list.push(target),
            Err(Refusal { reasons, passing }) => {
                lasting.extend((!passing).then(|| name.clone()));
                refused.insert(name, reasons);
            }
        }
    }
    // A table that goes may be what another one's reason was about, so only the first round counts.
    for (table, reason) in relation_refusals(&list) {
        refused.entry(table).or_default().push(reason);
    }
    list.retain(|target| !refused.contains_key(&target.table.name));
    for (table, reason) in take_out_referenced(&mut list, &references) {
        refused.entry(table).or_default().push(reason);
    }
    let state = own.iter().find(|table| table.name == STATE_TABLE).cloned();
    let state = state.ok_or_else(|| RegisterError::NotSetUp(pipeline.name.clone()))?;
    let mut state = replicable(state, Role::State, &journals, STATE_JOURNAL).map_err(|refusal| {
        SchemaError::Refused { table: STATE_TABLE.into(), reasons: some_of(&refusal.reasons, "; ") }
    })?;
    let records = read_journals(client, pipeline.id).await?;
    for target in list.iter_mut().chain([&mut state]) {
        record::number(target, records.get(&target.table.name));
    }
    let refused: BTreeMap<String, String> =
        refused.into_iter().map(|(table, reasons)| (table, some_of(&reasons, "; "))).collect();
    let suspended = refused.keys().filter(|table| !lasting.contains(*table)).cloned().collect();
    Ok(Tables::new(list, state, refused).with_suspended(suspended))
}

/// The pipeline's tables, if their journals fit them.
pub async fn tables_in_step(client: &Client, pipeline: &Registered) -> Result<Tables, SchemaError> {
    refuse_foreign_schemas(client, &[&journal_schema(&pipeline.name), &pipeline.schema]).await?;
    refuse_foreign_objects(client, &[&journal_schema(&pipeline.name)]).await?;
    let own = read_own(client, pipeline).await?;
    let tables = read_tables(client, pipeline, &own).await?;
    let differences = journal::differences(client, pipeline, &tables, &own).await?;
    if differences.is_empty() {
        Ok(tables)
    } else {
        Err(SchemaError::OutOfStep {
            pipeline: pipeline.name.clone(),
            differences: some_of(&differences, "; "),
        })
    }
}

/// Why the pipeline's lock cannot be taken.
pub async fn running(client: &Client, pipeline: &str) -> Result<SchemaError, SchemaError> {
    let held = register::holder_of(client, pipeline).await?;
    let by = held.map_or("a running debshrew writes it".to_owned(), |held| held.explained());
    Ok(SchemaError::Running { pipeline: pipeline.to_owned(), by })
}

/// Whether PostgreSQL refused a statement for what it is. One that took too long, or waited for a lock in vain, says nothing
/// of the rows.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some() && kind_of(error) == Kind::Permanent
}

async fn execute(transaction: &Transaction<'_>, sql: &str, what: &str) -> Result<(), SchemaError> {
    transaction.batch_execute(sql).await.map_err(|error| DbError::statement(what)(error).into())
}
