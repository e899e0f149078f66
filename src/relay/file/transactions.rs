//! The file that says how far a segment is committed: a line for the beginning and the end of each step.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::register::Cursor;
use crate::relay::format::{Status, control};
use crate::relay::step::Step;

/// The end of a step that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The segment's length in rows' bytes.
    pub(super) bytes: u64,
    /// `None` for the parts of a snapshot that others follow.
    pub(super) cursor: Option<Cursor>,
    /// Where the line ends.
    pub(super) at: u64,
}

#[derive(serde::Deserialize)]
struct Line {
    status: String,
    bytes: u64,
    cursor: Option<Cursor>,
}

/// Appends a step's lines. `bytes`: how long the segment is with it.
pub(super) fn write(step: &Step, bytes: u64, out: &mut Vec<u8>) {
    for status in Status::of(step) {
        control(status, step, false, out);
        if status == Status::End {
            // Goes on with what only this file has.
            out.pop();
            out.extend_from_slice(format!(",\"bytes\":{bytes}").as_bytes());
            if step.completes() {
                out.extend_from_slice(b",\"cursor\":");
                // A cursor is no value that could not be written, and a vector takes everything.
                let _ = serde_json::to_writer(&mut *out, &step.cursor);
            }
            out.push(b'}');
        }
        out.push(b'\n');
    }
}

/// The last end that `wanted` takes, if there is one; what follows it was not completed. Reads from the file's end backwards.
pub(super) fn last_end(file: &File, wanted: impl Fn(&End) -> bool) -> io::Result<Option<End>> {
    let length = file.metadata()?.len();
    let mut window: u64 = 64 << 10;
    loop {
        let from = length.saturating_sub(window);
        let mut text = vec![0; usize::try_from(length - from).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut text, from)?;
        // The first line may have begun before.
        let skipped = if from == 0 {
            0
        } else {
            text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1)
        };
        let mut end = text.len();
        // What stands behind the last line feed is torn.
        while let Some(feed) = text[skipped..end].iter().rposition(|byte| *byte == b'\n') {
            let feed = skipped + feed;
            let start = text[skipped..feed]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(skipped, |before| skipped + before + 1);
            if let Some(found) = read(&text[start..feed], from + feed as u64 + 1).filter(|end| wanted(end)) {
                return Ok(Some(found));
            }
            end = feed;
        }
        if from == 0 {
            return Ok(None);
        }
        window = window.saturating_mul(8);
    }
}

fn read(line: &[u8], at: u64) -> Option<End> {
    let line: Line = serde_json::from_slice(line).ok()?;
    (line.status == "END").then_some(End { bytes: line.bytes, cursor: line.cursor, at })
}
