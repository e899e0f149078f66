//! Says in the database what a pipeline is doing, when that changes and now and then.

use std::time::{Duration, Instant};

use crate::block::Height;
use crate::db::Db;
use crate::register::{self, Activity, RegisterError, Registered, Report, Role};

/// The source's tip moves with every block of a backfill; that often it need not be said.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Reporter {
    db: Db,
    pipeline: Registered,
    role: Role,
    last: Option<(Activity, Option<String>)>,
    source_tip: Option<Height>,
    at: Instant,
}

impl Reporter {
    pub(super) fn new(db: Db, pipeline: Registered, role: Role) -> Reporter {
        Reporter { db, pipeline, role, last: None, source_tip: None, at: Instant::now() }
    }

    pub(super) async fn say(
        &mut self,
        activity: Activity,
        reason: Option<String>,
        source_tip: Option<Height>,
    ) -> Result<(), RegisterError> {
        let now = (activity, reason);
        let same = self.last.as_ref() == Some(&now);
        if same && (self.at.elapsed() < INTERVAL || self.source_tip == source_tip) {
            return Ok(());
        }
        if !same
            && activity == Activity::Waiting
            && let Some(reason) = &now.1
        {
            tracing::warn!(pipeline = self.pipeline.name, "waiting: {reason}");
        }
        let client = self.db.client().await?;
        let report = Report { activity, reason: now.1.clone(), reason_height: None, source_tip };
        register::report(&client, self.pipeline.id, self.role, &report).await?;
        (self.last, self.source_tip, self.at) = (Some(now), source_tip, Instant::now());
        Ok(())
    }
}
