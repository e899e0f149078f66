//! Takes journal images away that nobody needs any more, in small transactions beside the stream.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::checkpoint::Registered;
use super::rows::Targets;
use super::{ApplyError, Writer};
use crate::block::Height;
use crate::db::{Db, DbError};

/// How many blocks' images one transaction takes away.
const STEP: u32 = 16;

/// Keeps a pipeline's journals as long as its retention says.
pub struct Pruner {
    db: Db,
    /// How many blocks below the checkpoint can be rolled back.
    retention: u32,
    /// Everything at and below this is gone; not known at first.
    done: Option<Height>,
    running: Option<JoinHandle<Result<Height, ApplyError>>>,
}

impl Pruner {
    pub fn new(db: Db, retention: u32) -> Pruner {
        Pruner { db, retention, done: None, running: None }
    }

    /// Begins to prune when enough has come together, beside whatever the writer does next.
    pub async fn advance(&mut self, writer: &mut Writer) -> Result<(), ApplyError> {
        if let Some(running) = self.running.take_if(|running| running.is_finished())
            && let Ok(pruned) = running.await
        {
            self.done = Some(pruned?);
        }
        let Some(block) = writer.checkpoint().block else { return Ok(()) };
        let Some(floor) = block.height.get().checked_sub(self.retention).and_then(Height::new) else {
            return Ok(());
        };
        let enough = (self.retention / 16).max(64);
        let since = self.done.unwrap_or(writer.pipeline().start_height);
        if self.running.is_some() || floor.blocks_above(since) < enough {
            return Ok(());
        }
        let client = self.db.client().await?;
        raise_floor(writer, &client, floor).await?;
        let (after, pipeline, targets) = (self.done, writer.pipeline().clone(), Arc::clone(writer.targets()));
        self.running = Some(tokio::spawn(async move {
            prune(&client, &pipeline, &targets, after, floor).await.map(|()| floor)
        }));
        Ok(())
    }
}

/// Declares that nothing below `floor` will be rolled back to. That is committed before the first image goes,
/// so that no rollback ever counts on images that are half gone.
async fn raise_floor(writer: &mut Writer, client: &Client, floor: Height) -> Result<(), ApplyError> {
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
    Ok(())
}

/// Takes the images away, a few blocks' at a time.
async fn prune(
    client: &Client,
    pipeline: &Registered,
    targets: &Targets,
    after: Option<Height>,
    floor: Height,
) -> Result<(), ApplyError> {
    let mut rows = 0;
    for target in targets.list() {
        let what = || DbError::statement(format!("prune the journal of `{}`", target.table.name));
        // Ranges that no summary covers would be read each time.
        let summarise = "-- apply::prune::summarise\n\
             select brin_summarize_new_values(i.indexrelid) from pg_index i \
               join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam \
              where i.indrelid = $1::text::regclass and a.amname = 'brin'";
        client.query(summarise, &[&target.journal]).await.map_err(what())?;
        let mut after = after;
        while after < Some(floor) {
            // Where the last one ended is not known to a process that has just begun: one large step.
            let to = after.map_or(floor, |after| after.saturating_add(STEP).min(floor));
            rows += client
                .execute(&target.forget_between(), &[&after.map_or(-1, Height::to_sql), &to.to_sql()])
                .await
                .map_err(what())?;
            after = Some(to);
        }
    }
    tracing::debug!(pipeline = pipeline.name, %floor, rows, "pruned the journals");
    Ok(())
}
