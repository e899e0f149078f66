//! The console: on a terminal with lines at its bottom, on a pipe that nobody empties, and on one that is closed. What writes
//! there is this test's own program, started again.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use debshrew::config::Destination;
use debshrew::failure::Kind;
use debshrew::relay::{Position, Sink, Step, StepKind, open};
use debshrew::terminal;
use serde_json::Value;

use crate::support::DEADLINE;

use super::steps::{about, apply, balances, block, cursor, event, moment, settings};

fn sink() -> Box<dyn Sink> {
    open(&settings(Destination::Console), &about()).unwrap()
}

fn created(height: u32, note: &str) -> Step {
    let address = format!("address{height}");
    let row = event(&balances(), None, Some(&[Some(&address), Some("1"), Some(note)]));
    apply(block(height, 0), None, 0, vec![row])
}

fn retracted(height: u32) -> Step {
    let address = format!("address{height}");
    let row = event(&balances(), Some(&[Some(&address), Some("1"), None]), None);
    let (at, below) = (block(height, 0), Some(block(height - 1, 0)));
    let kind = StepKind::Retract { block: at, previous: below, fork: below, reorg: 1 };
    Step { kind, events: vec![row], cursor: cursor(below, 1), at: moment() }
}

/// This program, with one of the tests here that are only for that.
fn arguments(name: &str) -> [String; 5] {
    let name = format!("sinks::console::{name}");
    [name, "--exact".into(), "--ignored".into(), "--nocapture".into(), "--quiet".into()]
}

#[tokio::test]
#[ignore = "it is for a terminal: see the_lines_at_the_bottom_stay_there"]
async fn on_a_terminal() {
    assert!(terminal::open_bottom());
    terminal::show_at_bottom(|_| vec!["ledger  at the tip 7".into()]);
    let mut sink = sink();
    assert_eq!(sink.open().await.unwrap(), Position::NotKept);
    sink.publish(&created(7, "x")).await.unwrap();
    terminal::show_at_bottom(|_| vec!["ledger  at the tip 8".into()]);
    sink.publish(&retracted(7)).await.unwrap();
    sink.flush().await.unwrap();
    terminal::close_bottom();
}

#[tokio::test]
#[ignore = "it is for a terminal: see json_on_a_terminal_obeys_nobody"]
async fn json_on_a_terminal() {
    let mut console = debshrew::relay::console(&settings(Destination::Console), &about(), true);
    console.publish(&created(7, UNFIT)).await.unwrap();
}

/// Colours, a turn of the writing's direction, and what a terminal deletes with.
const UNFIT: &str = "\u{9b}31m\u{202e}\x7f\x1b[2J\n";

#[test]
fn json_on_a_terminal_obeys_nobody() {
    let bytes = on_terminal("json_on_a_terminal", &[]);
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains(['\u{9b}', '\u{202e}', '\x7f', '\x1b']), "{text:?}");
    let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text:?}"));
    let json: Value = serde_json::from_str(line).unwrap();
    assert_eq!(json["after"]["note"], UNFIT);
}

/// What comes to a terminal of 24 lines.
fn on_terminal(name: &str, variables: &[(&str, &str)]) -> Vec<u8> {
    let program = std::env::current_exe().unwrap();
    let line =
        format!("stty rows 24 columns 100; exec '{}' {}", program.display(), arguments(name).join(" "));
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env_clear()
        .envs([
            ("PATH", std::env::var("PATH").unwrap()),
            ("TERM", "xterm".into()),
            ("SHELL", "/bin/sh".into()),
        ])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    output.stdout
}

#[test]
fn the_lines_at_the_bottom_stay_there() {
    let bytes = on_terminal("on_a_terminal", &[]);
    let mut parser = vt100::Parser::new(24, 100, 0);
    parser.process(&bytes);
    let shown = parser.screen().contents();
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    let first =
        lines.iter().position(|line| line.starts_with("block 7 ")).unwrap_or_else(|| panic!("{shown}"));
    let expected = [
        "block 7 000000070000…  2026-01-02T03:04:05Z  1 change",
        "  + balances  address=address7  amount=1  note=x",
        "block 7 000000070000… was rolled back  2026-01-02T03:04:05Z  1 change undone; block 6 stays",
        "  + balances  address=address7  amount=1  note=null",
        "ledger  at the tip 8",
    ];
    assert_eq!(lines[first..first + 5], expected, "{shown}");
    assert_eq!(shown.matches("at the tip").count(), 1, "{shown}");
    assert!(String::from_utf8_lossy(&bytes).contains("\x1b[9m+ balances"));

    let plain = on_terminal("on_a_terminal", &[("NO_COLOR", "1")]);
    let plain = String::from_utf8_lossy(&plain);
    assert!(
        plain.contains("was rolled back") && !plain.contains("\x1b[9m") && !plain.contains("\x1b[32m"),
        "{plain:?}"
    );
}

/// Fills the pipe, tells when it is full, and goes on until there is no reader.
#[tokio::test(flavor = "current_thread")]
#[ignore = "it is for a pipe: see a_pipe_that_is_full_or_closed"]
async fn on_a_pipe() {
    std::thread::spawn(|| {
        std::thread::sleep(DEADLINE);
        eprintln!("it hangs");
        std::process::exit(9);
    });
    let mut console = sink();
    let ticks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ticks);
    let counting = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let note = "x".repeat(20_000);
    for height in 0.. {
        let before = ticks.load(Ordering::Relaxed);
        let step = created(height, &note);
        match tokio::time::timeout(Duration::from_millis(500), console.publish(&step)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                assert_eq!(error.kind, Kind::Permanent);
                eprintln!("ended: {error}");
                break;
            }
            Err(_) => {
                // The thread of this runtime went on all the same. What is under way is given up, as a relay does.
                assert!(ticks.load(Ordering::Relaxed) > before + 10);
                console = sink();
                eprintln!("full");
            }
        }
    }
    counting.abort();
}

#[test]
fn a_pipe_that_is_full_or_closed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments("on_a_pipe"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert_eq!(line, "full\n");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let rows = out.by_ref().lines().map_while(Result::ok).filter(|line| line.starts_with('{')).take(3);
    let rows: Vec<Value> = rows.map(|line| serde_json::from_str(&line).unwrap()).collect();
    let addresses: Vec<&Value> = rows.iter().map(|row| &row["after"]["address"]).collect();
    assert_eq!(addresses, ["address0", "address1", "address2"]);
    drop(out);
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("ended: nobody reads standard output any more"), "{rest}");
    child.wait().unwrap();
}
