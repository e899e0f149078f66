//! Sinks that need no network, and how events look.

mod console;
mod crashes;
mod events;
mod files;
mod golden;
mod steps;
