//! Questions to one server that count only if it stood on one chain all the while.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::endpoint::Endpoint;
use super::server::Server;
use super::{SourceError, careful, hash, rpc};
use crate::block::{BlockHash, BlockRef, Height, StateRoot};
use crate::view::{Answer, Question};

/// How many hashes are asked for again at once.
const AT_ONCE: usize = 64;

/// How much time may pass between two looks at the tip's height while views are asked for.
const GLANCE: Duration = Duration::from_millis(20);

/// The same for its hash. A branch that is left for another stays for longer, however soon it comes back.
const COMPARISON: Duration = Duration::from_millis(100);

/// A reading that has begun. Shared by whoever evaluates inside it.
pub struct Reading {
    endpoint: Endpoint,
    tip: BlockRef,
    seen: Mutex<Seen>,
}

struct Seen {
    /// Every hash that was given out, to be asked for again.
    given: BTreeMap<Height, BlockHash>,
    /// The highest tip so far.
    highest: BlockRef,
    looked_at: Instant,
    compared_at: Instant,
    /// How the server has moved, if a look has told.
    moved: Option<String>,
}

/// Whether what was answered inside a reading counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The tip's height now is the highest since the reading began.
    Held { tip: Height },
    /// The server changed meanwhile; in words, how.
    Moved(String),
}

impl Reading {
    pub(super) fn new(endpoint: Endpoint, tip: BlockRef) -> Reading {
        let given = BTreeMap::from([(tip.height, tip.hash)]);
        let now = Instant::now();
        let seen = Seen { given, highest: tip, looked_at: now, compared_at: now, moved: None };
        Reading { endpoint, tip, seen: Mutex::new(seen) }
    }

    /// The tip when the reading began.
    pub fn tip(&self) -> BlockRef {
        self.tip
    }

    /// The hash at a height up to the tip's; `None` when the server has none, which means that it has moved.
    pub async fn hash(&self, height: Height) -> Result<Option<BlockHash>, SourceError> {
        if let Some(hash) = self.seen().given.get(&height) {
            return Ok(Some(*hash));
        }
        if height > self.tip.height {
            return Ok(None);
        }
        let found = hash(&self.endpoint, height).await?;
        if let Some(hash) = found {
            self.seen().given.insert(height, hash);
        }
        Ok(found)
    }

    /// This server cannot be followed for now: others are asked before it for a while.
    pub fn distrust(&self) {
        self.endpoint.distrust();
    }

    /// The server that is asked.
    pub fn server(&self) -> Server {
        Server::new(&self.endpoint)
    }

    /// The state root at a height up to the tip's; `None` when the server keeps none. Like a view's answer it means
    /// nothing unless the reading holds.
    pub async fn state_root(&self, height: Height) -> Result<Option<StateRoot>, SourceError> {
        if height > self.tip.height {
            // It would be the tip's.
            return Ok(None);
        }
        let root = rpc::state_root(&self.endpoint, height);
        match height.previous().filter(|_| height == self.tip.height) {
            // A root is written by itself: the tip's may not be there yet, and the one below it is answered.
            Some(below) => {
                let (root, below) = tokio::try_join!(root, rpc::state_root(&self.endpoint, below))?;
                Ok(root.filter(|_| root != below))
            }
            None => root.await,
        }
    }

    /// What the server still holds above its tip: the trace of a reorganisation that it could not finish.
    pub async fn hash_above_tip(&self, height: Height) -> Result<Option<BlockHash>, SourceError> {
        hash(&self.endpoint, height).await
    }

    /// A view's answer at a height up to the tip's. The inner error is what the view itself said; like an empty
    /// answer it means nothing unless the reading holds. The tip is looked at as long as this takes, unless another view's
    /// look is as good.
    pub async fn view(&self, question: &Question, height: Height) -> Result<Answer, SourceError> {
        let mut answer = pin!(rpc::view(&self.endpoint, question, height));
        loop {
            let due = self.seen().looked_at + GLANCE;
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = tokio::time::sleep_until(due.into()) => {}
            }
            // Beside it, so that a slow source is not twice as slow. While the server rolls back, looking waits.
            let mut look = pin!(self.glance());
            tokio::select! {
                biased;
                looked = &mut look => looked?,
                answer = &mut answer => return look.await.and(answer),
            }
        }
    }

    /// Notes how the tip moves. A rise above the tip of the beginning, and a fall back to it or to above it, would
    /// leave no trace in the end, nor would a fall from which it has risen on the same blocks; and yet views were wrong
    /// meanwhile. A rise and a fall between two looks stay unseen, which is why they are so near one another.
    async fn glance(&self) -> Result<(), SourceError> {
        let now = Instant::now();
        let (highest, compares) = {
            let mut seen = self.seen();
            if now < seen.looked_at + GLANCE {
                return Ok(());
            }
            seen.looked_at = now;
            let compares = now >= seen.compared_at + COMPARISON;
            if compares {
                seen.compared_at = now;
            }
            // Others may look at the same time: what has fallen lies below what was seen before the question.
            (seen.highest, compares)
        };
        let compared = async {
            match compares {
                true => hash(&self.endpoint, highest.height).await,
                false => Ok(Some(highest.hash)),
            }
        };
        let (height, compared) = tokio::try_join!(rpc::height(&self.endpoint), compared)?;
        if height < highest.height {
            self.moved(self.fell(highest, height));
        } else if compared != Some(highest.hash) {
            self.moved(self.changed(highest, compared));
        } else if height > highest.height
            && let Some(tip) = super::tip(&self.endpoint).await?
        {
            if tip.height < highest.height {
                self.moved(self.fell(highest, tip.height));
                return Ok(());
            }
            let mut seen = self.seen();
            if tip.height > seen.highest.height {
                seen.highest = tip;
            }
        }
        Ok(())
    }

    /// Looks again at the tip and at every hash that was given out, now that the last view has come.
    pub async fn close(&self) -> Result<Verdict, SourceError> {
        let (given, highest, moved) = {
            let seen = self.seen();
            (seen.given.clone(), seen.highest, seen.moved.clone())
        };
        if let Some(how) = moved {
            return Ok(Verdict::Moved(how));
        }
        let height = match self.endpoint.doubt().is_suspected() {
            true => careful::lowest(&self.endpoint, highest).await?,
            false => rpc::height(&self.endpoint).await?,
        };
        if height < highest.height {
            return Ok(Verdict::Moved(self.fell(highest, height)));
        }
        // Of one server the second look tells nothing more; of several, another one may answer it.
        let (again, differing) =
            tokio::try_join!(rpc::height(&self.endpoint), self.differing(given, highest))?;
        if again < highest.height {
            return Ok(Verdict::Moved(self.fell(highest, again)));
        }
        Ok(match differing.first() {
            None => Verdict::Held { tip: height },
            Some((before, now)) => Verdict::Moved(self.changed(*before, *now)),
        })
    }

    /// The blocks that were given out and are others now.
    async fn differing(
        &self,
        mut given: BTreeMap<Height, BlockHash>,
        highest: BlockRef,
    ) -> Result<Vec<(BlockRef, Option<BlockHash>)>, SourceError> {
        given.insert(highest.height, highest.hash);
        stream::iter(given)
            .map(|(height, before)| async move {
                let now = hash(&self.endpoint, height).await?;
                Ok::<_, SourceError>((BlockRef { height, hash: before }, now))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter(|(before, now)| std::future::ready(*now != Some(before.hash)))
            .try_collect()
            .await
    }

    fn moved(&self, how: String) {
        self.seen().moved.get_or_insert(how);
    }

    /// In words.
    fn fell(&self, from: BlockRef, to: Height) -> String {
        self.endpoint.doubt().fell(from, to);
        format!("the tip fell from height {} to {to}", from.height)
    }

    /// In words. A server keeps the hashes above its tip: one that has none there has never had that block.
    fn changed(&self, before: BlockRef, now: Option<BlockHash>) -> String {
        if now.is_none() {
            self.endpoint.doubt().fell(before, before.height.saturating_sub(1));
        }
        format!("the hash of block {} changed", before.height)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Nothing panics while it is held.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
