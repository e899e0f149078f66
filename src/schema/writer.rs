//! What a writer must be allowed that does not own what it writes: granted by `migrate`, told by `check`.
//!
//! All of it is read from the catalog, which everybody may read, so that also a role that was let into nothing is told
//! what it lacks.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Oid;

use super::{SchemaError, execute};
use crate::db::{DbError, quote};
use crate::table::{STATE_TABLE, journal_schema};

/// Something that a writer uses.
struct Used {
    /// As `grant` has it: `schema`, `table`, `sequence`, `function`.
    kind: String,
    oid: Oid,
    /// As SQL.
    name: String,
    privileges: &'static [&'static str],
}

const READ: &[&str] = &["select"];
const CHANGE: &[&str] = &["select", "insert", "update", "delete"];

/// What a writer does with a table of the schema `debshrew`. One that is not named here is for it to change.
fn own_privileges(table: &str, is_view: bool) -> &'static [&'static str] {
    match table {
        _ if is_view || table.starts_with("migration") => READ,
        // The start can move until the first block is committed.
        "pipeline" => &["select", "update (start_height)"],
        "journal_column" | "journal_table" | "reader" | "writer" => READ,
        "checkpoint" => &["select", "update"],
        "block" => &["select", "insert", "delete"],
        "reorg" => &["select", "insert", "update"],
        _ => CHANGE,
    }
}

fn privileges(schema: &str, table: &str, kind: &str, of_journals: &str) -> &'static [&'static str] {
    match kind {
        "schema" => &["usage"],
        "function" => &["execute"],
        "sequence" => &["usage"],
        _ if schema == "debshrew" => own_privileges(table, kind == "view"),
        _ if schema == of_journals && table != STATE_TABLE => &["select", "insert", "delete"],
        _ => CHANGE,
    }
}

/// Replicated tables are those that have a journal, which is called as its table is.
const USED: &str = "\
-- schema::writer::used
with replicated (oid, nspname, relname) as (
  select c.oid, n.nspname, c.relname
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where n.nspname = $2 and c.relkind in ('r', 'p') and exists (
         select from pg_catalog.pg_class j join pg_catalog.pg_namespace jn on jn.oid = j.relnamespace
          where jn.nspname = $1 and j.relname = c.relname)
)
select 1 as rank, 'schema' as kind, n.oid, n.nspname::text as schema_name, '' as table_name,
       quote_ident(n.nspname) as sql
  from pg_catalog.pg_namespace n where n.nspname in ('debshrew', $1, $2)
union all
select 2, case c.relkind when 'v' then 'view' else 'table' end, c.oid, n.nspname::text, c.relname::text,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'v')
   and (n.nspname = 'debshrew' and (c.relname not like 'migrations\\_%' or c.relname = 'migrations_' || $3)
        or n.nspname = $1)
union all
select 3, 'table', c.oid, c.nspname::text, c.relname::text,
       quote_ident(c.nspname) || '.' || quote_ident(c.relname)
  from replicated c
union all
select distinct 4, 'sequence', s.oid, n.nspname::text, s.relname::text,
       quote_ident(n.nspname) || '.' || quote_ident(s.relname)
  from pg_catalog.pg_attrdef a
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_attrdef'::regclass and d.objid = a.oid
                             and d.refclassid = 'pg_catalog.pg_class'::regclass
  join pg_catalog.pg_class s on s.oid = d.refobjid and s.relkind = 'S'
  join pg_catalog.pg_namespace n on n.oid = s.relnamespace
 where coalesce(pg_partition_root(a.adrelid)::oid, a.adrelid) in (select oid from replicated)
union all
select 5, 'function', p.oid, 'debshrew', p.proname::text, p.oid::regprocedure::text
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname = 'debshrew'
order by 1, 4, 6";

async fn used(client: &impl GenericClient, pipeline: &str, schema: &str) -> Result<Vec<Used>, SchemaError> {
    let journals = journal_schema(pipeline);
    let rows = client
        .query(USED, &[&journals, &schema, &pipeline])
        .await
        .map_err(DbError::statement("see what a writer uses"))?;
    let used = |row: &tokio_postgres::Row| {
        let kind: String = row.get("kind");
        let privileges = privileges(row.get("schema_name"), row.get("table_name"), &kind, &journals);
        // To `grant`, a view is a table.
        let kind = if kind == "view" { "table".to_owned() } else { kind };
        Used { kind, oid: row.get("oid"), name: row.get("sql"), privileges }
    };
    Ok(rows.iter().map(used).collect())
}

fn grant(used: &Used, privileges: &str, role: &str) -> String {
    format!("grant {privileges} on {} {} to {}", used.kind, used.name, quote(role))
}

/// Lets a role write for the pipeline: commit blocks, roll back, prune, run its sinks.
pub(super) async fn let_write(
    transaction: &tokio_postgres::Transaction<'_>,
    role: &str,
    pipeline: &str,
    schema: &str,
) -> Result<(), SchemaError> {
    let used = used(transaction, pipeline, schema).await?;
    let grants: Vec<String> =
        used.iter().map(|used| grant(used, &used.privileges.join(", "), role)).collect();
    execute(transaction, &grants.join(";\n"), &format!("let role {} write", quote(role))).await
}

/// What this session's role lacks to write for the pipeline, each with the statement that mends it. Empty also where
/// nothing is set up.
pub async fn lacking(
    client: &impl GenericClient,
    pipeline: &str,
    schema: &str,
) -> Result<Vec<String>, SchemaError> {
    let used = used(client, pipeline, schema).await?;
    let wanted: Vec<(&Used, &str)> =
        used.iter().flat_map(|used| used.privileges.iter().map(move |one| (used, *one))).collect();
    let kinds: Vec<&str> = wanted.iter().map(|(used, _)| used.kind.as_str()).collect();
    let oids: Vec<Oid> = wanted.iter().map(|(used, _)| used.oid).collect();
    let named: Vec<&str> = wanted.iter().map(|(_, privilege)| *privilege).collect();
    let rows = client
        .query(
            "-- schema::writer::lacking\n\
             select current_user::text as role, w.place::int8 as place from ( \
               select place, case \
                 when kind = 'schema' then has_schema_privilege(oid, named) \
                 when kind = 'function' then has_function_privilege(oid, named) \
                 when kind = 'sequence' then has_sequence_privilege(oid, named) \
                 when named like '% (%)' then has_column_privilege( \
                      oid, split_part(split_part(named, '(', 2), ')', 1), split_part(named, ' ', 1)) \
                 else has_table_privilege(oid, named) end as had \
               from unnest($1::text[], $2::oid[], $3::text[]) with ordinality u (kind, oid, named, place)) w \
              where not w.had order by w.place",
            &[&kinds, &oids, &named],
        )
        .await
        .map_err(DbError::statement("see what this role may do"))?;
    let mut lacks: Vec<(&Used, Vec<&str>)> = Vec::new();
    let role = rows.first().map(|row| row.get::<_, String>("role")).unwrap_or_default();
    for row in &rows {
        let Some((used, privilege)) =
            usize::try_from(row.get::<_, i64>("place") - 1).ok().and_then(|place| wanted.get(place))
        else {
            continue;
        };
        match lacks.last_mut() {
            Some((last, privileges)) if std::ptr::eq(*last, *used) => privileges.push(privilege),
            _ => lacks.push((used, vec![privilege])),
        }
    }
    let told = |(used, privileges): (&Used, Vec<&str>)| {
        let privileges = privileges.join(", ");
        format!(
            "role {} lacks {privileges} on {} {}: `{}`",
            quote(&role),
            used.kind,
            used.name,
            grant(used, &privileges, &role)
        )
    };
    Ok(lacks.into_iter().map(told).collect())
}

/// Who owns the schema `debshrew`, if this session's role may not do as its owner does, so that `migrate` is not for it.
pub async fn other_owner(client: &impl GenericClient) -> Result<Option<String>, SchemaError> {
    let row = client
        .query_opt(
            "-- schema::writer::other_owner\n\
             select pg_get_userbyid(nspowner)::text from pg_catalog.pg_namespace \
              where nspname = 'debshrew' and not has_schema_privilege(oid, 'create')",
            &[],
        )
        .await
        .map_err(DbError::statement("see whom the schema `debshrew` belongs to"))?;
    Ok(row.map(|row| row.get(0)))
}
