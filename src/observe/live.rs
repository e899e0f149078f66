//! What each pipeline does now, and did of late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;

use super::handles::Handles;
use super::lag::Lag;
use super::rates::{Minute, Rates};
use super::told::{Ahead, CommittedBlock, Evaluated, Reorg, State};
use crate::block::{BlockRef, Height};

/// How many of the last blocks, and of the last reorganisations, are remembered.
const MAX_BLOCKS: usize = 50;
const MAX_REORGS: usize = 20;
const MAX_PROBLEMS: usize = 20;

/// All pipelines of this process. Cheap to clone.
#[derive(Clone)]
pub struct Observer(Arc<Inner>);

struct Inner {
    started: SystemTime,
    pipelines: Mutex<BTreeMap<String, Observed>>,
    /// Changes with whatever is told.
    changes: watch::Sender<u64>,
}

/// What is known of a pipeline, and its metrics.
type Observed = (Arc<Mutex<Live>>, Arc<Handles>);

/// One pipeline, for whoever runs it to tell what it does. Cheap to clone.
#[derive(Clone)]
pub struct Watched {
    name: Arc<str>,
    live: Arc<Mutex<Live>>,
    handles: Arc<Handles>,
    observer: Observer,
}

struct Live {
    state: State,
    since: SystemTime,
    reason: Option<String>,
    reason_height: Option<Height>,
    block: Option<BlockRef>,
    first: Height,
    /// So far below the source's tip is as far as it gets.
    confirmations: u32,
    tip: Option<Height>,
    behind: Lag,
    rates: Rates,
    blocks: VecDeque<BlockSnapshot>,
    reorgs: VecDeque<ReorgSnapshot>,
    problems: VecDeque<ProblemSnapshot>,
}

impl Default for Observer {
    fn default() -> Observer {
        let (changes, _) = watch::channel(0);
        Observer(Arc::new(Inner { started: SystemTime::now(), pipelines: Mutex::default(), changes }))
    }
}

impl Observer {
    /// A pipeline whose first block is, or will be, at this height, and which stays so many blocks below the source's tip.
    pub fn pipeline(&self, name: &str, first: Height, confirmations: u32) -> Watched {
        let live = Live {
            state: State::Starting,
            since: SystemTime::now(),
            reason: None,
            reason_height: None,
            block: None,
            first,
            confirmations,
            tip: None,
            behind: Lag::default(),
            rates: Rates::new(Instant::now()),
            blocks: VecDeque::new(),
            reorgs: VecDeque::new(),
            problems: VecDeque::new(),
        };
        let (live, handles) = (Arc::new(Mutex::new(live)), Arc::new(Handles::new(name)));
        lock(&self.0.pipelines).insert(name.to_owned(), (Arc::clone(&live), Arc::clone(&handles)));
        handles.state(State::Starting);
        let watched = Watched { name: name.into(), live, handles, observer: self.clone() };
        watched.heights();
        watched
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        let pipelines = lock(&self.0.pipelines).clone();
        let pipelines = pipelines.iter().map(|(name, (live, _))| lock(live).snapshot(name)).collect();
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            started_at: unix(self.0.started),
            now: unix(SystemTime::now()),
            pipelines,
        }
    }

    pub fn started(&self) -> SystemTime {
        self.0.started
    }

    /// Sets the metrics that change while nothing happens.
    pub fn tell_ages(&self) {
        for (live, handles) in lock(&self.0.pipelines).values() {
            handles.lag_seconds(lock(live).behind.lasts(Instant::now()));
        }
    }

    /// Wakes whoever waits for something new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}

impl Watched {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It is in this state from now on, for this reason, unless it is already. While another process writes, this one does
    /// not know how far behind that is.
    pub fn state(&self, state: State, reason: Option<&str>, height: Option<Height>) {
        self.tell(|live| {
            if live.state != state {
                live.since = SystemTime::now();
            }
            if live.state != state || live.reason.as_deref() != reason {
                live.turns_to(state, reason, height);
            }
            (live.state, live.reason, live.reason_height) = (state, reason.map(str::to_owned), height);
            if state == State::Standby {
                (live.tip, live.behind) = (None, Lag::default());
            }
        });
        self.handles.state(state);
        self.heights();
    }

    /// The checkpoint, as it is found when the pipeline becomes the writer.
    pub fn resumes_at(&self, block: Option<BlockRef>) {
        self.tell(|live| {
            live.block = block;
            if let Some(block) = block {
                live.behind.committed(block.height);
            }
        });
        self.heights();
    }

    pub fn source_tip(&self, tip: Height) {
        self.tell(|live| {
            live.tip = Some(tip);
            let due = tip.get().checked_sub(live.confirmations).and_then(Height::new).unwrap_or(tip);
            let is_committed = live.left() == Some(0);
            live.behind.tip(Instant::now(), due, is_committed);
        });
        self.heights();
    }

    pub fn evaluates(&self, ahead: &Ahead) {
        self.handles.ahead(ahead);
    }

    pub fn evaluated(&self, done: &Evaluated) {
        self.handles.evaluated(done);
    }

    pub fn committed(&self, done: &CommittedBlock<'_>) {
        let changes = done.tables.iter().map(|(_, rows)| rows).sum();
        self.tell(|live| {
            live.block = Some(done.at);
            live.behind.committed(done.at.height);
            live.rates.add(Instant::now(), 1, changes);
            let block = BlockSnapshot {
                height: done.at.height.get(),
                hash: done.at.hash.to_string(),
                changes,
                committed_at: unix(SystemTime::now()),
            };
            push(&mut live.blocks, block, MAX_BLOCKS);
        });
        self.handles.committed(&self.name, done);
        self.heights();
    }

    /// How long the transactions of so many blocks took together, from the first one sent to the last reply.
    pub fn commits_took(&self, blocks: usize, took: Duration) {
        self.handles.commits_took(blocks, took);
    }

    pub fn rolled_back(&self, done: &Reorg) {
        self.tell(|live| {
            live.block = done.to;
            let kept = done.to.map(|to| to.height);
            live.blocks.retain(|block| Some(block.height) <= kept.map(Height::get));
            let reorg = ReorgSnapshot {
                from_height: done.from.height.get(),
                to_height: kept.map(Height::get),
                depth: done.depth,
                rows: done.rows,
                seconds: done.took.as_secs_f64(),
                at: unix(SystemTime::now()),
            };
            push(&mut live.reorgs, reorg, MAX_REORGS);
        });
        self.handles.rolled_back(done);
        self.heights();
    }

    fn heights(&self) {
        let live = lock(&self.live);
        self.handles.heights(live.block.map(|block| block.height), live.tip, live.lag());
    }

    fn tell(&self, told: impl FnOnce(&mut Live)) {
        told(&mut lock(&self.live));
        self.observer.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Live {
    /// Blocks between the last committed one and the source's tip, once a tip is known.
    fn lag(&self) -> Option<u32> {
        let next = self.block.map_or(self.first, |block| block.height.next());
        Some((self.tip?.get() + 1).saturating_sub(next.get()))
    }

    /// Blocks that can be committed now.
    fn left(&self) -> Option<u32> {
        Some(self.lag()?.saturating_sub(self.confirmations))
    }

    /// What it waits for, or halted at, is remembered; the same once more, as the same.
    fn turns_to(&mut self, state: State, reason: Option<&str>, height: Option<Height>) {
        let now = unix(SystemTime::now());
        if let Some(open) = self.problems.front_mut().filter(|open| open.until.is_none()) {
            // Reasons may name heights that rise: it is one problem as long as the state lasts.
            if let Some(reason) = reason.filter(|_| open.state == state) {
                (open.reason, open.height) = (reason.to_owned(), height.map(Height::get));
                return;
            }
            open.until = Some(now);
        }
        let (State::Waiting | State::Halted, Some(reason)) = (state, reason) else { return };
        let same = |last: &&mut ProblemSnapshot| last.state == state && last.reason == reason;
        if let Some(last) = self.problems.front_mut().filter(same) {
            (last.until, last.times) = (None, last.times + 1);
            return;
        }
        let height = height.map(Height::get);
        let problem =
            ProblemSnapshot { state, reason: reason.to_owned(), height, since: now, until: None, times: 1 };
        push(&mut self.problems, problem, MAX_PROBLEMS);
    }

    fn snapshot(&mut self, name: &str) -> PipelineSnapshot {
        let now = Instant::now();
        let (blocks_per_second, changes_per_second) = self.rates.a_second(now);
        let left = self.left().filter(|left| *left > 0 && blocks_per_second > 0.0);
        PipelineSnapshot {
            name: name.to_owned(),
            state: self.state,
            since: unix(self.since),
            reason: self.reason.clone(),
            reason_height: self.reason_height.map(Height::get),
            first_height: self.first.get(),
            confirmations: self.confirmations,
            height: self.block.map(|block| block.height.get()),
            block_hash: self.block.map(|block| block.hash.to_string()),
            source_height: self.tip.map(Height::get),
            lag_blocks: self.lag(),
            lag_seconds: self.behind.lasts(now).as_secs_f64(),
            blocks_per_second,
            changes_per_second,
            seconds_left: left.map(|left| f64::from(left) / blocks_per_second),
            minutes: self.rates.minutes(now),
            blocks: self.blocks.iter().cloned().collect(),
            reorgs: self.reorgs.iter().cloned().collect(),
            problems: self.problems.iter().cloned().collect(),
        }
    }
}

/// All that is known at a moment. Times are seconds since 1970, UTC.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    pub version: &'static str,
    pub started_at: f64,
    pub now: f64,
    pub pipelines: Vec<PipelineSnapshot>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PipelineSnapshot {
    pub name: String,
    pub state: State,
    pub since: f64,
    pub reason: Option<String>,
    /// The block that the reason is about.
    pub reason_height: Option<u32>,
    /// The first block of the pipeline.
    pub first_height: u32,
    /// How many blocks it stays below the source's tip.
    pub confirmations: u32,
    pub height: Option<u32>,
    pub block_hash: Option<String>,
    pub source_height: Option<u32>,
    pub lag_blocks: Option<u32>,
    /// For how long the source has been known to have a block that could be committed.
    pub lag_seconds: f64,
    /// Over the last 15 s.
    pub blocks_per_second: f64,
    pub changes_per_second: f64,
    /// Until all that can be committed is, at that pace.
    pub seconds_left: Option<f64>,
    /// The last 60 minutes, the present one last.
    pub minutes: Vec<Minute>,
    /// The last blocks, the newest first.
    pub blocks: Vec<BlockSnapshot>,
    /// The last reorganisations, the newest first.
    pub reorgs: Vec<ReorgSnapshot>,
    /// What it waited for or halted at, with what to do about it, the newest first.
    pub problems: Vec<ProblemSnapshot>,
}

#[derive(Clone, Debug, Serialize)]
pub struct BlockSnapshot {
    pub height: u32,
    pub hash: String,
    pub changes: u64,
    pub committed_at: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct ReorgSnapshot {
    pub from_height: u32,
    /// `null` is before the first block.
    pub to_height: Option<u32>,
    pub depth: u32,
    pub rows: u64,
    pub seconds: f64,
    pub at: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProblemSnapshot {
    /// `waiting` or `halted`.
    pub state: State,
    pub reason: String,
    /// The block that the reason is about.
    pub height: Option<u32>,
    pub since: f64,
    /// `null` while it lasts.
    pub until: Option<f64>,
    /// How often it came in a row.
    pub times: u32,
}

fn push<T>(newest_first: &mut VecDeque<T>, entry: T, most: usize) {
    newest_first.push_front(entry);
    newest_first.truncate(most);
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;

    fn block(height: u32) -> BlockRef {
        BlockRef { height: Height::new(height).unwrap(), hash: BlockHash::new([height as u8; 32]) }
    }

    #[test]
    fn a_snapshot_tells_where_a_pipeline_is_and_what_it_did() {
        let observer = Observer::default();
        let mut changes = observer.changes();
        let watched = observer.pipeline("ledger", Height::new(10).unwrap(), 0);
        watched.source_tip(Height::new(15).unwrap());
        assert_eq!(observer.snapshot().pipelines[0].lag_blocks, Some(6));
        watched.state(State::Running, None, None);
        for height in 10..=14 {
            watched.committed(&CommittedBlock { at: block(height), tables: &[("a", 2), ("b", 1)] });
        }
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let snapshot = observer.snapshot();
        let ledger = &snapshot.pipelines[0];
        assert_eq!((ledger.height, ledger.lag_blocks, ledger.state), (Some(14), Some(1), State::Running));
        assert_eq!((ledger.blocks[0].height, ledger.blocks[0].changes, ledger.blocks.len()), (14, 3, 5));
        assert_eq!(ledger.minutes.last(), Some(&Minute { blocks: 5, changes: 15 }));
        assert!(ledger.blocks_per_second > 0.0 && ledger.seconds_left.is_some());

        let took = Duration::from_millis(5);
        let reorg = Reorg { from: block(14), to: Some(block(12)), depth: 2, rows: 7, took };
        watched.rolled_back(&reorg);
        let ledger = observer.snapshot().pipelines.remove(0);
        assert_eq!((ledger.height, ledger.lag_blocks), (Some(12), Some(3)));
        assert_eq!(ledger.blocks.iter().map(|block| block.height).collect::<Vec<_>>(), [12, 11, 10]);
        assert_eq!((ledger.reorgs[0].depth, ledger.reorgs[0].to_height), (2, Some(12)));
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn blocks_that_wait_for_confirmations_are_not_late() {
        let observer = Observer::default();
        let watched = observer.pipeline("ledger", Height::new(0).unwrap(), 6);
        watched.state(State::Running, None, None);
        watched.source_tip(Height::new(4).unwrap());
        let late =
            |snapshot: &PipelineSnapshot| (snapshot.lag_seconds > 0.0, snapshot.seconds_left.is_some());
        let at = |snapshot: &PipelineSnapshot| (snapshot.lag_blocks, late(snapshot));
        assert_eq!(at(&observer.snapshot().pipelines[0]), (Some(5), (false, false)));
        watched.source_tip(Height::new(7).unwrap());
        watched.committed(&CommittedBlock { at: block(0), tables: &[] });
        assert_eq!(at(&observer.snapshot().pipelines[0]), (Some(7), (true, true)));
        watched.committed(&CommittedBlock { at: block(1), tables: &[] });
        assert_eq!(at(&observer.snapshot().pipelines[0]), (Some(6), (false, false)));
    }

    #[test]
    fn whoever_stands_by_does_not_know_how_far_behind_the_writer_is() {
        let observer = Observer::default();
        let watched = observer.pipeline("ledger", Height::new(0).unwrap(), 0);
        watched.source_tip(Height::new(7).unwrap());
        watched.state(State::Running, None, None);
        watched.state(State::Standby, Some("another process writes"), None);
        let ledger = observer.snapshot().pipelines.remove(0);
        assert_eq!((ledger.lag_blocks, ledger.source_height), (None, None));
        assert!(ledger.lag_seconds.abs() < f64::EPSILON, "{}", ledger.lag_seconds);
    }

    #[test]
    fn the_time_of_a_state_is_that_of_its_beginning() {
        let observer = Observer::default();
        let watched = observer.pipeline("ledger", Height::new(0).unwrap(), 0);
        watched.state(State::Waiting, Some("no source"), None);
        let since = observer.snapshot().pipelines[0].since;
        std::thread::sleep(Duration::from_millis(5));
        watched.state(State::Waiting, Some("the source is at height 7"), None);
        watched.state(State::Waiting, Some("the source is at height 8"), None);
        let waiting = observer.snapshot().pipelines.remove(0);
        assert!((waiting.since - since).abs() < f64::EPSILON);
        assert_eq!((waiting.problems.len(), &*waiting.problems[0].reason), (1, "the source is at height 8"));
        watched.state(State::Running, None, None);
        assert!(observer.snapshot().pipelines[0].since > since);
    }

    #[test]
    fn problems_are_remembered_and_those_that_come_back_are_one() {
        let observer = Observer::default();
        let watched = observer.pipeline("ledger", Height::new(0).unwrap(), 0);
        for _ in 0..3 {
            watched.state(State::Waiting, Some("no source"), None);
            watched.state(State::Running, None, None);
        }
        watched.state(State::Halted, Some("a bad block"), Height::new(5));
        let problems = observer.snapshot().pipelines.remove(0).problems;
        let told: Vec<_> =
            problems.iter().map(|one| (one.reason.as_str(), one.times, one.until.is_some())).collect();
        assert_eq!(told, [("a bad block", 1, false), ("no source", 3, true)]);
        assert_eq!(problems[0].height, Some(5));
    }
}
