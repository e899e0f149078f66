//! A step as lines of JSON, in the form that the configuration asks for.

use super::About;
use super::compact::Documents;
use super::envelope::Envelopes;
use super::record::records;
use crate::config::{self, Format};
use crate::relay::step::Step;

/// Writes steps as lines.
pub enum Lines {
    /// A line a message.
    Debezium(Envelopes),
    /// A line a step.
    Compact(Documents),
}

impl Lines {
    pub fn new(settings: &config::Sink, about: &About) -> Lines {
        match settings.format {
            Format::Debezium => Lines::Debezium(Envelopes::new(about, settings.schemas)),
            Format::Compact => Lines::Compact(Documents::new(about)),
        }
    }

    /// Appends a step's lines.
    pub fn write(&mut self, step: &Step, out: &mut Vec<u8>) {
        match self {
            Lines::Debezium(envelopes) => {
                envelopes.begin(step);
                for record in records(step) {
                    envelopes.value(step, record, out);
                    out.push(b'\n');
                }
            }
            Lines::Compact(documents) => {
                documents.write(step, out);
                out.push(b'\n');
            }
        }
    }
}
