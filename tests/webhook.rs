//! The sink that posts: what a receiver gets, and what becomes of its answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use debshrew::config::{Destination, Format, Secret, Sink, Webhook};
use debshrew::failure::Kind;
use debshrew::relay::{self, Position, SinkError};
use hmac::{Hmac, Mac};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::relay::sink::{Memory, relay as run};
use crate::support::steps::{about, apply, block, event, retract, row, settings, table};
use crate::support::{Rig, changes, database};

type Answer = Box<dyn Fn(usize) -> Response + Send + Sync>;

/// A receiver: what it got, and what it answers to the n-th request.
struct Receiver {
    got: Mutex<Vec<(HeaderMap, Bytes)>>,
    answer: Answer,
}

async fn take(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Response {
    let number = {
        let mut got = receiver.got.lock().unwrap();
        got.push((headers, body));
        got.len() - 1
    };
    (receiver.answer)(number)
}

/// Returns it with its address.
async fn receiver(answer: impl Fn(usize) -> Response + Send + Sync + 'static) -> (Arc<Receiver>, String) {
    let receiver = Arc::new(Receiver { got: Mutex::default(), answer: Box::new(answer) });
    let routes = Router::new().fallback(take).with_state(receiver.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let routes = hyper_util::service::TowerToHyperService::new(routes.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, routes));
        }
    };
    tokio::spawn(incoming);
    (receiver, address)
}

fn hook(url: &str) -> Webhook {
    Webhook {
        url: Secret::new(url),
        secret: Some(Secret::new("whsec_c2VzYW1l")),
        timeout: Duration::from_millis(500),
        max_bytes: 10_000,
    }
}

fn open(webhook: Webhook) -> Box<dyn relay::Sink> {
    relay::open(&settings(Destination::Webhook(webhook)), &about()).unwrap()
}

fn ok(_: usize) -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// What is published of one step to a receiver that answers so.
async fn refused(answer: impl Fn(usize) -> Response + Send + Sync + 'static) -> SinkError {
    let (receiver, address) = receiver(answer).await;
    let mut sink = open(hook(&format!("http://user:pass-word@{address}/path-key?sig=query-key")));
    sink.open().await.unwrap();
    let error = sink.publish(&apply(7, Vec::new())).await.unwrap_err();
    assert_eq!(receiver.got.lock().unwrap().len(), 1, "asked again by itself");
    for secret in ["pass-word", "path-key", "query-key", "sesame", "c2VzYW1l"] {
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
    assert!(error.message.contains(&format!("http://…@{address}/…")), "{error}");
    assert!(error.message.contains(&format!("block {}", block(7))), "{error}");
    error
}

#[tokio::test]
async fn a_step_is_one_signed_request() {
    let (receiver, address) = receiver(ok).await;
    let mut sink = open(hook(&format!("http://{address}/in")));
    assert_eq!(sink.open().await.unwrap(), Position::NotKept);
    let notes = table("notes");
    let applied = apply(7, vec![event(&notes, None, row("a", "1"))]);
    let retracted = retract(7, 6, 3, vec![event(&notes, row("a", "1"), None)]);
    for step in [&applied, &retracted, &applied] {
        sink.publish(step).await.unwrap();
    }
    sink.flush().await.unwrap();
    let got = receiver.got.lock().unwrap();
    let ids: Vec<&str> = got.iter().map(|(headers, _)| headers["webhook-id"].to_str().unwrap()).collect();
    assert_eq!(ids, ["ledger/events/0-apply-7", "ledger/events/3-retract-7", "ledger/events/0-apply-7"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (headers, body) in got.iter() {
        let text = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(text("idempotency-key"), text("webhook-id"));
        assert_eq!(text("content-type"), "application/json");
        assert!(now.abs_diff(text("webhook-timestamp").parse().unwrap()) < 60);
        let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(b"sesame").unwrap();
        hmac.update(format!("{}.{}.", text("webhook-id"), text("webhook-timestamp")).as_bytes());
        hmac.update(body);
        let signature =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hmac.finalize().into_bytes());
        assert_eq!(text("webhook-signature"), format!("v1,{signature}"));
    }
    assert_eq!(got[0].1, got[2].1, "a repetition has the same body");
    let document: serde_json::Value = serde_json::from_slice(&got[0].1).unwrap();
    assert_eq!(document["id"], "0-apply-7");
    assert_eq!(document["events"][0]["op"], "c");
    assert_eq!(document["events"][0]["source"]["table"], "notes");
    assert_eq!(document["events"][0]["after"]["note"], "1");
}

#[tokio::test]
async fn the_compact_form_has_events_in_short_and_no_secret_means_no_signature() {
    let (receiver, address) = receiver(ok).await;
    let webhook = Webhook { secret: None, ..hook(&format!("http://{address}/in")) };
    let sink = Sink { format: Format::Compact, ..settings(Destination::Webhook(webhook)) };
    let mut sink = relay::open(&sink, &about()).unwrap();
    sink.open().await.unwrap();
    sink.publish(&apply(7, vec![event(&table("notes"), None, row("a", "1"))])).await.unwrap();
    let got = receiver.got.lock().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&got[0].1).unwrap();
    assert_eq!(document["events"][0]["table"], "notes");
    assert_eq!(document["events"][0]["key"]["address"], "a");
    assert!(!got[0].0.contains_key("webhook-signature"));
}

#[tokio::test]
async fn a_login_in_the_url_is_sent_and_the_path_is_kept() {
    let (receiver, address) = receiver(ok).await;
    let mut sink = open(hook(&format!("http://user:pass@{address}/in?x=1")));
    sink.open().await.unwrap();
    sink.publish(&apply(7, Vec::new())).await.unwrap();
    let got = receiver.got.lock().unwrap();
    assert_eq!(got[0].0["authorization"], "Basic dXNlcjpwYXNz");
}

#[tokio::test]
async fn what_may_pass_is_transient_and_the_pause_is_what_was_asked_for() {
    for status in [408, 425, 429, 500, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        let error =
            refused(move |_| (status, [("retry-after", "7")], "too much \x1b[2J").into_response()).await;
        assert_eq!(error.kind, Kind::Transient, "{error}");
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)), "{error}");
        assert!(error.message.contains(&format!("{status} to block")), "{error}");
        assert!(error.message.ends_with(": too much [2J"), "{error}");
    }
    let error = refused(|_| StatusCode::BAD_GATEWAY.into_response()).await;
    assert_eq!(error.retry_after, None);
}

#[tokio::test]
async fn what_does_not_pass_is_permanent_with_what_the_server_said() {
    for (status, advice) in
        [(401, "`secret`"), (403, "`secret`"), (410, "sink drop"), (413, "larger"), (404, ""), (422, "")]
    {
        let status = StatusCode::from_u16(status).unwrap();
        let said = "no path-key; pass-word, and query-key are wrong ";
        let error = refused(move |_| (status, said.repeat(1000)).into_response()).await;
        assert_eq!(error.kind, Kind::Permanent, "{error}");
        assert!(error.message.contains("no …; …, and … are wrong"), "{error}");
        assert!(error.message.len() < 800, "{error}");
        assert!(error.advice.unwrap_or_default().contains(advice));
    }
}

#[tokio::test]
async fn nobody_is_sent_elsewhere() {
    let (elsewhere, address) = receiver(ok).await;
    for status in [301, 302, 307, 308] {
        let status = StatusCode::from_u16(status).unwrap();
        let location = format!("http://{address}/");
        let error = refused(move |_| (status, [("location", location.clone())]).into_response()).await;
        assert_eq!(error.kind, Kind::Permanent);
        assert!(error.advice.unwrap().contains("`url`"));
    }
    assert_eq!(elsewhere.got.lock().unwrap().len(), 0);
}

/// A receiver that is none: what it does with a connection once a request is there.
async fn broken(answer: &'static [u8], hangs: bool) -> SinkError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer).await.unwrap();
                if hangs {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    let mut sink = open(hook(&format!("http://{address}/path-key")));
    sink.open().await.unwrap();
    let publishing = async { sink.publish(&apply(7, Vec::new())).await.unwrap_err() };
    let error = tokio::time::timeout(Duration::from_secs(5), publishing).await.expect("it has a deadline");
    assert!(!format!("{error:?}").contains("path-key"), "{error:?}");
    error
}

#[tokio::test]
async fn a_receiver_that_hangs_or_closes_or_talks_rubbish_is_tried_again() {
    for (answer, hangs) in [
        (&b""[..], false),
        (b"", true),
        (b"HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\nhalf", true),
        (b"HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\nhalf", false),
        (b"what?\r\n\r\n", false),
    ] {
        let error = broken(answer, hangs).await;
        assert_eq!(error.kind, Kind::Transient, "{:?}: {error}", String::from_utf8_lossy(answer));
    }
    let mut sink = open(hook("http://127.0.0.1:1/path-key"));
    sink.open().await.unwrap();
    let error = sink.publish(&apply(7, Vec::new())).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (Kind::Transient, "cannot connect to http://127.0.0.1:1/…")
    );
    assert!(!format!("{error:?}").contains("path-key"), "{error:?}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_sent() {
    let (receiver, address) = receiver(ok).await;
    let mut sink = open(hook(&format!("http://{address}/in")));
    sink.open().await.unwrap();
    let step = apply(7, vec![event(&table("notes"), None, row("a", &"x".repeat(10_000)))]);
    let error = sink.publish(&step).await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    for part in ["`max_bytes` allows 10000", &format!("block {}", block(7))] {
        assert!(error.message.contains(part), "{error}");
    }
    assert_eq!(receiver.got.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn what_cannot_be_sent_to_is_said_when_it_is_opened() {
    for (url, secret, expected) in [
        ("ftp://u:pass-word@h/path-key", "sesame", "must begin with `https://`"),
        ("pass-word", "sesame", "is no URL"),
        ("http://h/path-key", "whsec_?", "no base64"),
    ] {
        let error =
            open(Webhook { secret: Some(Secret::new(secret)), ..hook(url) }).open().await.unwrap_err();
        assert_eq!(error.kind, Kind::Permanent);
        let said = format!("{error:?}");
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("pass-word") && !said.contains("path-key"), "{said}");
    }
}

#[tokio::test]
async fn checking_connects_and_sends_nothing() {
    let (receiver, address) = receiver(ok).await;
    let mut sink = open(Webhook { secret: None, ..hook(&format!("http://{address}/path-key")) });
    let said = sink.check().await.unwrap().join("; ");
    assert!(said.contains("nothing was sent") && said.contains("not signed"), "{said}");
    assert!(!said.contains("path-key"), "{said}");
    assert_eq!(receiver.got.lock().unwrap().len(), 0);
    let error = open(hook("http://127.0.0.1:1/path-key")).check().await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient);
    assert!(error.message.contains("cannot connect to http://127.0.0.1:1/…"), "{error}");
    let error = open(hook("http://nowhere.invalid/")).check().await.unwrap_err();
    assert!(error.message.contains("cannot resolve http://nowhere.invalid"), "{error}");
}

#[tokio::test]
async fn what_was_answered_does_not_come_again_behind_what_follows_it() {
    let test = database("webhook_order").await;
    let mut rig = Rig::up(&test, "posts", "create table notes (address text primary key)").await;
    let (receiver, address) = receiver(|number| match number {
        2 => StatusCode::BAD_GATEWAY.into_response(),
        number => ok(number),
    })
    .await;
    let first = debshrew::config::Beginning::Height(debshrew::block::Height::new(0).unwrap());
    let mut run = run(&rig, "events", first, &Memory::default());
    run.relay.make = Arc::new(move || Ok(open(hook(&format!("http://{address}/in")))));
    // The stream begins before the blocks.
    run.catch_up().await.unwrap();
    for height in 0..4 {
        rig.commit(height, changes(&format!(r#"+notes {{"address": "{height}"}}"#))).await;
    }
    let error = run.catch_up().await.unwrap_err();
    assert!(error.to_string().contains("502"), "{error}");
    run.catch_up().await.unwrap();
    let got = receiver.got.lock().unwrap();
    let ids: Vec<&str> = got.iter().map(|(headers, _)| headers["webhook-id"].to_str().unwrap()).collect();
    let expected = [0, 1, 2, 2, 3].map(|height| format!("ledger/events/0-apply-{height}"));
    assert_eq!(ids, expected);
}
