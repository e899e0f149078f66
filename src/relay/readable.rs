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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::block::{BlockHash, Height};
    use crate::register::Cursor;
    use crate::undo::{EventColumn, EventType};

    fn block(height: u32) -> BlockRef {
        BlockRef { height: Height::new(height).unwrap(), hash: BlockHash::new([0xab; 32]) }
    }

    fn step(kind: StepKind, events: Vec<Event>) -> Step {
        let cursor = Cursor { block: Some(block(7)), reorg: 0, generation: 0 };
        Step { kind, events, cursor, at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045) }
    }

    fn events() -> Vec<Event> {
        let column = |name: &str| EventColumn {
            name: name.into(),
            type_: EventType::Text("text".into()),
            nullable: true,
        };
        let columns = vec![column("address"), column("amount"), column("note")];
        let table =
            Arc::new(EventTable { schema: "s".into(), name: "bal\x1bances".into(), columns, key: vec![0] });
        let row = |amount: &str, note: Option<&str>| Some(Row::new([Some("a"), Some(amount), note]));
        let event = |before, after| Event { table: Arc::clone(&table), before, after };
        vec![
            event(None, row("1", None)),
            event(row("1", Some("x\n\x1b[2J")), row("2", Some("x\n\x1b[2J"))),
            event(row("2", None), None),
        ]
    }

    /// What a terminal shows, after the bytes that were sent to it.
    fn on_screen(text: &str) -> String {
        let mut parser = vt100::Parser::new(24, 120, 0);
        parser.process(text.replace('\n', "\r\n").as_bytes());
        parser.screen().contents()
    }

    const APPLIED: &str = "\
block 7 abababababab…  2026-01-02T03:04:05Z  3 changes
  + bal\\u001bances  address=a  amount=1  note=null
  ~ bal\\u001bances  address=a  amount: 1 → 2
  - bal\\u001bances  address=a  amount=2  note=null
";

    const RETRACTED: &str = "\
block 7 abababababab… was rolled back  2026-01-02T03:04:05Z  3 changes undone; block 6 stays
  - bal\\u001bances  address=a  amount=2  note=null
  ~ bal\\u001bances  address=a  amount: 1 → 2
  + bal\\u001bances  address=a  amount=1  note=null
";

    #[test]
    fn a_block_is_a_heading_and_a_line_a_row() {
        let applied = step(StepKind::Apply { block: block(7), previous: Some(block(6)) }, events());
        assert_eq!(readable(&applied, Paint::None), APPLIED);
        let painted = readable(&applied, Paint::Ansi);
        assert_eq!(on_screen(&painted), APPLIED.trim_end());
        assert!(!painted.contains("\x1b[9m") && !painted.contains("\x1b[2J"), "{painted:?}");
    }

    #[test]
    fn what_was_rolled_back_is_struck() {
        let undone = events().into_iter().rev().map(Event::inverted).collect();
        let kind =
            StepKind::Retract { block: block(7), previous: Some(block(6)), fork: Some(block(6)), reorg: 1 };
        let retracted = step(kind, undone);
        assert_eq!(readable(&retracted, Paint::None), RETRACTED);
        let painted = readable(&retracted, Paint::Ansi);
        assert_eq!(on_screen(&painted), RETRACTED.trim_end());
        let rows: Vec<&str> = painted.lines().skip(1).collect();
        assert!(rows.iter().all(|row| row.starts_with("  \x1b[9m") && row.ends_with("\x1b[0m")), "{rows:?}");
    }

    #[test]
    fn a_snapshot_says_what_is_void() {
        let void = vec![Arc::clone(&events()[0].table)];
        let kind = StepKind::Snapshot { block: None, part: 0, last: true, void };
        let text = readable(&step(kind, vec![events().remove(0)]), Paint::None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "snapshot before the first block  2026-01-02T03:04:05Z  1 row");
        assert_eq!(lines[1], "  all that was shown of bal\\u001bances is void");
        assert_eq!(lines.len(), 3);
    }
}
