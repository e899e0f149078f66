//! Requests that a web page can send without being asked: none changes or tells anything. And what the manual tells
//! people to send, which does.

use std::process::Command;

use debshrew::simulate::{Options, Simulator};

use super::http::{Answer, Client};

const JSON: &str = "Content-Type: application/json\r\n";
const MINE: &str = r#"{"mine": {}}"#;

async fn send(url: &str, line: &str, host: &str, headers: &str, body: &str) -> Answer {
    let mut client = Client::connect(url).await;
    let length = body.len();
    let request = format!("{line} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\n\r\n{body}");
    client.send(request.as_bytes()).await;
    client.answer().await.unwrap()
}

#[tokio::test]
async fn what_web_pages_can_send_is_refused() {
    let simulator = Simulator::start(Options { hosts: vec!["stand-in".into()], ..Options::default() }).await;
    let simulator = simulator.unwrap();
    let url = simulator.url();
    let address = url.strip_prefix("http://").unwrap();
    let own = format!("Host: {address}\r\n");
    let height = r#"{"id": 1, "method": "metashrew_height", "params": []}"#;
    let origin = |of: &str| format!("Origin: {of}\r\n{JSON}");
    for (line, host, headers, body, expected) in [
        // A form, or `fetch` with `no-cors`.
        ("POST /control", &*own, String::new(), MINE, 415),
        ("POST /control", &own, "Content-Type: text/plain\r\n".into(), MINE, 415),
        ("POST /control", &own, "Content-Type: application/x-www-form-urlencoded\r\n".into(), MINE, 415),
        ("POST /control", &own, origin("http://evil.example"), MINE, 403),
        ("POST /control", &own, origin("null"), MINE, 403),
        ("POST /control", &own, origin("http://127.0.0.1:1"), MINE, 403),
        ("GET /control", &own, origin("http://evil.example"), "", 403),
        ("POST /", &own, origin("http://evil.example"), height, 403),
        // A name that was made to point here.
        ("POST /control", "Host: evil.example:8080\r\n", JSON.into(), MINE, 403),
        ("POST /control", "Host: evil.example\r\n", origin("http://evil.example"), MINE, 403),
        ("GET /control", "Host: evil.example\r\n", String::new(), "", 403),
        ("POST /", "Host: evil.example\r\n", JSON.into(), height, 403),
        // None at all, or two.
        ("POST /control", "", JSON.into(), MINE, 403),
        ("POST /control", "Host: localhost\r\nHost: evil.example\r\n", JSON.into(), MINE, 403),
    ] {
        let answer = send(&url, line, host, &headers, body).await;
        assert_eq!(answer.status, expected, "{line} {host} {headers}: {}", answer.body);
        assert!(answer.header("access-control-allow-origin").is_none());
        assert!(answer.body.contains("\"error\""), "{}", answer.body);
    }
    let status = simulator.status();
    assert_eq!((status.node.height.get(), status.calls("metashrew_height")), (100, 0));
    for (line, host, headers, body) in [
        ("POST /control", &*own, JSON.to_owned(), MINE),
        ("POST /control", &own, origin(&url), MINE),
        ("GET /control", "Host: localhost:8080\r\n", String::new(), ""),
        ("POST /control", "Host: stand-in:8080\r\n", JSON.into(), MINE),
        ("POST /", &own, JSON.into(), height),
    ] {
        let answer = send(&url, line, host, &headers, body).await;
        assert_eq!(answer.status, 200, "{line} {host} {headers}: {}", answer.body);
    }
    assert_eq!(simulator.status().node.height.get(), 103);
}

/// The lines with `curl` in the manual's page and in the help, as they stand there but for the port.
#[tokio::test(flavor = "multi_thread")]
async fn the_manuals_lines_work() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: there is no `curl`");
        return;
    }
    let simulator = Simulator::start(Options::default()).await.unwrap();
    let address = simulator.url().strip_prefix("http://").unwrap().to_owned();
    let run = |script: &str| {
        let script = script.replace("127.0.0.1:8080", &address);
        let output = Command::new("sh").args(["-c", &script]).env("NO_PROXY", "*").output().unwrap();
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout).unwrap()
    };
    let page = format!("{}/docs/simulate.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(page).unwrap();
    let mut blocks: Vec<&str> =
        page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    // Steps through phases at leisure, which only a stepped stand-in does; `tell` is that of the second.
    blocks.truncate(2);
    let shown = blocks.iter().map(|block| run(block)).collect::<String>();
    assert!(shown.contains("\"result\"") && !shown.contains("error"), "{shown}");
    assert_eq!(simulator.status().node.height.get(), 104);

    let help = debshrew::cli::command();
    let help = help.find_subcommand("simulate").unwrap().get_after_help().unwrap().to_string();
    let line = help.lines().find(|line| line.contains("curl")).unwrap();
    let shown = run(line);
    assert!(shown.contains("\"height\":105"), "{shown}");
}
