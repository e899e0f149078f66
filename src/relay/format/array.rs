//! PostgreSQL's text of arrays, taken apart.
//!
//! Source: PostgreSQL's manual, "Array Input and Output Syntax".

use std::borrow::Cow;

/// A piece of an array, in the order in which they stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Open,
    Close,
    Null,
    Value(Cow<'a, str>),
}

/// Hands over the pieces of an array; bounds in front of it are passed over. `None` where it is none: some pieces may have
/// been handed over by then.
pub(super) fn pieces<'a>(text: &'a str, delimiter: char, mut take: impl FnMut(Piece<'a>)) -> Option<()> {
    let mut rest = match text.strip_prefix('[') {
        Some(bounded) => bounded.split_once('=')?.1,
        None => text,
    };
    let mut depth = 0_usize;
    loop {
        // Here a value begins, or an array of them.
        if let Some(inner) = rest.strip_prefix('{') {
            take(Piece::Open);
            depth += 1;
            rest = inner;
            if !rest.starts_with('}') {
                continue;
            }
        } else if depth == 0 {
            return None;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (value, behind) = unquoted(quoted)?;
            take(Piece::Value(value));
            rest = behind;
        } else {
            let end = rest.find([delimiter, '{', '}', '"', '\\'])?;
            let value = &rest[..end];
            match value {
                "" => return None,
                null if null.eq_ignore_ascii_case("null") => take(Piece::Null),
                value => take(Piece::Value(value.into())),
            }
            rest = &rest[end..];
        }
        while let Some(behind) = rest.strip_prefix('}') {
            depth = depth.checked_sub(1)?;
            take(Piece::Close);
            rest = behind;
        }
        if depth == 0 {
            return rest.is_empty().then_some(());
        }
        rest = rest.strip_prefix(delimiter)?;
    }
}

/// What stands before the closing quote, and what comes behind it.
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some((text[..end].into(), &text[end + 1..]));
    }
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value.into(), &text[place + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str, delimiter: char) -> Option<String> {
        let mut all = String::new();
        pieces(text, delimiter, |piece| match piece {
            Piece::Open => all.push('<'),
            Piece::Close => all.push('>'),
            Piece::Null => all.push('0'),
            Piece::Value(value) => all.push_str(&format!("({value})")),
        })?;
        Some(all)
    }

    #[test]
    fn arrays_are_taken_apart() {
        for (text, expected) in [
            ("{}", "<>"),
            ("{1,2,NULL,null}", "<(1)(2)00>"),
            (r#"{"NULL","","a\"b\\c","{,}"}"#, r#"<(NULL)()(a"b\c)({,})>"#),
            ("{{1,2},{3,NULL}}", "<<(1)(2)><(3)0>>"),
            ("[0:1][-1:0]={{1,2},{3,4}}", "<<(1)(2)><(3)(4)>>"),
            ("{größer,🦀}", "<(größer)(🦀)>"),
        ] {
            assert_eq!(taken(text, ',').as_deref(), Some(expected), "{text}");
        }
        assert_eq!(taken("{(1,2),(0,0);(3,4),(1,1)}", ';').unwrap(), "<((1,2),(0,0))((3,4),(1,1))>");
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in [
            "", "1", "{", "}", "{1", "{1,", "{1,}", "{,1}", "{}}", "{}x", "{\"a}", "{\"a\\", "{a\"b\"}",
            "{a\\b}", "[0:1]", "[0:1]=", "[0:1]=1", "{{1}2}", "{{1}{2}}", "{\"a\"b}",
        ] {
            assert_eq!(taken(text, ','), None, "{text}");
        }
        assert_eq!(taken(&"{".repeat(1_000_000), ','), None);
    }
}
