//! Keeps everything else out of a rollback: other writers, triggers of the user's, and references from elsewhere.

use tokio_postgres::Client;
use tokio_postgres::types::Oid;

use super::UndoError;
use super::images::Journaled;
use crate::db::{DbError, quote};
use crate::table::{Role, Tables};

/// The tables `$1` with their partitions.
const MEMBERS: &str = "select oid from pg_catalog.unnest($1::pg_catalog.oid[]) oid \
                       union select p.relid from pg_catalog.unnest($1::pg_catalog.oid[]) root \
                             cross join lateral pg_catalog.pg_partition_tree(root) p";

/// A trigger that is switched off, and how it is switched on again.
struct Trigger {
    oid: Oid,
    /// Whether this session's role may switch it itself.
    is_ours: bool,
    table: String,
    name: String,
    /// As `pg_trigger.tgenabled` has it.
    enabled: String,
}

/// Holds the tables of a rollback's transaction.
pub(super) struct Guard {
    triggers: Vec<Trigger>,
}

impl Guard {
    /// Locks the tables against other writers and changes of their definition, refuses references from outside the
    /// pipeline, and switches the user's triggers off. Readers are not held up.
    pub(super) async fn begin(
        client: &Client,
        replicated: &Tables,
        families: &[Vec<Journaled<'_>>],
    ) -> Result<Guard, UndoError> {
        let tables: Vec<&Journaled<'_>> =
            families.iter().flatten().filter(|table| table.target.role == Role::Rows).collect();
        if tables.is_empty() {
            return Ok(Guard { triggers: Vec::new() });
        }
        let names: Vec<String> = tables.iter().map(|table| table.target.table.sql()).collect();
        let lock =
            format!("-- undo::guard::begin\nlock table {} in share row exclusive mode", names.join(", "));
        client.batch_execute(&lock).await.map_err(DbError::statement("lock the tables"))?;
        let oids: Vec<u32> = tables.iter().map(|table| table.target.table.oid).collect();
        let members: Vec<u32> =
            replicated.of_rows().flat_map(|target| target.table.members.iter().copied()).collect();
        refuse_references(client, &oids, &members).await?;
        let in_place = tables.iter().filter(|table| table.target.table.immediate_unique.is_none());
        let in_place: Vec<u32> =
            in_place.flat_map(|table| table.target.table.members.iter().copied()).collect();
        refuse_new_unique(client, &in_place).await?;
        let triggers = triggers(client, &oids).await?;
        let guard = Guard { triggers };
        guard.switch(client, |_| "disable").await?;
        Ok(guard)
    }

    /// Checks what was deferred and switches the triggers on again, as they were.
    pub(super) async fn end(self, client: &Client) -> Result<(), UndoError> {
        if self.triggers.is_empty() {
            return Ok(());
        }
        // A table with checks that are still to come cannot be altered.
        client
            .batch_execute("set constraints all immediate")
            .await
            .map_err(DbError::statement("check the constraints"))?;
        self.switch(client, |enabled| match enabled {
            "A" => "enable always",
            "R" => "enable replica",
            _ => "enable",
        })
        .await
    }

    async fn switch(&self, client: &Client, how: impl Fn(&str) -> &'static str) -> Result<(), UndoError> {
        for Trigger { oid, is_ours, table, name, enabled } in &self.triggers {
            let how = how(enabled);
            let switched = if *is_ours {
                let name = quote(name);
                let sql = format!("-- undo::guard::switch\nalter table only {table} {how} trigger {name}");
                client.batch_execute(&sql).await
            } else {
                let sql = "-- undo::guard::switch\nselect debshrew.switch_trigger($1, $2, $3)";
                client.execute(sql, &[oid, name, &how]).await.map(drop)
            };
            let what = || format!("switch trigger `{name}` of table {table} off and on");
            switched.map_err(|error| DbError::statement(what())(error))?;
        }
        Ok(())
    }
}

/// The user's triggers on the tables and their partitions. Before PostgreSQL 15 those that a partition has from its table
/// count as internal, as those of foreign keys and unique constraints do, which have an index.
async fn triggers(client: &Client, oids: &[u32]) -> Result<Vec<Trigger>, UndoError> {
    let sql = format!(
        "-- undo::guard::triggers\n\
             select c.oid, pg_catalog.pg_has_role(c.relowner, 'usage') as is_ours, \
                    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as table_name, \
                    g.tgname::text as name, g.tgenabled::text as enabled \
               from pg_catalog.pg_trigger g \
               join pg_catalog.pg_class c on c.oid = g.tgrelid \
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
              where g.tgrelid in ({MEMBERS}) \
                and (not g.tgisinternal or g.tgparentid <> 0 and g.tgconstrindid = 0) and g.tgenabled <> 'D' \
              order by g.tgparentid, g.tgrelid, g.tgname"
    );
    let rows = client.query(&sql, &[&oids]).await.map_err(DbError::statement("look for triggers"))?;
    let trigger = |row: &tokio_postgres::Row| Trigger {
        oid: row.get("oid"),
        is_ours: row.get("is_ours"),
        table: row.get("table_name"),
        name: row.get("name"),
        enabled: row.get("enabled"),
    };
    Ok(rows.iter().map(trigger).collect())
}

/// A unique index may have been made since the tables were looked at: they would be put back another way.
async fn refuse_new_unique(client: &Client, oids: &[u32]) -> Result<(), UndoError> {
    let row = client
        .query_opt(
            "-- undo::guard::refuse_new_unique\n\
             select c.relname::text as table_name, x.relname::text as index_name \
               from pg_catalog.pg_index i \
               join pg_catalog.pg_class c on c.oid = i.indrelid \
               join pg_catalog.pg_class x on x.oid = i.indexrelid \
              where i.indrelid = any ($1) and (i.indisunique or i.indisexclusion) and not i.indisprimary \
                and i.indimmediate \
              order by 1, 2 limit 1",
            &[&oids],
        )
        .await
        .map_err(DbError::statement("look for unique indexes"))?;
    match row {
        None => Ok(()),
        Some(row) => Err(UndoError::NewUnique { table: row.get("table_name"), index: row.get("index_name") }),
    }
}

/// A foreign key of a table that is not replicated may have been made since `migrate` has looked.
async fn refuse_references(client: &Client, oids: &[u32], replicated: &[u32]) -> Result<(), UndoError> {
    let sql = format!(
        "-- undo::guard::refuse_references\n\
             select o.relname::text as table_name, f.conname::text as constraint_name, \
                    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as outside \
               from pg_catalog.pg_constraint f \
               join pg_catalog.pg_class o on o.oid = f.confrelid \
               join pg_catalog.pg_class c on c.oid = f.conrelid \
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
              where f.contype = 'f' and f.conparentid = 0 and f.conrelid <> all ($2) \
                and f.confrelid in ({MEMBERS}) \
              order by 3, 2 limit 1"
    );
    let row = client
        .query_opt(&sql, &[&oids, &replicated])
        .await
        .map_err(DbError::statement("look for references"))?;
    match row {
        None => Ok(()),
        Some(row) => Err(UndoError::Referenced {
            table: row.get("table_name"),
            outside: row.get("outside"),
            constraint: row.get("constraint_name"),
        }),
    }
}
