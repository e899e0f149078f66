//! The metashrew client, and when its answers may be trusted.
//!
//! During a reorganisation a metashrew server answers wrongly and says nothing of it: hashes above the fork stay
//! those of the old branch for a while, views pinned to a height answer empty or fail, even below the fork. So
//! nothing counts by itself. What counts is a [`Reading`]: it notes the tip and its hash first, remembers every
//! hash that it gives out, and asks for all of them again in the end ([`Reading::close`]). Only if the tip was never
//! seen to fall and no hash has changed were the answers in between those of one chain. (Height and hash calls
//! wait for the server's rollback and views do not; a rollback always moves the height. That is why the two
//! looks enclose whatever may have happened.) One reading may enclose many blocks.
//!
//! Never called: `metashrew_preview`, which writes into the live index; `"latest"`, which follows a counter of
//! its own; batches, which the server does not know.

mod careful;
mod choose;
mod disputes;
mod doubt;
mod endpoint;
mod quorum;
mod reading;
mod rpc;
mod server;
mod silence;
mod watch;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockHash, BlockRef, Height};
use crate::config;
use crate::failure::Kind;
use disputes::Disputes;
use endpoint::Endpoint;
use silence::Awaited;

pub use quorum::{Agreed, Claim, Digest};
pub use reading::{Reading, Verdict};
pub use server::Server;

/// Why the source could not be asked. What it answered *wrongly* is told by [`Reading::close`].
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the source is not configured rightly: {0}")]
    Configuration(String),
    #[error("{call}: cannot reach {url}")]
    Unreachable {
        call: String,
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{call}: {url} answered HTTP {status}{}", hint(*.status))]
    Status { call: String, url: String, status: u16 },
    #[error(
        "{call}: the answer of {url} is larger than `source.max_response_bytes` allows ({allowed} bytes)"
    )]
    TooLarge { call: String, url: String, allowed: usize },
    #[error("{call}: {url} answered what is not expected: `{got}`; expected {expected}")]
    Unexpected { call: String, url: String, got: String, expected: &'static str },
    #[error(
        "{call}: {url} answered another call, not the one with id {id}: `{got}`; what stands between debshrew and \
         metashrew must hand each answer to its own request, see docs/trust.md"
    )]
    OtherCall { call: String, url: String, got: String, id: u32 },
    #[error("{call}: {url} failed: {message}")]
    Refused { call: String, url: String, message: String },
    #[error(
        "{url} says that its tip is at height {height}, and has no hash for it or for the blocks below it"
    )]
    NoHashes { url: String, height: Height },
    #[error(
        "{url} says now that its tip is at height {height}, and now that it is lower or another block: several servers \
         seem to be behind one address; name each in `source.urls` instead, see docs/trust.md"
    )]
    Unsteady { url: String, height: Height },
    #[error(
        "{url} stands at height {height} and does not have block {committed}, which is committed; it is not followed before \
         it is ahead, as {silent} more of `source.urls` may come back"
    )]
    Outrun { url: String, height: Height, committed: BlockRef, silent: usize },
    #[error("{url} moved while it was asked what it says of blocks: {how}")]
    Moved { url: String, how: String },
    #[error(
        "{answering} of `source.urls` say where they stand, and {quorum} must agree on a block (`source.quorum`)"
    )]
    TooFew { answering: usize, quorum: usize },
    #[error(
        "too few servers agree on block {} ({agreeing} of {quorum}): {said}; `source.quorum` says how many must",
        block.height
    )]
    NoQuorum {
        block: BlockRef,
        agreeing: usize,
        quorum: usize,
        /// What each of the others says, and the one that was followed.
        said: String,
    },
    #[error("no source answers; the last failure was")]
    AllDown(#[source] Box<SourceError>),
    #[error("{cause}; the next try is in {wait_ms} ms")]
    Resting { cause: String, wait_ms: u128 },
    #[error(
        "{url} has not answered for {}: it may be overloaded or hang, or be something else than a metashrew server",
        humantime::format_duration(SILENCE)
    )]
    Silent { url: String },
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; see `source.username`, `source.password`, `source.bearer_token`",
        300..=399 => "; redirects are not followed: `source.urls` must name where it leads",
        404 => "; the URL must be the server's root",
        _ => "",
    }
}

impl SourceError {
    pub fn kind(&self) -> Kind {
        match self {
            SourceError::Configuration(_) | SourceError::TooLarge { .. } => Kind::Permanent,
            // The request itself is too large.
            SourceError::Status { status: 413 | 414 | 431, .. } => Kind::Permanent,
            // A server that is being set up or restarted behind a proxy answers anything for a while, and a login
            // that has run out may be renewed there.
            SourceError::Status { .. }
            | SourceError::Unexpected { .. }
            | SourceError::OtherCall { .. }
            | SourceError::Refused { .. }
            | SourceError::NoHashes { .. }
            | SourceError::Unsteady { .. }
            | SourceError::Unreachable { .. }
            | SourceError::Outrun { .. }
            | SourceError::Moved { .. }
            | SourceError::TooFew { .. }
            | SourceError::NoQuorum { .. }
            | SourceError::Resting { .. }
            | SourceError::Silent { .. } => Kind::Transient,
            SourceError::AllDown(last) => last.kind(),
        }
    }

    /// Whether somebody must change something before it passes: to ask again at once is of no use.
    pub fn is_refusal(&self) -> bool {
        match self {
            SourceError::Status { status, .. } => matches!(status, 400..=407 | 409..=428 | 430..=499),
            SourceError::AllDown(last) => last.is_refusal(),
            _ => false,
        }
    }
}

/// After so long without an answer a server is said to be silent. A tip's height and hash wait for a server's own
/// rollback, which takes less.
const SILENCE: Duration = Duration::from_secs(10);

/// The servers that are followed. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    endpoints: Arc<[Endpoint]>,
    /// How many of them must agree on a block.
    quorum: usize,
    disputes: Arc<Disputes>,
}

impl Source {
    /// Prepares a client per server; connects to nothing yet.
    pub fn new(config: &config::Source) -> Result<Source, SourceError> {
        let endpoints = config
            .urls
            .iter()
            .map(|url| Endpoint::new(url, config))
            .collect::<Result<Arc<[Endpoint]>, _>>()?;
        if endpoints.is_empty() {
            return Err(SourceError::Configuration("`source.urls` names no server".into()));
        }
        let is_again = |(index, one): &(usize, &Endpoint)| {
            endpoints[..*index].iter().any(|other| other.is_at_same_place(one))
        };
        if config.quorum > 1
            && let Some((_, twice)) = endpoints.iter().enumerate().find(is_again)
        {
            return Err(SourceError::Configuration(format!(
                "`source.urls` names {} twice, and a server agrees with itself: where `source.quorum` servers must \
                 agree, name each once",
                twice.shown()
            )));
        }
        Ok(Source { endpoints, quorum: config.quorum, disputes: Arc::default() })
    }

    /// The height of the tip; `None` while nothing is indexed.
    pub async fn tip(&self) -> Result<Option<Height>, SourceError> {
        Ok(self.look().await?.map(|(_, tip)| tip.height))
    }

    /// Begins a reading at the first server that has blocks; `None` while nothing is indexed. All that the
    /// reading asks goes to that server.
    pub async fn open(&self) -> Result<Option<Reading>, SourceError> {
        Ok(self.look().await?.map(|(endpoint, tip)| Reading::new(endpoint, tip)))
    }

    /// A server that has answered nothing for long while it was asked.
    pub fn silent(&self) -> Option<SourceError> {
        let silent = |endpoint| silent(endpoint, Awaited::Look).or_else(|| silent(endpoint, Awaited::View));
        self.endpoints.iter().find_map(silent)
    }

    /// What to say of a source that answers, if its answers do not fit one server.
    pub fn notice(&self) -> Option<String> {
        self.endpoints.iter().find_map(|endpoint| endpoint.doubt().notice(endpoint.shown()))
    }

    async fn look(&self) -> Result<Option<(Endpoint, BlockRef)>, SourceError> {
        let mut failed = Vec::new();
        let mut is_empty = false;
        // Stable: in the configured order, but those that failed lately after those that did not.
        let mut endpoints: Vec<&Endpoint> = self.endpoints.iter().collect();
        endpoints.sort_by_key(|endpoint| endpoint.failed_lately());
        for endpoint in endpoints {
            if let Err(resting) = endpoint.unless_resting() {
                failed.push(resting);
                continue;
            }
            let is_news = !endpoint.failed_lately();
            match tip_unless_silent(endpoint).await {
                Ok(Some(tip)) => return Ok(Some((endpoint.clone(), tip))),
                // Another one may have blocks.
                Ok(None) => is_empty = true,
                Err(error) => {
                    endpoint.distrust();
                    if self.endpoints.len() > 1 && is_news {
                        tracing::warn!(reason = %error, "trying the next source");
                    }
                    failed.push(error);
                }
            }
        }
        if is_empty { Ok(None) } else { Err(all_failed(failed)) }
    }
}

/// Of several servers the one that may come back is what matters: as long as there is one, it is waited for.
fn all_failed(failed: Vec<SourceError>) -> SourceError {
    let several = failed.len() > 1;
    let hope = |error: &SourceError| match error {
        SourceError::Resting { wait_ms, .. } => (1, Reverse(*wait_ms)),
        error if error.kind() == Kind::Permanent || error.is_refusal() => (0, Reverse(0)),
        _ => (2, Reverse(0)),
    };
    match failed.into_iter().max_by_key(hope) {
        Some(error @ SourceError::Resting { .. }) => error,
        Some(error) if several => SourceError::AllDown(Box::new(error)),
        Some(error) => error,
        None => SourceError::Configuration("`source.urls` names no server".into()),
    }
}

fn silent(endpoint: &Endpoint, awaited: Awaited) -> Option<SourceError> {
    let is_silent = endpoint.silent_for(awaited).is_some_and(|lasts| lasts >= SILENCE);
    is_silent.then(|| SourceError::Silent { url: endpoint.shown().to_owned() })
}

/// The tip of a server that is not waited for longer than others are to wait for.
async fn tip_unless_silent(endpoint: &Endpoint) -> Result<Option<BlockRef>, SourceError> {
    let watched = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Some(error) = silent(endpoint, Awaited::Look) {
                return error;
            }
        }
    };
    tokio::select! {
        tip = careful::tip(endpoint) => tip,
        error = watched => Err(error),
    }
}

/// Begins a reading at a server; `None` while it has indexed nothing.
async fn open(endpoint: &Endpoint) -> Result<Option<Reading>, SourceError> {
    Ok(tip_unless_silent(endpoint).await?.map(|tip| Reading::new(endpoint.clone(), tip)))
}

/// How far below its tip's height a server may lack hashes. While a block is being indexed its hash may come a
/// moment after its height; more than that is no state of a server's.
const MOST_HASHES_MISSING: usize = 3;

/// The tip and its hash. An empty index answers height 0 and has no hash for it. A tip whose hash is not there
/// yet is taken for the block below it.
async fn tip(endpoint: &Endpoint) -> Result<Option<BlockRef>, SourceError> {
    let claimed = rpc::height(endpoint).await?;
    let mut height = claimed;
    for _ in 0..=MOST_HASHES_MISSING {
        if let Some(hash) = rpc::block_hash(endpoint, height).await? {
            return Ok(Some(BlockRef { height, hash }));
        }
        let Some(below) = height.previous() else { return Ok(None) };
        height = rpc::height(endpoint).await?.min(below);
    }
    Err(SourceError::NoHashes { url: endpoint.shown().to_owned(), height: claimed })
}

/// A hash as the source knows it now.
async fn hash(endpoint: &Endpoint, height: Height) -> Result<Option<BlockHash>, SourceError> {
    rpc::block_hash(endpoint, height).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> SourceError {
        SourceError::Status { call: "c".into(), url: "u".into(), status }
    }

    #[test]
    fn as_long_as_one_server_may_come_back_it_is_waited_for() {
        let resting = |wait_ms| SourceError::Resting { cause: "refused".into(), wait_ms };
        assert!(all_failed(vec![status(404)]).is_refusal());
        assert!(all_failed(vec![status(404), status(401)]).is_refusal());
        assert!(!all_failed(vec![status(503), status(404)]).is_refusal());
        assert!(!all_failed(vec![status(404), status(503)]).is_refusal());
        let shown = all_failed(vec![resting(7), resting(5), resting(9), status(404)]).to_string();
        assert!(shown.contains("in 5 ms"), "{shown}");
    }

    /// A terminal of 80 columns has room for about so many characters of a reason.
    #[test]
    fn the_beginning_of_a_disagreement_says_what_it_is() {
        let block = BlockRef { height: Height::new(840_000).unwrap(), hash: BlockHash::new([7; 32]) };
        let said = "http://10.0.0.7:8080 says hash 07, and http://10.0.0.8:8080 says hash 08".to_owned();
        let shown = SourceError::NoQuorum { block, agreeing: 1, quorum: 2, said }.to_string();
        assert_eq!(shown[..52], *"too few servers agree on block 840000 (1 of 2): http");
    }

    #[test]
    fn a_redirect_is_explained() {
        assert!(status(301).to_string().contains("redirects are not followed"), "{}", status(301));
    }
}
