//! A step as Kafka's records.

use std::sync::Arc;

use crate::config::{self, Format};
use crate::relay::format::{self, About, Documents, Envelopes, Status};
use crate::relay::step::Step;
use crate::undo::EventTable;

/// The name behind the prefix of the topic for control records.
pub(super) const TRANSACTION: &str = "transaction";

/// The same for documents.
pub(super) const BLOCKS: &str = "blocks";

pub(super) struct Record {
    /// The topic's name behind the prefix: `schema.table`, or one of those above.
    pub(super) topic: Arc<str>,
    pub(super) to: To,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
}

/// Which partitions get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// The one that its key says.
    One,
    Every,
}

/// Makes records.
pub(super) struct Records {
    form: Form,
    control: Arc<str>,
    /// The table that was written of last, and its topic.
    last: Option<(Arc<EventTable>, Arc<str>)>,
}

enum Form {
    /// A record a row, and one where a step begins and ends.
    Debezium { envelopes: Envelopes, schemas: bool, tombstones: bool },
    /// A record a step.
    Compact(Documents),
}

impl Records {
    pub(super) fn new(settings: &config::Sink, about: &About) -> Records {
        let (schemas, tombstones) = (settings.schemas, settings.tombstones);
        let (form, control) = match settings.format {
            Format::Debezium => {
                let envelopes = Envelopes::new(about, schemas);
                (Form::Debezium { envelopes, schemas, tombstones }, TRANSACTION)
            }
            Format::Compact => (Form::Compact(Documents::new(about)), BLOCKS),
        };
        Records { form, control: control.into(), last: None }
    }

    /// The topic's name behind the prefix that every step writes to; it has one partition, since its records are in order.
    pub(super) fn control(&self) -> &str {
        &self.control
    }

    /// A step's records, in their order.
    pub(super) fn of(&mut self, step: &Step) -> Vec<Record> {
        let Records { form, control, last } = self;
        match form {
            Form::Compact(documents) => {
                let mut value = Vec::new();
                documents.write(step, &mut value);
                vec![Record { topic: control.clone(), to: To::One, key: None, value: Some(value) }]
            }
            Form::Debezium { envelopes, schemas, tombstones } => {
                let mut all = Vec::with_capacity(step.events.len() + 3);
                envelopes.begin(step);
                for status in Status::of(step) {
                    if status != Status::Begin && all.len() == 1 {
                        rows(envelopes, step, *tombstones, last, &mut all);
                    }
                    let (mut key, mut value) = (Vec::new(), Vec::new());
                    format::control_key(step, *schemas, &mut key);
                    format::control(status, step, *schemas, &mut value);
                    let (key, value) = (Some(key), Some(value));
                    all.push(Record { topic: control.clone(), to: To::One, key, value });
                }
                all
            }
        }
    }
}

fn rows(
    envelopes: &mut Envelopes,
    step: &Step,
    tombstones: bool,
    last: &mut Option<(Arc<EventTable>, Arc<str>)>,
    all: &mut Vec<Record>,
) {
    for record in format::records(step) {
        let topic = topic(record.table(), last);
        let mut key = Vec::new();
        let key = envelopes.key(record, &mut key).then_some(key);
        let mut value = Vec::new();
        envelopes.value(step, record, &mut value);
        // What has no key is about all rows.
        let to = if key.is_some() { To::One } else { To::Every };
        let tombstone = (tombstones && record.is_delete()).then(|| Record {
            topic: topic.clone(),
            to,
            key: key.clone(),
            value: None,
        });
        all.push(Record { topic, to, key, value: Some(value) });
        all.extend(tombstone);
    }
}

fn topic(table: &Arc<EventTable>, last: &mut Option<(Arc<EventTable>, Arc<str>)>) -> Arc<str> {
    match last {
        Some((met, topic)) if Arc::ptr_eq(met, table) => topic.clone(),
        _ => {
            let topic: Arc<str> = format!("{}.{}", table.schema, table.name).into();
            *last = Some((table.clone(), topic.clone()));
            topic
        }
    }
}
