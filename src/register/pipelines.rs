//! The pipelines that `migrate` has set up.

use tokio_postgres::GenericClient;

use super::{RegisterError, checkpoint, height};
use crate::block::Height;
use crate::db::DbError;

/// A pipeline's row in `debshrew.pipeline`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub id: i32,
    pub name: String,
    pub schema: String,
    pub start_height: Height,
}

/// The pipeline of that name, if `migrate` has set it up.
pub async fn find(client: &impl GenericClient, name: &str) -> Result<Option<Registered>, RegisterError> {
    let failed = || DbError::statement("look up the pipeline");
    // An error would end a transaction of the caller's.
    let there =
        "-- register::pipelines::find\nselect pg_catalog.to_regclass('debshrew.pipeline') is not null";
    if !client.query_one(there, &[]).await.map_err(failed())?.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client
        .query_opt(
            "-- register::pipelines::find\n\
             select pipeline_id, schema_name, start_height from debshrew.pipeline \
              where name operator(pg_catalog.=) $1",
            &[&name],
        )
        .await
        .map_err(failed())?;
    let Some(row) = row else { return Ok(None) };
    let start =
        height(Some(row.get("start_height")))?.ok_or(RegisterError::Damaged("a pipeline has no start"))?;
    Ok(Some(Registered {
        id: row.get("pipeline_id"),
        name: name.to_owned(),
        schema: row.get("schema_name"),
        start_height: start,
    }))
}

/// Registers the pipeline, or brings what is registered in line with the configuration as far as that is safe:
/// the start can move until the first block is committed, the schema cannot.
pub async fn register(
    client: &impl GenericClient,
    name: &str,
    schema: &str,
    start_height: Height,
) -> Result<Registered, RegisterError> {
    let failed = || DbError::statement(format!("register pipeline `{name}`"));
    if let Some(found) = find(client, name).await? {
        return align(client, found, schema, start_height).await;
    }
    let row = client
        .query_one(
            "-- register::pipelines::register\n\
             insert into debshrew.pipeline (name, schema_name, start_height) values ($1, $2, $3) \
             returning pipeline_id",
            &[&name, &schema, &start_height.to_sql()],
        )
        .await
        .map_err(failed())?;
    let id: i32 = row.get(0);
    client
        .execute("insert into debshrew.checkpoint (pipeline_id) values ($1)", &[&id])
        .await
        .map_err(failed())?;
    client
        .execute("insert into debshrew.activity (pipeline_id, state) values ($1, 'new')", &[&id])
        .await
        .map_err(failed())?;
    Ok(Registered { id, name: name.to_owned(), schema: schema.to_owned(), start_height })
}

/// Brings what is registered in line with the configuration; refuses one that contradicts what has been committed
/// under another.
pub(super) async fn align(
    client: &impl GenericClient,
    found: Registered,
    schema: &str,
    start_height: Height,
) -> Result<Registered, RegisterError> {
    let contradicts = |key: &'static str, was: String, is: String| RegisterError::Contradiction {
        pipeline: found.name.clone(),
        key,
        was,
        is,
    };
    if found.schema != schema {
        return Err(contradicts("schema", found.schema.clone(), schema.to_owned()));
    }
    if found.start_height == start_height {
        return Ok(found);
    }
    if checkpoint(client, found.id).await?.block.is_some() {
        return Err(contradicts("start_height", found.start_height.to_string(), start_height.to_string()));
    }
    client
        .execute(
            "-- register::pipelines::align\nupdate debshrew.pipeline set start_height = $2 where pipeline_id operator(pg_catalog.=) $1",
            &[&found.id, &start_height.to_sql()],
        )
        .await
        .map_err(DbError::statement("move the pipeline's start"))?;
    Ok(Registered { start_height, ..found })
}
