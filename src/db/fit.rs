//! Whether what answers is a PostgreSQL that debshrew can work with: its version, its encoding, and that a session stays
//! with one process of the server.
//!
//! Asked once, on sessions that are not set up yet: a pooler would hand settings on to whoever comes next.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::DbError;

/// The oldest version that the tests run on.
const OLDEST: u32 = 14;

/// How long the second session is waited for. A pooler that has no more for us is no proof.
const PATIENCE: Duration = Duration::from_secs(5);

/// A way to connect beside the pool.
pub(super) struct Door {
    pub(super) postgres: Config,
    pub(super) connector: MakeRustlsConnect,
}

impl Door {
    async fn open(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.postgres.connect(self.connector.clone()).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Refuses a server or a database that will not do, by name.
    pub(super) async fn refuse_unfit(&self, target: &str) -> Result<(), DbError> {
        let unreachable = |source| DbError::Connect { target: target.to_owned(), source };
        let first = self.open().await.map_err(unreachable)?;
        let sql = "-- db::fit::refuse_unfit\n\
            select pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('server_encoding'), \
                   pg_catalog.current_database()";
        let found = first.simple_query(sql).await.map_err(DbError::statement("ask for the version"))?;
        let [version, encoding, database] = [0, 1, 2].map(|place| value(&found, place));
        judge(target, &version, &encoding, &database)?;
        let pooled = async {
            // Without a second session there is nothing to compare.
            let Ok(second) = self.open().await else { return Ok(false) };
            share_processes(&first, &second).await
        };
        match tokio::time::timeout(PATIENCE, pooled).await {
            Ok(Ok(true)) => Err(DbError::Pooled { target: target.to_owned() }),
            // In mode `statement` transactions are refused.
            Ok(Err(error)) if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) => {
                Err(DbError::Pooled { target: target.to_owned() })
            }
            Ok(Err(error)) => Err(DbError::statement("look for a pooler")(error)),
            Ok(Ok(false)) | Err(_) => Ok(()),
        }
    }
}

fn judge(target: &str, version: &str, encoding: &str, database: &str) -> Result<(), DbError> {
    // 140023 is 14.23; before 10 there were three parts.
    let number: u32 = version.parse().unwrap_or_default();
    if number / 10_000 < OLDEST {
        let major = number / 10_000;
        let found = match number {
            100_000.. => format!("{major}.{}", number % 10_000),
            _ => format!("{major}.{}.{}", number / 100 % 100, number % 100),
        };
        return Err(DbError::TooOld { target: target.to_owned(), found });
    }
    if encoding != "UTF8" {
        return Err(DbError::NotUtf8 { database: database.to_owned(), encoding: encoding.to_owned() });
    }
    Ok(())
}

/// Whether two sessions have the same process of the server between them. While one is in a transaction, its process is its
/// own: a pooler has to give the other one another process than before, or has given away that of before.
async fn share_processes(first: &Client, second: &Client) -> Result<bool, tokio_postgres::Error> {
    let before = process(first).await?;
    second.simple_query("begin").await?;
    let meanwhile = process(second).await?;
    let mut seen = vec![process(first).await?];
    second.simple_query("rollback").await?;
    // Poolers that hand out one after the other come to another one.
    for _ in 0..3 {
        seen.push(process(first).await?);
    }
    Ok(before == meanwhile || seen.iter().any(|process| *process != before))
}

async fn process(client: &Client) -> Result<String, tokio_postgres::Error> {
    let found = client.simple_query("-- db::fit::process\nselect pg_catalog.pg_backend_pid()").await?;
    Ok(value(&found, 0))
}

fn value(found: &[SimpleQueryMessage], place: usize) -> String {
    let row = found.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(place).ok().flatten(),
        _ => None,
    });
    row.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_encodings_that_will_not_do_are_named() {
        assert!(judge("h:5432/d", "140023", "UTF8", "d").is_ok());
        assert!(judge("h:5432/d", "180004", "UTF8", "d").is_ok());
        for (version, encoding, said) in [
            ("130016", "UTF8", "PostgreSQL at h:5432/d has version 13.16"),
            ("90624", "UTF8", "PostgreSQL at h:5432/d has version 9.6.24"),
            ("150004", "LATIN1", "database `d` has the encoding LATIN1"),
        ] {
            let error = judge("h:5432/d", version, encoding, "d").unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
