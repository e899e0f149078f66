//! Who may read.

use tokio_postgres::Transaction;

use super::{SchemaError, Wanted, execute};
use crate::db::quote;

/// Lets a role read the pipelines' tables, those made later included, and debshrew's views.
pub(super) async fn read(
    transaction: &Transaction<'_>,
    role: &str,
    wanted: &[Wanted],
) -> Result<(), SchemaError> {
    let role = quote(role);
    let mut sql = format!(
        "grant usage on schema debshrew to {role};\n\
         grant select on debshrew.pipelines, debshrew.blocks, debshrew.reorgs to {role};\n"
    );
    for pipeline in wanted {
        let schema = quote(&pipeline.schema);
        sql.push_str(&format!(
            "grant usage on schema {schema} to {role};\n\
             grant select on all tables in schema {schema} to {role};\n\
             alter default privileges in schema {schema} grant select on tables to {role};\n"
        ));
    }
    execute(transaction, &sql, &format!("let role {role} read")).await
}
