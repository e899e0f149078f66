//! Values of columns. Nothing is lost on the way to PostgreSQL: numbers keep every digit.

use std::borrow::Cow;

use crate::abi::Writer;

/// What a column can be given. PostgreSQL reads the value as the column's type, so any type may also be given
/// as a text in PostgreSQL's own notation.
pub trait Column {
    /// Appends the value as the interface's version has it: one value, by one call of the writer's or of another
    /// column's `write`.
    fn write(&self, out: &mut Writer);
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
pub struct Rendered(Box<[u8]>);

impl Rendered {
    pub fn new(value: &impl Column) -> Rendered {
        let mut out = Writer::default();
        value.write(&mut out);
        Rendered(out.written().into())
    }
}

impl Column for Rendered {
    fn write(&self, out: &mut Writer) {
        out.rendered(&self.0);
    }
}

impl<T: Column + ?Sized> Column for &T {
    fn write(&self, out: &mut Writer) {
        (**self).write(out);
    }
}

/// SQL's null when there is none.
impl<T: Column> Column for Option<T> {
    fn write(&self, out: &mut Writer) {
        match self {
            Some(value) => value.write(out),
            None => out.null(),
        }
    }
}

impl Column for bool {
    fn write(&self, out: &mut Writer) {
        out.bool(*self);
    }
}

macro_rules! integers {
    ($($type:ty)+ => $write:ident as $as:ty) => {$(
        impl Column for $type {
            fn write(&self, out: &mut Writer) {
                out.$write(*self as $as);
            }
        }
    )+};
}

integers!(u8 u16 u32 i8 i16 i32 i64 => signed as i64);
integers!(u64 usize => unsigned as u64);
integers!(i128 => wide as i128);

impl Column for u128 {
    fn write(&self, out: &mut Writer) {
        match i128::try_from(*self) {
            Ok(integer) => out.wide(integer),
            Err(_) => out.number(&self.to_string()),
        }
    }
}

impl Column for f64 {
    fn write(&self, out: &mut Writer) {
        out.float(*self);
    }
}

impl Column for str {
    fn write(&self, out: &mut Writer) {
        out.text(self);
    }
}

impl Column for String {
    fn write(&self, out: &mut Writer) {
        self.as_str().write(out);
    }
}

impl Column for Cow<'_, str> {
    fn write(&self, out: &mut Writer) {
        (**self).write(out);
    }
}

impl Column for Bytes<'_> {
    fn write(&self, out: &mut Writer) {
        out.bytes(self.0);
    }
}

impl Column for Hash {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.0);
    }
}

impl Column for Json<'_> {
    fn write(&self, out: &mut Writer) {
        out.json(self.0);
    }
}

/// An array.
impl<T: Column> Column for [T] {
    fn write(&self, out: &mut Writer) {
        out.array(self);
    }
}

impl<T: Column> Column for Vec<T> {
    fn write(&self, out: &mut Writer) {
        self.as_slice().write(out);
    }
}

impl Column for Timestamp {
    fn write(&self, out: &mut Writer) {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
        out.text(&text);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::read;
    use serde_json::Value;

    /// What the host reads, as JSON.
    fn json(value: &impl Column) -> String {
        let mut out = Writer::default();
        value.write(&mut out);
        read::value(out.written()).unwrap().to_string()
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(json(&0u8), "0");
        assert_eq!(json(&u64::MAX), "18446744073709551615");
        assert_eq!(json(&u128::MAX), u128::MAX.to_string());
        assert_eq!(json(&i128::MIN), i128::MIN.to_string());
        for signed in [i64::MIN, -1, i64::MAX] {
            assert_eq!(json(&signed), signed.to_string());
            assert_eq!(json(&i128::from(signed)), signed.to_string());
        }
        assert_eq!(json(&(i128::from(u64::MAX) + 1)), "18446744073709551616");
        assert_eq!(json(&-1i8), "-1");
        assert_eq!(json(&0.1f64), "0.1");
        assert_eq!(json(&1e300f64), "1e+300");
        assert_eq!([json(&f64::NAN), json(&f64::NEG_INFINITY)], ["\"NaN\"", "\"-Infinity\""]);
    }

    #[test]
    fn texts_are_what_a_reader_of_json_gets_back() {
        for text in ["", "plain", "a\"b\\c", "\u{0}\u{1f}\u{7f}", "\n\t", "äöü\u{10348}", "\\x00", "ends\n"]
        {
            assert_eq!(json(&text), Value::from(text).to_string());
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
