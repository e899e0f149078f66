//! `debshrew sinks`

use comfy_table::{Cell, Color};

use super::amounts::{grouped, span};
use super::start::{database, finish};
use super::{Error, Globals, output};
use crate::printable;
use crate::register::{self, SinkOverview};
use crate::terminal::Paint;

const HELP: &str = "\
Examples:
  debshrew sinks
  debshrew sinks --json | jq '.sinks[] | select(.lag_seconds > 60)'";

/// Show how far each sink's stream is, how far behind, and what is wrong with it
///
/// Reads the database alone. Exits with 3 if a sink has halted or is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_database()?;
    let sinks = finish(async {
        let db = database(&config).await?;
        let client = db.client().await?;
        Ok(register::sink_overview(&**client).await?)
    })?;
    if args.json {
        let json = serde_json::json!({ "sinks": sinks });
        output::print(&format!("{json:#}"))?;
    } else if sinks.is_empty() {
        output::print("no sink was ever run; `[pipelines.NAME.sinks.SINK]` configures one")?;
    } else {
        let paint = Paint::of_stdout();
        output::offer(&people(&sinks, paint), paint)?;
    }
    let bad = sinks.iter().filter(|sink| ["halted", "lost"].contains(&sink.state.as_str()));
    let bad: Vec<String> = bad.map(|sink| format!("{}.{}", sink.pipeline, sink.sink)).collect();
    // The reason stands above already.
    if bad.is_empty() { Ok(()) } else { Err(Error::SinksHalted(bad)) }
}

/// A table, and below it what is wrong.
fn people(sinks: &[SinkOverview], paint: Paint) -> String {
    const HEADER: [&str; 7] = ["sink", "kind", "state", "block", "lag", "behind", "events"];
    let rows = sinks.iter().map(|sink| row(sink, paint));
    let mut text = output::painted_table(&HEADER, rows, paint);
    for sink in sinks {
        if let Some(error) = &sink.last_error {
            text.push_str(&format!("\n{}.{}: {}", sink.pipeline, sink.sink, printable::line(error)));
        }
    }
    text
}

fn row(sink: &SinkOverview, paint: Paint) -> Vec<Cell> {
    let color = match sink.state.as_str() {
        "streaming" | "snapshot" => Some(Color::Green),
        "halted" | "lost" => Some(Color::Red),
        "waiting" => Some(Color::Yellow),
        _ => None,
    };
    let state = output::cell(&sink.state);
    let count = |value: i64| grouped(u64::try_from(value).unwrap_or_default());
    let number =
        |value: Option<i32>| output::cell(&value.map_or("-".to_owned(), |value| count(value.into())));
    let behind = sink.lag_seconds.map_or("-".to_owned(), |seconds| span(seconds.max(0.0)));
    vec![
        output::cell(&format!("{}.{}", sink.pipeline, sink.sink)),
        output::cell(&sink.kind),
        match color.filter(|_| paint != Paint::None) {
            Some(color) => state.fg(color),
            None => state,
        },
        number(sink.height),
        number(sink.lag_blocks),
        output::cell(&behind),
        output::cell(&count(sink.events)),
    ]
}
