//! The rows that are written: two tables, and blocks of changes of them, the same for the same number.

use std::collections::HashSet;
use std::sync::Arc;

use debshrew::change::{Change, Layout, Operation, Value};
use tokio_postgres::types::ToSql;

/// A table to write to.
#[derive(Debug)]
pub(crate) struct Table {
    /// With the schema that the pipeline `bench` has.
    pub(crate) name: &'static str,
    /// Makes it in the schema that is current.
    pub(crate) ddl: &'static str,
    pub(crate) columns: &'static [&'static str],
    /// How many of the columns, the first ones, are its key.
    pub(crate) key: usize,
    /// A row by its number and how often it was written.
    pub(crate) row: fn(u64, u64) -> Vec<Cell>,
}

/// A text key and four columns.
pub(crate) const NARROW: Table = Table {
    name: "bench.narrow",
    ddl: "create table narrow (address text primary key, amount bigint not null, height integer not null, \
          label text not null, active boolean not null)",
    columns: &["address", "amount", "height", "label", "active"],
    key: 1,
    row: |number, version| {
        let mixed = mix(number);
        vec![
            Cell::Text(format!("{mixed:016x}{:016x}", mix(mixed))),
            Cell::Big((mix(number + version) >> 14) as i64),
            Cell::Int(number as i32),
            Cell::Text(format!("label {}", version % 1000)),
            Cell::Bool(version.is_multiple_of(2)),
        ]
    },
};

/// The same, as docs/performance.md advises: texts compared byte by byte, and room in each page for its updates.
pub(crate) const TUNED: Table = Table {
    name: "bench.tuned",
    ddl: "create table tuned (address text collate \"C\" primary key, amount bigint not null, \
          height integer not null, label text not null, active boolean not null) with (fillfactor = 80)",
    ..NARROW
};

/// Ten columns, two of which are its key.
pub(crate) const WIDE: Table = Table {
    name: "bench.wide",
    ddl: "create table wide (txid text, position integer, height integer not null, amount bigint not null, \
          script text not null, script_hash text not null, label text, sequence bigint not null, \
          active boolean not null, fee bigint, primary key (txid, position))",
    columns: &[
        "txid",
        "position",
        "height",
        "amount",
        "script",
        "script_hash",
        "label",
        "sequence",
        "active",
        "fee",
    ],
    key: 2,
    row: |number, version| {
        let (transaction, changed) = (mix(number / 3), mix(number + version));
        vec![
            Cell::Text(format!("{transaction:016x}{:016x}", mix(transaction))),
            Cell::Int((number % 3) as i32),
            Cell::Int(number as i32),
            Cell::Big((changed >> 14) as i64),
            Cell::Text(format!("0014{changed:016x}{:016x}", mix(changed))),
            Cell::Text(format!("{:016x}{:016x}", mix(changed + 1), mix(changed + 2))),
            Cell::Text(format!("label {}", version % 1000)),
            Cell::Big((changed >> 32) as i64),
            Cell::Bool(version.is_multiple_of(2)),
            Cell::Big((changed >> 50) as i64),
        ]
    },
};

/// A value in a row.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    Big(i64),
    Int(i32),
    Bool(bool),
}

impl Cell {
    fn value(&self) -> Value {
        match self {
            Cell::Text(text) => Value::Text(text.as_str().into()),
            Cell::Big(number) => Value::Number(number.to_string().into()),
            Cell::Int(number) => Value::Number(number.to_string().into()),
            Cell::Bool(truth) => Value::Bool(*truth),
        }
    }

    /// As a parameter of its column's type.
    pub(crate) fn parameter(&self) -> &(dyn ToSql + Sync) {
        match self {
            Cell::Text(text) => text,
            Cell::Big(number) => number,
            Cell::Int(number) => number,
            Cell::Bool(truth) => truth,
        }
    }

    /// In COPY's text format; there is nothing to escape in our texts.
    fn copied(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Big(number) => number.to_string(),
            Cell::Int(number) => number.to_string(),
            Cell::Bool(truth) => truth.to_string(),
        }
    }
}

/// One row's change.
#[derive(Clone, Debug)]
pub(crate) enum RowChange {
    Put(Vec<Cell>),
    /// The key.
    Delete(Vec<Cell>),
}

impl Table {
    /// The name without the schema.
    fn bare(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, name)| name)
    }

    /// As a transform emits them.
    pub(crate) fn changes(&self, block: &[RowChange]) -> Vec<Change> {
        let (whole, key) = (self.layout(self.columns), self.layout(&self.columns[..self.key]));
        let changes = block.iter().map(|change| {
            let (operation, layout, cells) = match change {
                RowChange::Put(cells) => (Operation::Upsert, &whole, cells),
                RowChange::Delete(cells) => (Operation::Delete, &key, cells),
            };
            let values = cells.iter().map(Cell::value).collect();
            Change { layout: Arc::clone(layout), operation, key: None, values }
        });
        changes.collect()
    }

    fn layout(&self, columns: &[&str]) -> Arc<Layout> {
        let columns = columns.iter().map(|name| (*name).into()).collect();
        Arc::new(Layout { table: self.bare().into(), columns })
    }

    /// So many rows from this number on, in COPY's text format.
    pub(crate) fn copy(&self, numbers: std::ops::Range<u64>) -> Vec<u8> {
        let mut text = Vec::new();
        for number in numbers {
            let cells: Vec<String> = (self.row)(number, 0).iter().map(Cell::copied).collect();
            text.extend_from_slice(cells.join("\t").as_bytes());
            text.push(b'\n');
        }
        text
    }
}

/// Makes blocks: 60 % of their changes are new rows, 30 % updates, 10 % deletes. No row is changed twice in a
/// block.
pub(crate) struct Chain {
    table: &'static Table,
    random: fastrand::Rng,
    /// The numbers of the rows that are there.
    rows: Vec<u64>,
    /// The next row's number.
    next: u64,
    written: u64,
}

impl Chain {
    /// Begins on a table that has the rows 0 to `rows`.
    pub(crate) fn new(table: &'static Table, rows: u64) -> Chain {
        Chain {
            table,
            random: fastrand::Rng::with_seed(1),
            rows: (0..rows).collect(),
            next: rows,
            written: 0,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn blocks(&mut self, count: usize, changes: usize) -> Vec<Vec<RowChange>> {
        (0..count).map(|_| self.block(changes)).collect()
    }

    fn block(&mut self, changes: usize) -> Vec<RowChange> {
        let mut touched = HashSet::new();
        (0..changes).map(|_| self.one(&mut touched)).collect()
    }

    fn one(&mut self, touched: &mut HashSet<u64>) -> RowChange {
        self.written += 1;
        let kind = self.random.u32(..10);
        let old = if kind < 6 { None } else { self.untouched(touched) };
        let Some(place) = old else {
            let number = self.next;
            self.next += 1;
            self.rows.push(number);
            touched.insert(number);
            return RowChange::Put((self.table.row)(number, 0));
        };
        if kind < 9 {
            return RowChange::Put((self.table.row)(self.rows[place], self.written));
        }
        let mut cells = (self.table.row)(self.rows.swap_remove(place), 0);
        cells.truncate(self.table.key);
        RowChange::Delete(cells)
    }

    /// Where in `rows` one stands that the block has not touched; `None` if none is found soon.
    fn untouched(&mut self, touched: &mut HashSet<u64>) -> Option<usize> {
        (0..100).find_map(|_| {
            let place = self.random.usize(..self.rows.len().max(1));
            let number = *self.rows.get(place)?;
            touched.insert(number).then_some(place)
        })
    }
}

/// Spreads numbers evenly; no two give the same. Source: the finaliser of SplitMix64.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
