//! The stand-in for metashrew: against a real server's transcript, through reorganisations, and misbehaving.

mod http;
mod transcript;
