//! The stand-in against what a real server, `rockshrew-mono` 9.0.1-rc.2, answered at height 399.

use debshrew::simulate::{Options, Origin, Simulator};
use serde_json::json;

use super::http::{Client, call, post, request};

const NOT_FOUND: &str =
    r#"{"error":{"code":-32000,"message":"Generic error: Method not found"},"id":ID,"jsonrpc":"2.0"}"#;

async fn stand_in() -> Simulator {
    let origin = Origin::Generated { seed: 3, height: 399, transactions: 2 };
    Simulator::start(Options { origin, ..Options::default() }).await.unwrap()
}

/// What stands for this chain's own blocks: `{hash 5}`, `{block 5}`, `{tracker 5}`.
async fn filled(url: &str, expected: &str) -> String {
    let mut text = expected.to_owned();
    for height in [0, 1, 3, 4, 5, 10, 399] {
        let hash = call(url, "metashrew_getblockhash", json!([height])).await;
        text = text.replace(&format!("{{hash {height}}}"), &hash);
        if text.contains("{block") {
            let block = call(url, "metashrew_view", json!(["getblock", "", height])).await;
            text = text.replace(&format!("{{block {height}}}"), &block);
        }
        if text.contains(&format!("{{tracker {height}}}")) {
            let mut bytes = "0x".to_owned();
            for height in 0..=height {
                let hash = call(url, "metashrew_getblockhash", json!([height])).await;
                bytes.push_str(&hash[64..]);
            }
            text = text.replace(&format!("{{tracker {height}}}"), &bytes);
        }
    }
    text
}

fn result(result: &str) -> String {
    format!(r#"{{"id":1,"jsonrpc":"2.0","result":"{result}"}}"#)
}

fn error(message: &str) -> String {
    format!(r#"{{"error":{{"code":-32000,"message":"{message}"}},"id":1,"jsonrpc":"2.0"}}"#)
}

/// Each body is answered with HTTP 200 and this JSON; `None` for a connection that ends without an answer.
async fn hold(url: &str, cases: Vec<(String, Option<String>)>) {
    for (body, expected) in cases {
        let answer = post(url, "/", &body).await;
        let found = answer.map(|answer| {
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, Some("application/json")),
                "{body}"
            );
            answer.body
        });
        let expected = match expected {
            Some(text) => Some(filled(url, &text).await),
            None => None,
        };
        assert_eq!(found, expected, "{body}");
    }
}

#[tokio::test]
async fn heights_and_hashes() {
    let server = stand_in().await;
    let hash =
        |params: &str| format!(r#"{{"id": 1, "method": "metashrew_getblockhash", "params": {params}}}"#);
    let missing = |height: &str| error(&format!("Storage error: Block hash not found for height {height}"));
    let mut cases = vec![
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "metashrew_height", "params": []}"#, result("399")),
        (
            r#"{"jsonrpc": "2.0", "id": "abc", "method": "metashrew_height", "params": []}"#,
            r#"{"id":"abc","jsonrpc":"2.0","result":"399"}"#.into(),
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "metashrew_height", "params": []}"#,
            r#"{"id":null,"jsonrpc":"2.0","result":"399"}"#.into(),
        ),
        (r#"{"id": 1, "method": "metashrew_height", "params": null}"#, result("399")),
        (r#"{"id": 1, "method": "metashrew_height"}"#, result("399")),
        (r#"{"id": 1, "method": "metashrew_height", "params": {}}"#, result("399")),
    ]
    .into_iter()
    .map(|(body, expected)| (body.to_owned(), Some(expected)))
    .collect::<Vec<_>>();
    for (params, expected) in [
        ("[5]", result("{hash 5}")),
        ("[0]", result("{hash 0}")),
        ("[399]", result("{hash 399}")),
        ("[400]", missing("400")),
        ("[4294967295]", missing("4294967295")),
        ("[4294967301]", result("{hash 5}")),
        ("[-1]", result("{hash 0}")),
        ("[5.5]", result("{hash 0}")),
        (r#"["5"]"#, result("{hash 0}")),
        ("[null]", result("{hash 0}")),
    ] {
        cases.push((hash(params), Some(expected)));
    }
    cases.push((hash("[]"), None));
    cases.push((r#"{"id": 1, "method": "metashrew_height"}"#.into(), Some(result("399"))));
    hold(&server.url(), cases).await;
}

#[tokio::test]
async fn views() {
    let server = stand_in().await;
    let invalid = |what: &str| error(&format!("Serialization error: Invalid height: {what}"));
    let hex = |what: &str| error(&format!("Serialization error: Invalid hex input: {what}"));
    let unknown = |name: &str| {
        error(&format!("View function error: View function failed: Failed to get view function '{name}'"))
    };
    let digit = "invalid digit found in string";
    let cases = [
        (r#"["getblock", "05000000", "5"]"#, result("{block 5}")),
        (r#"["getblock", "05000000", 5]"#, result("{block 5}")),
        (r#"["getblock", "0x05000000", "5"]"#, result("{block 5}")),
        (r#"["getblock", "05000000", "latest"]"#, result("{block 399}")),
        (r#"["getblock", "05000000"]"#, result("{block 399}")),
        (r#"["getblock", "05000000", null]"#, result("{block 399}")),
        (r#"["getblock", "05000000", "4"]"#, result("{block 4}")),
        (r#"["getblock", "99010000", "latest"]"#, result("{block 399}")),
        (r#"["getblock", "05000000", "1399"]"#, result("0x")),
        (r#"["getblock", "05000000", "4294967295"]"#, result("0x")),
        (r#"["getblock", "05000000", "4294967296"]"#, invalid("number too large to fit in target type")),
        (r#"["getblock", "05000000", "-1"]"#, invalid(digit)),
        (r#"["getblock", "05000000", "abc"]"#, invalid(digit)),
        (r#"["getblock", "05000000", ""]"#, invalid("cannot parse integer from empty string")),
        (r#"["getblock", "05000000", "0x5"]"#, invalid(digit)),
        (r#"["getblock", "05000000", "5:whatever"]"#, result("{block 5}")),
        (r#"["getblock", "05000000", 5.0]"#, invalid(digit)),
        (r#"["getblock", "05000000", true]"#, result("{block 399}")),
        (r#"["blocktracker", "", "0"]"#, result("{tracker 0}")),
        (r#"["blocktracker", "", "1"]"#, result("{tracker 1}")),
        (r#"["blocktracker", "", "5"]"#, result("{tracker 5}")),
        (r#"["blocktracker", "", "latest"]"#, result("{tracker 399}")),
        (r#"["blocktracker", "", "1399"]"#, result("{tracker 399}")),
        (r#"["blocktracker", "0x", "3"]"#, result("{tracker 3}")),
        (r#"["nosuchview", "", "latest"]"#, unknown("nosuchview")),
        (r#"["_start", "", "5"]"#, unknown("_start")),
        (r#"["memory", "", "5"]"#, unknown("memory")),
        (r#"["", "", "5"]"#, unknown("")),
        (r#"[7, "", "5"]"#, unknown("")),
        (r#"["getblock", "0x050", "5"]"#, hex("Odd number of digits")),
        (r#"["getblock", "zz", "5"]"#, hex("Invalid character 'z' at position 0")),
        (r#"["getblock", "05", "5"]"#, result("{block 5}")),
        (r#"["getblock", "", "5"]"#, result("{block 5}")),
        (r#"["getblock", "0A000000", "10"]"#, result("{block 10}")),
        (r#"["getblock", "0x0x05000000", "5"]"#, result("{block 5}")),
        (r#"["getblock", 5, "5"]"#, result("{block 5}")),
    ];
    let view = |params: &str| format!(r#"{{"id": 1, "method": "metashrew_view", "params": {params}}}"#);
    let mut cases: Vec<_> =
        cases.into_iter().map(|(params, expected)| (view(params), Some(expected))).collect();
    for params in ["[]", r#"["getblock"]"#, r#"{"a": 1}"#] {
        cases.push((view(params), None));
    }
    cases.push((r#"{"id": 1, "method": "metashrew_view"}"#.into(), None));
    hold(&server.url(), cases).await;
}

#[tokio::test]
async fn other_methods_and_bodies() {
    let server = stand_in().await;
    let url = server.url();
    let root = |params: &str| format!(r#"{{"id": 1, "method": "metashrew_stateroot", "params": {params}}}"#);
    let (five, latest) = (
        call(&url, "metashrew_stateroot", json!(["5"])).await,
        call(&url, "metashrew_stateroot", json!(["latest"])).await,
    );
    assert!(five.len() == 66 && latest.len() == 66 && five != latest);
    let invalid = |what: &str| error(&format!("Serialization error: Invalid height: {what}"));
    let not_found = |id: &str| NOT_FOUND.replace("ID", id);
    let snapshot = r#"{\"blocks_synced_from_snapshots\":0,\"blocks_synced_normally\":400,\"current_height\":400,\"enabled\":true,\"indexed_height\":399,\"last_snapshot_height\":null,\"snapshots_applied\":0,\"snapshots_created\":0,\"storage_size_bytes\":null,\"sync_mode\":\"Normal\",\"total_entries\":0}"#;
    let cases = [
        (root(r#"["399"]"#), Some(result(&latest))),
        (root(r#"["404"]"#), Some(result(&latest))),
        (root("[5]"), Some(result(&latest))),
        (root(r#"["4294967296"]"#), Some(invalid("number too large to fit in target type"))),
        (root(r#"["-1"]"#), Some(invalid("invalid digit found in string"))),
        (root(r#"["abc"]"#), Some(invalid("invalid digit found in string"))),
        (root("[]"), None),
        (r#"{"id": 1, "method": "metashrew_snapshot", "params": []}"#.into(), Some(result(snapshot))),
        (r#"{"id": 1, "method": "metashrew_nosuch", "params": []}"#.into(), Some(not_found("1"))),
        (r#"{"id": 1}"#.into(), Some(not_found("1"))),
        (r#"{"id": 1, "method": 5}"#.into(), Some(not_found("1"))),
        (r#"{"id": 1, "method": "getblockcount", "params": []}"#.into(), Some(not_found("1"))),
        (
            r#"[{"id": 1, "method": "metashrew_height"}, {"id": 2, "method": "metashrew_height"}]"#.into(),
            Some(not_found("null")),
        ),
        ("[]".into(), Some(not_found("null"))),
        (r#""x""#.into(), Some(not_found("null"))),
        ("null".into(), Some(not_found("null"))),
    ];
    hold(&url, cases.into()).await;
    // A real server took 2 s for two million blocks above its tip.
    let began = std::time::Instant::now();
    assert_eq!(call(&url, "metashrew_stateroot", json!(["200399"])).await, latest);
    assert!(began.elapsed().as_millis() >= 200, "{:?}", began.elapsed());
}

#[tokio::test]
async fn refusals_of_http() {
    let server = stand_in().await;
    let url = server.url();
    let big = format!(
        r#"{{"jsonrpc": "2.0", "id": 1, "method": "metashrew_view", "params": ["getblock", "{}", "5"]}}"#,
        "0".repeat(3_000_000)
    );
    let too_large =
        format!("JSON payload ({} bytes) is larger than allowed (limit: 2097152 bytes).", big.len());
    for (body, status, text) in [
        (r#"{"id":1,"#, 400, "Json deserialize error: EOF while parsing a value at line 1 column 8"),
        ("", 400, "Json deserialize error: EOF while parsing a value at line 1 column 0"),
        (&big, 413, &too_large),
    ] {
        let answer = post(&url, "/", body).await.unwrap();
        let kind = answer.header("content-type");
        assert_eq!(
            (answer.status, kind, answer.body.as_str()),
            (status, Some("text/plain; charset=utf-8"), text)
        );
    }
    // Two megabytes to the byte are taken.
    let most = format!("\"{}\"", "x".repeat(2 * 1024 * 1024 - 2));
    assert_eq!(post(&url, "/", &most).await.unwrap().status, 200);
    assert_eq!(post(&url, "/", &format!("{most} ")).await.unwrap().status, 413);

    let answer = post(&url, "/other", r#"{"id": 1, "method": "metashrew_height"}"#).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type"), answer.body.as_str()), (404, None, ""));
    for headers in ["", "Content-Type: text/plain\r\n"] {
        let mut client = Client::connect(&url).await;
        client.send(request("/", headers, r#"{"id": 1, "method": "metashrew_height"}"#).as_bytes()).await;
        let answer = client.answer().await.unwrap();
        let kind = answer.header("content-type");
        let expected = (400, Some("text/plain; charset=utf-8"), "Content type error");
        assert_eq!((answer.status, kind, answer.body.as_str()), expected);
    }
    let mut client = Client::connect(&url).await;
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = client.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.header("allow"), answer.header("content-length")),
        (405, Some("POST"), Some("0"))
    );
}

#[tokio::test]
async fn a_connection_serves_many_calls() {
    let server = stand_in().await;
    let body = r#"{"jsonrpc": "2.0", "id": 1, "method": "metashrew_height", "params": []}"#;
    let good = request("/", "Content-Type: application/json\r\n", body);
    let mut client = Client::connect(&server.url()).await;
    // Both at once, too.
    client.send(good.repeat(2).as_bytes()).await;
    for _ in 0..2 {
        let mut answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.body), (200, result("399")));
        answer.headers.retain(|(name, _)| name != "date");
        answer.headers.sort();
        let expected = [
            ("content-length", "39"),
            ("content-type", "application/json"),
            ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        ];
        assert_eq!(answer.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    for _ in 0..200 {
        client.send(good.as_bytes()).await;
        assert_eq!(client.answer().await.unwrap().body, result("399"));
    }
    assert_eq!(server.status().calls("metashrew_height"), 202);
    let mut client = Client::connect(&server.url()).await;
    client.send(good.replace("HTTP/1.1", "HTTP/1.0").as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().body, result("399"));
    assert!(client.ends().await);
}
