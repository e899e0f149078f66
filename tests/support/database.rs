//! A database a test, cloned from a template that has been migrated once.
//!
//! The server is a private one, unless `DEBSHREW_TEST_DATABASE_URL` names a server to use in its place; the
//! databases made there are called `debshrew_test_…` and are left for whoever wants to look at them. What
//! `DATABASE_URL` names is never touched.

use std::sync::OnceLock;

use debshrew::cluster::Cluster;
use debshrew::db::migrate;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

const TEMPLATE: &str = "debshrew_test_template";

/// A database of a test's own.
pub struct TestDb {
    /// What to pass as `--database-url`.
    pub dsn: String,
}

impl TestDb {
    /// A new session, as a superuser, with an empty `search_path`: an unqualified name fails.
    pub async fn connect(&self) -> Client {
        connect(&self.dsn).await
    }

    /// The same database, with the rights of another role.
    pub fn as_role(&self, role: &str) -> String {
        if !self.dsn.contains("://") {
            return format!("{} options='-c role={role}'", self.dsn);
        }
        let mark = if self.dsn.contains('?') { '&' } else { '?' };
        format!("{}{mark}options=-c%20role%3D{role}", self.dsn)
    }
}

/// Makes the database `debshrew_test_NAME`, with debshrew's own schema in it. The name is to be one that no other
/// test uses.
pub async fn database(name: &str) -> TestDb {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let server = server();
    let admin = connect(&server.dsn("postgres")).await;
    MADE.get_or_init(async || {
        create(&admin, TEMPLATE, "template0").await;
        template(&mut connect(&server.dsn(TEMPLATE)).await).await;
    })
    .await;
    let name = format!("debshrew_test_{name}");
    create(&admin, &name, TEMPLATE).await;
    TestDb { dsn: server.dsn(&name) }
}

/// A server of a test's own, for what concerns the whole of it, with an empty database on it.
pub async fn own_server(settings: &'static [(&'static str, &'static str)]) -> (Cluster, TestDb) {
    let settings: Vec<_> =
        [("fsync", "off"), ("full_page_writes", "off")].iter().chain(settings).copied().collect();
    let cluster =
        tokio::task::spawn_blocking(move || Cluster::start(&settings).expect("a private PostgreSQL server"));
    let cluster = cluster.await.unwrap();
    create(&connect(&cluster.dsn("postgres")).await, "debshrew_test_own", "template0").await;
    let dsn = cluster.dsn("debshrew_test_own");
    (cluster, TestDb { dsn })
}

/// What each database has from its beginning: debshrew's own migrations.
async fn template(client: &mut Client) {
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("create schema debshrew").await.unwrap();
    migrate::run(&transaction, &migrate::own(), migrate::OWN_HISTORY).await.unwrap();
    transaction.commit().await.unwrap();
}

enum Server {
    Private(Cluster),
    Given(String),
}

impl Server {
    fn dsn(&self, database: &str) -> String {
        match self {
            Server::Private(cluster) => cluster.dsn(database),
            Server::Given(dsn) => with_database(dsn, database),
        }
    }
}

/// The one server of this process. It is never dropped; its watchdog removes it when the process ends.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| match std::env::var("DEBSHREW_TEST_DATABASE_URL") {
        Ok(dsn) if !dsn.is_empty() => Server::Given(dsn),
        _ => Server::Private(
            Cluster::start(&[("fsync", "off"), ("full_page_writes", "off"), ("max_connections", "300")])
                .expect("a private PostgreSQL server"),
        ),
    })
}

async fn create(admin: &Client, name: &str, template: &str) {
    for statement in [
        format!("drop database if exists {name} with (force)"),
        format!("create database {name} template {template}"),
        format!("alter database {name} set search_path = ''"),
    ] {
        admin.batch_execute(&statement).await.unwrap();
    }
}

async fn connect(dsn: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A connection string with another database in it.
fn with_database(dsn: &str, database: &str) -> String {
    let Some((scheme, rest)) = dsn.split_once("://") else {
        // The last of several counts.
        return format!("{dsn} dbname={database}");
    };
    let (place, parameters) =
        rest.split_once('?').map_or((rest, String::new()), |(place, rest)| (place, format!("?{rest}")));
    let host = place.rsplit_once('/').map_or(place, |(host, _)| host);
    format!("{scheme}://{host}/{database}{parameters}")
}

#[test]
fn the_database_is_replaced_in_both_kinds_of_connection_strings() {
    for (dsn, expected) in [
        ("postgres://u:p@h:1/old?sslmode=disable", "postgres://u:p@h:1/new?sslmode=disable"),
        ("postgres://h", "postgres://h/new"),
        ("postgresql:///old?host=/tmp/x", "postgresql:///new?host=/tmp/x"),
        ("host=h dbname=old", "host=h dbname=old dbname=new"),
    ] {
        assert_eq!(with_database(dsn, "new"), expected);
    }
}
