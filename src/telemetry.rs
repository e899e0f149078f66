//! Logs: one line an event on standard error, as text for people or as JSON for machines.
//!
//! Standard output is left to what a command was asked for. Knows nothing of ours.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

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
    SetUp(#[source] TryInitError),
}

/// Whether `filter` can be read: levels (`info`), targets with levels (`debshrew=debug`), or several of them
/// separated by commas.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    read(filter).map(drop)
}

/// Begins to log. To be called once a process.
pub fn init(filter: &str, format: Format) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let lines = tracing_subscriber::fmt().with_env_filter(read(filter)?).with_writer(std::io::stderr);
    match format {
        Format::Text => {
            let ansi =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            lines.with_ansi(ansi).finish().try_init()
        }
        Format::Json => lines.json().flatten_event(true).with_current_span(false).finish().try_init(),
    }
    .map_err(TelemetryError::SetUp)
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
}
