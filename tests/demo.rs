//! `debshrew demo` as a person sees it: what it claims, how it ends, and what it leaves alone.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use tokio_postgres::Client;

use crate::support::{database, debshrew};

const TRANSFORMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/transforms");

/// A demo of few blocks, which leads a group of processes of its own, as at a terminal.
fn demo(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_debshrew"))
        .args(["demo", "--blocks", "20", "--transforms", TRANSFORMS])
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads on until a line begins with this.
fn read_until(child: &mut Child, words: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.last().unwrap().starts_with(words) {
            return lines;
        }
    }
    panic!("the demo ended without {words:?}:\n{}", lines.join("\n"))
}

/// What a key at the terminal or its end sends: to the whole group.
fn send(signal: &str, child: &Child) {
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args([signal, "--", &group]).status().unwrap().success());
}

async fn exists(client: &Client, sql: &str) -> bool {
    client.query_one(&format!("select exists ({sql})"), &[]).await.unwrap().get(0)
}

#[test]
fn every_claim_holds_and_lines_fit_a_terminal() {
    let output = demo(&["--exit"]).wait_with_output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{stdout}");
    assert_eq!(stdout.lines().filter(|line| line.starts_with("   ok  ")).count(), 13, "{stdout}");
    for step in 1..=6 {
        assert!(stdout.contains(&format!("\n{step}. ")) || step == 1, "{stdout}");
    }
    // Where the temporary folder has a long name, only the line that names it may be longer.
    let long = stdout.lines().filter(|line| line.chars().count() > 80 && !line.contains("PostgreSQL"));
    assert_eq!(long.collect::<Vec<_>>(), [""; 0]);
    // The private database is gone by now.
    assert!(!stdout.contains("psql"), "{stdout}");
}

/// Ctrl-C reaches `debshrew run` as well if it is of the demo's group, and would end it at once together with the
/// demo's own signal: as a failure.
#[tokio::test]
async fn a_signal_from_the_terminal_ends_it_with_success_and_leaves_nothing_running() {
    let client = database("demo_signals").await;
    for signal in ["-INT", "-HUP"] {
        let mut child = demo(&["--database-url", &client.dsn]);
        let seen = read_until(&mut child, "New blocks follow");
        assert_eq!(seen.last().unwrap(), "New blocks follow; Ctrl-C ends it.");
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{signal}");
        let state = "select state from debshrew.pipelines where pipeline = 'demo'";
        let state: String = client.connect().await.query_one(state, &[]).await.unwrap().get(0);
        assert_eq!(state, "stopped", "{signal}");
    }
}

/// What is printed for `psql` leads into the database, and shows no password.
#[tokio::test]
async fn the_private_database_can_be_looked_into() {
    let mut child = demo(&[]);
    let seen = read_until(&mut child, "   psql ");
    let dsn = seen.last().unwrap().trim().strip_prefix("psql '").unwrap().strip_suffix('\'').unwrap();
    let (dsn, file) = dsn.split_once("&passfile=").unwrap();
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let line = std::fs::read_to_string(file).unwrap();
    let password = line.trim().strip_prefix("*:*:*:postgres:").unwrap();
    assert!(!seen.concat().contains(password), "{seen:?}");
    let (client, connection) =
        tokio_postgres::connect(&format!("{dsn}&password={password}"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    assert!(exists(&client, "select from demo.blocks").await);
    send("-INT", &child);
    assert!(child.wait().unwrap().success());
    assert!(!std::path::Path::new(file).exists());
}

#[test]
fn stopped_early_it_has_shown_nothing() {
    for (arguments, expected) in [
        (&["--exit"][..], (Some(1), "error: the demo was stopped before its last step\n")),
        (&[], (Some(0), "")),
    ] {
        let mut child = demo(arguments);
        read_until(&mut child, "2. ");
        send("-INT", &child);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.as_str()), expected);
    }
}

#[tokio::test]
async fn what_is_not_of_an_earlier_demo_is_left_alone() {
    let test = database("demo_taken").await;
    let client = test.connect().await;
    let refused = || {
        let run =
            ["demo", "--exit", "--blocks", "20", "--transforms", TRANSFORMS, "--database-url", &test.dsn];
        let output = debshrew(&run).run();
        assert_eq!(output.code, 1, "{}", output.stdout);
        assert!(
            output.stderr.contains("has a schema `demo` that is not of an earlier demo"),
            "{}",
            output.stderr
        );
    };
    client.batch_execute("create schema demo; create table demo.mine ()").await.unwrap();
    refused();
    // A pipeline of one's own that happens to have the name.
    let own = "insert into debshrew.pipeline (name, schema_name, start_height) values ('demo', 'demo', 0)";
    client.batch_execute(own).await.unwrap();
    refused();
    assert!(exists(&client, "select from pg_class where oid = 'demo.mine'::regclass").await);
    assert!(exists(&client, "select from debshrew.pipeline where name = 'demo'").await);
}
