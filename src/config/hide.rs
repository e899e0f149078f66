//! What may be shown of URLs and of other texts that may hold a secret. Hides too much rather than too little.

/// What is left out.
const HIDDEN: &str = "…";

/// Scheme, host and port of a URL for HTTP, and `…` for all else: a key may stand in the user's place, in the path or
/// among the parameters. What cannot be read as such a URL is hidden whole.
pub fn shown_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return HIDDEN.to_owned() };
    if !matches!(scheme, "http" | "https") {
        return HIDDEN.to_owned();
    }
    let (authority, after) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    // The password was not escaped: this is a part of it, and of its host nothing is known.
    if after.contains('@') {
        return format!("{scheme}://{HIDDEN}");
    }
    let (login, place) = authority.rsplit_once('@').map_or(("", authority), |(_, place)| (HIDDEN, place));
    if !is_place(place) {
        return format!("{scheme}://{HIDDEN}");
    }
    let at = if login.is_empty() { "" } else { "@" };
    let after = if matches!(after, "" | "/") { "" } else { "/…" };
    format!("{scheme}://{login}{at}{place}{after}")
}

/// URLs with commas between them. With a part that is none, it cannot be told where a password begins and ends.
pub(super) fn shown_urls(text: &str) -> String {
    let urls: Vec<&str> = text.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    if urls.iter().all(|url| url.contains("://")) {
        urls.into_iter().map(shown_url).collect::<Vec<_>>().join(", ")
    } else {
        HIDDEN.to_owned()
    }
}

/// Whether a text, such as an argument that nobody asked for, looks like one that may hold a secret.
pub fn may_hold_secret(text: &str) -> bool {
    let lower = text.to_lowercase();
    let words = ["://", "@", "password", "token", "secret", "authorization", "api-key", "apikey"];
    let is_pair = !text.starts_with('-') && text.contains('=');
    is_pair || words.iter().any(|word| lower.contains(word))
}

/// Whether this is a host, and a port if there is one.
fn is_place(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let is_in_host = |c: char| c.is_alphanumeric() || "-._".contains(c);
    let is_address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    (is_address || !host.is_empty() && host.chars().all(is_in_host))
        && port.len() <= 5
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_host_and_port_are_shown() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://h/", "https://h"),
            ("http://u:pw@h:8080/a", "http://…@h:8080/…"),
            ("https://KEY@h", "https://…@h"),
            ("https://h/v1/KEY/", "https://h/…"),
            ("https://[::1]:8080/a?x=1&sig=sesame", "https://[::1]:8080/…"),
            ("https://h?auth=KEY", "https://h/…"),
            ("https://h#KEY", "https://h/…"),
            ("https://u:p@w@h/", "https://…@h"),
            // Not escaped: where the password ends is not known.
            ("https://u:p/w@h/", "https://…"),
            ("https://u:12/w@h/", "https://…"),
            ("https://u:p?w@h/", "https://…"),
            ("https://u:pw", "https://…"),
            ("https://KEY KEY", "https://…"),
            ("ftp://u:pw@h", "…"),
            ("KEY://h", "…"),
            ("pw", "…"),
            ("", "…"),
        ] {
            assert_eq!(shown_url(text), shown, "{text}");
        }
        assert_eq!(shown_urls("http://a, https://KEY@b:1/c"), "http://a, https://…@b:1/…");
        assert_eq!(shown_urls("http://u:1,w@h"), "…");
        assert_eq!(shown_urls(""), "");
    }
}
