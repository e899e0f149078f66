//! What a transform sees of its block: where it stands, views, state, logs; and the changes that it emits.

use crate::abi::{Changes, RowWriter};
use crate::row::{Row, Shape};
use crate::{Error, Hash, Host, Transform};

/// A block that is being processed.
pub struct Block {
    host: Host,
    height: u32,
    hash: Hash,
    changes: Changes,
}

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Block {
    pub(crate) fn new<T: Transform>(host: Host, height: u32, hash: Hash) -> Block {
        Block { host, height, hash, changes: Changes::new(T::NAME, height, hash) }
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// The block's hash, in the order in which Bitcoin shows hashes.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// A view's answer at this block's height. Fails if the source has no such view or it failed; the source's
    /// words are then in the log.
    pub fn view(&mut self, name: &str, input: &[u8]) -> Result<Vec<u8>, Error> {
        let height = self.height;
        self.host.view(name, input).ok_or_else(|| format!("view `{name}` failed at height {height}").into())
    }

    /// The value of a key of the transform's state, as blocks before or this one left it. An empty value and
    /// none are alike.
    pub fn state(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.host.get_state(key)
    }

    pub fn set_state(&mut self, key: &[u8], value: &[u8]) {
        self.host.set_state(key, value);
    }

    /// Gives whether the key was there. The host has to look for that: leave keys alone that never were.
    pub fn delete_state(&mut self, key: &[u8]) -> bool {
        self.host.delete_state(key)
    }

    /// A line of debshrew's log.
    pub fn log(&mut self, line: &str) {
        self.host.stdout(line);
    }

    /// A line of debshrew's log that is a warning; the last ones are shown when the transform fails.
    pub fn warn(&mut self, line: &str) {
        self.host.stderr(line);
    }

    /// The row has these values afterwards, whether it existed or not. Columns that the struct lacks keep their
    /// value, or are at their defaults in a new row.
    pub fn upsert<R: Row>(&mut self, row: &R) {
        self.emit(Operation::Create, R::SHAPE, |out| row.write(out));
    }

    /// As [`upsert`](Block::upsert), for a row that is known to exist: sets the columns that the struct has and
    /// leaves the others alone. (The host inserts the row if it is missing all the same.)
    pub fn update<R: Row>(&mut self, row: &R) {
        self.emit(Operation::Update, R::SHAPE, |out| row.write(out));
    }

    /// The row with this key is gone afterwards, whether it existed or not. Each [`row!`](crate::row) has a
    /// function `delete` that calls this with its key.
    pub fn delete(&mut self, key: &'static Shape, write: impl FnOnce(&mut RowWriter<'_>)) {
        self.emit(Operation::Delete, key, write);
    }

    fn emit(&mut self, operation: Operation, shape: &'static Shape, write: impl FnOnce(&mut RowWriter<'_>)) {
        self.changes.change(operation, shape, write);
        self.changes.hand_over(&mut self.host);
    }

    /// What has not been handed over yet.
    pub(crate) fn finish(self) -> (Host, Changes) {
        (self.host, self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Operation, Tables};
    use crate::{row, Bytes};

    row! {
        struct Coin<'a> in "coins" {
            key { txid: Bytes<'a>, position: u32 }
            owner: &'a str,
        }
    }

    row! {
        struct Spent in "coins" {
            key { txid: Bytes<'static>, position: u32 }
            height: u32,
        }
    }

    struct Coins;

    impl Transform for Coins {
        const NAME: &'static str = "coins";

        fn process_block(block: &mut Block) -> Result<(), Error> {
            block.log("begins");
            let (txid, height) = (Bytes(&[1]), block.height());
            block.upsert(&Coin { txid, position: 0, owner: "a" });
            block.upsert(&Coin { txid, position: 1, owner: "b\"" });
            block.update(&Spent { txid, position: 0, height });
            Coin::delete(block, txid, 1);
            block.set_state(b"empty", b"");
            block.set_state(b"kept", b"1");
            assert!(block.delete_state(b"empty") && !block.delete_state(b"empty"));
            block.view("unknown", b"").map(|_| ())
        }
    }

    #[test]
    fn messages_are_those_of_the_version() {
        let mut block = Block::new::<Coins>(Host::new(), 7, Hash([0xab; 32]));
        assert!(Coins::process_block(&mut block).is_err());
        let (mut host, changes) = block.finish();
        let list = changes.finish(&mut host);
        crate::abi::read::tests::messages(&[host.emitted, list].concat());
    }

    #[test]
    fn a_block_that_fails_leaves_its_log_and_nothing_else() {
        let mut host = Host::new();
        let error = host.run::<Coins>(7, [0; 32]).unwrap_err();
        assert_eq!(error.to_string(), "view `unknown` failed at height 7");
        assert!(host.state.is_empty());
        assert_eq!(host.log, ["begins"]);
    }

    #[test]
    fn an_update_leaves_other_columns_alone_and_a_delete_takes_the_row() {
        let mut host = Host::new();
        host.answer("unknown", b"", b"");
        let changes = host.run::<Coins>(7, [0; 32]).unwrap();
        assert_eq!(host.state.keys().collect::<Vec<_>>(), [b"kept"]);
        assert_eq!(changes[3].operation, Operation::Delete);
        let mut tables = Tables::new(&[("coins", &["txid", "position"])]);
        tables.apply(&changes).unwrap();
        let rows = tables.rows("coins");
        assert_eq!(rows.len(), 1);
        assert_eq!((&rows[0]["owner"], &rows[0]["height"]), (&"a".into(), &7.into()));
        let unknown = Tables::new(&[]).apply(&changes).unwrap_err().to_string();
        assert_eq!(unknown, "there is no table `coins`");
    }
}
