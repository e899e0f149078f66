//! The stand-in for metashrew: against a real server's transcript, through reorganisations, and misbehaving.

mod chains;
mod command;
mod faults;
pub mod http;
pub mod reorgs;
pub mod source;
mod strangers;
mod transcript;
