//! The layers merged: what is in force, where it came from, and the [`Config`] that it makes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::keys::{KEYS, Key};
use super::layer::Origin;
use super::place::Place;
use super::section::{Merged, Section, holds_secret, shown};
use super::sinks;
use super::{
    Config, ConfigError, Database, Inputs, Limits, Log, LogFormat, Pipeline, Secret, Server, Source,
    UnknownImports,
};
use crate::block::Height;

/// The configuration in force, value by value.
pub struct Settings {
    merged: Merged,
    /// What was read.
    file: Option<PathBuf>,
}

/// One value, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `pipelines.ledger.retention`
    pub key: String,
    /// Secrets are hidden. `None` when it is unset and has no default.
    pub value: Option<String>,
    /// `default`, `file debshrew.toml`, `credential database.url`, `variable DATABASE_URL`, `flag --log`.
    pub origin: String,
}

impl Settings {
    /// Reads all layers and merges them; refuses what it does not know.
    pub fn gather(inputs: &Inputs) -> Result<Settings, ConfigError> {
        let mut builder = ::config::Config::builder();
        for layer in inputs.layers()? {
            builder = builder.add_source(layer);
        }
        // What the crate says may hold a value.
        let merged = builder.build().map_err(|_| ConfigError::Merge)?.cache;
        Ok(Settings { merged: Merged(merged), file: inputs.file_path() })
    }

    /// Every key with its value, those of pipelines once per pipeline.
    pub fn list(&self) -> Vec<Setting> {
        self.places().iter().map(|place| self.setting(place)).collect()
    }

    fn places(&self) -> Vec<Place> {
        let (shared, of_pipelines): (Vec<&Key>, Vec<&Key>) =
            KEYS.iter().partition(|key| !key.name.starts_with("pipelines."));
        let mut places = Vec::new();
        for key in shared {
            if key.name == "source.headers.NAME" {
                let headers = self.merged.names(&["source", "headers"]).into_iter();
                places.extend(headers.map(|header| Place { key, names: vec![header] }));
            } else {
                places.push(Place { key, names: Vec::new() });
            }
        }
        for name in self.merged.names(&["pipelines"]) {
            let (of_sinks, own): (Vec<&Key>, Vec<&Key>) =
                of_pipelines.iter().partition(|key| key.name.starts_with(sinks::SECTION));
            places.extend(own.iter().map(|key| Place { key, names: vec![name.clone()] }));
            for sink in self.merged.names(&["pipelines", &name, "sinks"]) {
                let at = Section { merged: &self.merged, names: vec![name.clone(), sink.clone()] };
                let of_kind = of_sinks.iter().filter(|key| sinks::is_of_kind(&at, key));
                places.extend(of_kind.map(|key| Place { key, names: vec![name.clone(), sink.clone()] }));
            }
        }
        places
    }

    /// Whether the file holds secrets that other users can read.
    fn exposed(&self) -> Option<String> {
        let path = self.file.as_ref()?;
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        if mode & 0o044 == 0 {
            return None;
        }
        let from_file = Origin::File(path.clone()).to_string();
        let is_secret = |place: &Place| match self.merged.value(place) {
            (Some(value), origin) => origin == from_file && holds_secret(place.key.form, &value),
            (None, _) => false,
        };
        let secrets: Vec<String> =
            self.places().iter().filter(|place| is_secret(place)).map(|place| format!("`{place}`")).collect();
        (!secrets.is_empty()).then(|| {
            format!(
                "other users can read `{}`, which holds secrets ({}): take that right away (`chmod go=`), or give them \
                 as variables",
                path.display(),
                secrets.join(", ")
            )
        })
    }

    fn setting(&self, place: &Place) -> Setting {
        let (value, origin) = self.merged.value(place);
        Setting { key: place.to_string(), value: value.map(|value| shown(place.key.form, &value)), origin }
    }

    /// Reads every value and checks what belongs together.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let config = Config {
            database: self.database()?,
            source: self.source()?,
            server: self.server()?,
            log: self.log()?,
            pipelines: self
                .merged
                .names(&["pipelines"])
                .into_iter()
                .map(|name| Ok((name.clone(), self.pipeline(name)?)))
                .collect::<Result<_, ConfigError>>()?,
            warnings: self.exposed().into_iter().collect(),
        };
        check_schemas(&config.pipelines)?;
        Ok(config)
    }

    fn database(&self) -> Result<Database, ConfigError> {
        let at = Section { merged: &self.merged, names: Vec::new() };
        Ok(Database {
            url: Secret::new(at.text("database.url")?.unwrap_or_default()),
            tls_root_cert: at.path("database.tls_root_cert")?,
            pool_size: at.number("database.pool_size")?,
            connect_timeout: at.duration("database.connect_timeout")?,
            read_roles: at.list("database.read_roles")?,
            write_roles: at.list("database.write_roles")?,
            owner_role: at.text("database.owner_role")?,
        })
    }

    fn source(&self) -> Result<Source, ConfigError> {
        let at = Section { merged: &self.merged, names: Vec::new() };
        let header = |name: String| {
            let at = Section { merged: &self.merged, names: vec![name.clone()] };
            Ok((name, Secret::new(at.text("source.headers.NAME")?.unwrap_or_default())))
        };
        let headers = self.merged.names(&["source", "headers"]).into_iter().map(header);
        let source = Source {
            urls: at.urls("source.urls")?,
            quorum: at.number("source.quorum")?,
            username: at.text("source.username")?.map(Secret::new),
            password: at.text("source.password")?.map(Secret::new),
            bearer_token: at.text("source.bearer_token")?.map(Secret::new),
            headers: headers.collect::<Result<_, ConfigError>>()?,
            connect_timeout: at.duration("source.connect_timeout")?,
            request_timeout: at.duration("source.request_timeout")?,
            retries: at.number("source.retries")?,
            max_response_bytes: at.bytes("source.max_response_bytes")?,
            max_connections: at.number("source.max_connections")?,
            poll_interval: at.duration("source.poll_interval")?,
            wedge_timeout: at.duration("source.wedge_timeout")?,
        };
        check_authentication(&source)?;
        check_quorum(&source)?;
        Ok(source)
    }

    fn server(&self) -> Result<Server, ConfigError> {
        let at = Section { merged: &self.merged, names: Vec::new() };
        Ok(Server {
            listen: at.address("server.listen")?,
            token: at.token("server.token")?,
            ready_lag: at.number("server.ready_lag")?,
        })
    }

    fn log(&self) -> Result<Log, ConfigError> {
        let at = Section { merged: &self.merged, names: Vec::new() };
        let format = match at.one_of("log.format")?.as_str() {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        };
        Ok(Log { filter: at.log_filter("log.filter")?, format })
    }

    fn pipeline(&self, name: String) -> Result<Pipeline, ConfigError> {
        let at = Section { merged: &self.merged, names: vec![name.clone()] };
        let height: u32 = at.number("pipelines.NAME.start_height")?;
        Ok(Pipeline {
            transform: at
                .path("pipelines.NAME.transform")?
                .ok_or_else(|| ConfigError::NoTransform { pipeline: name.clone() })?,
            schema: at.schema("pipelines.NAME.schema")?,
            migrations: at.path("pipelines.NAME.migrations")?,
            start_height: Height::new(height).unwrap_or(Height::MAX),
            confirmations: at.number("pipelines.NAME.confirmations")?,
            retention: at.number("pipelines.NAME.retention")?,
            max_reorg_depth: at.number("pipelines.NAME.max_reorg_depth")?,
            patience: at.duration("pipelines.NAME.patience")?,
            evaluate_ahead: at.number("pipelines.NAME.evaluate_ahead")?,
            notify: at.boolean("pipelines.NAME.notify")?,
            sinks: sinks::read(&self.merged, &name)?,
            unknown_imports: match at.one_of("pipelines.NAME.unknown_imports")?.as_str() {
                "trap" => UnknownImports::Trap,
                _ => UnknownImports::Refuse,
            },
            limits: Limits {
                fuel: at.number("pipelines.NAME.limits.fuel")?,
                memory_bytes: at.bytes("pipelines.NAME.limits.memory_bytes")?,
                table_elements: at.number("pipelines.NAME.limits.table_elements")?,
                output_bytes: at.bytes("pipelines.NAME.limits.output_bytes")?,
                log_bytes: at.bytes("pipelines.NAME.limits.log_bytes")?,
                calls: at.number("pipelines.NAME.limits.calls")?,
            },
        })
    }
}

/// Two pipelines in one schema would write each other's tables.
fn check_schemas(pipelines: &BTreeMap<String, Pipeline>) -> Result<(), ConfigError> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, pipeline) in pipelines {
        if let Some(other) = owners.insert(&pipeline.schema, name) {
            return Err(ConfigError::Conflict(format!(
                "the pipelines `{other}` and `{name}` both have the schema `{}`; each needs one of its own",
                pipeline.schema
            )));
        }
    }
    Ok(())
}

/// A server that is named twice agrees with itself.
fn check_quorum(source: &Source) -> Result<(), ConfigError> {
    let servers: BTreeSet<&str> = source.urls.iter().map(|url| url.trim_end_matches('/')).collect();
    if source.quorum > servers.len().max(1) {
        return Err(ConfigError::Conflict(format!(
            "`source.quorum` asks for {} servers that agree, and `source.urls` names {} different ones",
            source.quorum,
            servers.len()
        )));
    }
    Ok(())
}

fn check_authentication(source: &Source) -> Result<(), ConfigError> {
    let conflict = |problem: &str| Err(ConfigError::Conflict(problem.to_owned()));
    if source.bearer_token.is_some() && (source.username.is_some() || source.password.is_some()) {
        return conflict(
            "the source has both `bearer_token` and `username` or `password`; it takes the one or the other",
        );
    }
    if source.password.is_some() && source.username.is_none() {
        return conflict("the source has a `password` and no `username`; basic authentication takes both");
    }
    Ok(())
}
