//! Whether several servers seem to answer at one address.
//!
//! When one server's tip falls it has left its branch, and comes back with other blocks. A tip that falls and comes back
//! with the same blocks, again and again, is that of several servers at different heights, of which something in between
//! asks now one and now another. What one of them answers then says nothing of the next.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::block::{BlockHash, BlockRef, Height};

/// A server that was restarted may have lost its last blocks, and then has them again: that is no jump in a row.
const JUMPS_BEFORE_SAID: u32 = 3;

/// For how long an address is doubted after a jump. Jumps come with new blocks, and those may be far apart.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);

/// How many new tips are confirmed at first, until one look at a tip is taken for enough.
const TIPS_BEFORE_TRUST: u32 = 5;

/// What the tip of an address has done so far.
#[derive(Default)]
pub(super) struct Doubt(Mutex<State>);

#[derive(Default)]
struct State {
    /// The tip that was seen last.
    last: Option<BlockRef>,
    fall: Option<Fall>,
    /// In a row, no reorganisation among them.
    jumps: u32,
    jumped: Option<(Instant, Fall)>,
    confirmed: Option<BlockRef>,
    confirmed_tips: u32,
    is_said: bool,
}

/// A fall of which it is not known yet whether the same block comes back.
#[derive(Clone, Copy)]
struct Fall {
    from: BlockRef,
    to: Height,
}

impl Doubt {
    /// The tip that was seen last; to be asked for before a look, since others look at the same time.
    pub(super) fn last(&self) -> Option<BlockRef> {
        self.state().last
    }

    /// A look that began when `before` was the last tip has found this one. Returns the block that it fell from before,
    /// once the tip is that high again: its hash now tells what the fall was.
    pub(super) fn saw(&self, before: Option<BlockRef>, tip: BlockRef) -> Option<BlockRef> {
        if let Some(before) = before.filter(|before| tip.height < before.height) {
            self.fell(before, tip.height);
            self.state().last = Some(tip);
            return None;
        }
        let mut state = self.state();
        if state.last.is_none_or(|last| tip.height >= last.height) {
            state.last = Some(tip);
        }
        state.fall.map(|fall| fall.from).filter(|from| tip.height >= from.height)
    }

    /// The tip was seen below a block at which it had stood.
    pub(super) fn fell(&self, from: BlockRef, to: Height) {
        let mut state = self.state();
        let before = state.fall.unwrap_or(Fall { from, to });
        let from = if before.from.height > from.height { before.from } else { from };
        state.fall = Some(Fall { from, to: to.min(before.to) });
    }

    /// The tip is as high again as `from`, where it fell, and this is the hash there now.
    pub(super) fn came_back(&self, from: BlockRef, now: Option<BlockHash>) {
        let mut state = self.state();
        // Another look may have told already. Without a hash there, it has fallen again.
        let Some(fall) = state.fall.filter(|fall| fall.from == from && now.is_some()) else { return };
        state.fall = None;
        if now != Some(from.hash) {
            state.jumps = 0;
            return;
        }
        state.jumps += 1;
        state.jumped = Some((Instant::now(), fall));
    }

    /// Whether the same blocks have come and gone of late.
    pub(super) fn is_suspected(&self) -> bool {
        self.state().is_suspected()
    }

    /// Whether one look at this tip is not enough.
    pub(super) fn needs_confirming(&self, tip: BlockRef) -> bool {
        let state = self.state();
        let is_doubted = state.is_suspected() || state.confirmed_tips < TIPS_BEFORE_TRUST;
        is_doubted && state.confirmed != Some(tip)
    }

    pub(super) fn confirm(&self, tip: BlockRef) {
        let mut state = self.state();
        if state.confirmed.is_none_or(|confirmed| tip.height > confirmed.height) {
            state.confirmed_tips = state.confirmed_tips.saturating_add(1);
        }
        state.confirmed = Some(tip);
    }

    /// What to say of the address, if anything is to be said. Logs when that begins and when it is over.
    pub(super) fn notice(&self, url: &str) -> Option<String> {
        let mut state = self.state();
        let said = state.jumped.filter(|_| state.is_suspected() && state.jumps >= JUMPS_BEFORE_SAID);
        let Some((_, Fall { from, to })) = said else {
            if std::mem::take(&mut state.is_said) {
                tracing::info!(server = url, "the tip does not jump any more");
            }
            return None;
        };
        let notice = format!(
            "the source's tip jumps between heights {} and {to} though no block changed: several servers seem to be \
             behind one address, {url}; name each in `source.urls` instead, see docs/trust.md",
            from.height
        );
        if !std::mem::replace(&mut state.is_said, true) {
            tracing::warn!(server = url, reason = notice, "the tip cannot be trusted");
        }
        Some(notice)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_suspected(&self) -> bool {
        self.jumped.is_some_and(|(at, _)| at.elapsed() < REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: u32, branch: u8) -> BlockRef {
        BlockRef { height: Height::new(height).unwrap(), hash: BlockHash::new([branch; 32]) }
    }

    /// A look that finds this tip, and what the server has at other heights if it is asked.
    fn look(doubt: &Doubt, height: u32, branch: u8) {
        if let Some(from) = doubt.saw(doubt.last(), block(height, branch)) {
            doubt.came_back(from, Some(BlockHash::new([branch; 32])));
        }
    }

    #[test]
    fn a_tip_that_comes_back_with_the_same_blocks_again_and_again_is_said() {
        let doubt = Doubt::default();
        for _ in 0..3 {
            assert_eq!(doubt.notice("u"), None);
            for height in [10, 8, 9, 11] {
                look(&doubt, height, 1);
            }
        }
        let notice = doubt.notice("u").unwrap();
        assert!(
            notice.contains("between heights 11 and 8") && notice.contains("one address, u;"),
            "{notice}"
        );
        assert!(doubt.is_suspected());
    }

    #[test]
    fn reorganisations_are_no_jumps() {
        let doubt = Doubt::default();
        for branch in 1..20 {
            look(&doubt, 10, branch);
            look(&doubt, 8, branch);
            look(&doubt, 9, branch + 1);
        }
        assert!(doubt.notice("u").is_none() && !doubt.is_suspected());
    }

    #[test]
    fn a_look_that_began_before_another_tells_of_no_fall() {
        let doubt = Doubt::default();
        look(&doubt, 10, 1);
        let before = doubt.last();
        look(&doubt, 11, 1);
        assert_eq!(doubt.saw(before, block(10, 1)), None);
        assert_eq!(doubt.last(), Some(block(11, 1)));
        look(&doubt, 11, 1);
        assert!(!doubt.is_suspected());
    }

    #[test]
    fn the_first_tips_are_confirmed_each_once() {
        let doubt = Doubt::default();
        for height in 0..5 {
            assert!(doubt.needs_confirming(block(height, 1)));
            doubt.confirm(block(height, 1));
            assert!(!doubt.needs_confirming(block(height, 1)));
        }
        assert!(!doubt.needs_confirming(block(5, 1)));
        look(&doubt, 5, 1);
        look(&doubt, 4, 1);
        look(&doubt, 5, 1);
        assert!(doubt.needs_confirming(block(5, 1)));
    }
}
