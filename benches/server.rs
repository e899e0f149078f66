//! The PostgreSQL that everything is measured on, and databases in it with a pipeline set up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use debshrew::block::Height;
use debshrew::cluster::Cluster;
use debshrew::config::{Database, Secret};
use debshrew::db::Db;
use debshrew::pipeline::Writer;
use debshrew::schema::{Mode, Roles, Wanted, migrate};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::Outcome;

/// As on a server of this size. No checkpoint comes while something is measured: what a page costs after one is
/// PostgreSQL's business, and would fall on whoever is measured then.
const SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "256MB"),
    ("max_wal_size", "32GB"),
    ("checkpoint_timeout", "1h"),
    ("max_connections", "100"),
];

pub(crate) const PIPELINE: &str = "bench";

/// A private server, gone with this program.
pub(crate) struct Server {
    cluster: Cluster,
    databases: AtomicU32,
}

impl Server {
    pub(crate) fn start() -> Outcome<Server> {
        Ok(Server { cluster: Cluster::start(&SETTINGS)?, databases: AtomicU32::new(0) })
    }

    /// A new database, empty. It is never dropped, since that makes a checkpoint.
    pub(crate) async fn database(&self) -> Outcome<Base> {
        let name = format!("bench_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&self.cluster.dsn("postgres")).await?;
        admin.batch_execute(&format!("create database {name}")).await?;
        let dsn = self.cluster.dsn(&name);
        let client = connect(&dsn).await?;
        let db = Db::new(&Database {
            url: Secret::new(&dsn),
            tls_root_cert: None,
            pool_size: 4,
            connect_timeout: Duration::from_secs(30),
            read_roles: Vec::new(),
            write_roles: Vec::new(),
            owner_role: None,
        })?;
        Ok(Base { dsn, db, client })
    }

    /// A new database with the pipeline `bench`, whose tables this SQL makes.
    pub(crate) async fn pipeline(&self, sql: &str) -> Outcome<Base> {
        let folder = TempDir::new()?;
        std::fs::write(folder.path().join("V1__bench.sql"), sql)?;
        let base = self.database().await?;
        let wanted = Wanted {
            name: PIPELINE.to_owned(),
            schema: PIPELINE.to_owned(),
            migrations: Some(folder.path().to_owned()),
            start_height: Height::new(0).ok_or("there is a height 0")?,
        };
        migrate(&mut *base.db.dedicated().await?, &[wanted], &Roles::default(), Mode::Apply).await?;
        Ok(base)
    }
}

/// A database, with a session of our own in it.
pub(crate) struct Base {
    pub(crate) dsn: String,
    pub(crate) db: Db,
    pub(crate) client: Client,
}

impl Base {
    pub(crate) async fn writer(&self) -> Outcome<Writer> {
        let writer = Writer::try_take_over(&self.db, PIPELINE).await?;
        writer.ok_or_else(|| "somebody else writes the pipeline".into())
    }

    /// How many bytes of WAL the server has written so far.
    pub(crate) async fn wal(&self) -> Outcome<f64> {
        let sql = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
        Ok(self.client.query_one(sql, &[]).await?.get(0))
    }

    /// Tells whether a table's rows are what they were.
    pub(crate) async fn digest(&self, table: &str) -> Outcome<i64> {
        let sql = format!("select (sum(hashtextextended(t::text, 0)) % 1e18)::bigint from {table} t");
        Ok(self.client.query_one(&sql, &[]).await?.get(0))
    }

    pub(crate) async fn rows(&self, table: &str) -> Outcome<usize> {
        let row = self.client.query_one(&format!("select count(*) from {table}"), &[]).await?;
        Ok(usize::try_from(row.get::<_, i64>(0))?)
    }
}

async fn connect(dsn: &str) -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
