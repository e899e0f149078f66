//! The columns of a journal, as it declares them.

use std::borrow::Cow;

use crate::db::catalog::Column;
use crate::db::quote;
use crate::table::Target;

/// A column as a journal declares it: always nullable, since a row that did not exist has no values.
pub(super) struct Declared<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) type_sql: Cow<'a, str>,
    collation: Option<&'a str>,
}

pub(super) fn declared_values(target: &Target) -> Vec<Declared<'_>> {
    target.table.stored().map(|column| Declared::of(target.table.column(column))).collect()
}

/// The columns for keys of rows that did not exist.
pub(super) fn declared_packed(target: &Target) -> Vec<Declared<'_>> {
    let column = |place: usize| target.table.column(target.table.key[place]);
    target.packed_key().into_iter().map(|(name, place)| Declared::packed(name, column(place))).collect()
}

impl<'a> Declared<'a> {
    pub(super) fn of(column: &'a Column) -> Declared<'a> {
        Declared {
            name: (&column.name).into(),
            type_sql: (&column.type_sql).into(),
            collation: column.collation.as_deref(),
        }
    }

    /// An array of a key column's values.
    pub(super) fn packed(name: String, column: &'a Column) -> Declared<'a> {
        let type_sql = format!("{}[]", column.type_sql);
        Declared { name: name.into(), type_sql: type_sql.into(), collation: column.collation.as_deref() }
    }

    /// Which columns an image holds, by their slots; null says all.
    pub(super) fn held() -> Declared<'static> {
        Declared { name: "undo_held".into(), type_sql: "pg_catalog.bytea".into(), collation: None }
    }

    pub(super) fn is(&self, held: &Column) -> bool {
        self.name == held.name && self.has_type_of(held)
    }

    pub(super) fn has_type_of(&self, held: &Column) -> bool {
        self.type_sql == held.type_sql && self.collation == held.collation.as_deref()
    }

    pub(super) fn type_and_collation(&self) -> String {
        let collate = self.collation.map(|name| format!(" collate {name}")).unwrap_or_default();
        format!("{}{collate}", self.type_sql)
    }

    pub(super) fn sql(&self) -> String {
        format!("{} {}", quote(&self.name), self.type_and_collation())
    }
}

/// Keys are too varied for PostgreSQL to gain by compressing them.
pub(super) fn store_as_they_are<'a>(
    table: &str,
    packed: impl IntoIterator<Item = &'a Declared<'a>>,
) -> String {
    let each = packed.into_iter().map(|column| {
        format!(";\nalter table {table} alter column {} set storage external", quote(&column.name))
    });
    each.collect()
}
