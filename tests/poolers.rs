//! What stands before the database or is it: a pooler, in the modes that it has, and encodings that will not do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

use crate::support::{COUNTER, Output, Scene, TestDb, database, quick, until};

/// pgbouncer before the tests' server, gone when this is dropped.
struct Bouncer {
    child: Child,
    folder: tempfile::TempDir,
}

impl Bouncer {
    /// `None` where there is no pgbouncer.
    async fn start(test: &TestDb, mode: &str) -> Option<Bouncer> {
        let path = std::env::var("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .chain(["/usr/sbin".into()])
            .map(|folder| folder.join("pgbouncer"))
            .find(|program| program.is_file());
        let Some(program) = program else {
            println!("skipped: there is no pgbouncer; `make setup` brings it");
            return None;
        };
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let ini = folder.path().join("pgbouncer.ini");
        std::fs::write(&ini, configuration(&test.dsn, folder.path(), mode)).unwrap();
        let mut command = Command::new(program);
        // It refuses to be root.
        if std::fs::metadata("/proc/self").is_ok_and(|us| std::os::unix::fs::MetadataExt::uid(&us) == 0) {
            command.args(["-u", "postgres"]);
        }
        let child = command.arg("-q").arg(&ini).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bouncer = Bouncer { child, folder };
        let dsn = bouncer.dsn("postgres");
        until("pgbouncer answers", async || tokio_postgres::connect(&dsn, NoTls).await.is_ok()).await;
        Some(bouncer)
    }

    fn dsn(&self, database: &str) -> String {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgresql:///{database}?host={folder}&port=6432&user=postgres")
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(dsn: &str, folder: &Path, mode: &str) -> String {
    let config: Config = dsn.parse().unwrap();
    let host = match &config.get_hosts()[0] {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or("postgres");
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default());
    // An empty one is no word of pgbouncer's.
    let password = if password.is_empty() { String::new() } else { format!(" password={password}") };
    let folder = folder.display();
    format!(
        "[databases]\n* = host={host} port={port} user={user}{password}\n\
         [pgbouncer]\nunix_socket_dir = {folder}\nlisten_addr =\nlisten_port = 6432\nauth_type = any\n\
         pool_mode = {mode}\ndefault_pool_size = 20\n"
    )
}

/// A scene whose commands go through pgbouncer, while its own client does not.
async fn behind(name: &str, mode: &str) -> Option<(Bouncer, Scene)> {
    let test = database(name).await;
    let bouncer = Bouncer::start(&test, mode).await?;
    let direct = test.dsn.clone();
    let mut scene = Scene::over(test, COUNTER, quick(20)).await;
    scene.toml = scene.toml.replace(&direct, &bouncer.dsn(&format!("debshrew_test_{name}")));
    Some((bouncer, scene))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_is_no_different() {
    let Some((_bouncer, scene)) = behind("poolers_session", "session").await else { return };
    scene.succeed(&["check"]).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    scene.reorganise(5, 8).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    scene.succeed(&["rollback", "--to", "10", "--yes"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    scene.follows().await;
    scene.succeed(&["status"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_splits_sessions_is_refused_by_name_and_nothing_stays_in_it() {
    for mode in ["transaction", "statement"] {
        let name = format!("poolers_{mode}");
        let Some((bouncer, scene)) = behind(&name, mode).await else { return };
        for command in [&["check"][..], &["migrate"], &["run", "--migrate", "--once"], &["run"]] {
            let Output { code, stdout, stderr } = scene.run(command).await;
            assert_eq!(code, 1, "{mode} {command:?} was taken: {stdout}{stderr}");
            let said = stdout + &stderr;
            assert!(
                said.contains("a connection pooler in transaction mode at"),
                "{mode} {command:?}: {said}"
            );
        }
        let held = "select count(*) from pg_locks where locktype = 'advisory' and database = \
                    (select oid from pg_database where datname = current_database())";
        assert_eq!(scene.client.query_one(held, &[]).await.unwrap().get::<_, i64>(0), 0);
        let (other, connection) =
            tokio_postgres::connect(&bouncer.dsn(&format!("debshrew_test_{name}")), NoTls).await.unwrap();
        tokio::spawn(connection);
        for setting in ["jit", "TimeZone", "bytea_output", "search_path"] {
            let show = format!("show {setting}");
            let direct = scene.client.simple_query(&format!("reset {setting}; {show}")).await.unwrap();
            let pooled = other.simple_query(&show).await.unwrap();
            let value = |found: &[tokio_postgres::SimpleQueryMessage]| {
                found.iter().find_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
            };
            assert_eq!(value(&pooled), value(&direct), "{mode}: {setting} of ours stays in the pool");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf8_is_refused_by_name() {
    let test = database("encoding").await;
    let admin = test.connect().await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("debshrew_test_encoding_{}", encoding.to_lowercase());
        for sql in [
            format!("drop database if exists {name}"),
            format!("create database {name} encoding '{encoding}' locale 'C' template template0"),
        ] {
            admin.batch_execute(&sql).await.unwrap();
        }
        let dsn = test.dsn.replace("debshrew_test_encoding", &name);
        let scene = Scene::over(TestDb { dsn }, COUNTER, quick(5)).await;
        for command in [&["check"][..], &["migrate"], &["run", "--migrate", "--once"], &["status"]] {
            let Output { code, stdout, stderr } = scene.run(command).await;
            assert_eq!(code, 1, "{encoding} {command:?} was taken: {stdout}{stderr}");
            let said = format!("database `{name}` has the encoding {encoding}, and debshrew needs UTF8");
            assert!((stdout + &stderr).contains(&said), "{encoding} {command:?}: {stderr}");
        }
    }
}
