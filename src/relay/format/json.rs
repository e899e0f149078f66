//! JSON, written into a buffer.

use std::io::Write as _;
use std::time::SystemTime;

use crate::block::BlockRef;

/// A string in quotes.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (place, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..place]);
        written = place + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (DIGITS[usize::from(other >> 4)], DIGITS[usize::from(other & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

/// A whole number.
pub(super) fn number(number: impl Into<i128>, out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = write!(out, "{}", number.into());
}

/// `"height":…,"hash":…`, both null where there is no block.
pub(super) fn block(block: Option<BlockRef>, out: &mut Vec<u8>) {
    let _ = match block {
        Some(block) => write!(out, r#""height":{},"hash":"{}""#, block.height, block.hash),
        None => write!(out, r#""height":null,"hash":null"#),
    };
}

/// `null`, or the hash.
pub(super) fn hash(block: Option<BlockRef>, out: &mut Vec<u8>) {
    let _ = match block {
        Some(block) => write!(out, r#""{}""#, block.hash),
        None => write!(out, "null"),
    };
}

/// `null`, or the block as an object.
pub(super) fn fork(at: Option<BlockRef>, out: &mut Vec<u8>) {
    if at.is_none() {
        out.extend_from_slice(b"null");
        return;
    }
    out.push(b'{');
    block(at, out);
    out.push(b'}');
}

/// Nanoseconds since 1970.
pub(super) fn nanoseconds(at: SystemTime) -> i128 {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
        Err(_) => 0,
    }
}

pub(super) fn milliseconds(at: SystemTime) -> i128 {
    nanoseconds(at) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_reads_back_as_it_was() {
        let all: String = (0..0x300).filter_map(char::from_u32).chain("\u{2028}🦀".chars()).collect();
        for text in ["", "a", "\"", "\\", "a\"b\\c\nd\re\tf\0g\x1fh\x7f", &all] {
            let mut out = Vec::new();
            string(text, &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
