//! Finds texts that PostgreSQL would read as something else than what is meant, wherever in a value they stand: words that
//! mean a time by the clock, such as `now`, since a block that is processed again would get another value; and `0x…` for
//! bytes, which would be stored as these characters. Hex digits alone are letters that may be meant.

use crate::db::catalog::Shape;

/// What PostgreSQL would read otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misread {
    HexPrefix { got: String },
    Clock { got: String, word: &'static str },
}

/// Source: PostgreSQL's manual, "Date/Time Input", special values.
const CLOCK_WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// What is wrong with a text of this shape. One that is no array or composite at all is PostgreSQL's to refuse.
pub(super) fn check(shape: &Shape, text: &str) -> Result<(), Misread> {
    match shape {
        Shape::Scalar | Shape::Json => Ok(()),
        Shape::Bytes if text.starts_with("0x") || text.starts_with("0X") => {
            Err(Misread::HexPrefix { got: format!("`{}`", excerpt(text)) })
        }
        Shape::Bytes => Ok(()),
        Shape::Time => match clock_word(text) {
            Some(word) => Err(Misread::Clock { got: format!("`{}`", excerpt(text)), word }),
            None => Ok(()),
        },
        Shape::Array { .. } | Shape::Composite(_) if !has_some(shape) => Ok(()),
        Shape::Array { element, delimiter } => {
            items(text, '{', *delimiter).iter().try_for_each(|item| check(element, item))
        }
        Shape::Composite(fields) => {
            let items = items(text, '(', ',');
            fields.iter().zip(&items).try_for_each(|((_, field), item)| check(field, item))
        }
    }
}

/// Whether dates, times or bytes are in it.
fn has_some(shape: &Shape) -> bool {
    match shape {
        Shape::Time | Shape::Bytes => true,
        Shape::Array { element, .. } => has_some(element),
        Shape::Composite(fields) => fields.iter().any(|(_, field)| has_some(field)),
        Shape::Scalar | Shape::Json => false,
    }
}

fn clock_word(text: &str) -> Option<&'static str> {
    // Ranges take a backslash before any letter.
    let text = text.replace('\\', "");
    let mut words = text.split(|letter: char| !letter.is_ascii_alphabetic());
    words.find_map(|word| CLOCK_WORDS.into_iter().find(|known| known.eq_ignore_ascii_case(word)))
}

pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The items of an array's literal, those of inner arrays one after the other, or of a composite's.
///
/// Source: PostgreSQL's manual, "Array Input and Output Syntax" and "Composite Type Input and Output Syntax".
fn items(text: &str, open: char, delimiter: char) -> Vec<String> {
    // Bounds of an array may stand before it.
    let mut letters = text[text.find(open).unwrap_or(text.len())..].chars().skip(1).peekable();
    let mut items = vec![String::new()];
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        let item = items.last_mut();
        match letter {
            '\\' => item.into_iter().for_each(|item| item.extend(letters.next())),
            // Twice inside quotes is one of them; only composites have that.
            '"' if quoted && letters.peek() == Some(&'"') => {
                item.into_iter().for_each(|item| item.extend(letters.next()))
            }
            '"' => quoted = !quoted,
            '{' | '}' if !quoted && open == '{' => {}
            ')' if !quoted && open == '(' => break,
            _ if !quoted && letter == delimiter => items.push(String::new()),
            _ => item.into_iter().for_each(|item| item.push(letter)),
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(element: Shape) -> Shape {
        Shape::Array { element: Box::new(element), delimiter: ',' }
    }

    #[test]
    fn words_are_found_where_times_are_and_nowhere_else() {
        for text in ["now", " NOW ", "Today 10:00", "tomorrow allballs", "yesterday", "[today,)"] {
            assert!(check(&Shape::Time, text).is_err(), "{text}");
            assert!(check(&Shape::Scalar, text).is_ok(), "{text}");
        }
        for text in ["2026-01-01 America/Knox", "epoch", "infinity", "nowhere", "-infinity", "allballs", ""] {
            assert!(check(&Shape::Time, text).is_ok(), "{text}");
        }
        let pair = Shape::Composite(vec![("a".into(), Shape::Scalar), ("b".into(), array(Shape::Time))]);
        for text in ["(now,)", r#"("a ""now"" b","{2026-01-01}")"#, "(,)", "", "(", r#"("now, \\"#] {
            assert!(check(&pair, text).is_ok(), "{text}");
        }
        for text in ["(,{now})", r#"(x,"{2026-01-01,\"Now\"}")"#, r#"("a,b"," { today }")"#] {
            assert!(check(&pair, text).is_err(), "{text}");
        }
        assert!(check(&array(Shape::Time), "[0:1]={2026-01-01,now}").is_err());
        assert!(check(&array(Shape::Time), "{{2026-01-01},{\"today\"}}").is_err());
        let bytes = array(Shape::Bytes);
        for text in ["{0xdead}", r#"{"\\x00","0Xdead"}"#, "{{0x}}"] {
            assert!(check(&bytes, text).is_err(), "{text}");
        }
        assert!(check(&bytes, r#"{"\\x00",x0x}"#).is_ok());
        assert!(check(&array(pair), r#"{"(x,\"{now}\")"}"#).is_err());
    }
}
