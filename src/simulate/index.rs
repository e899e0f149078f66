//! What the stand-in has indexed and answers from, and the phases that it goes through when the node's chain
//! changes: those that a real metashrew server was seen to go through.
//!
//! A machine without a clock of its own: [`Index::pause`] says how long the present phase lasts and
//! [`Index::advance`] goes to the next, so that a test can hold it wherever the answers mislead.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bytes::Bytes;

use super::block::Block;
use super::chain::Chain;
use super::control::{Order, Pace, Phase, RuleChange};
use crate::block::BlockHash;

/// A new branch whose tip lies this many blocks above the old one wedges the server.
const TOO_FAR_ABOVE: u32 = 8;

/// How long a server takes for what it does; by default as a real one was seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the node's switch to another branch until the server notices.
    pub notice: Duration,
    /// A rollback, during which height and hash calls wait, until views show it half done.
    pub rollback: Duration,
    /// From there to the rollback's end.
    pub half_done: Duration,
    /// How long views go on as if the rollback were half done when height and hash are answered again. Nothing on
    /// a real server, whose lock covers the whole rollback; no client could tell this from an empty state.
    pub view_lag: Duration,
    /// A block of the new branch. (`index_delay`, if that is longer.)
    pub block: Duration,
    /// From a block's state to its hash and height, or the other way round.
    pub between: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            notice: Duration::from_millis(500),
            rollback: Duration::from_millis(30),
            half_done: Duration::from_millis(10),
            view_lag: Duration::ZERO,
            block: Duration::from_millis(110),
            between: Duration::from_millis(15),
        }
    }
}

/// How the index behaves; commands change some of it.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) pace: Pace,
    pub(super) order: Order,
    pub(super) timing: Timing,
    pub(super) index_delay: Duration,
    pub(super) max_reorg_depth: u32,
    pub(super) no_hash: Vec<u32>,
    pub(super) first_hash: u32,
    pub(super) state_roots: bool,
    pub(super) late_root: bool,
    pub(super) other_program: bool,
    pub(super) broken_rollback: bool,
}

impl Rules {
    pub(super) fn change(&mut self, change: &RuleChange) {
        self.pace = change.pace.unwrap_or(self.pace);
        self.order = change.order.unwrap_or(self.order);
        self.index_delay = change.index_delay_ms.map_or(self.index_delay, Duration::from_millis);
        self.timing.view_lag = change.view_lag_ms.map_or(self.timing.view_lag, Duration::from_millis);
        self.max_reorg_depth = change.max_reorg_depth.unwrap_or(self.max_reorg_depth);
        if let Some(heights) = &change.no_hash {
            self.no_hash.clone_from(heights);
        }
        self.first_hash = change.first_hash.unwrap_or(self.first_hash);
        self.state_roots = change.state_roots.unwrap_or(self.state_roots);
        self.late_root = change.late_root.unwrap_or(self.late_root);
        self.other_program = change.other_program.unwrap_or(self.other_program);
        self.broken_rollback = change.broken_rollback.unwrap_or(self.broken_rollback);
    }

    /// Whether the server tells the hash of a block that it has.
    pub(super) fn tells_hash(&self, height: u32) -> bool {
        height >= self.first_hash && !self.no_hash.contains(&height)
    }
}

/// What a view answered.
pub(super) enum ViewAnswer {
    Bytes(Bytes),
    Unknown,
    Failed,
}

/// A reorganisation that the index is going through.
#[derive(Clone, Copy)]
struct Fall {
    /// Where the height is to fall to next.
    to: u32,
    /// Where it is to fall to in the end.
    fork: u32,
    wedges: bool,
}

pub(super) struct Index {
    phase: Phase,
    /// The highest block whose hash and height are there; `None` while there is nothing.
    height: Option<u32>,
    /// By height; those of a branch that was left remain until they are overwritten.
    hashes: Vec<BlockHash>,
    /// By height, the blocks whose state is there.
    state: Vec<Arc<Block>>,
    /// The view `blocktracker`: a byte for each block of `state`.
    tracker: Vec<u8>,
    /// The block of which a half is there.
    pending: Option<Arc<Block>>,
    fall: Option<Fall>,
    /// From a rollback until the new branch is there.
    replaying: bool,
    /// Views answered while a rollback is half done: they are empty and fail in turn.
    wrong_answers: u64,
    /// What is held above this height is wrong, since a rollback to it was.
    wrong_above: Option<u32>,
}

impl Index {
    pub(super) fn new() -> Index {
        Index {
            phase: Phase::Following,
            height: None,
            hashes: Vec::new(),
            state: Vec::new(),
            tracker: Vec::new(),
            pending: None,
            fall: None,
            replaying: false,
            wrong_answers: 0,
            wrong_above: None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn height(&self) -> Option<u32> {
        self.height
    }

    pub(super) fn hash(&self, height: u32) -> Option<BlockHash> {
        self.hashes.get(height as usize).copied()
    }

    /// Where a reorganisation that is under way forked.
    pub(super) fn fork(&self) -> Option<u32> {
        self.fall.map(|fall| fall.fork)
    }

    /// Whether calls for heights and hashes wait.
    pub(super) fn locked(&self) -> bool {
        matches!(self.phase, Phase::RollingBack | Phase::HalfRolledBack)
    }

    /// A view's answer at a height, or at the latest block.
    pub(super) fn view(&mut self, name: &str, pinned: Option<u32>, rules: &Rules) -> ViewAnswer {
        if !matches!(name, "getblock" | "blocktracker") {
            return ViewAnswer::Unknown;
        }
        if matches!(self.phase, Phase::HalfRolledBack | Phase::Dropped) {
            self.wrong_answers += 1;
            let fails = self.wrong_answers.is_multiple_of(2);
            return if fails { ViewAnswer::Failed } else { ViewAnswer::Bytes(Bytes::new()) };
        }
        let height = pinned.map_or(self.state.len().saturating_sub(1), |height| height as usize);
        ViewAnswer::Bytes(match name {
            "getblock" => self.state.get(height).map(|block| block.bytes.clone()).unwrap_or_default(),
            _ => self.tracker_up_to(height, rules),
        })
    }

    fn tracker_up_to(&self, height: usize, rules: &Rules) -> Bytes {
        let right = &self.tracker[..self.tracker.len().min(height.saturating_add(1))];
        if !self.is_wrong(u32::MAX, rules) {
            return Bytes::copy_from_slice(right);
        }
        let bytes = right.iter().zip(0..).map(|(byte, height)| match self.is_wrong(height, rules) {
            true => !byte,
            false => *byte,
        });
        bytes.collect()
    }

    fn is_wrong(&self, height: u32, rules: &Rules) -> bool {
        rules.other_program || self.wrong_above.is_some_and(|right| height > right)
    }

    /// The hash of the block whose state a height has: the tip's above the tip.
    fn state_at(&self, height: Option<u32>) -> Option<BlockHash> {
        let last = self.state.len().checked_sub(1)?;
        let height = height.map_or(last, |height| last.min(height as usize));
        self.state.get(height).map(|block| block.hash)
    }

    /// A digest of the state at a height, the tip's above the tip; zeros for an empty one.
    pub(super) fn state_root(&self, height: Option<u32>, rules: &Rules) -> [u8; 32] {
        let Some(tip) = (self.state.len() as u32).checked_sub(1) else { return [0; 32] };
        let highest = if rules.late_root { tip.saturating_sub(1) } else { tip };
        let height = height.unwrap_or(u32::MAX).min(highest);
        let Some(hash) = self.state_at(Some(height)) else { return [0; 32] };
        let kind: &[u8] = if self.is_wrong(height, rules) { b"wrong state" } else { b"state" };
        sha256::Hash::hash(&[kind, hash.as_bytes()].concat()).to_byte_array()
    }

    /// How long the present phase lasts; `None` until something else happens: a command, a change of the node's
    /// chain.
    pub(super) fn pause(&self, node: &Chain, rules: &Rules) -> Option<Duration> {
        if self.phase == Phase::Wedged {
            return None;
        }
        if self.phase == Phase::Following {
            return match (self.agrees(node), self.behind(node)) {
                (false, _) => Some(Duration::ZERO),
                (true, true) => Some(rules.index_delay.saturating_sub(self.between(rules))),
                (true, false) => None,
            };
        }
        if self.phase == Phase::Unnoticed && self.agrees(node) {
            return Some(Duration::ZERO);
        }
        if self.phase == Phase::Unnoticed && self.longer_than(node) {
            return None;
        }
        if self.reorganising() && rules.pace == Pace::Stepped {
            return None;
        }
        let timing = &rules.timing;
        Some(match self.phase {
            Phase::Following | Phase::Wedged => Duration::ZERO,
            Phase::Unnoticed => timing.notice,
            Phase::RollingBack => timing.rollback,
            Phase::HalfRolledBack => timing.half_done,
            Phase::Dropped => timing.view_lag,
            // A rollback beyond the allowed depth goes on after a while.
            Phase::RolledBack if self.fall.is_some_and(|fall| fall.to > fall.fork) => timing.block,
            Phase::RolledBack => timing.half_done,
            Phase::StateFirst | Phase::HashFirst => self.between(rules),
            Phase::Replaced => timing.block.max(rules.index_delay).saturating_sub(timing.between),
        })
    }

    /// Goes on to the next phase.
    pub(super) fn advance(&mut self, node: &Chain, rules: &Rules) {
        self.phase = match self.phase {
            Phase::Following | Phase::Replaced => self.follow(node, rules),
            Phase::Unnoticed if self.agrees(node) => Phase::Following,
            Phase::Unnoticed if self.longer_than(node) => Phase::Unnoticed,
            Phase::Unnoticed => self.notice(node, rules),
            Phase::RollingBack => Phase::HalfRolledBack,
            Phase::HalfRolledBack => self.drop_to_fork(rules),
            Phase::Dropped => Phase::RolledBack,
            Phase::RolledBack => self.after_rollback(node, rules),
            Phase::StateFirst | Phase::HashFirst => self.complete(node, rules),
            Phase::Wedged => Phase::Wedged,
        };
    }

    /// Whether a step can go on to another phase; if not, why not.
    pub(super) fn steppable(&self, node: &Chain) -> Result<(), String> {
        match self.phase {
            Phase::Following => Err("no reorganisation is under way".into()),
            Phase::Wedged => Err("the index is wedged; `restart` ends that".into()),
            Phase::Unnoticed if !self.agrees(node) && self.longer_than(node) => Err(format!(
                "the new branch stays unnoticed until it is as long as the old one; `mine` up to height {}",
                self.height.unwrap_or(0)
            )),
            _ => Ok(()),
        }
    }

    /// A wedged server is started again: it goes on from where it stands.
    pub(super) fn restart(&mut self) {
        if self.phase == Phase::Wedged {
            self.phase = Phase::Following;
            self.fall = None;
            self.replaying = false;
        }
    }

    fn reorganising(&self) -> bool {
        self.replaying || !matches!(self.phase, Phase::Following | Phase::StateFirst | Phase::HashFirst)
    }

    fn between(&self, rules: &Rules) -> Duration {
        if self.replaying { rules.timing.between } else { rules.timing.between.min(rules.index_delay) }
    }

    /// Whether all that is indexed belongs to the node's chain.
    fn agrees(&self, node: &Chain) -> bool {
        match (self.state.last(), self.state.len().checked_sub(1)) {
            (Some(tip), Some(height)) => node.get(height as u32).is_some_and(|block| block.hash == tip.hash),
            _ => true,
        }
    }

    fn behind(&self, node: &Chain) -> bool {
        self.state.len() <= node.height() as usize
    }

    fn longer_than(&self, node: &Chain) -> bool {
        self.state.len() > node.height() as usize + 1
    }

    fn follow(&mut self, node: &Chain, rules: &Rules) -> Phase {
        if !self.agrees(node) {
            return Phase::Unnoticed;
        }
        let Some(block) = node.get(self.state.len() as u32).cloned() else { return self.caught_up() };
        self.pending = Some(block.clone());
        match rules.order {
            Order::StateFirst => {
                self.add_state(block);
                Phase::StateFirst
            }
            Order::HashFirst => {
                self.add_hash(&block, self.state.len());
                Phase::HashFirst
            }
        }
    }

    fn complete(&mut self, node: &Chain, rules: &Rules) -> Phase {
        if let Some(block) = self.pending.take() {
            match self.phase {
                Phase::StateFirst => self.add_hash(&block, self.state.len() - 1),
                _ => self.add_state(block),
            }
        }
        if !self.agrees(node) {
            return self.follow(node, rules);
        }
        if self.behind(node) && self.replaying { Phase::Replaced } else { self.caught_up() }
    }

    fn caught_up(&mut self) -> Phase {
        self.replaying = false;
        self.fall = None;
        Phase::Following
    }

    fn add_state(&mut self, block: Arc<Block>) {
        // Of the hash's bytes the last one shown, which is the first one serialised.
        self.tracker.push(block.hash.as_bytes()[31]);
        self.state.push(block);
    }

    fn add_hash(&mut self, block: &Block, height: usize) {
        if height < self.hashes.len() {
            self.hashes[height] = block.hash;
        } else {
            self.hashes.push(block.hash);
        }
        self.height = Some(height as u32);
    }

    fn notice(&mut self, node: &Chain, rules: &Rules) -> Phase {
        let tip = self.state.len() as u32 - 1;
        let same = |height: &u32| node.get(*height).map(|block| block.hash) == self.state_at(Some(*height));
        // Both chains begin with the same genesis block.
        let fork = (0..=tip).rev().find(same).unwrap_or(0);
        let too_deep = tip - fork > rules.max_reorg_depth;
        self.fall = Some(Fall {
            to: fork.max(tip.saturating_sub(rules.max_reorg_depth)),
            fork,
            wedges: too_deep || node.height() - tip >= TOO_FAR_ABOVE,
        });
        Phase::RollingBack
    }

    fn drop_to_fork(&mut self, rules: &Rules) -> Phase {
        if let Some(fall) = self.fall {
            if rules.broken_rollback {
                self.wrong_above = Some(self.wrong_above.map_or(fall.to, |height| height.min(fall.to)));
            }
            self.state.truncate(fall.to as usize + 1);
            self.tracker.truncate(fall.to as usize + 1);
            self.height = Some(fall.to);
        }
        if rules.timing.view_lag.is_zero() { Phase::RolledBack } else { Phase::Dropped }
    }

    fn after_rollback(&mut self, node: &Chain, rules: &Rules) -> Phase {
        match &mut self.fall {
            Some(fall) if fall.to > fall.fork => {
                fall.to = fall.fork.max(fall.to.saturating_sub(rules.max_reorg_depth.max(1)));
                Phase::RollingBack
            }
            Some(Fall { wedges: true, .. }) => Phase::Wedged,
            _ => {
                self.replaying = true;
                self.follow(node, rules)
            }
        }
    }
}
