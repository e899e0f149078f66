//! Who may ask. The stand-in asks nobody for a password, so it is web pages that must be kept out: a browser on this
//! machine would carry their requests to it. How they are told, `web` says.

use hyper::header::HeaderMap;

use crate::web;

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
        let host = web::host(headers)?;
        if !web::is_ours(host, &self.names) {
            return Err(
                "the header `Host` names neither an address nor `localhost`: ask by one of those, or start \
                        `debshrew simulate` with --host and the name that it is asked by",
            );
        }
        match web::is_of_another_page(headers, host, &["http://"]) {
            true => Err(web::ANOTHER_PAGE),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HOST, HeaderValue, ORIGIN};

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
