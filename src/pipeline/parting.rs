//! Whether the source's chain is the committed one, where they part if it is not, and whether a pipeline may follow
//! it there. Only reads.

use std::str::FromStr;

use super::PipelineError;
use crate::block::{BlockHash, BlockRef, Height};
use crate::db::Db;
use crate::register::{Checkpoint, Registered, committed_hash};
use crate::reorg::{Comparison, ForkSearch, Parting, Question};
use crate::source::{Reading, Verdict};
use crate::undo;

/// What the comparison of both chains says.
pub enum Compared {
    /// The same, up to the checkpoint or the source's tip.
    Same,
    Parted(Parting),
    /// The source has no hash for this block, which its tip lies above, so that it cannot be compared.
    Lacking(Height),
    /// The source moved while it was asked.
    Moved(String),
}

/// The last block that a reorganisation is to leave, so that it is followed however deep it is; `None` is before the
/// first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastLeft(pub Option<Height>);

impl FromStr for LastLeft {
    type Err = String;

    fn from_str(text: &str) -> Result<LastLeft, String> {
        match text.parse().ok().and_then(Height::new) {
            Some(height) => Ok(LastLeft(Some(height))),
            None if text == "start" => Ok(LastLeft(None)),
            None => Err(format!("it is a height, a whole number from 0 to {}, or `start`", Height::MAX)),
        }
    }
}

/// What is to be compared.
pub struct Chains<'a> {
    pub db: &'a Db,
    pub pipeline: &'a Registered,
    pub checkpoint: Checkpoint,
    pub reading: &'a Reading,
}

impl Chains<'_> {
    /// Compares the highest block that both may have, and looks for the fork point if they differ there.
    pub async fn compare(&self) -> Result<Compared, PipelineError> {
        let Some(at) = self.checkpoint.block else { return Ok(Compared::Same) };
        let top = at.height.min(self.reading.tip().height);
        let Some(committed) = self.committed(top).await? else { return Ok(Compared::Same) };
        match self.reading.hash(top).await? {
            Some(hash) if hash == committed => Ok(Compared::Same),
            Some(_) => self.part(at, top).await,
            None => self.unless_moved(Compared::Lacking(top)).await,
        }
    }

    /// Finds the highest block that both contain, given that `top` is on ours alone.
    async fn part(&self, at: BlockRef, top: Height) -> Result<Compared, PipelineError> {
        let first = self.pipeline.start_height;
        let mut search = ForkSearch::new(top, first);
        let fork = loop {
            match search.next() {
                Question::Found(fork) => break fork,
                Question::Compare(height) => {
                    let Some((ours, theirs)) = self.both(height).await? else {
                        return self.unless_moved(Compared::Lacking(height)).await;
                    };
                    search.answer(if ours == theirs { Comparison::Same } else { Comparison::Differs });
                }
            }
        };
        let height = fork.map_or(first, Height::next);
        let Some((ours, theirs)) = self.both(height).await? else {
            return self.unless_moved(Compared::Lacking(height)).await;
        };
        let last_common = match fork {
            Some(height) => self.committed(height).await?.map(|hash| BlockRef { height, hash }),
            None => None,
        };
        let depth = at.height.blocks_above(height) + 1;
        self.unless_moved(Compared::Parted(Parting { last_common, height, theirs, ours, depth })).await
    }

    async fn both(&self, height: Height) -> Result<Option<(BlockHash, BlockHash)>, PipelineError> {
        let ours = self.committed(height).await?;
        Ok(ours.zip(self.reading.hash(height).await?))
    }

    async fn unless_moved(&self, compared: Compared) -> Result<Compared, PipelineError> {
        Ok(match self.reading.close().await? {
            Verdict::Held { .. } => compared,
            Verdict::Moved(how) => Compared::Moved(how),
        })
    }

    async fn committed(&self, height: Height) -> Result<Option<BlockHash>, PipelineError> {
        match self.checkpoint.block {
            Some(at) if at.height == height => Ok(Some(at.hash)),
            _ => {
                let client = self.db.client().await?;
                Ok(committed_hash(&**client, self.pipeline.id, height).await?)
            }
        }
    }
}

/// Refuses what cannot be undone, and what is deeper than a reorganisation may be, unless it was accepted.
pub fn check_depth(
    parting: &Parting,
    allowed: u32,
    accepted: Option<LastLeft>,
    pipeline: &Registered,
    checkpoint: Checkpoint,
) -> Result<(), PipelineError> {
    let to = parting.last_common.map(|block| block.height);
    let unreached = undo::check_reach(pipeline, checkpoint, to).err().map(Box::new);
    let is_other = parting.depth > allowed && accepted != Some(LastLeft(to));
    let parting = Box::new(parting.clone());
    match unreached {
        unreached if is_other => Err(PipelineError::OtherChain { parting, allowed, unreached }),
        Some(source) => Err(PipelineError::TooDeep { parting, source }),
        None => Ok(()),
    }
}

/// Why a source that lacks a block's hash cannot be followed, and what to do.
pub async fn explain_lacking(
    reading: &Reading,
    height: Height,
    begun: bool,
) -> Result<String, PipelineError> {
    let (mut lacking, mut has) = (height, reading.tip().height);
    while lacking.next() < has {
        let middle = lacking.saturating_add(has.blocks_above(lacking) / 2);
        match reading.hash(middle).await? {
            Some(_) => has = middle,
            None => lacking = middle,
        }
    }
    let start = match begun {
        true => "",
        false => "set the pipeline's `start_height` to a block that it has, or ",
    };
    Ok(format!(
        "the source has no hash for block {height}, though one for block {has} above: it was started above that block \
         (`--start-block`), or has lost it; {start}let it index anew from below block {height}, or name another server \
         in `source.urls`"
    ))
}
