//! Binary interface version 1: changes are JSON, written right where the host will read them, one after another
//! into one buffer: in an interpreter every pass over the bytes is felt.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod read;
#[cfg(target_arch = "wasm32")]
pub(crate) mod wasm;

use crate::block::Operation;
use crate::hash::HEX;
use crate::{Column, Hash, Host, Shape};

/// Takes one value.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    pub fn bool(&mut self, truth: bool) {
        self.out.extend_from_slice(if truth { b"true" } else { b"false" });
    }

    pub fn signed(&mut self, integer: i64) {
        if integer < 0 {
            self.out.push(b'-');
        }
        self.unsigned(integer.unsigned_abs());
    }

    pub fn unsigned(&mut self, integer: u64) {
        // 20 digits are the most that 64 bits take.
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = integer;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[start..]);
    }

    pub fn wide(&mut self, integer: i128) {
        match i64::try_from(integer) {
            Ok(integer) => self.signed(integer),
            Err(_) => self.number(&integer.to_string()),
        }
    }

    /// Infinities and NaN as the text that PostgreSQL has for them.
    pub fn float(&mut self, float: f64) {
        if float.is_finite() {
            // The shortest digits that give the same number again.
            self.number(&format!("{float:?}"));
        } else if float.is_nan() {
            self.text("NaN");
        } else {
            self.text(if float > 0.0 { "Infinity" } else { "-Infinity" });
        }
    }

    /// A number in JSON's notation, with all its digits.
    pub fn number(&mut self, digits: &str) {
        self.out.extend_from_slice(digits.as_bytes());
    }

    pub fn text(&mut self, text: &str) {
        let out = &mut self.out;
        out.push(b'"');
        let bytes = text.as_bytes();
        let mut copied = 0;
        for (place, byte) in bytes.iter().enumerate() {
            if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            out.extend_from_slice(&bytes[copied..place]);
            copied = place + 1;
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
                _ => {
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&HEX[usize::from(*byte)]);
                }
            }
        }
        out.extend_from_slice(&bytes[copied..]);
        out.push(b'"');
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        let out = &mut self.out;
        out.extend_from_slice(b"\"\\\\x");
        let start = out.len();
        out.resize(start + 2 * bytes.len(), 0);
        for (digits, byte) in out[start..].chunks_exact_mut(2).zip(bytes) {
            digits.copy_from_slice(&HEX[usize::from(*byte)]);
        }
        out.push(b'"');
    }

    /// A whole JSON text.
    pub fn json(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    pub fn array<T: Column>(&mut self, items: &[T]) {
        self.out.push(b'[');
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            item.write(self);
        }
        self.out.push(b']');
    }

    pub(crate) fn rendered(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }

    pub(crate) fn written(&self) -> &[u8] {
        &self.out
    }
}

/// Writes columns as members of a JSON object.
pub struct RowWriter<'a> {
    out: &'a mut Writer,
    empty: bool,
}

impl RowWriter<'_> {
    /// `member` is a comma, the column's name in quotes, and a colon, as the macro knows them beforehand.
    #[doc(hidden)]
    pub fn member(&mut self, member: &'static str, value: &impl Column) {
        let member = if self.empty { &member[1..] } else { member };
        self.empty = false;
        self.out.json(member);
        value.write(self.out);
    }
}

/// The list of a block's changes.
pub(crate) struct Changes {
    writer: Writer,
    /// What every message begins with.
    header: Vec<u8>,
}

/// Before the changes stands their length, which the host reads.
const LENGTH_BYTES: usize = 4;

impl Changes {
    pub(crate) fn new(name: &str, height: u32, hash: Hash) -> Changes {
        let mut header = Writer::default();
        header.json("{\"header\":{\"source\":");
        header.text(name);
        header.json(",\"block_height\":");
        header.unsigned(height.into());
        header.json(",\"block_hash\":\"");
        header.json(&crate::hash::hex(&hash.0));
        header.json("\"},\"payload\":{\"operation\":\"");
        Changes { writer: Writer { out: vec![0; LENGTH_BYTES] }, header: header.out }
    }

    pub(crate) fn change(
        &mut self,
        operation: Operation,
        shape: &'static Shape,
        write: impl FnOnce(&mut RowWriter<'_>),
    ) {
        let (operation, image) = match operation {
            Operation::Create => ("create\",\"table\":", ",\"after\":{"),
            Operation::Update => ("update\",\"table\":", ",\"after\":{"),
            Operation::Delete => ("delete\",\"table\":", ",\"before\":{"),
        };
        let first = self.writer.out.len() == LENGTH_BYTES;
        self.writer.out.push(if first { b'[' } else { b',' });
        self.writer.out.extend_from_slice(&self.header);
        self.writer.json(operation);
        self.writer.text(shape.table);
        self.writer.json(image);
        write(&mut RowWriter { out: &mut self.writer, empty: true });
        self.writer.json("}}}");
    }

    /// The list is handed over at the end, as a whole.
    pub(crate) fn hand_over(&mut self, _host: &mut Host) {}

    /// What `process_block` returns: the list's length (4 bytes, little-endian), then the JSON; nothing when there
    /// are no changes.
    pub(crate) fn finish(self, _host: &mut Host) -> Vec<u8> {
        let mut out = self.writer.out;
        if out.len() == LENGTH_BYTES {
            return Vec::new();
        }
        out.push(b']');
        let length = (out.len() - LENGTH_BYTES) as u32;
        out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        out
    }
}
