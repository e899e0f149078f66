//! Looks at the tip while views are waited for: a server may move and come back between the beginning and the end of a
//! reading, and only what was seen meanwhile tells.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::{SourceError, hash, rpc, tip};
use crate::block::{BlockHash, BlockRef, Height};

/// How much time may pass between two looks at the tip's height while views are waited for.
const GLANCE: Duration = Duration::from_millis(20);

/// The same for its hash. A branch that is left for another stays for longer, however soon it comes back.
const COMPARISON: Duration = Duration::from_millis(100);

/// How soon it is asked again whether a look has ended that takes longer than it may.
const RETRY: Duration = Duration::from_millis(5);

/// How high the tip has been. Its height is answered before its hash, and it may fall in between.
#[derive(Clone, Copy)]
pub(super) struct Highest {
    pub(super) block: BlockRef,
    pub(super) height: Height,
}

/// What was seen of a server's tip since a reading began. Looking is beside the views: no view waits for a look.
pub(super) struct Watch {
    inner: Arc<Inner>,
    /// Looks end with whoever wants to know.
    given_up: CancellationToken,
}

struct Inner {
    endpoint: Endpoint,
    seen: Mutex<Seen>,
    /// A look has ended.
    ended: Notify,
}

struct Seen {
    highest: Highest,
    looked_at: Instant,
    compared_at: Instant,
    /// One look at a time, so that a slow server is not asked for more and more.
    is_looking: bool,
    /// How the server has moved, or why a look failed, if one has told.
    told: Option<Result<String, SourceError>>,
}

impl Watch {
    pub(super) fn new(endpoint: Endpoint, tip: BlockRef) -> Watch {
        let now = Instant::now();
        let seen = Seen {
            highest: Highest { block: tip, height: tip.height },
            looked_at: now,
            compared_at: now,
            is_looking: false,
            told: None,
        };
        let inner = Inner { endpoint, seen: Mutex::new(seen), ended: Notify::new() };
        Watch { inner: Arc::new(inner), given_up: CancellationToken::new() }
    }

    /// Waits for an answer, and looks at the tip as long as that takes.
    pub(super) async fn over<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = tokio::time::sleep_until(due.into()) => self.look(),
            }
        }
    }

    /// Once no look is under way: how high the tip has been, or how the server has moved.
    pub(super) async fn finish(&self) -> Result<Result<Highest, String>, SourceError> {
        loop {
            let ended = self.inner.ended.notified();
            if !self.seen().is_looking {
                break;
            }
            ended.await;
        }
        let mut seen = self.seen();
        match seen.told.take() {
            None => Ok(Ok(seen.highest)),
            Some(Ok(how)) => {
                seen.told = Some(Ok(how.clone()));
                Ok(Err(how))
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// In words, if this height is below the highest.
    pub(super) fn fell(&self, from: Highest, to: Height) -> Option<String> {
        self.inner.fell(from, to)
    }

    /// In words.
    pub(super) fn changed(&self, before: BlockRef, now: Option<BlockHash>) -> String {
        self.inner.changed(before, now)
    }

    fn due(&self) -> Instant {
        let seen = self.seen();
        let due = seen.looked_at + GLANCE;
        if seen.is_looking { due.max(Instant::now() + RETRY) } else { due }
    }

    /// Begins a look, unless another one has begun meanwhile.
    fn look(&self) {
        let now = Instant::now();
        let mut seen = self.seen();
        if now < seen.looked_at + GLANCE || seen.is_looking {
            return;
        }
        (seen.looked_at, seen.is_looking) = (now, true);
        let compares = now >= seen.compared_at + COMPARISON;
        if compares {
            seen.compared_at = now;
        }
        let (inner, highest) = (Arc::clone(&self.inner), seen.highest);
        let given_up = self.given_up.clone();
        tokio::spawn(async move {
            let look = given_up.run_until_cancelled_owned(inner.glance(highest, compares)).await;
            {
                let mut seen = inner.seen();
                seen.is_looking = false;
                if let Some(Err(error)) = look {
                    seen.told.get_or_insert(Err(error));
                }
            }
            inner.ended.notify_waiters();
        });
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.inner.seen()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.given_up.cancel();
    }
}

impl Inner {
    /// Notes how the tip moves. A rise above the tip of the beginning, and a fall back to it or to above it, would
    /// leave no trace in the end, nor would a fall from which it has risen on the same blocks; and yet views were wrong
    /// meanwhile. A rise and a fall between two looks stay unseen, which is why they are so near one another.
    async fn glance(&self, highest: Highest, compares: bool) -> Result<(), SourceError> {
        let block = highest.block;
        let compared = async {
            match compares {
                true => hash(&self.endpoint, block.height).await,
                false => Ok(Some(block.hash)),
            }
        };
        let (height, compared) = tokio::try_join!(rpc::height(&self.endpoint), compared)?;
        if let Some(how) = self.fell(highest, height) {
            self.moved(how);
        } else if compared != Some(block.hash) {
            self.moved(self.changed(block, compared));
        } else if height > highest.height {
            self.seen().highest.height = height;
            if let Some(tip) = tip(&self.endpoint).await? {
                match self.fell(Highest { block, height: block.height }, tip.height) {
                    Some(how) => self.moved(how),
                    None => self.seen().highest.block = tip,
                }
            }
        }
        Ok(())
    }

    fn moved(&self, how: String) {
        self.seen().told.get_or_insert(Ok(how));
    }

    fn fell(&self, from: Highest, to: Height) -> Option<String> {
        if to < from.block.height {
            self.endpoint.doubt().fell(from.block, to);
        }
        (to < from.height).then(|| format!("the tip fell from height {} to {to}", from.height))
    }

    /// A server keeps the hashes above its tip: one that has none there has never had that block.
    fn changed(&self, before: BlockRef, now: Option<BlockHash>) -> String {
        if now.is_none() {
            self.endpoint.doubt().fell(before, before.height.saturating_sub(1));
        }
        format!("the hash of block {} changed", before.height)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics while it is held.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
