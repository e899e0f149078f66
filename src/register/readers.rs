//! The roles that may read what a pipeline replicates, and those that may write it.

use tokio_postgres::GenericClient;

use super::RegisterError;
use crate::db::DbError;

/// What a role was let do: the table that says so, and the word for messages.
#[derive(Clone, Copy)]
struct Right {
    table: &'static str,
    word: &'static str,
}

const READ: Right = Right { table: "debshrew.reader", word: "read" };
const WRITE: Right = Right { table: "debshrew.writer", word: "write" };

/// The roles that were let read, as far as they still exist, by name.
pub async fn readers(client: &impl GenericClient, pipeline: i32) -> Result<Vec<String>, RegisterError> {
    READ.roles(client, pipeline).await
}

/// Lets a role read, the tables of now and those to come.
pub async fn add_reader(client: &impl GenericClient, pipeline: i32, role: &str) -> Result<(), RegisterError> {
    READ.add(client, pipeline, role).await
}

/// The roles that were let write, as far as they still exist, by name.
pub async fn writers(client: &impl GenericClient, pipeline: i32) -> Result<Vec<String>, RegisterError> {
    WRITE.roles(client, pipeline).await
}

/// Lets a role write, the tables of now and those to come.
pub async fn add_writer(client: &impl GenericClient, pipeline: i32, role: &str) -> Result<(), RegisterError> {
    WRITE.add(client, pipeline, role).await
}

impl Right {
    async fn roles(self, client: &impl GenericClient, pipeline: i32) -> Result<Vec<String>, RegisterError> {
        let sql = format!(
            "-- register::readers::roles\n\
             select role_name from {} join pg_roles on rolname = role_name where pipeline_id = $1 order by role_name",
            self.table
        );
        let rows = client.query(&sql, &[&pipeline]).await;
        let rows = rows.map_err(DbError::statement(format!("look up who may {}", self.word)))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn add(self, client: &impl GenericClient, pipeline: i32, role: &str) -> Result<(), RegisterError> {
        let sql = format!(
            "-- register::readers::add\n\
             insert into {} (pipeline_id, role_name) values ($1, $2) on conflict do nothing",
            self.table
        );
        let done = client.execute(&sql, &[&pipeline, &role]).await;
        done.map_err(DbError::statement(format!("record who may {}", self.word)))?;
        Ok(())
    }
}
