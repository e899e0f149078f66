//! What `run` tells of itself over HTTP: probes, metrics, the state, and the page that shows it.

mod browser;
mod metrics;
mod page;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::simulate::http::{Answer, Client};
use crate::support::{COUNTER, DEADLINE, Scene, debshrew, quick, until};

/// The exit code after a pipeline halted.
const HALTED: i32 = 3;

const TOKEN: &str = "0123456789abcdef";

/// Halts at the first block, with what a page must not take for its own.
const BROKEN: &str = r#"(module
  (import "env" "__stderr" (func $stderr (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "\2e\00\00\00<img src=x onerror=document.title=1>\e2\80\ae refuse")
  (func (export "process_block") (result i32) (call $stderr (i32.const 1024)) (i32.const -1)))"#;

/// A scene whose `run` serves at an address of its own.
struct Served {
    scene: Scene,
    address: String,
}

impl Served {
    async fn new(name: &str, keys: &str, height: u32) -> Served {
        let mut scene = Scene::new(name, COUNTER, quick(height)).await;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        writeln!(scene.toml, "[server]\nlisten = \"{free}\"\n{keys}").unwrap();
        Served { scene, address: free.to_string() }
    }

    /// A sink of the pipeline `counter`.
    fn with_sink(mut self) -> Served {
        let folder = self.scene.log().with_file_name("out");
        let path = folder.display();
        write!(
            self.scene.toml,
            "[pipelines.counter.sinks.events]\nkind = \"file\"\nfrom = 0\npath = \"{path}\"\n"
        )
        .unwrap();
        self
    }

    /// Another pipeline, which halts.
    fn with_broken(mut self) -> Served {
        self.scene.add_pipeline("broken", BROKEN, "");
        self
    }

    /// Starts `run`, and waits until it answers.
    async fn start(&self) -> Child {
        self.scene.succeed(&["migrate"]).await;
        let running = self.scene.start(&["run"]);
        until("it listens", async || TcpStream::connect(&self.address).await.is_ok()).await;
        running
    }

    /// A process that serves nothing, and stands by.
    async fn start_standby(&mut self) -> Child {
        let toml = self.scene.toml.clone();
        self.scene.toml = toml.replace(&format!("listen = \"{}\"", self.address), "");
        let standby = self.scene.start(&["run", "--pipeline", "counter"]);
        self.scene.toml = toml;
        standby
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, "").await
    }

    async fn get_with(&self, path: &str, headers: &str) -> Answer {
        let mut client = Client::connect(&format!("http://{}", self.address)).await;
        let host =
            if headers.contains("Host: ") { String::new() } else { format!("Host: {}\r\n", self.address) };
        client.send(format!("GET {path} HTTP/1.1\r\n{host}{headers}\r\n").as_bytes()).await;
        tokio::time::timeout(DEADLINE, client.answer()).await.unwrap().unwrap()
    }

    async fn status(&self) -> Value {
        let answer = self.get("/status").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        serde_json::from_str(&answer.body).unwrap()
    }

    async fn until_status(&self, what: &str, mut is: impl FnMut(&Value) -> bool) {
        until(what, async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            is(&self.status().await)
        })
        .await;
    }
}

fn pipeline<'a>(status: &'a Value, name: &str) -> &'a Value {
    let pipelines = status["pipelines"].as_array().unwrap();
    pipelines.iter().find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

async fn ends_well(running: Child) {
    assert_eq!(end(running).await, 0);
}

/// What it exits with when it is told to end.
async fn end(mut running: Child) -> i32 {
    let pid = running.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(20), running.wait()).await;
    ended.expect("it ends soon").unwrap().code().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_tell_alive_from_ready() {
    let served = Served::new("server_probes", "ready_lag = 3", 4).await.with_broken();
    let running = served.start().await;
    let body = |answer: &Answer| serde_json::from_str::<Value>(&answer.body).unwrap();
    let healthy = served.get("/healthz").await;
    assert_eq!((healthy.status, &body(&healthy)["healthy"]), (200, &Value::Bool(true)));

    served.until_status("broken is halted", |status| pipeline(status, "broken")["state"] == "halted").await;
    served.scene.caught_up().await;
    served.until_status("counter runs", |status| pipeline(status, "counter")["lag_blocks"] == 0).await;
    let ready = served.get("/readyz").await;
    assert_eq!(ready.status, 503);
    let reasons = body(&ready)["not_ready"].clone();
    assert_eq!((reasons.as_array().unwrap().len(), &reasons[0]["pipeline"]), (1, &Value::from("broken")));
    assert!(reasons[0]["reason"].as_str().unwrap().starts_with("is halted: block 0: "), "{reasons}");
    assert_eq!(served.get("/healthz").await.status, 200, "a pipeline that halted has decided so");
    assert_eq!((served.get("/nothing").await.status, served.get("/").await.status), (404, 200));
    assert_eq!(end(running).await, HALTED);

    let served = Served::new("server_ready", "ready_lag = 3", 4).await;
    let running = served.start().await;
    served.scene.caught_up().await;
    served.until_status("it is ready", |status| status["ready"] == true).await;
    let ready = served.get("/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "{\"not_ready\":[],\"ready\":true}\n"));
    // A transaction of someone else's is in the way.
    let mut blocker = served.scene.database.connect().await;
    let blocking = blocker.transaction().await.unwrap();
    blocking.batch_execute("lock table counter.seen in exclusive mode").await.unwrap();
    served.scene.mine(5).await;
    served.until_status("it is behind", |status| status["ready"] == false).await;
    let behind = served.get("/readyz").await;
    assert!(behind.status == 503 && behind.body.contains("blocks behind, and may be 3"), "{}", behind.body);
    blocking.rollback().await.unwrap();
    served.scene.caught_up().await;
    served.until_status("it is ready again", |status| status["ready"] == true).await;
    ends_well(running).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_defect_ended_is_not_healthy() {
    let mut served = Served::new("server_defect", "", 4).await;
    served.scene.add_pipeline("other", COUNTER, "");
    served.scene.succeed(&["migrate"]).await;
    let running = served.scene.start_with(&["run"], &[("FAILPOINTS", "before-statement=1*panic(a defect)")]);
    until("it is not healthy", async || {
        TcpStream::connect(&served.address).await.is_ok() && served.get("/healthz").await.status == 503
    })
    .await;
    let broken: Value = serde_json::from_str(&served.get("/healthz").await.body).unwrap();
    let broken = broken["broken_pipelines"][0].as_str().unwrap().to_owned();
    let other = if broken == "other" { "counter" } else { "other" };
    served.until_status("the other one goes on", |status| pipeline(status, other)["lag_blocks"] == 0).await;
    let status = served.status().await;
    let told = pipeline(&status, &broken);
    assert_eq!(told["state"], "halted");
    assert!(told["reason"].as_str().unwrap().contains("panicked"), "{told}");
    assert_eq!(end(running).await, HALTED);
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn which_task_a_defect_ended_is_told_to_who_has_the_token() {
    let mut served = Served::new("server_defect_token", &format!("token = \"{TOKEN}\""), 4).await;
    served.scene.add_pipeline("other", COUNTER, "");
    served.scene.succeed(&["migrate"]).await;
    let running = served.scene.start_with(&["run"], &[("FAILPOINTS", "before-statement=1*panic(a defect)")]);
    until("it is not healthy", async || {
        TcpStream::connect(&served.address).await.is_ok() && served.get("/healthz").await.status == 503
    })
    .await;
    assert_eq!(served.get("/healthz").await.body, "{\"broken_pipelines\":[],\"healthy\":false}\n");
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let told = served.get_with("/healthz", &bearer).await.body;
    assert!(told.contains("counter") || told.contains("other"), "{told}");
    assert_eq!(end(running).await, HALTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_what_the_manual_says() {
    let mut served = Served::new("server_status", "", 12).await.with_broken().with_sink();
    let running = served.start().await;
    served.scene.caught_up().await;
    let _standby = served.start_standby().await;
    served.scene.reorganise(2, 3).await;
    served.scene.settled().await;
    served
        .until_status("all is there", |status| {
            let counter = pipeline(status, "counter");
            let stored = status["database"]["pipelines"].as_array().unwrap();
            let stored = stored.iter().find(|one| one["name"] == "counter");
            counter["reorgs"][0]["depth"] == 2
                && counter["height"] == 13
                && pipeline(status, "broken")["state"] == "halted"
                && stored.is_some_and(|one| {
                    one["standbys"][0]["pid"].is_number()
                        && one["sinks"][0]["height"] == 13
                        && one["tables"][0]["bytes"].is_number()
                })
        })
        .await;
    // In so many letters: nothing that a terminal obeys, or that turns the direction of writing.
    assert!(served.get("/status").await.body.contains("\\u202e refuse"));
    let status = served.status().await;
    let counter = pipeline(&status, "counter");
    assert_eq!((&counter["lag_blocks"], &counter["source_height"]), (&Value::from(0), &Value::from(13)));
    assert_eq!(counter["block_hash"], served.scene.source.chain().last().unwrap().to_string());
    let stored = status["database"]["pipelines"].as_array().unwrap();
    let stored = stored.iter().find(|one| one["name"] == "counter").unwrap();
    assert_eq!(stored["writer"]["is_writer"], true);
    let names = |kind: &str| -> BTreeSet<&str> {
        stored[kind].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
    };
    assert_eq!(names("tables"), BTreeSet::from(["debshrew_state", "seen"]));
    assert_eq!(names("journals"), BTreeSet::from(["debshrew_state_journal", "seen"]));

    let mut found = BTreeSet::new();
    paths(&status, "", &mut found);
    let page = include_str!("../docs/server.md");
    let described: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(path, _)| path.to_owned()))
        .filter(|path| !path.starts_with('/'))
        .collect();
    let missing: Vec<_> = found.difference(&described).collect();
    let gone: Vec<_> = described.difference(&found).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in docs/server.md: {missing:#?}; not in /status: {gone:#?}"
    );
    assert_eq!(end(running).await, HALTED);
}

/// Every field, with `[]` for the entries of a list.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                paths(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| paths(entry, &format!("{at}[]"), found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_token_is_told() {
    let served = Served::new("server_token", &format!("token = \"{TOKEN}\""), 3).await.with_broken();
    let running = served.start().await;
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/", "/status", "/metrics", "/events", "/nothing", "/status?token=0123456789abcdef"] {
        let refused = served.get(path).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(
            served.get_with(path, "Authorization: Bearer 0123456789abcdeF\r\n").await.status,
            401,
            "{path}"
        );
    }
    for path in ["/", "/status", "/metrics"] {
        // Whatever it is called by.
        let host = "Host: monitored.example:9464\r\n";
        assert_eq!(served.get_with(path, &format!("{host}{bearer}")).await.status, 200, "{path}");
    }
    served.scene.logged("halted:", 1).await;
    assert_eq!(served.get("/healthz").await.status, 200);
    until("it is told without a reason", async || {
        served.get("/readyz").await.body == "{\"not_ready\":[],\"ready\":false}\n"
    })
    .await;
    assert!(served.get_with("/readyz", &bearer).await.body.contains("is halted"));

    assert_eq!(served.get("/?token=0123456789abcdeF").await.status, 401);
    let entered = served.get(&format!("/?token={TOKEN}")).await;
    assert_eq!((entered.status, entered.header("location")), (303, Some("/")));
    let cookie = entered.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite") && !cookie.contains(TOKEN),
        "{cookie}"
    );
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    for path in ["/", "/status", "/metrics"] {
        assert_eq!(served.get_with(path, &cookie).await.status, 200, "{path}");
    }
    let log = std::fs::read_to_string(served.scene.log()).unwrap();
    assert!(!log.contains(TOKEN), "{log}");
    assert_eq!(end(running).await, HALTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_are_told_nothing() {
    let served = Served::new("server_strangers", "", 3).await;
    let running = served.start().await;
    for headers in ["Host: evil.example\r\n", "Origin: http://evil.example\r\n", "Origin: null\r\n"] {
        for path in ["/", "/status", "/metrics", "/healthz", "/events"] {
            assert_eq!(served.get_with(path, headers).await.status, 403, "{path} {headers}");
        }
    }
    let page = served.get("/").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"),
        "{policy}"
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let mut client = Client::connect(&format!("http://{}", served.address)).await;
    client
        .send(
            format!("POST /status HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", served.address)
                .as_bytes(),
        )
        .await;
    assert_eq!(client.answer().await.unwrap().status, 405);
    ends_well(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_it_happens_and_end_with_the_process() {
    let served = Served::new("server_events", "", 3).await;
    let running = served.start().await;
    served.scene.caught_up().await;
    let mut stream = TcpStream::connect(&served.address).await.unwrap();
    let request = format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", served.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = String::new();
    let mut more = async |read: &mut String| {
        let mut bytes = [0; 1 << 16];
        let count = tokio::time::timeout(DEADLINE, stream.read(&mut bytes)).await.unwrap().unwrap_or(0);
        read.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    };
    while !read.contains("\"height\":3") {
        assert!(more(&mut read).await, "{read}");
    }
    assert!(
        read.contains("content-type: text/event-stream") && read.contains("event: status\ndata: {"),
        "{read}"
    );
    served.scene.mine(1).await;
    while !read.contains("\"height\":4") {
        assert!(more(&mut read).await, "{read}");
    }
    let (ended, ()) = tokio::join!(
        async {
            while more(&mut read).await {}
            true
        },
        ends_well(running)
    );
    assert!(ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_said_before_anything_else() {
    let served = Served::new("server_taken", "", 3).await;
    let _taken = std::net::TcpListener::bind(&served.address).unwrap();
    let output = served.scene.run(&["run", "--migrate", "--once"]).await;
    assert_eq!(output.code, 1, "{}", output.stderr);
    let said = format!(
        "error: cannot listen on {} (`server.listen`)\n  caused by: Address already in use",
        served.address
    );
    assert!(output.stderr.contains(&said), "{}", output.stderr);
    assert!(output.stderr.contains("\nhint: another process may listen there: "), "{}", output.stderr);
    let tables = "select count(*) from pg_tables where schemaname = 'counter'";
    assert_eq!(
        served.scene.client.query_one(tables, &[]).await.unwrap().get::<_, i64>(0),
        0,
        "nothing was begun"
    );
}

#[test]
fn an_address_that_others_can_reach_needs_a_token() {
    let toml = "[database]\nurl = 'host=h'\n[source]\nurls = ['http://h']\n[pipelines.a]\ntransform = 'a.wasm'\n\
                [server]\nlisten = '0.0.0.0:9464'";
    let output = debshrew(&["run"]).file(toml).run();
    assert_eq!(output.code, 2);
    assert!(
        output.stderr.starts_with("error: `server.listen` is `0.0.0.0:9464`, which other machines can reach")
            && output.stderr.contains("\nhint: set the variable `DEBSHREW__SERVER__TOKEN`"),
        "{}",
        output.stderr
    );
}
