//! `debshrew status`

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use comfy_table::{Cell, Color};

use super::amounts::{self, grouped, span};
use super::output::Reader;
use super::start::{database, finish};
use super::{Error, Globals, output};
use crate::config::Config;
use crate::db::Db;
use crate::db::lock::Holder;
use crate::failure::{Kind, chain};
use crate::pipeline::PipelineError;
use crate::printable;
use crate::register::{self, Overview};
use crate::terminal::{self, Live, Paint, Tone};

const HELP: &str = "\
Examples:
  debshrew status
  debshrew status --watch                   live, looked at every 2 seconds
  debshrew status --json | jq '.pipelines[] | select(.state == \"halted\")'";

/// Show how far each pipeline has come, what it is doing, and why it halted if it did
///
/// Reads the database alone, so that it works whether or not `debshrew run` does. Exits with 3 if a pipeline has
/// halted.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// As one JSON object; with --watch as one a line, each time
    #[arg(long)]
    pub json: bool,
    /// Look again every so many seconds until stopped, with how fast it goes
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub watch: Option<u32>,
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_database()?;
    if let Some(seconds) = args.watch {
        let every = Duration::from_secs(seconds.into());
        return finish(watch(&config, every, args));
    }
    let pipelines = finish(async { Ok(look(&database(&config).await?).await?) })?;
    if args.json {
        // Numbers and texts alone: this does not fail.
        let json = serde_json::json!({ "pipelines": pipelines });
        output::print(&format!("{json:#}"))?;
    } else {
        let paint = Paint::of_stdout();
        output::offer(&people(&pipelines, None, paint, None), paint)?;
    }
    let halted = pipelines.into_iter().map(|one| one.overview).filter(|one| one.state == "halted");
    let halted: Vec<String> = halted.map(|one| one.pipeline).collect();
    // The reason stands above already.
    if halted.is_empty() { Ok(()) } else { Err(Error::SaidToBeHalted(halted)) }
}

/// What is seen of a pipeline.
#[derive(serde::Serialize)]
struct Seen {
    #[serde(flatten)]
    overview: Overview,
    /// Processes that wait to take over.
    standbys: Vec<Holder>,
}

async fn look(db: &Db) -> Result<Vec<Seen>, PipelineError> {
    let client = db.client().await?;
    let mut all = Vec::new();
    for overview in register::overview(&**client).await? {
        let standbys = match register::find(&**client, &overview.pipeline).await? {
            Some(found) => register::processes(&client, found.id).await?.standbys,
            None => Vec::new(),
        };
        all.push(Seen { overview, standbys });
    }
    Ok(all)
}

/// Looks again and again, until it is stopped or nobody reads on. What may pass is said and waited for.
async fn watch(config: &Config, every: Duration, args: &Args) -> Result<(), Error> {
    let db = database(config).await?;
    let mut live = if args.json { None } else { Live::on_stdout() };
    let paint = if args.json { Paint::None } else { Paint::of_stdout() };
    let mut pace = Pace::default();
    loop {
        let began = Instant::now();
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let text = match look(&db).await {
            Ok(pipelines) if args.json => serde_json::json!({ "at": at, "pipelines": pipelines }).to_string(),
            Ok(pipelines) => {
                pace.learn(began, &pipelines);
                let told = people(&pipelines, Some(&pace), paint, live.as_ref().map(Live::width));
                format!("{at}, every {} s\n\n{told}\n", every.as_secs())
            }
            Err(error) if error.kind() == Kind::Permanent => return Err(error.into()),
            Err(error) if args.json => serde_json::json!({ "at": at, "error": chain(&error) }).to_string(),
            Err(error) => {
                format!("{at}, every {} s\n\n{}\n", every.as_secs(), printable::line(&chain(&error)))
            }
        };
        match &mut live {
            Some(live) => live.show(text.lines().map(str::to_owned).collect()).map_err(Error::Output)?,
            None if output::offer(&text, paint)? == Reader::Gone => return Ok(()),
            None => {}
        }
        tokio::time::sleep(every.saturating_sub(began.elapsed())).await;
    }
}

/// How fast pipelines go, from one look to the next.
#[derive(Default)]
struct Pace {
    last: HashMap<String, (Instant, i32)>,
    blocks_per_second: HashMap<String, f64>,
}

impl Pace {
    fn learn(&mut self, now: Instant, pipelines: &[Seen]) {
        for Seen { overview: Overview { pipeline, height, start_height, .. }, .. } in pipelines {
            let height = height.unwrap_or(start_height - 1);
            if let Some((then, before)) = self.last.insert(pipeline.clone(), (now, height)) {
                let seconds = now.duration_since(then).as_secs_f64().max(0.001);
                let blocks = f64::from((height - before).max(0));
                self.blocks_per_second.insert(pipeline.clone(), blocks / seconds);
            }
        }
    }
}

/// A table of all pipelines, with how fast they go if that is known, and what is to be said of some; reasons are broken
/// where a width is given.
fn people(pipelines: &[Seen], pace: Option<&Pace>, paint: Paint, width: Option<usize>) -> String {
    if pipelines.is_empty() {
        return "no pipeline is set up in this database: run `debshrew migrate`".to_owned();
    }
    let mut header = vec!["pipeline", "state", "height", "source", "lag"];
    header.extend(if pace.is_some() { ["pace", "left", "last block"].as_slice() } else { &["last block"] });
    let rows = pipelines.iter().map(|one| row(&one.overview, pace, paint));
    let mut text = output::painted_table(&header, rows, paint);
    for Seen { overview: one, standbys } in pipelines {
        let name = printable::line(&one.pipeline);
        if let Some(error) = &one.last_error {
            let state = format!("{} for {}", one.state, span(one.state_age_seconds));
            let state = paint.paint(tone(&one.state), &state);
            let error = printable::line(error);
            let reason = match width {
                None => format!(" {error}"),
                Some(width) => {
                    let lines = terminal::wrapped(&error, width.saturating_sub(2));
                    lines.iter().map(|line| format!("\n  {line}")).collect()
                }
            };
            text.push_str(&format!("\n\n{name}: {state}:{reason}"));
        }
        for standby in standbys {
            let from = standby.address.as_ref().map(|address| format!(" from {address}")).unwrap_or_default();
            let (pid, role) = (standby.pid, printable::line(&standby.role));
            let age = standby.since.and_then(|since| Some(now()? - since));
            let since = age.map(|age| format!(" for {}", span(age))).unwrap_or_default();
            let line = format!("{name}: PostgreSQL process {pid} of role `{role}`{from} stands by{since}");
            text.push_str(&format!("\n\n{line}"));
        }
    }
    text
}

fn row(one: &Overview, pace: Option<&Pace>, paint: Paint) -> Vec<Cell> {
    let number = |number: Option<i32>| {
        number.map_or("-".to_owned(), |number| grouped(number.max(0).unsigned_abs().into()))
    };
    let state = output::cell(&one.state);
    let state = match (paint, tone(&one.state)) {
        (Paint::None, _) => state,
        (Paint::Ansi, Tone::Good) => state.fg(Color::Green),
        (Paint::Ansi, Tone::Warning) => state.fg(Color::Yellow),
        (Paint::Ansi, Tone::Bad) => state.fg(Color::Red),
        (Paint::Ansi, Tone::Dim) => state.fg(Color::Grey),
    };
    let mut cells = vec![output::cell(&one.pipeline), state];
    cells.extend([one.height, one.source_height, one.lag_blocks].map(|height| output::cell(&number(height))));
    let age = one.block_age_seconds.map(|age| format!("{} ago", span(age)));
    match pace {
        None => {
            let last = one.last_block_at.as_ref().zip(age).map(|(at, age)| format!("{at}, {age}"));
            cells.push(output::cell(last.as_deref().unwrap_or("-")));
        }
        Some(known) => {
            let known = known.blocks_per_second.get(&one.pipeline).copied();
            let left = known.zip(one.lag_blocks).filter(|(pace, lag)| *pace > 0.0 && *lag > 0);
            let left = left.map(|(pace, lag)| span(f64::from(lag) / pace));
            let shown = [known.map(amounts::pace), left, age];
            cells.extend(shown.map(|text| output::cell(text.as_deref().unwrap_or("-"))));
        }
    }
    cells
}

/// Seconds since 1970.
fn now() -> Option<f64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

fn tone(state: &str) -> Tone {
    match state {
        "running" => Tone::Good,
        "waiting" => Tone::Warning,
        "halted" => Tone::Bad,
        _ => Tone::Dim,
    }
}
