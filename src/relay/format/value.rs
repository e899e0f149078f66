//! The one form of a value: PostgreSQL's text of it, which is that of a session with the settings pinned, as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::array::{Piece, pieces};
use super::json;
use crate::undo::EventType;

/// Writes a value. What cannot be read as a value of its type is written as a string.
pub(super) fn value(type_: &EventType, text: Option<&str>, out: &mut Vec<u8>) {
    let Some(text) = text else {
        out.extend_from_slice(b"null");
        return;
    };
    match type_ {
        EventType::Boolean => match text {
            "t" | "true" => out.extend_from_slice(b"true"),
            "f" | "false" => out.extend_from_slice(b"false"),
            other => json::string(other, out),
        },
        EventType::Int16 => number(text, text.parse::<i16>().is_ok(), out),
        EventType::Int32 => number(text, text.parse::<i32>().is_ok(), out),
        EventType::Int64 => number(text, text.parse::<i64>().is_ok(), out),
        // PostgreSQL writes the shortest text that reads back as the same.
        EventType::Float32 => number(text, text.parse::<f32>().is_ok_and(f32::is_finite), out),
        EventType::Float64 => number(text, text.parse::<f64>().is_ok_and(f64::is_finite), out),
        EventType::Bytes => bytes(text, out),
        EventType::Timestamp => timestamp(text, "", "", out),
        EventType::TimestampWithZone => timestamp(text, "+00", "Z", out),
        EventType::TimeWithZone => time_with_zone(text, out),
        EventType::Array { element, delimiter } => array(element, *delimiter, text, out),
        EventType::Numeric
        | EventType::Json
        | EventType::Date
        | EventType::Time
        | EventType::Uuid
        | EventType::Text(_) => json::string(text, out),
    }
}

fn number(text: &str, is_one: bool, out: &mut Vec<u8>) {
    if is_one && is_json_number(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        json::string(text, out);
    }
}

/// Whether JSON writes a number like that; Rust also reads `+1`, `.5` and `007`.
fn is_json_number(text: &str) -> bool {
    let digits =
        |text: &str| text.len() - text.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
    let text = text.strip_prefix('-').unwrap_or(text);
    let whole = digits(text);
    let mut rest = &text[whole..];
    let is_whole_right = whole == 1 || whole > 1 && !text.starts_with('0');
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let length = digits(exponent);
        if length == 0 {
            return false;
        }
        rest = &exponent[length..];
    }
    is_whole_right && rest.is_empty()
}

/// `\x…` as base64.
fn bytes(text: &str, out: &mut Vec<u8>) {
    let Some(bytes) = text.strip_prefix("\\x").and_then(|digits| hex::decode(digits).ok()) else {
        return json::string(text, out);
    };
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    // There is room for all of it.
    let _ = STANDARD.encode_slice(&bytes, &mut out[start..]);
    out.push(b'"');
}

/// `2026-01-01 00:00:00.5` as `2026-01-01T00:00:00.5`, and what follows in PostgreSQL's text replaced. What ISO 8601 does not
/// know (infinity, years before Christ) stays as PostgreSQL writes it.
fn timestamp(text: &str, ending: &str, iso_ending: &str, out: &mut Vec<u8>) {
    let parts = text.strip_suffix(ending).and_then(|text| text.split_once(' '));
    match parts {
        Some((date, time)) if is_date(date) && is_time(time) => {
            out.push(b'"');
            out.extend_from_slice(date.as_bytes());
            out.push(b'T');
            out.extend_from_slice(time.as_bytes());
            out.extend_from_slice(iso_ending.as_bytes());
            out.push(b'"');
        }
        _ => json::string(text, out),
    }
}

/// PostgreSQL leaves out the minutes of an offset where they are none.
fn time_with_zone(text: &str, out: &mut Vec<u8>) {
    let parts = text.rfind(['+', '-']).map(|sign| text.split_at(sign));
    match parts {
        Some((time, offset)) if is_time(time) && is_like(&offset.as_bytes()[1..], b"00") => {
            out.push(b'"');
            out.extend_from_slice(time.as_bytes());
            match offset {
                "+00" => out.push(b'Z'),
                hours => {
                    out.extend_from_slice(hours.as_bytes());
                    out.extend_from_slice(b":00");
                }
            }
            out.push(b'"');
        }
        _ => json::string(text, out),
    }
}

/// `2026-01-01`, or with more digits in the year.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some(year) = bytes.len().checked_sub(6) else { return false };
    year >= 4 && bytes[..year].iter().all(u8::is_ascii_digit) && is_like(&bytes[year..], b"-00-00")
}

/// `00:00:00`, with a fraction or without.
fn is_time(text: &str) -> bool {
    let (whole, fraction) = text.as_bytes().split_at(text.len().min(8));
    let is_fraction = match fraction {
        [] => true,
        [b'.', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_like(whole, b"00:00:00") && is_fraction
}

/// Whether a text has digits where the example has some, and the same characters elsewhere.
fn is_like(text: &[u8], example: &[u8]) -> bool {
    let alike = |(is, like): (&u8, &u8)| if *like == b'0' { is.is_ascii_digit() } else { is == like };
    text.len() == example.len() && text.iter().zip(example).all(alike)
}

fn array(element: &EventType, delimiter: char, text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    let read = pieces(text, delimiter, |piece| {
        if piece != Piece::Close && out.len() > start && out.last() != Some(&b'[') {
            out.push(b',');
        }
        match piece {
            Piece::Open => out.push(b'['),
            Piece::Close => out.push(b']'),
            Piece::Null => out.extend_from_slice(b"null"),
            Piece::Value(text) => value(element, Some(&text), out),
        }
    });
    if read.is_none() {
        out.truncate(start);
        json::string(text, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(type_: &EventType, text: &str) -> String {
        let mut out = Vec::new();
        value(type_, Some(text), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn list(element: EventType) -> EventType {
        EventType::Array { element: Box::new(element), delimiter: ',' }
    }

    fn all_types() -> Vec<EventType> {
        use EventType::*;
        let plain = vec![
            Boolean,
            Int16,
            Int32,
            Int64,
            Float32,
            Float64,
            Numeric,
            Bytes,
            Json,
            Date,
            Time,
            TimeWithZone,
            Timestamp,
            TimestampWithZone,
            Uuid,
            Text("text".into()),
        ];
        plain.iter().cloned().chain(plain.iter().cloned().map(list)).collect()
    }

    #[test]
    fn values_have_one_form() {
        for (type_, text, expected) in [
            (EventType::Boolean, "t", "true"),
            (EventType::Boolean, "false", "false"),
            (EventType::Boolean, "yes", r#""yes""#),
            (EventType::Int64, "-9223372036854775808", "-9223372036854775808"),
            (EventType::Int64, "9223372036854775808", r#""9223372036854775808""#),
            (EventType::Int16, "40000", r#""40000""#),
            (EventType::Int32, "+7", r#""+7""#),
            (EventType::Int32, "007", r#""007""#),
            (EventType::Float64, "1e+20", "1e+20"),
            (EventType::Float64, "-0", "-0"),
            (EventType::Float64, "0.1", "0.1"),
            (EventType::Float64, "NaN", r#""NaN""#),
            (EventType::Float32, "-Infinity", r#""-Infinity""#),
            (EventType::Float64, "1e999", r#""1e999""#),
            (EventType::Float64, ".5", r#"".5""#),
            (EventType::Numeric, "1.10", r#""1.10""#),
            (EventType::Bytes, r"\x", r#""""#),
            (EventType::Bytes, r"\x00ff10", r#""AP8Q""#),
            (EventType::Bytes, r"\x00f", r#""\\x00f""#),
            (EventType::Json, r#"{"a": 1}"#, r#""{\"a\": 1}""#),
            (EventType::Timestamp, "2026-01-01 00:00:00.5", r#""2026-01-01T00:00:00.5""#),
            (
                EventType::TimestampWithZone,
                "2026-01-01 00:00:00.123456+00",
                r#""2026-01-01T00:00:00.123456Z""#,
            ),
            (EventType::TimestampWithZone, "12026-01-01 00:00:00+00", r#""12026-01-01T00:00:00Z""#),
            (EventType::TimestampWithZone, "0044-03-15 00:00:00+00 BC", r#""0044-03-15 00:00:00+00 BC""#),
            (EventType::TimestampWithZone, "infinity", r#""infinity""#),
            (EventType::TimeWithZone, "12:00:00+00", r#""12:00:00Z""#),
            (EventType::TimeWithZone, "12:00:00.25-07", r#""12:00:00.25-07:00""#),
            (EventType::TimeWithZone, "12:00:00+05:30", r#""12:00:00+05:30""#),
            (list(EventType::Int32), "{{1,NULL},{3,4}}", "[[1,null],[3,4]]"),
            (list(EventType::Int32), "[0:1]={1,2}", "[1,2]"),
            (list(EventType::Int32), "{1,x}", r#"[1,"x"]"#),
            (list(EventType::Int32), "{1,", r#""{1,""#),
            (list(EventType::Bytes), r#"{"\\xff"}"#, r#"["/w=="]"#),
            (list(EventType::Text("text".into())), r#"{"[",a,"","NULL"}"#, r#"["[","a","","NULL"]"#),
        ] {
            assert_eq!(written(&type_, text), expected, "{type_:?} {text}");
        }
        let mut out = Vec::new();
        value(&EventType::Int32, None, &mut out);
        assert_eq!(out, b"null");
    }

    proptest! {
        #[test]
        fn any_text_gives_json_and_a_string_says_the_same(
            text in r#"[-+.eE0-9{},\[\]:="\\ NULTnafx\x00-\x7fé🦀]{0,20}"#
        ) {
            for type_ in all_types() {
                let json: serde_json::Value = serde_json::from_str(&written(&type_, &text)).unwrap();
                if matches!(type_, EventType::Numeric | EventType::Json | EventType::Text(_)) {
                    prop_assert_eq!(json, text.as_str());
                }
            }
        }
    }
}
