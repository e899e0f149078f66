//! Which tables can be replicated, and which could be better declared.
//!
//! Pure: the catalog's facts in, decisions and reasons out. A check that is to be added goes here.

use std::collections::BTreeMap;

use super::target::{Restore, Role, STATE_JOURNAL, STATE_TABLE, Target, is_journals_own};
use super::trigger::keeps_to_row;
use crate::db::catalog::{Column, Table};
use crate::db::quote;

/// PostgreSQL's tables have 1,600 columns at most, and a journal has more of them than its table.
const MAX_COLUMNS: usize = 1_590;

/// Why a table cannot be replicated.
pub struct Refusal {
    pub reasons: Vec<String>,
    /// What is in the way can be taken back without harm to the table's rows.
    pub passing: bool,
}

/// The table with its journal, or every reason why it cannot be replicated.
pub fn replicable(table: Table, role: Role, journal_schema: &str, journal: &str) -> Result<Target, Refusal> {
    let lasting = refusals(&table, role);
    let passing = passing_refusals(&table);
    if lasting.is_empty() && passing.is_empty() {
        return Ok(Target::new(table, role, journal_schema, journal));
    }
    let is_passing = lasting.is_empty();
    Err(Refusal { reasons: lasting.into_iter().chain(passing).collect(), passing: is_passing })
}

fn refusals(table: &Table, role: Role) -> Vec<String> {
    let mut reasons = Vec::new();
    if table.key.is_empty() {
        reasons.push("it has no primary key, so its rows cannot be told apart; add one".to_owned());
    }
    if table.key.iter().any(|column| table.column(*column).generated) {
        reasons.push(
            "its primary key has a generated column, whose value is not known before the row exists".into(),
        );
    }
    if table.key_temporal {
        reasons.push(
            "its primary key is over periods (`without overlaps`): a delete by key takes out rows of other periods; \
             use a key of plain values"
                .into(),
        );
    }
    if table.columns.len() + table.key.len() > MAX_COLUMNS {
        reasons.push(format!(
            "it has {} columns, and a journal can follow {MAX_COLUMNS} at most, those of the key counted twice",
            table.columns.len()
        ));
    }
    if table.unlogged {
        reasons.push(format!(
            "it is unlogged: a crash of the server empties it; `alter table {} set logged`",
            table.sql()
        ));
    }
    if let Some(owner) = &table.foreign_owner {
        reasons.push(format!(
            "it, or a partition of it, belongs to role `{owner}`, whose triggers and defaults would run with debshrew's \
             rights; look at it, then `alter table {} owner to` debshrew's role",
            table.sql()
        ));
    }
    if table.inherits {
        reasons.push("it takes part in table inheritance; use partitions instead".into());
    }
    if table.row_security {
        reasons
            .push("row level security hides rows from debshrew's role; exempt the role (`bypassrls`)".into());
    }
    for Column { name, .. } in table.columns.iter().filter(|column| is_journals_own(&column.name)) {
        reasons.push(format!("its column `{name}` has a name that the journal needs; rename it"));
    }
    if role == Role::Rows && [STATE_TABLE, STATE_JOURNAL].contains(&table.name.as_str()) {
        reasons.push("its name is one that debshrew uses beside the journals; rename it".into());
    }
    reasons
}

/// Reasons that stand beside the table: references, rules and triggers.
fn passing_refusals(table: &Table) -> Vec<String> {
    let mut reasons = trigger_refusals(table);
    if table.has_rules {
        reasons
            .push("it has rewrite rules, which change statements behind debshrew's back; drop them".into());
    }
    reasons.extend(table.referenced_by.iter().map(|outside| {
        format!(
            "table {} outside the pipeline references it (`{}`): a rollback could not take rows out, or would take \
             that table's rows along; `alter table {} drop constraint {}`",
            outside.table,
            outside.name,
            outside.table,
            quote(&outside.name)
        )
    }));
    reasons
}

/// Triggers that make another row of the one that is written.
fn trigger_refusals(table: &Table) -> Vec<String> {
    let mut reasons = Vec::new();
    for trigger in table.triggers.iter().filter(|trigger| trigger.before) {
        let name = &trigger.name;
        if trigger.function_name == "suppress_redundant_updates_trigger" {
            reasons.push(format!(
                "its trigger `{name}` keeps updates out (`suppress_redundant_updates_trigger`), and debshrew counts the \
                 rows that it writes; drop the trigger"
            ));
        }
        for key in &table.key {
            let column = &table.column(*key).name;
            if assigns(&trigger.function_source, column) {
                reasons.push(format!(
                    "its trigger `{name}` seems to rewrite the key column `{column}`: the transform would not find the \
                     row again; emit the key as it is to be stored"
                ));
            }
        }
    }
    reasons
}

/// Whether a trigger function's text gives the new row's column a value.
fn assigns(source: &str, column: &str) -> bool {
    // White space makes no difference around a dot.
    let words: Vec<&str> = source.split_whitespace().collect();
    let lower = words.join(" ").replace(" .", ".").replace(". ", ".").to_lowercase();
    let column = column.to_lowercase();
    let names = [format!("new.{column}"), format!("new.\"{column}\"")];
    names.iter().any(|name| {
        lower.match_indices(name.as_str()).any(|(at, _)| {
            let before = lower[..at].trim_end();
            let after = lower[at + name.len()..].trim_start();
            let begins = before.is_empty() || before.ends_with(';') || {
                let word = before.rsplit(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
                ["begin", "then", "else", "loop", "into"].contains(&word)
            };
            begins && (after.starts_with(":=") || after.starts_with('=') || before.ends_with("into"))
        })
    })
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
                     rows ({}); `alter table {} alter constraint {} deferrable`, and `no action` where it says `restrict`",
                    key.name,
                    parent.table.name,
                    why_afresh(parent),
                    target.table.sql(),
                    quote(&key.name)
                )));
            }
        }
        for trigger in &target.table.triggers {
            let written = |other: &&Target| writes_to(&trigger.function_source, &other.table.name);
            if let Some(other) = targets.iter().find(written) {
                reasons.push((name.clone(), format!(
                    "its trigger `{}` seems to write to `{}`, which is replicated too: the journal would not see it; \
                     emit those changes from the transform or, if blocks do not write to that table (a log of changes, an audit), \
                     keep it in another schema: `alter table {} set schema …`",
                    trigger.name, other.table.name, other.table.sql()
                )));
            }
        }
    }
    reasons
}

/// A foreign key, and the table that has it.
pub struct Reference {
    /// The table's number, and its name for SQL.
    pub from: (u32, String),
    pub to: u32,
    pub name: String,
}

/// Takes out the tables that a table references which is not replicated: a rollback would take its rows along, or be stopped
/// by them. Returns each one's name with the reason. A table that goes may have referenced another one.
pub fn take_out_referenced(targets: &mut Vec<Target>, references: &[Reference]) -> Vec<(String, String)> {
    let mut reasons = Vec::new();
    loop {
        let replicated: Vec<u32> = targets.iter().map(|target| target.table.oid).collect();
        let found =
            references.iter().find(|key| replicated.contains(&key.to) && !replicated.contains(&key.from.0));
        let Some(key) = found else { return reasons };
        targets.retain(|target| {
            if target.table.oid == key.to {
                let reason = format!(
                    "table {0}, which is not replicated, references it (`{1}`): a rollback could not take rows out, or \
                     would take that table's rows along; if it is to be replicated, mend what is said of it, otherwise \
                     `alter table {0} drop constraint {2}`",
                    key.from.1,
                    key.name,
                    quote(&key.name)
                );
                reasons.push((target.table.name.clone(), reason));
            }
            target.table.oid != key.to
        });
    }
}

fn why_afresh(target: &Target) -> String {
    match &target.table.immediate_unique {
        Some(index) => format!("unique `{index}` is checked row by row"),
        None => "it has an identity column that is always generated".into(),
    }
}

/// Whether a trigger function's text has a writing statement that names the table, with or without its schema.
fn writes_to(source: &str, table: &str) -> bool {
    const WRITING: [&[&str]; 5] =
        [&["insert", "into"], &["merge", "into"], &["delete", "from"], &["update"], &["truncate"]];
    let lower = source.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .filter(|word| !word.is_empty())
        .collect();
    let table = table.to_lowercase();
    let writes = |mut before: &[&str]| {
        while let [rest @ .., "only" | "table"] = before {
            before = rest;
        }
        WRITING.iter().any(|words| before.ends_with(words))
    };
    words
        .iter()
        .enumerate()
        .filter(|(_, word)| **word == table)
        .any(|(index, _)| writes(&words[..index]) || writes(&words[..index.saturating_sub(1)]))
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
    for key in table.foreign_keys.iter().filter(|key| !key.indexed) {
        let columns: Vec<String> = key.columns.iter().map(|column| quote(column)).collect();
        advice.push(format!(
            "foreign key `{}` has no index on its columns, so a row that it references is deleted, in a block or a \
             rollback, by reading all of this table: `create index on {} ({})`",
            key.name,
            table.sql(),
            columns.join(", ")
        ));
    }
    if let Some(index) = &table.immediate_unique {
        let instead = match table.immediate_unique_special {
            false => "as a `deferrable` constraint it is checked once a block",
            // An index of that kind cannot be a `unique` constraint.
            true => {
                "over expressions or on some rows no `unique` constraint can be; `exclude using btree (… with =) where \
                 (…) deferrable` in its place is checked once a block"
            }
        };
        advice.push(format!(
            "unique `{index}` is checked row by row, so two rows cannot swap its values within a block; {instead}"
        ));
    }
    for column in table.columns.iter() {
        if let Some(default) = &column.varying_default {
            advice.push(format!(
                "column `{}` has a default that may differ from time to time ({default}): where the transform leaves it \
                 out, a block that is processed again after a reorg gets another value",
                column.name
            ));
        }
    }
    for trigger in table.triggers.iter().filter(|trigger| !keeps_to_row(trigger)) {
        advice.push(format!(
            "trigger `{}` may look at, or write, more than its row: blocks are applied one change after the other, which \
             is slower, and what it writes elsewhere is not taken back by a rollback",
            trigger.name
        ));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_that_rewrites_the_key_is_noticed() {
        assert!(assigns("begin new.id := lower(new.id); return new; end", "id"));
        assert!(assigns("begin\n  NEW.id = lower(new.id); return new; end", "id"));
        assert!(assigns("begin NEW . id = old.id; return new; end", "id"));
        assert!(assigns("begin if true then new.\"Id\" := 1; end if; return new; end", "Id"));
        assert!(assigns("begin select lower(new.id) into new.id; return new; end", "id"));
        assert!(!assigns("begin if new.id = 1 then new.x := 2; end if; return new; end", "id"));
        assert!(!assigns("begin new.idle := 1; return new; end", "id"));
    }

    #[test]
    fn a_trigger_that_writes_elsewhere_is_noticed() {
        assert!(writes_to("begin insert into ledger.totals values (1); return new; end", "totals"));
        assert!(writes_to("begin UPDATE Totals set a = 1; return new; end", "totals"));
        assert!(!writes_to("begin select a into b from totals; return new; end", "totals"));
        assert!(!writes_to("begin new.changed_at = now(); return new; end", "totals"));
    }
}
