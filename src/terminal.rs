//! Terminals: where colours are wanted, and lines that are kept up to date in place while others scroll above them.
//!
//! Knows nothing of what the lines say.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use console::{Term, is_dumb, measure_text_width, truncate_str};

/// The lines at the bottom of standard error, once there are some: whoever writes there must write above them.
static BOTTOM: Mutex<Option<Live>> = Mutex::new(None);

/// Whether there are some: whoever asks does not wait for one who writes.
static HAS_BOTTOM: AtomicBool = AtomicBool::new(false);

/// Whether text may be in colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    None,
    Ansi,
}

/// What colours mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Warning,
    Bad,
    Dim,
}

impl Paint {
    pub fn of_stderr() -> Paint {
        Paint::of(&Term::stderr())
    }

    pub fn of_stdout() -> Paint {
        Paint::of(&Term::stdout())
    }

    fn of(term: &Term) -> Paint {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if term.is_term() && wanted { Paint::Ansi } else { Paint::None }
    }

    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
            Tone::Dim => "2",
        };
        match self {
            Paint::None => text.to_owned(),
            Paint::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// Text that does not hold any more, with a line through it.
    pub fn strike(self, text: &str) -> String {
        match self {
            Paint::None => text.to_owned(),
            Paint::Ansi => format!("\x1b[9m{text}\x1b[0m"),
        }
    }
}

/// Text in lines of so many characters, broken between words where that can be.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut rest = word;
        loop {
            let line = lines.last().map_or(0, |line| measure_text_width(line));
            let gap = usize::from(line > 0);
            if line + gap + measure_text_width(rest) <= width {
                if let Some(line) = lines.last_mut() {
                    line.push_str(&" "[..gap]);
                    line.push_str(rest);
                }
                break;
            }
            if line == 0 {
                // Longer than a line: as much of it as there is room for.
                let part = truncate_str(rest, width.max(2), "");
                rest = &rest[part.len()..];
                lines.pop();
                lines.push(part.into_owned());
            }
            lines.push(String::new());
        }
    }
    lines
}

/// Lines that are kept up to date in place. The cursor rests below them, so that what the terminal itself writes there,
/// such as `^C`, does not disturb them.
pub struct Live {
    term: Term,
    shown: Vec<String>,
}

impl Live {
    /// On standard output, if lines can be changed there.
    pub fn on_stdout() -> Option<Live> {
        Live::on(Term::buffered_stdout())
    }

    fn on(term: Term) -> Option<Live> {
        let is_able = term.is_term() && !is_dumb();
        is_able.then_some(Live { term, shown: Vec::new() })
    }

    /// How many characters a line may have.
    pub fn width(&self) -> usize {
        // The last column is left free: terminals differ in what comes of a line that ends there.
        usize::from(self.term.size().1).saturating_sub(1).max(1)
    }

    /// Shows these lines in place of those before; none is broken, and none lies above the screen.
    pub fn show(&mut self, lines: Vec<String>) -> io::Result<()> {
        self.erase()?;
        self.shown = lines;
        self.draw()
    }

    /// Writes whole lines above.
    fn above(&mut self, text: &[u8]) -> io::Result<()> {
        self.erase()?;
        self.term.write_all(text)?;
        self.draw()
    }

    /// Lets whole lines be written above by other means.
    fn aside(&mut self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.erase()?;
        self.term.flush()?;
        let written = write();
        self.draw()?;
        written
    }

    fn erase(&mut self) -> io::Result<()> {
        let columns = usize::from(self.term.size().1).max(1);
        // A terminal that became narrower has broken them.
        let rows = self.shown.iter().map(|line| measure_text_width(line).div_ceil(columns).max(1)).sum();
        self.term.clear_line()?;
        self.term.clear_last_lines(rows)
    }

    fn draw(&mut self) -> io::Result<()> {
        let width = self.width();
        let most = usize::from(self.term.size().0).saturating_sub(1).max(1);
        let too_many = self.shown.len().saturating_sub(most);
        if too_many > 0 {
            self.shown.truncate(most - 1);
            self.shown.push(format!("… and {} more", too_many + 1));
        }
        for line in &mut self.shown {
            *line = truncate_str(line, width, "…").into_owned();
            self.term.write_all(line.as_bytes())?;
            self.term.write_all(b"\n")?;
        }
        self.term.flush()
    }
}

/// Begins to keep lines at the bottom of standard error, if that is a terminal on which lines can be changed. Returns
/// whether it is.
pub fn open_bottom() -> bool {
    let live = Live::on(Term::buffered_stderr());
    let is_open = live.is_some();
    *bottom() = live;
    HAS_BOTTOM.store(is_open, Ordering::SeqCst);
    is_open
}

/// Whether there are lines at the bottom of standard error.
pub fn has_bottom() -> bool {
    HAS_BOTTOM.load(Ordering::SeqCst)
}

/// Shows these lines at the bottom of standard error, given its width.
pub fn show_at_bottom(lines: impl FnOnce(usize) -> Vec<String>) {
    if let Some(live) = bottom().as_mut() {
        let lines = lines(live.width());
        // There is nobody to tell when even this cannot be written.
        let _ = live.show(lines);
    }
}

/// Leaves the lines where they are; what is written from now on comes below them.
pub fn close_bottom() {
    *bottom() = None;
    HAS_BOTTOM.store(false, Ordering::SeqCst);
}

/// Standard error, above the lines at its bottom. To be written to in whole lines.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bottom().as_mut() {
            Some(live) => live.above(bytes)?,
            None => io::stderr().lock().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Standard output; on a terminal, above the lines at the bottom of standard error. To be written to in whole lines.
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        };
        // A pipe may make whoever writes there wait for long, and the lines must not wait along.
        if io::stdout().is_terminal()
            && let Some(live) = bottom().as_mut()
        {
            live.aside(write)?;
        } else {
            write()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

fn bottom() -> MutexGuard<'static, Option<Live>> {
    // Nothing panics while it is held.
    BOTTOM.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_within_those_that_are_longer_than_a_line() {
        assert_eq!(wrapped("the source does not answer", 11), ["the source", "does not", "answer"]);
        assert_eq!(wrapped("at http://127.0.0.1:5598 now", 10), ["at", "http://127", ".0.0.1:559", "8 now"]);
        assert_eq!(wrapped("größer 日本語", 6), ["größer", "日本語"]);
        assert_eq!(wrapped("日本語", 5), ["日本", "語"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
