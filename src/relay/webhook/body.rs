//! The body of a request.

use crate::config::{self, Format};
use crate::relay::format::{About, Documents, Envelopes};
use crate::relay::step::Step;

/// Writes bodies.
pub(super) struct Bodies {
    documents: Documents,
    /// What the events in a document are, if not in short.
    envelopes: Option<Envelopes>,
}

impl Bodies {
    pub(super) fn new(settings: &config::Sink, about: &About) -> Bodies {
        let envelopes = match settings.format {
            Format::Debezium => Some(Envelopes::new(about, settings.schemas)),
            Format::Compact => None,
        };
        Bodies { documents: Documents::new(about), envelopes }
    }

    pub(super) fn write(&mut self, step: &Step) -> Vec<u8> {
        let mut body = Vec::new();
        match &mut self.envelopes {
            Some(envelopes) => self.documents.write_envelopes(envelopes, step, &mut body),
            None => self.documents.write(step, &mut body),
        }
        body
    }
}
