//! A table as replication sees it: what the catalog says of it, where its journal is, and how its rows are
//! put back. Decides which tables cannot be journaled, and in which order tables are written.
//!
//! Pure: facts in, decisions out. The SQL itself is in `sql`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::change::fold::Key;
use crate::db::catalog::{Column, Shape, Table};
use crate::db::quote;

/// Journal columns that hold no value of the table's.
const JOURNAL_COLUMNS: [&str; 2] = ["undo_height", "undo_existed"];
/// More of them: arrays of keys, numbered from 1 on.
pub(super) const PACKED_COLUMN: &str = "undo_absent_";

/// Whether a journal's column of that name holds no values of a column of the table's.
pub(super) fn is_journals_own(name: &str) -> bool {
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
    /// The journal, for SQL.
    pub journal: String,
    /// How each key column's values are brought to one form.
    pub key_forms: Vec<KeyForm>,
    pub restore: Restore,
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

/// How a rollback puts rows back, and whether a block's deletes go before or after its upserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// Rows are overwritten where they are, and those that did not exist are deleted last: foreign keys hold
    /// all the time.
    InPlace,
    /// Rows are deleted first and inserted again: no two rows ever hold the same unique value.
    Afresh,
}

impl Target {
    /// The table with its journal, or every reason why it cannot be replicated.
    pub fn new(table: Table, schema: &str, journal: &str) -> Result<Target, Vec<String>> {
        let refusals = refusals(&table);
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let key_forms: Vec<KeyForm> =
            table.key.iter().map(|column| key_form(&table.columns[*column])).collect();
        let identity_beside_key = (0..table.columns.len())
            .any(|column| table.columns[column].identity_always && !table.key.contains(&column));
        let afresh = table.immediate_unique.is_some()
            || table.key_deferrable
            || identity_beside_key
            // Overwriting a row leaves its key spelled as it was; equal is not identical for these types.
            || key_forms.contains(&KeyForm::Compared);
        Ok(Target {
            journal: format!("{}.{}", quote(schema), quote(journal)),
            key_forms,
            restore: if afresh { Restore::Afresh } else { Restore::InPlace },
            table,
        })
    }

    /// Whether the primary key can be the arbiter of `on conflict`.
    pub fn has_arbiter(&self) -> bool {
        !self.table.key_deferrable
    }

    /// Whether a block's rows may be written in any order: nothing is unique but the key, no trigger fires, and no
    /// default counts up.
    pub fn is_order_free(&self) -> bool {
        self.restore == Restore::InPlace
            && self.table.triggers.is_empty()
            && self.table.columns.iter().all(|column| column.volatile_default.is_none())
    }

    /// An order of keys, roughly that of the key's index: numbers of fewer digits first, texts by their bytes.
    pub(super) fn order(&self, a: &Key, b: &Key) -> Ordering {
        let by_column = self.key_forms.iter().zip(a.iter().zip(b)).map(|(form, (a, b))| match form {
            KeyForm::Integer { .. } => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            KeyForm::Text { .. } | KeyForm::Bytes | KeyForm::Compared => a.cmp(b),
        });
        by_column.fold(Ordering::Equal, Ordering::then)
    }

    /// The journal's columns for keys of rows that did not exist, an array each, and which of the key's columns each
    /// holds. They go by the order of the table's columns, which neither a renaming nor another order in the key
    /// changes. Empty if there can be no such arrays: an array cannot be the element of one.
    pub(super) fn packed_key(&self) -> Vec<(String, usize)> {
        if (0..self.table.key.len()).any(|place| self.is_array(place)) {
            return Vec::new();
        }
        let mut places: Vec<usize> = (0..self.table.key.len()).collect();
        places.sort_unstable_by_key(|place| self.table.key[*place]);
        (1..).map(|number| format!("{PACKED_COLUMN}{number}")).zip(places).collect()
    }

    /// Whether this one of the key's columns holds arrays.
    pub(super) fn is_array(&self, place: usize) -> bool {
        matches!(self.table.columns[self.table.key[place]].shape, Shape::Array { .. })
    }

    /// Columns of ours that are not part of the key, by position.
    pub fn values(&self) -> impl Iterator<Item = usize> + '_ {
        self.table.stored().filter(|column| !self.table.key.contains(column))
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

fn refusals(table: &Table) -> Vec<String> {
    let mut reasons = Vec::new();
    if table.key.is_empty() {
        reasons.push("it has no primary key, so its rows cannot be told apart; add one".to_owned());
    }
    if table.key.iter().any(|column| table.columns[*column].generated) {
        reasons.push(
            "its primary key has a generated column, whose value is not known before the row exists".into(),
        );
    }
    if table.unlogged {
        reasons.push("it is unlogged: a crash of the server empties it; `alter table … set logged`".into());
    }
    if table.inherits {
        reasons.push("it takes part in table inheritance; use partitions instead".into());
    }
    if table.has_rules {
        reasons
            .push("it has rewrite rules, which change statements behind debshrew's back; drop them".into());
    }
    if table.row_security {
        reasons
            .push("row level security hides rows from debshrew's role; exempt the role (`bypassrls`)".into());
    }
    for Column { name, .. } in table.columns.iter().filter(|column| is_journals_own(&column.name)) {
        reasons.push(format!("its column `{name}` has a name that the journal needs; rename it"));
    }
    if [STATE_TABLE, STATE_JOURNAL].contains(&table.name.as_str()) && !table.schema.starts_with("debshrew_") {
        reasons.push("its name is one that debshrew uses beside the journals; rename it".into());
    }
    reasons
}

/// What relations between tables make impossible: for each table, the reasons.
pub fn relation_refusals(targets: &[Target]) -> Vec<(String, String)> {
    let by_oid: BTreeMap<u32, &Target> = targets.iter().map(|target| (target.table.oid, target)).collect();
    let mut reasons = Vec::new();
    for target in targets {
        let name = &target.table.name;
        for key in &target.table.foreign_keys {
            // Whoever writes the table that is referenced.
            if let Some(action) = &key.action {
                reasons.push((name.clone(), format!(
                    "its foreign key `{}` says `{action}`: PostgreSQL would change rows that the journal does not \
                     see; use `no action`, and delete or change the rows in the transform",
                    key.name
                )));
            }
            let Some(parent) = by_oid.get(&key.references) else { continue };
            if parent.restore == Restore::Afresh && !key.deferrable {
                reasons.push((name.clone(), format!(
                    "its foreign key `{}` is not deferrable, and `{}` must be rolled back by deleting and inserting \
                     rows ({}); `alter table … alter constraint {} deferrable`",
                    key.name,
                    parent.table.name,
                    why_afresh(parent),
                    key.name
                )));
            }
        }
        for trigger in &target.table.triggers {
            if let Some(other) = targets.iter().find(|other| {
                other.table.oid != target.table.oid && writes_to(&trigger.function_source, &other.table.name)
            }) {
                reasons.push((name.clone(), format!(
                    "its trigger `{}` seems to write to `{}`, which is replicated too: the journal would not see it; \
                     emit those changes from the transform",
                    trigger.name, other.table.name
                )));
            }
        }
    }
    reasons
}

fn why_afresh(target: &Target) -> String {
    match &target.table.immediate_unique {
        Some(index) => format!("unique `{index}` is checked row by row"),
        None if target.table.key_deferrable => "its primary key is deferrable".into(),
        None => {
            "its key's equality is not identity, or it has an identity column that is always generated".into()
        }
    }
}

/// Whether a trigger function's text has a writing statement that names the table.
fn writes_to(source: &str, table: &str) -> bool {
    let lower = source.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .filter(|word| !word.is_empty())
        .collect();
    let table = table.to_lowercase();
    words.iter().enumerate().any(|(index, word)| {
        *word == table
            && words[index.saturating_sub(4)..index]
                .iter()
                .any(|before| ["into", "update", "from", "truncate"].contains(before))
            && words.iter().any(|word| ["insert", "update", "delete", "truncate", "merge"].contains(word))
    })
}

/// What works, but could work better: said by `check`.
pub fn advice(target: &Target) -> Vec<String> {
    let table = &target.table;
    let mut advice = Vec::new();
    for key in table.foreign_keys.iter().filter(|key| !key.deferrable) {
        advice.push(format!(
            "foreign key `{}` is checked statement by statement; declared `deferrable`, it is checked once a block",
            key.name
        ));
    }
    if let Some(index) = &table.immediate_unique {
        advice.push(format!(
            "unique `{index}` is checked row by row, so two rows cannot swap its values within a block; as a \
             `deferrable` constraint it is checked once a block"
        ));
    }
    for column in table.columns.iter() {
        if let Some(default) = &column.volatile_default {
            advice.push(format!(
                "column `{}` has a default that differs from time to time ({default}): where the transform leaves it \
                 out, a block that is processed again after a reorg gets another value",
                column.name
            ));
        }
    }
    for trigger in &table.triggers {
        advice.push(format!(
            "trigger `{}` runs for debshrew's changes and rollbacks as well; it must not write to replicated tables",
            trigger.name
        ));
    }
    advice
}

/// Positions of the targets with referenced tables before those that reference them; by name where foreign
/// keys do not say, or say it in a circle.
pub fn parents_first(targets: &[Target]) -> Vec<usize> {
    let position: BTreeMap<u32, usize> =
        targets.iter().enumerate().map(|(index, target)| (target.table.oid, index)).collect();
    let mut order = Vec::with_capacity(targets.len());
    let mut seen = vec![false; targets.len()];
    // Depth first with a stack of its own: (table, its parents still to visit).
    for start in 0..targets.len() {
        let mut stack = vec![(start, parents(&targets[start], &position))];
        while let Some((table, waiting)) = stack.last_mut() {
            let table = *table;
            if !seen[table] {
                if let Some(parent) = waiting.pop() {
                    let on_stack = stack.iter().any(|(other, _)| *other == parent);
                    if !seen[parent] && !on_stack {
                        stack.push((parent, parents(&targets[parent], &position)));
                    }
                    continue;
                }
                seen[table] = true;
                order.push(table);
            }
            stack.pop();
        }
    }
    order
}

fn parents(target: &Target, position: &BTreeMap<u32, usize>) -> Vec<usize> {
    target.table.foreign_keys.iter().filter_map(|key| position.get(&key.references).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_that_writes_elsewhere_is_noticed() {
        assert!(writes_to("begin insert into ledger.totals values (1); return new; end", "totals"));
        assert!(writes_to("begin UPDATE Totals set a = 1; return new; end", "totals"));
        assert!(!writes_to("begin select a into b from totals; return new; end", "totals"));
        assert!(!writes_to("begin new.changed_at = now(); return new; end", "totals"));
    }
}
