//! A sink of the kind that the configuration names.

use super::format::About;
use super::kafka::Kafka;
use super::sink::{Sink, SinkError};
use super::webhook::Webhook;
use crate::config::{self, Destination};

/// Makes a sink, which opens nothing before it is asked to.
pub fn open(settings: &config::Sink, about: &About) -> Result<Box<dyn Sink>, SinkError> {
    match &settings.to {
        Destination::Kafka(kafka) => Ok(Box::new(Kafka::new(kafka, settings, about))),
        Destination::Webhook(webhook) => Ok(Box::new(Webhook::new(webhook, settings, about))),
        Destination::Console | Destination::File(_) => {
            Err(SinkError::permanent("there is no sink of this kind yet"))
        }
    }
}
