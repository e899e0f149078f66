//! How events look to those who consume them: every value's one form, Debezium's envelope, and one document a step.
//!
//! Pure: what is written depends on the step alone, so that a step that is published again has the same bytes.

mod array;
mod compact;
mod control;
mod envelope;
mod json;
mod lines;
mod record;
mod schema;
mod tables;
mod value;

pub use compact::Documents;
pub use control::{Status, control, control_key};
pub use envelope::Envelopes;
pub use lines::Lines;
pub use record::{Record, records};

/// Whose events they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The pipeline's name: `source.name`, and what the schemas' names begin with.
    pub pipeline: String,
    pub sink: String,
    /// The database's name.
    pub database: String,
    /// debshrew's own.
    pub version: String,
}
