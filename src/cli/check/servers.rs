//! Whether the servers of the source answer, and as many of them agree as must.

use super::Findings;
use crate::block::{BlockRef, Height};
use crate::config::Config;
use crate::failure;
use crate::pipeline::PipelineError;
use crate::source::{Claim, Reading, Source, SourceError};

/// A reading at each server that can be asked.
pub(super) async fn open(config: &Config, findings: &mut Findings) -> Vec<Reading> {
    let source = match Source::new(&config.source) {
        Ok(source) => source,
        Err(error) => {
            findings.bad("source", &error.into());
            return Vec::new();
        }
    };
    let opened = source.open_each().await;
    let is_one = opened.len() == 1;
    let answering = opened.iter().filter(|(_, opened)| opened.is_ok()).count();
    let mut readings = Vec::new();
    for (server, opened) in opened {
        let what = if is_one { "source".to_owned() } else { format!("source {server}") };
        match opened {
            Ok(Some(reading)) => {
                findings.good(&what, format!("reachable, tip at height {}", reading.tip().height));
                readings.push(reading);
            }
            Ok(None) => findings.good(&what, "reachable, nothing indexed yet".into()),
            Err(error) => findings.bad(&what, &error.into()),
        }
    }
    if source.quorum() > 1 {
        quorum(&source, &readings, answering, findings).await;
    }
    readings
}

/// Whether as many servers as must agree do so on the highest block that so many have.
async fn quorum(source: &Source, readings: &[Reading], answering: usize, findings: &mut Findings) {
    const WHAT: &str = "quorum";
    let quorum = source.quorum();
    if answering < quorum {
        return findings.say_bad(
            WHAT,
            format!(
                "{answering} of `source.urls` answer, and {quorum} must agree on a block (`source.quorum`)"
            ),
        );
    }
    let mut heights: Vec<Height> = readings.iter().map(|reading| reading.tip().height).collect();
    heights.sort_unstable_by(|one, other| other.cmp(one));
    if heights.len() < quorum {
        return findings.note(format!("{WHAT}: fewer than {quorum} servers have indexed anything yet"));
    }
    // So many have these heights; servers on another chain may be among them.
    heights.drain(..quorum - 1);
    heights.dedup();
    let mut disagreement = None;
    for height in heights {
        for reading in readings.iter().filter(|reading| reading.tip().height >= height) {
            match agreed(source, reading, height).await {
                Ok(block) => {
                    findings.good(WHAT, format!("{quorum} servers agree on block {block}"));
                    if let Some(error) = disagreement {
                        findings.note(format!("{WHAT}: {}", failure::chain(&error)));
                    }
                    return;
                }
                Err(error) => disagreement = disagreement.or(Some(error)),
            }
        }
    }
    if let Some(error) = disagreement {
        findings.bad(WHAT, &error.into());
    }
}

/// The block that this server has at that height, if as many agree on it as must.
async fn agreed(source: &Source, reading: &Reading, height: Height) -> Result<BlockRef, PipelineError> {
    let (hash, state_root) = tokio::try_join!(reading.hash(height), reading.state_root(height))?;
    let Some(hash) = hash else {
        let url = reading.server().to_string();
        return Err(SourceError::NoHashes { url, height }.into());
    };
    let block = BlockRef { height, hash };
    let claim = Claim { block, state_root, views: Vec::new() };
    source.confirm(&reading.server(), claim).await?;
    Ok(block)
}
