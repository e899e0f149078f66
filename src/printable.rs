//! Text that others have a say in (transforms, servers, names of tables and files), made fit for a terminal, a log, and
//! whoever reads what is stored: characters that move the cursor, end a line or turn the direction of writing are
//! shown as what they are.
//!
//! Used where text leaves, and there alone: by the log (`telemetry`), by answers and errors (`cli::output`), and by
//! what a pipeline reports (`register`). The escapes are JSON's, so that JSON stays JSON.

use std::borrow::Cow;

/// All in one line: line feeds are escaped as well.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unfit)
}

/// Lines as they are; all else escaped.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character != '\n' && is_unfit(character))
}

/// Control characters (C0, DEL, C1), separators of lines and paragraphs, and what turns the direction of writing.
/// Source: Unicode Standard Annex 9, "Bidirectional Algorithm", section 2.
fn is_unfit(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_unfit: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unfit) {
        return Cow::Borrowed(text);
    }
    let mut fit = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            fine if !is_unfit(fine) => fit.push(fine),
            '\n' => fit.push_str("\\n"),
            '\r' => fit.push_str("\\r"),
            '\t' => fit.push_str("\\t"),
            // None of them has more than four digits.
            other => fit.push_str(&format!("\\u{:04x}", u32::from(other))),
        }
    }
    Cow::Owned(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_turns_the_writing_is_escaped() {
        for (text, expected) in [
            ("plain, größer, 日本, 🦀", "plain, größer, 日本, 🦀"),
            ("\x1b[2J\x07\x08\r\t\x7f\0", r"\u001b[2J\u0007\u0008\r\t\u007f\u0000"),
            ("\u{85}\u{9b}31m", r"\u0085\u009b31m"),
            ("a\u{202e}b\u{2066}c\u{2069}", r"a\u202eb\u2066c\u2069"),
            ("a\u{2028}b\u{2029}", r"a\u2028b\u2029"),
        ] {
            assert_eq!(line(text), expected);
            assert_eq!(lines(text), expected);
        }
        assert_eq!(line("a\nb"), r"a\nb");
        assert_eq!(lines("a\nb\x1b"), "a\nb\\u001b");
    }

    #[test]
    fn escaped_json_says_the_same() {
        let text = "\x1b\u{9b}\u{202e}\u{2028}\x7f";
        let json = serde_json::to_string_pretty(&[text]).unwrap();
        assert!(json.contains('\u{9b}'));
        assert_eq!(serde_json::from_str::<Vec<String>>(&lines(&json)).unwrap(), [text]);
    }
}
