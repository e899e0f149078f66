//! How answers and errors look. Answers go to standard output, everything else to standard error. Whatever comes by
//! here has no characters that a terminal obeys, and what others have a say in begins no line.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write as _};

use clap::builder::StyledStr;
use comfy_table::{ContentArrangement, Table, presets};

use super::Error;
use crate::config;
use crate::failure::causes;
use crate::printable;

/// Writes an answer and a line's end. That nobody reads on (`debshrew status | head -1`) is no error.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", printable::lines(text)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Writes a question, to be answered on the same line.
pub fn ask(question: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    write!(out, "{}", printable::lines(question)).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Rows under a header, in columns that two spaces part; cells wrap at a terminal's width.
pub fn table<R: IntoIterator<Item = String>>(header: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| printable::line(&cell).into_owned()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Reports why a command failed: what, the causes below it, and what to do.
pub fn error(error: &Error) {
    // There is nobody to tell when even this cannot be written.
    let _ = std::io::stderr().lock().write_all(report(error, Paint::of_stderr()).as_bytes());
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

#[derive(Clone, Copy)]
enum Paint {
    None,
    Ansi,
}

impl Paint {
    fn of_stderr() -> Paint {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if std::io::stderr().is_terminal() && wanted { Paint::Ansi } else { Paint::None }
    }

    fn red(self, text: &str) -> String {
        match self {
            Paint::None => text.to_owned(),
            Paint::Ansi => format!("\x1b[1;31m{text}\x1b[0m"),
        }
    }
}

fn report(error: &Error, paint: Paint) -> String {
    let mut text = format!("{} {}\n", paint.red("error:"), indented(&error.to_string()));
    for cause in causes(error) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  caused by: {}", indented(&cause));
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "hint: {}", indented(&hint));
    }
    text
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
