//! What a table's rows must meet, and whether the rows that its journal holds do: a constraint that is younger than an image
//! may keep a rollback from putting the image back.
//!
//! Where that cannot be told from the images alone, a constraint that is new counts as one that they violate.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::{SchemaError, execute, is_refusal};
use crate::db::catalog::ColumnId;
use crate::db::{DbError, quote};
use crate::table::{Target, join};

/// Something that a table's rows must meet.
#[derive(Debug)]
pub(super) struct Constraint {
    /// Which of its table's it is, as long as the catalog's numbers stay.
    pub(super) id: String,
    kind: Kind,
    /// Columns that it is about, by name.
    columns: Vec<String>,
    /// That of the constraint or index, if it has one.
    name: Option<String>,
    /// As PostgreSQL writes it.
    pub(super) definition: String,
    /// The same under the names that tables and columns had when they were recorded: equal texts are the same constraint.
    pub(super) recorded: String,
    /// What a `check` checks.
    expression: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NotNull,
    /// The column's type, with its length, scale or domain.
    Type,
    Check,
    /// Of plain columns.
    Unique,
    /// What several rows or tables must meet together.
    Other,
}

/// The constraints of a schema's tables, by the tables' numbers.
pub(super) async fn read(
    transaction: &Transaction<'_>,
    schema: &str,
) -> Result<BTreeMap<u32, Vec<Constraint>>, SchemaError> {
    let rows = transaction
        .query(CONSTRAINTS, &[&schema])
        .await
        .map_err(DbError::statement("read the tables' constraints"))?;
    let mut constraints: BTreeMap<u32, Vec<Constraint>> = BTreeMap::new();
    for row in &rows {
        let kind = match row.get("kind") {
            "not null" => Kind::NotNull,
            "type" => Kind::Type,
            "check" => Kind::Check,
            "unique" => Kind::Unique,
            _ => Kind::Other,
        };
        constraints.entry(row.get("table_oid")).or_default().push(Constraint {
            id: row.get("id"),
            kind,
            columns: row.get("columns"),
            name: row.get("name"),
            definition: row.get("definition"),
            recorded: row.get("definition"),
            expression: row.get("expression"),
        });
    }
    Ok(constraints)
}

const CONSTRAINTS: &str = "\
-- schema::constraints::read
with tables as (
  select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition
), partitions as (
  select c.oid, p.root, p.bounds
    from pg_class c
   cross join lateral (
     select (array_agg(a.oid order by x.number desc))[1] as root,
            string_agg('partition ' || pg_get_expr(a.relpartbound, a.oid), ' of ' order by x.number) as bounds
       from pg_partition_ancestors(c.oid) with ordinality x (oid, number) join pg_class a on a.oid = x.oid) p
   where c.relispartition and p.root in (select oid from tables)
), indexes as (
  -- Without the names of index and table, which are no part of what it demands.
  select i.*, x.relname::text as name, format('unique %s', substr(pg_get_indexdef(x.oid), length(format('CREATE UNIQUE INDEX %I ON %s%s ',
             x.relname, case when x.relkind = 'I' then 'ONLY ' end, i.indrelid::regclass)) + 1)) as definition
    from pg_index i join pg_class x on x.oid = i.indexrelid
   where i.indisunique and (i.indrelid in (select oid from tables) or i.indrelid in (select oid from partitions))
)
select a.attrelid as table_oid, 'not null ' || a.attnum as id, 'not null' as kind, array[a.attname::text] as columns,
       format('%I not null', a.attname) as definition, null as expression, null as name
  from pg_attribute a join tables t on t.oid = a.attrelid
 where a.attnum > 0 and not a.attisdropped and a.attnotnull and a.attgenerated = ''
union all
select a.attrelid, 'type ' || a.attnum, 'type', array[a.attname::text],
       format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
         || coalesce((with recursive domain (oid) as (
                        select a.atttypid union all
                        select d.typbasetype from pg_type d join domain using (oid) where d.typtype = 'd')
                      select string_agg(case when d.typnotnull then ' not null' else '' end
                               || coalesce((select string_agg(' ' || pg_get_constraintdef(k.oid), '' order by k.conname)
                                              from pg_constraint k where k.contypid = d.oid and k.contype = 'c'), ''), '')
                        from domain join pg_type d using (oid) where d.typtype = 'd'), ''),
       null, null
  from pg_attribute a join tables t on t.oid = a.attrelid
 where a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
union all
select k.conrelid, 'constraint ' || k.oid, case when k.contype = 'c' and k.convalidated then 'check' else 'other' end,
       array(select a.attname::text from pg_attribute a where a.attrelid = k.conrelid and a.attnum = any(k.conkey)),
       pg_get_constraintdef(k.oid), pg_get_expr(k.conbin, k.conrelid), k.conname::text
  from pg_constraint k join tables t on t.oid = k.conrelid
 where k.contype in ('c', 'x', 'f') and (k.contype <> 'f' or k.conparentid = 0)
union all
-- A table that others reference must have what they reference.
select k.confrelid, 'reference ' || k.oid, 'other', '{}', format('%s referenced by %s', pg_get_constraintdef(k.oid), k.conrelid::regclass), null,
       k.conname::text
  from pg_constraint k join tables t on t.oid = k.confrelid
 where k.contype = 'f' and k.confrelid <> k.conrelid and k.conparentid = 0
union all
-- Of partitions alone, which go by their bounds.
select p.root, 'constraint ' || k.oid, 'other', '{}', format('%s of %s', pg_get_constraintdef(k.oid), p.bounds), null, k.conname::text
  from pg_constraint k join partitions p on p.oid = k.conrelid
 where k.contype in ('c', 'u', 'x') and k.coninhcount = 0
union all
select p.root, 'index ' || i.indexrelid, 'other', '{}', format('%s of %s', i.definition, p.bounds), null, i.name
  from indexes i join partitions p on p.oid = i.indrelid
 where not exists (select from pg_inherits h where h.inhrelid = i.indexrelid)
union all
-- Different texts may be equal under them.
select a.attrelid, 'collation ' || a.attnum, 'other', array[a.attname::text], format('%I collate %s', a.attname, l.oid::regcollation), null, null
  from pg_attribute a join tables t on t.oid = a.attrelid
  join pg_collation l on l.oid = a.attcollation and not l.collisdeterministic
 where a.attnum > 0 and not a.attisdropped
union all
select i.indrelid, 'index ' || i.indexrelid, case when i.indexprs is null and i.indpred is null
                           and pg_get_indexdef(i.indexrelid) not like '%NULLS NOT DISTINCT%' then 'unique' else 'other' end,
       array(select a.attname::text from unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k (number)
               join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number),
       i.definition, null, i.name
  from indexes i join tables t on t.oid = i.indrelid
 where not i.indisprimary";

/// Those of a table's constraints that it did not have and that rows of the journal may violate. The journal is in step.
pub(super) async fn violated<'a>(
    transaction: &Transaction<'_>,
    target: &Target,
    now: &'a [Constraint],
    before: &[String],
) -> Result<Vec<&'a Constraint>, SchemaError> {
    let mut violated = Vec::new();
    for constraint in now.iter().filter(|constraint| !before.contains(&constraint.recorded)) {
        if constraint.may_be_violated(transaction, target).await? {
            violated.push(constraint);
        }
    }
    Ok(violated)
}

impl Constraint {
    /// For messages.
    pub(super) fn described(&self) -> String {
        match &self.name {
            Some(name) => format!("`{name}` ({})", self.definition),
            None => self.definition.clone(),
        }
    }

    async fn may_be_violated(
        &self,
        transaction: &Transaction<'_>,
        target: &Target,
    ) -> Result<bool, SchemaError> {
        let columns: Vec<ColumnId> = self.columns.iter().filter_map(|name| target.find(name)).collect();
        let sql = match self.kind {
            Kind::NotNull => {
                any_image(target, &columns, &format!("{} is null", self.names(target, &columns)))
            }
            Kind::Type => any_image(target, &columns, &self.changes_value(target, &columns)),
            Kind::Check => {
                let expression = self.expression.as_deref().unwrap_or("false");
                let fails = format!("({expression}) is false");
                format!("{} or {}", any_image(target, &columns, &fails), some_held(target, &columns))
            }
            Kind::Unique => {
                format!("{} or {}", taken_twice(target, &columns), some_held(target, &columns))
            }
            Kind::Other => format!("exists (select from {})", target.journal),
        };
        execute(transaction, "savepoint images", "set a savepoint").await?;
        match transaction
            .query_one(&format!("-- schema::constraints::may_be_violated\nselect {sql}"), &[])
            .await
        {
            Ok(row) => {
                execute(transaction, "release savepoint images", "release a savepoint").await?;
                Ok(row.get(0))
            }
            // A domain's check raises an error; and what cannot be checked is not known to hold.
            Err(error) if is_refusal(&error) => {
                let sql = "rollback to savepoint images; release savepoint images";
                execute(transaction, sql, "go back to a savepoint").await?;
                Ok(true)
            }
            Err(error) => Err(DbError::statement("check the journal's rows")(error).into()),
        }
    }

    fn names(&self, target: &Target, columns: &[ColumnId]) -> String {
        join(columns.iter().map(|column| target.name(*column)))
    }

    /// The declared type would store an image's value as another one.
    fn changes_value(&self, target: &Target, columns: &[ColumnId]) -> String {
        let differs = columns.iter().map(|column| {
            let found = target.table.column(*column);
            let name = quote(&found.name);
            format!(
                "pg_catalog.record_image_ne(row({name}), row({name}::{}::{}))",
                found.declared, found.type_sql
            )
        });
        differs.collect::<Vec<_>>().join(" or ")
    }
}

/// Whether an image holds a column. Of columns that the journal holds under a slot that a record has yet to be given, all
/// images of before hold none but whole ones.
fn held(target: &Target, column: ColumnId) -> String {
    target.is_held(target.slots[column.position()])
}

/// Whether a condition is met by an image that holds all of these columns.
fn any_image(target: &Target, columns: &[ColumnId], condition: &str) -> String {
    let held: Vec<String> = columns.iter().map(|column| held(target, *column)).collect();
    let held = if held.is_empty() { "true".to_owned() } else { held.join(" and ") };
    format!(
        "exists (select from {} where undo_existed and case when {held} then {condition} else false end)",
        target.journal
    )
}

/// Whether an image holds some of these columns and not all: what stood in the others is another image's.
fn some_held(target: &Target, columns: &[ColumnId]) -> String {
    let beside_key: Vec<String> = columns
        .iter()
        .filter(|column| !target.table.key.contains(column))
        .map(|column| held(target, *column))
        .collect();
    if beside_key.len() < 2 {
        return "false".to_owned();
    }
    format!(
        "exists (select from {} where undo_existed and ({}) and not ({}))",
        target.journal,
        beside_key.join(" or "),
        beside_key.join(" and ")
    )
}

/// Whether two rows have, or once had, the same values in these columns.
fn taken_twice(target: &Target, columns: &[ColumnId]) -> String {
    let names = join(columns.iter().map(|column| target.name(*column)));
    let keys = join(target.table.key.iter().map(|column| target.name(*column)));
    let held: Vec<String> = columns.iter().map(|column| held(target, *column)).collect();
    let given: Vec<String> =
        columns.iter().map(|column| format!("{} is not null", target.name(*column))).collect();
    format!(
        "exists (select from (select {keys}, {names} from {} union all \
           select {keys}, {names} from {} where undo_existed and {}) rows \
         where {} group by {names} having pg_catalog.count(distinct row({keys})) > 1)",
        target.table.sql(),
        target.journal,
        held.join(" and "),
        given.join(" and "),
    )
}

/// Whether a column's images would be cut off by a cast to the declared type, where the table's own conversion would have
/// failed. A savepoint `retype` is set.
pub(super) async fn is_cut_off(
    transaction: &Transaction<'_>,
    journal: &str,
    column: &str,
    type_sql: &str,
    declared: &str,
) -> Result<bool, SchemaError> {
    let name = quote(column);
    let sql = format!(
        "-- schema::constraints::is_cut_off\nselect exists (select from {journal} \
         where {name}::{type_sql} is distinct from {name}::{declared}::{type_sql})"
    );
    match transaction.query_one(&sql, &[]).await {
        Ok(row) => Ok(row.get(0)),
        // Types without equality have no length; and what cannot be cast is said by whoever casts it.
        Err(error) if is_refusal(&error) => {
            execute(transaction, "rollback to savepoint retype", "go back to a savepoint").await?;
            Ok(false)
        }
        Err(error) => Err(DbError::statement("check the journal's values")(error).into()),
    }
}
