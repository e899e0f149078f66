//! Says what a pipeline is doing, when that changes and now and then: in the database, and in the log once when it
//! begins to wait and once when that is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio::sync::Mutex;

use super::{millis, unrecorded};
use crate::block::Height;
use crate::db::Db;
use crate::observe::{State, Watched};
use crate::register::{self, Activity, RegisterError, Registered, Report, Role};
use crate::source::Source;

/// The source's tip moves with every block of a backfill; that often it need not be said.
const INTERVAL: Duration = Duration::from_secs(1);

/// And at least that often it is said that nothing has changed, so that whoever watches the database sees it at work.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What is said holds no block up for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// So long nothing is said after a failure.
const REST: Duration = Duration::from_secs(10);

/// Cheap to clone. What cannot be said is logged, and stops nothing.
#[derive(Clone)]
pub(super) struct Reporter(Arc<Inner>);

struct Inner {
    db: Db,
    pipeline: Registered,
    role: Role,
    watched: Watched,
    said: Mutex<Said>,
}

/// The same activity, as it is seen inside of this process.
pub(super) fn state(activity: Activity) -> State {
    match activity {
        Activity::Running => State::Running,
        Activity::Waiting => State::Waiting,
        Activity::Halted => State::Halted,
        Activity::Stopped => State::Stopped,
    }
}

#[derive(Default)]
struct Said {
    last: Option<(Activity, Option<String>)>,
    source_tip: Option<Height>,
    at: Option<Instant>,
    waiting_since: Option<Instant>,
    /// When nothing could be said last.
    failed_at: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(db: Db, pipeline: Registered, role: Role, watched: Watched) -> Reporter {
        Reporter(Arc::new(Inner { db, pipeline, role, watched, said: Mutex::default() }))
    }

    /// It goes on; there may be something to say of the source all the same.
    pub(super) async fn running(&self, notice: Option<String>, source_tip: Option<Height>) {
        let mut said = self.0.said.lock().await;
        self.run(&mut said, notice, source_tip).await
    }

    /// The same, where nothing better is known than that it was not waiting.
    pub(super) async fn at_work(&self, notice: Option<String>, source_tip: Height) {
        let mut said = self.0.said.lock().await;
        if said.waiting_since.is_some() {
            return;
        }
        self.run(&mut said, notice, Some(source_tip)).await
    }

    /// What it was waiting for has come, if it was.
    pub(super) async fn went_on(&self, source_tip: Height) {
        let mut said = self.0.said.lock().await;
        if said.waiting_since.is_none() {
            return;
        }
        self.run(&mut said, None, Some(source_tip)).await
    }

    pub(super) async fn is_waiting(&self) -> bool {
        self.0.said.lock().await.waiting_since.is_some()
    }

    /// Something must change outside; the height is the block's that the reason is about.
    pub(super) async fn waiting(&self, reason: String, height: Option<Height>, source_tip: Option<Height>) {
        let mut said = self.0.said.lock().await;
        self.wait(&mut said, reason, height, source_tip).await
    }

    /// Says while it waits for an answer that none comes. Never returns.
    pub(super) async fn watch(self, source: Source) {
        let mut told: Option<String> = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let mut said = self.0.said.lock().await;
            // What cannot be said now is tried again a second later.
            match (source.silent(), told.take()) {
                (Some(silent), _) if said.waiting_since.is_none() => {
                    let reason = silent.to_string();
                    self.wait(&mut said, reason.clone(), None, None).await;
                    told = Some(reason);
                }
                (Some(_), earlier) => told = earlier,
                (None, Some(reason)) if said.last == Some((Activity::Waiting, Some(reason.clone()))) => {
                    self.run(&mut said, None, None).await;
                    // Not said yet.
                    if said.last == Some((Activity::Waiting, Some(reason.clone()))) {
                        told = Some(reason);
                    }
                }
                (None, _) => {}
            }
        }
    }

    async fn run(&self, said: &mut Said, notice: Option<String>, source_tip: Option<Height>) {
        if let Some(since) = said.waiting_since.take() {
            tracing::info!(waited_ms = millis(since.elapsed()), "going on");
        }
        self.record(said, Activity::Running, notice, None, source_tip).await
    }

    async fn wait(
        &self,
        said: &mut Said,
        reason: String,
        height: Option<Height>,
        source_tip: Option<Height>,
    ) {
        let at = height.map(Height::get);
        // Heights in it rise with every block that the source has meanwhile.
        let is_same = |last: &String| without_numbers(last).eq(without_numbers(&reason));
        let is_new = !said.last.as_ref().and_then(|(_, last)| last.as_ref()).is_some_and(is_same);
        if said.waiting_since.is_none() {
            said.waiting_since = Some(Instant::now());
            tracing::warn!(height = at, reason, "waiting");
        } else if is_new {
            tracing::info!(height = at, reason, "still waiting");
        }
        self.record(said, Activity::Waiting, Some(reason), height, source_tip).await
    }

    async fn record(
        &self,
        said: &mut Said,
        activity: Activity,
        reason: Option<String>,
        reason_height: Option<Height>,
        source_tip: Option<Height>,
    ) {
        self.0.watched.state(state(activity), reason.as_deref(), reason_height);
        if let Some(tip) = source_tip {
            self.0.watched.source_tip(tip);
        }
        let now = (activity, reason);
        let within = |time: Duration| said.at.is_some_and(|at| at.elapsed() < time);
        let is_same_tip = source_tip.is_none() || said.source_tip == source_tip;
        if said.last.as_ref() == Some(&now) && within(if is_same_tip { HEARTBEAT } else { INTERVAL }) {
            return;
        }
        if said.failed_at.is_some_and(|at| at.elapsed() < REST) {
            return;
        }
        let report = Report { activity, reason: now.1.clone(), reason_height, source_tip };
        match self.send(&report).await {
            Ok(()) => {
                (said.last, said.source_tip, said.at) = (Some(now), source_tip, Some(Instant::now()));
                said.failed_at = None;
            }
            Err(error) => {
                unrecorded(&error);
                said.failed_at = Some(Instant::now());
            }
        }
    }

    /// No longer than blocks can wait for it.
    async fn send(&self, report: &Report) -> Result<(), RegisterError> {
        let silent = || RegisterError::Silent(PATIENCE);
        let client = tokio::time::timeout(PATIENCE, self.0.db.client()).await.map_err(|_| silent())??;
        let sent = register::report(&client, self.0.pipeline.id, self.0.role, report);
        let sent = tokio::time::timeout(PATIENCE, sent).await;
        sent.unwrap_or_else(|_| {
            // The statement still waits there.
            drop(Object::take(client));
            Err(silent())
        })
    }
}

fn without_numbers(reason: &str) -> impl Iterator<Item = char> {
    reason.chars().filter(|letter| !letter.is_ascii_digit())
}
