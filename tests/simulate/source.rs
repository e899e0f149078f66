//! The source client against the stand-in: whatever a reading says holds is right, wherever a reorganisation
//! stands when it begins, asks and ends.

use std::collections::BTreeMap;
use std::time::Duration;

use debshrew::block::{BlockHash, Height};
use debshrew::config;
use debshrew::simulate::{Phase, Simulator, Status};
use debshrew::source::{Reading, Source, Verdict};

use super::http::in_time;
use super::reorgs::{mine, reorg, step, stepped};

fn question(view: &str) -> debshrew::view::Question {
    debshrew::view::Question { view: view.to_owned(), input: Vec::new() }
}

/// A client that follows a stand-in and tries nothing twice.
pub fn source(simulator: &Simulator) -> Source {
    Source::new(&settings(simulator)).unwrap()
}

pub fn settings(simulator: &Simulator) -> config::Source {
    config::Source {
        urls: vec![simulator.url()],
        quorum: 1,
        username: None,
        password: None,
        bearer_token: None,
        headers: BTreeMap::new(),
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(60),
        retries: 0,
        max_response_bytes: 1 << 20,
        max_connections: 4,
        poll_interval: Duration::from_secs(1),
        wedge_timeout: Duration::from_secs(60),
    }
}

/// What comes of asking; `None` if a rollback holds a call, upon which it is given up.
async fn unless_held<T>(simulator: &Simulator, asking: impl Future<Output = T>) -> Option<T> {
    /// What is held is not let go before the next step.
    const HELD: Duration = Duration::from_millis(20);
    match is_locked(simulator.status().index.phase) {
        true => tokio::time::timeout(HELD, asking).await.ok(),
        false => Some(in_time(asking).await),
    }
}

/// Whether calls for the height and for hashes wait.
fn is_locked(phase: Phase) -> bool {
    matches!(phase, Phase::RollingBack | Phase::HalfRolledBack)
}

/// A reading, and what it was told so far.
struct Asked {
    reading: Reading,
    began: Phase,
    answers: Vec<Told>,
}

struct Told {
    phase: Phase,
    height: Height,
    hash: Option<BlockHash>,
    /// `None` for a view that failed.
    block: Option<Vec<u8>>,
}

impl Asked {
    async fn ask(&mut self, phase: Phase, simulator: &Simulator) {
        for height in [12, 17, 18, 20, 22].map(|height| Height::new(height).unwrap()) {
            if height <= self.reading.tip().height {
                let hash = unless_held(simulator, self.reading.hash(height)).await;
                let Some(hash) = hash.transpose().unwrap() else { continue };
                let view = in_time(self.reading.view(&question("getblock"), height)).await.unwrap();
                self.answers.push(Told { phase, height, hash, block: view.ok() });
            }
        }
    }

    /// Whether every block is the one that its hash says.
    fn check(&self, ended: Phase) {
        for Told { phase: asked, height, hash, block } in &self.answers {
            let place =
                format!("begun in {:?}, asked in {asked:?} at {height}, ended in {ended:?}", self.began);
            let hash = hash.unwrap_or_else(|| panic!("no hash: {place}"));
            let block = block.as_ref().unwrap_or_else(|| panic!("a failed view: {place}"));
            let header = block.get(..80).unwrap_or_else(|| panic!("an empty view: {place}"));
            let header: bitcoin::block::Header = bitcoin::consensus::deserialize(header).unwrap();
            assert_eq!(header.block_hash().to_string(), hash.to_string(), "{place}");
        }
    }
}

#[tokio::test]
async fn a_reading_that_holds_is_right_in_every_phase() {
    for (depth, length) in [(3, 5), (1, 1)] {
        let simulator = stepped().await;
        let source = source(&simulator);
        let mut readings: Vec<Asked> = Vec::new();
        let (mut held, mut moved, mut phases) = (0, 0, Vec::new());
        reorg(&simulator, depth, length).await;
        loop {
            let phase = simulator.status().index.phase;
            phases.push(phase);
            let opened = unless_held(&simulator, source.open()).await;
            assert_eq!(opened.is_none(), is_locked(phase), "{phase:?}");
            if let Some(reading) = opened {
                let reading = reading.unwrap().unwrap();
                readings.push(Asked { reading, began: phase, answers: Vec::new() });
            }
            for asked in &mut readings {
                asked.ask(phase, &simulator).await;
                match unless_held(&simulator, asked.reading.close()).await.transpose().unwrap() {
                    Some(Verdict::Held { .. }) => {
                        held += 1;
                        asked.check(phase);
                    }
                    Some(Verdict::Moved(_)) => moved += 1,
                    None => {}
                }
            }
            if phase == Phase::Following {
                break;
            }
            step(&simulator).await;
        }
        assert_eq!(phases.len() as u32, 5 + 2 * length - 1, "{phases:?}");
        assert!(held >= phases.len() - 2 && moved >= 2, "{held} {moved}");
        let tip = source.tip().await.unwrap().unwrap();
        assert_eq!(tip, simulator.status().node.height);
        assert_eq!(simulator.status().calls("metashrew_preview"), 0);
    }
}

#[tokio::test]
async fn a_rise_and_a_fall_within_a_reading_do_not_pass_unseen() {
    for depth in [1, 2] {
        let simulator = stepped().await;
        let source = source(&simulator);
        let reading = source.open().await.unwrap().unwrap();
        let tip = reading.tip().height;
        let blocktracker = question("blocktracker");
        let view = || reading.view(&blocktracker, tip);
        mine(&simulator, depth).await;
        in_time(simulator.until(Status::settled)).await;
        let calls = simulator.status().calls("metashrew_height");
        in_time(async {
            while simulator.status().calls("metashrew_height") == calls {
                view().await.unwrap().unwrap();
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Down to where the reading began, and views are wrong meanwhile.
        reorg(&simulator, depth, depth).await;
        while step(&simulator).await != Phase::HalfRolledBack {}
        let whole = tip.get() as usize + 1;
        // They do not wait for the look at the tip that is held.
        while view().await.unwrap().is_ok_and(|bytes| bytes.len() == whole) {}
        while step(&simulator).await != Phase::RolledBack {}
        assert_eq!(simulator.status().index.height, Some(tip));
        assert!(matches!(reading.close().await.unwrap(), Verdict::Moved(_)));
    }
}
