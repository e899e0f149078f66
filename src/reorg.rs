//! Finds the fork point: the highest block that both the committed and the source's chain contain.
//!
//! Pure: it asks which height to compare next and is told whether the hashes there are the same. Below the
//! fork all are, above it none is; so it gallops down and then bisects, and asks about twice the logarithm of
//! the depth.

use std::fmt;

use crate::block::{BlockHash, BlockRef, Height};

/// Where the source's chain and the committed one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The fork point; `None` when they have no block in common.
    pub last_common: Option<BlockRef>,
    /// The lowest height at which they differ.
    pub height: Height,
    pub theirs: BlockHash,
    pub ours: BlockHash,
    /// How many committed blocks lie above the fork point.
    pub depth: u32,
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parting { last_common, height, theirs, ours, depth } = self;
        match last_common {
            Some(block) => write!(f, "block {block} is the last that both have")?,
            None => f.write_str("they have no block in common")?,
        }
        let blocks = if *depth == 1 { "block" } else { "blocks" };
        write!(
            f,
            ", block {height} is {theirs} there and {ours} here; to follow it, {depth} {blocks} must be undone"
        )
    }
}

/// A search that has begun at a height where the chains differ.
#[derive(Clone, Debug)]
pub struct ForkSearch {
    /// The lowest height known to differ.
    differs: Height,
    /// The highest height known to be the same.
    same: Option<Height>,
    /// Nothing below was committed.
    first: Height,
    step: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Compare the hashes at this height.
    Compare(Height),
    /// The chains are the same up to here; `None`: they have no block in common.
    Found(Option<Height>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Same,
    Differs,
}

impl ForkSearch {
    /// `top` is a height at which the chains differ; `first` the first block that was committed.
    pub fn new(top: Height, first: Height) -> ForkSearch {
        ForkSearch { differs: top, same: None, first, step: 1 }
    }

    /// What is to be compared now, or the result.
    pub fn next(&self) -> Question {
        match self.same {
            Some(same) if same.next() >= self.differs => Question::Found(Some(same)),
            Some(same) => Question::Compare(same.saturating_add(self.differs.blocks_above(same) / 2)),
            None if self.differs <= self.first => Question::Found(None),
            None => Question::Compare(self.differs.saturating_sub(self.step).max(self.first)),
        }
    }

    /// Takes the answer to the comparison that [`ForkSearch::next`] asked for.
    pub fn answer(&mut self, comparison: Comparison) {
        let Question::Compare(height) = self.next() else { return };
        match comparison {
            Comparison::Same => self.same = Some(height),
            Comparison::Differs => {
                self.differs = height;
                self.step = self.step.saturating_mul(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn height(height: u32) -> Height {
        Height::new(height).unwrap()
    }

    proptest! {
        #[test]
        fn it_finds_what_a_scan_finds_with_few_questions(
            first in 0u32..50, length in 0u32..5000, fork in 0u32..5100,
        ) {
            let top = first + length;
            // The highest height that is the same, plus one; at most the top differs.
            let fork = fork.clamp(first, top);
            let mut search = ForkSearch::new(height(top), height(first));
            let mut questions = 0;
            let found = loop {
                match search.next() {
                    Question::Compare(at) => {
                        prop_assert!(at < height(top) && at >= height(first));
                        search.answer(if at < height(fork) { Comparison::Same } else { Comparison::Differs });
                        questions += 1;
                    }
                    Question::Found(found) => break found,
                }
            };
            prop_assert_eq!(found, (fork > first).then(|| height(fork - 1)));
            let depth = (top - fork + 2).ilog2();
            prop_assert!(questions <= 2 * depth + 3, "{} questions for depth 2^{}", questions, depth);
        }
    }
}
