//! Blocks from a file in Bitcoin Core's block file format: records of 4 bytes that name the network, 4 bytes
//! little-endian length, and a block.
//!
//! Blocks may be in any order, as in Core's own files; their parents' hashes say how they follow. The bytes are
//! hostile until they are checked, and every complaint says where in the file.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::consensus::{deserialize, encode, serialize};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bytes::Bytes;

use super::SimulateError;
use super::block::{Block, MAIN};
use super::generate::hash_of;
use crate::block::BlockHash;
use crate::file;

/// A block is never larger: four million weight units, each at least a byte.
const LARGEST_BLOCK: usize = 4_000_000;

const NETWORKS: [Network; 5] =
    [Network::Bitcoin, Network::Testnet, Network::Testnet4, Network::Signet, Network::Regtest];

/// What is wrong with a file of blocks.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    #[error("it holds no blocks")]
    Empty,
    #[error(
        "at offset {offset}: `{found}` is not the beginning of a block; allowed are {allowed}, the magic bytes \
         of Bitcoin's networks"
    )]
    Magic { offset: usize, found: String, allowed: String },
    #[error(
        "at offset 0: it is obfuscated, as Bitcoin Core writes its block files since version 28; decode it with \
         the key in `xor.dat` beside it, or have `bitcoind -blocksxor=0` write it anew"
    )]
    Obfuscated,
    #[error("at offset {offset}: this block is of another network (`{found}`) than the first (`{first}`)")]
    OtherNetwork { offset: usize, found: String, first: String },
    #[error(
        "at offset {offset}: the file ends within a block; {announced} bytes were announced, {left} are there"
    )]
    Truncated { offset: usize, announced: usize, left: usize },
    #[error(
        "at offset {offset}: a block of {announced} bytes is announced; a block has 81 to {LARGEST_BLOCK}"
    )]
    Length { offset: usize, announced: usize },
    #[error("at offset {offset}: this is no block")]
    Block {
        offset: usize,
        #[source]
        source: encode::Error,
    },
    #[error("at offset {offset}: the transactions of this block are not those that its header commits to")]
    Damaged { offset: usize },
    #[error(
        "at offset {offset}: this block does not link: its parent {parent} is not in the file, nor is that of the \
         block at offset {first}"
    )]
    Unlinked { offset: usize, parent: BlockHash, first: usize },
}

/// A block and where its record begins.
struct Record {
    offset: usize,
    parent: BlockHash,
    block: Arc<Block>,
}

/// The chain in a file, from its genesis block.
pub(super) fn read(path: &Path) -> Result<Vec<Arc<Block>>, SimulateError> {
    let bytes = file::read(path, file::BLOCKS)
        .map_err(|source| SimulateError::Read { path: path.to_owned(), source })?;
    parse(bytes.into()).map_err(|source| SimulateError::Blocks { path: path.to_owned(), source })
}

pub(super) fn regtest_genesis() -> Arc<Block> {
    known(Network::Regtest)
}

fn known(network: Network) -> Arc<Block> {
    let block = genesis_block(network);
    let hash = hash_of(&block.header);
    Arc::new(Block { hash, bytes: serialize(&block).into(), branch: MAIN.into() })
}

fn parse(bytes: Bytes) -> Result<Vec<Arc<Block>>, FileProblem> {
    let mut records = Vec::new();
    let mut seen = HashSet::new();
    let mut offset = 0;
    // Core reserves room at the end of its files, which reads as zeros.
    while bytes[offset..].iter().any(|byte| *byte != 0) {
        let record = record(&bytes, offset)?;
        offset += 8 + record.block.bytes.len();
        // Core may write a block twice.
        if seen.insert(record.block.hash) {
            records.push(record);
        }
    }
    link(records)
}

/// The record that begins at `offset`.
fn record(bytes: &Bytes, offset: usize) -> Result<Record, FileProblem> {
    let rest = &bytes[offset..];
    let magic = &rest[..rest.len().min(4)];
    if !NETWORKS.iter().any(|network| network.magic().to_bytes() == *magic) {
        if offset == 0 && obfuscated(rest) {
            return Err(FileProblem::Obfuscated);
        }
        let allowed = NETWORKS.map(|network| format!("`{}` ({network})", network.magic())).join(", ");
        return Err(FileProblem::Magic { offset, found: hex::encode(magic), allowed });
    }
    if *magic != bytes[..4] {
        let (found, first) = (hex::encode(magic), hex::encode(&bytes[..4]));
        return Err(FileProblem::OtherNetwork { offset, found, first });
    }
    let Some(length) = rest.get(4..8).and_then(|length| length.try_into().ok()) else {
        return Err(FileProblem::Truncated { offset, announced: 8, left: rest.len() });
    };
    let announced = u32::from_le_bytes(length) as usize;
    if !(81..=LARGEST_BLOCK).contains(&announced) {
        return Err(FileProblem::Length { offset, announced });
    }
    if rest.len() - 8 < announced {
        return Err(FileProblem::Truncated { offset, announced, left: rest.len() - 8 });
    }
    let bytes = bytes.slice(offset + 8..offset + 8 + announced);
    let block: bitcoin::Block =
        deserialize(&bytes).map_err(|source| FileProblem::Block { offset, source })?;
    if !block.check_merkle_root() {
        return Err(FileProblem::Damaged { offset });
    }
    let mut parent = block.header.prev_blockhash.to_byte_array();
    parent.reverse();
    let block = Arc::new(Block { hash: hash_of(&block.header), bytes, branch: MAIN.into() });
    Ok(Record { offset, parent: BlockHash::new(parent), block })
}

/// Whether a file begins with a record of which every 8 bytes were combined with the same key: the first 4 bytes
/// of the record and of the block then differ as a network's magic and a block's version do.
fn obfuscated(bytes: &[u8]) -> bool {
    let Some(version) = bytes.get(8..12) else { return false };
    NETWORKS.iter().any(|network| {
        let mut plain = [0; 4];
        for (index, byte) in plain.iter_mut().enumerate() {
            *byte = version[index] ^ bytes[index] ^ network.magic().to_bytes()[index];
        }
        let version = u32::from_le_bytes(plain);
        (1..=4).contains(&version) || version >> 29 == 1
    })
}

/// Orders the blocks by their parents. The longest chain counts; of equally long ones the one that is first in
/// the file.
fn link(records: Vec<Record>) -> Result<Vec<Arc<Block>>, FileProblem> {
    let places: HashMap<BlockHash, usize> =
        records.iter().enumerate().map(|(place, record)| (record.block.hash, place)).collect();
    let mut children: HashMap<BlockHash, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for (place, record) in records.iter().enumerate() {
        if places.contains_key(&record.parent) {
            children.entry(record.parent).or_default().push(place);
        } else {
            roots.push(record);
        }
    }
    let root = *roots.first().ok_or(FileProblem::Empty)?;
    if let Some(other) = roots.get(1) {
        return Err(FileProblem::Unlinked { offset: other.offset, parent: other.parent, first: root.offset });
    }
    let mut best = (0, usize::MAX);
    let mut open = vec![(places[&root.block.hash], 1u32)];
    while let Some((place, height)) = open.pop() {
        if height > best.0 || height == best.0 && place < best.1 {
            best = (height, place);
        }
        let above = children.get(&records[place].block.hash).into_iter().flatten();
        open.extend(above.map(|child| (*child, height + 1)));
    }
    let mut chain = Vec::new();
    let mut place = Some(best.1);
    while let Some(record) = place.map(|place| &records[place]) {
        chain.push(record.block.clone());
        place = places.get(&record.parent).copied();
    }
    if chain.len() < records.len() {
        tracing::warn!(blocks = records.len() - chain.len(), "blocks beside the longest chain are left out");
    }
    // A file that begins at the beginning brings its genesis block along.
    if root.parent != BlockHash::new([0; 32]) {
        chain.push(genesis(root.parent));
    }
    chain.reverse();
    Ok(chain)
}

/// The genesis block with this hash, if it is a known one; otherwise no more than its hash.
fn genesis(hash: BlockHash) -> Arc<Block> {
    let found = NETWORKS.into_iter().map(known).find(|block| block.hash == hash);
    found.unwrap_or_else(|| Arc::new(Block { hash, bytes: Bytes::new(), branch: MAIN.into() }))
}
