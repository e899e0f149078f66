//! Values of columns, as JSON that loses nothing on the way to PostgreSQL: numbers with every digit, bytes in
//! hex.

use std::borrow::Cow;

/// What a column can be given. PostgreSQL reads the value as the column's type, so any type may also be given
/// as a text in PostgreSQL's own notation.
pub trait Column {
    /// Appends the value as JSON.
    fn write(&self, out: &mut Vec<u8>);
}

/// Bytes for a `bytea`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes<'a>(pub &'a [u8]);

/// A hash of 32 bytes for a `bytea`, in the order in which Bitcoin shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// From the order in which Bitcoin computes and serialises hashes, which is the reverse.
    pub fn from_internal(mut bytes: [u8; 32]) -> Hash {
        bytes.reverse();
        Hash(bytes)
    }
}

/// A whole JSON text, for `json` and `jsonb`. It must be valid JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(pub &'a str);

/// Seconds since 1970 in UTC, for `timestamptz` and `timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u32);

/// A value that has been written already: worth it for one that stands in many rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered(Vec<u8>);

impl Rendered {
    pub fn new(value: &impl Column) -> Rendered {
        let mut out = Vec::new();
        value.write(&mut out);
        Rendered(out)
    }
}

impl Column for Rendered {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

impl<T: Column + ?Sized> Column for &T {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

/// SQL's null when there is none.
impl<T: Column> Column for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => out.extend_from_slice(b"null"),
        }
    }
}

impl Column for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

macro_rules! unsigned {
    ($($type:ty)+) => {$(
        impl Column for $type {
            fn write(&self, out: &mut Vec<u8>) {
                // 39 digits are the most that 128 bits take.
                let mut digits = [0; 39];
                let mut start = digits.len();
                let mut rest = *self;
                loop {
                    start -= 1;
                    digits[start] = b'0' + (rest % 10) as u8;
                    rest /= 10;
                    if rest == 0 {
                        break;
                    }
                }
                out.extend_from_slice(&digits[start..]);
            }
        }
    )+};
}

macro_rules! signed {
    ($($type:ty)+) => {$(
        impl Column for $type {
            fn write(&self, out: &mut Vec<u8>) {
                if *self < 0 {
                    out.push(b'-');
                }
                self.unsigned_abs().write(out);
            }
        }
    )+};
}

unsigned!(u8 u16 u32 u64 u128 usize);
signed!(i8 i16 i32 i64 i128);

/// Infinities and NaN as the text that PostgreSQL has for them.
impl Column for f64 {
    fn write(&self, out: &mut Vec<u8>) {
        if self.is_finite() {
            // The shortest digits that give the same number again.
            out.extend_from_slice(format!("{self:?}").as_bytes());
        } else if self.is_nan() {
            "NaN".write(out);
        } else {
            if *self > 0.0 { "Infinity" } else { "-Infinity" }.write(out);
        }
    }
}

impl Column for str {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        let bytes = self.as_bytes();
        let mut copied = 0;
        for (place, byte) in bytes.iter().enumerate() {
            if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            out.extend_from_slice(&bytes[copied..place]);
            copied = place + 1;
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
                _ => {
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&HEX[usize::from(*byte)]);
                }
            }
        }
        out.extend_from_slice(&bytes[copied..]);
        out.push(b'"');
    }
}

impl Column for String {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_str().write(out);
    }
}

impl Column for Cow<'_, str> {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

impl Column for Bytes<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"\\\\x");
        let start = out.len();
        out.resize(start + 2 * self.0.len(), 0);
        for (digits, byte) in out[start..].chunks_exact_mut(2).zip(self.0) {
            digits.copy_from_slice(&HEX[usize::from(*byte)]);
        }
        out.push(b'"');
    }
}

impl Column for Hash {
    fn write(&self, out: &mut Vec<u8>) {
        Bytes(&self.0).write(out);
    }
}

impl Column for Json<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

/// An array.
impl<T: Column> Column for [T] {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (place, value) in self.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            value.write(out);
        }
        out.push(b']');
    }
}

impl<T: Column> Column for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_slice().write(out);
    }
}

impl Column for Timestamp {
    fn write(&self, out: &mut Vec<u8>) {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let text = format!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z\"");
        out.extend_from_slice(text.as_bytes());
    }
}

/// Year, month and day of a day since 1970-01-01. Source: Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`, for days after 1970.
fn civil(days: u32) -> (u32, u32, u32) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (400 * era + year_of_era + u32::from(month <= 2), month, day)
}

/// The two digits of each byte.
pub(crate) const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Column) -> String {
        String::from_utf8(Rendered::new(value).0).unwrap()
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(json(&0u8), "0");
        assert_eq!(json(&u64::MAX), "18446744073709551615");
        assert_eq!(json(&u128::MAX), u128::MAX.to_string());
        assert_eq!(json(&i128::MIN), i128::MIN.to_string());
        assert_eq!(json(&-1i8), "-1");
        assert_eq!(json(&0.1f64), "0.1");
        assert_eq!(json(&1e300f64), "1e300");
        assert_eq!([json(&f64::NAN), json(&f64::NEG_INFINITY)], ["\"NaN\"", "\"-Infinity\""]);
    }

    #[test]
    fn texts_are_what_a_reader_of_json_gets_back() {
        for text in ["", "plain", "a\"b\\c", "\u{0}\u{1f}\u{7f}", "\n\t", "äöü\u{10348}", "\\x00", "ends\n"]
        {
            assert_eq!(serde_json::from_str::<String>(&json(&text)).unwrap(), text);
        }
    }

    #[test]
    fn bytes_are_hex_and_hashes_are_shown_as_bitcoin_shows_them() {
        assert_eq!(json(&Bytes(&[0, 0xab, 0xff])), r#""\\x00abff""#);
        assert_eq!(json(&Bytes(&[])), r#""\\x""#);
        let mut internal = [0; 32];
        internal[31] = 0x0f;
        assert_eq!(json(&Hash::from_internal(internal)), format!(r#""\\x0f{}""#, "00".repeat(31)));
    }

    #[test]
    fn other_values() {
        assert_eq!(json(&[Some(true), None].to_vec()), "[true,null]");
        assert_eq!(json(&Json(r#"{"a":[1]}"#)), r#"{"a":[1]}"#);
        assert_eq!(json(&Rendered::new(&"x")), "\"x\"");
        assert_eq!(json(&Cow::Borrowed("x")), "\"x\"");
    }

    #[test]
    fn timestamps_are_dates_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_231_006_505, "2009-01-03T18:15:05Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u32::MAX, "2106-02-07T06:28:15Z"),
        ] {
            assert_eq!(json(&Timestamp(seconds)), format!("\"{text}\""));
        }
    }
}
