//! What goes on whatever happens around it: sessions, take-overs, failures beside the stream.

mod beside;
mod sessions;
mod takeover;
