//! The checkpoint: the last committed block, and how far back it can be undone.

use tokio_postgres::{GenericClient, Row, Transaction};

use super::{RegisterError, height};
use crate::block::{BlockHash, BlockRef, Height};
use crate::db::DbError;

/// How far a pipeline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last committed block; `None` before the first.
    pub block: Option<BlockRef>,
    /// The lowest height that the journal can roll back to; `None` when it reaches back to before the first
    /// block.
    pub floor: Option<Height>,
}

impl Checkpoint {
    /// From a row with `height`, `hash` and `journal_floor`.
    pub(super) fn read(row: &Row) -> Result<Checkpoint, RegisterError> {
        let height_found = height(row.get("height"))?;
        let hash: Option<&[u8]> = row.get("hash");
        let block = match (height_found, hash.and_then(BlockHash::from_slice)) {
            (Some(height), Some(hash)) => Some(BlockRef { height, hash }),
            (None, None) => None,
            _ => return Err(RegisterError::Damaged("a checkpoint's height and hash do not go together")),
        };
        Ok(Checkpoint { block, floor: height(row.get("journal_floor"))? })
    }
}

/// Where the pipeline stands now.
pub async fn checkpoint(client: &impl GenericClient, pipeline: i32) -> Result<Checkpoint, RegisterError> {
    let row = client
        .query_one(
            "-- register::checkpoint::checkpoint\n\
             select height, hash, journal_floor from debshrew.checkpoint where pipeline_id operator(pg_catalog.=) $1",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("read the checkpoint"))?;
    Checkpoint::read(&row)
}

/// Declares that no block committed so far can be undone.
pub async fn cut(transaction: &Transaction<'_>, pipeline: i32) -> Result<(), RegisterError> {
    transaction
        .execute(
            "-- register::checkpoint::cut\nupdate debshrew.checkpoint set journal_floor = height where pipeline_id operator(pg_catalog.=) $1",
            &[&pipeline],
        )
        .await
        .map_err(DbError::statement("raise the journal's floor"))?;
    Ok(())
}
