//! A file sink that loses whatever was not synced, at any byte: what it says of its position is what its files hold.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::Path;

use debshrew::block::BlockRef;
use debshrew::config::{Compression, Format, Sink as Settings};
use debshrew::relay::format::Lines;
use debshrew::relay::{Position, Sink, Step, StepKind};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::files::{names, sink};
use super::steps::{about, apply, balances, block, cursor, event, moment, snapshot, to_file};

#[derive(Clone, Debug)]
enum Turn {
    Apply {
        rows: u8,
    },
    /// Takes back some blocks, and so few of them that it may be interrupted in between.
    Retract {
        blocks: u8,
    },
    Snapshot {
        parts: u8,
        whole: bool,
    },
    Flush,
    /// Ends without a flush, or in the middle of one; what was not synced is cut, and rubbish stands behind.
    Crash {
        in_flush: bool,
        rows: u16,
        transactions: u16,
        rubbish: u8,
    },
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        6 => (0..4_u8).prop_map(|rows| Turn::Apply { rows }),
        2 => (1..4_u8).prop_map(|blocks| Turn::Retract { blocks }),
        1 => (1..5_u8, any::<bool>()).prop_map(|(parts, whole)| Turn::Snapshot { parts, whole }),
        3 => Just(Turn::Flush),
        3 => (any::<bool>(), any::<u16>(), any::<u16>(), any::<u8>())
            .prop_map(|(in_flush, rows, transactions, rubbish)| Turn::Crash { in_flush, rows, transactions, rubbish }),
    ];
    prop::collection::vec(turn, 1..40)
}

/// What was given to the sink, and what of it is safe.
struct Stream {
    settings: Settings,
    sink: Box<dyn Sink>,
    steps: Vec<Step>,
    /// So many steps were flushed.
    flushed: usize,
    /// How long a segment gets.
    full: u64,
    /// How long the files were then.
    synced: BTreeMap<String, u64>,
    chain: Vec<BlockRef>,
    reorg: i64,
    salt: u8,
}

impl Stream {
    fn tip(&self) -> Option<BlockRef> {
        self.chain.last().copied()
    }

    async fn publish(&mut self, step: Step) {
        self.sink.publish(&step).await.unwrap();
        self.steps.push(step);
    }

    async fn turn(&mut self, path: &Path, turn: &Turn) -> Result<(), TestCaseError> {
        self.salt = self.salt.wrapping_add(1);
        match turn {
            Turn::Apply { rows } => {
                let previous = self.tip();
                let at = block(self.chain.len() as u32, self.salt);
                self.chain.push(at);
                let step = apply(at, previous, self.reorg, rows_of(*rows, self.salt));
                self.publish(step).await;
            }
            Turn::Retract { blocks } => self.retract(usize::from(*blocks)).await,
            Turn::Snapshot { parts, whole } => {
                for part in 0..*parts {
                    let last = *whole && part + 1 == *parts;
                    let mut step = snapshot(self.tip(), part.into(), last, rows_of(2, self.salt));
                    step.cursor.reorg = self.reorg;
                    self.publish(step).await;
                }
                if !whole {
                    // A stream is not continued behind a part of a snapshot but by a crash.
                    self.crash(path, (false, 0, 0, 0)).await?;
                }
            }
            Turn::Flush => {
                self.sink.flush().await.unwrap();
                self.flushed = self.steps.len();
                self.synced = lengths(path);
            }
            Turn::Crash { in_flush, rows, transactions, rubbish } => {
                self.crash(path, (*in_flush, *rows, *transactions, *rubbish)).await?;
            }
        }
        Ok(())
    }

    async fn retract(&mut self, blocks: usize) {
        let fork = self.chain.len().saturating_sub(blocks);
        let fork = fork.checked_sub(1).map(|place| self.chain[place]);
        let reorg = self.reorg + 1;
        while let Some(at) = self.tip().filter(|tip| Some(*tip) != fork) {
            self.chain.pop();
            let previous = self.tip();
            let past = if previous == fork { reorg } else { self.reorg };
            let kind = StepKind::Retract { block: at, previous, fork, reorg };
            let events = rows_of(1, self.salt);
            self.publish(Step { kind, events, cursor: cursor(previous, past), at: moment() }).await;
        }
        self.reorg = reorg;
    }

    async fn crash(&mut self, path: &Path, how: (bool, u16, u16, u8)) -> Result<(), TestCaseError> {
        let (in_flush, rows, transactions, rubbish) = how;
        let before = lengths(path);
        if in_flush {
            self.sink.flush().await.unwrap();
        }
        let after = lengths(path);
        // Takes its thread along, which writes no more.
        self.sink = sink(&self.settings);
        let open = |files: &BTreeMap<String, u64>| -> Vec<String> {
            files.keys().filter(|name| name.ends_with(".jsonl.part")).cloned().collect()
        };
        for (name, length) in &after {
            let file = path.join(name);
            if name.ends_with(".jsonl.part") {
                let transactions = after[&name.replace(".jsonl.part", ".transactions.jsonl")];
                // A segment that is full was synced when it was left.
                let is_synced = in_flush || length.saturating_add(transactions) >= self.full;
                let safe = if is_synced { *length } else { self.synced.get(name).copied().unwrap_or(0) };
                cut(&file, safe, *length, rows, rubbish);
            } else if name.ends_with(".transactions.jsonl")
                && after.contains_key(&name.replace("transactions.jsonl", "jsonl.part"))
            {
                // Segments are renamed once all their lines are safe.
                let is_cut = in_flush && open(&before) == open(&after);
                let safe = if is_cut { before.get(name).copied().unwrap_or(*length) } else { *length };
                cut(&file, safe, *length, transactions, rubbish);
            }
        }
        let position = self.sink.open().await.unwrap();
        self.hold(path, position)
    }

    /// Holds the position to the files, and goes on from there.
    fn hold(&mut self, path: &Path, position: Position) -> Result<(), TestCaseError> {
        let held = rows(path);
        let mut all = Vec::new();
        let mut lines = Lines::new(&self.settings, &about());
        let mut found = (held.is_empty() && position == Position::Empty).then_some(0);
        for (place, step) in self.steps.iter().enumerate() {
            lines.write(step, &mut all);
            if step.completes() && position == Position::At(step.cursor) && all == held {
                found = Some(place + 1);
            }
        }
        let Some(found) = found else {
            return Err(TestCaseError::fail(format!(
                "{position:?} is not where the files end: {}",
                String::from_utf8_lossy(&held)
            )));
        };
        let safe = self.steps[..self.flushed].iter().rposition(Step::completes).map_or(0, |place| place + 1);
        prop_assert!(found >= safe, "{found} steps are left of {safe} that were flushed");
        // As a stream, it begins again there.
        self.steps.truncate(found);
        self.flushed = found;
        self.synced = lengths(path);
        self.chain.clear();
        self.reorg = 0;
        for step in self.steps.iter().filter(|step| step.completes()) {
            self.reorg = step.cursor.reorg;
            match &step.kind {
                StepKind::Apply { block, .. } => self.chain.push(*block),
                StepKind::Retract { .. } => drop(self.chain.pop()),
                StepKind::Snapshot { .. } => {}
            }
        }
        Ok(())
    }
}

fn rows_of(count: u8, salt: u8) -> Vec<debshrew::undo::Event> {
    let table = balances();
    let row = |number: u8| {
        let (address, amount) = (format!("a{number}"), salt.to_string());
        event(&table, None, Some(&[Some(&address), Some(&amount), None]))
    };
    (0..count).map(row).collect()
}

fn lengths(path: &Path) -> BTreeMap<String, u64> {
    let length = |name: String| {
        let length = std::fs::metadata(path.join(&name)).map_or(0, |found| found.len());
        (name, length)
    };
    names(path).into_iter().map(length).collect()
}

/// Cuts a file somewhere above what is safe, and appends rubbish if something was cut.
fn cut(file: &Path, safe: u64, length: u64, place: u16, rubbish: u8) {
    let loose = length.saturating_sub(safe);
    let to = safe + loose * u64::from(place) / u64::from(u16::MAX);
    let mut file = OpenOptions::new().append(true).open(file).unwrap();
    file.set_len(to).unwrap();
    let all =
        [&b"{\"status\":\"END\",\"bytes\":"[..], &[0; 9], b"\n\n", b"\xff\n{}", b"{\"status\":\"BEGIN\"}\n"];
    if to < length {
        file.write_all(all.iter().cycle().nth(rubbish.into()).unwrap()).unwrap();
    }
}

/// All rows, in the order of the segments.
fn rows(path: &Path) -> Vec<u8> {
    'again: loop {
        let mut all = Vec::new();
        let names = names(path);
        for name in names.iter().filter(|name| !name.contains("transactions")) {
            // Compressed meanwhile, or about to be.
            let is_double = name.ends_with(".jsonl") && names.contains(&format!("{name}.zst"));
            if is_double || name.ends_with(".zst.part") {
                continue;
            }
            let Ok(mut file) = std::fs::File::open(path.join(name)) else { continue 'again };
            if name.ends_with(".zst") {
                ruzstd::decoding::StreamingDecoder::new(file).unwrap().read_to_end(&mut all).unwrap();
            } else {
                file.read_to_end(&mut all).unwrap();
            }
        }
        return all;
    }
}

async fn follow(
    turns: &[Turn],
    full: u64,
    settings: impl Fn(&Path) -> Settings,
) -> Result<(), TestCaseError> {
    // Nothing is lost when the machine goes down: the test itself loses what was not synced.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let settings = settings(folder.path());
    let mut sink = sink(&settings);
    assert_eq!(sink.open().await.unwrap(), Position::Empty);
    let mut stream = Stream {
        settings,
        sink,
        steps: Vec::new(),
        flushed: 0,
        full,
        synced: BTreeMap::new(),
        chain: Vec::new(),
        reorg: 0,
        salt: 0,
    };
    for turn in turns {
        stream.turn(folder.path(), turn).await?;
    }
    stream.turn(folder.path(), &Turn::Flush).await?;
    stream.crash(folder.path(), (false, 0, 0, 0)).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_position_is_what_the_files_hold(
        turns in turns(), bytes in prop::sample::select(vec![1, 900, 4_000, u64::MAX]), packed: bool, compact: bool
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let compression = if packed { Compression::Zstd } else { Compression::None };
        let format = if compact { Format::Compact } else { Format::Debezium };
        runtime.block_on(follow(&turns, bytes, |path| Settings { format, ..to_file(path, bytes, compression) }))?;
    }
}
