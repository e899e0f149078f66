//! The binary, run in a fresh folder with nothing in its environment but what the test puts there.

use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A run of the binary that is being put together.
pub struct Debshrew {
    command: Command,
    folder: TempDir,
}

/// What a run came to.
#[derive(Debug)]
pub struct Output {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// `debshrew` with these arguments.
pub fn debshrew(arguments: &[&str]) -> Debshrew {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_debshrew"));
    command.args(arguments).current_dir(folder.path()).env_clear().stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    Debshrew { command, folder }
}

impl Debshrew {
    /// Puts this text into `debshrew.toml` in the current folder.
    pub fn file(self, toml: &str) -> Debshrew {
        std::fs::write(self.folder.path().join("debshrew.toml"), toml).unwrap();
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Debshrew {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Output {
        let output = self.command.output().unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
