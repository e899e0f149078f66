//! Row changes: what a transform says about the rows of its tables, and the net effect of a block's worth of
//! them.
//!
//! Knows nothing of PostgreSQL's catalog and nothing of WebAssembly: values are kept as the transform wrote
//! them, digit by digit, and given their column's type by `apply`.

/// What happens to one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table's name, exactly as in the catalog, without a schema.
    pub table: Box<str>,
    pub operation: Operation,
    /// What the message says the row's key is; used for key columns that `columns` lacks.
    pub key: Option<Value>,
    /// The row's values in the order given: what to set for an upsert, what is known of the row for a delete.
    /// A column occurs once at most.
    pub columns: Vec<(Box<str>, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `create` and `update`: the row has these values afterwards, whether it existed or not.
    Upsert,
    Delete,
}

/// A value as the transform wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    Null,
    Bool(bool),
    /// A number with every digit that was written.
    Number(Box<str>),
    /// A string, unescaped.
    Text(Box<str>),
    /// An array or object, as its JSON text.
    Json(Box<str>),
}
