//! What the database knows, looked up now and then, so that no answer waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{Shared, lock};
use crate::block::Height;
use crate::db::Db;
use crate::failure::chain;
use crate::observe::{self, SinkProgress};
use crate::printable;
use crate::register::{self, Processes, RegisterError, SinkOverview, Sizes};

const PROCESSES: Duration = Duration::from_secs(5);
const SIZES: Duration = Duration::from_secs(30);

/// What was found last.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Database {
    /// In seconds since 1970; `None` before the first time.
    sampled_at: Option<f64>,
    /// Why it could not be looked up the last time, if it could not.
    error: Option<String>,
    pipelines: Vec<Stored>,
}

#[derive(Clone, Debug, Serialize)]
struct Stored {
    name: String,
    /// The lowest height that can be rolled back to; `None` when everything can be.
    rollback_floor: Option<u32>,
    #[serde(flatten)]
    processes: Processes,
    #[serde(flatten)]
    sizes: Sizes,
    sinks: Vec<SinkOverview>,
}

/// Looks again and again; never returns.
pub(super) async fn sample(shared: Arc<Shared>, db: Db, pipelines: Vec<String>) {
    let mut sized: Option<Instant> = None;
    loop {
        let before = Arc::clone(&lock(&shared.database));
        let with_sizes = sized.is_none_or(|at| at.elapsed() >= SIZES);
        let found = match look(&db, &pipelines, &before, with_sizes).await {
            Ok(pipelines) => {
                if with_sizes {
                    sized = Some(Instant::now());
                }
                tell(&pipelines);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Database { sampled_at: Some(now.as_secs_f64()), error: None, pipelines }
            }
            Err(error) => {
                let error = Some(printable::line(&chain(&error)).into_owned());
                Database { error, ..(*before).clone() }
            }
        };
        *lock(&shared.database) = Arc::new(found);
        tokio::time::sleep(PROCESSES).await;
    }
}

async fn look(
    db: &Db,
    pipelines: &[String],
    before: &Database,
    with_sizes: bool,
) -> Result<Vec<Stored>, RegisterError> {
    let mut client = db.client().await?;
    let all_sinks = register::sink_overview(&**client).await?;
    let mut found = Vec::new();
    for name in pipelines {
        let Some(registered) = register::find(&**client, name).await? else { continue };
        let checkpoint = register::checkpoint(&**client, registered.id).await?;
        let rollback_floor = checkpoint.floor.map(Height::get);
        let processes = register::processes(&client, registered.id).await?;
        let sizes = if with_sizes {
            register::sizes(&mut client, &registered).await?
        } else {
            let earlier = before.pipelines.iter().find(|stored| stored.name == *name);
            earlier.map(|stored| stored.sizes.clone()).unwrap_or_default()
        };
        let sinks = all_sinks.iter().filter(|sink| sink.pipeline == *name).cloned().collect();
        found.push(Stored { name: name.clone(), rollback_floor, processes, sizes, sinks });
    }
    Ok(found)
}

fn tell(pipelines: &[Stored]) {
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    for Stored { name, processes, sizes, sinks, .. } in pipelines {
        for sink in sinks {
            let SinkOverview { state, height, lag_blocks, lag_seconds, .. } = sink;
            let (height, lag_blocks, lag_seconds) = (*height, *lag_blocks, *lag_seconds);
            observe::sink(name, &sink.sink, SinkProgress { state, height, lag_blocks, lag_seconds });
        }
        observe::standbys(name, processes.standbys.len());
        for table in &sizes.tables {
            observe::table_bytes(name, &table.name, bytes(table.bytes));
        }
        observe::journal_bytes(name, sizes.journals.iter().map(|journal| bytes(journal.bytes)).sum());
    }
}
