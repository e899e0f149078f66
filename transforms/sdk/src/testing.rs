//! A host for tests of transforms, which run natively: it answers views from a map, keeps the state, and gives
//! back what was emitted.
//!
//! ```
//! # use debshrew_sdk::{row, testing::Host, Block, Error, Transform};
//! # row! { pub struct Size in "sizes" { key { height: u32 } bytes: u64 } }
//! # struct Sizes;
//! # impl Transform for Sizes {
//! #     const NAME: &'static str = "sizes";
//! #     fn process_block(block: &mut Block) -> Result<(), Error> {
//! #         let bytes = block.view("getblock", b"")?.len() as u64;
//! #         block.upsert(&Size { height: block.height(), bytes });
//! #         Ok(())
//! #     }
//! # }
//! let mut host = Host::new();
//! host.answer("getblock", b"", b"abc");
//! let changes = host.run::<Sizes>(7, [0; 32]).unwrap();
//! assert_eq!(changes[0].table, "sizes");
//! assert_eq!(changes[0].columns["bytes"], 3);
//! ```

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{Block, Error, Hash, Transform};

/// Where a transform runs in tests. What its state was after one block is there in the next.
#[derive(Clone, Debug, Default)]
pub struct Host {
    views: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    /// The transform's state.
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the last block wrote with [`Block::log`] and [`Block::warn`].
    pub log: Vec<String>,
    /// How often the last block asked for a view or a key of the state.
    pub calls: usize,
}

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Upsert,
    Delete,
}

/// A change that was emitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub operation: Operation,
    pub table: String,
    /// By name: what an upsert sets, the key of a delete.
    pub columns: Map<String, Value>,
}

impl Host {
    pub fn new() -> Host {
        Host::default()
    }

    /// What a view answers from now on to this input. Views without an answer fail.
    pub fn answer(&mut self, view: &str, input: &[u8], answer: &[u8]) {
        self.views.insert((view.to_owned(), input.to_vec()), answer.to_vec());
    }

    /// Runs a transform for a block; `hash` is in the order in which Bitcoin shows hashes. When it fails, the
    /// state is as it was before, as with debshrew.
    pub fn run<T: Transform>(&mut self, height: u32, hash: [u8; 32]) -> Result<Vec<Change>, Error> {
        let emitted = self.emit::<T>(height, hash)?;
        if emitted.is_empty() {
            return Ok(Vec::new());
        }
        let messages: Vec<Value> = serde_json::from_slice(&emitted[4..])?;
        messages.into_iter().map(change).collect()
    }

    /// As [`run`](Host::run), and gives what was emitted as debshrew gets it, unread; nothing for no changes.
    pub fn emit<T: Transform>(&mut self, height: u32, hash: [u8; 32]) -> Result<Vec<u8>, Error> {
        let host = Host { log: Vec::new(), calls: 0, ..self.clone() };
        let mut block = Block::new::<T>(host, height, Hash(hash));
        let result = T::process_block(&mut block);
        let (host, emitted) = block.finish();
        match result {
            Ok(()) => *self = host,
            Err(error) => {
                (self.log, self.calls) = (host.log, host.calls);
                return Err(error);
            }
        }
        Ok(emitted.unwrap_or_default())
    }

    pub(crate) fn view(&mut self, name: &str, input: &[u8]) -> Option<Vec<u8>> {
        self.calls += 1;
        self.views.get(&(name.to_owned(), input.to_vec())).cloned()
    }

    pub(crate) fn get_state(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.calls += 1;
        self.state.get(key).filter(|value| !value.is_empty()).cloned()
    }

    pub(crate) fn set_state(&mut self, key: &[u8], value: &[u8]) {
        self.state.insert(key.to_vec(), value.to_vec());
    }

    pub(crate) fn delete_state(&mut self, key: &[u8]) -> bool {
        self.calls += 1;
        self.state.remove(key).is_some()
    }

    pub(crate) fn stdout(&mut self, line: &str) {
        self.log.push(line.to_owned());
    }

    pub(crate) fn stderr(&mut self, line: &str) {
        self.log.push(line.to_owned());
    }
}

fn change(mut message: Value) -> Result<Change, Error> {
    let payload = &mut message["payload"];
    let (operation, image) = match payload["operation"].as_str() {
        Some("create" | "update") => (Operation::Upsert, "after"),
        Some("delete") => (Operation::Delete, "before"),
        _ => return Err(format!("no operation: {payload}").into()),
    };
    let Some(table) = payload["table"].as_str().map(str::to_owned) else {
        return Err(format!("no table: {payload}").into());
    };
    match payload[image].take() {
        Value::Object(columns) => Ok(Change { operation, table, columns }),
        other => Err(format!("no columns: {other}").into()),
    }
}

/// Tables as they are after the changes that were applied to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables(BTreeMap<String, Table>);

#[derive(Clone, Debug, PartialEq)]
struct Table {
    key: Vec<String>,
    rows: BTreeMap<String, Map<String, Value>>,
}

impl Tables {
    /// Empty tables, with the columns of their primary keys.
    pub fn new(tables: &[(&str, &[&str])]) -> Tables {
        let table = |(name, key): &(&str, &[&str])| {
            let key = key.iter().map(|column| (*column).to_owned()).collect();
            ((*name).to_owned(), Table { key, rows: BTreeMap::new() })
        };
        Tables(tables.iter().map(table).collect())
    }

    /// Applies changes as debshrew does. Fails for an unknown table and for a change without its whole key.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        for change in changes {
            let table = self
                .0
                .get_mut(&change.table)
                .ok_or_else(|| format!("there is no table `{}`", change.table))?;
            let mut key = String::new();
            for column in &table.key {
                let value = change.columns.get(column).filter(|value| !value.is_null());
                let value = value.ok_or_else(|| format!("no key column `{column}` in {change:?}"))?;
                key.push_str(&format!("{value} "));
            }
            match change.operation {
                Operation::Upsert => {
                    table.rows.entry(key).or_default().extend(change.columns.clone());
                }
                Operation::Delete => {
                    table.rows.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// A table's rows; none for a table that is not there.
    pub fn rows(&self, table: &str) -> Vec<&Map<String, Value>> {
        self.0.get(table).into_iter().flat_map(|table| table.rows.values()).collect()
    }
}
