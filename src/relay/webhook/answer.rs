//! What an answer to a request says about it.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::failure::Kind;

/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// So much of what a server says is read, and so much of that is shown.
pub(super) const READ_BYTES: usize = 4096;
const SHOWN_CHARACTERS: usize = 300;

/// What to do about a status that is no success.
pub(super) fn kind(status: StatusCode) -> Kind {
    let passes =
        matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    if passes || status.is_server_error() { Kind::Transient } else { Kind::Permanent }
}

pub(super) fn advice(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::GONE => {
            Some("the receiver wants no more of it: `debshrew sink drop`, or set another `url`")
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Some("look at `secret`, and at the login in `url`")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            Some("let the receiver take larger requests, or leave tables out with `tables`")
        }
        status if status.is_redirection() => Some("set `url` to where it leads, if that is meant"),
        _ => None,
    }
}

/// For how long the server wants to be left alone: seconds, or a date.
/// Source: RFC 9110, section 10.2.3, "Retry-After".
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

/// What a server said, in one short line of text that can be shown.
pub(super) fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.retain(|character| !character.is_control());
    match words.char_indices().nth(SHOWN_CHARACTERS) {
        None => words,
        Some((end, _)) => format!("{}…", &words[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_does_not() {
        for status in [408, 425, 429, 500, 502, 503, 599] {
            assert_eq!(kind(StatusCode::from_u16(status).unwrap()), Kind::Transient, "{status}");
        }
        for status in [300, 301, 307, 400, 401, 403, 404, 409, 410, 413, 422] {
            assert_eq!(kind(StatusCode::from_u16(status).unwrap()), Kind::Permanent, "{status}");
        }
    }

    #[test]
    fn a_pause_is_seconds_or_a_date_and_has_an_end() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("99999999999", Some(3600)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(3600)),
            ("-1", None),
            ("soon", None),
            ("99999999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn what_is_shown_is_short_and_fit() {
        assert_eq!(said(b"  no\r\n such\x1b[2J \xff thing\0 "), "no such[2J \u{fffd} thing");
        let long = "ä".repeat(1000);
        assert_eq!(said(long.as_bytes()).chars().count(), SHOWN_CHARACTERS + 1);
    }
}
