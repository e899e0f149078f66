//! What several servers must agree on before a block counts.
//!
//! One server evaluates nothing for another: each other one is asked, in a reading of its own, for the hash of a block that
//! was evaluated, and for its state root, or, where one of the two keeps none, for the views that the evaluation asked for.

use std::collections::HashMap;
use std::fmt;

use bitcoin::hashes::{Hash, sha256};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::choose::PATIENCE;
use super::disputes::{Dispute, Disputes};
use super::endpoint::Endpoint;
use super::server::Server;
use super::{Reading, Source, SourceError, Verdict, open, tip_unless_silent};
use crate::block::{BlockRef, Height, StateRoot};
use crate::view::{Answer, Question};

/// About how many blocks a server is asked at once.
const AT_ONCE: usize = 32;

/// What a block was evaluated from.
#[derive(Clone, Debug)]
pub struct Claim {
    pub block: BlockRef,
    pub state_root: Option<StateRoot>,
    /// The views that were asked for.
    pub views: Vec<(Question, Digest)>,
}

/// Stands for a view's answer. That it failed is one answer, whatever the words were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(sha256::Hash);

impl Digest {
    pub fn of(answer: &Answer) -> Digest {
        let (kind, bytes): (&[u8], &[u8]) = match answer {
            Ok(bytes) => (b"answer", bytes),
            Err(_) => (b"failure", b""),
        };
        Digest(sha256::Hash::hash(&[kind, bytes].concat()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many claims count, from the first on, and why the next one does not.
#[derive(Debug)]
pub struct Agreed {
    pub claims: usize,
    pub short: Option<SourceError>,
}

/// What a server says of a claim.
#[derive(Clone, Debug)]
enum Said {
    Same,
    /// It does not have that block yet.
    Nothing,
    Other {
        theirs: String,
        ours: String,
    },
}

impl Source {
    /// How many servers must agree on a block.
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// The highest block that as many servers as must agree have, `server` with its tip among them.
    pub async fn common_tip(&self, server: &Server, tip: BlockRef) -> Result<Height, SourceError> {
        if self.quorum < 2 {
            return Ok(tip.height);
        }
        let mut heights = vec![tip.height];
        let mut asked: FuturesUnordered<_> = self.others(server).map(height).collect();
        // Once so many have all that this server has, nobody else is waited for.
        while heights.iter().filter(|height| **height >= tip.height).count() < self.quorum
            && let Some(height) = asked.next().await
        {
            heights.extend(height);
        }
        heights.sort_unstable_by(|one, other| other.cmp(one));
        let answering = heights.len();
        let common = heights.get(self.quorum - 1).map(|common| tip.height.min(*common));
        common.ok_or(SourceError::TooFew { answering, quorum: self.quorum })
    }

    /// Whether this claim of a server counts, if servers must agree at all.
    pub async fn confirm(&self, server: &Server, claim: Claim) -> Result<(), SourceError> {
        if self.quorum < 2 {
            return Ok(());
        }
        self.agree(server, &[claim]).await.short.map_or(Ok(()), Err)
    }

    /// Asks the servers beside the one that made these claims whether they agree, until enough of them do. A server that
    /// begins to say something else is named in the log, with both sides' values.
    pub async fn agree(&self, server: &Server, claims: &[Claim]) -> Agreed {
        let mut votes = Votes { agreeing: vec![1; claims.len()], quorum: self.quorum, said: Vec::new() };
        let ask = move |endpoint| async move {
            (Endpoint::shown(endpoint).to_owned(), witness(endpoint, claims).await)
        };
        let mut asked: FuturesUnordered<_> = self.others(server).map(ask).collect();
        while votes.counting() < claims.len()
            && let Some((url, said)) = asked.next().await
        {
            votes.count(server, url, said, claims, &self.disputes);
        }
        drop(asked);
        let counting = votes.counting();
        let short = claims.get(counting).map(|claim| votes.short(server, claim.block, counting));
        Agreed { claims: counting, short }
    }

    fn others(&self, server: &Server) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(move |endpoint| *server != Server::new(endpoint))
    }
}

struct Votes {
    /// How many servers agree on each claim.
    agreeing: Vec<usize>,
    quorum: usize,
    /// What the others said, by their URLs.
    said: Vec<(String, Result<Vec<Said>, SourceError>)>,
}

impl Votes {
    /// How many claims have enough votes, from the first on.
    fn counting(&self) -> usize {
        self.agreeing.iter().take_while(|agreeing| **agreeing >= self.quorum).count()
    }

    fn count(
        &mut self,
        server: &Server,
        url: String,
        said: Result<Vec<Said>, SourceError>,
        claims: &[Claim],
        disputes: &Disputes,
    ) {
        let each = said.as_deref().unwrap_or_default();
        let first = each.iter().zip(claims).find_map(|(said, claim)| match said {
            Said::Other { theirs, ours } => {
                Some(Dispute { block: claim.block, theirs: theirs.clone(), ours: ours.clone() })
            }
            Said::Same | Said::Nothing => None,
        });
        let same = each.iter().zip(claims).filter(|(said, _)| matches!(said, Said::Same));
        match (first, same.map(|(_, claim)| claim.block.height).max()) {
            (Some(dispute), _) => disputes.disagree(server.to_string(), url.clone(), dispute),
            (None, Some(height)) => disputes.agree(server.to_string(), url.clone(), height),
            (None, None) => {}
        }
        for (agreeing, said) in self.agreeing.iter_mut().zip(each) {
            *agreeing += usize::from(matches!(said, Said::Same));
        }
        self.said.push((url, said));
    }

    /// Why the claim at this index does not count.
    fn short(&self, server: &Server, block: BlockRef, index: usize) -> SourceError {
        let mut parts = Vec::new();
        let mut others: HashMap<&str, usize> = HashMap::new();
        for (url, said) in &self.said {
            match said.as_ref().map(|said| said.get(index)) {
                Ok(Some(Said::Other { theirs, ours })) => {
                    parts.push(format!("{server} says {ours}, and {url} says {theirs}"));
                    *others.entry(theirs.as_str()).or_default() += 1;
                }
                Ok(Some(Said::Same)) => {}
                Ok(Some(Said::Nothing) | None) => parts.push(format!("{url} does not have it yet")),
                Err(error) => parts.push(error.to_string()),
            }
        }
        if others.values().any(|servers| *servers >= self.quorum) {
            // The others are right, as far as can be told: one of them is to be followed.
            server.endpoint().distrust();
        }
        SourceError::NoQuorum {
            block,
            agreeing: self.agreeing[index],
            quorum: self.quorum,
            said: parts.join("; "),
        }
    }
}

/// How high a server is, if it says so soon.
async fn height(endpoint: &Endpoint) -> Option<Height> {
    if endpoint.resting().is_some() {
        return None;
    }
    let answer = tokio::time::timeout(PATIENCE, tip_unless_silent(endpoint)).await;
    answer.ok().and_then(Result::ok).flatten().map(|tip| tip.height)
}

/// What a server says of all claims.
async fn witness(endpoint: &Endpoint, claims: &[Claim]) -> Result<Vec<Said>, SourceError> {
    endpoint.unless_resting()?;
    let Some(reading) = open(endpoint).await? else { return Ok(vec![Said::Nothing; claims.len()]) };
    let asked: Vec<_> = claims.iter().map(|claim| say(&reading, claim)).collect();
    let said = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    match reading.close().await? {
        Verdict::Held { .. } => Ok(said),
        Verdict::Moved(how) => Err(SourceError::Moved { url: endpoint.shown().to_owned(), how }),
    }
}

async fn say(reading: &Reading, claim: &Claim) -> Result<Said, SourceError> {
    let height = claim.block.height;
    let Some(hash) = reading.hash(height).await? else { return Ok(Said::Nothing) };
    if hash != claim.block.hash {
        return Ok(other("hash", hash, claim.block.hash));
    }
    if let Some(ours) = claim.state_root
        && let Some(theirs) = reading.state_root(height).await?
    {
        return Ok(if ours == theirs { Said::Same } else { other("state root", theirs, ours) });
    }
    for (question, ours) in &claim.views {
        let theirs = Digest::of(&reading.view(question, height).await?);
        if theirs != *ours {
            let what = format!("that the answer of view `{}` has the digest", question.view);
            return Ok(other(&what, theirs, *ours));
        }
    }
    Ok(Said::Same)
}

fn other<T: fmt::Display>(what: &str, theirs: T, ours: T) -> Said {
    Said::Other { theirs: format!("{what} {theirs}"), ours: format!("{what} {ours}") }
}
