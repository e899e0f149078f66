//! Looks at a tip that several servers may answer for: enough of them, and at once, so that each of the servers is most
//! likely asked. See [`super::doubt`] for when that is worth its requests.

use futures_util::future::try_join_all;

use super::endpoint::Endpoint;
use super::{SourceError, hash, rpc};
use crate::block::{BlockRef, Height};

/// Of two servers that are asked at random, one is left out by so many looks once in 128 times; and then a view must
/// still be asked of just that one, and all looks of the end must miss it again.
const LOOKS: usize = 8;

/// How often a lower tip is tried when a look denies one.
const ROUNDS: usize = 4;

/// The tip, as all who answer at this address have it.
pub(super) async fn tip(endpoint: &Endpoint) -> Result<Option<BlockRef>, SourceError> {
    let doubt = endpoint.doubt();
    let before = doubt.last();
    let Some(mut tip) = super::tip(endpoint).await? else { return Ok(None) };
    if let Some(from) = doubt.saw(before, tip) {
        let now =
            if from.height == tip.height { Some(tip.hash) } else { hash(endpoint, from.height).await? };
        doubt.came_back(from, now);
    }
    for _ in 0..ROUNDS {
        if !doubt.needs_confirming(tip) {
            return Ok(Some(tip));
        }
        let lowest = lowest(endpoint, tip).await?;
        if lowest == tip.height {
            doubt.confirm(tip);
            return Ok(Some(tip));
        }
        doubt.fell(tip, lowest);
        if let Some(hash) = hash(endpoint, lowest).await? {
            tip = BlockRef { height: lowest, hash };
        }
    }
    Err(SourceError::Unsteady { url: endpoint.shown().to_owned(), height: tip.height })
}

/// How far up those who answer at this address all have the branch of this tip, as far as their tips and their hashes
/// at its height tell.
pub(super) async fn lowest(endpoint: &Endpoint, tip: BlockRef) -> Result<Height, SourceError> {
    let look = || async move {
        let (height, hash) = tokio::try_join!(rpc::height(endpoint), hash(endpoint, tip.height))?;
        let most = if hash == Some(tip.hash) { tip.height } else { tip.height.saturating_sub(1) };
        Ok::<_, SourceError>(height.min(most))
    };
    let looks = try_join_all((0..LOOKS).map(|_| look())).await?;
    Ok(looks.into_iter().min().unwrap_or(tip.height))
}
