//! A row per block: the smallest transform that is of use.

use bitcoin_slices::{bsl, Parse};
use debshrew_sdk::{double_sha256, row, Block, Error, Hash, Timestamp, Transform};

row! {
    /// A row of table `blocks`.
    struct BlockRow in "blocks" {
        key { height: u32 }
        hash: Hash,
        previous_hash: Hash,
        time: Timestamp,
        transactions: usize,
        size: usize,
    }
}

/// The transform.
pub struct Blocks;

impl Transform for Blocks {
    const NAME: &'static str = "blocks";

    fn process_block(block: &mut Block) -> Result<(), Error> {
        let height = block.height();
        let bytes = block.view("getblock", b"")?;
        if bytes.is_empty() {
            return Err(format!("view `getblock` answered nothing at height {height}").into());
        }
        let parsed = bsl::Block::parse(&bytes)
            .map_err(|error| format!("view `getblock` gave no block at height {height}: {error:?}"))?;
        let header = parsed.parsed().header();
        block.upsert(&BlockRow {
            height,
            hash: Hash::from_internal(double_sha256(&[header.block_hash_preimage()])),
            previous_hash: Hash::from_internal(header.prev_blockhash().try_into()?),
            time: Timestamp(header.time()),
            transactions: parsed.parsed().total_transactions(),
            size: parsed.consumed(),
        });
        Ok(())
    }
}

debshrew_sdk::export!(Blocks);

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::blockdata::constants::genesis_block;
    use bitcoin::Network;
    use debshrew_sdk::testing::Host;

    #[test]
    fn the_genesis_block_is_a_row() {
        let mut host = Host::new();
        let block = genesis_block(Network::Bitcoin);
        host.answer("getblock", b"", &bitcoin::consensus::serialize(&block));
        let changes = host.run::<Blocks>(0, [0; 32]).unwrap();
        assert_eq!(changes.len(), 1);
        let row = &changes[0].columns;
        assert_eq!(changes[0].table, "blocks");
        assert_eq!(row["hash"], "\\x000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f");
        assert_eq!(row["previous_hash"], format!("\\x{}", "00".repeat(32)));
        assert_eq!(row["time"], "2009-01-03T18:15:05Z");
        assert_eq!((&row["height"], &row["transactions"], &row["size"]), (&0.into(), &1.into(), &285.into()));
        assert!(host.state.is_empty());
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let mut host = Host::new();
        let failure = |host: &mut Host| host.run::<Blocks>(5, [0; 32]).unwrap_err().to_string();
        assert_eq!(failure(&mut host), "view `getblock` failed at height 5");
        host.answer("getblock", b"", b"");
        assert_eq!(failure(&mut host), "view `getblock` answered nothing at height 5");
        host.answer("getblock", b"", &[1; 100]);
        assert!(failure(&mut host).starts_with("view `getblock` gave no block at height 5: "));
    }
}
