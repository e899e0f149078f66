//! Questions to one server that count only if it stood on one chain all the while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::endpoint::Endpoint;
use super::rpc::{self, ViewFailure};
use super::{SourceError, hash};
use crate::block::{BlockHash, BlockRef, Height};

/// How many hashes are asked for again at once.
const AT_ONCE: usize = 32;

/// A reading that has begun. Shared by whoever evaluates inside it.
pub struct Reading {
    endpoint: Endpoint,
    tip: BlockRef,
    /// Every hash that was given out, to be asked for again.
    given: Mutex<BTreeMap<Height, BlockHash>>,
}

/// Whether what was answered inside a reading counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Held,
    /// The server changed meanwhile; in words, how.
    Moved(String),
}

impl Reading {
    pub(super) fn new(endpoint: Endpoint, tip: BlockRef) -> Reading {
        Reading { endpoint, tip, given: Mutex::new(BTreeMap::from([(tip.height, tip.hash)])) }
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

    /// What the server still holds above its tip: the trace of a reorganisation that it could not finish.
    pub async fn hash_above_tip(&self, height: Height) -> Result<Option<BlockHash>, SourceError> {
        hash(&self.endpoint, height).await
    }

    /// A view's answer at a height up to the tip's. The inner error is what the view itself said; like an empty
    /// answer it means nothing unless the reading holds.
    pub async fn view(
        &self,
        name: &str,
        input: &[u8],
        height: Height,
    ) -> Result<Result<Vec<u8>, ViewFailure>, SourceError> {
        rpc::view(&self.endpoint, name, input, height).await
    }

    /// Looks again at the tip and at every hash that was given out.
    pub async fn close(&self) -> Result<Verdict, SourceError> {
        let height = rpc::height(&self.endpoint).await?;
        if height < self.tip.height {
            return Ok(Verdict::Moved(format!("the tip fell from height {} to {height}", self.tip.height)));
        }
        let given = self.given().clone();
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
            None => Verdict::Held,
            Some(height) => Verdict::Moved(format!("the hash of block {height} changed")),
        })
    }

    fn given(&self) -> std::sync::MutexGuard<'_, BTreeMap<Height, BlockHash>> {
        // Nothing panics while it is held.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
