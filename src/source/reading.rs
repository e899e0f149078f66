//! Questions to one server that count only if it stood on one chain all the while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::endpoint::Endpoint;
use super::rpc;
use super::server::Server;
use super::{SourceError, hash};
use crate::block::{BlockHash, BlockRef, Height, StateRoot};
use crate::view::{Answer, Question};

/// How many hashes are asked for again at once.
const AT_ONCE: usize = 64;

/// How much time may pass between two looks at the tip while views are asked for.
const GLANCE: Duration = Duration::from_millis(20);

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
        Reading { endpoint, tip, seen: Mutex::new(Seen { given, highest: tip, looked_at: Instant::now() }) }
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
    /// answer it means nothing unless the reading holds.
    pub async fn view(&self, question: &Question, height: Height) -> Result<Answer, SourceError> {
        self.watched(self.view_unwatched(question, height)).await
    }

    /// The same without a look at the tip: for a view that is asked for at the same time as another, whose look is as
    /// good for both. What is waited for longer is to be [`Reading::watched`].
    pub async fn view_unwatched(&self, question: &Question, height: Height) -> Result<Answer, SourceError> {
        rpc::view(&self.endpoint, question, height).await
    }

    /// Waits for an answer, and looks at the tip meanwhile if it has not been looked at of late.
    pub async fn watched<T>(
        &self,
        answer: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        // Beside it, so that a slow source is not twice as slow. While the server rolls back, looking waits.
        let (looked, answer) = tokio::join!(self.glance(), answer);
        looked.and(answer)
    }

    /// Notes now and then how high the tip has risen. A rise above the tip of the beginning, and a fall back to it
    /// or to above it, would leave no trace in the end, and yet views were wrong while it fell.
    async fn glance(&self) -> Result<(), SourceError> {
        let highest = {
            let mut seen = self.seen();
            if seen.looked_at.elapsed() < GLANCE {
                return Ok(());
            }
            seen.looked_at = Instant::now();
            seen.highest.height
        };
        if rpc::height(&self.endpoint).await? > highest
            && let Some(tip) = super::tip(&self.endpoint).await?
        {
            let mut seen = self.seen();
            if tip.height > seen.highest.height {
                seen.highest = tip;
            }
        }
        Ok(())
    }

    /// Looks again at the tip and at every hash that was given out.
    pub async fn close(&self) -> Result<Verdict, SourceError> {
        let height = rpc::height(&self.endpoint).await?;
        let (mut given, highest) = {
            let seen = self.seen();
            (seen.given.clone(), seen.highest)
        };
        if height < highest.height {
            return Ok(Verdict::Moved(format!("the tip fell from height {} to {height}", highest.height)));
        }
        given.insert(highest.height, highest.hash);
        let moved: Vec<Height> = stream::iter(given)
            .map(|(height, before)| async move {
                let now = hash(&self.endpoint, height).await?;
                Ok::<_, SourceError>((height, now == Some(before)))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|(height, same)| async move { Ok((!same).then_some(height)) })
            .try_collect()
            .await?;
        Ok(match moved.first() {
            None => Verdict::Held { tip: height },
            Some(height) => Verdict::Moved(format!("the hash of block {height} changed")),
        })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Nothing panics while it is held.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
