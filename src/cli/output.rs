//! How answers and errors look. Answers go to standard output, everything else to standard error. Whatever comes by
//! here has no characters that a terminal obeys, and what others have a say in begins no line.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use clap::builder::StyledStr;
use comfy_table::{Cell, ContentArrangement, Table, presets};

use super::Error;
use crate::config;
use crate::failure::causes;
use crate::printable;
use crate::telemetry::{self, Format};
use crate::terminal::{Paint, Tone};

/// Writes an answer and a line's end. That nobody reads on (`debshrew status | head -1`) is no error.
pub fn print(text: &str) -> Result<(), Error> {
    offer(text, Paint::None).map(drop)
}

/// Whether somebody reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    There,
    Gone,
}

/// The same for an answer that others follow, or one in colours: whatever others have a say in was made fit before these
/// were put in.
pub fn offer(text: &str, paint: Paint) -> Result<Reader, Error> {
    let text = match paint {
        Paint::None => printable::lines(text),
        Paint::Ansi => Cow::Borrowed(text),
    };
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Error::Output(error)),
    }
}

/// Writes a question, to be answered on the same line.
pub fn ask(question: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    write!(out, "{}", printable::lines(question)).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Rows under a header, in columns that two spaces part; cells wrap at a terminal's width.
pub fn table<R: IntoIterator<Item = String>>(header: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let rows = rows.into_iter().map(|row| row.into_iter().map(|text| cell(&text)).collect());
    painted_table(header, rows, Paint::None)
}

/// What stands in a cell of a table.
pub fn cell(text: &str) -> Cell {
    Cell::new(printable::line(text))
}

/// The same table, with cells that may be in colours.
pub fn painted_table(header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>, paint: Paint) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if paint == Paint::Ansi {
        table.enforce_styling();
    }
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Reports why a command failed: what, the causes below it, and what to do; as a line of the log where that is JSON.
pub fn error(error: &Error, format: Format) {
    let text = match format {
        Format::Text => report(error, Paint::of_stderr()),
        Format::Json => json_report(error),
    };
    telemetry::write(&text);
}

/// Answers `--help`, or says what is wrong with a command line; repeats nothing of it that may hold a secret.
pub fn usage(error: &clap::Error, arguments: impl Iterator<Item = OsString>) {
    if !error.use_stderr() {
        // There is nobody to tell when even this cannot be printed.
        let _ = error.print();
        return;
    }
    let paint = Paint::of_stderr();
    let shown = |styled: StyledStr| match paint {
        Paint::Ansi => styled.ansi().to_string(),
        // Takes what seems to be styles out of arguments as well.
        Paint::None => styled.to_string(),
    };
    let mut text = shown(error.render());
    for argument in arguments {
        let argument = argument.to_string_lossy();
        let value = argument.split_once('=').map_or("", |(_, value)| value);
        for part in [&*argument, value] {
            let repeated = shown(part.to_owned().into());
            if repeated.is_empty() {
                continue;
            }
            if config::may_hold_secret(part) {
                text = text.replace(&repeated, "…");
            } else if let Cow::Owned(fit) = printable::line(part) {
                text = text.replace(&repeated, &fit);
            }
        }
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn report(error: &Error, paint: Paint) -> String {
    let mut text = format!("{} {}\n", paint.paint(Tone::Bad, "error:"), indented(&error.to_string()));
    for cause in causes(error) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  caused by: {}", indented(&cause));
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "hint: {}", indented(&hint));
    }
    text
}

fn json_report(error: &Error) -> String {
    let mut fields = vec![
        ("message", error.to_string().into()),
        ("causes", causes(error).into()),
        ("exit_code", (error.exit() as u8).into()),
    ];
    fields.extend(error.hint().map(|hint| ("hint", hint.into())));
    telemetry::json_line(tracing::Level::ERROR, "debshrew", fields)
}

/// Of several lines, all but the first are set in further than what we ourselves say.
fn indented(text: &str) -> String {
    printable::lines(text).replace('\n', "\n    ")
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
    }
}
