//! PostgreSQL's catalog as far as replication needs it: a schema's tables, their columns, types, keys and
//! constraints.
//!
//! Reports facts. What follows from them, such as which tables cannot be journaled, is `table`'s business.

mod expressions;
mod queries;

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Client, Row};

pub use expressions::Dependence;

use super::{DbError, owners, quote};
use expressions::{Calls, EXPRESSIONS, Expressions};
use queries::{COLUMNS, FOREIGN_KEYS, KEYS, OUTSIDE_KEYS, RELATIONS, TRIGGERS, TYPES};

/// A column's position in its [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnId(u16);

impl ColumnId {
    /// PostgreSQL's tables have 1,600 columns at most.
    pub fn new(position: usize) -> ColumnId {
        ColumnId(u16::try_from(position).unwrap_or(u16::MAX))
    }

    pub fn position(self) -> usize {
        self.0.into()
    }
}

/// A table of the pipeline's schema, ordinary or partitioned.
#[derive(Clone, Debug)]
pub struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// In the order of their numbers.
    pub columns: Vec<Column>,
    /// The primary key's columns, in the key's order; empty without one.
    pub key: Vec<ColumnId>,
    /// A key over periods (`without overlaps`): rows that it calls the same are not equal.
    pub key_temporal: bool,
    /// A deferrable primary key cannot be the arbiter of `on conflict`.
    pub key_deferrable: bool,
    /// The name of a unique index or exclusion constraint beside the primary key that is checked row by row.
    pub immediate_unique: Option<String>,
    /// It is a unique index over expressions or on some rows, which no `unique` constraint can be.
    pub immediate_unique_special: bool,
    pub foreign_keys: Vec<ForeignKey>,
    /// Foreign keys of tables in other schemas that reference this table.
    pub referenced_by: Vec<OutsideKey>,
    pub triggers: Vec<Trigger>,
    /// The table and its partitions.
    pub members: Vec<u32>,
    /// All triggers of these, those of constraints among them.
    pub trigger_oids: Vec<u32>,
    pub partitioned: bool,
    pub unlogged: bool,
    /// It has children by inheritance, or is one; partitions do not count.
    pub inherits: bool,
    pub has_rules: bool,
    /// The role that it, or a partition of it, belongs to, if that one is not trusted.
    pub foreign_owner: Option<String>,
    /// Row level security hides rows from the role that we are.
    pub row_security: bool,
}

impl Table {
    /// `"schema"."name"`, for SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    pub fn column(&self, id: ColumnId) -> &Column {
        &self.columns[id.position()]
    }

    /// The columns whose values are ours to set.
    pub fn stored(&self) -> impl Iterator<Item = ColumnId> + '_ {
        let ids = (0..self.columns.len()).map(ColumnId::new);
        ids.filter(|id| !self.column(*id).generated)
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
    /// The default, or `identity`, where it may give another value at another time.
    pub varying_default: Option<String>,
    /// What the value of a row that leaves the column out depends on.
    pub default_dependence: Dependence,
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
    /// `bytea`.
    Bytes,
    /// A date or time, or a range of them: its input knows words such as `now`.
    Time,
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
    /// The columns that reference.
    pub columns: Vec<String>,
    /// The table that is referenced.
    pub references: u32,
    pub deferrable: bool,
    /// An index leads with the columns that reference.
    pub indexed: bool,
    /// `cascade`, `set null` or `set default`, when a referenced row goes or its key changes.
    pub action: Option<String>,
}

/// A foreign key of a table in another schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideKey {
    /// The table that references, for SQL.
    pub table: String,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Trigger {
    pub name: String,
    pub function_name: String,
    pub function_source: String,
    /// It fires before the row is written, and may change it or keep it out.
    pub before: bool,
    /// It fires for each row, and not once a statement.
    pub for_rows: bool,
    /// It fires for rows that are inserted or updated.
    pub for_puts: bool,
    /// It fires for nothing but `truncate`.
    pub for_truncate: bool,
    /// The function is PostgreSQL's own.
    pub own_function: bool,
    pub language: String,
    /// What its condition (`when`) depends on.
    pub condition: Dependence,
    /// Words of the function's text that are functions of PostgreSQL's own and of nobody else's, which give the same all
    /// through a transaction, or chance.
    pub plain_calls: Vec<String>,
    /// Somebody has made operators or casts whose functions may look at rows.
    pub odd_operators: bool,
}

/// The tables of `schema` that have no other owner than the pipeline, by name. The session's `search_path` is empty, so
/// that types, collations and operators are written with their schemas.
pub async fn tables(client: &Client, schema: &str) -> Result<Vec<Table>, DbError> {
    let read = |what: &'static str| DbError::statement(format!("read the catalog ({what})"));
    let ask = |sql: &'static str, what: &'static str| async move {
        client.query(sql, &[&schema]).await.map_err(read(what))
    };
    // All at once, since none needs another's answer.
    let (relations, columns, keys, foreign_keys, outside, triggers, expressions, foreign) = tokio::try_join!(
        ask(RELATIONS, "tables"),
        ask(COLUMNS, "columns"),
        ask(KEYS, "keys"),
        ask(FOREIGN_KEYS, "foreign keys"),
        ask(OUTSIDE_KEYS, "references"),
        ask(TRIGGERS, "triggers"),
        ask(EXPRESSIONS, "expressions"),
        owners::foreign_tables(client, schema),
    )?;
    let type_oids: Vec<u32> = columns.iter().map(|row| row.get("type_oid")).collect();
    let types = Types::read(&client.query(TYPES, &[&type_oids]).await.map_err(read("types"))?);
    let mut expressions = Expressions::read(&expressions);

    let mut tables: BTreeMap<u32, Table> =
        relations.iter().map(|row| (row.get("oid"), table(row, schema))).collect();
    for row in &columns {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            let calls = expressions.defaults.remove(&(table.oid, row.get("number")));
            table.columns.push(column(row, &types, calls)?);
        }
    }
    for row in &keys {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            add_key_column(table, row);
        }
    }
    for row in &foreign_keys {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            table.foreign_keys.push(foreign_key(row));
        }
    }
    for row in &outside {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            table.referenced_by.push(OutsideKey { table: row.get("referencing"), name: row.get("name") });
        }
    }
    for (oid, owner) in foreign {
        if let Some(table) = tables.get_mut(&oid) {
            table.foreign_owner = Some(owner);
        }
    }
    for row in &triggers {
        if let Some(table) = tables.get_mut(&row.get("table_oid")) {
            let condition = expressions.conditions.remove(&row.get("oid"));
            table.triggers.push(trigger(row, condition));
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
        key_temporal: row.get("key_temporal"),
        key_deferrable: row.get("key_deferrable"),
        immediate_unique: row.get("immediate_unique"),
        immediate_unique_special: row.get("immediate_unique_special"),
        foreign_keys: Vec::new(),
        referenced_by: Vec::new(),
        triggers: Vec::new(),
        members: row.get("members"),
        trigger_oids: row.get("trigger_oids"),
        partitioned: row.get("partitioned"),
        unlogged: row.get("unlogged"),
        inherits: row.get("inherits"),
        has_rules: row.get("has_rules"),
        foreign_owner: None,
        row_security: row.get("row_security"),
    }
}

fn foreign_key(row: &Row) -> ForeignKey {
    ForeignKey {
        name: row.get("name"),
        columns: row.get("columns"),
        references: row.get("references"),
        deferrable: row.get("deferrable"),
        indexed: row.get("indexed"),
        action: row.get("action"),
    }
}

fn trigger(row: &Row, condition: Option<Calls>) -> Trigger {
    Trigger {
        name: row.get("name"),
        function_name: row.get("function_name"),
        function_source: row.get("source"),
        before: row.get("before"),
        for_rows: row.get("for_rows"),
        for_puts: row.get("for_puts"),
        for_truncate: row.get("for_truncate"),
        own_function: row.get("own_function"),
        language: row.get("language"),
        condition: condition.map(|calls| calls.dependence).unwrap_or_default(),
        plain_calls: row.get("plain_calls"),
        odd_operators: row.get("odd_operators"),
    }
}

fn column(row: &Row, types: &Types, calls: Option<Calls>) -> Result<Column, DbError> {
    let declared_oid: u32 = row.get("type_oid");
    let modifier: i32 = row.get("modifier");
    let base = types.base(declared_oid)?;
    let default: Option<String> = row.get("default_text");
    let identity: Vec<u32> = row.get("identity_sequences");
    let is_identity: bool = row.get("identity");
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
        varying_default: match &calls {
            _ if is_identity => Some("identity".to_owned()),
            Some(calls) if calls.varies => default.clone(),
            Some(_) | None => None,
        },
        default_dependence: match calls {
            _ if is_identity => Dependence::of(identity),
            calls => calls.map(|calls| calls.dependence).unwrap_or_default(),
        },
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
        table.key.push(ColumnId::new(position));
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
    /// What a range is over.
    subtype: Option<u32>,
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
            subtype: row.get("subtype"),
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
        const BYTEA: u32 = 17;
        // date, time, timestamp, timestamptz, timetz
        const TIMES: [u32; 5] = [1082, 1083, 1114, 1184, 1266];
        let found = self.base(oid)?;
        if depth > 64 {
            return Err(DbError::Catalog(format!("type {} is nested deeper than 64 levels", found.sql)));
        }
        Ok(if JSON.contains(&found.oid) {
            Shape::Json
        } else if found.oid == BYTEA {
            Shape::Bytes
        } else if TIMES.contains(&found.oid) {
            Shape::Time
        } else if let Some(subtype) = found.subtype {
            match self.shape(subtype, depth + 1)? {
                Shape::Time => Shape::Time,
                _ => Shape::Scalar,
            }
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
