//! What one server says counts only as an answer to what it was asked.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use debshrew::simulate::{Command, Fault, Misbehaviour};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

use crate::simulate::http::post;
use crate::simulate::source::source;
use crate::support::{COUNTER, Scene, quick, until};

fn misbehave(fault: Fault, method: Option<&str>) -> Command {
    Command::Misbehave(Misbehaviour { fault, calls: None, method: method.map(str::to_owned), view: None })
}

/// A pipeline that follows; retries are few.
async fn following(name: &str) -> (Scene, tokio::process::Child) {
    let mut scene = Scene::new(name, COUNTER, quick(30)).await;
    scene.toml = scene.toml.replace("poll_interval", "retries = 1\npoll_interval");
    scene.succeed(&["migrate"]).await;
    let running = scene.start(&["run"]);
    scene.caught_up().await;
    (scene, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_another_call_is_refused_and_said() {
    let (scene, _running) = following("trust_other_call").await;
    for (fault, expected) in [
        (Fault::OtherCall, "answered another call"),
        (Fault::Bare, "answered another call"),
        (Fault::Batch, "answered what is not expected: `[{"),
    ] {
        for method in ["metashrew_view", "metashrew_getblockhash", "metashrew_height"] {
            let before = scene.whole().await;
            scene.source.control(misbehave(fault.clone(), Some(method))).await.unwrap();
            scene.mine(1).await;
            let said = "select coalesce(last_error, '') from debshrew.pipelines where state = 'waiting'";
            let mut reason = String::new();
            until(&format!("{fault:?} of {method} is said"), async || {
                let row = scene.client.query_opt(said, &[]).await.unwrap();
                reason = row.map(|row| row.get(0)).unwrap_or_default();
                !reason.is_empty()
            })
            .await;
            assert!(reason.contains(expected), "{fault:?}: {reason}");
            assert_eq!(scene.whole().await, before);
            scene.source.control(Command::Clear {}).await.unwrap();
            scene.caught_up().await;
        }
    }
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_height_that_is_a_number_is_taken() {
    let (scene, _running) = following("trust_number").await;
    scene.source.control(misbehave(Fault::NumericHeight, None)).await.unwrap();
    scene.mine(3).await;
    scene.caught_up().await;
    scene.follows().await;
    let source = source(&scene.source);
    for (value, expected) in
        [(json!(7), Some(7)), (json!("7"), Some(7)), (json!(2147483647), Some(2147483647))]
    {
        scene.source.control(Command::Clear {}).await.unwrap();
        let fault = Fault::Result { value };
        scene.source.control(misbehave(fault, Some("metashrew_height"))).await.unwrap();
        let hash = Fault::Result { value: json!(format!("0x{}", "7".repeat(64))) };
        scene.source.control(misbehave(hash, Some("metashrew_getblockhash"))).await.unwrap();
        assert_eq!(source.tip().await.unwrap().map(|height| height.get()), expected);
    }
    for value in
        [json!(2147483648u32), json!(-1), json!(7.0), json!(1e3), json!("+7"), json!(" 7"), json!(true)]
    {
        scene.source.control(Command::Clear {}).await.unwrap();
        let fault = Fault::Result { value: value.clone() };
        scene.source.control(misbehave(fault, Some("metashrew_height"))).await.unwrap();
        let error = source.tip().await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("expected a height below 2^31"), "{value}: {error}");
    }
}

/// Stands before servers and lets `choose` say what is answered to each request, as a gateway does that keeps its own
/// connections. `choose` gets the request's body and whatever it keeps a connection.
async fn gateway<T, F>(choose: impl Fn(String, Arc<Mutex<T>>) -> F + Clone + Send + 'static) -> String
where
    T: Default + Send + 'static,
    F: Future<Output = Option<String>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let choose = choose.clone();
            let kept = Arc::<Mutex<T>>::default();
            tokio::spawn(async move {
                let mut client = BufStream::new(client);
                while let Some(body) = request(&mut client).await {
                    let Some(answer) = choose(body, kept.clone()).await else { return };
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
                    if client.write_all(format!("{head}{answer}").as_bytes()).await.is_err()
                        || client.flush().await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// The body of the next request.
async fn request(client: &mut BufStream<TcpStream>) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.ok()?;
    String::from_utf8(body).ok()
}

/// What a connection of the gateway was asked and answered before.
#[derive(Default)]
struct Late {
    last: Option<String>,
    is_late: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_brings_a_late_answer_is_not_used_again() {
    let mut scene = Scene::new("trust_late", COUNTER, quick(30)).await;
    let (armed, after) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (server, arm, counted) = (scene.source.url(), armed.clone(), after.clone());
    let choose = move |body: String, kept: Arc<Mutex<Late>>| {
        let (server, arm, counted) = (server.clone(), arm.clone(), counted.clone());
        async move {
            let answer = post(&server, "/", &body).await?.body;
            let mut kept = kept.lock().unwrap();
            if kept.is_late {
                counted.fetch_add(1, Ordering::SeqCst);
            } else if kept.last.is_some() && arm.swap(false, Ordering::SeqCst) {
                kept.is_late = true;
            }
            let late = kept.last.replace(answer.clone());
            if kept.is_late { late } else { Some(answer) }
        }
    };
    let url = gateway(choose).await;
    scene.toml = scene.toml.replace(&scene.source.url(), &url);
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    for _ in 0..10 {
        armed.store(true, Ordering::SeqCst);
        scene.mine(1).await;
        scene.caught_up().await;
    }
    scene.follows().await;
    assert_eq!(after.load(Ordering::SeqCst), 0);
}
