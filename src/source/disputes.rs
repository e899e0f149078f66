//! Who disagrees with whom: said once when that begins, once when it is over, and again only if it is about another
//! value or a lower block.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::block::{BlockRef, Height};

/// Disputes that are not over, by the server that was followed and the one that was asked.
#[derive(Default)]
pub(super) struct Disputes(Mutex<HashMap<(String, String), Dispute>>);

/// What the two said of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dispute {
    pub(super) block: BlockRef,
    pub(super) theirs: String,
    pub(super) ours: String,
}

impl Disputes {
    /// Both disagree. Where a state went wrong it is wrong at each later block, too, which is nothing new.
    pub(super) fn disagree(&self, server: String, url: String, dispute: Dispute) {
        let mut open = self.open();
        let known = open.get(&(server.clone(), url.clone()));
        if known.is_some_and(|known| *known == dispute || known.block.height < dispute.block.height) {
            return;
        }
        tracing::error!(
            height = dispute.block.height.get(),
            hash = %dispute.block.hash,
            reason = %format_args!("{server} says {}, and {url} says {}", dispute.ours, dispute.theirs),
            "servers disagree on a block"
        );
        open.insert((server, url), dispute);
    }

    /// Both say the same of this block. Of the blocks below a disputed one they always did.
    pub(super) fn agree(&self, server: String, url: String, height: Height) {
        let mut open = self.open();
        let pair = (server, url);
        if open.get(&pair).is_some_and(|dispute| height >= dispute.block.height) {
            open.remove(&pair);
            let (server, url) = pair;
            let reason = format!("{url} says the same as {server}");
            tracing::info!(height = height.get(), reason, "servers agree again");
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<(String, String), Dispute>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
