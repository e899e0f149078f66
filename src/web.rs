//! What tells a web page's requests from those of whoever is on this machine.
//!
//! A page that names another host than its own is seen by `Origin`. One whose own name was made to point here (DNS
//! rebinding) is seen by `Host`, which still is that name; addresses and `localhost` cannot be made to point elsewhere.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};

/// Why a request of a page is not answered.
pub const ANOTHER_PAGE: &str =
    "the request is another web page's, as its header `Origin` says: no page but one from here may ask";

/// A header's value, if it is there once.
pub fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The host that is asked.
pub fn host(headers: &HeaderMap) -> Result<&str, &'static str> {
    only(headers, &HOST).ok_or("the request needs one header `Host`")
}

/// Whether a host cannot be made to point here by others: an address, `localhost`, or one of these names.
pub fn is_ours(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _port)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok()
        || names.iter().any(|own| own.eq_ignore_ascii_case(&name))
}

/// Whether a page asks that did not come from this host by one of these schemes (`http://`).
pub fn is_of_another_page(headers: &HeaderMap, host: &str, schemes: &[&str]) -> bool {
    if !headers.contains_key(ORIGIN) {
        return false;
    }
    let origin = only(headers, &ORIGIN);
    let own = origin.and_then(|origin| schemes.iter().find_map(|scheme| origin.strip_prefix(scheme)));
    !own.is_some_and(|own| own.eq_ignore_ascii_case(host))
}
