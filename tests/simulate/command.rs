//! `debshrew simulate` as a user runs it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::http::call;
use crate::support::debshrew;

/// Ends a process that a test left behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn it_says_where_it_listens_and_ends_with_0_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["simulate", "--listen", "127.0.0.1:0", "--height", "7", "--transactions", "3", "--stepped"];
    let child = Command::new(env!("CARGO_BIN_EXE_debshrew"))
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (url, rest) = line.split_once(' ').unwrap();
    let hash = call(url, "metashrew_getblockhash", json!([7])).await;
    assert_eq!(rest, format!("serves blocks up to 7 ({})\n", &hash[2..]));

    // Its port is taken now.
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let second = tokio::task::spawn_blocking(move || debshrew(&["simulate", "--listen", &address]).run());
    let second = second.await.unwrap();
    assert_eq!((second.code, second.stdout.as_str()), (1, ""));
    let address = url.strip_prefix("http://").unwrap();
    let expected = format!("error: cannot listen on {address}\n  caused by: Address already in use");
    assert!(second.stderr.starts_with(&expected), "{}", second.stderr);

    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    let log: Vec<String> =
        BufReader::new(running.0.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(log.iter().all(|line| line.contains("INFO")), "{log:?}");
}

#[test]
fn what_it_cannot_serve_it_refuses() {
    let output = debshrew(&["simulate", "--listen", "127.0.0.1:0", "--blocks", "none.dat"]).run();
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    let expected = "error: cannot read the blocks in `none.dat`\n  caused by: No such file";
    assert!(output.stderr.starts_with(expected), "{}", output.stderr);
    let output =
        debshrew(&["simulate", "--listen", "127.0.0.1:0", "--blocks", "debshrew.toml"]).file("").run();
    assert_eq!(output.code, 2);
    let expected = "error: cannot use the blocks in `debshrew.toml`\n  caused by: it holds no blocks";
    assert!(output.stderr.starts_with(expected), "{}", output.stderr);
    for (arguments, expected) in [
        (["--mine-every", "0s"], "it must be longer than nothing"),
        (["--transactions", "0"], "0 is not in 1..=10000"),
        (["--listen", "nowhere"], "invalid socket address"),
    ] {
        let output = debshrew(&[&["simulate"][..], &arguments].concat()).run();
        assert!(output.code == 2 && output.stderr.contains(expected), "{}", output.stderr);
    }
}
