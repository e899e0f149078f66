//! Logs: one line an event on standard error, as text for people or as JSON for machines.
//!
//! Standard output is left to what a command was asked for. Whatever an event says, it is one line, and has no
//! characters that a terminal obeys: `printable` escapes them here, for all events.

use std::io::{IsTerminal, Write};

use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;

#[cfg(feature = "otlp")]
use crate::otlp::layer as traces;
use crate::printable;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people; in colours on a terminal, unless `NO_COLOR` is set.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why nothing is logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter cannot be read; examples are `info` and `warn,debshrew=debug`")]
    Filter,
    #[error("cannot set up logging")]
    SetUp(#[source] SetGlobalDefaultError),
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Traces(#[from] crate::otlp::OtlpError),
}

/// Whether `filter` can be read: levels (`info`), targets with levels (`debshrew=debug`), or several of them
/// separated by commas.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    read(filter).map(drop)
}

/// Begins to log. To be called once a process.
pub fn init(filter: &str, format: Format) -> Result<(), TelemetryError> {
    #[cfg(feature = "otlp")]
    crate::otlp::begin()?;
    tracing::subscriber::set_global_default(subscriber(read(filter)?, format, std::io::stderr))
        .map_err(TelemetryError::SetUp)
}

/// Sends what is left to send. To be called when the process ends.
pub fn end() {
    #[cfg(feature = "otlp")]
    crate::otlp::end();
}

/// Built without the feature `otlp`, the log is all there is.
#[cfg(not(feature = "otlp"))]
fn traces() -> tracing_subscriber::layer::Identity {
    tracing_subscriber::layer::Identity::new()
}

fn subscriber<W>(filter: EnvFilter, format: Format, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        Format::Text => {
            // As the usual form, but for what it does to each value; the rest of the line may be in colours.
            let fields = debug_fn(|writer, field, value| {
                let value = format!("{value:?}");
                match field.name() {
                    "message" => write!(writer, "{}", printable::line(&value)),
                    name => write!(writer, "{name}={}", printable::line(&value)),
                }
            });
            let lines = lines.with_writer(writer).fmt_fields(fields.delimited(" "));
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let lines = lines.with_ansi(std::io::stderr().is_terminal() && !no_colour);
            Box::new(lines.finish().with(filter_fn(may_be_logged)).with(traces()))
        }
        Format::Json => {
            let lines = lines.with_writer(Printable(writer));
            let lines = lines.json().flatten_event(true).with_current_span(false);
            Box::new(lines.finish().with(filter_fn(may_be_logged)).with(traces()))
        }
    }
}

/// A writer, or the maker of one, to which events come as whole lines. JSON itself escapes but some of what is unfit.
struct Printable<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Printable<W> {
    type Writer = Printable<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Printable(self.0.make_writer())
    }
}

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(printable::lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn read(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(filter).map_err(|_| TelemetryError::Filter)
}

/// What libraries say in detail may hold what they send: URLs, headers, statements. Of them nothing below `info` is
/// logged, whatever the filter says.
fn may_be_logged(event: &Metadata<'_>) -> bool {
    let target = event.target();
    let is_ours = target == "debshrew" || target.starts_with("debshrew::");
    is_ours || *event.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_targets() {
        for good in ["info", "debshrew=debug", "warn,debshrew::apply=trace", "off"] {
            assert!(check_filter(good).is_ok(), "{good}");
        }
        let wrong = check_filter("debshrew=loud").unwrap_err().to_string();
        assert!(!wrong.contains("loud") && wrong.contains("examples"), "{wrong}");
    }

    #[test]
    fn libraries_say_nothing_in_detail() {
        for format in [Format::Text, Format::Json] {
            let log = tempfile::NamedTempFile::new().unwrap();
            let subscriber = subscriber(read("trace").unwrap(), format, log.reopen().unwrap());
            tracing::subscriber::with_default(subscriber, || {
                tracing::debug!(target: "hyper_util", "sesame");
                tracing::trace!(target: "debshrewd", "sesame");
                tracing::info!(target: "deadpool", "one");
                tracing::trace!(target: "debshrew::source", "two");
            });
            let text = std::fs::read_to_string(log.path()).unwrap();
            assert!(text.lines().count() == 2 && !text.contains("sesame"), "{text}");
        }
    }

    #[test]
    fn json_lines_are_objects_with_the_event_s_fields() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let subscriber = subscriber(read("warn").unwrap(), Format::Json, log.reopen().unwrap());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not asked for");
            tracing::warn!(height = 7, "halted");
        });
        let text = std::fs::read_to_string(log.path()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["message"], &line["height"], &line["level"]),
            (&"halted".into(), &7.into(), &"WARN".into())
        );
    }

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let hostile = "a\n2026-01-01T00:00:00Z ERROR debshrew: forged\r\x1b[2J\u{9b}31m\u{202e}\u{2028}\x7f";
        for format in [Format::Text, Format::Json] {
            let log = tempfile::NamedTempFile::new().unwrap();
            let subscriber = subscriber(read("info").unwrap(), format, log.reopen().unwrap());
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("{hostile}");
                tracing::info!(plain = hostile, shown = %hostile, "quoted");
            });
            let text = std::fs::read_to_string(log.path()).unwrap();
            assert_eq!(text.lines().count(), 2, "{text}");
            let unfit = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2028}".contains(c));
            assert!(!text.contains(unfit), "{text:?}");
            if format == Format::Json {
                let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
                assert_eq!(line["message"], hostile);
            } else {
                assert!(
                    text.contains(r"a\n2026-01-01T00:00:00Z ERROR debshrew: forged\r\u001b[2J"),
                    "{text}"
                );
                assert!(text.contains(r#" quoted plain="a\n2026"#), "{text}");
            }
        }
    }
}
