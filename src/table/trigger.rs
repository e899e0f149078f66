//! Whether a trigger keeps to the row that it fires for: then it makes no difference in which order a block's rows are
//! written, and how many a statement.
//!
//! Pure. It is told by the function's text, of which every word must be known to be harmless.

use std::iter::Peekable;
use std::str::Chars;

use crate::db::catalog::{Dependence, Trigger};

/// Whether a trigger looks at, and changes, nothing but its row.
pub(super) fn keeps_to_row(trigger: &Trigger) -> bool {
    if trigger.for_truncate {
        return true;
    }
    let is_known = trigger.own_function || (trigger.language == "plpgsql" && !trigger.odd_operators);
    trigger.for_rows
        && trigger.condition == Dependence::Nothing
        && is_known
        && (trigger.own_function || is_harmless(&trigger.function_source, &trigger.plain_calls))
}

/// Words of PL/pgSQL and of expressions that reach nothing but the row: none of them names a table, a variable or another
/// statement.
const WORDS: &[&str] = &[
    "begin",
    "end",
    "if",
    "then",
    "else",
    "elsif",
    "elseif",
    "case",
    "when",
    "return",
    "new",
    "old",
    "null",
    "true",
    "false",
    "and",
    "or",
    "not",
    "is",
    "in",
    "between",
    "like",
    "ilike",
    "isnull",
    "notnull",
    "raise",
    "exception",
    "notice",
    "warning",
    "info",
    "log",
    "debug",
    "using",
    "errcode",
    "message",
    "detail",
    "hint",
    "tg_op",
    "tg_name",
    "tg_when",
    "tg_level",
    "tg_table_name",
    "tg_table_schema",
    "tg_nargs",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtime",
    "localtimestamp",
    "current_user",
    "session_user",
    "at",
    "time",
    "zone",
    "array",
    "row",
    "distinct",
];

/// Types of PostgreSQL's own, which may stand before a bracket.
const TYPES: &[&str] = &[
    "text",
    "varchar",
    "char",
    "integer",
    "int",
    "int2",
    "int4",
    "int8",
    "bigint",
    "smallint",
    "numeric",
    "decimal",
    "real",
    "float4",
    "float8",
    "boolean",
    "bool",
    "date",
    "timestamp",
    "timestamptz",
    "interval",
    "uuid",
    "json",
    "jsonb",
    "bytea",
];

/// Calls that are grammar and no functions.
const FORMS: &[&str] = &[
    "coalesce", "nullif", "greatest", "least", "in", "and", "or", "not", "if", "elsif", "elseif", "when",
    "then", "else", "return", "case", "row", "is",
];

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// In lower case.
    Word(String),
    /// `"…"`
    Quoted,
    /// A number, or a string without a backslash.
    Constant,
    Mark(char),
}

/// Whether a function's text does nothing but look at its row and change it. `plain_calls` are functions that it may call.
fn is_harmless(source: &str, plain_calls: &[String]) -> bool {
    let Some(tokens) = tokens(source) else { return false };
    let is_mark =
        |at: Option<usize>, mark: char| at.and_then(|at| tokens.get(at)) == Some(&Token::Mark(mark));
    let is_word = |at: Option<usize>, words: &[&str]| matches!(at.and_then(|at| tokens.get(at)), Some(Token::Word(word)) if words.contains(&word.as_str()));
    (0..tokens.len()).all(|at| {
        let before = |count: usize| at.checked_sub(count);
        let is_called = is_mark(Some(at + 1), '(');
        match &tokens[at] {
            Token::Constant => true,
            // A field of the row; in brackets before it, a function could be written like one.
            Token::Mark('.') => is_word(before(1), &["new", "old"]) && !is_mark(before(2), '.'),
            Token::Mark(_) => true,
            _ if is_mark(before(1), '.') => !is_called,
            Token::Quoted => false,
            Token::Word(word) if word == "from" => is_word(before(1), &["distinct"]),
            Token::Word(word) => {
                let word = word.as_str();
                match is_called {
                    true => {
                        FORMS.contains(&word)
                            || TYPES.contains(&word)
                            || plain_calls.iter().any(|call| call == word)
                    }
                    false => WORDS.contains(&word) || TYPES.contains(&word),
                }
            }
        }
    })
}

/// The text without its comments; `None` if it has something else than words, numbers, plain strings and marks.
fn tokens(source: &str) -> Option<Vec<Token>> {
    let mut letters = source.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(letter) = letters.next() {
        match letter {
            '-' if letters.peek() == Some(&'-') => {
                letters.by_ref().find(|letter| *letter == '\n');
            }
            '/' if letters.peek() == Some(&'*') => return None,
            '\'' => {
                // `e'…'` and the like have another notation.
                let text = quoted(&mut letters, '\'')?;
                let prefixed = matches!(tokens.last(), Some(Token::Word(word)) if ["e", "u", "b", "x", "n"].contains(&word.as_str()));
                if prefixed || text.contains('\\') {
                    return None;
                }
                tokens.push(Token::Constant);
            }
            '"' => {
                quoted(&mut letters, '"')?;
                tokens.push(Token::Quoted);
            }
            '$' | '\\' | '#' => return None,
            _ if letter.is_whitespace() => {}
            _ if letter.is_ascii_digit() => {
                while letters
                    .next_if(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.'))
                    .is_some()
                {}
                tokens.push(Token::Constant);
            }
            _ if letter.is_alphabetic() || letter == '_' => {
                let mut word = String::from(letter);
                while let Some(letter) =
                    letters.next_if(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '$'))
                {
                    word.push(letter);
                }
                tokens.push(Token::Word(word.to_lowercase()));
            }
            _ => tokens.push(Token::Mark(letter)),
        }
    }
    Some(tokens)
}

/// What stands before the closing quote, which is doubled inside.
fn quoted(letters: &mut Peekable<Chars<'_>>, quote: char) -> Option<String> {
    let mut text = String::new();
    loop {
        match letters.next()? {
            letter if letter == quote && letters.next_if_eq(&quote).is_none() => return Some(text),
            letter => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: [&str; 4] = ["now", "upper", "concat", "jsonb_build_object"];

    fn is_plain(body: &str) -> bool {
        is_harmless(body, &PLAIN.map(str::to_owned))
    }

    #[test]
    fn what_changes_its_row_alone_is_harmless() {
        for body in [
            "begin new.updated_at := now(); return new; end",
            "BEGIN\n  -- select\n  NEW.updated_at = pg_catalog_now; RETURN NEW;\nEND;"
                .replace("pg_catalog_now", "now()")
                .as_str(),
            "begin new.version := coalesce(old.version, 0) + 1; return new; end",
            "begin new.\"Note\" := upper(new.\"Note\") || ' from'; return new; end",
            "begin if new.owner is distinct from old.owner then raise exception 'no: %', old.id using errcode = 'P0099'; end if; return new; end",
            "begin new.log := concat(old.log, ' ', tg_op); new.n := 1.5e3::numeric(10, 2); return new; end",
            "begin case when (new.x in (1, 2)) then new.y := jsonb_build_object('a', new.x); else return null; end case; return new; end",
        ] {
            assert!(is_plain(body), "{body}");
        }
    }

    #[test]
    fn what_may_look_further_is_not() {
        for body in [
            "begin new.n := (select count(*) from t); return new; end",
            "begin new.n := max(x) from t; return new; end",
            "begin new.n := (table t); return new; end",
            "begin perform pg_notify('a', 'b'); return new; end",
            "begin insert into log values (new.id); return new; end",
            "begin execute 'select 1'; return new; end",
            "begin new.n := nextval('q'); return new; end",
            "begin new.n := s.now(); return new; end",
            "begin new.n := \"now\"(); return new; end",
            "begin new.n := (new).total; return new; end",
            "begin new.n := new.total(); return new; end",
            "declare n integer; begin return new; end",
            "begin new.n := e'\\''; return new; end",
            "begin new.n := 'a\\'; return new; end",
            "begin /* ' */ new.n := 1; return new; end",
            "begin new.n := $1; return new; end",
            "begin update t set x = 1; return new; end",
            "begin 'no end",
            "begin call now(); return new; end",
            "begin new.t.x := 1; return new; end",
        ] {
            assert!(!is_plain(body), "{body}");
        }
    }
}
