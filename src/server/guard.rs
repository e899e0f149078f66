//! Who may ask: with a token who has it, without one who is on this machine, web pages of others excepted.
//!
//! How pages are told, `web` says. With a token `Host` does not matter: a page of another name does not have it, nor the
//! cookie, which belongs to that name.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use bitcoin::hashes::{Hash, sha256};
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::web;

const COOKIE_NAME: &str = "debshrew_session";

/// Decides by a request's headers.
pub(super) struct Guard {
    token: Option<Token>,
}

struct Token {
    token: Secret,
    /// What the browser keeps in its place.
    cookie: Secret,
}

impl Guard {
    pub(super) fn new(token: Option<Secret>) -> Guard {
        let token = token.map(|token| {
            let derived = sha256::Hash::hash(format!("debshrew session\0{}", token.reveal()).as_bytes());
            Token { token, cookie: Secret::new(hex::encode(derived.to_byte_array())) }
        });
        Guard { token }
    }

    /// Why a request is not answered to anybody, if it is not.
    pub(super) fn admits(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let host = web::host(headers)?;
        if self.token.is_none() && !web::is_ours(host, &[]) {
            return Err(
                "the header `Host` names neither an address nor `localhost`: ask by one of those, or set \
                        `server.token`",
            );
        }
        match web::is_of_another_page(headers, host, &["http://", "https://"]) {
            true => Err(web::ANOTHER_PAGE),
            false => Ok(()),
        }
    }

    /// Whether whoever asks has the token, or needs none.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(Token { token, cookie }) = &self.token else { return true };
        let bearer = web::only(headers, &AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        bearer.is_some_and(|given| same(given, token)) || cookies(headers).any(|given| same(given, cookie))
    }

    /// The cookie that stands for the token from now on, if this is the token.
    pub(super) fn cookie_for(&self, given: &str) -> Option<String> {
        let Token { token, cookie } = self.token.as_ref()?;
        let cookie = cookie.reveal();
        same(given, token)
            .then(|| format!("{COOKIE_NAME}={cookie}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000"))
    }
}

/// In a time that does not tell where they differ.
fn same(given: &str, secret: &Secret) -> bool {
    given.as_bytes().ct_eq(secret.reveal().as_bytes()).into()
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use axum::http::header::{HOST, ORIGIN};
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn closed() -> Guard {
        Guard::new(Some(Secret::new(TOKEN)))
    }

    #[test]
    fn without_a_token_a_host_must_be_an_address_or_localhost() {
        let open = Guard::new(None);
        for host in ["127.0.0.1:9464", "[::1]:9464", "LocalHost:1", "a.localhost", "localhost."] {
            assert!(open.admits(&headers(&[(HOST, host)])).is_ok(), "{host}");
        }
        for host in ["evil.example:9464", "127.0.0.1.evil.example", "localhost.evil.example", ""] {
            assert!(open.admits(&headers(&[(HOST, host)])).is_err(), "{host}");
            assert!(closed().admits(&headers(&[(HOST, host)])).is_ok(), "{host}");
        }
        assert!(open.admits(&HeaderMap::new()).is_err() && open.knows(&HeaderMap::new()));
    }

    #[test]
    fn an_origin_must_be_our_own() {
        for guard in [Guard::new(None), closed()] {
            let admits =
                |origin| guard.admits(&headers(&[(HOST, "127.0.0.1:9464"), (ORIGIN, origin)])).is_ok();
            assert!(admits("http://127.0.0.1:9464") && admits("https://127.0.0.1:9464"));
            for origin in ["http://evil.example", "http://127.0.0.1:3000", "null", ""] {
                assert!(!admits(origin), "{origin}");
            }
        }
    }

    #[test]
    fn who_has_the_token_or_the_cookie_for_it_is_known() {
        let guard = closed();
        let cookie = guard.cookie_for(TOKEN).unwrap();
        assert!(!cookie.contains(TOKEN) && cookie.contains("HttpOnly"));
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let both = format!("other=1; {cookie}");
        for (name, value) in [
            (AUTHORIZATION, "Bearer 0123456789abcdef"),
            (AUTHORIZATION, "bearer 0123456789abcdef"),
            (COOKIE, &cookie),
            (COOKIE, &both),
        ] {
            assert!(guard.knows(&headers(&[(name, value)])), "{value}");
        }
        for (name, value) in [
            (AUTHORIZATION, "Bearer 0123456789abcdeF"),
            (AUTHORIZATION, "Bearer "),
            (AUTHORIZATION, "Basic 0123456789abcdef"),
            (AUTHORIZATION, TOKEN),
            (COOKIE, "debshrew_session=0123456789abcdef"),
            (COOKIE, "debshrew_session="),
        ] {
            assert!(!guard.knows(&headers(&[(name, value)])), "{value}");
        }
        assert!(!guard.knows(&HeaderMap::new()));
        assert_eq!((guard.cookie_for(""), guard.cookie_for("0123456789abcde")), (None, None));
        assert_eq!(Guard::new(None).cookie_for(TOKEN), None);
    }
}
