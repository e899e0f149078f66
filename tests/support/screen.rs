//! A terminal with the binary on it: what it shows, and what is typed there.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::until;

const ROWS: u16 = 24;

pub struct Screen {
    child: Child,
    shown: Arc<Mutex<Shown>>,
    /// Which file names the terminal.
    tty: PathBuf,
}

struct Shown {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

impl Screen {
    /// `script` makes the terminal; what the binary writes there comes by its standard output.
    pub fn start(folder: &Path, arguments: &[&str], columns: u16, variables: &[(&str, &str)]) -> Screen {
        let tty = folder.join("tty");
        let binary = env!("CARGO_BIN_EXE_debshrew");
        let line = format!(
            "tty > '{}'; stty rows {ROWS} columns {columns}; exec '{binary}' {}",
            tty.display(),
            arguments.join(" ")
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .current_dir(folder)
            .env_clear()
            .envs([
                ("PATH", std::env::var("PATH").unwrap()),
                ("TERM", "xterm".into()),
                ("SHELL", "/bin/sh".into()),
            ])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Shown { parser: vt100::Parser::new(ROWS, columns, 500), bytes: Vec::new() };
        let shown = Arc::new(Mutex::new(shown));
        let (mut out, to) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                let mut shown = to.lock().unwrap();
                shown.parser.process(&bytes[..count]);
                shown.bytes.extend(&bytes[..count]);
            }
        });
        Screen { child, shown, tty }
    }

    /// The lines that it shows now, those at the end that are empty aside.
    pub fn lines(&self) -> Vec<String> {
        let shown = self.shown.lock().unwrap();
        shown.parser.screen().contents().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// All that was written to it.
    pub fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap().bytes).into_owned()
    }

    /// The row and column in which the cursor stands.
    pub fn cursor(&self) -> (u16, u16) {
        self.shown.lock().unwrap().parser.screen().cursor_position()
    }

    pub async fn shows(&self, what: &str, is_shown: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        until(what, async || {
            lines = self.lines();
            is_shown(&lines)
        })
        .await;
        lines
    }

    /// Waits until a line has these words.
    pub async fn says(&self, words: &str) -> Vec<String> {
        self.shows(words, |lines| lines.iter().any(|line| line.contains(words))).await
    }

    pub fn type_in(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub fn resize(&self, columns: u16) {
        self.shown.lock().unwrap().parser.screen_mut().set_size(ROWS, columns);
        let tty = std::fs::read_to_string(&self.tty).unwrap();
        let resized = Command::new("stty").args(["-F", tty.trim(), "columns", &columns.to_string()]).status();
        assert!(resized.unwrap().success());
    }

    /// Waits for the end of what runs on it; its exit code.
    pub async fn ended(&mut self) -> i32 {
        let mut code = None;
        until("it has ended", async || {
            code = self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1));
            code.is_some()
        })
        .await;
        code.unwrap()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.lines().join("\n"));
        }
        // The terminal goes with it, and with that whatever runs there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
