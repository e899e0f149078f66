//! `debshrew config`

use super::{Error, Globals, output};
use crate::config::Settings;

const HELP: &str = "\
Examples:
  debshrew config
  debshrew config --config production.toml
  DEBSHREW__SOURCE__RETRIES=9 debshrew config | grep retries";

/// Print the configuration in force and where each value came from, secrets hidden
///
/// Fails with exit code 2 if something in it is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {}

pub fn run(_args: &Args, globals: &Globals) -> Result<(), Error> {
    let settings = Settings::gather(&globals.inputs())?;
    settings.config()?;
    let rows = settings.list().into_iter().map(|setting| {
        let value = match setting.value {
            Some(value) if value.is_empty() => "(none)".to_owned(),
            Some(value) => value,
            None => "(not set)".to_owned(),
        };
        [setting.key, value, setting.origin]
    });
    output::print(&output::table(&["key", "value", "origin"], rows))
}
