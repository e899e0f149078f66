//! What a block is called: its height, its hash, both together.
//!
//! Knows nothing of where blocks come from or what is done with them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A block's position in the chain; the genesis block has height 0.
///
/// PostgreSQL keeps it as `integer`, so the highest height that can be stored is 2^31 - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct Height(u32);

impl Height {
    pub const MAX: Height = Height(i32::MAX as u32);

    /// `None` above [`Height::MAX`].
    pub fn new(height: u32) -> Option<Height> {
        (height <= Height::MAX.0).then_some(Height(height))
    }

    pub fn get(self) -> u32 {
        self.0
    }

    /// As PostgreSQL's `integer`.
    pub fn to_sql(self) -> i32 {
        self.0 as i32
    }

    /// From PostgreSQL's `integer`; `None` for a negative number.
    pub fn from_sql(height: i32) -> Option<Height> {
        u32::try_from(height).ok().map(Height)
    }

    /// The height above; stays at [`Height::MAX`].
    pub fn next(self) -> Height {
        Height((self.0 + 1).min(Height::MAX.0))
    }

    /// The height below; `None` below the genesis block.
    pub fn previous(self) -> Option<Height> {
        self.0.checked_sub(1).map(Height)
    }

    /// `blocks` lower, or 0.
    pub fn saturating_sub(self, blocks: u32) -> Height {
        Height(self.0.saturating_sub(blocks))
    }

    /// `blocks` higher, or [`Height::MAX`].
    pub fn saturating_add(self, blocks: u32) -> Height {
        Height(self.0.saturating_add(blocks).min(Height::MAX.0))
    }

    /// How many blocks this height lies above `other`; 0 when it does not.
    pub fn blocks_above(self, other: Height) -> u32 {
        self.0.saturating_sub(other.0)
    }
}

impl TryFrom<u32> for Height {
    type Error = String;

    fn try_from(height: u32) -> Result<Height, String> {
        Height::new(height).ok_or_else(|| format!("{height} is no height; the highest is {}", Height::MAX))
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block's hash: the 32 bytes in the order in which the source gives them, which is the order that
/// Bitcoin shows (the double SHA-256 of the header, reversed).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    pub fn new(bytes: [u8; 32]) -> BlockHash {
        BlockHash(bytes)
    }

    /// `None` unless there are 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<BlockHash> {
        bytes.try_into().ok().map(BlockHash)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the source says of all that it holds as of a block: the same for the same program over the same blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateRoot([u8; 32]);

impl StateRoot {
    /// `None` unless there are 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<StateRoot> {
        bytes.try_into().ok().map(StateRoot)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for StateRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for StateRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What was found where a block hash was expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no block hash; a block hash has 64 hex digits")]
pub struct NotABlockHash(String);

impl Serialize for BlockHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BlockHash, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for BlockHash {
    type Err = NotABlockHash;

    /// 64 hex digits, with or without `0x` before them.
    fn from_str(text: &str) -> Result<BlockHash, NotABlockHash> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes)
            .map_err(|_| NotABlockHash(text.chars().take(80).collect()))?;
        Ok(BlockHash(bytes))
    }
}

/// Height and hash together: the only name under which a block is ever committed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BlockRef {
    pub height: Height,
    pub hash: BlockHash,
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.height, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_stay_inside_what_postgres_can_store() {
        assert_eq!(Height::new(i32::MAX as u32 + 1), None);
        assert_eq!(Height::MAX.next(), Height::MAX);
        assert_eq!(Height::from_sql(-1), None);
        assert_eq!(Height::new(0).and_then(Height::previous), None);
    }

    #[test]
    fn a_hash_reads_what_it_shows() {
        let shown = "1ea9a480a72fbdc58b24076dffd0f0c2cbe3fe4518366f9c2caee724a63888b7";
        let hash: BlockHash = shown.parse().unwrap();
        assert_eq!(hash.to_string(), shown);
        assert_eq!(format!("0x{shown}").parse(), Ok(hash));
        assert!("0x1e".parse::<BlockHash>().is_err());
        assert!("".parse::<BlockHash>().is_err());
        assert!(format!("{shown}00").parse::<BlockHash>().is_err());
    }
}
