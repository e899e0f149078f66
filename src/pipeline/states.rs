//! Whether the source still holds the states that blocks were made from: another program over the same blocks has the
//! same hashes, and so has a server whose state went wrong.

use super::{Pipeline, PipelineError, Writer};
use crate::block::{BlockRef, Height, StateRoot};
use crate::db::Db;
use crate::register::{Registered, recorded_roots};
use crate::source::{Claim, Reading, Server, Verdict};

/// How far below the checkpoint state roots are compared as well.
const OLDER: [u32; 4] = [1, 10, 100, 1_000];

/// A state root that is not the one that was recorded, though the block is the same.
#[derive(Debug, thiserror::Error)]
#[error(
    "block {block} is the one that was committed, and the source's state at it is not: {server} answers the state root {now}, \
     and {recorded} was recorded"
)]
pub struct OtherState {
    pub block: BlockRef,
    pub server: String,
    pub now: StateRoot,
    pub recorded: StateRoot,
}

/// What to do about [`OtherState`].
pub(super) const ADVICE: &str = "the server indexes with another program, or its index is damaged: let `source.urls` name one \
    that has the program of before, or index anew with it; if the program was changed on purpose, give the pipeline another \
    name to begin anew";

/// Compares at the start, when another server is followed, and after the source has moved.
#[derive(Default)]
pub(super) struct States {
    compared: Option<Server>,
    /// The block whose root was another one once.
    doubted: Option<BlockRef>,
}

impl States {
    /// The source may hold other states now.
    pub(super) fn forget(&mut self) {
        self.compared = None;
    }

    /// Compares the state roots at the checkpoint and below it with those that were recorded, unless that was done. In
    /// words, how the source has moved, if it has. A root that is another one counts when it was so twice.
    pub(super) async fn compare(
        &mut self,
        pipeline: &Pipeline,
        writer: &Writer,
        reading: &Reading,
    ) -> Result<Option<String>, PipelineError> {
        let server = reading.server();
        let Some(at) = writer.checkpoint().block.filter(|_| self.compared.as_ref() != Some(&server)) else {
            return Ok(None);
        };
        if let Roots::Other(other) = compare_roots(&pipeline.db, writer.pipeline(), at, reading).await? {
            return self.doubt(pipeline, reading, other).await;
        }
        (self.compared, self.doubted) = (Some(server), None);
        Ok(None)
    }

    async fn doubt(
        &mut self,
        pipeline: &Pipeline,
        reading: &Reading,
        other: OtherState,
    ) -> Result<Option<String>, PipelineError> {
        if let Verdict::Moved(how) = reading.close().await? {
            return Ok(Some(how));
        }
        if self.doubted.replace(other.block) == Some(other.block) {
            // Where servers must agree, one alone does not tell what the state is.
            let claim = Claim { block: other.block, state_root: Some(other.now), views: Vec::new() };
            pipeline.source.confirm(&reading.server(), claim).await?;
            return Err(PipelineError::OtherState(Box::new(other)));
        }
        Ok(Some(other.to_string()))
    }
}

/// What the comparison of state roots says.
pub enum Roots {
    /// So many blocks have the root that was recorded; none if the server keeps none, or none was recorded.
    Same(usize),
    /// A block has another one. It counts when the reading held.
    Other(OtherState),
}

/// Compares the state roots at the checkpoint `at` and below it with those that were recorded, where the blocks are the same.
pub async fn compare_roots(
    db: &Db,
    pipeline: &Registered,
    at: BlockRef,
    reading: &Reading,
) -> Result<Roots, PipelineError> {
    let top = at.height.min(reading.tip().height);
    let heights: Vec<Height> =
        [top].into_iter().chain(OLDER.map(|blocks| top.saturating_sub(blocks))).collect();
    let recorded = {
        let client = db.client().await?;
        recorded_roots(&**client, pipeline.id, &heights).await?
    };
    let mut same = 0;
    for (block, recorded) in recorded {
        let (hash, now) = tokio::try_join!(reading.hash(block.height), reading.state_root(block.height))?;
        match now.filter(|_| hash == Some(block.hash)) {
            Some(now) if now != recorded => {
                let server = reading.server().to_string();
                return Ok(Roots::Other(OtherState { block, server, now, recorded }));
            }
            now => same += usize::from(now.is_some()),
        }
    }
    Ok(Roots::Same(same))
}
