//! Who may read.

use tokio_postgres::Transaction;

use super::{SchemaError, execute};
use crate::db::{DbError, quote};
use crate::table::{Tables, join};

/// Lets a role read debshrew's views.
pub(super) async fn overview(transaction: &Transaction<'_>, role: &str) -> Result<(), SchemaError> {
    let role = quote(role);
    let sql = format!(
        "grant usage on schema debshrew to {role};\n\
         grant select on debshrew.pipelines, debshrew.blocks, debshrew.reorgs, debshrew.table_sizes, debshrew.sinks to {role}"
    );
    execute(transaction, &sql, &format!("let role {role} read")).await
}

/// Lets a role read what the pipeline replicates, and views of that alone. Nothing else of the schema.
pub(super) async fn replicated(
    transaction: &Transaction<'_>,
    role: &str,
    tables: &Tables,
    schema: &str,
) -> Result<(), SchemaError> {
    let role = quote(role);
    let replicated: Vec<u32> = tables.of_rows().map(|target| target.table.oid).collect();
    let mut readable: Vec<String> = tables.of_rows().map(|target| target.table.sql()).collect();
    readable.extend(views(transaction, schema, &replicated).await?);
    let mut sql = format!("grant usage on schema {} to {role};\n", quote(schema));
    if !readable.is_empty() {
        sql.push_str(&format!("grant select on {} to {role}", join(readable.into_iter())));
    }
    execute(transaction, &sql, &format!("let role {role} read")).await
}

/// Views of a schema that are ours to grant and read, by way of other views perhaps, nothing but these tables. What is
/// stored was read with the rights of whoever stored it, by functions as well: such a view may call none that could read.
async fn views(
    transaction: &Transaction<'_>,
    schema: &str,
    tables: &[u32],
) -> Result<Vec<String>, SchemaError> {
    let rows = transaction
        .query(
            "-- schema::grant::views\n\
             with recursive reads (view, oid) as ( \
               select c.oid, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                where n.nspname = $1 and c.relkind in ('v', 'm') and pg_has_role(c.relowner, 'usage') \
               union \
               select r.view, d.refobjid from reads r join pg_rewrite w on w.ev_class = r.oid \
                 join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid \
                                 and d.refclassid = 'pg_class'::regclass \
             ) \
             select v.oid::regclass::text as name from reads r join pg_class c on c.oid = r.oid join pg_class v on v.oid = r.view \
              group by v.oid having bool_and(c.relkind in ('v', 'm') or c.oid = any ($2)) \
                 and not (bool_or(c.relkind = 'm') and bool_or(exists ( \
                       select from pg_rewrite w \
                        cross join lateral regexp_matches(w.ev_action::text, ':(?:op|win|agg)?f(?:unc|n)(?:id|oid) (\\d+)', 'g') m \
                         join pg_proc p on p.oid = m[1]::oid join pg_language l on l.oid = p.prolang \
                        where w.ev_class = c.oid and c.relkind in ('v', 'm') \
                          and (l.lanname not in ('internal', 'c') or p.prokind = 'a' and p.oid >= 16384 or p.proname like '%\\_to\\_xml%' \
                               or p.provolatile = 'v')))) \
              order by 1",
            &[&schema, &tables],
        )
        .await
        .map_err(DbError::statement("look for views of what is replicated"))?;
    Ok(rows.iter().map(|row| row.get("name")).collect())
}
