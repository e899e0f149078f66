//! Logs: one line an event on standard error, as text for people or as JSON for machines.
//!
//! Standard output is left to what a command was asked for. Knows nothing of ours.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
    #[error("`{filter}` is no log filter: {problem}; examples are `info` and `warn,debshrew=debug`")]
    Filter { filter: String, problem: String },
    #[error("cannot set up logging")]
    SetUp(#[source] SetGlobalDefaultError),
}

/// Whether `filter` can be read: levels (`info`), targets with levels (`debshrew=debug`), or several of them
/// separated by commas.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    read(filter).map(drop)
}

/// Begins to log. To be called once a process.
pub fn init(filter: &str, format: Format) -> Result<(), TelemetryError> {
    tracing::subscriber::set_global_default(subscriber(read(filter)?, format, std::io::stderr))
        .map_err(TelemetryError::SetUp)
}

fn subscriber<W>(filter: EnvFilter, format: Format, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        Format::Text => {
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Box::new(lines.with_ansi(std::io::stderr().is_terminal() && !no_colour).finish())
        }
        Format::Json => Box::new(lines.json().flatten_event(true).with_current_span(false).finish()),
    }
}

fn read(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(filter)
        .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), problem: error.to_string() })
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
        assert!(wrong.contains("`debshrew=loud`") && wrong.contains("examples"), "{wrong}");
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
}
