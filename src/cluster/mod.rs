//! A private PostgreSQL server: found on the machine, started in a temporary folder, reached through a Unix
//! socket in it alone, and gone with the process that started it, however that ends.
//!
//! Whoever is its superuser can run programs as the user that it runs as. So the folder and the socket are closed to
//! all other users, a password that is made anew each time is asked for, and no process that is started sees our
//! environment.
//!
//! For tests and the demo. Knows nothing of what its databases are for. Everything here blocks.

mod owner;
mod programs;
mod watchdog;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::failure::Kind;
use owner::Owner;
use programs::Programs;
use watchdog::Watchdog;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "found no PostgreSQL server programs (`initdb`, `pg_ctl`, `postgres`) on PATH, by `pg_config --bindir`, or in \
         the usual folders; on Debian and Ubuntu they come with the package `postgresql`, elsewhere put their \
         folder on PATH"
    )]
    NoPrograms,
    #[error("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")]
    NoUser,
    #[error("the system gives no random bytes for a password")]
    NoRandomBytes,
    #[error("cannot {what}")]
    System {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{program}` failed: {output}")]
    Program { program: String, output: String },
}

impl ClusterError {
    pub fn kind(&self) -> Kind {
        match self {
            // None of this passes by itself.
            ClusterError::NoPrograms
            | ClusterError::NoUser
            | ClusterError::NoRandomBytes
            | ClusterError::System { .. }
            | ClusterError::Program { .. } => Kind::Permanent,
        }
    }

    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ClusterError {
        let what = what.into();
        move |source| ClusterError::System { what, source }
    }
}

/// How a server is stopped. Source: PostgreSQL's manual, "Shutting Down the Server".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions and writes everything to disk.
    Fast,
    /// As a crash does: the next start has to recover.
    Immediate,
}

/// A running server (unless stopped), which is removed with its data when this is dropped or its process ends.
pub struct Cluster {
    // Dropped in this order: the watchdog stops the server and empties the folder, then the folder goes.
    _watchdog: Watchdog,
    folder: TempDir,
    programs: Programs,
    owner: Owner,
    password: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("folder", &self.folder.path()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes and starts a server with these settings of `postgresql.conf` beside the usual ones. Its superuser is
    /// `postgres`.
    pub fn start(settings: &[(&str, &str)]) -> Result<Cluster, ClusterError> {
        let programs = Programs::find()?;
        let (folder, owner) = owner::folder()?;
        let watchdog = Watchdog::start(&programs.pg_ctl(), folder.path(), &owner)?;
        let cluster = Cluster { _watchdog: watchdog, folder, programs, owner, password: password()? };
        cluster.make_data(settings)?;
        cluster.start_again()?;
        Ok(cluster)
    }

    /// A URL for a database of this server, with the password in it: to be passed on, not to be shown.
    pub fn dsn(&self, database: &str) -> String {
        format!("{}&password={}", self.url(database), self.password)
    }

    /// A URL for `psql`, which finds the password in a file that only the server's user and root can read.
    pub fn psql_dsn(&self, database: &str) -> String {
        format!("{}&passfile={}", self.url(database), escape(&self.passfile().to_string_lossy()))
    }

    fn url(&self, database: &str) -> String {
        let folder = escape(&self.folder.path().to_string_lossy());
        format!("postgresql:///{}?host={folder}&port=5432&user=postgres", escape(database))
    }

    /// Stops the server and waits until it has ended; the data stay.
    pub fn stop(&self, how: Stop) -> Result<(), ClusterError> {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let mut stop = self.command(&self.programs.pg_ctl());
        stop.args(["stop", "--wait", "--timeout=120", "--mode", mode, "--pgdata"]).arg(self.data());
        run(stop)
    }

    /// Starts the server after [`Cluster::stop`] and waits until it accepts connections.
    pub fn start_again(&self) -> Result<(), ClusterError> {
        let mut start = self.command(&self.programs.pg_ctl());
        start.args(["start", "--wait", "--timeout=120", "--silent", "--log"]).arg(self.log());
        start.arg("--pgdata").arg(self.data());
        run(start).map_err(|error| match error {
            ClusterError::Program { program, output } => {
                ClusterError::Program { program, output: format!("{output}\n{}", self.end_of_log()) }
            }
            other => other,
        })
    }

    /// The folder that holds the socket, the data and the server's log; belongs to the server's user.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// In libpq's format, for any server: nobody else's password is in it.
    fn passfile(&self) -> PathBuf {
        self.folder.path().join("pgpass")
    }

    fn make_data(&self, settings: &[(&str, &str)]) -> Result<(), ClusterError> {
        self.owner.write(&self.passfile(), &format!("*:*:*:postgres:{}\n", self.password))?;
        let given = self.folder.path().join("password");
        self.owner.write(&given, &self.password)?;
        let mut init = self.command(&self.programs.initdb());
        init.args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
        init.arg("--no-sync").arg("--pwfile").arg(&given).arg("--pgdata").arg(self.data());
        run(init)?;
        std::fs::remove_file(&given)
            .map_err(ClusterError::system(format!("remove `{}`", given.display())))?;
        let folder = self.folder.path().to_string_lossy();
        let usual = [
            ("listen_addresses", ""),
            ("unix_socket_directories", &*folder),
            ("unix_socket_permissions", "0700"),
            ("port", "5432"),
        ];
        let mut text = String::new();
        for (name, value) in usual.iter().chain(settings) {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let path = self.data().join("postgresql.conf");
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(ClusterError::system(format!("write `{}`", path.display())))
    }

    fn command(&self, program: &Path) -> Command {
        self.owner.command(program, self.folder.path())
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// 128 random bits in hex digits.
fn password() -> Result<String, ClusterError> {
    let mut bytes = [0; 16];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| ClusterError::NoRandomBytes)?;
    Ok(hex::encode(bytes))
}

fn run(mut command: Command) -> Result<(), ClusterError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(ClusterError::system(format!("run `{program}`")))?;
    if status.success() {
        return Ok(());
    }
    let output = [stderr, stdout].map(|text| String::from_utf8_lossy(&text).trim().to_owned()).join("\n");
    Err(ClusterError::Program { program, output: format!("{status}\n{}", output.trim()) })
}

/// Percent-encodes what is not a letter, a digit or one of `-._/`.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_urls() {
        assert_eq!(escape("/tmp/a_b-1.c"), "/tmp/a_b-1.c");
        assert_eq!(escape("a b?&=%ä"), "a%20b%3F%26%3D%25%C3%A4");
    }
}
