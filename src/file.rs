//! Reads the files that a user names: regular ones, and none that is larger than its kind may be.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// What a file is read for.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The largest that is read, in MiB.
    most: u64,
    /// What to do about one that is larger.
    advice: &'static str,
}

pub const CONFIGURATION: Kind = Kind { most: 1, advice: "is another file meant?" };
pub const MODULE: Kind =
    Kind { most: 16, advice: "build it with `--release`, and without debug information (`strip = true`)" };
pub const CERTIFICATES: Kind = Kind { most: 16, advice: "name one with the authorities that are needed" };
pub const MIGRATION: Kind = Kind { most: 64, advice: "spread it over several files" };
pub const BLOCKS: Kind = Kind { most: 1024, advice: "cut it between two blocks" };

/// All of a file.
pub fn read(path: &Path, kind: Kind) -> Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    // It may grow while it is read, and not all files say how long they are.
    file.take(kind.bytes() + 1).read_to_end(&mut bytes)?;
    kind.check_length(bytes.len() as u64)?;
    Ok(bytes)
}

/// All of a file that is text.
pub fn read_text(path: &Path, kind: Kind) -> Result<String> {
    String::from_utf8(read(path, kind)?)
        .map_err(|error| Error::new(ErrorKind::InvalidData, format!("it is not UTF-8 text: {error}")))
}

/// Whether it could be read, for whoever reads it otherwise.
pub fn check(path: &Path, kind: Kind) -> Result<()> {
    let found = std::fs::metadata(path)?;
    check_type(&found)?;
    kind.check_length(found.len())
}

impl Kind {
    fn bytes(self) -> u64 {
        self.most << 20
    }

    fn check_length(self, bytes: u64) -> Result<()> {
        if bytes <= self.bytes() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::FileTooLarge,
            format!(
                "it is larger than {} MiB, the most that is read of such a file; {}",
                self.most, self.advice
            ),
        ))
    }
}

fn open(path: &Path) -> Result<File> {
    check_type(&std::fs::metadata(path)?)?;
    // Should it have become a pipe just now, opening it does not wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    check_type(&file.metadata()?)?;
    Ok(file)
}

fn check_type(found: &Metadata) -> Result<()> {
    let found = found.file_type();
    let what = match () {
        () if found.is_file() => return Ok(()),
        () if found.is_dir() => "a folder",
        () if found.is_fifo() => "a pipe",
        () if found.is_socket() => "a socket",
        () => "a device",
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("it is {what}; name a regular file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("text"), "abc").unwrap();
        assert_eq!(read_text(&path("text"), CONFIGURATION).unwrap(), "abc");
        std::fs::write(path("bytes"), [0xff]).unwrap();
        assert!(read_text(&path("bytes"), CONFIGURATION).unwrap_err().to_string().contains("not UTF-8"));
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        File::create(path("large")).unwrap().set_len((1 << 20) + 1).unwrap();
        let large = "it is larger than 1 MiB, the most that is read of such a file; is another file meant?";
        for (path, problem) in [
            (path("pipe"), "it is a pipe; name a regular file"),
            (path("socket"), "it is a socket; name a regular file"),
            (path("large"), large),
            (folder.path().to_owned(), "it is a folder; name a regular file"),
            ("/dev/zero".into(), "it is a device; name a regular file"),
        ] {
            assert_eq!(read(&path, CONFIGURATION).unwrap_err().to_string(), problem);
            assert_eq!(check(&path, CONFIGURATION).unwrap_err().to_string(), problem);
        }
        assert_eq!(read(&path("none"), MODULE).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
