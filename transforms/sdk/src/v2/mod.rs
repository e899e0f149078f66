//! Binary interface version 2: changes are binary records, handed over as they are made.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod read;
#[cfg(target_arch = "wasm32")]
pub(crate) mod wasm;

use crate::block::Operation;
use crate::{Column, Hash, Host, Shape};

/// Takes one value.
#[derive(Debug, Default)]
pub struct Writer {
    /// Longer than what is written, so that there is room for most values without asking for it.
    out: Vec<u8>,
    written: usize,
}

impl Writer {
    /// The next so many bytes.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.written;
        let end = start + length;
        if end > self.out.len() {
            self.out.resize(end * 2, 0);
        }
        self.written = end;
        &mut self.out[start..end]
    }

    fn fixed<const N: usize>(&mut self, kind: u8, bytes: [u8; N]) {
        let room = self.room(1 + N);
        room[0] = kind;
        room[1..].copy_from_slice(&bytes);
    }

    fn sized(&mut self, kind: u8, bytes: &[u8]) {
        let room = self.room(5 + bytes.len());
        room[0] = kind;
        room[1..5].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        room[5..].copy_from_slice(bytes);
    }

    pub fn null(&mut self) {
        self.fixed(0, []);
    }

    pub fn bool(&mut self, truth: bool) {
        self.fixed(1 + u8::from(truth), []);
    }

    pub fn signed(&mut self, integer: i64) {
        self.fixed(3, integer.to_le_bytes());
    }

    pub fn unsigned(&mut self, integer: u64) {
        match i64::try_from(integer) {
            Ok(integer) => self.signed(integer),
            Err(_) => self.fixed(4, i128::from(integer).to_le_bytes()),
        }
    }

    pub fn wide(&mut self, integer: i128) {
        self.fixed(4, integer.to_le_bytes());
    }

    pub fn float(&mut self, float: f64) {
        self.fixed(5, float.to_le_bytes());
    }

    /// A number in JSON's notation, with all its digits.
    pub fn number(&mut self, digits: &str) {
        self.sized(6, digits.as_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.sized(7, text.as_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.sized(8, bytes);
    }

    /// A whole JSON text.
    pub fn json(&mut self, json: &str) {
        self.sized(9, json.as_bytes());
    }

    pub fn array<T: Column>(&mut self, items: &[T]) {
        self.fixed(10, (items.len() as u32).to_le_bytes());
        for item in items {
            item.write(self);
        }
    }

    pub(crate) fn rendered(&mut self, value: &[u8]) {
        self.room(value.len()).copy_from_slice(value);
    }

    pub(crate) fn written(&self) -> &[u8] {
        &self.out[..self.written]
    }
}

/// Writes columns in the order in which they are declared.
pub struct RowWriter<'a>(&'a mut Writer);

impl RowWriter<'_> {
    #[doc(hidden)]
    pub fn member(&mut self, _member: &'static str, value: &impl Column) {
        value.write(self.0);
    }
}

/// The change that is being written, and what is declared.
pub(crate) struct Changes {
    writer: Writer,
    declared: Vec<&'static Shape>,
}

impl Changes {
    pub(crate) fn new(_name: &str, _height: u32, _hash: Hash) -> Changes {
        Changes { writer: Writer::default(), declared: Vec::new() }
    }

    pub(crate) fn change(
        &mut self,
        operation: Operation,
        shape: &'static Shape,
        write: impl FnOnce(&mut RowWriter<'_>),
    ) {
        let number = self.declaration(shape);
        let record = match operation {
            Operation::Create | Operation::Update => 2,
            Operation::Delete => 3,
        };
        self.writer.fixed(record, number.to_le_bytes());
        write(&mut RowWriter(&mut self.writer));
    }

    /// The shape's number. A transform has a few; the one that was used last is looked at first.
    fn declaration(&mut self, shape: &'static Shape) -> u16 {
        let known = self.declared.iter().rposition(|declared| std::ptr::eq(*declared, shape));
        let number = known.unwrap_or_else(|| {
            self.writer.fixed(1, []);
            self.name(shape.table);
            self.writer.room(2).copy_from_slice(&(shape.columns.len() as u16).to_le_bytes());
            shape.columns.iter().for_each(|column| self.name(column));
            self.declared.push(shape);
            self.declared.len() - 1
        });
        // A module with more kinds of rows than that would not fit into memory.
        number as u16
    }

    /// A text with its length in two bytes; PostgreSQL's names have 63 at most.
    fn name(&mut self, name: &str) {
        self.writer.room(2).copy_from_slice(&(name.len() as u16).to_le_bytes());
        self.writer.room(name.len()).copy_from_slice(name.as_bytes());
    }

    /// Each change goes by itself: batches were measured, and were no faster.
    pub(crate) fn hand_over(&mut self, host: &mut Host) {
        host.hand_over(self.writer.written());
        self.writer.written = 0;
    }

    /// What `process_block` returns beside 0: nothing, as all is handed over.
    pub(crate) fn finish(self, _host: &mut Host) -> Vec<u8> {
        Vec::new()
    }
}
