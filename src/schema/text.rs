//! Reads migrations as text, as far as it must be known what they do to rows: whether a column is converted by a plain cast,
//! which a journal can apply as well, or by anything else.

/// Whether SQL may convert a column otherwise than by a cast of itself.
pub(super) fn may_convert(sql: &str) -> bool {
    // What a text means as a time or an interval.
    const SETTINGS: [&str; 4] = ["timezone", "time zone", "datestyle", "intervalstyle"];
    let sets = |statement: &String| {
        statement.starts_with("set ") && SETTINGS.iter().any(|setting| statement.contains(setting))
    };
    statements(sql).iter().any(|statement| is_opaque(statement) || converts(statement) || sets(statement))
}

/// What a statement does cannot be read from its text.
fn is_opaque(statement: &str) -> bool {
    const PLAIN: [&str; 14] = [
        "alter", "comment", "create", "delete", "drop", "grant", "insert", "lock", "refresh", "reset",
        "revoke", "set", "truncate", "update",
    ];
    !statement.is_empty() && !PLAIN.contains(&statement.split(' ').next().unwrap_or_default())
}

/// `alter … type … using …` with something else than a cast of the column itself.
fn converts(statement: &str) -> bool {
    if !statement.starts_with("alter ") {
        return false;
    }
    let statement = statement.replace(" using(", " using (");
    let uses: Vec<&str> = statement.split(" using ").collect();
    uses.windows(2).any(|pair| !is_plain_cast(pair[0], pair[1]))
}

/// `… alter [column] NAME [set data] type TYPE` and `NAME::TYPE`, with whatever further actions behind it.
fn is_plain_cast(before: &str, expression: &str) -> bool {
    let Some((left, declared)) = before.rsplit_once(" type ") else { return false };
    let declared = declared.split(" collate ").next().unwrap_or_default();
    let left = left.strip_suffix(" set data").unwrap_or(left);
    let column = left.rsplit(' ').next().unwrap_or_default();
    let own = expression.split(", alter ").next().unwrap_or_default();
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    own.split_once("::").is_some_and(|(cast, to)| cast.trim() == column && squeezed(to) == squeezed(declared))
}

/// The statements, each in small letters and with single spaces, without comments, and strings empty.
fn statements(sql: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut rest = sql;
    while let Some(letter) = rest.chars().next() {
        let (skipped, instead) = if rest.starts_with("--") {
            (rest.find('\n').unwrap_or(rest.len()), " ")
        } else if rest.starts_with("/*") {
            (comment(rest), " ")
        } else if letter == '\'' {
            (quoted(rest, statements.last().is_some_and(|text| text.ends_with('e'))), "''")
        } else if letter == '$' {
            (dollars(rest), "''")
        } else if let Some(name) = rest.strip_prefix('"') {
            // What stands in a name is no string, comment or end.
            let end = name.find('"').map_or(rest.len(), |at| at + 2);
            statements.last_mut().into_iter().for_each(|text| text.push_str(&rest[..end]));
            (end, "")
        } else {
            (0, "")
        };
        if skipped > 0 {
            statements.last_mut().into_iter().for_each(|text| text.push_str(instead));
            rest = &rest[skipped..];
            continue;
        }
        if letter == ';' {
            statements.push(String::new());
        } else {
            statements.last_mut().into_iter().for_each(|text| text.extend(letter.to_lowercase()));
        }
        rest = &rest[letter.len_utf8()..];
    }
    statements.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The length of a comment, in which others may stand.
fn comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a string. In one that begins with `E` a backslash escapes.
fn quoted(text: &str, escapes: bool) -> usize {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if escapes && letter == '\\' {
            letters.next();
        } else if letter == '\'' && letters.next_if(|(_, next)| *next == '\'').is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// The length of a string in dollars; 0 if there is none.
fn dollars(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 0 };
    let tag = &text[..end + 2];
    if !tag[1..=end].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 0;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_are_told_from_other_expressions() {
        for plain in [
            "alter table t alter column a type text",
            "alter table t alter a type integer using a::integer, alter b type numeric(5,2) using b::numeric(5,2);",
            "alter table t alter \"b\" set data type numeric(5,2) using \"b\"::numeric(5,2);",
            "create type pair as (a int); create index on t using btree (a)",
            "alter table t alter a type text; -- using a || 'x'",
            "alter table t alter a type text /* using; lower(a) /* */ */ ; comment on table t is 'using'",
            "create function f() returns int language sql as $x$ select 1; alter $$ type using $x$",
        ] {
            assert!(!may_convert(plain), "{plain}");
        }
        for own in [
            "alter table t\n  alter column a type bigint\n  using a * 100;",
            "alter table t alter a type integer using length(a)",
            "ALTER TABLE t ALTER a TYPE integer USING a::integer + 1",
            "alter table t alter a type integer using b::integer",
            "alter table t alter a type integer /* ; */ using a * 100",
            "alter table t alter a type text using 'x'",
            "alter table t alter a type text, alter b type text using lower(b)",
            "alter table t alter a type integer using(a * 100)",
            "alter table t alter \"it's\" type integer using \"it's\" * 100; -- '",
            "alter table t alter a type numeric using a::integer",
            "alter table t alter a type text using a::char(2)",
            "set local timezone = 'America/New_York'; alter table t alter a type timestamp",
            "do $$ begin execute 'alter table t'; end $$",
            "select convert_it()",
            "call convert_it()",
        ] {
            assert!(may_convert(own), "{own}");
        }
    }

    #[test]
    fn strings_and_comments_are_left_out() {
        assert_eq!(
            statements("a 'x; ''y' b; -- c;\nD E'\\'; ' $$ ; $$ $t$ $$; $t$ e /* ; /* ; */ */ f"),
            ["a '' b", "d e'' '' '' e f"]
        );
        assert_eq!(statements("'unended ; "), ["''"]);
    }
}
