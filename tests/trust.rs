//! What one server says counts only as an answer to what it was asked, while it stood on one branch, and if it is one
//! server that says it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use debshrew::config;
use debshrew::simulate::{Command, Fault, Misbehaviour, Phase, Simulator};
use debshrew::source::{Reading, Source, Verdict};
use debshrew::view::Question;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

use crate::simulate::http::post;
use crate::simulate::reorgs::stepped;
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
            until("it is running", async || scene.state().await == "running").await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_a_call_timed_out_is_not_used_again() {
    let mut scene = Scene::new("trust_timed_out", COUNTER, quick(30)).await;
    let (armed, after) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (server, arm, counted) = (scene.source.url(), armed.clone(), after.clone());
    let choose = move |body: String, kept: Arc<Mutex<bool>>| {
        let (server, arm, counted) = (server.clone(), arm.clone(), counted.clone());
        async move {
            counted.fetch_add(u32::from(*kept.lock().unwrap()), Ordering::SeqCst);
            if arm.swap(false, Ordering::SeqCst) {
                *kept.lock().unwrap() = true;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            post(&server, "/", &body).await.map(|answer| answer.body)
        }
    };
    let url = gateway(choose).await;
    scene.toml = scene.toml.replace(&scene.source.url(), &url);
    scene.toml = scene.toml.replace("poll_interval", "request_timeout = \"300ms\"\npoll_interval");
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    for _ in 0..3 {
        armed.store(true, Ordering::SeqCst);
        until("a call is held", async || !armed.load(Ordering::SeqCst)).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        scene.mine(1).await;
        scene.caught_up().await;
    }
    scene.follows().await;
    assert_eq!(after.load(Ordering::SeqCst), 0);
}

/// What the view `blocktracker` answers at the reading's tip.
async fn tracker(reading: &Reading) -> Vec<u8> {
    let question = Question { view: "blocktracker".into(), input: Vec::new() };
    reading.view(&question, reading.tip().height).await.unwrap().unwrap()
}

async fn once(simulator: &Simulator, fault: Fault, method: &str) {
    let misbehaviour = Misbehaviour { fault, calls: Some(1), method: Some(method.into()), view: None };
    simulator.control(Command::Misbehave(misbehaviour)).await.unwrap();
}

#[tokio::test]
async fn a_fall_that_is_seen_within_a_reading_counts_though_the_tip_is_back_in_the_end() {
    let simulator = Simulator::start(quick(30)).await.unwrap();
    let source = source(&simulator);
    let reading = source.open().await.unwrap().unwrap();
    once(&simulator, Fault::Lower { by: 3 }, "metashrew_height").await;
    while simulator.status().misbehaviours > 0 {
        tracker(&reading).await;
    }
    let verdict = reading.close().await.unwrap();
    assert_eq!(verdict, Verdict::Moved("the tip fell from height 30 to 27".into()));
}

#[tokio::test]
async fn a_branch_that_comes_and_goes_within_a_reading_does_not_pass_unseen() {
    let simulator = stepped().await;
    let source = source(&simulator);
    let reading = source.open().await.unwrap().unwrap();
    let right = tracker(&reading).await;
    for branch in ["other", "main"] {
        let reorg = Command::Reorg { depth: 3, length: Some(3), branch: Some(branch.into()) };
        simulator.control(reorg).await.unwrap();
        let until = Some(Phase::Following);
        simulator.control(Command::Step { count: 1, until }).await.unwrap();
        let since = Instant::now();
        while branch == "other" && since.elapsed() < Duration::from_millis(300) {
            assert_ne!(tracker(&reading).await, right);
        }
    }
    assert_eq!(tracker(&reading).await, right);
    assert_eq!(reading.close().await.unwrap(), Verdict::Moved("the hash of block 20 changed".into()));
}

#[tokio::test]
async fn the_tip_is_looked_at_as_long_as_a_view_takes() {
    let simulator = Simulator::start(quick(30)).await.unwrap();
    let source = source(&simulator);
    let reading = source.open().await.unwrap().unwrap();
    once(&simulator, Fault::Slow { ms: 400 }, "metashrew_view").await;
    let before = simulator.status().calls("metashrew_height");
    tracker(&reading).await;
    let looks = simulator.status().calls("metashrew_height") - before;
    assert!(looks >= 5, "{looks} looks in 400 ms");
}

/// Two servers, one of them three blocks behind, behind an address at which one of them answers at random: each request,
/// or all requests of a connection.
async fn balanced(name: &str, by_connection: bool) {
    let mut scene = Scene::new(name, COUNTER, quick(30)).await;
    let lagging = Simulator::start(quick(30)).await.unwrap();
    let servers = [scene.source.url(), lagging.url()];
    let choose = move |body: String, kept: Arc<Mutex<Option<usize>>>| {
        let random = (RandomState::new().hash_one(0) % 2) as usize;
        let index = if by_connection { *kept.lock().unwrap().get_or_insert(random) } else { random };
        let server = servers[index].clone();
        async move { post(&server, "/", &body).await.map(|answer| answer.body) }
    };
    scene.toml = scene.toml.replace(&scene.source.url(), &gateway(choose).await);
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    for number in 0..60 {
        scene.mine(1).await;
        if number >= 3 {
            lagging.control(Command::Mine { blocks: 1 }).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.whole().await;
    }
    lagging.control(Command::Mine { blocks: 3 }).await.unwrap();
    scene.caught_up().await;
    scene.follows().await;
    if !by_connection {
        let said = "select coalesce(last_error, '') from debshrew.pipelines";
        let said: String = scene.client.query_one(said, &[]).await.unwrap().get(0);
        assert!(said.contains("several servers seem to be behind one address"), "{said}");
        scene.logged("several servers seem to be behind one address", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_share_an_address_by_requests_leave_no_row_out_and_are_found_out() {
    balanced("trust_by_request", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_share_an_address_by_connections_leave_no_row_out() {
    balanced("trust_by_connection", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_know_state_roots_may_say_so_in_its_own_words() {
    let scene = Scene::new("trust_no_method", COUNTER, quick(30)).await;
    let server = scene.source.url();
    let choose = move |body: String, _: Arc<Mutex<()>>| {
        let server = server.clone();
        async move {
            let call: serde_json::Value = serde_json::from_str(&body).unwrap();
            if call["method"] != "metashrew_stateroot" {
                return post(&server, "/", &body).await.map(|answer| answer.body);
            }
            let error = json!({ "code": -32601, "message": "the method metashrew_stateroot does not exist" });
            Some(json!({ "jsonrpc": "2.0", "id": call["id"], "error": error }).to_string())
        }
    };
    let url = gateway(choose).await;
    let one = crate::simulate::source::settings(&scene.source);
    let source = Source::new(&config::Source { urls: vec![url], ..one }).unwrap();
    let reading = source.open().await.unwrap().unwrap();
    assert_eq!(reading.state_root(reading.tip().height).await.unwrap(), None);
}
