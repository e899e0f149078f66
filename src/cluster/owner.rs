//! Whose a private server is. PostgreSQL refuses to run as root; then it runs as another user, who needs a
//! folder of its own.

use std::os::unix::fs::MetadataExt;
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
    /// A program that runs as the owner, in `folder`, with none of the variables that libpq heeds.
    pub(super) fn command(self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).env("LC_ALL", "C");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        if let Owner::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// A fresh temporary folder and the user that it belongs to.
pub(super) fn folder() -> Result<(TempDir, Owner), ClusterError> {
    let make = |parent: &Path| {
        tempfile::Builder::new()
            .prefix("debshrew-")
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
