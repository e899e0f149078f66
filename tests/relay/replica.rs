//! A consumer that knows nothing but the events.

use std::collections::{BTreeMap, BTreeSet};

use debshrew::relay::{Step, StepKind};
use debshrew::undo::{Event, Row};

/// Values by column, for comparing.
pub type Values = Vec<Option<String>>;

/// Rows by table and key.
#[derive(Clone, Default)]
pub struct Replica {
    rows: BTreeMap<String, BTreeMap<Values, Values>>,
    seen: BTreeSet<String>,
}

fn values(row: &Row) -> Values {
    row.values().map(|value| value.map(str::to_owned)).collect()
}

impl Replica {
    /// A consumer that has taken over all rows that there are.
    pub fn of(rows: &BTreeSet<(String, Values)>, keys: impl Fn(&str, &Values) -> Values) -> Replica {
        let mut replica = Replica::default();
        for (table, row) in rows {
            replica.rows.entry(table.clone()).or_default().insert(keys(table, row), row.clone());
        }
        replica
    }

    /// Takes steps; an error says which event does not fit what is held. A step that comes again is passed over.
    pub fn replay(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            let snapshot = match &step.kind {
                StepKind::Snapshot { void, .. } => {
                    for table in void {
                        self.rows.remove(&table.name);
                    }
                    true
                }
                _ => false,
            };
            let id = format!("{} {}", step.cursor.generation, step.id());
            if !snapshot && !self.seen.insert(id.clone()) {
                continue;
            }
            for event in &step.events {
                self.take(event, snapshot).map_err(|wrong| format!("step {id}: {wrong}"))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &Event, snapshot: bool) -> Result<(), String> {
        let key: Values = event.key().map(|(_, value)| value.map(str::to_owned)).collect();
        let rows = self.rows.entry(event.table.name.clone()).or_default();
        let before = event.before.as_ref().map(values);
        let held = rows.get(&key).cloned();
        if !snapshot && held != before {
            return Err(format!("{}: before is {before:?}, held is {held:?}", event.table.name));
        }
        match &event.after {
            Some(after) => {
                rows.insert(key, values(after));
            }
            None => {
                rows.remove(&key);
            }
        }
        Ok(())
    }

    /// All rows, each with its table's name.
    pub fn rows(&self) -> BTreeSet<(String, Values)> {
        let of_table = |(table, rows): (&String, &BTreeMap<Values, Values>)| {
            rows.values().map(|row| (table.clone(), row.clone())).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(of_table).collect()
    }
}
