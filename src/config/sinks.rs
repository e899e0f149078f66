//! Reads the sinks of a pipeline.

use std::collections::BTreeMap;

use super::keys::{KEYS, Key};
use super::section::{Merged, Section};
use super::{
    Compression, ConfigError, Delivery, Destination, File, Format, Kafka, Mechanism, OnLag, Retry, Rotate,
    Sasl, Sink, Tls, Webhook,
};

/// What the keys of sinks begin with.
pub(super) const SECTION: &str = "pipelines.NAME.sinks.SINK.";

/// All sinks of a pipeline, by name.
pub(super) fn read(merged: &Merged, pipeline: &str) -> Result<BTreeMap<String, Sink>, ConfigError> {
    let names = merged.names(&["pipelines", pipeline, "sinks"]);
    names.into_iter().map(|name| Ok((name.clone(), sink(merged, pipeline, name)?))).collect()
}

/// Whether a key means something for a sink of that kind: its meaning begins with the kinds that it is for.
pub(super) fn is_of_kind(at: &Section<'_>, key: &Key) -> bool {
    let Some(kinds) = kinds(key) else { return true };
    at.one_of(&of("kind")).is_ok_and(|kind| kinds.contains(&kind.as_str()))
}

fn kinds(key: &Key) -> Option<Vec<&'static str>> {
    let (kinds, _) = key.meaning.strip_prefix('`')?.split_once("`: ")?;
    Some(kinds.split("`, `").collect())
}

fn of(key: &str) -> String {
    format!("{SECTION}{key}")
}

fn sink(merged: &Merged, pipeline: &str, sink: String) -> Result<Sink, ConfigError> {
    let at = Section { merged, names: vec![pipeline.to_owned(), sink.clone()] };
    let conflict =
        |problem: String| Err(ConfigError::Conflict(format!("sink `{pipeline}.{sink}`: {problem}")));
    if !at.is_set(&of("kind")) {
        return conflict(format!(
            "it has no `kind`; give `{}` as `console`, `file`, `kafka` or `webhook`",
            at.called(&of("kind"))
        ));
    }
    let kind = at.one_of(&of("kind"))?;
    let stray =
        KEYS.iter().find(|key| key.name.starts_with(SECTION) && at.is_set(key.name) && !is_of_kind(&at, key));
    if let Some(key) = stray {
        let kinds = kinds(key).unwrap_or_default().join("` and `");
        return conflict(format!(
            "`{}` is for sinks of the kind `{kinds}`, and this one is `{kind}`",
            at.called(key.name)
        ));
    }
    let to = match kind.as_str() {
        "console" => Destination::Console,
        "file" => Destination::File(file(&at)?),
        "kafka" => Destination::Kafka(kafka(&at)?),
        _ => Destination::Webhook(webhook(&at)?),
    };
    Ok(Sink {
        to,
        from: at.beginning(&of("from"))?,
        tables: at.list(&of("tables"))?,
        confirmations: at.number(&of("confirmations"))?,
        max_lag: at.long_duration(&of("max_lag"))?,
        on_lag: match at.one_of(&of("on_lag"))?.as_str() {
            "block" => OnLag::Block,
            _ => OnLag::Detach,
        },
        format: match at.one_of(&of("format"))?.as_str() {
            "compact" => Format::Compact,
            _ => Format::Debezium,
        },
        schemas: at.boolean(&of("schemas"))?,
        tombstones: at.boolean(&of("tombstones"))?,
        retry: Retry {
            initial: at.duration(&of("retry.initial"))?,
            max: at.duration(&of("retry.max"))?,
            open_after: at.number(&of("retry.open_after"))?,
            probe: at.duration(&of("retry.probe"))?,
        },
    })
}

fn file(at: &Section<'_>) -> Result<File, ConfigError> {
    Ok(File {
        path: at.path(&of("path"))?.ok_or_else(|| missing(at, "path", "the folder to write to"))?,
        rotate: Rotate {
            bytes: at.bytes(&of("rotate.bytes"))? as u64,
            age: at.long_duration(&of("rotate.age"))?,
        },
        compression: match at.one_of(&of("compression"))?.as_str() {
            "zstd" => Compression::Zstd,
            _ => Compression::None,
        },
    })
}

fn kafka(at: &Section<'_>) -> Result<Kafka, ConfigError> {
    let brokers = at.list(&of("brokers"))?;
    if brokers.is_empty() {
        return Err(missing(at, "brokers", "`HOST:PORT` of a broker"));
    }
    Ok(Kafka {
        brokers,
        prefix: at.text(&of("prefix"))?.unwrap_or_default(),
        delivery: match at.one_of(&of("delivery"))?.as_str() {
            "at-least-once" => Delivery::AtLeastOnce,
            _ => Delivery::ExactlyOnce,
        },
        partitions: at.number(&of("partitions"))?,
        replication: at.number(&of("replication"))?,
        max_message_bytes: at.bytes(&of("max_message_bytes"))?,
        tls: tls(at)?,
        sasl: sasl(at)?,
        timeout: at.duration(&of("timeout"))?,
    })
}

/// On where anything of it is configured.
fn tls(at: &Section<'_>) -> Result<Option<Tls>, ConfigError> {
    let tls = Tls {
        root_cert: at.path(&of("tls.root_cert"))?,
        cert: at.path(&of("tls.cert"))?,
        key: at.path(&of("tls.key"))?,
    };
    if tls.cert.is_some() != tls.key.is_some() {
        let (cert, key) = (at.called(&of("tls.cert")), at.called(&of("tls.key")));
        return Err(ConfigError::Conflict(format!(
            "`{cert}` and `{key}` go together: one of them is missing"
        )));
    }
    let is_asked = tls.root_cert.is_some() || tls.cert.is_some();
    Ok((at.boolean(&of("tls.enabled"))? || is_asked).then_some(tls))
}

fn sasl(at: &Section<'_>) -> Result<Option<Sasl>, ConfigError> {
    let mechanism = match at.one_of(&of("sasl.mechanism"))?.as_str() {
        "plain" => Mechanism::Plain,
        "scram-sha-256" => Mechanism::ScramSha256,
        "scram-sha-512" => Mechanism::ScramSha512,
        "oauthbearer" => Mechanism::OauthBearer,
        _ => return Ok(None),
    };
    let secret = |key: &str| at.text(&of(key));
    let sasl = Sasl {
        mechanism,
        username: secret("sasl.username")?,
        password: secret("sasl.password")?.map(super::Secret::new),
        token: secret("sasl.token")?.map(super::Secret::new),
    };
    match mechanism {
        Mechanism::OauthBearer if sasl.token.is_none() => {
            Err(missing(at, "sasl.token", "what to log in with"))
        }
        Mechanism::OauthBearer => Ok(Some(sasl)),
        _ if sasl.username.is_none() => Err(missing(at, "sasl.username", "who logs in")),
        _ if sasl.password.is_none() => Err(missing(at, "sasl.password", "the password")),
        _ => Ok(Some(sasl)),
    }
}

fn webhook(at: &Section<'_>) -> Result<Webhook, ConfigError> {
    Ok(Webhook {
        url: at.url(&of("url"))?.ok_or_else(|| missing(at, "url", "where to post blocks"))?,
        secret: at.text(&of("secret"))?.map(super::Secret::new),
        timeout: at.duration(&of("timeout"))?,
        max_bytes: at.bytes(&of("max_bytes"))?,
    })
}

fn missing(at: &Section<'_>, key: &str, what: &str) -> ConfigError {
    ConfigError::Conflict(format!("`{}` is missing: {what}", at.called(&of(key))))
}
