//! The whole way from a source to rows: catching up, following, reorganisations, restarts, halting.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_postgres::Client;

use crate::support::{TestDb, database, debshrew};

/// A source of as little as it takes: a chain of names, each the block's only content.
#[derive(Clone, Default)]
pub struct Chain(Arc<Mutex<Vec<String>>>);

impl Chain {
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let chain = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let chain = chain.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(chain.clone(), request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        url
    }

    /// Keeps this many blocks and puts these on them.
    pub fn switch(&self, keep: usize, names: impl IntoIterator<Item = String>) {
        let mut blocks = self.0.lock().unwrap();
        blocks.truncate(keep);
        blocks.extend(names);
    }
}

async fn answer(
    chain: Chain,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let call: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let blocks = chain.0.lock().unwrap().clone();
    let block = |height: &serde_json::Value| blocks.get(height.as_u64().unwrap() as usize);
    let result = match call["method"].as_str().unwrap() {
        "metashrew_height" => Ok((blocks.len() - 1).to_string()),
        "metashrew_getblockhash" => match block(&call["params"][0]) {
            Some(name) => Ok(format!("0x{:0>64}", hex::encode(name))),
            None => Err(format!("Storage error: Block hash not found for height {}", call["params"][0])),
        },
        _ => Ok(format!("0x{}", block(&call["params"][2]).map(hex::encode).unwrap_or_default())),
    };
    let answer = match result {
        Ok(result) => serde_json::json!({"jsonrpc": "2.0", "id": 1, "result": result}),
        Err(message) => {
            serde_json::json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": message}})
        }
    };
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}

pub fn names(branch: &str, heights: std::ops::Range<usize>) -> Vec<String> {
    heights.map(|height| format!("{branch}{height}")).collect()
}

pub struct Set {
    pub chain: Chain,
    pub database: TestDb,
    pub client: Client,
    pub toml: String,
    _folder: tempfile::TempDir,
}

impl Set {
    pub async fn up(name: &str, wat: &str) -> Set {
        let chain = Chain::default();
        chain.switch(0, names("a", 0..200));
        let (url, database) = (chain.serve().await, database(name).await);
        let folder = tempfile::tempdir().unwrap();
        let wasm = folder.path().join("t.wasm");
        std::fs::write(&wasm, wat::parse_str(wat).unwrap()).unwrap();
        let toml = format!(
            "[database]\nurl = \"{}\"\n[source]\nurls = [\"{url}\"]\npoll_interval = \"20ms\"\n[pipelines.counter]\n\
             transform = \"{}\"\nmigrations = \"{}/tests/counter\"\nschema = \"counter\"\nstart_height = 0\n",
            database.dsn,
            wasm.display(),
            env!("CARGO_MANIFEST_DIR"),
        );
        let client = database.connect().await;
        Set { chain, database, client, toml, _folder: folder }
    }

    pub async fn run(&self, arguments: &'static [&'static str]) -> (i32, String, String) {
        let command = debshrew(arguments).file(&self.toml);
        let output = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
        (output.code, output.stdout, output.stderr)
    }

    /// The rows are the chain's blocks, counted from one; the checkpoint is its tip.
    pub async fn follows(&self) {
        let rows = self
            .client
            .query("select height, count, name from counter.seen order by height", &[])
            .await
            .unwrap();
        let rows: Vec<(i32, i32, String)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let blocks = self.chain.0.lock().unwrap().clone();
        let expected =
            blocks.iter().enumerate().map(|(height, name)| (height as i32, height as i32 + 1, name.clone()));
        assert_eq!(rows, expected.collect::<Vec<_>>());
        let height: i32 =
            self.client.query_one("select height from debshrew.pipelines", &[]).await.unwrap().get(0);
        assert_eq!(height as usize, blocks.len() - 1);
    }
}

pub const COUNTER: &str = include_str!("transforms/counter.wat");

#[tokio::test(flavor = "multi_thread")]
async fn it_catches_up_follows_a_reorganisation_and_goes_on() {
    let set = Set::up("pipeline_follow", COUNTER).await;
    let (code, _, stderr) = set.run(&["run", "--once"]).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("migrations are pending"), "{stderr}");
    let (code, stdout, stderr) = set.run(&["migrate"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("counter: made the journal of `seen`"), "{stdout}");
    let (code, _, stderr) = set.run(&["run", "--until", "150"]).await;
    assert_eq!(code, 0, "{stderr}");
    let count: i64 = set.client.query_one("select count(*) from counter.seen", &[]).await.unwrap().get(0);
    assert_eq!(count, 151);
    let (code, _, stderr) = set.run(&["run", "--once"]).await;
    assert_eq!(code, 0, "{stderr}");
    set.follows().await;

    set.chain.switch(190, names("b", 190..205));
    let (code, _, stderr) = set.run(&["run", "--once"]).await;
    assert_eq!(code, 0, "{stderr}");
    set.follows().await;
    let reorg = set.client.query_one("select depth, fork_height from debshrew.reorgs", &[]).await.unwrap();
    assert_eq!((reorg.get::<_, i32>(0), reorg.get::<_, i32>(1)), (10, 189));

    set.chain.switch(0, names("c", 0..3));
    let (code, _, stderr) = set.run(&["run", "--once"]).await;
    assert_eq!(code, 0, "{stderr}");
    set.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_rolled_back_by_hand_and_says_how_it_fares() {
    let set = Set::up("pipeline_by_hand", COUNTER).await;
    let (code, _, stderr) = set.run(&["run", "--migrate", "--once"]).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = set.run(&["rollback", "--to", "100"]).await;
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--yes"), "{stderr}");
    let (code, stdout, stderr) = set.run(&["rollback", "--to", "100", "--yes"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("rolled back 99 blocks"), "{stdout}");
    let (code, stdout, _) = set.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &status["pipelines"][0]["height"]), (0, &serde_json::json!(100)));
    assert_eq!(status["pipelines"][0]["state"], "stopped");
    let (code, stdout, _) = set.run(&["check"]).await;
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("ok    tables of `counter`: `seen`"), "{stdout}");
    let (code, _, stderr) = set.run(&["run", "--once"]).await;
    assert_eq!(code, 0, "{stderr}");
    set.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_cannot_be_applied_halts_the_pipeline_and_leaves_the_blocks_before() {
    let broken = COUNTER.replace(r"\22count\22:", r"\22coumt\22:");
    let set = Set::up("pipeline_halt", &broken).await;
    let (code, _, stderr) = set.run(&["run", "--migrate", "--once"]).await;
    assert_eq!(code, 3, "{stderr}");
    let (code, stdout, _) = set.run(&["status"]).await;
    assert_eq!(code, 3);
    assert!(
        stdout.contains("table `seen` has no column `coumt`; it has `height`, `count`, `name`"),
        "{stdout}"
    );
    let none: Option<i32> =
        set.client.query_one("select height from debshrew.pipelines", &[]).await.unwrap().get(0);
    assert_eq!(none, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_stands_by_and_takes_over() {
    let set = Set::up("pipeline_standby", COUNTER).await;
    let (code, _, stderr) = set.run(&["run", "--migrate", "--until", "10"]).await;
    assert_eq!(code, 0, "{stderr}");
    // This session holds the writer's lock as a first process would.
    let holder = set.database.connect().await;
    holder.execute("select pg_advisory_lock(1684173672, 1)", &[]).await.unwrap();
    let second = set.run(&["run", "--once"]);
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_secs(2), &mut second).await;
    assert!(early.is_err(), "it did not wait: {early:?}");
    let height: i32 =
        set.client.query_one("select height from debshrew.pipelines", &[]).await.unwrap().get(0);
    assert_eq!(height, 10);
    drop(holder);
    let (code, _, stderr) = second.await;
    assert_eq!(code, 0, "{stderr}");
    set.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_at_the_start_is_said_at_once() {
    let set = Set::up("pipeline_unreachable", COUNTER).await;
    let nowhere = ["run", "--source-url", "http://127.0.0.1:1"];
    let command = debshrew(&nowhere).file(&set.toml).variable("DEBSHREW__SOURCE__RETRIES", "0");
    let output = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
    assert_eq!(output.code, 4, "{}", output.stderr);
    let nowhere = ["run", "--database-url", "postgres://nobody@127.0.0.1:1/x"];
    let command = debshrew(&nowhere).file(&set.toml);
    let output = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
    assert_eq!(output.code, 4, "{}", output.stderr);
}
