//! Steps as a stream would make them, and a sink to give them to.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::config::{
    Beginning, Compression, Destination, File, Format, OnLag, Retry, Rotate, Sink as Settings,
};
use debshrew::register::Cursor;
use debshrew::relay::{About, Step, StepKind};
use debshrew::undo::{Event, EventColumn, EventTable, EventType, Row};

pub fn about() -> About {
    About {
        pipeline: "ledger".into(),
        sink: "events".into(),
        database: "chain".into(),
        version: "0.1.0".into(),
    }
}

pub fn settings(to: Destination) -> Settings {
    Settings {
        to,
        from: Beginning::Snapshot,
        tables: vec!["*".into()],
        confirmations: 0,
        max_lag: Duration::from_secs(3600),
        on_lag: OnLag::Detach,
        format: Format::Debezium,
        schemas: false,
        tombstones: true,
        retry: Retry {
            initial: Duration::from_millis(10),
            max: Duration::from_millis(100),
            open_after: 10,
            probe: Duration::from_millis(100),
        },
    }
}

pub fn to_file(path: &Path, bytes: u64, compression: Compression) -> Settings {
    let rotate = Rotate { bytes, age: Duration::from_secs(3600) };
    settings(Destination::File(File { path: path.to_owned(), rotate, compression }))
}

/// 2026-01-02T03:04:05.678901Z
pub fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_323_045_678_901)
}

pub fn block(height: u32, salt: u8) -> BlockRef {
    let mut hash = [salt; 32];
    hash[..4].copy_from_slice(&height.to_be_bytes());
    BlockRef { height: Height::new(height).unwrap(), hash: BlockHash::new(hash) }
}

pub fn table(name: &str, columns: &[(&str, EventType, bool)], key: &[usize]) -> Arc<EventTable> {
    let columns = columns.iter().map(|(name, type_, nullable)| EventColumn {
        name: (*name).into(),
        type_: type_.clone(),
        nullable: *nullable,
    });
    Arc::new(EventTable {
        schema: "ledger".into(),
        name: name.into(),
        columns: columns.collect(),
        key: key.into(),
    })
}

pub fn balances() -> Arc<EventTable> {
    let text = || EventType::Text("text".into());
    table(
        "balances",
        &[("address", text(), false), ("amount", EventType::Int64, false), ("note", text(), true)],
        &[0],
    )
}

pub fn row(values: &[Option<&str>]) -> Row {
    Row::new(values.iter().copied())
}

pub fn event(
    table: &Arc<EventTable>,
    before: Option<&[Option<&str>]>,
    after: Option<&[Option<&str>]>,
) -> Event {
    Event { table: Arc::clone(table), before: before.map(row), after: after.map(row) }
}

pub fn cursor(block: Option<BlockRef>, reorg: i64) -> Cursor {
    Cursor { block, reorg, generation: 0 }
}

pub fn apply(at: BlockRef, previous: Option<BlockRef>, reorg: i64, events: Vec<Event>) -> Step {
    let kind = StepKind::Apply { block: at, previous };
    Step { kind, events, cursor: cursor(Some(at), reorg), at: moment() }
}

pub fn snapshot(at: Option<BlockRef>, part: u32, last: bool, events: Vec<Event>) -> Step {
    let kind = StepKind::Snapshot { block: at, part, last, void: Vec::new() };
    Step { kind, events, cursor: cursor(at, 0), at: moment() }
}
