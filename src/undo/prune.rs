//! Takes journal images away that nobody needs any more, in small transactions beside the stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tracing::Instrument;

use super::UndoError;
use crate::block::Height;
use crate::db::{Db, DbError};
use crate::failure::chain;
use crate::register::{self, Lease};
use crate::table::{Tables, Target};

/// How many blocks' images one transaction takes away.
const STEP: u32 = 16;

/// So long nothing is pruned while a sink needs it.
const HELD: Duration = Duration::from_secs(1);

/// So long nothing is pruned after a failure.
const REST: Duration = Duration::from_secs(5);

/// Keeps a pipeline's journals as long as its retention says, and as a sink needs them.
pub struct Pruner {
    db: Db,
    /// How many blocks below the checkpoint can be rolled back.
    retention: u32,
    /// Everything at and below this is gone; not known at first.
    done: Option<Height>,
    running: Option<JoinHandle<Result<Option<Height>, UndoError>>>,
    /// Not before then is anything pruned: a sink needed it, or it failed.
    held_until: Option<Instant>,
}

impl Pruner {
    pub fn new(db: Db, retention: u32) -> Pruner {
        Pruner { db, retention, done: None, running: None, held_until: None }
    }

    /// Begins to prune when enough has come together, beside whatever the writer does next. What fails is said and tried
    /// again: images that are kept too long are no reason to stop, and what stops the writer it finds out itself.
    pub async fn advance(&mut self, lease: &mut Lease, tables: &Arc<Tables>) {
        let pruned = match self.running.take_if(|running| running.is_finished()) {
            Some(running) => running.await.unwrap_or(Ok(self.done)),
            None => Ok(self.done),
        };
        let begun = match pruned {
            Ok(done) => {
                self.done = done;
                self.begin(lease, tables).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            tracing::warn!(reason = chain(&error), "cannot prune the journals; trying again");
            self.held_until = Some(Instant::now() + REST);
        }
    }

    async fn begin(&mut self, lease: &mut Lease, tables: &Arc<Tables>) -> Result<(), UndoError> {
        let Some(block) = lease.checkpoint().block else { return Ok(()) };
        let Some(floor) = block.height.get().checked_sub(self.retention).and_then(Height::new) else {
            return Ok(());
        };
        let enough = (self.retention / 16).max(64);
        let since = self.done.unwrap_or(lease.pipeline().start_height);
        let is_held = self.held_until.is_some_and(|until| Instant::now() < until);
        if self.running.is_some() || is_held || floor.blocks_above(since) < enough {
            return Ok(());
        }
        let client = self.db.client().await?;
        let reach = register::sinks_reach(&client, lease.pipeline().id).await?;
        let floor = reach.map_or(floor, |reach| reach.map_or(since, |reach| floor.min(reach)));
        if floor.blocks_above(since) < enough {
            self.held_until = Some(Instant::now() + HELD);
            return Ok(());
        }
        // Committed before the first image goes, so that no rollback ever counts on images that are half gone.
        lease.raise_floor(&client, floor).await?;
        let (after, tables) = (self.done, Arc::clone(tables));
        let pruning = async move { prune(&client, &tables, after, floor).await.map(|()| Some(floor)) };
        self.running = Some(tokio::spawn(pruning.in_current_span()));
        Ok(())
    }
}

/// Takes the images away, a few blocks' at a time.
async fn prune(
    client: &Client,
    tables: &Tables,
    after: Option<Height>,
    floor: Height,
) -> Result<(), UndoError> {
    let mut rows = 0;
    for target in tables.all() {
        let what = || DbError::statement(format!("prune the journal of `{}`", target.table.name));
        // Ranges that no summary covers would be read each time.
        let summarise = "-- undo::prune::summarise\nselect debshrew.summarise($1::text::regclass)";
        client.query(summarise, &[&target.journal]).await.map_err(what())?;
        let mut after = after;
        while after < Some(floor) {
            // Where the last one ended is not known to a process that has just begun: one large step.
            let to = after.map_or(floor, |after| after.saturating_add(STEP).min(floor));
            rows += client
                .execute(&forget_between(target), &[&after.map_or(-1, Height::to_sql), &to.to_sql()])
                .await
                .map_err(what())?;
            after = Some(to);
        }
    }
    tracing::debug!(floor = floor.get(), rows, "pruned the journals");
    Ok(())
}

/// Takes away the images above `$1` up to and including `$2`.
fn forget_between(target: &Target) -> String {
    format!(
        "-- undo::prune::forget_between\ndelete from {} \
         where undo_height > $1::pg_catalog.int4 and undo_height <= $2::pg_catalog.int4",
        target.journal
    )
}
