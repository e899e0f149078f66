//! The stand-in for metashrew: against a real server's transcript, through reorganisations, and misbehaving.

mod chains;
mod command;
mod faults;
mod http;
mod reorgs;
mod source;
mod transcript;
