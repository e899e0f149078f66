//! How large a pipeline's tables and journals are.

use tokio_postgres::Client;

use super::{RegisterError, Registered};
use crate::db::DbError;

/// A table or journal.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Size {
    pub name: String,
    /// With its indexes, and what is stored apart.
    pub bytes: i64,
    /// As PostgreSQL estimated when it last analysed the table; `None` before that.
    pub rows: Option<i64>,
}

/// Of a pipeline, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sizes {
    /// The user's tables, and the transform's state.
    pub tables: Vec<Size>,
    pub journals: Vec<Size>,
}

/// What the files of a pipeline's tables and journals take. Does not wait long for whoever alters a table.
pub async fn sizes(client: &mut Client, pipeline: &Registered) -> Result<Sizes, RegisterError> {
    let failed = || DbError::statement("measure the pipeline's tables");
    let transaction = client.transaction().await.map_err(failed())?;
    let limits =
        "-- register::sizes::limits\nset local lock_timeout = '1s'; set local statement_timeout = '10s'";
    transaction.batch_execute(limits).await.map_err(failed())?;
    let rows = transaction
        .query(
            // Journals are in the schema `debshrew_NAME`, and with them the state, which is a table.
            "-- register::sizes::sizes\n\
             select c.relname::text as name, \
                    n.nspname::text operator(pg_catalog.<>) $1 and c.relname::text operator(pg_catalog.<>) 'debshrew_state' \
                      as is_journal, \
                    coalesce(pg_catalog.pg_total_relation_size(c.oid), 0) as bytes, \
                    case when c.reltuples operator(pg_catalog.>=) 0::real then c.reltuples::int8 end as rows \
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace \
              where n.nspname::text operator(pg_catalog.=) any (array[$1, 'debshrew_'::text operator(pg_catalog.||) $2::text]) \
                and c.relkind operator(pg_catalog.=) 'r'::\"char\" \
              order by 3 desc, 1",
            &[&pipeline.schema, &pipeline.name],
        )
        .await
        .map_err(failed())?;
    let mut sizes = Sizes::default();
    for row in &rows {
        let size = Size { name: row.get("name"), bytes: row.get("bytes"), rows: row.get("rows") };
        if row.get("is_journal") { &mut sizes.journals } else { &mut sizes.tables }.push(size);
    }
    Ok(sizes)
}
