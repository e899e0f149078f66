//! Advisory locks: who may migrate, who may write for a pipeline.
//!
//! They belong to a session, so they end with its connection, however the process ends. Source: PostgreSQL's
//! manual, "Advisory Locks".

use std::fmt;

use tokio_postgres::Client;

use super::DbError;

/// The first half of every advisory lock's key, so that debshrew's locks meet no one else's: `dbsh`.
const LOCK_SPACE: i32 = 0x6462_7368;

/// The same of the locks by which a process is seen to stand by: `dbsb`.
const STANDBY_SPACE: i32 = 0x6462_7362;

/// The same of sinks: `dbsk`.
const SINK_SPACE: i32 = 0x6462_736b;

/// A session that holds a lock.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Holder {
    pub pid: i32,
    pub role: String,
    pub application: String,
    /// Of its client; `None` over a Unix socket, or where it may not be seen.
    pub address: Option<String>,
    /// When the session began, in seconds since 1970, where that may be seen.
    pub since: Option<f64>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { pid, role, application, .. } = self;
        // Anybody may call a session anything.
        write!(f, "PostgreSQL process {pid} of role {role:?} with application name {application:?}")
    }
}

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Held while migrations run.
    Migration,
    /// Held by the one process that writes for the pipeline with this id.
    Writer(i32),
    /// Held by the one process that moves the cursor of the sink with this id.
    Sink(i32),
    /// Shared by those that wait to become it, the writer among them while it pauses after a failure. It keeps nobody out: it is there to be seen.
    Standby(i32),
}

impl Lock {
    /// Both halves of the key.
    fn keys(self) -> (i32, i32) {
        match self {
            Lock::Migration => (LOCK_SPACE, 0),
            // Ids are generated from 1 upwards.
            Lock::Writer(pipeline) => (LOCK_SPACE, pipeline),
            Lock::Standby(pipeline) => (STANDBY_SPACE, pipeline),
            Lock::Sink(sink) => (SINK_SPACE, sink),
        }
    }

    /// Takes the lock for this session if nobody holds it; says whether it did.
    pub async fn try_take(self, client: &Client) -> Result<bool, DbError> {
        client
            .query_one(
                "-- db::lock::try_take\nselect pg_catalog.pg_try_advisory_lock($1, $2)",
                &[&self.keys().0, &self.keys().1],
            )
            .await
            .map(|row| row.get(0))
            .map_err(DbError::statement("take an advisory lock"))
    }

    /// Shares the lock with other sessions; says whether it does.
    pub async fn try_share(self, client: &Client) -> Result<bool, DbError> {
        client
            .query_one(
                "-- db::lock::try_share\nselect pg_catalog.pg_try_advisory_lock_shared($1, $2)",
                &[&self.keys().0, &self.keys().1],
            )
            .await
            .map(|row| row.get(0))
            .map_err(DbError::statement("share an advisory lock"))
    }

    /// Takes the lock for this session; says who holds it before it waits.
    pub async fn take(self, client: &Client) -> Result<(), DbError> {
        if self.try_take(client).await? {
            return Ok(());
        }
        let holder = self.holder(client).await?;
        let holder = holder.map_or("another session".to_owned(), |holder| holder.to_string());
        tracing::warn!(reason = format!("{holder} holds it"), "waiting for {}", self.name());
        client
            .execute(
                "-- db::lock::take\nselect pg_catalog.pg_advisory_lock($1, $2)",
                &[&self.keys().0, &self.keys().1],
            )
            .await
            .map(drop)
            .map_err(DbError::statement("wait for an advisory lock"))
    }

    /// Gives the lock back.
    pub async fn release(self, client: &Client) -> Result<(), DbError> {
        client
            .execute(
                "-- db::lock::release\nselect pg_catalog.pg_advisory_unlock($1, $2)",
                &[&self.keys().0, &self.keys().1],
            )
            .await
            .map(drop)
            .map_err(DbError::statement("release an advisory lock"))
    }

    fn name(self) -> &'static str {
        match self {
            Lock::Migration => "the lock on migrations",
            Lock::Writer(_) | Lock::Standby(_) => "the pipeline's lock",
            Lock::Sink(_) => "the sink's lock",
        }
    }

    /// The session that holds it now. Anybody who may connect can: PostgreSQL gives these locks no owner.
    pub async fn holder(self, client: &Client) -> Result<Option<Holder>, DbError> {
        Ok(self.holders(client).await?.into_iter().next())
    }

    /// The sessions that hold or share it now, the oldest first.
    pub async fn holders(self, client: &Client) -> Result<Vec<Holder>, DbError> {
        let rows = client
            .query(
                "-- db::lock::holders\n\
                 select l.pid, coalesce(a.usename::text, '?') as role, coalesce(a.application_name, '') as application, \
                        host(a.client_addr) as address, extract(epoch from a.backend_start)::float8 as since \
                   from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid \
                  where l.locktype = 'advisory' and l.granted and l.classid = $1::int4::oid \
                    and l.objid = $2::int4::oid and l.objsubid = 2 \
                    and l.database = (select oid from pg_catalog.pg_database where datname = current_database()) \
                  order by a.backend_start, l.pid",
                &[&self.keys().0, &self.keys().1],
            )
            .await
            .map_err(DbError::statement("see who holds an advisory lock"))?;
        let holder = |row: &tokio_postgres::Row| Holder {
            pid: row.get("pid"),
            role: row.get("role"),
            application: row.get("application"),
            address: row.get("address"),
            since: row.get("since"),
        };
        Ok(rows.iter().map(holder).collect())
    }
}
