//! Whose schemas and tables are safe to use.
//!
//! Who owns a schema or a table can put code into it, as a view, a default or a trigger, that runs with the rights of whoever
//! uses it. So debshrew uses those alone that belong to its own role, to a role that it is a member of, to the database's
//! owner, to a superuser or to the role that the configuration names as the owner (`database.owner_role`): to somebody who has
//! its rights already, or whom it cannot do without.

use std::collections::BTreeMap;

use tokio_postgres::GenericClient;

use super::DbError;

/// Roles that are trusted. A superuser counts as a member of every role in `pg_has_role`, so memberships are followed here.
const TRUSTED: &str = "\
with recursive member_of (oid) as (
  select r.oid from pg_catalog.pg_roles r
   where r.rolname in (current_user, pg_catalog.current_setting('debshrew.owner_role', true))
  union
  select m.roleid from pg_catalog.pg_auth_members m join member_of o on o.oid = m.member
), trusted (oid) as (
  select oid from member_of
  union select d.datdba from pg_catalog.pg_database d where d.datname = current_database()
  union select r.oid from pg_catalog.pg_roles r where r.rolsuper or r.rolname = 'pg_database_owner'
)";

/// Refuses schemas that belong to a role that is not trusted. A schema that does not exist belongs to nobody. Returns whether
/// all exist.
pub async fn refuse_foreign_schemas(client: &impl GenericClient, schemas: &[&str]) -> Result<bool, DbError> {
    let sql = format!(
        "-- db::owners::refuse_foreign_schemas\n{TRUSTED}\n\
         select n.nspname::text as name, pg_catalog.pg_get_userbyid(n.nspowner)::text as owner, \
                n.nspowner in (select oid from trusted) as trusted \
           from pg_catalog.pg_namespace n where n.nspname = any ($1)"
    );
    let rows = client
        .query(&sql, &[&schemas])
        .await
        .map_err(DbError::statement("see whom the schemas belong to"))?;
    match rows.iter().find(|row| !row.get::<_, bool>("trusted")) {
        Some(row) => Err(DbError::ForeignSchema { schema: row.get("name"), owner: row.get("owner") }),
        None => Ok(rows.len() == schemas.len()),
    }
}

/// Refuses what is in schemas of debshrew's own and belongs to a role that is not trusted: somebody let that role create
/// there before debshrew did, or make triggers.
pub async fn refuse_foreign_objects(client: &impl GenericClient, schemas: &[&str]) -> Result<(), DbError> {
    let sql = format!(
        "-- db::owners::refuse_foreign_objects\n{TRUSTED}\n\
         select o.schema::text || '.' || o.name as name, pg_catalog.pg_get_userbyid(o.owner)::text as owner \
           from (select n.nspname, c.relname::text, c.relowner \
                   from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
                 union all \
                 select n.nspname, p.proname::text, p.proowner \
                   from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace \
                 union all \
                 select n.nspname, c.relname::text || '`''s trigger `' || g.tgname::text, p.proowner \
                   from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid \
                   join pg_catalog.pg_class c on c.oid = g.tgrelid \
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace) o (schema, name, owner) \
          where o.schema = any ($1) and o.owner not in (select oid from trusted) order by 1 limit 1"
    );
    let row = client
        .query_opt(&sql, &[&schemas])
        .await
        .map_err(DbError::statement("see whom debshrew's tables belong to"))?;
    match row {
        Some(row) => Err(DbError::ForeignObject { name: row.get("name"), owner: row.get("owner") }),
        None => Ok(()),
    }
}

/// Tables of a schema that belong, or of which a partition does, to a role that is not trusted: that role, by the table's
/// number.
pub async fn foreign_tables(
    client: &impl GenericClient,
    schema: &str,
) -> Result<BTreeMap<u32, String>, DbError> {
    let sql = format!(
        "-- db::owners::foreign_tables\n{TRUSTED}\n\
         select coalesce(pg_partition_root(c.oid)::oid, c.oid) as root, pg_get_userbyid(c.relowner)::text as owner \
           from pg_class c \
          where c.relkind in ('r', 'p', 'f') and c.relowner not in (select oid from trusted) \
            and coalesce(pg_partition_root(c.oid)::oid, c.oid) in ( \
                  select r.oid from pg_class r join pg_namespace n on n.oid = r.relnamespace where n.nspname = $1)"
    );
    let rows =
        client.query(&sql, &[&schema]).await.map_err(DbError::statement("see whom the tables belong to"))?;
    Ok(rows.iter().map(|row| (row.get("root"), row.get("owner"))).collect())
}

/// Roles that are not trusted and may make objects in a schema; `PUBLIC` is everybody.
pub async fn foreign_creators(client: &impl GenericClient, schema: &str) -> Result<Vec<String>, DbError> {
    let sql = format!(
        "-- db::owners::foreign_creators\n{TRUSTED}\n\
         select distinct case a.grantee when 0 then 'PUBLIC' else pg_get_userbyid(a.grantee)::text end as role \
           from pg_namespace n cross join lateral aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a \
          where n.nspname = $1 and a.privilege_type = 'CREATE' and a.grantee not in (select oid from trusted) \
          order by 1"
    );
    let rows = client
        .query(&sql, &[&schema])
        .await
        .map_err(DbError::statement("see who may create in the schema"))?;
    Ok(rows.iter().map(|row| row.get("role")).collect())
}
