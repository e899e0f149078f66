//! Questions to one server that count only if it stood on one chain all the while.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::endpoint::Endpoint;
use super::server::Server;
use super::watch::Watch;
use super::{SourceError, careful, hash, rpc};
use crate::block::{BlockHash, BlockRef, Height, StateRoot};
use crate::view::{Answer, Question};

/// How many hashes are asked for again at once, if `source.max_connections` allows it.
const AT_ONCE: usize = 128;

/// A reading that has begun. Shared by whoever evaluates inside it.
pub struct Reading {
    endpoint: Endpoint,
    tip: BlockRef,
    /// Every hash that was given out, to be asked for again.
    given: Mutex<BTreeMap<Height, BlockHash>>,
    watch: Watch,
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
        let given = Mutex::new(BTreeMap::from([(tip.height, tip.hash)]));
        let watch = Watch::new(endpoint.clone(), tip);
        Reading { endpoint, tip, given, watch }
    }

    /// The tip when the reading began.
    pub fn tip(&self) -> BlockRef {
        self.tip
    }

    /// The hash at a height up to the tip's; `None` when the server has none, which means that it has moved.
    pub async fn hash(&self, height: Height) -> Result<Option<BlockHash>, SourceError> {
        if let Some(hash) = self.given().get(&height) {
            return Ok(Some(*hash));
        }
        if height > self.tip.height {
            return Ok(None);
        }
        let found = hash(&self.endpoint, height).await?;
        if let Some(hash) = found {
            self.given().insert(height, hash);
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
        self.watch.over(rpc::view(&self.endpoint, question, height)).await
    }

    /// Looks again at the tip and at every hash that was given out, now that the last view has come.
    pub async fn close(&self) -> Result<Verdict, SourceError> {
        let highest = match self.watch.finish().await? {
            Ok(highest) => highest,
            Err(how) => return Ok(Verdict::Moved(how)),
        };
        let given = self.given().clone();
        let height = match self.endpoint.doubt().is_suspected() {
            true => careful::lowest(&self.endpoint, highest.block).await?,
            false => rpc::height(&self.endpoint).await?,
        };
        if let Some(how) = self.watch.fell(highest, height) {
            return Ok(Verdict::Moved(how));
        }
        // Of one server the second look tells nothing more; of several, another one may answer it.
        let (again, differing) =
            tokio::try_join!(rpc::height(&self.endpoint), self.differing(given, highest.block))?;
        if let Some(how) = self.watch.fell(highest, again) {
            return Ok(Verdict::Moved(how));
        }
        Ok(match differing.first() {
            None => Verdict::Held { tip: height },
            Some((before, now)) => Verdict::Moved(self.watch.changed(*before, *now)),
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

    fn given(&self) -> MutexGuard<'_, BTreeMap<Height, BlockHash>> {
        // Nothing panics while it is held.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
