//! Logs: one line an event on standard error, as text for people or as JSON for machines.
//!
//! Standard output is left to what a command was asked for. Whatever an event says, it is one line, and has no
//! characters that a terminal obeys: `printable` escapes them here, for all events. A line has the fields of the spans
//! that its event is in: which pipeline, and which block.

mod queue;

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::{EnvFilter, Layer, Registry};

use queue::Queue;

#[cfg(feature = "otlp")]
use crate::otlp::layer as traces;
use crate::printable;
use crate::terminal::{self, Paint, Tone};

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
    #[error("cannot begin the thread that writes the log")]
    Thread(#[source] io::Error),
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Traces(#[from] crate::otlp::OtlpError),
}

/// The target of events that say how far a pipeline is. Where a line at the terminal's bottom does, they are left out.
pub const PROGRESS: &str = "debshrew::progress";

/// As many characters of a hash are shown on a terminal.
const SHORT_HASH: usize = 12;

/// How this process logs, once it does.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Where what is logged goes, once something is.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Whether `filter` can be read: levels (`info`), targets with levels (`debshrew=debug`), or several of them
/// separated by commas.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    read(filter).map(drop)
}

/// Begins to log. To be called once a process.
pub fn init(filter: &str, format: Format) -> Result<(), TelemetryError> {
    #[cfg(feature = "otlp")]
    crate::otlp::begin()?;
    let look = match format {
        Format::Json => Look::Json,
        Format::Text if std::io::stderr().is_terminal() => Look::Terminal(Paint::of_stderr()),
        Format::Text => Look::Text,
    };
    let queue = Queue::start(terminal::Stderr, move |dropped| dropped_line(look, dropped));
    let queue = QUEUE.get_or_init({
        let queue = queue.map_err(TelemetryError::Thread)?;
        || queue
    });
    tracing::subscriber::set_global_default(subscriber(read(filter)?, look, || queue.clone()))
        .map_err(TelemetryError::SetUp)?;
    FORMAT.get_or_init(|| format);
    Ok(())
}

/// Writes a text of whole lines where the log goes, behind what was logged.
pub fn write(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.take(text.as_bytes()),
        // There is nobody to tell when even this cannot be written.
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// Waits until what was logged is written, unless nobody takes it.
pub fn drain() {
    if let Some(queue) = QUEUE.get() {
        queue.drain();
    }
}

/// Writes and sends what is left. To be called when the process ends.
pub fn end() {
    drain();
    #[cfg(feature = "otlp")]
    crate::otlp::end();
}

/// Built without the feature `otlp`, the log is all there is.
#[cfg(not(feature = "otlp"))]
fn traces() -> tracing_subscriber::layer::Identity {
    tracing_subscriber::layer::Identity::new()
}

/// How this process logs; `None` before it does.
pub fn format() -> Option<Format> {
    FORMAT.get().copied()
}

/// A line of the log as JSON, for what must be said whatever the filter is.
pub fn json_line(
    level: Level,
    target: &str,
    fields: impl IntoIterator<Item = (&'static str, Value)>,
) -> String {
    let own = [("timestamp", now().into()), ("level", level.as_str().into())];
    let mut line = String::from("{");
    for (name, value) in own.into_iter().chain(fields).chain([("target", target.into())]) {
        let comma = if line.len() > 1 { "," } else { "" };
        // Writing to a String does not fail. JSON itself escapes but some of what is unfit.
        let _ = write!(line, "{comma}\"{name}\":{}", printable::line(&value.to_string()));
    }
    line + "}\n"
}

/// Standard error was not read, or not fast enough.
fn dropped_line(look: Look, dropped: u64) -> String {
    const TARGET: &str = "debshrew::telemetry";
    const MESSAGE: &str = "lines of the log were dropped, since standard error took no more";
    match look {
        Look::Json => {
            json_line(Level::WARN, TARGET, [("message", MESSAGE.into()), ("dropped", dropped.into())])
        }
        Look::Text | Look::Terminal(_) => format!("{}  WARN {TARGET}: {MESSAGE} dropped={dropped}\n", now()),
    }
}

fn subscriber<W>(filter: EnvFilter, look: Look, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = Lines { writer, look };
    Registry::default().with(filter).with(filter_fn(may_be_logged)).with(lines).with(traces())
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Json,
    Text,
    /// Short, since it is read as it comes.
    Terminal(Paint),
}

/// Writes a line an event.
struct Lines<W> {
    writer: W,
    look: Look,
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == PROGRESS && terminal::has_bottom() {
            return;
        }
        let mut spans = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            for (name, value) in span.extensions().get::<Fields>().into_iter().flat_map(|fields| &fields.0) {
                spans.set(name, value.clone());
            }
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = match self.look {
            Look::Json => json(metadata, spans, fields),
            Look::Text => text(metadata, &spans, fields, None),
            Look::Terminal(paint) => text(metadata, &spans, fields, Some(paint)),
        };
        // There is nobody to tell when even this cannot be written.
        let _ = self.writer.make_writer().write_all(line.as_bytes());
    }
}

fn json(metadata: &Metadata<'_>, spans: Fields, fields: Fields) -> String {
    let mut all = Fields::default();
    if let Some(message) = fields.get("message") {
        all.set("message", message.clone());
    }
    for (name, value) in spans.0.into_iter().chain(fields.0) {
        all.set(name, value);
    }
    all.0.retain(|(name, _)| !["timestamp", "level", "target"].contains(name));
    json_line(*metadata.level(), metadata.target(), all.0)
}

/// The pipeline and the block stand before what is said, a reason right after it. On a terminal it is short: the time of
/// day, and the target only where it tells something.
fn text(metadata: &Metadata<'_>, spans: &Fields, mut fields: Fields, terminal: Option<Paint>) -> String {
    let paint = terminal.unwrap_or(Paint::None);
    let now = now();
    let time = if terminal.is_some() { now.get(11..19).unwrap_or(&now) } else { &now };
    let tone = match *metadata.level() {
        Level::ERROR => Tone::Bad,
        Level::WARN => Tone::Warning,
        Level::INFO => Tone::Good,
        _ => Tone::Dim,
    };
    let level = format!("{:>5}", metadata.level().as_str());
    let mut line = format!("{} {}", paint.paint(Tone::Dim, time), paint.paint(tone, &level));
    let is_short = terminal.is_some() && *metadata.level() <= Level::INFO;
    let tells = !is_short || !is_ours(metadata.target()) || metadata.target() == "debshrew::transform";
    let target = tells.then(|| paint.paint(Tone::Dim, metadata.target()));
    let spans_said = spans.0.iter().map(|(name, value)| match *name {
        "pipeline" | "height" => shown(value),
        name => format!("{name}={}", shown(value)),
    });
    let who: Vec<String> = target.into_iter().chain(spans_said).collect();
    if !who.is_empty() {
        line.push_str(&format!(" {}:", who.join(" ")));
    }
    for (lead, name) in [(" ", "message"), (": ", "reason")] {
        if let Some(value) = fields.take(name) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            line.push_str(lead);
            line.push_str(&printable::line(&value));
        }
    }
    for (name, value) in fields.0.iter().filter(|(name, value)| spans.get(name) != Some(value)) {
        let mut value = shown(value);
        if terminal.is_some() && name.ends_with("hash") {
            // Libraries may call anything a hash.
            value = value
                .char_indices()
                .nth(SHORT_HASH)
                .map_or(value.clone(), |(end, _)| format!("{}…", &value[..end]));
        }
        line.push_str(&format!(" {name}={value}"));
    }
    line + "\n"
}

/// A field's value; in quotes if it is more than a word.
fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(word)
            if !word.is_empty() && !word.contains([' ', '"', '=']) && printable::line(word) == word =>
        {
            word.to_owned()
        }
        _ => printable::line(&value.to_string()).into_owned(),
    }
}

fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// The fields of a span or an event, by name.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find_map(|(known, value)| (*known == name).then_some(value))
    }

    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(at).1)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value.into());
    }
}

fn read(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(filter).map_err(|_| TelemetryError::Filter)
}

/// What libraries say in detail may hold what they send: URLs, headers, statements. Of them nothing below `info` is
/// logged, whatever the filter says.
fn may_be_logged(event: &Metadata<'_>) -> bool {
    let target = event.target();
    // Kafka's client tells of every transaction, and warns of what comes as an error as well.
    let detail = if is_of("krafka", target) { Level::ERROR } else { Level::INFO };
    is_ours(target) || *event.level() <= detail
}

fn is_ours(target: &str) -> bool {
    is_of("debshrew", target)
}

fn is_of(name: &str, target: &str) -> bool {
    target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
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
        for look in [Look::Text, Look::Terminal(Paint::None), Look::Json] {
            let log = tempfile::NamedTempFile::new().unwrap();
            let subscriber = subscriber(read("trace").unwrap(), look, log.reopen().unwrap());
            tracing::subscriber::with_default(subscriber, || {
                tracing::debug!(target: "hyper_util", "sesame");
                tracing::trace!(target: "debshrewd", "sesame");
                tracing::warn!(target: "krafka::producer", "sesame");
                tracing::info!(target: "deadpool", "one");
                tracing::trace!(target: "debshrew::source", "two");
            });
            let text = std::fs::read_to_string(log.path()).unwrap();
            assert!(text.lines().count() == 2 && !text.contains("sesame"), "{text}");
        }
    }

    #[test]
    fn on_a_terminal_a_hash_is_cut_between_two_characters() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let subscriber =
            subscriber(read("info").unwrap(), Look::Terminal(Paint::None), log.reopen().unwrap());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                a_hash = "aéééééééééééééé",
                hash = "0123456789abcdef",
                short_hash = "0123",
                "said"
            );
        });
        let text = std::fs::read_to_string(log.path()).unwrap();
        let expected = "INFO said a_hash=aééééééééééé… hash=0123456789ab… short_hash=0123\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn json_lines_are_objects_with_the_event_s_fields() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let subscriber = subscriber(read("warn").unwrap(), Look::Json, log.reopen().unwrap());
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
        for look in [Look::Text, Look::Terminal(Paint::None), Look::Json] {
            let log = tempfile::NamedTempFile::new().unwrap();
            let subscriber = subscriber(read("info").unwrap(), look, log.reopen().unwrap());
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("{hostile}");
                tracing::info!(plain = hostile, shown = %hostile, "quoted");
            });
            let text = std::fs::read_to_string(log.path()).unwrap();
            assert_eq!(text.lines().count(), 2, "{text}");
            let unfit = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2028}".contains(c));
            assert!(!text.contains(unfit), "{text:?}");
            if look == Look::Json {
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
