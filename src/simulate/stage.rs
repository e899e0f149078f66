//! The node, the index, and what is in force, behind one lock; commands change it, calls are answered from it,
//! and one task lets time pass in it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::Instant;

use super::SimulateError;
use super::block::{Block, MAIN};
use super::chain::{Chain, Supply};
use super::control::{Command, IndexStatus, METHODS, NodeStatus, Phase, Status};
use super::fault::Faults;
use super::index::{Index, Rules};
use super::rpc::{Answer, Call};
use crate::block::{BlockHash, Height};

/// The most blocks that one command makes.
const MOST_BLOCKS: u32 = 10_000;

/// The longest name of a branch; it stands in every coinbase.
const LONGEST_NAME: usize = 32;

/// Shared by the server's connections and the tasks beside it.
pub(super) struct Stage {
    supply: Arc<Supply>,
    world: Mutex<World>,
    /// Commands that make blocks, one at a time: blocks are made outside the world's lock.
    making: AsyncMutex<Names>,
    /// Told when the index or the node has changed, or a misbehaviour was cleared.
    turned: watch::Sender<()>,
    /// Told when a call was answered, or has begun to wait.
    counted: watch::Sender<()>,
}

pub(super) struct World {
    node: Chain,
    pub(super) index: Index,
    rules: Rules,
    pub(super) faults: Faults,
    calls: BTreeMap<&'static str, u64>,
    waiting: u64,
    /// When the present phase began.
    since: Instant,
    /// How many times misbehaviours were cleared.
    pub(super) cleared: u64,
}

/// Branch names that were used.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    fn fresh(&self) -> String {
        let mut number = 1;
        while self.0.contains(&format!("fork-{number}")) {
            number += 1;
        }
        format!("fork-{number}")
    }
}

impl Stage {
    pub(super) fn new(supply: Arc<Supply>, node: Chain, rules: Rules) -> Stage {
        let mut world = World {
            node,
            index: Index::new(),
            rules,
            faults: Faults::default(),
            calls: BTreeMap::new(),
            waiting: 0,
            since: Instant::now(),
            cleared: 0,
        };
        world.settle();
        Stage {
            supply,
            world: Mutex::new(world),
            making: AsyncMutex::default(),
            turned: watch::Sender::new(()),
            counted: watch::Sender::new(()),
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        // Nothing panics while it is held.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> Status {
        self.world().status()
    }

    /// The hashes of the node's chain, from the genesis block's on.
    pub(super) fn chain(&self) -> Vec<BlockHash> {
        self.world().node.hashes().collect()
    }

    /// The first status that fits.
    pub(super) async fn until(&self, mut fits: impl FnMut(&Status) -> bool) -> Status {
        let (mut turned, mut counted) = (self.turned.subscribe(), self.counted.subscribe());
        loop {
            let status = self.status();
            if fits(&status) {
                return status;
            }
            // The senders live as long as `self`.
            tokio::select! {
                _ = turned.changed() => {}
                _ = counted.changed() => {}
            }
        }
    }

    /// Lets time pass: ends each phase when it has lasted long enough. Never returns.
    pub(super) async fn drive(&self) {
        let mut turned = self.turned.subscribe();
        loop {
            turned.borrow_and_update();
            let end = {
                let world = self.world();
                world.index.pause(&world.node, &world.rules).map(|pause| world.since + pause)
            };
            let Some(end) = end else {
                let _ = turned.changed().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(end) => self.turn(|world| {
                    // A command may have come first.
                    let pause = world.index.pause(&world.node, &world.rules);
                    if pause.is_some_and(|pause| world.since + pause <= Instant::now()) {
                        world.advance();
                    }
                }),
                _ = turned.changed() => {}
            }
        }
    }

    /// Answers a call, when it may be answered.
    pub(super) async fn answer(&self, call: &Call) -> Answer {
        let mut turned = self.turned.subscribe();
        let mut waiting = None;
        loop {
            turned.borrow_and_update();
            let (answer, walk) = {
                let world = &mut *self.world();
                if call.waits() && world.index.locked() {
                    (None, 0)
                } else {
                    let walk = call.walk(&world.index);
                    (Some(call.answer(&mut world.index, &world.rules)), walk)
                }
            };
            if walk > 0 {
                // A microsecond a block, as was seen.
                tokio::time::sleep(Duration::from_micros(walk.into())).await;
            }
            if let Some(answer) = answer {
                return answer;
            }
            waiting.get_or_insert_with(|| self.wait());
            let _ = turned.changed().await;
        }
    }

    /// Waits until misbehaviours are cleared.
    pub(super) async fn stall(&self) {
        let mut turned = self.turned.subscribe();
        let before = self.world().cleared;
        let _waiting = self.wait();
        while self.world().cleared == before {
            let _ = turned.changed().await;
        }
    }

    pub(super) fn count(&self, method: &str) {
        let name = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        *self.world().calls.entry(name).or_default() += 1;
        self.counted.send_replace(());
    }

    fn wait(&self) -> Waiting<'_> {
        self.world().waiting += 1;
        self.counted.send_replace(());
        Waiting(self)
    }

    fn turn<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = {
            let mut world = self.world();
            let result = change(&mut world);
            world.settle();
            result
        };
        self.turned.send_replace(());
        result
    }

    pub(super) async fn control(&self, command: Command) -> Result<Status, SimulateError> {
        match command {
            Command::Mine { blocks } => self.mine(blocks).await?,
            Command::Reorg { depth, length, branch } => self.reorg(depth, length, branch).await?,
            Command::Step { count, until } => self.turn(|world| world.step(count, until))?,
            Command::Rules(change) => self.turn(|world| world.rules.change(&change)),
            Command::Misbehave(misbehaviour) => {
                self.turn(|world| world.faults.add(misbehaviour)).map_err(SimulateError::Command)?;
            }
            Command::Clear {} => self.turn(|world| {
                world.faults.clear();
                world.cleared += 1;
            }),
            Command::Restart {} => self.turn(|world| world.index.restart()),
            Command::Status {} => {}
        }
        Ok(self.status())
    }

    async fn mine(&self, count: u32) -> Result<(), SimulateError> {
        let _alone = self.making.lock().await;
        let (fork, branch) = {
            let world = self.world();
            (world.node.height(), world.node.tip().branch.to_string())
        };
        self.make(fork, count, &branch, "blocks").await?;
        let status = self.status();
        tracing::info!(height = status.node.height.get(), hash = %status.node.hash, %branch, blocks = count, "mined");
        Ok(())
    }

    async fn reorg(
        &self,
        depth: u32,
        length: Option<u32>,
        branch: Option<String>,
    ) -> Result<(), SimulateError> {
        let mut names = self.making.lock().await;
        let height = self.world().node.height();
        if depth == 0 || depth > height {
            return Err(refuse(format!(
                "a reorganisation of depth {depth} is not possible; `depth` is a number from 1 to {height}"
            )));
        }
        let branch = branch.unwrap_or_else(|| names.fresh());
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if branch.is_empty() || branch.len() > LONGEST_NAME || !branch.chars().all(fits) {
            return Err(refuse(format!(
                "`{branch}` is no branch's name; it has 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `.`"
            )));
        }
        self.make(height - depth, length.unwrap_or(depth.saturating_add(1)), &branch, "length").await?;
        let status = self.status();
        tracing::info!(
            height = status.node.height.get(), hash = %status.node.hash, %branch, depth, fork_height = height - depth,
            "reorganised"
        );
        names.0.insert(branch);
        Ok(())
    }

    /// Puts `count` blocks of a branch on the node's block at `fork`, in place of what is there. The caller holds
    /// `making`, so that the node's chain is the same before and after.
    async fn make(&self, fork: u32, count: u32, branch: &str, field: &str) -> Result<(), SimulateError> {
        let most = MOST_BLOCKS.min(Height::MAX.get() - fork);
        if count == 0 || count > most {
            return Err(refuse(format!("`{field}` is a number from 1 to {most}, not {count}")));
        }
        let end = self.world().node.end(fork);
        let supply = self.supply.clone();
        let name = branch.to_owned();
        let blocks = tokio::task::spawn_blocking(move || supply.extend(&end, &name, count))
            .await
            .map_err(SimulateError::Ended)?;
        let common = {
            let world = self.world();
            blocks
                .iter()
                .zip(fork + 1..)
                .filter(|(block, height)| world.node.get(*height).is_some_and(|old| old.hash == block.hash))
                .count() as u32
        };
        let shorter = count.min(self.world().node.height() - fork);
        if shorter > 0 && common == shorter {
            return Err(refuse(format!(
                "no reorganisation: the {common} blocks of branch `{branch}` above height {fork} are those that \
                 the node has; name another branch, or a greater depth"
            )));
        }
        self.turn(|world| world.switch(fork, blocks));
        Ok(())
    }
}

fn refuse(message: String) -> SimulateError {
    SimulateError::Command(message)
}

impl World {
    fn status(&self) -> Status {
        let tip = self.node.tip();
        let height = |height| Height::new(height).unwrap_or(Height::MAX);
        Status {
            node: NodeStatus {
                height: height(self.node.height()),
                hash: tip.hash,
                branch: tip.branch.to_string(),
            },
            index: IndexStatus {
                height: self.index.height().map(height),
                phase: self.index.phase(),
                fork: self.index.fork().map(height),
            },
            calls: self.calls.clone(),
            waiting: self.waiting,
            misbehaviours: self.faults.len(),
        }
    }

    fn switch(&mut self, fork: u32, blocks: Vec<Arc<Block>>) {
        // What the index was not waiting for before, it begins to wait for now.
        if self.index.pause(&self.node, &self.rules).is_none() {
            self.since = Instant::now();
        }
        self.node.switch(fork, blocks);
    }

    fn advance(&mut self) {
        let before = self.index.phase();
        self.index.advance(&self.node, &self.rules);
        self.since = Instant::now();
        let (now, height) = (self.index.phase(), self.index.height().unwrap_or(0));
        match (before, now) {
            (Phase::HalfRolledBack, Phase::RolledBack | Phase::Dropped) => {
                tracing::info!(height, "the index has rolled back")
            }
            (_, Phase::Wedged) => tracing::info!(height, "the index is wedged"),
            (Phase::Replaced | Phase::StateFirst | Phase::HashFirst, Phase::Following) => {
                tracing::debug!(height, "the index has caught up");
            }
            _ => {}
        }
    }

    /// Ends the phases that last no time at all.
    fn settle(&mut self) {
        while self.index.pause(&self.node, &self.rules) == Some(Duration::ZERO) {
            self.advance();
        }
    }

    fn step(&mut self, count: u32, until: Option<Phase>) -> Result<(), SimulateError> {
        let mut left = if until.is_some() { u32::MAX } else { count };
        while left > 0 && until != Some(self.index.phase()) {
            self.index.steppable(&self.node).map_err(SimulateError::Command)?;
            self.advance();
            self.settle();
            left -= 1;
        }
        Ok(())
    }
}

/// A call that is held, counted as long as it is.
struct Waiting<'a>(&'a Stage);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.world().waiting -= 1;
        self.0.counted.send_replace(());
    }
}

/// The chain that a supply begins with.
pub(super) fn beginning(supply: &Supply, height: u32) -> Chain {
    let mut chain = Chain::new(supply.genesis());
    let blocks = supply.extend(&chain.end(0), MAIN, height);
    chain.switch(0, blocks);
    chain
}
