//! How answers and errors look. Answers go to standard output, everything else to standard error.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write as _};

use comfy_table::{ContentArrangement, Table, presets};

use super::Error;
use crate::failure::causes;

/// Writes an answer and a line's end. That nobody reads on (`debshrew status | head -1`) is no error.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Writes a question, to be answered on the same line.
pub fn ask(question: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    write!(out, "{question}").and_then(|()| out.flush()).map_err(Error::Output)
}

/// Rows under a header, in columns that two spaces part; cells wrap at a terminal's width.
pub fn table<R: IntoIterator<Item = String>>(header: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A name and a value a line, the values aligned.
pub fn lines(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

/// Reports why a command failed: what, the causes below it, and what to do.
pub fn error(error: &Error) {
    let stderr = std::io::stderr();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // There is nobody to tell when even this cannot be written.
    let _ = stderr.lock().write_all(report(error, if colour { Paint::Ansi } else { Paint::None }).as_bytes());
}

#[derive(Clone, Copy)]
enum Paint {
    None,
    Ansi,
}

impl Paint {
    fn red(self, text: &str) -> String {
        match self {
            Paint::None => text.to_owned(),
            Paint::Ansi => format!("\x1b[1;31m{text}\x1b[0m"),
        }
    }
}

fn report(error: &Error, paint: Paint) -> String {
    let mut text = format!("{} {error}\n", paint.red("error:"));
    for cause in causes(error) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  caused by: {}", cause.replace('\n', "\n  "));
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigError;

    #[test]
    fn an_error_shows_its_causes_once_and_what_to_do() {
        let lost = std::io::Error::new(ErrorKind::NotFound, "no such file");
        let unreadable = Error::Config(ConfigError::Unreadable { path: "a.toml".into(), source: lost });
        assert_eq!(
            report(&unreadable, Paint::None),
            "error: cannot read the configuration file `a.toml`\n  caused by: no such file\n"
        );
        let report = report(&Error::Config(ConfigError::NoSource), Paint::Ansi);
        let (first, second) = report.split_once('\n').unwrap();
        assert_eq!(first, "\x1b[1;31merror:\x1b[0m no source is configured");
        assert!(second.starts_with("hint: set `urls`"), "{second}");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let rows = [["ledger", "running"], ["b", "halted"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&["name", "state"], rows), "name    state\nledger  running\nb       halted");
        assert_eq!(lines(&[("height", "7".to_owned()), ("lag", "0".to_owned())]), "height  7\nlag     0");
    }
}
