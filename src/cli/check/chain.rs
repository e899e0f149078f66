//! Whether the source has the chain that is committed, and the block that comes next.

use super::{Error, Findings};
use crate::block::{BlockRef, Height};
use crate::config;
use crate::db::Db;
use crate::pipeline::{Chains, Compared, PipelineError, Roots, check_depth, compare_roots, explain_lacking};
use crate::register::{self, Checkpoint, Registered};
use crate::source::{Reading, Verdict};

pub(super) async fn check(
    db: &Db,
    (name, settings): &(&str, &config::Pipeline),
    reading: &Reading,
    is_one: bool,
    findings: &mut Findings,
) {
    let what = match is_one {
        true => format!("chain of `{name}`"),
        false => format!("chain of `{name}` at {}", reading.server()),
    };
    if let Err(error) = compare(db, name, settings, reading, (&what, is_one), findings).await {
        findings.bad(&what, &error);
    }
}

async fn compare(
    db: &Db,
    name: &str,
    settings: &config::Pipeline,
    reading: &Reading,
    (what, is_one): (&str, bool),
    findings: &mut Findings,
) -> Result<(), Error> {
    let (registered, checkpoint) = committed(db, name).await?;
    let tip = reading.tip().height;
    if let (Some(pipeline), Some(at)) = (&registered, checkpoint.block) {
        match (Chains { db, pipeline, checkpoint, reading }).compare().await? {
            Compared::Same if tip < at.height => {
                let then = match is_one {
                    true => "waits for it",
                    false => "does not follow it while another may be ahead",
                };
                findings.note(format!(
                    "{what}: the source is at height {tip}, behind block {at}, which is committed; `run` {then}"
                ));
            }
            Compared::Same => {
                let Some(states) = states(db, pipeline, at, reading).await? else {
                    findings.note(format!("{what}: the source moves: check again"));
                    return Ok(());
                };
                findings.good(what, format!("block {at} is the source's as well{states}"));
            }
            Compared::Lacking(height) => {
                findings.say_bad(what, explain_lacking(reading, height, true).await?);
                return Ok(());
            }
            Compared::Moved(how) => findings.note(format!("{what}: the source moves ({how}): check again")),
            Compared::Parted(parting) => {
                check_depth(&parting, settings.max_reorg_depth, None, pipeline, checkpoint)?;
                let blocks = if parting.depth == 1 { "block" } else { "blocks" };
                let when = if is_one { "" } else { " if it follows this server" };
                findings.note(format!(
                    "{what}: the source has changed to another branch: {parting}: `run` will roll back {} {blocks}{when}",
                    parting.depth
                ));
            }
        }
    }
    let next = checkpoint.block.map_or(settings.start_height, |block| block.height.next());
    lacking(reading, next, checkpoint.block.is_some(), what, findings).await
}

/// What there is to say of the state roots that were compared, in addition; `None` if the source moved meanwhile.
async fn states(
    db: &Db,
    pipeline: &Registered,
    at: BlockRef,
    reading: &Reading,
) -> Result<Option<&'static str>, Error> {
    let roots = compare_roots(db, pipeline, at, reading).await?;
    if let Verdict::Moved(_) = reading.close().await.map_err(PipelineError::from)? {
        return Ok(None);
    }
    match roots {
        Roots::Same(0) => Ok(Some("; its state was not compared, as no state root of it is there")),
        Roots::Same(_) => Ok(Some(", and so is its state root")),
        Roots::Other(other) => Err(PipelineError::OtherState(Box::new(other)).into()),
    }
}

async fn committed(db: &Db, name: &str) -> Result<(Option<Registered>, Checkpoint), Error> {
    let client = db.client().await?;
    let nothing = Checkpoint { block: None, floor: None };
    Ok(match register::find(&**client, name).await? {
        Some(found) => {
            let checkpoint = register::checkpoint(&**client, found.id).await?;
            (Some(found), checkpoint)
        }
        None => (None, nothing),
    })
}

/// Whether the source has what comes next.
async fn lacking(
    reading: &Reading,
    next: Height,
    begun: bool,
    what: &str,
    findings: &mut Findings,
) -> Result<(), Error> {
    let lacks = async {
        match next > reading.tip().height || reading.hash(next).await?.is_some() {
            true => Ok(None),
            false => explain_lacking(reading, next, begun).await.map(Some),
        }
    };
    if let Some(reason) = lacks.await? {
        findings.say_bad(what, reason);
    }
    Ok(())
}
