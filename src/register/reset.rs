//! Forgets what a pipeline has committed. Who it is, and whom it lets in, stays.

use tokio_postgres::Transaction;

use super::RegisterError;
use crate::db::{DbError, quote};

/// Puts the pipeline to before its first block, as one that `migrate` has yet to set up: no blocks, no records of journals
/// or migrations. Whoever writes for it now is fenced. Rollbacks of before stay on record.
pub async fn forget(transaction: &Transaction<'_>, pipeline: i32, name: &str) -> Result<(), RegisterError> {
    let sql = format!(
        "-- register::reset::forget\n\
         delete from debshrew.block where pipeline_id = {pipeline}; \
         delete from debshrew.retracted where pipeline_id = {pipeline}; \
         delete from debshrew.journal_column where pipeline_id = {pipeline}; \
         delete from debshrew.journal_table where pipeline_id = {pipeline}; \
         update debshrew.checkpoint set height = null, hash = null, journal_floor = null, epoch = epoch + 1 \
          where pipeline_id = {pipeline}; \
         update debshrew.activity set state = 'new', reason = null, reason_height = null, since = clock_timestamp() \
          where pipeline_id = {pipeline}; \
         drop table if exists debshrew.{}",
        quote(&format!("migrations_{name}"))
    );
    transaction
        .batch_execute(&sql)
        .await
        .map_err(DbError::statement("forget what the pipeline has committed"))?;
    Ok(())
}
