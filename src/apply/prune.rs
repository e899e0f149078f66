//! Takes journal images away that nobody needs any more, in small transactions beside the stream.

use tokio_postgres::Client;

use super::checkpoint::Registered;
use super::rows::Targets;
use super::{ApplyError, Writer};
use crate::block::Height;
use crate::db::DbError;

/// How many blocks' images one transaction takes away.
const STEP: u32 = 16;

/// What is to be taken away; made by [`raise_floor`].
#[derive(Clone, Copy, Debug)]
pub struct Pruning {
    /// Everything at and below this was taken away before; `None` when that is not known.
    after: Option<Height>,
    floor: Height,
}

/// Declares that nothing below `floor` will be rolled back to. That is committed before the first image goes,
/// so that no rollback ever counts on images that are half gone.
pub async fn raise_floor(
    writer: &mut Writer,
    client: &Client,
    after: Option<Height>,
    floor: Height,
) -> Result<Pruning, ApplyError> {
    let raised = client
        .execute(
            "-- apply::prune::raise_floor\n\
             update debshrew.checkpoint set journal_floor = greatest(journal_floor, $3) \
              where pipeline_id = $1 and epoch = $2 and height >= $3",
            &[&writer.pipeline().id, &writer.epoch(), &floor.to_sql()],
        )
        .await
        .map_err(DbError::statement("raise the journal's floor"))?;
    if raised != 1 {
        return Err(ApplyError::Fenced { pipeline: writer.pipeline().name.clone() });
    }
    writer.floor_raised(floor);
    Ok(Pruning { after, floor })
}

impl Pruning {
    pub fn floor(&self) -> Height {
        self.floor
    }

    /// Takes the images away, a few blocks' at a time.
    pub async fn run(
        &self,
        client: &Client,
        pipeline: &Registered,
        targets: &Targets,
    ) -> Result<u64, ApplyError> {
        let mut rows = 0;
        for target in targets.list() {
            let what = || DbError::statement(format!("prune the journal of `{}`", target.table.name));
            // Ranges that no summary covers would be read each time.
            let summarise = "-- apply::prune::summarise\n\
                 select brin_summarize_new_values(i.indexrelid) from pg_index i \
                   join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam \
                  where i.indrelid = $1::text::regclass and a.amname = 'brin'";
            client.query(summarise, &[&target.journal]).await.map_err(what())?;
            let mut after = self.after;
            while after < Some(self.floor) {
                let to = after.map_or(self.floor, |after| after.saturating_add(STEP).min(self.floor));
                rows += client
                    .execute(&target.forget_between(), &[&after.map_or(-1, Height::to_sql), &to.to_sql()])
                    .await
                    .map_err(what())?;
                after = Some(to);
            }
        }
        tracing::debug!(pipeline = pipeline.name, floor = %self.floor, rows, "pruned the journals");
        Ok(rows)
    }
}
