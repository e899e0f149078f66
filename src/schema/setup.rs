//! Sets a database up for its pipelines, and brings it up to date: debshrew's own migrations, each pipeline's,
//! their journals, and who may read.
//!
//! All of it is one transaction: either everything is as the configuration says afterwards, or nothing has
//! changed. A dry run is a real run that is rolled back.

use std::collections::BTreeMap;

use refinery::Migration;
use tokio_postgres::{Client, Transaction};

use super::record::Records;
use super::text::may_convert;
use super::witness::Witness;
use super::{
    SchemaError, Wanted, constraints, execute, grant, journal, read_own, read_tables, running, writer,
};
use crate::db::catalog::{self, Table};
use crate::db::lock::Lock;
use crate::db::owners::{foreign_creators, refuse_foreign_objects, refuse_foreign_schemas};
use crate::db::{DbError, migrate, quote};
use crate::register::{self, Registered, read_journals, write_journals};
use crate::table::{STATE_TABLE, Tables, Target, advice, journal_schema};

/// What people query: views, which may be made again at any time.
const VIEWS: [&str; 5] = [
    include_str!("../../sql/pipelines.sql"),
    include_str!("../../sql/blocks.sql"),
    include_str!("../../sql/reorgs.sql"),
    include_str!("../../sql/table_sizes.sql"),
    include_str!("../../sql/sinks.sql"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Apply,
    /// Do everything, report it, and roll it back.
    DryRun,
}

/// What was done, in the order in which it was.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub own: Vec<String>,
    pub pipelines: Vec<PipelineReport>,
    /// Roles that were let in now.
    pub roles: Roles,
}

/// Roles that are let in, for the tables of now and those to come.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    pub readers: Vec<String>,
    pub writers: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct PipelineReport {
    pub name: String,
    pub migrations: Vec<String>,
    pub journals: Vec<String>,
    /// Why blocks committed before can no longer be rolled back.
    pub cut: Vec<String>,
    /// Sinks that must begin again, and why.
    pub lost_sinks: Vec<String>,
    pub lost_since: String,
    /// Tables that had a journal and were gone before, so that no migration has dropped them.
    pub gone: Vec<String>,
    /// Tables that cannot be replicated, with the reason.
    pub refused: BTreeMap<String, String>,
    /// What is better mended, though nothing stands in the way.
    pub notes: Vec<String>,
    /// What works but could work better: table and advice.
    pub advice: Vec<(String, String)>,
    pub tables: Vec<String>,
}

/// Where a pipeline's migrations are recorded.
pub fn history(pipeline: &str) -> String {
    format!("debshrew.migrations_{pipeline}")
}

/// Brings the database to what is wanted. Waits while another process migrates; refuses while a pipeline runs.
pub async fn migrate(
    client: &mut Client,
    wanted: &[Wanted],
    roles: &Roles,
    mode: Mode,
) -> Result<Report, SchemaError> {
    Lock::Migration.take(client).await?;
    let report = migrate_locked(client, wanted, roles, mode).await;
    // Also what `migrate_locked` took; both end with the session if this does not reach the server.
    let released = client.batch_execute("select pg_catalog.pg_advisory_unlock_all()").await;
    let report = report?;
    released.map_err(DbError::statement("release the migration lock"))?;
    Ok(report)
}

async fn migrate_locked(
    client: &mut Client,
    wanted: &[Wanted],
    roles: &Roles,
    mode: Mode,
) -> Result<Report, SchemaError> {
    let transaction = client.transaction().await.map_err(DbError::statement("begin the migrations"))?;
    let mut report = Report::default();
    make_schema(&transaction, "debshrew").await?;
    if let Some(owner) = writer::other_owner(&transaction).await? {
        return Err(SchemaError::NotOwner { owner });
    }
    refuse_foreign_objects(&transaction, &["debshrew"]).await?;
    migrate::refuse_newer(&transaction).await?;
    for pipeline in wanted {
        if let Some(found) = register::find(&transaction, &pipeline.name).await?
            && !Lock::Writer(found.id).try_take(transaction.client()).await?
        {
            return Err(running(transaction.client(), &pipeline.name).await?);
        }
    }
    let done = migrate::run(&transaction, &migrate::own(), migrate::OWN_HISTORY).await?;
    report.own = done.iter().map(ToString::to_string).collect();
    for view in VIEWS {
        execute(&transaction, view, "make the views").await?;
    }
    for role in &roles.readers {
        grant::overview(&transaction, role).await?;
    }
    for pipeline in wanted {
        report.pipelines.push(migrate_pipeline(&transaction, pipeline, roles).await?);
    }
    report.roles = roles.clone();
    match mode {
        Mode::Apply => transaction.commit().await.map_err(DbError::statement("commit the migrations"))?,
        Mode::DryRun => transaction.rollback().await.map_err(DbError::statement("end the dry run"))?,
    }
    Ok(report)
}

async fn migrate_pipeline(
    transaction: &Transaction<'_>,
    wanted: &Wanted,
    roles: &Roles,
) -> Result<PipelineReport, SchemaError> {
    let registered =
        register::register(transaction, &wanted.name, &wanted.schema, wanted.start_height).await?;
    let schema = quote(&wanted.schema);
    make_schema(transaction, &wanted.schema).await?;
    let journals = journal_schema(&wanted.name);
    if make_schema(transaction, &journals).await? {
        let comment = "debshrew: state and undo journals of a pipeline; not for use by others";
        let sql = format!("comment on schema {} is '{comment}'", quote(&journals));
        execute(transaction, &sql, "say what the journals' schema is for").await?;
    }
    refuse_foreign_objects(transaction, &[&journal_schema(&wanted.name)]).await?;
    renumber(transaction, &registered).await?;
    let mut ran = Vec::new();
    let before = Witness::look(transaction, &wanted.schema).await?;
    let mut gone = before.lacks(&read_journals(transaction, registered.id).await?);
    let constraints = constraints::read(transaction, &wanted.schema).await?;
    if let Some(folder) = &wanted.migrations {
        // The tables' names in these files have no schema: it is the configuration's to choose.
        execute(transaction, &format!("set local search_path = {schema}"), "set the search path").await?;
        let run = migrate::run(transaction, &migrate::in_folder(folder)?, &history(&wanted.name)).await;
        ran = run.map_err(|error| naming(error, &wanted.name))?;
        execute(transaction, "set local search_path = ''", "reset the search path").await?;
    }
    journal::prepare(transaction, &wanted.name).await?;
    let own = read_own(transaction.client(), &registered).await?;
    let tables = read_tables(transaction.client(), &registered, &own).await?;
    let after = Witness::look(transaction, &wanted.schema).await?;
    let texts = || ran.iter().filter_map(Migration::sql);
    let counted = !texts().any(|sql| sql.contains("track_counts") || may_convert(sql));
    let mut deeds = after.since(&before, counted && before.is_counting && after.is_counting);
    if texts().any(|sql| sql.to_lowercase().contains("truncate")) {
        // Of a partition it leaves the others' rows; it is seen as another place for no rows.
        deeds.written.extend(deeds.rewritten.iter().cloned());
        deeds.written.sort_unstable();
        deeds.written.dedup();
    }
    let rewritten = if texts().any(may_convert) { deeds.rewritten } else { Vec::new() };
    let seen = journal::Seen { written: deeds.written, converted: rewritten, constraints };
    let steps = journal::bring_in_step(transaction, &registered, &tables, &own, &seen).await?;
    let (lost_sinks, lost_since) = lose_sinks(transaction, &registered, &steps).await?;
    // One that was made anew is told of as such.
    gone.retain(|name| {
        !tables.refused().contains_key(name) && tables.all().iter().all(|one| one.table.name != *name)
    });
    let replicated = || tables.of_rows();
    let_in(transaction, &registered, roles, &tables).await?;
    let creators = foreign_creators(transaction, &wanted.schema).await?;
    let note = |role: &String| {
        let grantee = if role == "PUBLIC" { role.clone() } else { quote(role) };
        format!(
            "role {role} may create objects in schema `{}`, and take over names that migrations, triggers and defaults use \
             without a schema: `revoke create on schema {schema} from {grantee}`",
            wanted.schema
        )
    };
    let said = |target: &Target| {
        advice(target).into_iter().map(|advice| (target.table.name.clone(), advice)).collect()
    };
    Ok(PipelineReport {
        name: wanted.name.clone(),
        migrations: ran.iter().map(Migration::to_string).collect(),
        journals: steps.done,
        cut: steps.cut,
        lost_sinks,
        lost_since,
        gone,
        refused: tables.refused().clone(),
        notes: creators.iter().map(note).collect(),
        advice: replicated().flat_map(|target| -> Vec<(String, String)> { said(target) }).collect(),
        tables: replicated().map(|target| target.table.name.clone()).collect(),
    })
}

/// Lets roles in, those that were let in before among them, since there may be new tables.
async fn let_in(
    transaction: &Transaction<'_>,
    pipeline: &Registered,
    roles: &Roles,
    tables: &Tables,
) -> Result<(), SchemaError> {
    for role in &roles.readers {
        register::add_reader(transaction, pipeline.id, role).await?;
    }
    for role in register::readers(transaction, pipeline.id).await? {
        grant::replicated(transaction, &role, tables, &pipeline.schema).await?;
    }
    for role in &roles.writers {
        register::add_writer(transaction, pipeline.id, role).await?;
    }
    for role in register::writers(transaction, pipeline.id).await? {
        writer::let_write(transaction, &role, &pipeline.name, &pipeline.schema).await?;
    }
    Ok(())
}

/// Gives up the pipeline's sinks if journals were emptied, or tables renamed, which consumers know by their names; and if
/// tables were dropped, those that have not published all of them.
async fn lose_sinks(
    transaction: &Transaction<'_>,
    pipeline: &Registered,
    steps: &journal::Steps,
) -> Result<(Vec<String>, String), SchemaError> {
    let renamed = steps.renamed.first().map(|table| format!("table `{table}` was renamed"));
    let dropped = steps.dropped.first().map(|table| format!("table `{table}` was dropped"));
    let all = steps.cut.first().cloned().or(renamed);
    let only_behind = all.is_none();
    let Some(why) = all.or(dropped) else { return Ok(Default::default()) };
    let reason = format!("a migration left no way from what was published to what is there, since {why}");
    let lost = match only_behind {
        true => register::lose_sinks_behind(transaction, pipeline.id, &reason).await?,
        false => register::lose_sinks(transaction, pipeline.id, &reason).await?,
    };
    Ok((lost, why))
}

/// Makes a schema, unless it exists and belongs to somebody who is trusted. Where it exists, no right to make any is needed.
/// Returns whether it made it.
async fn make_schema(transaction: &Transaction<'_>, name: &str) -> Result<bool, SchemaError> {
    if refuse_foreign_schemas(transaction, &[name]).await? {
        return Ok(false);
    }
    let sql = format!("create schema if not exists {}", quote(name));
    execute(transaction, &sql, &format!("make the schema `{name}`")).await?;
    // Somebody else may have been faster.
    Ok(refuse_foreign_schemas(transaction, &[name]).await?)
}

/// After a restore from a dump, gives the records the numbers of now, before migrations change names.
async fn renumber(transaction: &Transaction<'_>, pipeline: &Registered) -> Result<(), SchemaError> {
    let recorded = read_journals(transaction, pipeline.id).await?;
    if recorded.is_empty() {
        return Ok(());
    }
    let mut now = catalog::tables(transaction.client(), &pipeline.schema).await?;
    now.extend(read_own(transaction.client(), pipeline).await?);
    // A journal is called as its table is.
    let of_journals = |table: &Table| table.schema != pipeline.schema && table.name != STATE_TABLE;
    now.retain(|table| !of_journals(table));
    if let Some(renumbered) = Records::of(recorded, now.iter()).renumbered(&now) {
        write_journals(transaction, pipeline.id, &renumbered).await?;
    }
    Ok(())
}

fn naming(error: DbError, pipeline: &str) -> DbError {
    match error {
        DbError::Migration { detail, kind } => {
            DbError::Migration { detail: format!("pipeline `{pipeline}`: {detail}"), kind }
        }
        other => other,
    }
}

/// What the database has had, and what it has not had yet.
#[derive(Clone, Debug)]
pub struct Progress {
    /// `debshrew` itself, or the pipeline.
    pub of: String,
    pub applied: Vec<migrate::Applied>,
    pub pending: Vec<String>,
}

/// How far each set of migrations is; debshrew's own comes first.
pub async fn progress(client: &Client, wanted: &[Wanted]) -> Result<Vec<Progress>, SchemaError> {
    migrate::refuse_newer(client).await?;
    let mut all =
        vec![compare("debshrew", migrate::own(), migrate::applied(client, migrate::OWN_HISTORY).await?)];
    for pipeline in wanted {
        if let Some(folder) = &pipeline.migrations {
            let applied = migrate::applied(client, &history(&pipeline.name)).await?;
            all.push(compare(&pipeline.name, migrate::in_folder(folder)?, applied));
        }
    }
    Ok(all)
}

fn compare(of: &str, known: Vec<Migration>, applied: Vec<migrate::Applied>) -> Progress {
    let pending =
        known.iter().filter(|migration| !applied.iter().any(|had| had.version == migration.version()));
    Progress { of: of.to_owned(), pending: pending.map(Migration::to_string).collect(), applied }
}
