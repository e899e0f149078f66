//! A table as replication sees it: what the catalog says of it, where its journal is, and how its rows are
//! put back; and the pieces of SQL that all statements on it are made of.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::trigger::keeps_to_row;
use super::{Key, excerpt};
use crate::db::catalog::{Column, ColumnId, Dependence, Shape, Table};
use crate::db::quote;

/// Journal columns that hold no value of the table's.
const JOURNAL_COLUMNS: [&str; 6] =
    ["undo_height", "undo_existed", "undo_held", "undo_present", "undo_whole", "undo_at"];
/// More of them: arrays of keys, numbered from 1 on.
pub const PACKED_COLUMN: &str = "undo_absent_";

/// Whether a journal's column of that name holds no values of a column of the table's.
pub fn is_journals_own(name: &str) -> bool {
    JOURNAL_COLUMNS.contains(&name) || name.starts_with(PACKED_COLUMN)
}

/// The transform's state, replicated like any table, beside the journals in the pipeline's journal schema.
pub const STATE_TABLE: &str = "debshrew_state";
/// The state's journal. Other journals bear their table's name, which may therefore be neither of the two.
pub const STATE_JOURNAL: &str = "debshrew_state_journal";

/// The schema that holds a pipeline's journals and state.
pub fn journal_schema(pipeline: &str) -> String {
    format!("debshrew_{pipeline}")
}

/// A table that can be written, journaled and rolled back.
#[derive(Clone, Debug)]
pub struct Target {
    pub table: Table,
    pub role: Role,
    /// The journal, for SQL.
    pub journal: String,
    /// How each key column's values are brought to one form.
    pub key_forms: Vec<KeyForm>,
    pub restore: Restore,
    /// By position: each column's bit in the journal's `undo_held`.
    pub slots: Vec<u16>,
    by_name: HashMap<Box<str>, ColumnId>,
    has_looking_trigger: bool,
}

/// Whose rows a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The user's: what the transform's changes are about.
    Rows,
    /// The transform's own state.
    State,
}

/// When two texts mean the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// A whole number between these bounds.
    Integer { least: i64, most: i64 },
    /// Equal texts, `max_chars` long at most.
    Text { max_chars: Option<usize> },
    /// `bytea`: equal bytes, whatever notation they come in.
    Bytes,
    /// Only PostgreSQL can tell, by the type's own equality.
    Compared,
}

/// How a rollback puts rows back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// Rows are overwritten where they are, and those that did not exist are deleted last: foreign keys hold
    /// all the time.
    InPlace,
    /// Rows are deleted first and inserted again: no two rows ever hold the same unique value.
    Afresh,
}

impl Target {
    /// A table that is fit, with its journal in the journals' schema.
    pub(super) fn new(table: Table, role: Role, schema: &str, journal: &str) -> Target {
        let key_forms: Vec<KeyForm> =
            table.key.iter().map(|column| key_form(table.column(*column))).collect();
        let mut columns = (0..table.columns.len()).map(ColumnId::new);
        let identity_beside_key =
            columns.any(|column| table.column(column).identity_always && !table.key.contains(&column));
        let ids = (0..).map(ColumnId::new);
        let by_name = table.columns.iter().zip(ids).map(|(column, id)| (column.name.as_str().into(), id));
        let afresh = table.immediate_unique.is_some() || identity_beside_key;
        Target {
            journal: format!("{}.{}", quote(schema), quote(journal)),
            role,
            key_forms,
            restore: if afresh { Restore::Afresh } else { Restore::InPlace },
            slots: (0..).take(table.columns.len()).collect(),
            by_name: by_name.collect(),
            has_looking_trigger: table.triggers.iter().any(|trigger| !keeps_to_row(trigger)),
            table,
        }
    }

    /// The column of that name.
    pub fn find(&self, name: &str) -> Option<ColumnId> {
        self.by_name.get(name).copied()
    }

    /// Whether the primary key can be the arbiter of `on conflict`.
    pub fn has_arbiter(&self) -> bool {
        !self.table.key_deferrable
    }

    /// Whether a block's deletes go before its upserts, so that others may take the rows' unique values; otherwise they
    /// go last, so that whatever referenced a row has let go of it before.
    pub fn deletes_first(&self) -> bool {
        self.table.immediate_unique.is_some()
    }

    /// Whether triggers fire for its rows.
    pub fn has_triggers(&self) -> bool {
        !self.table.triggers.is_empty()
    }

    /// Columns beside the key whose defaults depend on what other changes of a block do.
    pub fn dependent_defaults(&self) -> impl Iterator<Item = (ColumnId, &Dependence)> {
        let columns = self.table.columns.iter().enumerate();
        let all = columns.map(|(position, column)| (ColumnId::new(position), &column.default_dependence));
        all.filter(|(id, depends)| **depends != Dependence::Nothing && !self.table.key.contains(id))
    }

    /// Whether a trigger may look at more than the row that it fires for, or do more than change it.
    pub fn has_looking_trigger(&self) -> bool {
        self.has_looking_trigger
    }

    /// Whether a block's rows may be written in any order: nothing is unique but the key, no trigger fires, and no
    /// default depends on the order.
    pub fn is_order_free(&self) -> bool {
        self.table.immediate_unique.is_none()
            && !self.has_triggers()
            && self.dependent_defaults().next().is_none()
    }

    /// An order of keys, roughly that of the key's index: numbers of fewer digits first, texts by their bytes.
    pub fn order(&self, a: &Key, b: &Key) -> Ordering {
        let by_column = self.key_forms.iter().zip(a.iter().zip(b)).map(|(form, (a, b))| match form {
            KeyForm::Integer { .. } => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            KeyForm::Text { .. } | KeyForm::Bytes | KeyForm::Compared => a.cmp(b),
        });
        by_column.fold(Ordering::Equal, Ordering::then)
    }

    /// The journal's columns for keys of rows that did not exist, an array each, and which of the key's columns each
    /// holds. They go by the order of the table's columns, which neither a renaming nor another order in the key
    /// changes. Empty if there can be no such arrays: an array cannot be the element of one.
    pub fn packed_key(&self) -> Vec<(String, usize)> {
        if (0..self.table.key.len()).any(|place| self.is_array(place)) {
            return Vec::new();
        }
        let mut places: Vec<usize> = (0..self.table.key.len()).collect();
        places.sort_unstable_by_key(|place| self.table.key[*place]);
        (1..).map(|number| format!("{PACKED_COLUMN}{number}")).zip(places).collect()
    }

    /// Whether this one of the key's columns holds arrays.
    pub fn is_array(&self, place: usize) -> bool {
        matches!(self.table.column(self.table.key[place]).shape, Shape::Array { .. })
    }

    /// Whether equal values of this one of the key's columns may be spelled in several ways.
    pub fn is_compared(&self, place: usize) -> bool {
        self.key_forms[place] == KeyForm::Compared
    }

    /// The stored columns that are not part of the key.
    pub fn values(&self) -> impl Iterator<Item = ColumnId> + '_ {
        self.table.stored().filter(|column| !self.table.key.contains(column))
    }

    /// What a journal's `undo_held` says of images of these columns; `None` if they are all of them.
    pub fn held(&self, columns: &[ColumnId]) -> Option<Vec<u8>> {
        if self.table.stored().all(|column| columns.contains(&column)) {
            return None;
        }
        let mut bits = Vec::new();
        for column in columns {
            let slot = usize::from(self.slots[column.position()]);
            if bits.len() <= slot / 8 {
                bits.resize(slot / 8 + 1, 0);
            }
            bits[slot / 8] |= 1 << (slot % 8);
        }
        Some(bits)
    }

    /// A column's name, for SQL.
    pub fn name(&self, column: ColumnId) -> String {
        quote(&self.table.column(column).name)
    }

    /// The key's columns, for SQL.
    pub fn key_names(&self) -> String {
        join(self.table.key.iter().map(|column| self.name(*column)))
    }

    /// A row by its key, for messages; what is not known of it is left out.
    pub fn row_name(&self, key: &[Option<String>]) -> String {
        let columns = self.table.key.iter().zip(key).map(|(column, text)| {
            let text = text.as_ref()?;
            Some(format!("`{}` = `{}`", self.table.column(*column).name, excerpt(text)))
        });
        join(columns.flatten())
    }

    /// The rows of two names have the same key.
    pub fn same_keys(&self, one: &str, other: &str) -> String {
        let parts = self.table.key.iter().map(|column| {
            let equals = self.table.column(*column).equals.as_deref().unwrap_or("operator(pg_catalog.=)");
            let name = self.name(*column);
            format!("{one}.{name} {equals} {other}.{name}")
        });
        parts.collect::<Vec<_>>().join(" and ")
    }

    /// Whether an image of the journal holds a column: [`Target::held`] in SQL.
    pub fn is_held(&self, slot: u16) -> String {
        format!(
            "case when undo_held is null then true when pg_catalog.octet_length(undo_held) * 8 > {slot} \
             then pg_catalog.get_bit(undo_held, {slot}) = 1 else false end"
        )
    }

    /// Finds in `t` the row with a key: `t.key = any (array[…]) and …`, with the operators of the key's index.
    ///
    /// A plain `=` could be joined in any way. While a table is small that would be by going through all of it, and in
    /// an order of the plan's; and the plan stays when the table has grown. With `any` each row is looked up in the key's
    /// index, one after the other. Of arrays there are no arrays; two bounds come to the same.
    pub fn lookup(&self, key: impl Fn(usize) -> String) -> String {
        self.matches(|place, column, equals| {
            let key = key(place);
            match self.is_array(place) {
                false => format!("{column} {equals} any (array[{key}])"),
                true => format!(
                    "{column} operator(pg_catalog.>=) {key} and {column} operator(pg_catalog.<=) {key}"
                ),
            }
        })
    }

    /// What `same` says of each of the key's columns, all of it to hold: its place in the key, itself in `t`, and the
    /// operator of the key's index.
    pub fn matches(&self, same: impl Fn(usize, &str, &str) -> String) -> String {
        let parts = self.table.key.iter().enumerate().map(|(place, column)| {
            let found = self.table.column(*column);
            let equals = found.equals.as_deref().unwrap_or("operator(pg_catalog.=)");
            same(place, &format!("t.{}", quote(&found.name)), equals)
        });
        parts.collect::<Vec<String>>().join(" and ")
    }
}

fn key_form(column: &Column) -> KeyForm {
    const VARCHAR: u32 = 1043;
    let plain = !column.constrained && !column.loose_collation;
    match column.type_oid {
        21 if plain => KeyForm::Integer { least: i16::MIN.into(), most: i16::MAX.into() },
        23 if plain => KeyForm::Integer { least: i32::MIN.into(), most: i32::MAX.into() },
        20 if plain => KeyForm::Integer { least: i64::MIN, most: i64::MAX },
        17 if plain => KeyForm::Bytes,
        25 | VARCHAR if plain => KeyForm::Text { max_chars: None },
        VARCHAR if column.max_chars.is_some() && !column.loose_collation => {
            KeyForm::Text { max_chars: column.max_chars }
        }
        _ => KeyForm::Compared,
    }
}

/// A bound text, the column `c{index}` of `u`, as the column's type.
pub fn cast(column: &Column, index: usize) -> String {
    let collate = column.collation.as_ref().map(|name| format!(" collate {name}")).unwrap_or_default();
    match column.type_oid {
        25 => format!("u.c{index}{collate}"),
        _ => format!("u.c{index}::{}{collate}", column.type_sql),
    }
}

pub fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
