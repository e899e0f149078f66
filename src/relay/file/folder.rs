//! The folder of a sink: which files are in it, and that nobody else writes there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::excerpt;
use crate::relay::sink::SinkError;

const LOCK: &str = "debshrew.lock";

/// So long a lock is waited for: what this process began before may take a moment to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a file of a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Rows, still written to.
    Open,
    /// Rows, all of them committed.
    Closed,
    /// The same, compressed.
    Packed,
    /// About to be the same.
    Packing,
    /// Where steps begin and end.
    Transactions,
}

impl Part {
    const ALL: [Part; 5] = [Part::Open, Part::Closed, Part::Packed, Part::Packing, Part::Transactions];

    fn ending(self) -> &'static str {
        match self {
            Part::Open => ".jsonl.part",
            Part::Closed => ".jsonl",
            Part::Packed => ".jsonl.zst",
            Part::Packing => ".jsonl.zst.part",
            Part::Transactions => ".transactions.jsonl",
        }
    }

    fn name(self, number: u64) -> String {
        format!("{number:012}{}", self.ending())
    }

    fn of(name: &str) -> Option<(u64, Part)> {
        let (digits, _) = name.split_once('.')?;
        let number = digits.parse().ok()?;
        Part::ALL.into_iter().find(|part| part.name(number) == name).map(|part| (number, part))
    }
}

/// The files of each segment.
pub(super) type Segments = BTreeMap<u64, BTreeSet<Part>>;

/// A folder that is this sink's alone, as long as this lives.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, but none above it. `owner` names the sink.
    pub(super) fn open(path: &Path, owner: &str) -> Result<Folder, SinkError> {
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("make the folder", path, error)),
        }
        let lock_path = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| failed("open the lock file", &lock_path, error))?;
        take(&lock, path)?;
        if read_owner(&mut lock, path, owner)?.is_none() {
            lock.write_all(format!("{owner}\n").as_bytes())
                .and_then(|()| lock.sync_all())
                .map_err(|error| failed("write the lock file", &lock_path, error))?;
        }
        Ok(Folder { path: path.to_owned(), _lock: lock })
    }

    /// The files of each segment.
    pub(super) fn segments(&self) -> Result<Segments, SinkError> {
        segments(&self.path)
    }

    pub(super) fn path(&self, number: u64, part: Part) -> PathBuf {
        self.path.join(part.name(number))
    }

    /// A new file, empty.
    pub(super) fn create(&self, number: u64, part: Part) -> Result<File, SinkError> {
        let path = self.path(number, part);
        OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| failed("make", &path, error))
    }

    /// A file that is there, cut to a length, and at its end.
    pub(super) fn cut(&self, number: u64, part: Part, length: u64) -> Result<File, SinkError> {
        let path = self.path(number, part);
        let cut = || {
            let file = OpenOptions::new().append(true).open(&path)?;
            if file.metadata()?.len() != length {
                file.set_len(length)?;
            }
            // It may have been written by a process that did not get to this.
            file.sync_all()?;
            Ok(file)
        };
        cut().map_err(|error| failed("cut back", &path, error))
    }

    pub(super) fn length(&self, number: u64, part: Part) -> Result<u64, SinkError> {
        let path = self.path(number, part);
        let found = fs::metadata(&path).map_err(|error| failed("look at", &path, error))?;
        Ok(found.len())
    }

    pub(super) fn rename(&self, number: u64, from: Part, to: Part) -> Result<(), SinkError> {
        let path = self.path(number, from);
        fs::rename(&path, self.path(number, to)).map_err(|error| failed("rename", &path, error))
    }

    pub(super) fn remove(&self, number: u64, part: Part) -> Result<(), SinkError> {
        let path = self.path(number, part);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", &path, error)),
            _ => Ok(()),
        }
    }

    /// Once this returns, what was made, renamed and removed outlives a crash.
    pub(super) fn sync(&self) -> Result<(), SinkError> {
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("sync the folder", &self.path, error))
    }
}

/// Looks whether a sink could write there. Returns what is worth saying.
pub(super) fn check(path: &Path, owner: &str) -> Result<Vec<String>, SinkError> {
    if !path.try_exists().map_err(|error| failed("look at", path, error))? {
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fits(above)?;
        return Ok(vec![format!("the folder `{}` will be made", path.display())]);
    }
    fits(path)?;
    let found = segments(path)?;
    let lock_path = path.join(LOCK);
    match File::open(&lock_path) {
        Ok(mut lock) => drop(read_owner(&mut lock, path, owner)?),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed("open the lock file", &lock_path, error)),
    }
    Ok(found.keys().next_back().map(|last| format!("the last segment is {last}")).into_iter().collect())
}

/// Whether a file can be made in the folder: one without a name, so that nobody sees it.
fn fits(folder: &Path) -> Result<(), SinkError> {
    tempfile::tempfile_in(folder).map(drop).map_err(|error| failed("write to the folder", folder, error))
}

fn segments(folder: &Path) -> Result<Segments, SinkError> {
    let failed = |error| failed("read the folder", folder, error);
    let mut segments = Segments::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // A file system of its own may have a `lost+found`.
        if name == LOCK || name == "lost+found" {
            continue;
        }
        let Some((number, part)) = name.to_str().and_then(Part::of) else {
            let message = format!("`{}` is not a file of this sink", folder.join(&name).display());
            let advice = "move it away, or give the sink a folder of its own (`path`)";
            return Err(SinkError::permanent(message).advise(advice));
        };
        segments.entry(number).or_default().insert(part);
    }
    Ok(segments)
}

/// Whose folder it is: this sink's, or nobody's yet.
fn read_owner(lock: &mut File, folder: &Path, owner: &str) -> Result<Option<()>, SinkError> {
    let mut found = String::new();
    let read = lock.take(1 << 10).read_to_string(&mut found);
    read.map_err(|error| failed("read the lock file of", folder, error))?;
    match found.trim_end() {
        "" => Ok(None),
        same if same == owner => Ok(Some(())),
        other => {
            let whose = excerpt(other);
            let message = format!("the folder `{}` is that of another sink: {whose}", folder.display());
            Err(SinkError::permanent(message).advise("give each sink a folder of its own (`path`)"))
        }
    }
}

fn take(lock: &File, path: &Path) -> Result<(), SinkError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let message = format!(
                    "another process, or another sink of this one, writes to the folder `{}`",
                    path.display()
                );
                return Err(SinkError::transient(message)
                    .advise("end it, or give each sink a folder of its own (`path`)"));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock the folder", path, error)),
        }
    }
}

/// What could not be done with a file, and what to do about it.
pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> SinkError {
    let message = format!("cannot {what} `{}`", path.display());
    let error_of = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => SinkError::transient(message)
            .advise("the disk is full: make room, or move finished segments away"),
        ErrorKind::NotFound => SinkError::permanent(message)
            .advise("is it mounted? Only the last folder of `path` is made when it is not there"),
        ErrorKind::PermissionDenied => {
            SinkError::permanent(message).advise("let debshrew's user write there, or choose another `path`")
        }
        ErrorKind::ReadOnlyFilesystem => {
            SinkError::permanent(message).advise("mount it for writing, or choose another `path`")
        }
        ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::InvalidInput => {
            SinkError::permanent(message).advise("name a folder in `path` that holds nothing else")
        }
        _ => SinkError::transient(message),
    };
    error_of.because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        let kind = |kind: ErrorKind| {
            let error = failed("write to", Path::new("out/x"), io::Error::from(kind));
            assert_eq!(error.message, "cannot write to `out/x`");
            assert!(error.source.is_some());
            (error.kind, error.advice.unwrap_or_default())
        };
        assert_eq!(kind(ErrorKind::Other), (Kind::Transient, String::new()));
        for full in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let (kind, advice) = kind(full);
            assert!(kind == Kind::Transient && advice.contains("make room"), "{advice}");
        }
        for lasting in [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let (kind, advice) = kind(lasting);
            assert!(kind == Kind::Permanent && !advice.is_empty(), "{lasting:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for part in Part::ALL {
            for number in [1, 42, 999_999_999_999, 1_000_000_000_000] {
                assert_eq!(Part::of(&part.name(number)), Some((number, part)));
            }
        }
        for name in
            ["1.jsonl", "000000000001.json", "x.jsonl", "000000000001.jsonl.gz", "00000000001.jsonl", ""]
        {
            assert_eq!(Part::of(name), None, "{name}");
        }
    }
}
