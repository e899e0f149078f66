//! Who may ask. The stand-in asks nobody for a password, so it is web pages that must be kept out: a browser on this
//! machine would carry their requests to it.
//!
//! A page that names another host than its own is seen by `Origin`. One whose own name was made to point here (DNS
//! rebinding) is seen by `Host`, which still is that name; addresses and `localhost` cannot be made to point elsewhere.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};

/// Decides by a request's headers.
#[derive(Debug)]
pub(super) struct Guard {
    /// Names of this host beside its addresses and `localhost`.
    names: Vec<String>,
}

impl Guard {
    pub(super) fn new(names: Vec<String>) -> Guard {
        Guard { names }
    }

    /// Why a request is not answered, if it is not.
    pub(super) fn admits(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let host = only(headers, &HOST).ok_or("the request needs one header `Host`")?;
        if !self.is_ours(host) {
            return Err(
                "the header `Host` names neither an address nor `localhost`: ask by one of those, or start \
                        `debshrew simulate` with --host and the name that it is asked by",
            );
        }
        if !headers.contains_key(ORIGIN) {
            return Ok(());
        }
        let own = only(headers, &ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
        if own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            Ok(())
        } else {
            Err(
                "the request is another web page's, as its header `Origin` says: no page but one from here may ask",
            )
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _port)) => address,
            None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost"
            || name.ends_with(".localhost")
            || name.parse::<IpAddr>().is_ok()
            || self.names.iter().any(|own| own.eq_ignore_ascii_case(&name))
    }
}

/// A header's value, if it is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn admits(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_str(host).unwrap())]);
        headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_str(origin).unwrap())));
        Guard::new(vec!["stand-in".to_owned()]).admits(&headers).is_ok()
    }

    #[test]
    fn addresses_localhost_and_given_names_are_ours_and_no_other_name_is() {
        for host in [
            "127.0.0.1:8080",
            "10.1.2.3",
            "[::1]:8080",
            "LocalHost:1",
            "a.localhost",
            "localhost.",
            "Stand-In:8080",
        ] {
            assert!(admits(host, None), "{host}");
        }
        for host in
            ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "", "notlocalhost"]
        {
            assert!(!admits(host, None), "{host}");
        }
        assert!(Guard::new(Vec::new()).admits(&HeaderMap::new()).is_err());
    }

    #[test]
    fn an_origin_must_be_our_own() {
        assert!(admits("127.0.0.1:8080", Some("http://127.0.0.1:8080")));
        for origin in ["http://evil.example", "http://127.0.0.1:3000", "https://127.0.0.1:8080", "null", ""] {
            assert!(!admits("127.0.0.1:8080", Some(origin)), "{origin}");
        }
    }
}
