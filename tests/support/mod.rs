//! What tests share: one PostgreSQL server a test process, a database a test, and the binary run as a user would.

mod binary;
mod database;

pub use binary::{Output, debshrew};
pub use database::{TestDb, database};
