//! Which of several servers is followed.
//!
//! Servers of one chain stand at different heights, and for a while on different branches. Following now this one and now
//! that one must not take back what the chain itself has not: so each is seen from the block that is committed.

use std::cmp::Reverse;
use std::time::Duration;

use futures_util::future::join_all;

use super::endpoint::Endpoint;
use super::server::Server;
use super::{Reading, Source, SourceError, hash, open, tip_unless_silent};
use crate::block::{BlockRef, Height};

/// A server that does not say sooner where it stands is not counted.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// By how many blocks another branch must be ahead for a server on the committed one to be left. Two branches that are as
/// long, or nearly, stand side by side for a while, and most servers end on the longer one by themselves.
const LEAD: u32 = 2;

/// Where a server stands, seen from the committed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// It has that block.
    Same,
    /// It has another block there.
    Other,
    /// It does not tell which: its tip is lower, or it has no hash there.
    Below,
}

/// What a server that answered said of itself.
#[derive(Clone, Copy, Debug)]
struct Standing {
    height: Height,
    side: Side,
}

/// Which of servers that stand like this is to be followed, `silent` more not having said where they stand. If none is, the
/// best of them.
fn choose(standings: &[Standing], committed: Height, silent: usize) -> Result<usize, Option<usize>> {
    let of = |side: Side| standings.iter().enumerate().filter(move |(_, standing)| standing.side == side);
    // Of equals the first.
    let height = |(index, standing): &(usize, &Standing)| (standing.height, Reverse(*index));
    let other = of(Side::Other).max_by_key(height);
    if let Some((_, same)) = of(Side::Same).max_by_key(height) {
        let ahead = same.height.saturating_add(LEAD);
        if let Some((index, _)) = other.filter(|(_, other)| other.height >= ahead) {
            return Ok(index);
        }
        // The first that has something new, or else the first.
        let new = |(index, standing): &(usize, &Standing)| (standing.height > committed, Reverse(*index));
        return of(Side::Same).max_by_key(new).map(|(index, _)| index).ok_or(None);
    }
    match other.or_else(|| of(Side::Below).max_by_key(height)) {
        Some((index, _)) if silent == 0 => Ok(index),
        Some((index, best)) if best.side == Side::Other && best.height > committed => Ok(index),
        best => Err(best.map(|(index, _)| index)),
    }
}

impl Source {
    /// Begins a reading at `followed`, the server of before, if it answers: where its tip falls, that is a reorganisation of
    /// its own, and it is right after one that others mislead most. If it does not, begins at the one of them that is best
    /// followed from the committed block on. `None` while nothing is indexed.
    pub async fn follow(
        &self,
        committed: Option<BlockRef>,
        followed: Option<&Server>,
    ) -> Result<Option<Reading>, SourceError> {
        let (Some(committed), true) = (committed, self.endpoints.len() > 1) else { return self.open().await };
        if let Some(endpoint) = followed.map(Server::endpoint).filter(|endpoint| !endpoint.failed_lately()) {
            match open(endpoint).await {
                Ok(Some(reading)) => return Ok(Some(reading)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(reason = %error, "trying the other sources");
                    endpoint.distrust();
                }
            }
        }
        // One that failed lately may take long to say nothing.
        let (doubtful, trusted): (Vec<&Endpoint>, Vec<&Endpoint>) =
            self.endpoints.iter().partition(|endpoint| endpoint.failed_lately());
        let mut found = survey(trusted, committed).await;
        // Before another branch is followed all are asked: one of these may be ahead of it.
        let stays = choose(&standings(&found), committed.height, doubtful.len())
            .is_ok_and(|index| found[index].2 == Side::Same);
        if !stays {
            found.extend(survey(doubtful, committed).await);
        }
        if found.is_empty() {
            // Says what is wrong with them, if none answers now either.
            let Some((endpoint, _)) = self.look().await? else { return Ok(None) };
            let Some((tip, side)) = standing(&endpoint, committed).await? else { return Ok(None) };
            found.push((endpoint, tip, side));
        }
        // The configured order, whatever failed lately.
        found.sort_by_key(|(found, ..)| self.endpoints.iter().position(|endpoint| endpoint.is(found)));
        let silent = self.endpoints.len() - found.len();
        match choose(&standings(&found), committed.height, silent) {
            Ok(index) => Ok(Some(Reading::new(found[index].0.clone(), found[index].1))),
            Err(best) => {
                let (endpoint, tip, _) = &found[best.unwrap_or(0)];
                let (url, height) = (endpoint.shown().to_owned(), tip.height);
                Err(SourceError::Outrun { url, height, committed, silent })
            }
        }
    }

    /// Begins a reading at the server that is followed, whatever the others do; at any if none is.
    pub async fn open_at(&self, followed: Option<&Server>) -> Result<Option<Reading>, SourceError> {
        let endpoint = match followed {
            Some(followed) if self.endpoints.len() > 1 => followed.endpoint(),
            _ => return self.open().await,
        };
        endpoint.unless_resting()?;
        open(endpoint).await.inspect_err(|_| endpoint.distrust())
    }

    /// Begins a reading at each of the servers, in the configured order; `None` at one that has indexed nothing.
    pub async fn open_each(&self) -> Vec<(Server, Result<Option<Reading>, SourceError>)> {
        let each = self.endpoints.iter();
        join_all(each.map(|endpoint| async { (Server::new(endpoint), open(endpoint).await) })).await
    }
}

fn standings(found: &[(Endpoint, BlockRef, Side)]) -> Vec<Standing> {
    found.iter().map(|(_, tip, side)| Standing { height: tip.height, side: *side }).collect()
}

/// The tip of a server, and where it stands; `None` while it has no block.
async fn standing(endpoint: &Endpoint, committed: BlockRef) -> Result<Option<(BlockRef, Side)>, SourceError> {
    let Some(tip) = tip_unless_silent(endpoint).await? else { return Ok(None) };
    if tip.height < committed.height {
        return Ok(Some((tip, Side::Below)));
    }
    let side = match hash(endpoint, committed.height).await? {
        Some(there) if there == committed.hash => Side::Same,
        Some(_) => Side::Other,
        None => Side::Below,
    };
    Ok(Some((tip, side)))
}

/// Asks servers at once where they stand; those that do not say are left out.
async fn survey(endpoints: Vec<&Endpoint>, committed: BlockRef) -> Vec<(Endpoint, BlockRef, Side)> {
    let ask = |endpoint: &Endpoint| {
        let endpoint = endpoint.clone();
        async move {
            if endpoint.resting().is_some() {
                return None;
            }
            let doubted = endpoint.failed_lately();
            let why = match tokio::time::timeout(PATIENCE, standing(&endpoint, committed)).await {
                Ok(Ok(standing)) => return standing.map(|(tip, side)| (endpoint, tip, side)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("{} does not say where its tip is", endpoint.shown()),
            };
            if !doubted {
                tracing::warn!(reason = why, "trying the other sources");
            }
            endpoint.distrust();
            None
        }
    };
    join_all(endpoints.into_iter().map(ask)).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::Side::{Below, Other, Same};
    use super::*;

    /// The committed block has height 100.
    fn chosen(servers: &[(u32, Side)], silent: usize) -> Result<usize, Option<usize>> {
        let standing =
            |(height, side): &(u32, Side)| Standing { height: Height::new(*height).unwrap(), side: *side };
        let standings: Vec<Standing> = servers.iter().map(standing).collect();
        choose(&standings, Height::new(100).unwrap(), silent)
    }

    #[test]
    fn one_that_has_what_is_committed_is_followed() {
        assert_eq!(chosen(&[(90, Below), (100, Same)], 0), Ok(1));
        assert_eq!(chosen(&[(100, Same), (100, Same)], 0), Ok(0), "the first");
        assert_eq!(chosen(&[(100, Same), (101, Same)], 0), Ok(1), "one that has more");
        assert_eq!(chosen(&[(103, Same), (105, Same)], 0), Ok(0), "the first that has more");
        assert_eq!(chosen(&[(100, Same), (101, Other)], 0), Ok(0), "branches nearly as long");
        assert_eq!(chosen(&[(100, Same), (102, Other)], 0), Ok(1), "a branch that is ahead");
    }

    #[test]
    fn one_behind_or_on_a_shorter_branch_is_not_followed_while_another_may_be_ahead() {
        assert_eq!(chosen(&[(90, Below)], 1), Err(Some(0)));
        assert_eq!(chosen(&[(90, Below), (95, Below)], 0), Ok(1), "there is no other");
        assert_eq!(chosen(&[(100, Other)], 1), Err(Some(0)), "a branch that is as long");
        assert_eq!(chosen(&[(101, Other)], 1), Ok(0), "a longer one");
        assert_eq!(chosen(&[(5, Below), (100, Other)], 1), Err(Some(1)));
    }
}
