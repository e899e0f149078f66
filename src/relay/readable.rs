//! A step for people: the block as a heading, a line a row, and struck through what does not hold any more.

use std::time::SystemTime;

use super::step::{Step, StepKind};
use crate::block::BlockRef;
use crate::failure::excerpt;
use crate::printable;
use crate::terminal::{Paint, Tone};
use crate::undo::{Event, EventTable, Row};

/// As many characters of a hash are shown.
const SHORT_HASH: usize = 12;

/// A step's lines. Whatever others have a say in is fit for a terminal.
pub(super) fn readable(step: &Step, paint: Paint) -> String {
    let mut lines = vec![heading(step, paint)];
    if let StepKind::Snapshot { void, .. } = &step.kind {
        lines.extend(void.iter().map(|table| {
            paint.paint(
                Tone::Warning,
                &format!("  all that was shown of {} is void", printable::line(&table.name)),
            )
        }));
    }
    let is_retracted = matches!(step.kind, StepKind::Retract { .. });
    lines.extend(step.events.iter().map(|event| match is_retracted {
        // What the block had done, and not what undoes it.
        true => format!("  {}", paint.strike(&row(&event.clone().inverted(), Paint::None))),
        false => format!("  {}", row(event, paint)),
    }));
    lines.join("\n") + "\n"
}

fn heading(step: &Step, paint: Paint) -> String {
    let at = time(step.at);
    let count = match step.events.len() {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    match &step.kind {
        StepKind::Apply { block, .. } => {
            format!("{}  {at}  {count}", paint.paint(Tone::Good, &format!("block {}", short(block))))
        }
        StepKind::Retract { block, fork, .. } => {
            let fork =
                fork.map_or("nothing is left".to_owned(), |fork| format!("block {} stays", fork.height));
            let what = paint.paint(Tone::Bad, &format!("block {} was rolled back", short(block)));
            format!("{what}  {at}  {count} undone; {fork}")
        }
        StepKind::Snapshot { block, .. } => {
            let block = block
                .map_or("before the first block".to_owned(), |block| format!("at block {}", short(&block)));
            let rows = if step.events.len() == 1 {
                "1 row".to_owned()
            } else {
                format!("{} rows", step.events.len())
            };
            format!("{}  {at}  {rows}", paint.paint(Tone::Good, &format!("snapshot {block}")))
        }
    }
}

fn short(block: &BlockRef) -> String {
    let hash = block.hash.to_string();
    format!("{} {}…", block.height, &hash[..SHORT_HASH.min(hash.len())])
}

/// To the second, as in the log.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

fn row(event: &Event, paint: Paint) -> String {
    let table = &event.table;
    let name = printable::line(&table.name);
    let key: Vec<String> = event
        .key()
        .map(|(column, text)| format!("{}={}", printable::line(&column.name), shown(text)))
        .collect();
    let beside = |row: &Row| -> Vec<String> {
        let columns = table.columns.iter().enumerate().filter(|(place, _)| !table.key.contains(place));
        columns
            .map(|(place, column)| format!("{}={}", printable::line(&column.name), shown(row.get(place))))
            .collect()
    };
    let (sign, tone, rest) = match (&event.before, &event.after) {
        (Some(before), Some(after)) => ("~", Tone::Warning, changed(table, before, after)),
        (None, Some(after)) => ("+", Tone::Good, beside(after)),
        (Some(before), None) => ("-", Tone::Bad, beside(before)),
        (None, None) => ("?", Tone::Dim, Vec::new()),
    };
    let words = [key, rest].concat().join("  ");
    format!("{} {name}  {words}", paint.paint(tone, sign))
}

/// The columns that changed.
fn changed(table: &EventTable, before: &Row, after: &Row) -> Vec<String> {
    let columns = table.columns.iter().enumerate();
    let columns = columns.filter(|(place, _)| before.get(*place) != after.get(*place));
    let change = columns.map(|(place, column)| {
        let (old, new) = (shown(before.get(place)), shown(after.get(place)));
        format!("{}: {old} → {new}", printable::line(&column.name))
    });
    change.collect()
}

/// A value, cut off if it is long.
fn shown(text: Option<&str>) -> String {
    text.map_or("null".to_owned(), |text| printable::line(&excerpt(text)).into_owned())
}
