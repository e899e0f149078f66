//! Whether the source still holds the states that blocks were made from: another program over the same blocks has the
//! same hashes, and so has a server whose state went wrong.

use super::{Pipeline, PipelineError, Writer};
use crate::block::{BlockRef, Height, StateRoot};
use crate::register::recorded_roots;
use crate::source::{Reading, Server, Verdict};

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
        let top = at.height.min(reading.tip().height);
        let heights: Vec<Height> =
            [top].into_iter().chain(OLDER.map(|blocks| top.saturating_sub(blocks))).collect();
        let recorded = {
            let client = pipeline.db.client().await?;
            recorded_roots(&**client, writer.pipeline().id, &heights).await?
        };
        for (block, recorded) in recorded {
            let (hash, now) = tokio::try_join!(reading.hash(block.height), reading.state_root(block.height))?;
            match now {
                Some(now) if hash == Some(block.hash) && now != recorded => {
                    let server = server.to_string();
                    return self.doubt(reading, OtherState { block, server, now, recorded }).await;
                }
                _ => {}
            }
        }
        (self.compared, self.doubted) = (Some(server), None);
        Ok(None)
    }

    async fn doubt(&mut self, reading: &Reading, other: OtherState) -> Result<Option<String>, PipelineError> {
        if let Verdict::Moved(how) = reading.close().await? {
            return Ok(Some(how));
        }
        if self.doubted.replace(other.block) == Some(other.block) {
            return Err(PipelineError::OtherState(Box::new(other)));
        }
        Ok(Some(other.to_string()))
    }
}
