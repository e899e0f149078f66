//! Keeps what a rollback takes back for the sinks that may have published it: the events of its blocks, as text.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::UndoError;
use super::derive::{Range, derive};
use super::event::{Event, EventTable, Row};
use crate::block::{BlockRef, Height};
use crate::register::{self, Registered, Retracted};
use crate::table::Tables;

/// So much is derived at once.
const MAX_BYTES: usize = 64 << 20;

/// About so many bytes go into one row.
const PART_BYTES: usize = 1 << 20;

/// A line: a table, which is numbered by its place among those of the same part, or an event of one.
#[derive(Serialize, Deserialize)]
enum Line<'a> {
    #[serde(rename = "t")]
    Table(std::borrow::Cow<'a, EventTable>),
    #[serde(rename = "e")]
    Event(usize, Option<Vec<Option<String>>>, Option<Vec<Option<String>>>),
}

/// Keeps the events of the blocks above `to` that a sink may have published, inside the rollback's transaction and before
/// anything is put back.
pub(super) async fn keep(
    client: &Client,
    tables: &Tables,
    pipeline: &Registered,
    (from, to): (BlockRef, Option<BlockRef>),
    reorg: i64,
) -> Result<(), UndoError> {
    let Some(reserved) = register::lock_reserved(client, pipeline.id).await? else { return Ok(()) };
    let last = from.height.min(reserved);
    let mut next = to.map_or(pipeline.start_height, |to| to.height.next());
    while next <= last {
        let above = next.to_sql() - 1;
        let range = Range { above, to: last, is_last: last == from.height, max_bytes: MAX_BYTES };
        let mut derived = derive(client, tables, |_| true, range).await?;
        let end = derived.to.unwrap_or(last);
        while next <= end {
            let block = register::committed_block(client, pipeline.id, next).await?;
            let events = derived.blocks.remove(&next).unwrap_or_default();
            for (part, events) in (0..).zip(parts(&events)) {
                let retracted = Retracted { block, part, events };
                register::write_retracted(client, pipeline.id, reorg, &retracted).await?;
            }
            if next == Height::MAX {
                break;
            }
            next = next.next();
        }
    }
    Ok(())
}

/// Events as text, in parts; at least one.
fn parts(events: &[Event]) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = Part::default();
    for event in events {
        part.add(event);
        if part.text.len() > PART_BYTES {
            parts.push(std::mem::take(&mut part).text);
        }
    }
    if parts.is_empty() || !part.text.is_empty() {
        parts.push(part.text);
    }
    parts
}

#[derive(Default)]
struct Part {
    text: String,
    tables: HashMap<*const EventTable, usize>,
}

impl Part {
    fn add(&mut self, event: &Event) {
        let number = self.tables.len();
        let number = *self.tables.entry(Arc::as_ptr(&event.table)).or_insert_with(|| {
            push(&mut self.text, &Line::Table(std::borrow::Cow::Borrowed(&event.table)));
            number
        });
        let values = |row: &Option<Row>| {
            row.as_ref().map(|row| row.values().map(|value| value.map(str::to_owned)).collect())
        };
        push(&mut self.text, &Line::Event(number, values(&event.before), values(&event.after)));
    }
}

fn push(text: &mut String, line: &Line<'_>) {
    // Texts and numbers alone: this does not fail.
    text.push_str(&serde_json::to_string(line).unwrap_or_default());
    text.push('\n');
}

/// The events that parts hold, in the order in which the block had them; `None` if it is something else.
pub fn read_events(parts: &[String]) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    for part in parts {
        let mut tables = Vec::new();
        for line in part.lines() {
            match serde_json::from_str(line).ok()? {
                Line::Table(table) => tables.push(Arc::new(table.into_owned())),
                Line::Event(number, before, after) => {
                    let row = |values: Option<Vec<Option<String>>>| {
                        values.map(|values| Row::new(values.iter().map(Option::as_deref)))
                    };
                    let table = Arc::clone(tables.get(number)?);
                    events.push(Event { table, before: row(before), after: row(after) });
                }
            }
        }
    }
    Some(events)
}
