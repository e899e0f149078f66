//! The transform's state as evaluation sees it: what blocks that are not committed yet have written, over what
//! the database holds, and what was read lately.
//!
//! Correct because the pipeline's writer is the only one that writes the state: an entry that is kept is what
//! the database holds, or will hold when the block that wrote it is committed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::block::Height;
use crate::table::StateWrite;

/// Above this many bytes, what the database holds too is forgotten.
const MOST_BYTES: usize = 16 << 20;

/// What a HashMap's entry costs beside its key and value, roughly.
const ENTRY_BYTES: usize = 96;

#[derive(Default)]
pub(super) struct StateCache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    entries: HashMap<Vec<u8>, Entry>,
    bytes: usize,
    /// How often entries were forgotten.
    generation: u64,
}

/// The value, and the block that wrote it if that may not be committed yet.
type Entry = (Option<Vec<u8>>, Option<Height>);

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its value, or that there is none.
    Value(Option<Vec<u8>>),
    /// The database is to be asked, and [`StateCache::read`] told.
    Unknown { generation: u64 },
}

impl StateCache {
    /// Counts how often entries were forgotten. While it stays the same, a key that is not here was not written
    /// by any block that the database may not hold yet.
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    pub(super) fn look(&self, key: &[u8]) -> Found {
        let entries = self.lock();
        match entries.entries.get(key) {
            Some((value, _)) => Found::Value(value.clone()),
            None => Found::Unknown { generation: entries.generation },
        }
    }

    /// Remembers what the database held at that generation, unless a later write is known or may have been
    /// forgotten, or much is remembered already.
    pub(super) fn read(&self, key: &[u8], value: Option<&Vec<u8>>, generation: u64) {
        let mut entries = self.lock();
        if entries.generation == generation
            && entries.bytes < MOST_BYTES
            && !entries.entries.contains_key(key)
        {
            entries.insert(key.to_vec(), value.cloned(), None);
        }
    }

    /// Whether all that was read since that generation is still so.
    pub(super) fn holds(&self, read: &HashMap<Vec<u8>, Option<Vec<u8>>>, generation: u64) -> bool {
        let entries = self.lock();
        read.iter().all(|(key, value)| match entries.entries.get(key) {
            Some((now, _)) => now == value,
            None => entries.generation == generation,
        })
    }

    pub(super) fn wrote(&self, height: Height, writes: &[StateWrite]) {
        let mut entries = self.lock();
        for (key, value) in writes {
            entries.insert(key.clone(), value.clone(), Some(height));
        }
    }

    /// Blocks up to this one are in the database now.
    pub(super) fn committed(&self, height: Height) {
        let mut entries = self.lock();
        if entries.bytes > MOST_BYTES {
            entries.generation += 1;
            entries.entries.retain(|_, (_, written)| written.is_some_and(|written| written > height));
            entries.bytes = entries.entries.iter().map(|(key, (value, _))| size(key, value.as_deref())).sum();
        }
    }

    /// Forgets everything: after a rollback, or when evaluations are thrown away.
    pub(super) fn clear(&self) {
        let mut entries = self.lock();
        *entries = Entries { generation: entries.generation + 1, ..Entries::default() };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Nothing panics while it is held; if it did, the entries would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn insert(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, written: Option<Height>) {
        self.bytes += size(&key, value.as_deref());
        let key_size = key.len();
        if let Some((old, _)) = self.entries.insert(key, (value, written)) {
            self.bytes -= key_size + old.map_or(0, |old| old.len()) + ENTRY_BYTES;
        }
    }
}

fn size(key: &[u8], value: Option<&[u8]>) -> usize {
    key.len() + value.map_or(0, <[u8]>::len) + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn height(height: u32) -> Height {
        Height::new(height).unwrap()
    }

    fn known(cache: &StateCache, key: &[u8]) -> Option<Option<Vec<u8>>> {
        match cache.look(key) {
            Found::Value(value) => Some(value),
            Found::Unknown { .. } => None,
        }
    }

    #[test]
    fn what_is_read_and_never_committed_does_not_add_up() {
        let cache = StateCache::default();
        let value = vec![0; 1 << 20];
        for key in 0..100u8 {
            cache.read(&[key], Some(&value), 0);
        }
        assert!(cache.lock().bytes <= MOST_BYTES + value.len() + 2 * ENTRY_BYTES);
        assert!(known(&cache, &[0]).is_some());
    }

    #[test]
    fn a_write_that_is_not_committed_outlives_what_the_database_holds() {
        let cache = StateCache::default();
        cache.wrote(height(7), &[(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)]);
        cache.read(b"a", None, 0);
        assert_eq!(known(&cache, b"a"), Some(Some(b"1".to_vec())));
        assert_eq!(known(&cache, b"b"), Some(None));
        assert_eq!(known(&cache, b"c"), None);

        cache.wrote(height(8), &[(b"big".to_vec(), Some(vec![0; MOST_BYTES]))]);
        cache.committed(height(7));
        assert_eq!(known(&cache, b"a"), None, "the database holds it");
        assert!(known(&cache, b"big").is_some(), "it is not committed");
        cache.committed(height(8));
        assert_eq!(known(&cache, b"big"), None);
        assert_eq!(cache.lock().bytes, 0);
    }

    #[test]
    fn what_was_read_holds_until_a_block_below_writes_something_else() {
        let cache = StateCache::default();
        let read = HashMap::from([(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)]);
        assert!(cache.holds(&read, 0), "nothing was written since");
        cache.wrote(height(7), &[(b"a".to_vec(), Some(b"1".to_vec())), (b"c".to_vec(), None)]);
        assert!(cache.holds(&read, 0), "the same was written");
        cache.wrote(height(8), &[(b"b".to_vec(), Some(Vec::new()))]);
        assert!(!cache.holds(&read, 0));
    }

    #[test]
    fn what_was_read_before_something_was_forgotten_is_neither_kept_nor_taken_to_hold() {
        let cache = StateCache::default();
        let read = HashMap::from([(b"a".to_vec(), None)]);
        let Found::Unknown { generation } = cache.look(b"a") else { panic!("it is known") };
        // Meanwhile a block writes the key, is committed, and forgotten.
        cache.wrote(height(7), &[(b"a".to_vec(), Some(vec![0; MOST_BYTES]))]);
        cache.committed(height(7));
        cache.read(b"a", None, generation);
        assert_eq!(known(&cache, b"a"), None);
        assert!(!cache.holds(&read, generation));
    }
}
