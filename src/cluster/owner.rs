//! Whose a private server is. PostgreSQL refuses to run as root; then it runs as another user, who needs a
//! folder of its own.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::ClusterError;

/// Users to run as in root's place, the first that exists.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A Unix socket's path has room for 107 bytes (Linux) or 103 (macOS), of which PostgreSQL's part and the
/// temporary folder's own name take some 35.
const LONGEST_PARENT: usize = 60;

/// The variables that a program gets of ours: where programs and libraries are found. All others stay here, since
/// they may hold secrets, and whoever is the server's superuser could read them.
const PASSED_ON: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// A program with nothing of our environment but [`PASSED_ON`].
pub(super) fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    command.envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

/// Who runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Whoever runs us.
    Ourselves,
    Other {
        uid: u32,
        gid: u32,
    },
}

impl Owner {
    /// A program that runs as the owner, in `folder`.
    pub(super) fn command(self, program: &Path, folder: &Path) -> Command {
        let mut command = bare(program);
        command.current_dir(folder);
        if let Owner::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes a file that nobody but the owner (and root) can read.
    pub(super) fn write(self, path: &Path, text: &str) -> Result<(), ClusterError> {
        let written = || {
            let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            match self {
                Owner::Ourselves => Ok(()),
                Owner::Other { uid, gid } => std::os::unix::fs::fchown(&file, Some(uid), Some(gid)),
            }
        };
        written().map_err(ClusterError::system(format!("write `{}`", path.display())))
    }
}

/// A fresh temporary folder, closed to all but the user that it belongs to, and that user.
pub(super) fn folder() -> Result<(TempDir, Owner), ClusterError> {
    let make = |parent: &Path| {
        tempfile::Builder::new()
            .prefix("debshrew-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(ClusterError::system(format!("make a folder in `{}`", parent.display())))
    };
    let usual = std::env::temp_dir();
    let parent = if usual.as_os_str().len() <= LONGEST_PARENT { usual } else { PathBuf::from("/tmp") };
    let folder = make(&parent)?;
    // The folder's owner is who we are.
    let uid = folder.path().metadata().map_err(ClusterError::system("look at a folder just made"))?.uid();
    if uid != 0 {
        return Ok((folder, Owner::Ourselves));
    }
    // Root's own temporary folder may be closed to others; /tmp is not.
    let folder = make(Path::new("/tmp"))?;
    let users = std::fs::read_to_string("/etc/passwd").map_err(ClusterError::system("read `/etc/passwd`"))?;
    let (uid, gid) = USERS.iter().find_map(|user| ids(&users, user)).ok_or(ClusterError::NoUser)?;
    std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid))
        .map_err(ClusterError::system(format!("give `{}` to user {uid}", folder.path().display())))?;
    Ok((folder, Owner::Other { uid, gid }))
}

/// A user's numbers in the format of passwd(5): `name:password:uid:gid:…`.
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_numbers_are_read() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:65534:65533::/:/bin/false\n";
        assert_eq!(ids(users, "nobody"), Some((65534, 65533)));
        assert_eq!(ids(users, "postgres"), None);
        assert_eq!(ids(users, "broken"), None);
    }
}
