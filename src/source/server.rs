//! Tells one server from another.

use std::fmt;

use super::endpoint::Endpoint;

/// One of the servers, to be told from the others.
#[derive(Clone)]
pub struct Server(Endpoint);

impl Server {
    pub(super) fn new(endpoint: &Endpoint) -> Server {
        Server(endpoint.clone())
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

impl PartialEq for Server {
    fn eq(&self, other: &Server) -> bool {
        self.0.is(&other.0)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.shown())
    }
}
