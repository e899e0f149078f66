//! What `run` shows on a terminal: a line a pipeline below the log, with how far it is or what keeps it from going on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use console::{measure_text_width, pad_str};
use tokio_util::task::AbortOnDropHandle;

use super::amounts::{grouped, pace, span};
use crate::observe::{Observer, PipelineSnapshot, Snapshot, State};
use crate::printable;
use crate::telemetry;
use crate::terminal::{self, Paint, Tone};

/// Between two drawings.
const PAUSE: Duration = Duration::from_millis(100);

/// Ages grow though nothing happens.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How far below the source's tip a pipeline may be for a moment, and still be called at the tip.
const AT_TIP: u32 = 1;

const SHORTEST_BAR: usize = 8;
const LONGEST_BAR: usize = 30;

/// Where a pipeline is to get.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// So far below the source's tip.
    pub confirmations: u32,
    pub until: Option<u32>,
}

/// The lines, kept up to date until this is dropped; they then stay as they are in the end.
pub struct Bars {
    painter: Painter,
    _keeping: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Painter {
    observer: Observer,
    aims: Arc<HashMap<String, Aim>>,
    paint: Paint,
}

impl Bars {
    /// `None` where there is no terminal that could show them. To be called on a runtime.
    pub fn open(observer: &Observer, aims: HashMap<String, Aim>) -> Option<Bars> {
        if !terminal::open_bottom() {
            return None;
        }
        let painter = Painter { observer: observer.clone(), aims: Arc::new(aims), paint: Paint::of_stderr() };
        let keeping = tokio::spawn(painter.clone().keep());
        Some(Bars { painter, _keeping: AbortOnDropHandle::new(keeping) })
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // What was logged before belongs above them.
        telemetry::drain();
        self.painter.draw();
        terminal::close_bottom();
    }
}

impl Painter {
    async fn keep(self) {
        let mut changes = self.observer.changes();
        loop {
            self.draw();
            let _ = tokio::time::timeout(LONGEST_PAUSE, changes.changed()).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn draw(&self) {
        terminal::show_at_bottom(|width| lines(&self.observer.snapshot(), &self.aims, width, self.paint));
    }
}

fn lines(all: &Snapshot, aims: &HashMap<String, Aim>, width: usize, paint: Paint) -> Vec<String> {
    let longest = all.pipelines.iter().map(|one| one.name.len()).max().unwrap_or_default();
    let line = |one: &PipelineSnapshot| {
        let aim = aims.get(&one.name).copied().unwrap_or(Aim { confirmations: 0, until: None });
        let name = pad_str(&one.name, longest, console::Alignment::Left, None);
        let rest = width.saturating_sub(longest + 2);
        format!("{name}  {}", told(one, aim, all.now, rest, paint))
    };
    all.pipelines.iter().map(line).collect()
}

/// What a pipeline does, in so many characters if that can be.
fn told(one: &PipelineSnapshot, aim: Aim, now: f64, width: usize, paint: Paint) -> String {
    let because = |what: String, tone: Tone| match &one.reason {
        Some(reason) => format!("{}: {}", paint.paint(tone, &what), printable::line(reason)),
        None => paint.paint(tone, &what),
    };
    let at = one
        .height
        .map_or("before the first block".to_owned(), |height| format!("at {}", grouped(height.into())));
    match one.state {
        State::Starting => "starting".to_owned(),
        State::Standby => because("standing by".to_owned(), Tone::Dim),
        State::Waiting => because(format!("waiting for {}", span(now - one.since)), Tone::Warning),
        State::Halted => because("halted".to_owned(), Tone::Bad),
        State::Stopped => format!("stopped {at}"),
        State::Running => match end(one, aim) {
            None => "running".to_owned(),
            Some(end) if one.height.is_some_and(|height| height + AT_TIP >= end) => at_tip(one, now, paint),
            Some(end) => progress(one, end, width, paint),
        },
    }
}

/// The highest block that can be committed now.
fn end(one: &PipelineSnapshot, aim: Aim) -> Option<u32> {
    let end = one.source_height?.checked_sub(aim.confirmations)?;
    Some(aim.until.map_or(end, |until| end.min(until)))
}

fn at_tip(one: &PipelineSnapshot, now: f64, paint: Paint) -> String {
    let height = grouped(one.height.unwrap_or_default().into());
    let last = one.blocks.first();
    let last = last.map(|block| format!(", last block {} ago", span(now - block.committed_at)));
    let notice = one.reason.as_ref().map(|notice| format!("; {}", printable::line(notice)));
    let at = paint.paint(Tone::Good, "at the tip");
    format!("{at} {height}{}{}", last.unwrap_or_default(), notice.unwrap_or_default())
}

/// As much as there is room for, and a bar if some is left.
fn progress(one: &PipelineSnapshot, end: u32, width: usize, paint: Paint) -> String {
    let next = one.height.map_or(one.first_height, |height| height + 1);
    let done = next.saturating_sub(one.first_height);
    let all = (end + 1).saturating_sub(one.first_height).max(1);
    let part = (f64::from(done) / f64::from(all)).min(1.0);
    let position = match one.height {
        Some(height) => format!("{} of {}", grouped(height.into()), grouped(end.into())),
        None => format!("before block {} of {}", grouped(one.first_height.into()), grouped(end.into())),
    };
    let percent = format!("{:.0} %", (part * 100.0).floor());
    let pace = pace(one.blocks_per_second);
    let left = f64::from((end + 1).saturating_sub(next)) / one.blocks_per_second;
    let left = left.is_finite().then(|| format!("{} left", span(left)));
    let full: Vec<&str> = [&position, &percent, &pace].into_iter().chain(&left).map(String::as_str).collect();
    let brief: Vec<&str> = [&position, &percent].into_iter().chain(&left).map(String::as_str).collect();
    let fits = |parts: &Vec<&str>| measure_text_width(&parts.join(", ")) <= width;
    let text = [full, brief].into_iter().find(fits).unwrap_or_else(|| vec![&position]).join(", ");
    let room = width.saturating_sub(measure_text_width(&text) + 2).min(LONGEST_BAR);
    match room {
        0..SHORTEST_BAR => text,
        _ => {
            let filled = (part * room as f64) as usize;
            let bar = paint.paint(Tone::Good, &"━".repeat(filled));
            format!("{bar}{}  {text}", paint.paint(Tone::Dim, &"─".repeat(room - filled)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockHash, BlockRef, Height};
    use crate::observe::CommittedBlock;

    const AIM: Aim = Aim { confirmations: 0, until: None };

    fn snapshot() -> PipelineSnapshot {
        let observer = Observer::default();
        let watched = observer.pipeline("ledger", Height::new(0).unwrap(), 0);
        let at = BlockRef { height: Height::new(2_252).unwrap(), hash: BlockHash::new([1; 32]) };
        watched.source_tip(Height::new(6_000).unwrap());
        watched.committed(&CommittedBlock { at, tables: &[] });
        watched.state(State::Running, None, None);
        let mut one = observer.snapshot().pipelines.remove(0);
        one.blocks_per_second = 81.4;
        (one.since, one.blocks[0].committed_at) = (100.0, 110.0);
        one
    }

    fn shown(one: &PipelineSnapshot, aim: Aim, width: usize) -> String {
        told(one, aim, 113.5, width, Paint::None)
    }

    #[test]
    fn catching_up_is_told_as_fully_as_there_is_room() {
        let one = snapshot();
        let text = "2 252 of 6 000, 37 %, 81 blocks/s, 46 s left";
        assert_eq!(shown(&one, AIM, 200), format!("{}{}  {text}", "━".repeat(11), "─".repeat(19)));
        assert_eq!(shown(&one, AIM, 60), format!("{}{}  {text}", "━".repeat(5), "─".repeat(9)));
        assert_eq!(shown(&one, AIM, 50), text);
        assert_eq!(shown(&one, AIM, 32), "2 252 of 6 000, 37 %, 46 s left");
        assert_eq!(shown(&one, AIM, 10), "2 252 of 6 000");
        let aim = Aim { confirmations: 0, until: Some(3_000) };
        assert_eq!(shown(&one, aim, 50), "2 252 of 3 000, 75 %, 81 blocks/s, 9 s left");
        let slow = PipelineSnapshot { blocks_per_second: 0.0, ..one };
        assert_eq!(shown(&slow, AIM, 34), "2 252 of 6 000, 37 %, 0 blocks/s");
        let first = PipelineSnapshot { height: None, first_height: 0, ..slow };
        assert_eq!(shown(&first, AIM, 46), "before block 0 of 6 000, 0 %, 0 blocks/s");
        let later = PipelineSnapshot { first_height: 5_001, ..first };
        assert_eq!(shown(&later, AIM, 46), "before block 5 001 of 6 000, 0 %, 0 blocks/s");
    }

    #[test]
    fn at_the_tip_it_is_calm() {
        let one = PipelineSnapshot { source_height: Some(2_253), ..snapshot() };
        assert_eq!(shown(&one, AIM, 80), "at the tip 2 252, last block 3 s ago");
        let confirmed = PipelineSnapshot { source_height: Some(2_258), ..snapshot() };
        let aim = Aim { confirmations: 6, until: None };
        assert_eq!(shown(&confirmed, aim, 80), "at the tip 2 252, last block 3 s ago");
    }

    #[test]
    fn what_keeps_it_from_going_on_is_said_in_one_line() {
        let reason = Some("the source\nsays \x1b[2J".to_owned());
        let waiting = PipelineSnapshot { state: State::Waiting, reason, ..snapshot() };
        assert_eq!(shown(&waiting, AIM, 80), r"waiting for 13 s: the source\nsays \u001b[2J");
        let halted = PipelineSnapshot { state: State::Halted, ..waiting };
        assert_eq!(
            told(&halted, AIM, 113.5, 80, Paint::Ansi),
            "\x1b[1;31mhalted\x1b[0m: the source\\nsays \\u001b[2J"
        );
        let stopped = PipelineSnapshot { state: State::Stopped, reason: None, ..snapshot() };
        assert_eq!(shown(&stopped, AIM, 80), "stopped at 2 252");
    }
}
