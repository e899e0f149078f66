//! The places that values come from, each made a layer: checked for unknown keys, every value marked with its
//! origin. Later layers win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::config::{File, FileFormat, Map, Source, Value, ValueKind};

use super::keys::{Form, KEYS};
use super::place::{Place, is_section, nearest};
use super::sinks::SECTION;
use super::{ConfigError, name};
use crate::file;

/// The file that is read when none is named, if it is there.
const USUAL_FILE: &str = "debshrew.toml";
const PREFIX: &str = "DEBSHREW__";
/// Names the folder of secrets that systemd, or a container's runtime, hands to a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Where to look for the configuration. It holds secrets: there is no `Debug`.
#[derive(Clone, Default)]
pub struct Inputs {
    /// Must exist. When absent, `debshrew.toml` in the current folder is read if it is there.
    pub file: Option<PathBuf>,
    pub flags: Flags,
    /// All variables; those that are no business of ours are left alone, and empty ones count as unset.
    pub environment: BTreeMap<String, String>,
}

/// What was said on the command line.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--database-url`
    pub database_url: Option<String>,
    /// `--source-url`, which may be repeated; replaces all configured ones.
    pub source_urls: Vec<String>,
    /// `--log`
    pub log_filter: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
}

impl Inputs {
    /// All layers, the lowest first.
    pub(super) fn layers(&self) -> Result<Vec<Layer>, ConfigError> {
        let mut layers = Vec::new();
        layers.extend(self.file_layer()?);
        layers.extend(self.credential_layers()?);
        layers.extend(self.variable_layers()?);
        layers.extend(self.flags.layers()?);
        Ok(layers)
    }

    /// The file that is read, if one is.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        let usual = || Path::new(USUAL_FILE).exists().then(|| PathBuf::from(USUAL_FILE));
        self.file.clone().or_else(usual)
    }

    fn file_layer(&self) -> Result<Option<Layer>, ConfigError> {
        let Some(path) = self.file_path() else { return Ok(None) };
        let text = file::read_text(&path, file::CONFIGURATION)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        let wrong = |place| ConfigError::Syntax { path: path.clone(), place };
        // Says where it is wrong; what the next one says has the line in it.
        toml::from_str::<toml::Table>(&text)
            .map_err(|error| wrong(error.span().map(|span| place_in(&text, span.start))))?;
        let map = File::from_str(&text, FileFormat::Toml).collect().map_err(|_| wrong(None))?;
        Layer::new(map, &Origin::File(path)).map(Some)
    }

    /// Files that are called as a key is. Others in that folder are for somebody else.
    fn credential_layers(&self) -> Result<Vec<Layer>, ConfigError> {
        let Some(folder) = self.environment.get(CREDENTIALS).filter(|folder| !folder.is_empty()) else {
            return Ok(Vec::new());
        };
        let folder = Path::new(folder);
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            |source| ConfigError::Unreadable { path, source }
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
            names.extend(entry.map_err(unreadable(folder))?.file_name().into_string());
        }
        names.sort();
        let layer = |name: String| {
            let segments = split(&name);
            if segments.len() < 2 || !is_section(&segments[..1]) {
                return Ok(None);
            }
            let path = folder.join(&name);
            let text = file::read_text(&path, file::CONFIGURATION).map_err(unreadable(&path))?;
            let value = ValueKind::String(text.trim_end_matches(['\r', '\n']).to_owned());
            Layer::single(&segments, value, &Origin::Credential(name)).map(Some)
        };
        names.into_iter().filter_map(|name| layer(name).transpose()).collect()
    }

    /// `DATABASE_URL` first, as it ranks below our own.
    fn variable_layers(&self) -> Result<Vec<Layer>, ConfigError> {
        let plain = self.environment.get_key_value("DATABASE_URL");
        let ours = self.environment.iter().filter(|(name, _)| name.starts_with(PREFIX));
        plain
            .into_iter()
            .chain(ours)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| {
                let path = if name == "DATABASE_URL" {
                    split("database.url")
                } else {
                    path_of(&name[PREFIX.len()..])
                };
                Layer::single(&path, ValueKind::String(value.clone()), &Origin::Variable(name.clone()))
            })
            .collect()
    }
}

impl Flags {
    fn layers(&self) -> Result<Vec<Layer>, ConfigError> {
        let text = |text: &Option<String>| text.clone().map(ValueKind::String);
        let urls: Vec<Value> = self.source_urls.iter().map(|url| Value::new(None, url.as_str())).collect();
        let urls = (!urls.is_empty()).then_some(ValueKind::Array(urls));
        [
            ("--database-url", "database.url", text(&self.database_url)),
            ("--source-url", "source.urls", urls),
            ("--log", "log.filter", text(&self.log_filter)),
            ("--log-format", "log.format", text(&self.log_format)),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| Some(Layer::single(&split(key), value?, &Origin::Flag(flag))))
        .collect()
    }
}

/// Line and column of a byte, both from 1.
fn place_in(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Where a value was found.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    File(PathBuf),
    Credential(String),
    Variable(String),
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Credential(name) => write!(f, "credential {name}"),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Checked values from one origin, as nested tables.
#[derive(Clone)]
pub(super) struct Layer(Map<String, Value>);

impl Layer {
    fn new(map: Map<String, Value>, origin: &Origin) -> Result<Layer, ConfigError> {
        Ok(Layer(check_table(&[], map, origin)?))
    }

    fn single(path: &[String], value: ValueKind, origin: &Origin) -> Result<Layer, ConfigError> {
        let nested = path.iter().rev().fold(value, |value, segment| {
            ValueKind::Table(Map::from_iter([(segment.clone(), Value::new(None, value))]))
        });
        match nested {
            ValueKind::Table(map) => Layer::new(map, origin),
            _ => Ok(Layer(Map::new())),
        }
    }
}

/// The crate wants one; values are not for it.
impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn check_table(
    above: &[String],
    map: Map<String, Value>,
    origin: &Origin,
) -> Result<Map<String, Value>, ConfigError> {
    // In the order of names, so that of several errors it is always the same one that is told.
    let sorted: BTreeMap<String, Value> = map.into_iter().collect();
    let mut checked = Map::new();
    for (mut segment, value) in sorted {
        if above == ["source", "headers"] {
            // Headers' names are told apart regardless of case.
            segment.make_ascii_lowercase();
        }
        let path = [above, std::slice::from_ref(&segment)].concat();
        checked.insert(segment, check(&path, value, origin)?);
    }
    Ok(checked)
}

fn check(path: &[String], value: Value, origin: &Origin) -> Result<Value, ConfigError> {
    let shape = |problem: String| {
        Err(ConfigError::Shape { key: path.join("."), origin: origin.to_string(), problem })
    };
    let mark = |kind: ValueKind| Value::new(Some(&origin.to_string()), kind);
    match (Place::find(path), value.kind) {
        (Some(place), ValueKind::Table(_)) => shape(format!("is a section, and `{place}` is a single value")),
        (Some(place), _) if place.key.name == "source.headers.NAME" && !name::is_header(&path[2]) => {
            shape("is no name of an HTTP header".to_owned())
        }
        (Some(place), ValueKind::String(text)) if place.key.form == Form::Path => {
            Ok(mark(ValueKind::String(beside(origin, &text))))
        }
        (Some(_), kind) => Ok(mark(kind)),
        (None, kind) if is_section(path) => {
            let problem = match path {
                [pipelines, name] if pipelines == "pipelines" => name::problem_with_pipeline(name),
                [pipelines, _, sinks, name] if pipelines == "pipelines" && sinks == "sinks" => {
                    name::problem_with_sink(name)
                }
                _ => None,
            };
            match (problem, kind) {
                (Some(problem), _) => shape(problem),
                (None, ValueKind::Table(map)) => Ok(mark(ValueKind::Table(check_table(path, map, origin)?))),
                (None, _) => {
                    shape(format!("is a single value; it must be a section, `[{}]`", path.join(".")))
                }
            }
        }
        (None, _) => Err(unknown(path, origin)),
    }
}

/// A path in a file is relative to the file's folder.
fn beside(origin: &Origin, path: &str) -> String {
    match origin {
        Origin::File(file) if !path.is_empty() => {
            let folder = file.parent().unwrap_or(Path::new(""));
            folder.join(path).to_string_lossy().into_owned()
        }
        _ => path.to_owned(),
    }
}

fn unknown(path: &[String], origin: &Origin) -> ConfigError {
    let nearest = nearest(path);
    match origin {
        Origin::Variable(name) => {
            ConfigError::Unknown { what: format!("the variable `{name}`"), nearest: variable_of(&nearest) }
        }
        _ => ConfigError::Unknown {
            what: format!("the key `{}` ({origin})", path.join(".")),
            nearest: nearest.to_string(),
        },
    }
}

/// What a variable's name means, without its prefix: `PIPELINES__LEDGER__RETENTION`. A pipeline's name may itself
/// hold `__`, so the key is looked for at the end; a header's `-` cannot stand in a variable's name and is `_`.
fn path_of(variable: &str) -> Vec<String> {
    let lower = variable.to_lowercase();
    if let Some(header) = lower.strip_prefix("source__headers__") {
        return vec!["source".to_owned(), "headers".to_owned(), header.replace('_', "-")];
    }
    let in_sink = lower.strip_prefix("pipelines__").and_then(|rest| {
        KEYS.iter().find_map(|key| {
            let key = key.name.strip_prefix(SECTION)?;
            let names = rest.strip_suffix(&key.replace('.', "__"))?.strip_suffix("__")?;
            let (pipeline, sink) = names.rsplit_once("__sinks__")?;
            let path = ["pipelines", pipeline, "sinks", sink].map(str::to_owned);
            Some(path.into_iter().chain(split(key)).collect())
        })
    });
    if let Some(path) = in_sink {
        return path;
    }
    let in_pipeline = lower.strip_prefix("pipelines__").and_then(|rest| {
        KEYS.iter().find_map(|key| {
            let key = key.name.strip_prefix("pipelines.NAME.")?;
            let name = rest.strip_suffix(&key.replace('.', "__"))?.strip_suffix("__")?;
            let mut path = vec!["pipelines".to_owned(), name.to_owned()];
            path.extend(split(key));
            Some(path)
        })
    });
    in_pipeline.unwrap_or_else(|| lower.split("__").map(str::to_owned).collect())
}

fn variable_of(place: &Place) -> String {
    format!("{PREFIX}{}", place.segments().join("__").replace('-', "_").to_uppercase())
}

fn split(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}
