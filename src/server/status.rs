//! The state as JSON, and what stands in the way of being ready.

use std::sync::Arc;

use serde::Serialize;

use super::sampler::Database;
use super::{Shared, lock};
use crate::observe::{PipelineSnapshot, Snapshot, State};
use crate::printable;

/// Why a pipeline is not where it should be.
#[derive(Debug, Serialize)]
pub(super) struct NotReady {
    pipeline: String,
    reason: String,
}

/// What keeps pipelines from being ready; nothing when all are.
pub(super) fn not_ready(shared: &Shared, snapshot: &Snapshot) -> Vec<NotReady> {
    if snapshot.pipelines.is_empty() {
        let waits = |name: &String| NotReady { pipeline: name.clone(), reason: "has not begun".to_owned() };
        return shared.ready_lag.keys().map(waits).collect();
    }
    let why = |pipeline: &PipelineSnapshot| {
        let allowed = shared.ready_lag.get(&pipeline.name).copied().unwrap_or_default();
        let reason = why_not_ready(pipeline, allowed)?;
        Some(NotReady { pipeline: pipeline.name.clone(), reason })
    };
    snapshot.pipelines.iter().filter_map(why).collect()
}

fn why_not_ready(pipeline: &PipelineSnapshot, allowed: u32) -> Option<String> {
    let reason = pipeline.reason.as_deref().unwrap_or_default();
    let is = |state: &str| match reason {
        "" => Some(format!("is {state}")),
        reason => Some(format!("is {state}: {reason}")),
    };
    match pipeline.state {
        State::Running => match pipeline.lag_blocks {
            None => Some("does not know the source's tip yet".to_owned()),
            Some(lag) if lag > allowed => Some(format!("is {lag} blocks behind, and may be {allowed}")),
            Some(_) => None,
        },
        State::Starting => is("starting"),
        State::Standby => is("standing by"),
        State::Waiting => is("waiting"),
        State::Halted => is("halted"),
        State::Stopped => is("stopped"),
    }
}

/// All that is known; docs/server.md describes it.
#[derive(Serialize)]
struct Status<'a> {
    ready: bool,
    not_ready: Vec<NotReady>,
    #[serde(flatten)]
    snapshot: Snapshot,
    database: &'a Database,
}

pub(super) fn status_json(shared: &Shared) -> String {
    let snapshot = shared.observer.snapshot();
    let not_ready = not_ready(shared, &snapshot);
    let database = Arc::clone(&lock(&shared.database));
    let status = Status { ready: not_ready.is_empty(), not_ready, snapshot, database: &database };
    // Numbers and texts alone: this does not fail.
    let json = serde_json::to_string(&status).unwrap_or_default();
    printable::line(&json).into_owned()
}
