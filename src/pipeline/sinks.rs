//! What the pipeline's sinks need of its writer: journals from a height on, and at times that it waits for them.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::PipelineError;
use crate::block::Height;
use crate::commit::{Block, Journaling};
use crate::db::Db;
use crate::register;

/// How often it is looked up.
const INTERVAL: Duration = Duration::from_secs(10);

/// Sooner, while the pipeline waits for one.
const INTERVAL_BLOCKED: Duration = Duration::from_secs(1);

/// So long after the first look no sink is given up: while no process ran, none could publish anything.
const GRACE: Duration = Duration::from_secs(60);

/// The sinks of a pipeline, as its writer sees them. A sink that begins between two looks is seen by the database, which
/// refuses a block that it needs the journal of; so the writer looks before its first block.
#[derive(Default)]
pub(super) struct Sinks {
    begun: Option<Instant>,
    looked: Option<Instant>,
    journaled_from: Option<Height>,
    /// The sink that is waited for.
    blocked_by: Option<String>,
}

impl Sinks {
    /// Looks, if it is time to; gives up sinks that are too far behind. Returns the sink that is to be waited for.
    pub(super) async fn look(&mut self, db: &Db, pipeline: i32) -> Result<Option<&str>, PipelineError> {
        let interval = if self.blocked_by.is_some() { INTERVAL_BLOCKED } else { INTERVAL };
        if self.looked.is_none_or(|at| at.elapsed() >= interval) {
            let client = db.client().await?;
            let needs = register::sink_needs(&**client, pipeline).await?;
            if needs.journaled_from.is_some() || self.journaled_from.is_some() {
                if self.begun.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                    give_up(&client, pipeline).await?;
                }
                register::forget_retracted(&client, pipeline).await?;
                self.blocked_by = register::late_blocker(&client, pipeline).await?;
            }
            self.journaled_from = needs.journaled_from;
            self.looked = Some(Instant::now());
        }
        Ok(self.blocked_by.as_deref())
    }

    /// A block that a sink needs the journal of is journaled, however far below the tip it is.
    pub(super) fn journal(&self, block: &mut Block) {
        if self.journaled_from.is_some_and(|from| block.at.height >= from) {
            block.journaling = Journaling::Kept;
        }
    }
}

async fn give_up(client: &Client, pipeline: i32) -> Result<(), PipelineError> {
    for sink in register::detach_late(client, pipeline).await? {
        tracing::error!(
            sink,
            hint = "`debshrew sink resync` begins its stream again",
            "a sink is lost: it was behind for longer than `max_lag`"
        );
    }
    Ok(())
}
