//! Sinks that need no network, and how events look.

mod console;
mod crashes;
mod events;
mod files;
mod flink;
mod golden;
mod steps;
