//! What `reset` does: it takes a pipeline back to before its first migration and block, and says what goes with that.
//!
//! A dry run is the same transaction, rolled back. So what is said to be dropped is what PostgreSQL drops, views in other
//! schemas that depend on it among them.

use std::collections::BTreeSet;

use tokio_postgres::types::Oid;
use tokio_postgres::{Client, Transaction};

use super::{SchemaError, execute, running};
use crate::db::lock::Lock;
use crate::db::owners::refuse_foreign_schemas;
use crate::db::{DbError, migrate};
use crate::register::{self, RegisterError, Registered};
use crate::table::journal_schema;

/// What a reset takes away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// As PostgreSQL calls it: `table ledger.balances`.
    pub dropped: BTreeSet<String>,
    /// Tables that no migration would make again: they are emptied.
    pub emptied: Vec<String>,
    /// Sinks that must begin again.
    pub lost_sinks: Vec<String>,
}

/// Resets the pipeline, in one transaction, if it takes away what was agreed; says what that is, and takes nothing away, if
/// nothing was agreed yet. Without migrations of its own its tables are emptied, since nothing would make
/// them again; the schemas stay, since they may be the administrator's.
pub async fn reset(
    client: &mut Client,
    pipeline: &str,
    has_migrations: bool,
    agreed: Option<&Reset>,
) -> Result<Reset, SchemaError> {
    Lock::Migration.take(client).await?;
    let done = reset_locked(client, pipeline, has_migrations, agreed).await;
    // Both end with the session if this does not reach the server.
    let released = client.batch_execute("select pg_catalog.pg_advisory_unlock_all()").await;
    let done = done?;
    released.map_err(DbError::statement("release the migration lock"))?;
    Ok(done)
}

async fn reset_locked(
    client: &mut Client,
    name: &str,
    has_migrations: bool,
    agreed: Option<&Reset>,
) -> Result<Reset, SchemaError> {
    let transaction = client.transaction().await.map_err(DbError::statement("begin the reset"))?;
    let Some(pipeline) = register::find(&transaction, name).await? else {
        return Err(RegisterError::NotSetUp(name.to_owned()).into());
    };
    migrate::refuse_newer(&transaction).await?;
    migrate::refuse_older(&transaction).await?;
    if !Lock::Writer(pipeline.id).try_take(transaction.client()).await? {
        return Err(running(transaction.client(), name).await?);
    }
    let done = take_away(&transaction, &pipeline, has_migrations).await?;
    match agreed {
        Some(agreed) if *agreed != done => {
            return Err(SchemaError::Meanwhile { pipeline: name.to_owned() });
        }
        Some(_) => transaction.commit().await.map_err(DbError::statement("commit the reset"))?,
        None => transaction.rollback().await.map_err(DbError::statement("end the dry run"))?,
    }
    Ok(done)
}

async fn take_away(
    transaction: &Transaction<'_>,
    pipeline: &Registered,
    has_migrations: bool,
) -> Result<Reset, SchemaError> {
    let journals = journal_schema(&pipeline.name);
    refuse_foreign_schemas(transaction, &[&journals, &pipeline.schema]).await?;
    let mut done = Reset::default();
    let before = objects(transaction).await?;
    if has_migrations {
        empty_schema(transaction, &pipeline.schema).await?;
    } else {
        done.emptied = replicated(transaction, &pipeline.schema, &journals).await?;
        if !done.emptied.is_empty() {
            let sql = format!("truncate table {}", done.emptied.join(", "));
            execute(transaction, &sql, "empty the tables").await?;
        }
    }
    empty_schema(transaction, &journals).await?;
    register::forget(transaction, pipeline.id, &pipeline.name).await?;
    done.lost_sinks =
        register::lose_sinks(transaction, pipeline.id, "the pipeline was reset, and begins anew").await?;
    let after = objects(transaction).await?;
    let is_there = |object: &Object| after.iter().any(|other| other.key == object.key);
    let gone: Vec<&Object> = before.iter().filter(|object| !is_there(object)).collect();
    // What goes with its table is not worth a line.
    let is_part =
        |object: &Object| object.part_of.is_some_and(|part_of| gone.iter().any(|one| one.key.1 == part_of));
    done.dropped = gone.iter().filter(|object| !is_part(object)).map(|object| object.name.clone()).collect();
    Ok(done)
}

/// Something that can be dropped.
struct Object {
    /// The catalog's table and number.
    key: (Oid, Oid),
    part_of: Option<Oid>,
    name: String,
}

async fn objects(transaction: &Transaction<'_>) -> Result<Vec<Object>, SchemaError> {
    let rows = transaction
        .query(
            "-- schema::reset::objects\n\
             select o.classid, o.objid, o.part_of, i.type || ' ' || i.identity as name from ( \
               select 'pg_class'::regclass::oid, c.oid, null::oid, c.relnamespace from pg_class c \
                where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') \
               union all select 'pg_proc'::regclass, oid, null, pronamespace from pg_proc \
               union all select 'pg_type'::regclass, oid, null, typnamespace from pg_type where typtype in ('e', 'd', 'r') \
               union all select 'pg_extension'::regclass, oid, null, extnamespace from pg_extension \
               union all select 'pg_constraint'::regclass, oid, conrelid, connamespace from pg_constraint where contype = 'f' \
               union all select 'pg_trigger'::regclass, g.oid, g.tgrelid, c.relnamespace \
                 from pg_trigger g join pg_class c on c.oid = g.tgrelid where not g.tgisinternal \
             ) o (classid, objid, part_of, namespace) \
               join pg_namespace n on n.oid = o.namespace \
              cross join lateral pg_identify_object(o.classid, o.objid, 0) i \
              where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')",
            &[],
        )
        .await
        .map_err(DbError::statement("see what there is"))?;
    let object = |row: &tokio_postgres::Row| Object {
        key: (row.get("classid"), row.get("objid")),
        part_of: row.get("part_of"),
        name: row.get("name"),
    };
    Ok(rows.iter().map(object).collect())
}

/// Drops what is in a schema, with what depends on it. What belongs to an extension goes with that alone.
async fn empty_schema(transaction: &Transaction<'_>, schema: &str) -> Result<(), SchemaError> {
    let rows = transaction
        .query(
            "-- schema::reset::empty_schema\n\
             select case i.type when 'composite type' then 'type' when 'statistics object' then 'statistics' \
                                else i.type end as kind, i.identity \
               from pg_depend d join pg_namespace n on n.oid = d.refobjid \
              cross join lateral pg_identify_object(d.classid, d.objid, d.objsubid) i \
              where d.refclassid = 'pg_namespace'::regclass and n.nspname = $1 and d.deptype = 'n' \
                and d.classid <> 'pg_default_acl'::regclass \
                and not exists (select from pg_depend e where e.classid = d.classid and e.objid = d.objid and e.deptype = 'e')",
            &[&schema],
        )
        .await
        .map_err(DbError::statement(format!("see what is in schema `{schema}`")))?;
    for row in rows {
        let (kind, identity): (String, String) = (row.get("kind"), row.get("identity"));
        let sql = format!("drop {kind} if exists {identity} cascade");
        execute(transaction, &sql, &format!("drop {kind} {identity}")).await?;
    }
    Ok(())
}

/// The tables that have a journal, which is called as its table is.
async fn replicated(
    transaction: &Transaction<'_>,
    schema: &str,
    journals: &str,
) -> Result<Vec<String>, SchemaError> {
    let rows = transaction
        .query(
            "-- schema::reset::replicated\n\
             select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name \
               from pg_class c join pg_namespace n on n.oid = c.relnamespace \
              where n.nspname = $1 and c.relkind in ('r', 'p') and exists ( \
                    select from pg_class j join pg_namespace jn on jn.oid = j.relnamespace \
                     where jn.nspname = $2 and j.relname = c.relname) \
              order by 1",
            &[&schema, &journals],
        )
        .await
        .map_err(DbError::statement("see what is replicated"))?;
    Ok(rows.iter().map(|row| row.get("name")).collect())
}
