//! Compresses closed segments, beside the stream.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use ruzstd::encoding::{CompressionLevel, compress};

use super::folder::{Folder, Part, failed};
use crate::failure::chain;
use crate::relay::sink::SinkError;

/// A thread that compresses one segment after another. It holds on to the folder until it has ended, soon after this is
/// dropped; what it did not get to is compressed the next time.
pub(super) struct Packer {
    numbers: Sender<u64>,
    stop: Arc<AtomicBool>,
}

impl Packer {
    pub(super) fn new(folder: Arc<Folder>) -> Packer {
        let (numbers, due) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        std::thread::spawn(move || run(&folder, &due, &told));
        Packer { numbers, stop }
    }

    pub(super) fn pack(&self, number: u64) {
        // Without a thread, it stays as it is.
        let _ = self.numbers.send(number);
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn run(folder: &Folder, due: &Receiver<u64>, stop: &AtomicBool) {
    for number in due {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = pack(folder, number, stop) {
            // The rows are there all the same.
            tracing::warn!(
                reason = chain(&error),
                hint = error.advice,
                "cannot compress a segment; it stays as it is"
            );
        }
    }
}

fn pack(folder: &Folder, number: u64, stop: &AtomicBool) -> Result<(), SinkError> {
    let (from, to) = (folder.path(number, Part::Closed), folder.path(number, Part::Packing));
    let from = File::open(&from).map_err(|error| failed("open", &from, error))?;
    folder.remove(number, Part::Packing)?;
    let mut out = Steady::new(BufWriter::new(folder.create(number, Part::Packing)?));
    let mut rows = Stopped { rows: Steady::new(from), stop };
    compress(&mut rows, &mut out, CompressionLevel::Fastest);
    let written = rows.rows.end().and_then(|_| out.end()?.into_inner()?.sync_all());
    if stop.load(Ordering::Relaxed) {
        return folder.remove(number, Part::Packing);
    }
    if let Err(error) = written {
        folder.remove(number, Part::Packing)?;
        return Err(failed("write", &to, error));
    }
    folder.rename(number, Part::Packing, Part::Packed)?;
    folder.sync()?;
    folder.remove(number, Part::Closed)?;
    folder.sync()
}

/// Keeps the first error, and then goes on as if nothing were left: the compressor panics at one.
struct Steady<T> {
    inner: T,
    error: Option<io::Error>,
}

impl<T> Steady<T> {
    fn new(inner: T) -> Steady<T> {
        Steady { inner, error: None }
    }

    fn end(self) -> io::Result<T> {
        self.error.map_or(Ok(self.inner), Err)
    }
}

impl<T: Read> Read for Steady<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.error.get_or_insert(error);
                    return Ok(0);
                }
                read => return read,
            }
        }
    }
}

impl<T: Write> Write for Steady<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_none() {
            self.error = self.inner.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.error.is_none() {
            self.error = self.inner.flush().err();
        }
        Ok(())
    }
}

/// Ends when it is told to.
struct Stopped<'a> {
    rows: Steady<File>,
    stop: &'a AtomicBool,
}

impl Read for Stopped<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) { Ok(0) } else { self.rows.read(bytes) }
    }
}
