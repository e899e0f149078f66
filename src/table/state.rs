//! Reads the transform's state as the last committed block left it. Writing it is part of a block's commit.

use deadpool_postgres::Object;

use super::{STATE_TABLE, TableError, journal_schema};
use crate::db::{DbError, quote};

/// The value of one key; `None` when there is none.
pub async fn read(client: &Object, pipeline: &str, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
    let sql = format!(
        "-- table::state::read\nselect value from {}.{STATE_TABLE} where key = $1",
        quote(&journal_schema(pipeline))
    );
    let failed = || DbError::statement("read the transform's state");
    let statement = client.prepare_cached(&sql).await.map_err(failed())?;
    let row = client.query_opt(&statement, &[&key]).await.map_err(failed())?;
    Ok(row.map(|row| row.get(0)))
}
