//! Where a step begins and ends, for consumers that care: Debezium's transaction metadata, and that a reorganisation is over.

use super::json;
use super::record::{self, records};
use super::schema;
use crate::relay::step::{Step, StepKind};

/// What a control record says of its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Begin,
    End,
    /// With this step all is taken back that a rollback undid. Stands before the step's end.
    Reorg,
}

impl Status {
    /// Those that a step has, in their order.
    pub fn of(step: &Step) -> impl Iterator<Item = Status> {
        let is_over = matches!(&step.kind, StepKind::Retract { reorg, .. } if step.cursor.reorg == *reorg);
        [Some(Status::Begin), is_over.then_some(Status::Reorg), Some(Status::End)].into_iter().flatten()
    }

    fn name(self) -> &'static str {
        match self {
            Status::Begin => "BEGIN",
            Status::End => "END",
            Status::Reorg => "REORG",
        }
    }
}

/// Appends a control record.
pub fn control(status: Status, step: &Step, schemas: bool, out: &mut Vec<u8>) {
    if schemas {
        out.extend_from_slice(&schema::head(&schema::control()));
    }
    out.extend_from_slice(br#"{"status":""#);
    out.extend_from_slice(status.name().as_bytes());
    out.extend_from_slice(br#"","id":""#);
    out.extend_from_slice(step.id().as_bytes());
    out.extend_from_slice(br#"","event_count":"#);
    if status == Status::End {
        json::number(record::count(step), out);
        out.extend_from_slice(br#","data_collections":["#);
        for (place, (table, count)) in collections(step).into_iter().enumerate() {
            out.extend_from_slice(if place == 0 {
                br#"{"data_collection":"#
            } else {
                br#",{"data_collection":"#
            });
            json::string(&table, out);
            out.extend_from_slice(br#","event_count":"#);
            json::number(count, out);
            out.push(b'}');
        }
        out.push(b']');
    } else {
        out.extend_from_slice(br#"null,"data_collections":null"#);
    }
    out.extend_from_slice(br#","ts_ms":"#);
    json::number(json::milliseconds(step.at), out);
    place(step, out);
    out.push(b'}');
    if schemas {
        out.push(b'}');
    }
}

/// Appends a control record's key.
pub fn control_key(step: &Step, schemas: bool, out: &mut Vec<u8>) {
    let payload = format!(r#"{{"id":"{}"}}"#, step.id());
    match schemas {
        false => out.extend_from_slice(payload.as_bytes()),
        true => {
            out.extend_from_slice(&schema::head(&schema::control_key()));
            out.extend_from_slice(payload.as_bytes());
            out.push(b'}');
        }
    }
}

/// `,"step":…` and where it lies.
pub(super) fn place(step: &Step, out: &mut Vec<u8>) {
    let (previous, fork) = match &step.kind {
        StepKind::Apply { previous, .. } => (*previous, None),
        StepKind::Retract { previous, fork, .. } => (*previous, *fork),
        StepKind::Snapshot { .. } => (None, None),
    };
    let snapshot = match &step.kind {
        StepKind::Snapshot { last: true, .. } => "last",
        StepKind::Snapshot { .. } => "true",
        StepKind::Apply { .. } | StepKind::Retract { .. } => "false",
    };
    let text = format!(r#","step":"{}","snapshot":"{snapshot}","#, step.name());
    out.extend_from_slice(text.as_bytes());
    json::block(step.block(), out);
    out.extend_from_slice(br#","previous_hash":"#);
    json::hash(previous, out);
    out.extend_from_slice(br#","reorg_id":"#);
    json::number(step.reorg(), out);
    out.extend_from_slice(br#","fork":"#);
    json::fork(fork, out);
}

/// How many messages each table has, in the order in which they come first.
fn collections(step: &Step) -> Vec<(String, u64)> {
    let mut counts: Vec<(&str, &str, u64)> = Vec::new();
    for record in records(step) {
        let table = record.table();
        let is_it = |count: &(&str, &str, u64)| count.1 == table.name && count.0 == table.schema;
        // Events of one table mostly follow one another.
        match counts.iter().rposition(is_it) {
            Some(place) => counts[place].2 += 1,
            None => counts.push((&table.schema, &table.name, 1)),
        }
    }
    counts.into_iter().map(|(schema, table, count)| (format!("{schema}.{table}"), count)).collect()
}
