//! Reads single values: numbers, durations, sizes, lists, from TOML's types or from the text of a variable.
//!
//! Knows nothing of keys. Each function's error says what is allowed.

use std::net::SocketAddr;
use std::time::Duration;

use ::config::ValueKind;
use bytesize::ByteSize;

use super::Beginning;
use crate::block::Height;

const SHORTEST_TOKEN: usize = 16;

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn text(value: &ValueKind) -> Result<String, String> {
    match value {
        ValueKind::String(text) if text.contains('\0') => Err("it may not hold a NUL".to_owned()),
        ValueKind::String(text) => Ok(text.clone()),
        _ => Err("it must be a text".to_owned()),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &ValueKind) -> Result<bool, String> {
    match value {
        ValueKind::Boolean(value) => Ok(*value),
        ValueKind::String(text) if text == "true" => Ok(true),
        ValueKind::String(text) if text == "false" => Ok(false),
        _ => Err("it must be `true` or `false`".to_owned()),
    }
}

/// A whole number from `least` to `most`.
pub(super) fn integer(value: &ValueKind, least: u64, most: u64) -> Result<u64, String> {
    whole(value)
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("it must be a whole number from {least} to {most}"))
}

/// `16MiB`, or a number of bytes.
pub(super) fn bytes(value: &ValueKind, least: u64, most: u64) -> Result<u64, String> {
    whole(value)
        .or_else(|| match value {
            ValueKind::String(text) => text.parse::<ByteSize>().ok().map(|size| size.as_u64()),
            _ => None,
        })
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            format!(
                "it must be a size such as `16MiB`, or a number of bytes, from {} to {}",
                ByteSize::b(least),
                ByteSize::b(most)
            )
        })
}

/// `500ms`, or a number of seconds; more than nothing, a day at most.
pub(super) fn duration(value: &ValueKind) -> Result<Duration, String> {
    duration_up_to(LONGEST, value).ok_or_else(|| {
        "it must be a duration such as `500ms` or `1m 30s`, or a number of seconds, from 1ms to 24h"
            .to_owned()
    })
}

/// The same, of up to ten years.
pub(super) fn long_duration(value: &ValueKind) -> Result<Duration, String> {
    duration_up_to(LONGEST * 3653, value).ok_or_else(|| {
        "it must be a duration such as `1h` or `7d`, or a number of seconds, up to ten years".to_owned()
    })
}

fn duration_up_to(longest: Duration, value: &ValueKind) -> Option<Duration> {
    seconds(value)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .or_else(|| match value {
            ValueKind::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        })
        .filter(|duration| (Duration::from_millis(1)..=longest).contains(duration))
}

/// `snapshot`, `now`, or a height.
pub(super) fn beginning(value: &ValueKind) -> Result<Beginning, String> {
    match value {
        ValueKind::String(text) if text == "snapshot" => return Ok(Beginning::Snapshot),
        ValueKind::String(text) if text == "now" => return Ok(Beginning::Now),
        _ => {}
    }
    let height = whole(value).and_then(|height| Height::new(u32::try_from(height).ok()?));
    height.map(Beginning::Height).ok_or_else(|| "it must be `snapshot`, `now`, or a height".to_owned())
}

/// An array of texts, or one text with commas.
pub(super) fn list(value: &ValueKind) -> Result<Vec<String>, String> {
    let parts = match value {
        ValueKind::String(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        ValueKind::Array(values) => {
            values.iter().map(|value| text(&value.kind)).collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err("it must be an array of texts, or a text with commas".to_owned()),
    };
    Ok(parts.into_iter().filter(|part| !part.is_empty()).collect())
}

/// The same, of URLs for HTTP.
pub(super) fn urls(value: &ValueKind) -> Result<Vec<String>, String> {
    let urls = list(value)?;
    let is_http = |url: &String| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
    };
    if urls.iter().all(is_http) {
        Ok(urls)
    } else {
        Err("each URL must be like `http://HOST:PORT` or `https://HOST`".to_owned())
    }
}

/// One of them.
pub(super) fn url(value: &ValueKind) -> Result<String, String> {
    let [url] = <[String; 1]>::try_from(urls(value)?).map_err(|_| "it must be one URL".to_owned())?;
    Ok(url)
}

/// An IP address and a port. A name would not say where one listens.
pub(super) fn address(value: &ValueKind) -> Result<SocketAddr, String> {
    text(value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        "it must be an IP address and a port, such as `127.0.0.1:9464` or `[::1]:9464`".to_owned()
    })
}

/// A text that is hard to guess, and that a header and a URL can carry.
pub(super) fn token(value: &ValueKind) -> Result<String, String> {
    let is_fit = |text: &String| {
        text.len() >= SHORTEST_TOKEN
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    text(value).ok().filter(is_fit).ok_or_else(|| {
        format!(
            "it must have {SHORTEST_TOKEN} characters or more, each a letter, a digit, or one of `-._~`; \
             `openssl rand -hex 16` makes one"
        )
    })
}

fn whole(value: &ValueKind) -> Option<u64> {
    match value {
        ValueKind::I64(number) => u64::try_from(*number).ok(),
        ValueKind::U64(number) => Some(*number),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn seconds(value: &ValueKind) -> Option<f64> {
    match value {
        ValueKind::I64(number) => Some(*number as f64),
        ValueKind::U64(number) => Some(*number as f64),
        ValueKind::Float(number) => Some(*number),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> ValueKind {
        ValueKind::String(text.to_owned())
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        assert_eq!(duration(&string("500ms")), Ok(Duration::from_millis(500)));
        assert_eq!(duration(&string("1m 30s")), Ok(Duration::from_secs(90)));
        assert_eq!(duration(&string("1.5")), Ok(Duration::from_millis(1500)));
        assert_eq!(duration(&ValueKind::I64(3)), Ok(Duration::from_secs(3)));
        assert_eq!(duration(&ValueKind::Float(0.25)), Ok(Duration::from_millis(250)));
        for bad in [string("0"), string("-1"), string("soon"), string("NaN"), string("inf"), string("25h")] {
            assert!(duration(&bad).is_err(), "{bad:?}");
        }
        assert!(duration(&ValueKind::Boolean(true)).is_err());
    }

    #[test]
    fn sizes_have_units_or_are_bytes() {
        assert_eq!(bytes(&string("16MiB"), 0, 1 << 32), Ok(16 << 20));
        assert_eq!(bytes(&string("64 kB"), 0, 1 << 32), Ok(64_000));
        assert_eq!(bytes(&string("1024"), 0, 1 << 32), Ok(1024));
        assert_eq!(bytes(&ValueKind::I64(7), 0, 8), Ok(7));
        for bad in
            [string("-1MiB"), string("much"), string("5GiB"), ValueKind::I64(-1), ValueKind::Float(1.0)]
        {
            assert!(bytes(&bad, 0, 1 << 32).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn integers_stay_within_their_bounds() {
        assert_eq!(integer(&string("5"), 1, 5), Ok(5));
        for bad in
            [string("6"), string("0"), string("1.0"), string("5MiB"), ValueKind::I64(-5), ValueKind::Nil]
        {
            assert_eq!(
                integer(&bad, 1, 5),
                Err("it must be a whole number from 1 to 5".to_owned()),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn addresses_have_a_port_and_tokens_are_hard_to_guess() {
        assert_eq!(address(&string("127.0.0.1:9464")).unwrap().port(), 9464);
        assert!(address(&string("[::1]:0")).unwrap().ip().is_loopback());
        for bad in [string("9464"), string("localhost:9464"), string("127.0.0.1"), ValueKind::I64(9464)] {
            assert!(address(&bad).is_err(), "{bad:?}");
        }
        assert!(token(&string("0123456789abcdef")).is_ok());
        for bad in [string(""), string("short"), string("0123456789 abcdef"), string("0123456789abcde\u{e9}")]
        {
            assert!(token(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lists_are_arrays_or_have_commas() {
        let expected = Ok(vec!["http://a".to_owned(), "https://b:1/c".to_owned()]);
        assert_eq!(urls(&string("http://a, https://b:1/c,")), expected);
        let array = ["http://a", "https://b:1/c"].map(|url| ::config::Value::new(None, string(url)));
        assert_eq!(urls(&ValueKind::Array(array.to_vec())), expected);
        assert_eq!(list(&string("")), Ok(Vec::new()));
        assert!(list(&ValueKind::I64(1)).is_err());
        for bad in ["ftp://a", "a:8080", "http://", "http://a b"] {
            assert!(urls(&string(bad)).is_err(), "{bad}");
        }
    }
}
