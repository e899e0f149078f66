//! PostgreSQL's connection strings, taken apart as far as we must: what of them may be shown, and the parameters that
//! tokio-postgres does not know.
//!
//! Source: PostgreSQL's manual, "Connection Strings".

use percent_encoding::percent_decode_str;
use tokio_postgres::config::Host;

/// Parameters of libpq that tokio-postgres does not take. An unknown one may be half a password, and is not named.
const NOT_TAKEN: [&str; 12] = [
    "client_encoding",
    "gssencmode",
    "krbsrvname",
    "passfile",
    "replication",
    "require_auth",
    "service",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "ssl_min_protocol_version",
];

/// A connection string: a URL, or `key=value` pairs.
pub struct Dsn {
    /// Of a URL, what stands in front of its parameters.
    place: Option<String>,
    /// Names and values, as they were written.
    parameters: Vec<(String, String)>,
}

impl Dsn {
    /// Takes a string apart; in words that hold nothing of it, why it cannot be.
    pub fn read(text: &str) -> Result<Dsn, &'static str> {
        if let Some((scheme, rest)) = text.split_once("://") {
            if !matches!(scheme, "postgres" | "postgresql") {
                return Err("it is no `postgres://` URL");
            }
            return Dsn::read_url(text, rest);
        }
        let mut parameters = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').ok_or("a part of it is no `key=value`")?;
            let after = after.trim_start();
            let length = value_length(after).ok_or("a quote in it is not closed")?;
            parameters.push((name.trim().to_owned(), after[..length].to_owned()));
            rest = after[length..].trim_start();
        }
        Ok(Dsn { place: None, parameters })
    }

    /// A password that was not escaped would make a host, or a database's name, of its second half; and those are shown.
    fn read_url(text: &str, rest: &str) -> Result<Dsn, &'static str> {
        let (login, after) = rest.split_once('@').unwrap_or(("", rest));
        if after.contains('@') || login.contains('?') {
            return Err(
                "it has an `@` or a `?` too many: in a user's name or a password `@` is written as `%40`, \
                        `?` as `%3F`, and `@` in a parameter as `%40`",
            );
        }
        let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
        let parameters = parameters.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').ok_or("a parameter in it has no `=`")?;
            Ok((name.to_owned(), value.to_owned()))
        });
        Ok(Dsn { place: Some(place.to_owned()), parameters: parameters.collect::<Result<_, &str>>()? })
    }

    /// A parameter's value; the last one counts.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let (_, written) = self.parameters.iter().rev().find(|(found, _)| found == name)?;
        Some(match self.place {
            Some(_) => percent_decode_str(written).decode_utf8_lossy().into_owned(),
            None => unquoted(written),
        })
    }

    pub fn remove(&mut self, name: &str) {
        self.parameters.retain(|(found, _)| found != name);
    }

    /// Gives a parameter another value: letters, digits, `-` and `_`.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.parameters.push((name.to_owned(), value.to_owned()));
    }

    /// As tokio-postgres reads it; in words that hold nothing of it but names, why it cannot be.
    pub fn parse(&self) -> Result<tokio_postgres::Config, String> {
        self.text().parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            if let Some(name) =
                NOT_TAKEN.iter().find(|name| self.parameters.iter().any(|(found, _)| found == *name))
                && cause.starts_with("unknown option")
            {
                return format!("it has `{name}`, which debshrew does not know");
            }
            // Names an option that is known.
            if cause.starts_with("invalid value for option") {
                cause
            } else {
                "a parameter in it is not known, or not written as it must be".to_owned()
            }
        })
    }

    fn text(&self) -> String {
        let pairs: Vec<String> =
            self.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        match &self.place {
            Some(place) if pairs.is_empty() => place.clone(),
            Some(place) => format!("{place}?{}", pairs.join("&")),
            None => pairs.join(" "),
        }
    }
}

/// What may be shown of a server and its database: `db.example:5432/app`.
pub fn shown_target(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        })
        .collect();
    // A database that is not named is called like the user; but that may be a key.
    let database = config.get_dbname().map(|name| format!("/{name}")).unwrap_or_default();
    hosts.join(",") + &database
}

/// What may be shown of a connection string: server and database, and `…` for all else.
pub(super) fn shown(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let parsed = Dsn::read(text).ok().and_then(|mut dsn| {
        // Words that are not tokio-postgres's.
        dsn.remove("sslmode");
        dsn.remove("sslrootcert");
        dsn.parse().ok()
    });
    parsed.map_or_else(|| "…".to_owned(), |config| format!("{} …", shown_target(&config)))
}

/// Whether there is a password in it; of what cannot be read, that is not known.
pub(super) fn holds_password(text: &str) -> bool {
    let in_place = |place: &str| {
        let authority = place.split_once("://").map_or("", |(_, rest)| rest);
        authority.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
    };
    match Dsn::read(text) {
        Ok(dsn) => dsn.parameter("password").is_some() || dsn.place.as_deref().is_some_and(in_place),
        Err(_) => true,
    }
}

/// How many bytes the value at the beginning of `text` takes; `None` when its quote is not closed.
fn value_length(text: &str) -> Option<usize> {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(usize::from(quoted)) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return Some(index + 1),
            _ if !quoted && character.is_whitespace() => return Some(index),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// Without the quotes around it and the backslashes in it.
fn unquoted(written: &str) -> String {
    let inner = written.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(written);
    let mut characters = inner.chars();
    let mut text = String::new();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_server_and_database_are_shown() {
        for (text, expected) in [
            ("postgres://u:pw@h:5432/d", "h:5432/d …"),
            ("postgres://u@h/d", "h:5432/d …"),
            ("postgres://h1:1,h2:2/d?password=pw&sslmode=verify-full&sslrootcert=/pw", "h1:1,h2:2/d …"),
            ("postgresql:///d?host=/tmp/x&password=pw", "/tmp/x:5432/d …"),
            ("host=h user=u password=pw dbname=d", "h:5432/d …"),
            (r"host=h password='a b\' c' user=u", "h:5432 …"),
            ("postgres://KEY@h", "h:5432 …"),
            ("password = pw host = h dbname = d", "h:5432/d …"),
            // Not escaped: where the password ends is not known.
            ("postgres://u:p@w@h/d", "…"),
            ("postgres://u:p@w/x@h/d", "…"),
            ("postgres://u:p?w@h/d", "…"),
            ("postgres://h/d?password=p@w", "…"),
            ("postgres://u:p@w?x@h/d", "…"),
            ("mysql://u:pw@h/d", "…"),
            ("password='never closed", "…"),
            ("pw", "…"),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn passwords_are_found() {
        for text in ["postgres://u:p@h/d", "postgres://h?password=p", "host=h password=p", "u:p@h"] {
            assert!(holds_password(text), "{text}");
        }
        for text in ["postgres://u@h:1/d", "postgres:///d?host=/tmp", "host=h user=u", ""] {
            assert!(!holds_password(text), "{text}");
        }
    }

    #[test]
    fn parameters_are_found_however_they_are_written() {
        for text in [
            "postgres://u:sslmode=x@h/d?sslmode=disable&sslmode=require&sslrootcert=/a%20b",
            "host=h sslmode=disable password='sslmode=prefer sslmode=x' sslmode = 'require' sslrootcert='/a b'",
            r"host=h sslmode=require password=sslmode\ =x sslrootcert=/a\ b",
        ] {
            let mut dsn = Dsn::read(text).unwrap();
            assert_eq!(dsn.parameter("sslmode").as_deref(), Some("require"), "{text}");
            assert_eq!(dsn.parameter("sslrootcert").as_deref(), Some("/a b"), "{text}");
            dsn.remove("sslrootcert");
            dsn.set("sslmode", "disable");
            let config = dsn.parse().unwrap();
            assert_eq!(config.get_ssl_mode(), tokio_postgres::config::SslMode::Disable, "{text}");
            assert!(config.get_password().unwrap().starts_with(b"sslmode"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_words() {
        for (text, expected) in [
            ("mysql://sesame@h", "no `postgres://` URL"),
            ("host=h password=x sesame", "no `key=value`"),
            ("host=h password=x sesame=1", "a parameter in it is not known"),
            ("host=h port=sesame", "invalid value for option `port`"),
            ("host=h sslcert=sesame", "it has `sslcert`"),
            ("postgres://u:sesame@sesame@h", "`@` is written as `%40`"),
            ("postgres://h?sesame", "has no `=`"),
        ] {
            let problem = Dsn::read(text).map_err(str::to_owned).and_then(|dsn| dsn.parse().map(drop));
            let problem = problem.unwrap_err();
            assert!(problem.contains(expected) && !problem.contains("sesame"), "{text}: {problem}");
        }
    }
}
