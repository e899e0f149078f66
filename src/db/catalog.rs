//! PostgreSQL's catalog as far as replication needs it: a schema's tables, their columns, types, keys and
//! constraints.
//!
//! Reports facts. What follows from them, such as which tables cannot be journaled, is `apply`'s business.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Client, Row};

use super::{DbError, quote};

/// A table of the pipeline's schema, ordinary or partitioned.
#[derive(Clone, Debug)]
pub struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// In the order of their numbers.
    pub columns: Vec<Column>,
    /// Positions in `columns` of the primary key's columns, in the key's order; empty without one.
    pub key: Vec<usize>,
    /// A deferrable primary key cannot be the arbiter of `on conflict`.
    pub key_deferrable: bool,
    /// The name of a unique index or exclusion constraint beside the primary key that is checked row by row.
    pub immediate_unique: Option<String>,
    pub foreign_keys: Vec<ForeignKey>,
    pub triggers: Vec<Trigger>,
    pub unlogged: bool,
    /// It has children by inheritance, or is one; partitions do not count.
    pub inherits: bool,
    pub has_rules: bool,
    /// Row level security hides rows from the role that we are.
    pub row_security: bool,
}

impl Table {
    /// `"schema"."name"`, for SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// Positions in `columns` of those whose values are ours to set.
    pub fn stored(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().filter(|(_, column)| !column.generated).map(|(index, _)| index)
    }
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// PostgreSQL's number of the column, which survives a renaming.
    pub number: i16,
    /// The type to cast to, without length or precision and with domains resolved, schema-qualified. Length,
    /// precision and domain are applied when the value is assigned, so that what does not fit is an error and
    /// is not cut off, as an explicit cast to `varchar(3)` would.
    pub type_sql: String,
    pub type_oid: u32,
    /// The type as it was declared, for messages.
    pub declared: String,
    /// The most characters of a `varchar(n)`.
    pub max_chars: Option<usize>,
    /// The declared type has a length or precision, or is a domain.
    pub constrained: bool,
    pub shape: Shape,
    pub not_null: bool,
    /// The default, the column's or its domain's, as SQL; `identity` columns have none here.
    pub default: Option<String>,
    /// The value, as a literal, of rows that are older than the column, where it is not stored in them.
    pub missing: Option<String>,
    /// What gives another value each time where the column is left out.
    pub volatile_default: Option<String>,
    pub generated: bool,
    /// `generated always as identity`.
    pub identity_always: bool,
    /// The collation, for SQL, when it is not the type's own.
    pub collation: Option<String>,
    /// Different strings may be equal.
    pub loose_collation: bool,
    /// The primary key's equality operator, for SQL: the one that its index uses.
    pub equals: Option<String>,
}

/// How a JSON value becomes the type's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Its input text.
    Scalar,
    /// `json` or `jsonb`: the JSON itself.
    Json,
    Array {
        element: Box<Shape>,
        delimiter: char,
    },
    Composite(Vec<(String, Shape)>),
}

#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub name: String,
    /// The table that is referenced.
    pub references: u32,
    pub deferrable: bool,
    /// `cascade`, `set null` or `set default`, when a referenced row goes or its key changes.
    pub action: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Trigger {
    pub name: String,
    pub function_source: String,
}

/// The tables of `schema` that have no other owner than the pipeline, by name.
pub async fn tables(client: &Client, schema: &str) -> Result<Vec<Table>, DbError> {
    let read = |what: &'static str| DbError::statement(format!("read the catalog ({what})"));
    // With an empty path every type, collation and operator is written with its schema. Compiling these plans takes
    // longer than running them.
    let (path, jit): (String, String) = client
        .query_one(
            // From left to right: what it was, before it changes.
            "select current_setting('search_path'), current_setting('jit'), \
                    pg_catalog.set_config('search_path', '', false), pg_catalog.set_config('jit', 'off', false)",
            &[],
        )
        .await
        .map(|row| (row.get(0), row.get(1)))
        .map_err(read("settings"))?;
    let relations = client.query(RELATIONS, &[&schema]).await.map_err(read("tables"))?;
    let columns = client.query(COLUMNS, &[&schema]).await.map_err(read("columns"))?;
    let type_oids: Vec<u32> = columns.iter().map(|row| row.get("type_oid")).collect();
    let types = Types::read(&client.query(TYPES, &[&type_oids]).await.map_err(read("types"))?);
    let keys = client.query(KEYS, &[&schema]).await.map_err(read("keys"))?;
    let foreign_keys = client.query(FOREIGN_KEYS, &[&schema]).await.map_err(read("foreign keys"))?;
    let triggers = client.query(TRIGGERS, &[&schema]).await.map_err(read("triggers"))?;
    client
        .execute(
            "select pg_catalog.set_config('search_path', $1, false), pg_catalog.set_config('jit', $2, false)",
            &[&path, &jit],
        )
        .await
        .map_err(read("settings"))?;

    let mut tables: BTreeMap<u32, Table> =
        relations.iter().map(|row| (row.get("oid"), table(row, schema))).collect();
    for row in &columns {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            table.columns.push(column(row, &types)?);
        }
    }
    for row in &keys {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            add_key_column(table, row);
        }
    }
    for row in &foreign_keys {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            table.foreign_keys.push(ForeignKey {
                name: row.get("name"),
                references: row.get("references"),
                deferrable: row.get("deferrable"),
                action: row.get("action"),
            });
        }
    }
    for row in &triggers {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            table.triggers.push(Trigger { name: row.get("name"), function_source: row.get("source") });
        }
    }
    let mut tables: Vec<Table> = tables.into_values().collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

fn table(row: &Row, schema: &str) -> Table {
    Table {
        oid: row.get("oid"),
        schema: schema.to_owned(),
        name: row.get("name"),
        columns: Vec::new(),
        key: Vec::new(),
        key_deferrable: row.get("key_deferrable"),
        immediate_unique: row.get("immediate_unique"),
        foreign_keys: Vec::new(),
        triggers: Vec::new(),
        unlogged: row.get("unlogged"),
        inherits: row.get("inherits"),
        has_rules: row.get("has_rules"),
        row_security: row.get("row_security"),
    }
}

fn column(row: &Row, types: &Types) -> Result<Column, DbError> {
    let declared_oid: u32 = row.get("type_oid");
    let modifier: i32 = row.get("modifier");
    let base = types.base(declared_oid)?;
    let default: Option<String> = row.get("default_text");
    // The functions whose result differs from call to call that defaults are made of in practice.
    let volatile =
        ["nextval(", "now()", "_timestamp()", "random", "CURRENT_", "LOCALTIME", "timeofday(", "uuid"];
    Ok(Column {
        name: row.get("name"),
        number: row.get("number"),
        type_sql: base.sql.clone(),
        type_oid: base.oid,
        declared: row.get("declared"),
        // PostgreSQL keeps n + 4 as the modifier of varchar(n).
        max_chars: (base.oid == 1043 && modifier > 4).then(|| (modifier - 4) as usize),
        constrained: modifier != -1 || base.oid != declared_oid,
        shape: types.shape(declared_oid, 0)?,
        not_null: row.get("not_null"),
        volatile_default: default
            .clone()
            .filter(|text| volatile.iter().any(|word| text.contains(word)))
            .or_else(|| row.get::<_, bool>("identity").then(|| "identity".to_owned())),
        default,
        missing: row.get("missing"),
        generated: row.get("generated"),
        identity_always: row.get("identity_always"),
        collation: row.get("collation"),
        loose_collation: row.get("loose_collation"),
        equals: None,
    })
}

fn add_key_column(table: &mut Table, row: &Row) {
    let number: i16 = row.get("number");
    if let Some(position) = table.columns.iter().position(|column| column.number == number) {
        table.key.push(position);
        table.columns[position].equals = row.get("equals");
    }
}

/// The types that the columns are made of, down to domains' bases, arrays' elements and composites' fields.
struct Types(HashMap<u32, Type>);

struct Type {
    oid: u32,
    sql: String,
    /// `b`ase, `c`omposite, `d`omain, `e`num, `r`ange, `m`ultirange, `p`seudo.
    kind: String,
    category: String,
    element: u32,
    base: u32,
    delimiter: String,
    field_names: Vec<String>,
    field_types: Vec<u32>,
}

impl Types {
    fn read(rows: &[Row]) -> Types {
        let read = |row: &Row| Type {
            oid: row.get("oid"),
            sql: row.get("sql"),
            kind: row.get("kind"),
            category: row.get("category"),
            element: row.get("element"),
            base: row.get("base"),
            delimiter: row.get("delimiter"),
            field_names: row.get("field_names"),
            field_types: row.get("field_types"),
        };
        Types(rows.iter().map(|row| (row.get("oid"), read(row))).collect())
    }

    fn get(&self, oid: u32) -> Result<&Type, DbError> {
        self.0.get(&oid).ok_or_else(|| DbError::Catalog(format!("the catalog has no type with oid {oid}")))
    }

    /// The type itself, or what a domain is over.
    fn base(&self, oid: u32) -> Result<&Type, DbError> {
        let mut found = self.get(oid)?;
        while found.kind == "d" {
            found = self.get(found.base)?;
        }
        Ok(found)
    }

    fn shape(&self, oid: u32, depth: usize) -> Result<Shape, DbError> {
        const JSON: [u32; 2] = [114, 3802];
        let found = self.base(oid)?;
        if depth > 64 {
            return Err(DbError::Catalog(format!("type {} is nested deeper than 64 levels", found.sql)));
        }
        Ok(if JSON.contains(&found.oid) {
            Shape::Json
        } else if found.category == "A" {
            Shape::Array {
                element: Box::new(self.shape(found.element, depth + 1)?),
                delimiter: self.get(found.element)?.delimiter.chars().next().unwrap_or(','),
            }
        } else if found.kind == "c" {
            let fields = found.field_names.iter().zip(&found.field_types);
            Shape::Composite(
                fields.map(|(name, oid)| Ok((name.clone(), self.shape(*oid, depth + 1)?))).collect::<Result<
                    _,
                    DbError,
                >>(
                )?,
            )
        } else {
            Shape::Scalar
        })
    }
}

const RELATIONS: &str = "\
-- db::catalog::relations
select c.oid, c.relname::text as name,
       exists (select from pg_class m where m.oid = any(p.members) and m.relpersistence = 'u') as unlogged,
       (c.relkind = 'r' and exists (select from pg_inherits i where i.inhparent = c.oid))
         or exists (select from pg_inherits i where i.inhrelid = c.oid) as inherits,
       exists (select from pg_rewrite r where r.ev_class = any(p.members)) as has_rules,
       row_security_active(c.oid) as row_security,
       coalesce((select not i.indimmediate from pg_index i where i.indrelid = c.oid and i.indisprimary), false)
         as key_deferrable,
       (select min(k.relname::text) from pg_index i join pg_class k on k.oid = i.indexrelid
         where i.indrelid = any(p.members) and (i.indisunique or i.indisexclusion)
           and not i.indisprimary and i.indimmediate) as immediate_unique
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 cross join lateral (
         -- A partition may have indexes, rules and a persistence of its own.
         select array(select c.oid union select relid from pg_partition_tree(c.oid)) as members
       ) p
 where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'";

const COLUMNS: &str = "\
-- db::catalog::columns
select a.attrelid as table_oid, a.attnum as number, a.attname::text as name, a.atttypid as type_oid,
       a.atttypmod as modifier, format_type(a.atttypid, a.atttypmod) as declared, a.attnotnull as not_null,
       a.attgenerated <> '' as generated, a.attidentity <> '' as identity, a.attidentity = 'a' as identity_always,
       case when a.attgenerated = '' then coalesce(pg_get_expr(d.adbin, d.adrelid), t.typdefault) end as default_text,
       -- Partitions store the rows of a partitioned table.
       (select quote_literal((m.attmissingval::text::text[])[1])
          from pg_attribute m
         where m.attname = a.attname and m.atthasmissing
           and (m.attrelid = a.attrelid
                or (c.relkind = 'p' and m.attrelid in (select relid from pg_partition_tree(a.attrelid))))
         limit 1) as missing,
       -- Not the type's own: a domain's collation is that of no cast to its base.
       case when l.collname <> 'default' or l.collnamespace <> 'pg_catalog'::regnamespace
            then quote_ident(ln.nspname) || '.' || quote_ident(l.collname) end as collation,
       coalesce(not l.collisdeterministic, false) as loose_collation
  from pg_attribute a
  join pg_class c on c.oid = a.attrelid
  join pg_namespace n on n.oid = c.relnamespace
  join pg_type t on t.oid = a.atttypid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  left join pg_collation l on l.oid = a.attcollation
  left join pg_namespace ln on ln.oid = l.collnamespace
 where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
   and a.attnum > 0 and not a.attisdropped
 order by a.attrelid, a.attnum";

const TYPES: &str = "\
-- db::catalog::types
with recursive needed (oid) as (
  select unnest($1::oid[])
  union
  select part.oid
    from needed n
    join pg_type t on t.oid = n.oid
   cross join lateral (
           select t.typbasetype where t.typtype = 'd'
     union all
           select t.typelem where t.typcategory = 'A'
     union all
           select a.atttypid from pg_attribute a
            where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
   ) part (oid)
)
select t.oid, format_type(t.oid, -1) as sql, t.typtype::text as kind, t.typcategory::text as category,
       t.typelem as element, t.typbasetype as base, t.typdelim::text as delimiter,
       array(select a.attname::text from pg_attribute a
              where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
              order by a.attnum) as field_names,
       array(select a.atttypid from pg_attribute a
              where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
              order by a.attnum) as field_types
  from needed n join pg_type t on t.oid = n.oid";

// Strategy 3 of a B-tree's operator family is equality (PostgreSQL's manual, "B-Tree Indexes").
const KEYS: &str = "\
-- db::catalog::keys
select i.indrelid as table_oid, k.number,
       (select 'operator(' || quote_ident(n.nspname) || '.' || o.oprname || ')'
          from pg_opclass f
          join pg_amop m on m.amopfamily = f.opcfamily and m.amopstrategy = 3
                        and m.amoplefttype = f.opcintype and m.amoprighttype = f.opcintype
          join pg_operator o on o.oid = m.amopopr
          join pg_namespace n on n.oid = o.oprnamespace
         where f.oid = (i.indclass::oid[])[k.position - 1]) as equals
  from pg_index i
  join pg_class c on c.oid = i.indrelid
  join pg_namespace s on s.oid = c.relnamespace
 cross join lateral unnest(i.indkey::int2[]) with ordinality k (number, position)
 where s.nspname = $1 and i.indisprimary and k.position <= i.indnkeyatts
 order by i.indrelid, k.position";

const FOREIGN_KEYS: &str = "\
-- db::catalog::foreign_keys
select f.conrelid as table_oid, f.conname::text as name, f.confrelid as references, f.condeferrable as deferrable,
       case when 'c' in (f.confdeltype, f.confupdtype) then 'cascade'
            when 'n' in (f.confdeltype, f.confupdtype) then 'set null'
            when 'd' in (f.confdeltype, f.confupdtype) then 'set default' end as action
  from pg_constraint f
  join pg_class c on c.oid = f.conrelid
  join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1 and f.contype = 'f' and f.conparentid = 0
 order by f.conname";

const TRIGGERS: &str = "\
-- db::catalog::triggers
select distinct on (r.root, t.tgname, p.oid) r.root as table_oid, t.tgname::text as name, p.prosrc as source
  from pg_trigger t
 cross join lateral (select coalesce(pg_partition_root(t.tgrelid)::oid, t.tgrelid) as root) r
  join pg_class c on c.oid = r.root
  join pg_namespace n on n.oid = c.relnamespace
  join pg_proc p on p.oid = t.tgfoid
 where n.nspname = $1 and not t.tgisinternal and t.tgenabled <> 'D'
 order by r.root, t.tgname, p.oid";
