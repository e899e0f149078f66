//! Row changes: what a transform says about the rows of its tables, and the net effect of a block's worth of
//! them.
//!
//! Knows nothing of PostgreSQL's catalog and nothing of WebAssembly: values are kept as the transform wrote
//! them, digit by digit, and given their column's type by `table`.

pub mod binary;
pub mod decode;
mod layout;

use std::sync::Arc;

use serde_json::value::RawValue;

pub use layout::{Layout, Recent};

/// What happens to one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub layout: Arc<Layout>,
    pub operation: Operation,
    /// What the message says the row's key is; used for key columns that the layout lacks.
    pub key: Option<Value>,
    /// A value for each of the layout's columns: what to set for an upsert, what is known of the row for a delete.
    pub values: Vec<Value>,
}

impl Change {
    /// A change with a layout of its own.
    pub fn new<N: Into<Box<str>>>(
        table: &str,
        operation: Operation,
        key: Option<Value>,
        columns: Vec<(N, Value)>,
    ) -> Change {
        let (names, values): (Vec<Box<str>>, Vec<Value>) =
            columns.into_iter().map(|(name, value)| (name.into(), value)).unzip();
        let layout = Layout { table: table.into(), columns: names.into() };
        Change { layout: Arc::new(layout), operation, key, values }
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.layout.table
    }

    /// What `limits.output_bytes` counts for it beside its own bytes: a null is one byte for the guest, but not for
    /// whoever keeps it.
    pub fn cost(&self) -> usize {
        const A_CHANGE: usize = 64;
        const A_VALUE: usize = 16;
        A_CHANGE + self.values.len() * A_VALUE
    }

    /// The names of the columns, with the row's values.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.layout.columns.iter().map(|name| &**name).zip(&self.values)
    }
}

/// How much was decoded, for whoever charges for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub changes: u64,
    /// Names that were looked at.
    pub columns: u64,
    pub values: u64,
    /// Values of bytes of their own.
    pub texts: u64,
    pub floats: u64,
    pub json_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `create` and `update`: the row has these values afterwards, whether it existed or not.
    Upsert,
    Delete,
}

/// A value as the transform wrote it. JSON has no bytes, and its integers stay numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number with every digit that was written.
    Number(Box<str>),
    /// A string, unescaped.
    Text(Box<str>),
    Bytes(Box<[u8]>),
    /// An array or object, as its JSON text.
    Json(Box<str>),
}

impl Value {
    /// A value of a JSON document that has been read already.
    pub fn from_raw(raw: &RawValue) -> Value {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'n') => Value::Null,
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            // A string that passed as JSON reads as one, unless it escapes half of a surrogate pair; that is
            // kept as it was written, for PostgreSQL to refuse.
            Some(b'"') => match serde_json::from_str::<Box<str>>(text) {
                Ok(string) => Value::Text(string),
                Err(_) => Value::Json(text.into()),
            },
            Some(b'[' | b'{') => Value::Json(text.into()),
            _ => Value::Number(text.into()),
        }
    }
}
