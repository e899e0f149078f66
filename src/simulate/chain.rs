//! The blocks of the node behind the stand-in, and where further ones come from: a file, or the generator.
//!
//! Knows nothing of the index, which follows this chain at its own pace.

use std::sync::Arc;

use super::block::{Block, MAIN};
use super::generate::{Generator, Pool, WINDOW};
use crate::block::BlockHash;

/// The node's chain: never empty, since it begins with a genesis block.
#[derive(Clone)]
pub(super) struct Chain(Vec<Arc<Block>>);

impl Chain {
    pub(super) fn new(genesis: Arc<Block>) -> Chain {
        Chain(vec![genesis])
    }

    pub(super) fn height(&self) -> u32 {
        // Heights fit: commands refuse to go beyond `Height::MAX`.
        self.0.len() as u32 - 1
    }

    pub(super) fn get(&self, height: u32) -> Option<&Arc<Block>> {
        self.0.get(height as usize)
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = BlockHash> + '_ {
        self.0.iter().map(|block| block.hash)
    }

    pub(super) fn tip(&self) -> &Arc<Block> {
        &self.0[self.0.len() - 1]
    }

    /// Replaces what lies above `fork` by these blocks.
    pub(super) fn switch(&mut self, fork: u32, blocks: Vec<Arc<Block>>) {
        self.0.truncate(fork as usize + 1);
        self.0.extend(blocks);
    }

    /// What is needed to go on above `height`.
    pub(super) fn end(&self, height: u32) -> End {
        let until = height as usize + 1;
        End { height, recent: self.0[until.saturating_sub(WINDOW)..until].to_vec() }
    }
}

/// The last blocks of a chain that is to be continued.
pub(super) struct End {
    pub(super) height: u32,
    /// At least the tip, at most [`WINDOW`] blocks.
    recent: Vec<Arc<Block>>,
}

/// Where blocks come from.
pub(super) struct Supply {
    /// The chain of a file from its genesis block, or just the genesis block of generated chains.
    own: Vec<Arc<Block>>,
    generator: Generator,
}

impl Supply {
    pub(super) fn new(own: Vec<Arc<Block>>, generator: Generator) -> Supply {
        Supply { own, generator }
    }

    pub(super) fn genesis(&self) -> Arc<Block> {
        self.own[0].clone()
    }

    /// How many blocks the file has above the genesis block.
    pub(super) fn file_height(&self) -> u32 {
        self.own.len() as u32 - 1
    }

    /// `count` blocks of a branch. Those of the branch `main` on a block of the file are the file's own, as far
    /// as it goes; all others are generated.
    pub(super) fn extend(&self, end: &End, branch: &str, count: u32) -> Vec<Arc<Block>> {
        let branch: Arc<str> = branch.into();
        let mut pool: Option<Pool> = None;
        let mut parent = end.recent[end.recent.len() - 1].clone();
        let mut blocks = Vec::new();
        for height in end.height + 1..=end.height + count {
            let block = match self.of_file(&parent, height, &branch) {
                Some(block) => {
                    if let Some(pool) = &mut pool {
                        pool.add(&block.bytes);
                    }
                    block
                }
                None => {
                    let pool = pool.get_or_insert_with(|| {
                        let known = end.recent.iter().chain(&blocks);
                        Pool::of(known.map(|block: &Arc<Block>| &block.bytes[..]))
                    });
                    Arc::new(self.generator.block(&parent, height, &branch, pool))
                }
            };
            parent = block.clone();
            blocks.push(block);
        }
        blocks
    }

    fn of_file(&self, parent: &Block, height: u32, branch: &str) -> Option<Arc<Block>> {
        let before = self.own.get(height as usize - 1)?;
        let block = self.own.get(height as usize)?;
        (branch == MAIN && before.hash == parent.hash).then(|| block.clone())
    }
}
