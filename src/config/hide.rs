//! Takes passwords out of connection strings before they are shown. Hides too much rather than too little.

const HIDDEN: &str = "***";

/// A URL or a `key=value` connection string without the passwords in it. What cannot be read as either is
/// hidden whole.
pub fn hide_password(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", hide_in_url(rest)),
        None => hide_in_pairs(text).unwrap_or_else(|| HIDDEN.to_owned()),
    }
}

/// A password may itself hold `/`, `?` and `@` when it was not escaped: whatever stands between the first colon
/// and the last `@` is taken to be it.
fn hide_in_url(rest: &str) -> String {
    let (user, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => match credentials.split_once(':') {
            Some((user, _)) => (format!("{user}:{HIDDEN}@"), place),
            None => (format!("{credentials}@"), place),
        },
        None => (String::new(), rest),
    };
    let Some((address, parameters)) = place.split_once('?') else {
        return user + place;
    };
    let parameters: Vec<String> = parameters
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
            _ => parameter.to_owned(),
        })
        .collect();
    format!("{user}{address}?{}", parameters.join("&"))
}

/// `host=h password='a b'`; a value may be quoted, with backslashes before quotes inside. Source: PostgreSQL's
/// manual, "Connection Strings".
fn hide_in_pairs(text: &str) -> Option<String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        let after = after.trim_start();
        let length = value_length(after)?;
        let value = if is_secret(name) { HIDDEN } else { &after[..length] };
        pairs.push(format!("{name}={value}"));
        rest = after[length..].trim_start();
    }
    Some(pairs.join(" "))
}

/// How many bytes the value at the beginning of `text` takes; `None` when its quote is not closed.
fn value_length(text: &str) -> Option<usize> {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(usize::from(quoted)) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return Some(index + 1),
            _ if !quoted && character.is_whitespace() => return Some(index),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "token", "secret", "key"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show() {
        for (text, shown) in [
            ("postgres://u:pw@h:5432/d", "postgres://u:***@h:5432/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u:p@/w?x@h/d", "postgres://u:***@h/d"),
            (
                "postgres://h/d?user=u&password=pw&sslmode=require",
                "postgres://h/d?user=u&password=***&sslmode=require",
            ),
            ("http://u:pw@h:8080/a", "http://u:***@h:8080/a"),
            ("https://[::1]:8080/a?x=1&apikey=sesame", "https://[::1]:8080/a?x=1&apikey=***"),
            ("host=h user=u password=pw dbname=d", "host=h user=u password=*** dbname=d"),
            (r"host=h password='a b\' c' user=u", "host=h password=*** user=u"),
            ("password = pw host = h", "password=*** host=h"),
            ("password='never closed", "***"),
            ("pw", "***"),
            ("", ""),
        ] {
            assert_eq!(hide_password(text), shown, "{text}");
        }
    }
}
