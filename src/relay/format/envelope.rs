//! Debezium's envelope: a message a row.
//!
//! Source: Debezium's documentation of its PostgreSQL connector, "Data change events".

use super::About;
use super::json;
use super::record::{self, Record};
use super::schema;
use super::tables::Tables;
use crate::relay::step::{Step, StepKind};

/// Writes the messages of one step after another.
pub struct Envelopes {
    about: About,
    schemas: bool,
    tables: Tables<Table>,
    step: Fixed,
    /// How many messages of the step were written.
    order: u64,
}

/// What is the same for all messages of a table.
struct Table {
    /// Schemas, if they are wanted, up to where the payload begins.
    value_head: Vec<u8>,
    key_head: Vec<u8>,
    /// The part of `source` that names the table.
    source: Vec<u8>,
    /// How many messages of the step were about it.
    order: u64,
}

/// What is the same for all messages of a step.
#[derive(Default)]
struct Fixed {
    is_snapshot: bool,
    /// The message at which a snapshot ends.
    last: Option<u64>,
    /// From the times of `source` on, up to `snapshot`; from there to `sequence`'s number, to the end of `source`, and the end.
    times: Vec<u8>,
    sequence: Vec<u8>,
    source_end: Vec<u8>,
    end: Vec<u8>,
}

impl Envelopes {
    pub fn new(about: &About, schemas: bool) -> Envelopes {
        Envelopes { about: about.clone(), schemas, tables: Tables::new(), step: Fixed::default(), order: 0 }
    }

    /// Begins with a step; its records follow, in their order.
    pub fn begin(&mut self, step: &Step) {
        self.order = 0;
        self.tables.all().for_each(|table| table.order = 0);
        self.step.set(step);
    }

    /// Appends the next record's value.
    pub fn value(&mut self, step: &Step, record: Record<'_>, out: &mut Vec<u8>) {
        let Envelopes { about, schemas, tables, step: fixed, order } = self;
        *order += 1;
        let (names, table) = tables.get(record.table(), || Table::new(about, *schemas, record));
        table.order += 1;
        out.extend_from_slice(&table.value_head);
        let (before, after) = match record {
            Record::Void(_) => (None, None),
            Record::Row(event) => (event.before.as_ref(), event.after.as_ref()),
        };
        out.extend_from_slice(br#"{"before":"#);
        names.row(before, out);
        out.extend_from_slice(br#","after":"#);
        names.row(after, out);
        out.extend_from_slice(&table.source);
        out.extend_from_slice(&fixed.times);
        out.extend_from_slice(match fixed.is_snapshot {
            false => b"\"false\"",
            true if fixed.last == Some(*order) => b"\"last\"",
            true => b"\"true\"",
        });
        out.extend_from_slice(&fixed.sequence);
        json::number(*order, out);
        out.extend_from_slice(&fixed.source_end);
        json::number(*order, out);
        out.extend_from_slice(br#","data_collection_order":"#);
        json::number(table.order, out);
        out.extend_from_slice(br#"},"op":""#);
        out.push(record.operation(step));
        out.extend_from_slice(&fixed.end);
        if *schemas {
            out.push(b'}');
        }
    }

    /// Appends the key of a record's row. Returns whether it has one.
    pub fn key(&mut self, record: Record<'_>, out: &mut Vec<u8>) -> bool {
        let Record::Row(event) = record else { return false };
        let Envelopes { about, schemas, tables, .. } = self;
        let (names, table) = tables.get(record.table(), || Table::new(about, *schemas, record));
        out.extend_from_slice(&table.key_head);
        names.key(event, out);
        if *schemas {
            out.push(b'}');
        }
        true
    }
}

impl Table {
    fn new(about: &About, schemas: bool, record: Record<'_>) -> Table {
        let table = record.table();
        let mut source = br#","source":{"#.to_vec();
        for (name, text) in [
            ("version", about.version.as_str()),
            ("connector", "debshrew"),
            ("name", &about.pipeline),
            ("db", &about.database),
            ("schema", &table.schema),
            ("table", &table.name),
        ] {
            json::string(name, &mut source);
            source.push(b':');
            json::string(text, &mut source);
            source.push(b',');
        }
        let (value_head, key_head) = match schemas {
            false => (Vec::new(), Vec::new()),
            true => (
                schema::head(&schema::envelope(&about.pipeline, table)),
                schema::head(&schema::key(&about.pipeline, table)),
            ),
        };
        Table { value_head, key_head, source, order: 0 }
    }
}

impl Fixed {
    fn set(&mut self, step: &Step) {
        let Fixed { is_snapshot, last, times, sequence, source_end, end } = self;
        [&mut *times, sequence, source_end, end].into_iter().for_each(|part| part.clear());
        *is_snapshot = matches!(step.kind, StepKind::Snapshot { .. });
        *last = step.completes().then(|| record::count(step));
        let (id, nanoseconds) = (step.id(), json::nanoseconds(step.at));

        times.extend_from_slice(br#""ts_ms":"#);
        json::number(nanoseconds / 1_000_000, times);
        times.extend_from_slice(br#","snapshot":"#);

        // An id has no character that would have to be escaped.
        sequence.extend_from_slice(br#","sequence":"[\""#);
        sequence.extend_from_slice(id.as_bytes());
        sequence.extend_from_slice(br#"\",\""#);

        source_end.extend_from_slice(br#"\"]","#);
        json::block(step.block(), source_end);
        source_end.extend_from_slice(br#","step":""#);
        source_end.extend_from_slice(step.name().as_bytes());
        source_end.extend_from_slice(br#"","reorg_id":"#);
        json::number(step.reorg(), source_end);
        source_end.extend_from_slice(br#"},"transaction":{"id":""#);
        source_end.extend_from_slice(id.as_bytes());
        source_end.extend_from_slice(br#"","total_order":"#);

        for (name, unit) in [("ts_ms", 1_000_000), ("ts_us", 1_000), ("ts_ns", 1)] {
            end.extend_from_slice(if end.is_empty() { b"\",\"" } else { b",\"" });
            end.extend_from_slice(name.as_bytes());
            end.extend_from_slice(b"\":");
            json::number(nanoseconds / unit, end);
        }
        end.push(b'}');
    }
}
