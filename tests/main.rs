//! Tests on a real PostgreSQL, and of the binary: one module a theme. They bring their own server; see `support`.

// Clippy's own exemption for tests does not reach functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
mod cli;
mod cluster;
mod manual;
mod support;
