//! What a block did to a row, as values that no table has to be asked for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::db::catalog::Shape;
use crate::table::Target;

/// A row that a block created, updated or deleted, or one that is just there, for a snapshot. Never neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub table: Arc<EventTable>,
    pub before: Option<Row>,
    pub after: Option<Row>,
}

/// A value a column, in the table's order: PostgreSQL's output text, with the session's settings pinned. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Arc<Values>);

#[derive(Debug, PartialEq, Eq)]
struct Values {
    /// One after the other.
    text: Box<str>,
    /// Where each begins and ends.
    spans: Box<[Option<(u32, u32)>]>,
}

impl Row {
    /// A row holds less than 4 GiB, since PostgreSQL's messages hold at most 1 GiB.
    pub fn new<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> Row {
        let mut text = String::new();
        let place = |text: &String| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let spans = values.into_iter().map(|value| {
            value.map(|value| {
                let start = place(&text);
                text.push_str(value);
                (start, place(&text))
            })
        });
        let spans = spans.collect();
        Row(Arc::new(Values { text: text.into(), spans }))
    }

    /// A column's text; `None` for null.
    pub fn get(&self, column: usize) -> Option<&str> {
        let (start, end) = (*self.0.spans.get(column)?)?;
        self.0.text.get(start as usize..end as usize)
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = Option<&str>> {
        (0..self.0.spans.len()).map(|column| self.get(column))
    }

    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        self.0.text.len() + 12 * self.0.spans.len() + 48
    }
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// A table, as the consumers of its events see it: generated columns are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTable {
    pub schema: String,
    pub name: String,
    pub columns: Vec<EventColumn>,
    /// The primary key's columns, by their place in `columns`, in the key's order.
    pub key: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventColumn {
    pub name: String,
    pub type_: EventType,
    pub nullable: bool,
}

/// How a column's text is to be understood. Domains are what they are over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Numeric,
    Bytes,
    Json,
    Date,
    Time,
    TimeWithZone,
    Timestamp,
    TimestampWithZone,
    Uuid,
    Array {
        element: Box<EventType>,
        /// What stands between the elements: a comma, but for `box` and some types of extensions.
        delimiter: char,
    },
    /// Everything else, by PostgreSQL's name of the type: texts, enums, intervals, ranges, composites, addresses.
    Text(String),
}

impl Event {
    pub fn operation(&self) -> Operation {
        match (&self.before, &self.after) {
            (None, _) => Operation::Create,
            (Some(_), Some(_)) => Operation::Update,
            (Some(_), None) => Operation::Delete,
        }
    }

    /// The key's columns, in the key's order, and their values: the same before and after.
    pub fn key(&self) -> impl Iterator<Item = (&EventColumn, Option<&str>)> {
        let row = self.after.as_ref().or(self.before.as_ref());
        let value = move |place: usize| row.and_then(|row| row.get(place));
        self.table.key.iter().map(move |place| (&self.table.columns[*place], value(*place)))
    }

    /// What takes it back.
    pub fn inverted(self) -> Event {
        Event { table: self.table, before: self.after, after: self.before }
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        64 + self.before.iter().chain(&self.after).map(Row::bytes).sum::<usize>()
    }
}

impl EventTable {
    pub fn new(target: &Target) -> EventTable {
        let table = &target.table;
        let stored: Vec<_> = table.stored().collect();
        let columns = stored.iter().map(|id| {
            let column = table.column(*id);
            EventColumn {
                name: column.name.clone(),
                type_: EventType::of(&column.type_sql, &column.shape),
                nullable: !column.not_null && !table.key.contains(id),
            }
        });
        let place = |id| stored.iter().position(|stored| stored == id);
        EventTable {
            schema: table.schema.clone(),
            name: table.name.clone(),
            columns: columns.collect(),
            key: table.key.iter().filter_map(place).collect(),
        }
    }
}

impl EventType {
    /// By the type's name for SQL, as [`crate::db::catalog::Column::type_sql`] has it.
    fn of(type_sql: &str, shape: &Shape) -> EventType {
        if let (Some(name), Shape::Array { element, delimiter }) = (type_sql.strip_suffix("[]"), shape) {
            let element = Box::new(EventType::of(name, element));
            return EventType::Array { element, delimiter: *delimiter };
        }
        // Names that are words of SQL, such as `timestamp`, are in quotes.
        let name = type_sql.strip_prefix("pg_catalog.").map(|name| name.trim_matches('"'));
        match name {
            Some("bool") => EventType::Boolean,
            Some("int2") => EventType::Int16,
            Some("int4") => EventType::Int32,
            Some("int8") => EventType::Int64,
            Some("float4") => EventType::Float32,
            Some("float8") => EventType::Float64,
            Some("numeric") => EventType::Numeric,
            Some("bytea") => EventType::Bytes,
            Some("json" | "jsonb") => EventType::Json,
            Some("date") => EventType::Date,
            Some("time") => EventType::Time,
            Some("timetz") => EventType::TimeWithZone,
            Some("timestamp") => EventType::Timestamp,
            Some("timestamptz") => EventType::TimestampWithZone,
            Some("uuid") => EventType::Uuid,
            name => EventType::Text(name.unwrap_or(type_sql).to_owned()),
        }
    }
}
