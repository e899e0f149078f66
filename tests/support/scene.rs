//! A pipeline between a simulated source and a database of its own, run by the binary as users run it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use debshrew::simulate::{Command, Options, Origin, Phase, Simulator, Status, Timing};
use tokio::process::Child;
use tokio_postgres::Client;

use super::{Output, Screen, TestDb, database, debshrew};

/// Keeps a row per block in `counter.seen`, with all that must belong together; see the file.
pub const COUNTER: &str = include_str!("../transforms/counter.wat");

/// Longer than anything that is waited for takes, and shorter than a test's patience.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Scene {
    pub source: Simulator,
    pub database: TestDb,
    pub client: Client,
    pub toml: String,
    folder: tempfile::TempDir,
}

/// A source that goes through its phases several times as fast as a real one, in the same proportions: above all,
/// what it has is not taken back sooner than a client that looks every 20 ms can have seen it.
pub fn quick(height: u32) -> Options {
    Options {
        origin: Origin::Generated { seed: 1, height, transactions: 2 },
        timing: Timing {
            notice: Duration::from_millis(150),
            view_lag: Duration::ZERO,
            rollback: Duration::from_millis(8),
            half_done: Duration::from_millis(4),
            block: Duration::from_millis(20),
            between: Duration::from_millis(4),
        },
        ..Options::default()
    }
}

/// How many blocks pipelines evaluate at once, where a test does not say: the default, or what
/// `DEBSHREW_TEST_EVALUATE_AHEAD` says.
fn evaluate_ahead() -> String {
    let given = std::env::var("DEBSHREW_TEST_EVALUATE_AHEAD").ok();
    given.map(|blocks| format!("evaluate_ahead = {blocks}\n")).unwrap_or_default()
}

impl Scene {
    /// The pipeline `counter` with this module, set up but not migrated.
    pub async fn new(name: &str, wat: &str, options: Options) -> Scene {
        Scene::over(database(name).await, wat, options).await
    }

    /// The same on a database that was made elsewhere.
    pub async fn over(database: TestDb, wat: &str, options: Options) -> Scene {
        let source = Simulator::start(options).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let toml = format!(
            "[database]\nurl = \"{}\"\n[source]\nurls = [\"{}\"]\npoll_interval = \"20ms\"\n",
            database.dsn,
            source.url(),
        );
        let client = database.connect().await;
        let mut scene = Scene { source, database, client, toml, folder };
        scene.add_pipeline("counter", wat, "");
        scene
    }

    /// Another pipeline over the tables of tests/counter.
    pub fn add_pipeline(&mut self, name: &str, wat: &str, keys: &str) {
        let wasm = self.folder.path().join(format!("{name}.wasm"));
        std::fs::write(&wasm, wat::parse_str(wat).unwrap()).unwrap();
        let section = format!(
            "[pipelines.{name}]\ntransform = \"{}\"\nmigrations = \"{}/tests/counter\"\nstart_height = 0\n{keys}\n",
            wasm.display(),
            env!("CARGO_MANIFEST_DIR"),
        );
        self.toml.push_str(&section);
        if !keys.contains("evaluate_ahead") {
            self.toml.push_str(&evaluate_ahead());
        }
    }

    /// A pipeline with an example transform that `make transforms` has built.
    pub fn add_built(&mut self, name: &str, transform: &str) {
        let root = env!("CARGO_MANIFEST_DIR");
        let wasm = format!("{root}/transforms/target/wasm32-unknown-unknown/release/{transform}.wasm");
        assert!(std::path::Path::new(&wasm).exists(), "there is no {wasm}: run `make transforms`");
        self.toml.push_str(&format!(
            "[pipelines.{name}]\ntransform = \"{wasm}\"\nmigrations = \"{root}/transforms/{transform}/migrations\"\n"
        ));
        self.toml.push_str(&evaluate_ahead());
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let command = debshrew(arguments).file(&self.toml);
        tokio::task::spawn_blocking(move || command.run()).await.unwrap()
    }

    /// Runs a command that is to succeed.
    pub async fn succeed(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments).await;
        assert_eq!(output.code, 0, "{arguments:?}: {}{}", output.stdout, output.stderr);
        output
    }

    /// Starts a command, to be killed when this is dropped.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.start_with(arguments, &[])
    }

    /// The same with these variables.
    pub fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
        let config = self.folder.path().join("debshrew.toml");
        std::fs::write(&config, &self.toml).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        tokio::process::Command::new(env!("CARGO_BIN_EXE_debshrew"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Starts a command on a terminal of so many columns, with these variables.
    pub fn on_terminal(&self, arguments: &[&str], columns: u16, variables: &[(&str, &str)]) -> Screen {
        let config = self.folder.path().join("debshrew.toml");
        std::fs::write(&config, &self.toml).unwrap();
        // Nothing is to be said of who else may read it.
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        Screen::start(self.folder.path(), arguments, columns, variables)
    }

    /// What commands that were started have logged.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Waits until commands that were started have logged this so many times.
    pub async fn logged(&self, words: &str, times: usize) {
        let log = async || std::fs::read_to_string(self.log()).unwrap_or_default();
        until(words, async || log().await.matches(words).count() >= times).await;
    }

    pub async fn state(&self) -> String {
        self.client.query_one("select state from debshrew.pipelines", &[]).await.unwrap().get(0)
    }

    pub async fn mine(&self, blocks: u32) -> Status {
        self.source.control(Command::Mine { blocks }).await.unwrap()
    }

    /// The node changes to another branch, from `depth` blocks below its tip on.
    pub async fn reorganise(&self, depth: u32, length: u32) -> Status {
        self.source.control(Command::Reorg { depth, length: Some(length), branch: None }).await.unwrap()
    }

    /// Waits until the index has all of the node's chain.
    pub async fn settled(&self) {
        let settled = tokio::time::timeout(DEADLINE, self.source.until(Status::settled));
        assert!(settled.await.is_ok(), "the index does not settle: {:?}", self.source.status());
    }

    /// The same after changes that may have left the index behind a branch that is shorter than what it has, or
    /// wedged: blocks are mined one by one, and a wedged index is started again.
    pub async fn brought_to_rest(&self) {
        let since = Instant::now();
        while !self.source.status().settled() {
            assert!(since.elapsed() < DEADLINE, "the index does not settle: {:?}", self.source.status());
            let settled =
                tokio::time::timeout(Duration::from_millis(500), self.source.until(Status::settled));
            if settled.await.is_ok() {
                return;
            }
            match self.source.status().index.phase {
                Phase::Wedged => self.source.control(Command::Restart {}).await.unwrap(),
                _ => self.mine(1).await,
            };
        }
    }

    /// How many blocks are committed.
    pub async fn height(&self) -> usize {
        let sql = "select coalesce(height + 1, 0) from debshrew.pipelines where pipeline = 'counter'";
        self.client.query_one(sql, &[]).await.unwrap().get::<_, i32>(0) as usize
    }

    /// Waits until the node's tip is committed.
    pub async fn caught_up(&self) {
        let sql =
            "select exists (select from debshrew.pipelines where pipeline = 'counter' and block_hash = $1)";
        let tip = self.source.chain().last().unwrap().to_string();
        until("the node's tip is committed", async || {
            self.client.query_one(sql, &[&tip]).await.unwrap().get(0)
        })
        .await;
    }

    /// Waits until a session of the pipeline's writer waits for a lock.
    pub async fn held_up(&self) {
        let sql = "select exists (select from pg_stat_activity where application_name = 'debshrew/counter' \
                   and datname = current_database() and wait_event_type = 'Lock')";
        until("the writer waits for a lock", async || self.client.query_one(sql, &[]).await.unwrap().get(0))
            .await;
    }

    /// What a reader sees now is whole: the checkpoint is that of the last row, the rows have no gap, each counts
    /// the ones before it, and what the source's state said at each is of the same branch as their hashes.
    /// Returns the rows' hashes.
    pub async fn whole(&self) -> Vec<String> {
        // One statement, so that it is one snapshot.
        let sql = "select coalesce((select jsonb_agg(to_jsonb(s) order by height) from counter.seen s), '[]')::text, \
                   (select block_hash from debshrew.pipelines where pipeline = 'counter')";
        let row = self.client.query_one(sql, &[]).await.unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_str(row.get(0)).unwrap();
        let mut tracker = String::new();
        let mut hashes = Vec::new();
        for (height, row) in rows.iter().enumerate() {
            let hash = row["hash"].as_str().unwrap().to_owned();
            tracker.push_str(&hash[62..]);
            let expected =
                serde_json::json!({"height": height, "count": height + 1, "hash": hash, "tracker": tracker});
            assert_eq!(*row, expected);
            hashes.push(hash);
        }
        assert_eq!(hashes.last().cloned(), row.get::<_, Option<String>>(1), "rows and checkpoint");
        hashes
    }

    /// The name of each table of a schema, and a digest of its rows.
    pub async fn digests(&self, schema: &str) -> Vec<(String, String)> {
        let names = "select relname::text from pg_class where relkind = 'r' and relnamespace = $1::text::regnamespace";
        let mut digests = Vec::new();
        for row in self.client.query(&format!("{names} order by 1"), &[&schema]).await.unwrap() {
            let name: String = row.get(0);
            let sql = format!(
                "select count(*) || ' rows ' || md5(coalesce(string_agg(t::text, '|' order by t::text), '')) \
                   from {schema}.{name} t"
            );
            digests.push((name, self.client.query_one(&sql, &[]).await.unwrap().get(0)));
        }
        digests
    }

    /// All of the node's chain is committed, and nothing else.
    pub async fn follows(&self) {
        let chain: Vec<String> = self.source.chain().iter().map(ToString::to_string).collect();
        assert_eq!(self.whole().await, chain);
    }
}

/// Of a test that fails, what the commands that it started have logged is worth a look.
impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// Waits for an event by looking whether it has happened.
pub async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !happened().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}
