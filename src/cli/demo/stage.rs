//! What the demo plays on: a database, and `debshrew` as a process of its own, so that it can be killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tempfile::TempDir;
use tokio::process::Child;
use tokio_postgres::Client;
use tokio_postgres::types::FromSql;

use crate::cli::Error;
use crate::cluster::Cluster;
use crate::config::{Database, Secret};
use crate::db::Db;

/// How long anything that the demo waits for may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at whether it has happened.
const LOOK: Duration = Duration::from_millis(30);

/// What went wrong on the stage itself.
pub(super) fn broken(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Demo(format!("cannot {what}: {error}"))
}

/// The database: a private one, which goes when this is dropped, or one that was named.
pub(super) struct Server {
    pub(super) dsn: String,
    db: Db,
    cluster: Option<Cluster>,
}

impl Server {
    pub(super) async fn private() -> Result<Server, Error> {
        // Its data need not outlive the machine.
        let start = || Cluster::start(&[("fsync", "off"), ("full_page_writes", "off")]);
        let cluster = tokio::task::spawn_blocking(start).await;
        let cluster = cluster.map_err(|error| broken("start PostgreSQL", &error))??;
        run(&*pool(&cluster.dsn("postgres"))?.client().await?, "create database demo").await?;
        let dsn = cluster.dsn("demo");
        Ok(Server { db: pool(&dsn)?, dsn, cluster: Some(cluster) })
    }

    pub(super) async fn given(dsn: &str) -> Result<Server, Error> {
        let db = pool(dsn)?;
        drop(db.client().await.map_err(Error::DatabaseUnreachable)?);
        Ok(Server { db, dsn: dsn.to_owned(), cluster: None })
    }

    /// Of the private one, for `psql`, without a password. What was named is its user's to know: it may hold a password.
    pub(super) fn private_dsn(&self) -> Option<String> {
        self.cluster.as_ref().map(|cluster| cluster.psql_dsn("demo"))
    }

    /// Without a password.
    pub(super) fn shown(&self) -> &str {
        self.db.target()
    }

    pub(super) async fn client(&self) -> Result<Object, Error> {
        Ok(self.db.client().await?)
    }
}

fn pool(dsn: &str) -> Result<Db, Error> {
    Ok(Db::new(&Database {
        url: Secret::new(dsn),
        tls_root_cert: None,
        pool_size: 4,
        connect_timeout: Duration::from_secs(10),
        read_roles: Vec::new(),
        write_roles: Vec::new(),
        owner_role: None,
    })?)
}

fn failed(sql: &str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let sql = sql.lines().next().unwrap_or_default().to_owned();
    move |source| Error::DemoQuery { sql, source }
}

/// Runs statements whose results nobody reads.
pub(super) async fn run(client: &Client, sql: &str) -> Result<(), Error> {
    client.batch_execute(sql).await.map_err(failed(sql))
}

/// The one value of a query's one row.
pub(super) async fn value<T: for<'a> FromSql<'a>>(client: &Client, sql: &str) -> Result<T, Error> {
    let row = client.query_one(sql, &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(failed(sql))
}

/// Rows of texts.
pub(super) async fn texts(client: &Client, sql: &str) -> Result<Vec<Vec<String>>, Error> {
    let rows = client.query(sql, &[]).await.map_err(failed(sql))?;
    let text = |row: &tokio_postgres::Row, index| row.try_get::<_, Option<String>>(index);
    let cells = |row| {
        (0..tokio_postgres::Row::len(row)).map(|i| text(row, i).map(Option::unwrap_or_default)).collect()
    };
    rows.iter().map(cells).collect::<Result<_, _>>().map_err(failed(sql))
}

/// `debshrew` with the demo's configuration and no other: it comes as variables, and the current folder is empty.
pub(super) struct Program {
    folder: TempDir,
    file: PathBuf,
    variables: Vec<(String, String)>,
}

impl Program {
    /// `transforms` is the folder with the built examples. Each pipeline runs `ledger` in a schema of its own.
    pub(super) fn new(
        dsn: &str,
        source: &str,
        transforms: &Path,
        pipelines: &[&str],
    ) -> Result<Arc<Program>, Error> {
        let folder = tempfile::tempdir().map_err(|error| broken("make a folder", &error))?;
        let file = std::env::current_exe().map_err(|error| broken("find this program's file", &error))?;
        let found = |below: &str| {
            let path = transforms.join(below);
            let found = path.canonicalize().map_err(|_| Error::NoTransforms { path })?;
            Ok::<_, Error>(found.display().to_string())
        };
        let wasm = found("target/wasm32-unknown-unknown/release/ledger.wasm")?;
        let migrations = found("ledger/migrations")?;
        let mut variables = vec![
            ("DEBSHREW__DATABASE__URL".to_owned(), dsn.to_owned()),
            ("DEBSHREW__SOURCE__URLS".to_owned(), source.to_owned()),
            ("DEBSHREW__SOURCE__POLL_INTERVAL".to_owned(), "50ms".to_owned()),
        ];
        for name in pipelines {
            let prefix = format!("DEBSHREW__PIPELINES__{}", name.to_uppercase());
            variables.push((format!("{prefix}__TRANSFORM"), wasm.clone()));
            variables.push((format!("{prefix}__MIGRATIONS"), migrations.clone()));
        }
        Ok(Arc::new(Program { folder, file, variables }))
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, Error> {
        let mut command = Command::new(&self.file);
        command.args(arguments).args(["--log", "warn"]).current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "DATABASE_URL" || text.starts_with("DEBSHREW__") {
                command.env_remove(name);
            }
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.map_err(|error| broken("open a log file", &error))?;
        command.envs(self.variables.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command)
    }

    /// Starts it in the background.
    pub(super) fn start(self: &Arc<Self>, arguments: &[&str]) -> Result<Running, Error> {
        let mut command = tokio::process::Command::from(self.command(arguments)?);
        // In a group of its own: Ctrl-C is for the demo, which ends what it started, and a second signal would end
        // `debshrew run` at once, as a failure.
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let child = child.map_err(|error| broken("start `debshrew`", &error))?;
        Ok(Running { child, program: Arc::clone(self) })
    }

    /// Runs it to its end.
    pub(super) async fn finish(self: &Arc<Self>, arguments: &[&str]) -> Result<(), Error> {
        let mut running = self.start(arguments)?;
        let status = running.child.wait().await.map_err(|error| broken("wait for `debshrew`", &error))?;
        if status.success() {
            Ok(())
        } else {
            Err(self.ended(&format!("debshrew {}", arguments.join(" ")), status))
        }
    }

    fn ended(&self, what: &str, status: std::process::ExitStatus) -> Error {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n");
        Error::Demo(format!("`{what}` ended with {status}; the end of its log:\n{last}"))
    }
}

/// A `debshrew` that was started.
pub(super) struct Running {
    child: Child,
    program: Arc<Program>,
}

impl Running {
    /// Waits until something is so, as long as the process lives.
    pub(super) async fn until<F>(&mut self, what: &str, mut is_so: impl FnMut() -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<bool, Error>>,
    {
        let since = Instant::now();
        while !is_so().await? {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.program.ended("debshrew run", status));
            }
            if since.elapsed() > PATIENCE {
                return Err(Error::Demo(format!(
                    "waited {} s for this, in vain: {what}",
                    PATIENCE.as_secs()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// `kill -9`
    pub(super) async fn kill(mut self) -> Result<(), Error> {
        self.child.kill().await.map_err(|error| broken("kill `debshrew run`", &error))
    }

    /// SIGTERM, and waits for the end.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        if let Some(pid) = self.child.id() {
            let kill = tokio::process::Command::new("kill").arg("-TERM").arg(pid.to_string()).status().await;
            kill.map_err(|error| broken("run `kill`", &error))?;
        }
        let status = self.child.wait().await.map_err(|error| broken("wait for `debshrew run`", &error))?;
        if status.success() { Ok(()) } else { Err(self.program.ended("debshrew run", status)) }
    }
}
