//! One JSON document a step.

use super::About;
use super::control::place;
use super::envelope::Envelopes;
use super::json;
use super::record::records;
use super::tables::{Names, Tables};
use crate::relay::step::{Step, StepKind};
use crate::undo::Event;

/// Writes documents.
pub struct Documents {
    about: About,
    /// Per table, its name as JSON.
    tables: Tables<Vec<u8>>,
}

impl Documents {
    pub fn new(about: &About) -> Documents {
        Documents { about: about.clone(), tables: Tables::new() }
    }

    /// Appends a step's document: its rows in short.
    pub fn write(&mut self, step: &Step, out: &mut Vec<u8>) {
        self.head(step, out);
        for (place, event) in step.events.iter().enumerate() {
            out.extend_from_slice(if place == 0 { br#"{"table":"# } else { br#",{"table":"# });
            let (names, table) = self.tables.get(&event.table, || {
                let mut name = Vec::new();
                json::string(&event.table.name, &mut name);
                name
            });
            out.extend_from_slice(table);
            row(names, step, event, out);
        }
        out.extend_from_slice(b"]}");
    }

    /// Appends a step's document in which the events are envelopes.
    pub fn write_envelopes(&self, envelopes: &mut Envelopes, step: &Step, out: &mut Vec<u8>) {
        self.head(step, out);
        envelopes.begin(step);
        for (place, record) in records(step).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            envelopes.value(step, record, out);
        }
        out.extend_from_slice(b"]}");
    }

    /// Everything up to the first event.
    fn head(&self, step: &Step, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"id":""#);
        out.extend_from_slice(step.id().as_bytes());
        out.extend_from_slice(br#"","pipeline":"#);
        json::string(&self.about.pipeline, out);
        place(step, out);
        out.extend_from_slice(br#","ts_ms":"#);
        json::number(json::milliseconds(step.at), out);
        out.extend_from_slice(br#","void":["#);
        if let StepKind::Snapshot { void, .. } = &step.kind {
            for (place, table) in void.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                json::string(&table.name, out);
            }
        }
        out.extend_from_slice(br#"],"events":["#);
    }
}

fn row(names: &Names, step: &Step, event: &Event, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","op":""#);
    out.push(super::Record::Row(event).operation(step));
    out.extend_from_slice(br#"","key":"#);
    names.key(event, out);
    out.extend_from_slice(br#","before":"#);
    names.row(event.before.as_ref(), out);
    out.extend_from_slice(br#","after":"#);
    names.row(event.after.as_ref(), out);
    out.push(b'}');
}
