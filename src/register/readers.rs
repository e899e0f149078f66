//! The roles that may read what a pipeline replicates, and those that may write it.

use tokio_postgres::GenericClient;

use super::RegisterError;
use crate::db::DbError;

/// The roles that were let read, as far as they still exist, by name.
pub async fn readers(client: &impl GenericClient, pipeline: i32) -> Result<Vec<String>, RegisterError> {
    let rows = client
        .query(
            "-- register::readers::readers\n\
             select role_name from debshrew.reader join pg_roles on rolname = role_name \
              where pipeline_id = $1 order by role_name",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("look up who may read"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Lets a role read, the tables of now and those to come.
pub async fn add_reader(client: &impl GenericClient, pipeline: i32, role: &str) -> Result<(), RegisterError> {
    client
        .execute(
            "-- register::readers::add_reader\n\
             insert into debshrew.reader (pipeline_id, role_name) values ($1, $2) on conflict do nothing",
            &[&pipeline, &role],
        )
        .await
        .map_err(DbError::statement("record who may read"))?;
    Ok(())
}

/// The roles that were let write, as far as they still exist, by name.
pub async fn writers(client: &impl GenericClient, pipeline: i32) -> Result<Vec<String>, RegisterError> {
    let rows = client
        .query(
            "-- register::readers::writers\n\
             select role_name from debshrew.writer join pg_roles on rolname = role_name \
              where pipeline_id = $1 order by role_name",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("look up who may write"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Lets a role write, the tables of now and those to come.
pub async fn add_writer(client: &impl GenericClient, pipeline: i32, role: &str) -> Result<(), RegisterError> {
    client
        .execute(
            "-- register::readers::add_writer\n\
             insert into debshrew.writer (pipeline_id, role_name) values ($1, $2) on conflict do nothing",
            &[&pipeline, &role],
        )
        .await
        .map_err(DbError::statement("record who may write"))?;
    Ok(())
}
