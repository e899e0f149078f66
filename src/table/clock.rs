//! Finds words that mean a time by the clock, such as `now`, in texts that PostgreSQL would read dates or times from: a
//! block that is processed again would get another value.

use crate::db::catalog::Shape;

/// Source: PostgreSQL's manual, "Date/Time Input", special values.
const WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Such a word in the text of a value of this shape. A text that is no array or composite at all is PostgreSQL's to
/// refuse.
pub(super) fn word_in(shape: &Shape, text: &str) -> Option<&'static str> {
    match shape {
        Shape::Scalar | Shape::Bytes | Shape::Json => None,
        Shape::Time => word(text),
        Shape::Array { .. } | Shape::Composite(_) if !has_times(shape) => None,
        Shape::Array { element, delimiter } => {
            items(text, '{', *delimiter).iter().find_map(|item| word_in(element, item))
        }
        Shape::Composite(fields) => {
            let items = items(text, '(', ',');
            fields.iter().zip(&items).find_map(|((_, field), item)| word_in(field, item))
        }
    }
}

/// Whether dates or times are in it.
fn has_times(shape: &Shape) -> bool {
    match shape {
        Shape::Time => true,
        Shape::Array { element, .. } => has_times(element),
        Shape::Composite(fields) => fields.iter().any(|(_, field)| has_times(field)),
        Shape::Scalar | Shape::Bytes | Shape::Json => false,
    }
}

fn word(text: &str) -> Option<&'static str> {
    let mut words = text.split(|letter: char| !letter.is_ascii_alphabetic());
    words.find_map(|word| WORDS.into_iter().find(|known| known.eq_ignore_ascii_case(word)))
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
            assert!(word_in(&Shape::Time, text).is_some(), "{text}");
            assert_eq!(word_in(&Shape::Scalar, text), None, "{text}");
        }
        for text in ["2026-01-01 America/Knox", "epoch", "infinity", "nowhere", "-infinity", "allballs", ""] {
            assert_eq!(word_in(&Shape::Time, text), None, "{text}");
        }
        let pair = Shape::Composite(vec![("a".into(), Shape::Scalar), ("b".into(), array(Shape::Time))]);
        for text in ["(now,)", r#"("a ""now"" b","{2026-01-01}")"#, "(,)", "", "(", r#"("now, \\"#] {
            assert_eq!(word_in(&pair, text), None, "{text}");
        }
        for text in ["(,{now})", r#"(x,"{2026-01-01,\"Now\"}")"#, r#"("a,b"," { today }")"#] {
            assert!(word_in(&pair, text).is_some(), "{text}");
        }
        assert!(word_in(&array(Shape::Time), "[0:1]={2026-01-01,now}").is_some());
        assert!(word_in(&array(Shape::Time), "{{2026-01-01},{\"today\"}}").is_some());
        assert!(word_in(&array(pair), r#"{"(x,\"{now}\")"}"#).is_some());
    }
}
