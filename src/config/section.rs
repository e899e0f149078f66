//! Reads values by their keys, held to the form that the table of keys gives them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ::config::{Value, ValueKind};

use super::keys::{Form, KEYS};
use super::place::Place;
use super::{Beginning, ConfigError, Secret, dsn, hide, name, read};
use crate::telemetry;

/// What stands for a value that may not be seen.
const HIDDEN: &str = "[hidden]";

/// All layers in one.
pub(super) struct Merged(pub(super) Value);

impl Merged {
    /// The value at a place and where it came from; the default when no layer has it.
    pub(super) fn value(&self, place: &Place) -> (Option<ValueKind>, String) {
        let found = place.segments().iter().try_fold(&self.0, |value, segment| match &value.kind {
            ValueKind::Table(table) => table.get(segment),
            _ => None,
        });
        match found {
            Some(value) => (Some(value.kind.clone()), value.origin().unwrap_or_default().to_owned()),
            None => (place.default().map(ValueKind::String), "default".to_owned()),
        }
    }

    /// What a section's keys are called, in order.
    pub(super) fn names(&self, section: &[&str]) -> Vec<String> {
        let found = section.iter().try_fold(&self.0, |value, segment| match &value.kind {
            ValueKind::Table(table) => table.get(*segment),
            _ => None,
        });
        let mut names: Vec<String> = match found.map(|value| &value.kind) {
            Some(ValueKind::Table(table)) => table.keys().cloned().collect(),
            _ => Vec::new(),
        };
        names.sort();
        names
    }
}

/// The settings, read for one pipeline or header, or for what has no name.
pub(super) struct Section<'a> {
    pub(super) merged: &'a Merged,
    /// What the names of keys stand for.
    pub(super) names: Vec<String>,
}

impl Section<'_> {
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.read(key, |value, _| read::text(value))
    }

    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        let path = self.read(key, |value, _| {
            read::text(value)
                .ok()
                .filter(|path| !path.is_empty())
                .ok_or_else(|| "it must be the path of a file or folder".to_owned())
        })?;
        Ok(path.map(PathBuf::from))
    }

    pub(super) fn address(&self, key: &str) -> Result<Option<SocketAddr>, ConfigError> {
        self.read(key, |value, _| read::address(value))
    }

    pub(super) fn token(&self, key: &str) -> Result<Option<Secret>, ConfigError> {
        Ok(self.read(key, |value, _| read::token(value))?.map(Secret::new))
    }

    pub(super) fn number<T: TryFrom<u64> + Default>(&self, key: &str) -> Result<T, ConfigError> {
        self.required(key, |value, form| {
            let (least, most) = match form {
                Form::Integer { least, most } => (least, most),
                _ => (0, u64::MAX),
            };
            read::integer(value, least, most).and_then(fit)
        })
    }

    pub(super) fn bytes(&self, key: &str) -> Result<usize, ConfigError> {
        self.required(key, |value, form| {
            let (least, most) = match form {
                Form::Bytes { least, most } => (least, most),
                _ => (0, u64::MAX),
            };
            read::bytes(value, least, most).and_then(fit)
        })
    }

    pub(super) fn duration(&self, key: &str) -> Result<Duration, ConfigError> {
        self.required(key, |value, _| read::duration(value))
    }

    pub(super) fn long_duration(&self, key: &str) -> Result<Duration, ConfigError> {
        self.required(key, |value, _| read::long_duration(value))
    }

    pub(super) fn beginning(&self, key: &str) -> Result<Beginning, ConfigError> {
        Ok(self.read(key, |value, _| read::beginning(value))?.unwrap_or(Beginning::Snapshot))
    }

    pub(super) fn url(&self, key: &str) -> Result<Option<Secret>, ConfigError> {
        self.read(key, |value, _| read::url(value).map(Secret::new))
    }

    pub(super) fn list(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        self.required(key, |value, _| read::list(value))
    }

    pub(super) fn urls(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        self.required(key, |value, _| read::urls(value))
    }

    pub(super) fn one_of(&self, key: &str) -> Result<String, ConfigError> {
        self.required(key, |value, form| {
            let Form::OneOf(choices) = form else { return read::text(value) };
            read::text(value)
                .ok()
                .filter(|text| choices.contains(&text.as_str()))
                .ok_or_else(|| format!("it must be one of `{}`", choices.join("`, `")))
        })
    }

    pub(super) fn boolean(&self, key: &str) -> Result<bool, ConfigError> {
        self.required(key, |value, _| read::boolean(value))
    }

    pub(super) fn log_filter(&self, key: &str) -> Result<String, ConfigError> {
        self.required(key, |value, _| {
            read::text(value)
                .ok()
                .filter(|filter| telemetry::check_filter(filter).is_ok())
                .ok_or_else(|| "it must be a log filter such as `info` or `warn,debshrew=debug`".to_owned())
        })
    }

    pub(super) fn schema(&self, key: &str) -> Result<String, ConfigError> {
        self.required(key, |value, _| {
            let schema = read::text(value)?;
            name::problem_with_schema(&schema).map_or(Ok(schema), Err)
        })
    }

    /// Whether a layer has it.
    pub(super) fn is_set(&self, key: &str) -> bool {
        let place =
            KEYS.iter().find(|known| known.name == key).map(|key| Place { key, names: self.names.clone() });
        place.is_some_and(|place| self.merged.value(&place).1 != "default")
    }

    /// A key of this section, as it is called there.
    pub(super) fn called(&self, key: &str) -> String {
        let place =
            KEYS.iter().find(|known| known.name == key).map(|key| Place { key, names: self.names.clone() });
        place.map(|place| place.to_string()).unwrap_or_default()
    }

    /// For keys that have a default.
    fn required<T: Default>(
        &self,
        key: &str,
        read: impl FnOnce(&ValueKind, Form) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        Ok(self.read(key, read)?.unwrap_or_default())
    }

    fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&ValueKind, Form) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(key) = KEYS.iter().find(|known| known.name == key) else { return Ok(None) };
        let place = Place { key, names: self.names.clone() };
        let (value, origin) = self.merged.value(&place);
        let Some(value) = value else { return Ok(None) };
        read(&value, key.form).map(Some).map_err(|allowed| ConfigError::Invalid {
            key: place.to_string(),
            origin,
            allowed,
        })
    }
}

fn fit<T: TryFrom<u64>>(number: u64) -> Result<T, String> {
    T::try_from(number).map_err(|_| "it is too large for this machine".to_owned())
}

/// A value as it may be shown.
pub(super) fn shown(form: Form, value: &ValueKind) -> String {
    match (form, value) {
        (Form::Secret, _) => HIDDEN.to_owned(),
        (_, ValueKind::Array(values)) => {
            values.iter().map(|value| shown(form, &value.kind)).collect::<Vec<_>>().join(", ")
        }
        (Form::Urls | Form::Url, ValueKind::String(text)) => hide::shown_urls(text),
        (Form::Urls | Form::Url, _) => HIDDEN.to_owned(),
        (Form::Dsn, ValueKind::String(text)) => dsn::shown(text),
        (Form::Dsn, _) => HIDDEN.to_owned(),
        (_, value) => value.to_string(),
    }
}

/// Whether a value has something that is not to be shown.
pub(super) fn holds_secret(form: Form, value: &ValueKind) -> bool {
    match (form, value) {
        (Form::Secret, _) => true,
        (Form::Dsn, ValueKind::String(text)) => dsn::holds_password(text),
        (Form::Urls | Form::Url, _) => shown(form, value).contains('…'),
        _ => false,
    }
}
