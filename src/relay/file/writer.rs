//! Writes steps into segments, and finds out where the stream ended.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use super::folder::{Folder, Part, failed};
use super::pack::Packer;
use super::transactions::{self, End, last_end};
use crate::config;
use crate::register::Cursor;
use crate::relay::sink::{Position, SinkError};
use crate::relay::step::Step;

/// A folder, open for writing.
pub(super) struct Writer {
    folder: Arc<Folder>,
    rotate: config::Rotate,
    packer: Option<Packer>,
    /// The segment that is written to.
    open: Option<Segment>,
    /// The number of the next one.
    next: u64,
    /// Segments that are full, but of a snapshot that is not whole yet.
    waiting: Vec<u64>,
    /// Lines that end steps whose rows may not be on disk yet.
    pending: Vec<u8>,
    /// Whether the last of them completes something.
    completes: bool,
}

struct Segment {
    number: u64,
    rows: File,
    transactions: File,
    /// How long they are, what is pending included.
    bytes: u64,
    transaction_bytes: u64,
    begun: SystemTime,
}

impl Writer {
    /// Puts away what was not completed. Returns as well where the stream stands.
    pub(super) fn open(settings: &config::File, owner: &str) -> Result<(Writer, Position), SinkError> {
        let folder = Arc::new(Folder::open(&settings.path, owner)?);
        let packer = match settings.compression {
            config::Compression::None => None,
            config::Compression::Zstd => Some(Packer::new(Arc::clone(&folder))),
        };
        let mut writer = Writer {
            folder,
            rotate: settings.rotate,
            packer,
            open: None,
            next: 1,
            waiting: Vec::new(),
            pending: Vec::new(),
            completes: false,
        };
        let cursor = writer.recover()?;
        Ok((writer, cursor.map_or(Position::Empty, Position::At)))
    }

    fn recover(&mut self) -> Result<Option<Cursor>, SinkError> {
        let mut segments = self.folder.segments()?;
        let mut cursor = None;
        // From above: what lies over the last completed step was not completed.
        while let Some((number, parts)) = segments.last_key_value() {
            let number = *number;
            if let Some(end) =
                self.last_end(number, parts.contains(&Part::Transactions), |end| end.cursor.is_some())?
            {
                cursor = end.cursor;
                self.resume(number, end)?;
                break;
            }
            self.discard(number, parts.contains(&Part::Closed) || parts.contains(&Part::Packed))?;
            segments.pop_last();
        }
        let below = segments.iter().rev().skip(usize::from(cursor.is_some()));
        for (number, parts) in below {
            if parts.contains(&Part::Open) {
                // Its snapshot became whole, and then there was no time to say so.
                if let Some(end) = self.last_end(*number, parts.contains(&Part::Transactions), |_| true)? {
                    self.check_length(*number, end)?;
                    self.folder.cut(*number, Part::Open, end.bytes)?;
                    self.close(*number)?;
                }
            }
        }
        for (number, parts) in &segments {
            self.folder.remove(*number, Part::Packing)?;
            if parts.contains(&Part::Packed) && parts.contains(&Part::Closed) {
                self.folder.remove(*number, Part::Closed)?;
            } else if parts.contains(&Part::Closed) {
                self.packer.iter().for_each(|packer| packer.pack(*number));
            }
        }
        self.folder.sync()?;
        Ok(cursor)
    }

    fn last_end(
        &self,
        number: u64,
        is_there: bool,
        wanted: impl Fn(&End) -> bool,
    ) -> Result<Option<End>, SinkError> {
        if !is_there {
            return Ok(None);
        }
        let path = self.folder.path(number, Part::Transactions);
        let found = File::open(&path).and_then(|file| last_end(&file, wanted));
        found.map_err(|error| failed("read", &path, error))
    }

    /// Goes on with the segment that has the last completed step.
    fn resume(&mut self, number: u64, end: End) -> Result<(), SinkError> {
        self.next = number + 1;
        let segments = self.folder.segments()?;
        let parts = segments.get(&number);
        let has = |part| parts.is_some_and(|parts| parts.contains(&part));
        if has(Part::Closed) || has(Part::Packed) {
            return Ok(());
        }
        if !has(Part::Open) {
            let path = self.folder.path(number, Part::Open);
            let message = format!("the rows of the last segment are gone: there is no `{}`", path.display());
            let advice = "put it back; only segments below the last one may be taken away";
            return Err(SinkError::permanent(message).advise(advice));
        }
        self.check_length(number, end)?;
        let transactions = self.folder.cut(number, Part::Transactions, end.at)?;
        let begun = transactions.metadata().and_then(|found| found.created().or_else(|_| found.modified()));
        self.open = Some(Segment {
            number,
            rows: self.folder.cut(number, Part::Open, end.bytes)?,
            transactions,
            bytes: end.bytes,
            transaction_bytes: end.at,
            begun: begun.unwrap_or_else(|_| SystemTime::now()),
        });
        Ok(())
    }

    fn check_length(&self, number: u64, end: End) -> Result<(), SinkError> {
        let length = self.folder.length(number, Part::Open)?;
        if length >= end.bytes {
            return Ok(());
        }
        let path = self.folder.path(number, Part::Open);
        let message = format!(
            "`{}` has lost rows: it has {length} bytes, and {} were committed",
            path.display(),
            end.bytes
        );
        Err(SinkError::permanent(message)
            .advise("put it back from a copy, or begin the stream again in another folder"))
    }

    /// Takes a segment away in which nothing was completed.
    fn discard(&mut self, number: u64, is_closed: bool) -> Result<(), SinkError> {
        if is_closed {
            let path = self.folder.path(number, Part::Transactions);
            let message =
                format!("segment {number} is closed, and `{}` does not say what it holds", path.display());
            return Err(SinkError::permanent(message).advise("put that file back, or move the segment away"));
        }
        for part in [Part::Packing, Part::Open, Part::Transactions] {
            self.folder.remove(number, part)?;
        }
        Ok(())
    }

    /// Takes a step: its rows, as lines.
    pub(super) fn publish(&mut self, step: &Step, rows: &[u8]) -> Result<(), SinkError> {
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let Some(segment) = &mut self.open else { return Ok(()) };
        if let Err(error) = segment.rows.write_all(rows) {
            return Err(failed("write to", &self.folder.path(segment.number, Part::Open), error));
        }
        segment.bytes += rows.len() as u64;
        let before = self.pending.len();
        transactions::write(step, segment.bytes, &mut self.pending);
        segment.transaction_bytes += (self.pending.len() - before) as u64;
        self.completes = step.completes();
        let is_full = segment.bytes.saturating_add(segment.transaction_bytes) >= self.rotate.bytes;
        let is_old = segment.begun.elapsed().is_ok_and(|age| age >= self.rotate.age);
        if is_full || is_old { self.turn() } else { Ok(()) }
    }

    fn begin(&mut self) -> Result<Segment, SinkError> {
        let number = self.next;
        let segment = Segment {
            number,
            transactions: self.folder.create(number, Part::Transactions)?,
            rows: self.folder.create(number, Part::Open)?,
            bytes: 0,
            transaction_bytes: 0,
            begun: SystemTime::now(),
        };
        self.folder.sync()?;
        self.next += 1;
        Ok(segment)
    }

    /// Once this returns, all steps that were taken are on disk.
    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let Some(segment) = &mut self.open else { return Ok(()) };
        let at = |part| self.folder.path(segment.number, part);
        segment.rows.sync_data().map_err(|error| failed("sync", &at(Part::Open), error))?;
        // These lines commit: they must not be on disk before the rows are.
        segment
            .transactions
            .write_all(&self.pending)
            .and_then(|()| segment.transactions.sync_data())
            .map_err(|error| failed("write to", &at(Part::Transactions), error))?;
        self.pending.clear();
        if self.completes {
            for number in std::mem::take(&mut self.waiting) {
                self.close(number)?;
            }
        }
        Ok(())
    }

    /// Ends the segment; the next step begins another.
    fn turn(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        let Some(segment) = self.open.take() else { return Ok(()) };
        if self.completes {
            self.close(segment.number)
        } else {
            self.waiting.push(segment.number);
            Ok(())
        }
    }

    fn close(&self, number: u64) -> Result<(), SinkError> {
        self.folder.rename(number, Part::Open, Part::Closed)?;
        self.folder.sync()?;
        self.packer.iter().for_each(|packer| packer.pack(number));
        Ok(())
    }
}
