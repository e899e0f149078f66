//! Steps made by hand, for sinks on their own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::config::{Beginning, Destination, Format, OnLag, Retry, Sink};
use debshrew::register::Cursor;
use debshrew::relay::{About, Step, StepKind};
use debshrew::undo::{Event, EventColumn, EventTable, EventType, Row};

/// The settings of a sink that nobody asked for anything special.
pub fn settings(to: Destination) -> Sink {
    Sink {
        to,
        from: Beginning::Now,
        tables: vec!["*".to_owned()],
        confirmations: 0,
        max_lag: Duration::from_secs(3600),
        on_lag: OnLag::Detach,
        format: Format::Debezium,
        schemas: false,
        tombstones: true,
        retry: Retry {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(1),
            open_after: 10,
            probe: Duration::from_millis(1),
        },
    }
}

pub fn about() -> About {
    About {
        pipeline: "ledger".to_owned(),
        sink: "events".to_owned(),
        database: "shop".to_owned(),
        version: "0.1.0".to_owned(),
    }
}

/// A table of an address and a text.
pub fn table(name: &str) -> Arc<EventTable> {
    let column = |name: &str, nullable| EventColumn {
        name: name.to_owned(),
        type_: EventType::Text("text".to_owned()),
        nullable,
    };
    Arc::new(EventTable {
        schema: "shop".to_owned(),
        name: name.to_owned(),
        columns: vec![column("address", false), column("note", true)],
        key: vec![0],
    })
}

pub fn row(address: &str, note: &str) -> Option<Row> {
    Some(Row::new([Some(address), Some(note)]))
}

pub fn event(table: &Arc<EventTable>, before: Option<Row>, after: Option<Row>) -> Event {
    Event { table: table.clone(), before, after }
}

pub fn block(height: u32) -> BlockRef {
    let height = Height::new(height).unwrap();
    BlockRef { height, hash: BlockHash::new([u8::try_from(height.get() % 251).unwrap(); 32]) }
}

fn before(height: u32) -> Option<BlockRef> {
    height.checked_sub(1).map(block)
}

/// When every step was.
pub fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub fn apply(height: u32, events: Vec<Event>) -> Step {
    let cursor = Cursor { block: Some(block(height)), reorg: 0, generation: 0 };
    let kind = StepKind::Apply { block: block(height), previous: before(height) };
    Step { kind, events, cursor, at: at() }
}

/// Block `height` taken back by rollback `reorg`, down to `fork`.
pub fn retract(height: u32, fork: u32, reorg: i64, events: Vec<Event>) -> Step {
    let past = if height == fork + 1 { reorg } else { reorg - 1 };
    let cursor = Cursor { block: before(height), reorg: past, generation: 0 };
    let kind =
        StepKind::Retract { block: block(height), previous: before(height), fork: Some(block(fork)), reorg };
    Step { kind, events, cursor, at: at() }
}

pub fn snapshot(height: u32, part: u32, last: bool, void: Vec<Arc<EventTable>>, events: Vec<Event>) -> Step {
    let cursor = Cursor { block: Some(block(height)), reorg: 0, generation: 0 };
    let kind = StepKind::Snapshot { block: Some(block(height)), part, last, void };
    Step { kind, events, cursor, at: at() }
}
