//! Tests on a real PostgreSQL, and of the binary: one module a theme. They bring their own server; see `support`.

// The exemptions for tests do not reach functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, unreachable_pub)]

mod ahead;
mod another_chain;
mod architecture;
mod chains;
mod chaos;
mod checks;
mod choosing;
mod cli;
mod cluster;
#[cfg(feature = "failpoints")]
mod crash;
mod demo;
mod deploy;
mod exact;
mod fold;
mod hostile;
mod hostile_source;
mod hostile_transforms;
mod journals;
mod kafka;
mod keys;
mod leaks;
mod ledger;
mod live;
mod logs;
mod manual;
mod migrations;
mod names;
mod outages;
mod owners;
mod pipeline;
mod poolers;
mod pruning;
mod refusals;
mod relay;
mod reorgs;
mod reset;
mod roles;
mod server;
mod servers;
mod simulate;
mod sinks;
mod steady;
mod support;
mod terminal;
mod tls;
mod trust;
mod views;
mod webhook;
mod zoo;
