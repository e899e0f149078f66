//! A block of the node behind the stand-in.

use std::sync::Arc;

use bytes::Bytes;

use crate::block::BlockHash;

/// The branch that the stand-in begins with.
pub(super) const MAIN: &str = "main";

/// A block, kept once however many chains hold it.
pub(super) struct Block {
    pub(super) hash: BlockHash,
    /// As Bitcoin serialises it; empty for a genesis block of which only the hash is known.
    pub(super) bytes: Bytes,
    pub(super) branch: Arc<str>,
}
