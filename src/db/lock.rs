//! Advisory locks: who may migrate, who may write for a pipeline.
//!
//! They belong to a session, so they end with its connection, however the process ends. Source: PostgreSQL's
//! manual, "Advisory Locks".

use tokio_postgres::Client;

use super::DbError;

/// The first half of every advisory lock's key, so that debshrew's locks meet no one else's: `dbsh`.
const LOCK_SPACE: i32 = 0x6462_7368;

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Held while migrations run.
    Migration,
    /// Held by the one process that writes for the pipeline with this id.
    Writer(i32),
}

impl Lock {
    fn key(self) -> i32 {
        match self {
            Lock::Migration => 0,
            // Ids are generated from 1 upwards.
            Lock::Writer(pipeline) => pipeline,
        }
    }

    /// Takes the lock for this session if nobody holds it; says whether it did.
    pub async fn try_take(self, client: &Client) -> Result<bool, DbError> {
        client
            .query_one(
                "-- db::lock::try_take\nselect pg_catalog.pg_try_advisory_lock($1, $2)",
                &[&LOCK_SPACE, &self.key()],
            )
            .await
            .map(|row| row.get(0))
            .map_err(DbError::statement("take an advisory lock"))
    }

    /// Waits for the lock and takes it for this session.
    pub async fn take(self, client: &Client) -> Result<(), DbError> {
        client
            .execute(
                "-- db::lock::take\nselect pg_catalog.pg_advisory_lock($1, $2)",
                &[&LOCK_SPACE, &self.key()],
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
                &[&LOCK_SPACE, &self.key()],
            )
            .await
            .map(drop)
            .map_err(DbError::statement("release an advisory lock"))
    }

    /// Whether some session holds it now.
    pub async fn is_taken(self, client: &Client) -> Result<bool, DbError> {
        client
            .query_one(
                "-- db::lock::is_taken\n\
                 select exists (select from pg_catalog.pg_locks where locktype = 'advisory' and granted \
                   and classid = $1::int4::oid and objid = $2::int4::oid and objsubid = 2 \
                   and database = (select oid from pg_catalog.pg_database where datname = current_database()))",
                &[&LOCK_SPACE, &self.key()],
            )
            .await
            .map(|row| row.get(0))
            .map_err(DbError::statement("look at an advisory lock"))
    }
}
