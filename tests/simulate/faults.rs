//! Misbehaviour on command, and the control endpoint itself.

use std::time::Duration;

use debshrew::simulate::{Command, Fault, Misbehaviour, Options, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::http::{Client, attempt, call, in_time, post, request};

const HEIGHT: &str = r#"{"id": 7, "method": "metashrew_height"}"#;

async fn start() -> Simulator {
    Simulator::start(Options::default()).await.unwrap()
}

async fn once(simulator: &Simulator, fault: Fault) {
    let misbehaviour = Misbehaviour { fault, calls: Some(1), method: None, view: None };
    simulator.control(Command::Misbehave(misbehaviour)).await.unwrap();
}

/// What a misbehaving stand-in answers to a call for the height; the next call is answered rightly.
async fn wrong(simulator: &Simulator, fault: Fault) -> Option<(u16, String)> {
    once(simulator, fault).await;
    let answer = post(&simulator.url(), "/", HEIGHT).await;
    assert_eq!(call(&simulator.url(), "metashrew_height", json!([])).await, "100");
    answer.map(|answer| (answer.status, answer.body))
}

#[tokio::test]
async fn answers_are_wrong_in_the_way_and_as_often_as_was_asked() {
    let simulator = start().await;
    assert_eq!(wrong(&simulator, Fault::Drop).await, None);
    assert_eq!(wrong(&simulator, Fault::Cut).await, None);
    for code in [500, 503, 413] {
        assert_eq!(wrong(&simulator, Fault::Status { code }).await.unwrap().0, code);
    }
    let page = wrong(&simulator, Fault::NotJson).await.unwrap();
    assert!(page.0 == 200 && serde_json::from_str::<Value>(&page.1).is_err(), "{page:?}");
    let shape = wrong(&simulator, Fault::WrongShape).await.unwrap();
    let json: Value = serde_json::from_str(&shape.1).unwrap();
    assert!(shape.0 == 200 && json.get("result").is_none() && json.get("error").is_none());
    let value = json!({"a": [1, null]});
    let answer = wrong(&simulator, Fault::Result { value }).await.unwrap();
    assert_eq!(answer, (200, r#"{"id":7,"jsonrpc":"2.0","result":{"a":[1,null]}}"#.into()));
    let answer = wrong(&simulator, Fault::Error { message: "say \"no\"".into() }).await.unwrap();
    assert_eq!(answer.1, r#"{"error":{"code":-32000,"message":"say \"no\""},"id":7,"jsonrpc":"2.0"}"#);
    for (fault, expected) in [
        (Fault::OtherCall, r#"{"id":"another","jsonrpc":"2.0","result":"100"}"#),
        (Fault::Batch, r#"[{"id":7,"jsonrpc":"2.0","result":"100"}]"#),
        (Fault::Bare, r#"{"result":"100"}"#),
        (Fault::NumericHeight, r#"{"id":7,"jsonrpc":"2.0","result":100}"#),
        (Fault::Lower { by: 3 }, r#"{"id":7,"jsonrpc":"2.0","result":"97"}"#),
    ] {
        assert_eq!(wrong(&simulator, fault).await.unwrap(), (200, expected.into()));
    }
    let began = std::time::Instant::now();
    let answer = wrong(&simulator, Fault::Slow { ms: 80 }).await.unwrap();
    assert_eq!(answer, (200, r#"{"id":7,"jsonrpc":"2.0","result":"100"}"#.into()));
    assert!(began.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_cut_answer_has_begun() {
    let simulator = start().await;
    once(&simulator, Fault::Cut).await;
    let answer = raw(&simulator).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: 39"), "{head}");
    assert_eq!(body, r#"{"id":7,"jsonrpc":""#);
}

#[tokio::test]
async fn an_oversized_answer_is_as_long_as_was_asked_and_well_formed() {
    let simulator = start().await;
    once(&simulator, Fault::Oversized { bytes: 5_000_000 }).await;
    let answer = raw(&simulator).await;
    let mut rest = answer.split_once("\r\n\r\n").unwrap().1;
    let mut body = String::new();
    // In chunks, each with its length before it.
    while let Some((length, behind)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        body.push_str(&behind[..length]);
        rest = &behind[length + 2..];
    }
    assert_eq!(body.len(), 5_000_000);
    let json: Value = serde_json::from_str(&body).unwrap();
    assert!(json["result"].as_str().unwrap().starts_with("0x00"));
}

/// A whole answer to a call for the height, on a connection that the other side ends.
async fn raw(simulator: &Simulator) -> String {
    let mut stream =
        tokio::net::TcpStream::connect(simulator.url().strip_prefix("http://").unwrap()).await.unwrap();
    let headers = "Content-Type: application/json\r\nConnection: close\r\n";
    stream.write_all(request("/", headers, HEIGHT).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn misbehaviour_meets_the_calls_that_it_was_meant_for() {
    let simulator = start().await;
    let url = simulator.url();
    let misbehaviour = Misbehaviour {
        fault: Fault::Result { value: json!("0x") },
        calls: Some(2),
        method: None,
        view: Some("getblock".into()),
    };
    let status = simulator.control(Command::Misbehave(misbehaviour)).await.unwrap();
    assert_eq!(status.misbehaviours, 1);
    let failing = Misbehaviour {
        fault: Fault::Error { message: "no".into() },
        calls: None,
        method: Some("metashrew_getblockhash".into()),
        view: None,
    };
    simulator.control(Command::Misbehave(failing)).await.unwrap();
    assert_eq!(call(&url, "metashrew_height", json!([])).await, "100");
    assert_eq!(call(&url, "metashrew_view", json!(["blocktracker", "", 0])).await, "0x06");
    for _ in 0..2 {
        assert_eq!(call(&url, "metashrew_view", json!(["getblock", "", 0])).await, "0x");
    }
    assert_ne!(call(&url, "metashrew_view", json!(["getblock", "", 0])).await, "0x");
    for _ in 0..3 {
        assert_eq!(attempt(&url, "metashrew_getblockhash", json!([0])).await["error"]["message"], "no");
    }
    assert_eq!(simulator.control(Command::Clear {}).await.unwrap().misbehaviours, 0);
    call(&url, "metashrew_getblockhash", json!([0])).await;
    let status = simulator.status();
    let counts = ["metashrew_height", "metashrew_view", "metashrew_getblockhash", "metashrew_stateroot"];
    assert_eq!(counts.map(|method| status.calls(method)), [1, 4, 4, 0]);
}

#[tokio::test]
async fn a_stalled_call_is_answered_when_that_is_cleared() {
    let simulator = start().await;
    once(&simulator, Fault::Stall).await;
    let url = simulator.url();
    let call = tokio::spawn(async move { call(&url, "metashrew_height", json!([])).await });
    in_time(simulator.until(|status| status.waiting == 1)).await;
    simulator.control(Command::Mine { blocks: 1 }).await.unwrap();
    assert!(!call.is_finished());
    simulator.control(Command::Clear {}).await.unwrap();
    assert_eq!(call.await.unwrap(), "101");
    in_time(simulator.until(|status| status.waiting == 0 && status.calls("metashrew_height") == 1)).await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let options = Options { idle_timeout: Duration::from_millis(100), ..Options::default() };
    let simulator = Simulator::start(options).await.unwrap();
    let call = request("/", "Content-Type: application/json\r\n", HEIGHT);
    let mut client = Client::connect(&simulator.url()).await;
    let began = std::time::Instant::now();
    client.send(call.as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    assert!(in_time(client.ends()).await);
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    let mut silent = Client::connect(&simulator.url()).await;
    assert!(in_time(silent.ends()).await);
}

#[tokio::test]
async fn the_control_endpoint_says_what_is_allowed() {
    let simulator = start().await;
    let url = simulator.url();
    for (body, expected) in [
        (r#"{"mien": {}}"#, "unknown variant `mien`, expected one of `mine`, `reorg`"),
        (r#"{"mine": {"block": 3}}"#, "unknown field `block`, expected `blocks`"),
        (r#"{"reorg": {}}"#, "missing field `depth`"),
        (r#"{"reorg": {"depth": -1}}"#, "invalid value: integer `-1`, expected u32"),
        (r#"{"clear": {"all": true}}"#, "unknown field `all`"),
        (r#"{"rules": {"pace": "slow"}}"#, "unknown variant `slow`, expected `timed` or `stepped`"),
        (r#"{"misbehave": {"fault": "explode"}}"#, "unknown variant `explode`, expected one of `drop`"),
        ("", "a command is an object with one key, such as `{\"mine\": {\"blocks\": 3}}`"),
        ("{}", "which is one of `mine`, `reorg`, `step`, `rules`, `misbehave`, `clear`, `restart`, `status`"),
        (r#"{"mine": {"blocks": 0}}"#, "`blocks` is a number from 1 to 10000, not 0"),
        (r#"{"mine": {"blocks": 10001}}"#, "`blocks` is a number from 1 to 10000, not 10001"),
        (r#"{"reorg": {"depth": 0}}"#, "`depth` is a number from 1 to 100"),
        (r#"{"reorg": {"depth": 101}}"#, "a reorganisation of depth 101 is not possible"),
        (r#"{"reorg": {"depth": 4294967295, "length": 1}}"#, "a reorganisation of depth 4294967295 is not"),
        (r#"{"reorg": {"depth": 1, "length": 0}}"#, "`length` is a number from 1 to 10000, not 0"),
        (r#"{"reorg": {"depth": 1, "branch": "a b"}}"#, "`a b` is no branch's name"),
        (r#"{"reorg": {"depth": 2, "branch": "main"}}"#, "no reorganisation: the 2 blocks of branch `main`"),
        (r#"{"step": {}}"#, "no reorganisation is under way"),
        (
            r#"{"misbehave": {"fault": "drop", "method": "height"}}"#,
            "no method `height`; there are `metashrew_h",
        ),
        (r#"{"misbehave": {"fault": "drop", "calls": 0}}"#, "`calls` must be at least 1"),
        (r#"{"misbehave": {"fault": {"status": {"code": 99}}}}"#, "a status is a number from 200 to 599"),
        (
            r#"{"misbehave": {"fault": "drop", "view": "v", "method": "metashrew_height"}}"#,
            "only calls of `metashrew_view` have a view",
        ),
    ] {
        let answer = post(&url, "/control", body).await.unwrap();
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        let message = json["error"].as_str().unwrap_or_default();
        assert!(answer.status == 400 && message.contains(expected), "{body}: {}", answer.body);
    }
    let status = simulator.status();
    assert_eq!((status.node.height.get(), status.misbehaviours), (100, 0));
    let answer = post(&url, "/control", r#"{"mine": {}}"#).await.unwrap();
    assert_eq!(answer.status, 200);
    let mut client = Client::connect(&url).await;
    client.send(b"GET /control HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let shown = client.answer().await.unwrap();
    assert_eq!((shown.status, &shown.body), (200, &answer.body));
    let hash = simulator.status().node.hash.to_string();
    let expected = json!({
        "node": {"height": 101, "hash": hash, "branch": "main"},
        "index": {"height": 101, "phase": "following", "fork": null},
        "calls": {},
        "waiting": 0,
        "misbehaviours": 0,
    });
    assert_eq!(serde_json::from_str::<Value>(&shown.body).unwrap(), expected);
}

#[tokio::test]
async fn a_stand_in_that_is_dropped_stops_listening() {
    let simulator = start().await;
    let address = simulator.url().strip_prefix("http://").unwrap().to_owned();
    let mut client = Client::connect(&simulator.url()).await;
    drop(simulator);
    assert!(in_time(client.ends()).await);
    // The listener goes with its task, which ends a moment later.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "still listening");
        tokio::task::yield_now().await;
    }
}
