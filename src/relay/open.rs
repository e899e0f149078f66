//! Makes a sink of what the configuration says.

use super::console::ConsoleSink;
use super::file::FileSink;
use super::format::About;
use super::kafka::KafkaSink;
use super::sink::{Sink, SinkError};
use super::webhook::WebhookSink;
use crate::config::{self, Destination};

/// What shows steps on standard output; as JSON lines also on a terminal, if that is asked for.
pub fn console(settings: &config::Sink, about: &About, json: bool) -> Box<dyn Sink> {
    Box::new(if json { ConsoleSink::json(settings, about) } else { ConsoleSink::new(settings, about) })
}

/// Makes the sink that is configured; it opens nothing before it is asked to.
pub fn open(settings: &config::Sink, about: &About) -> Result<Box<dyn Sink>, SinkError> {
    Ok(match &settings.to {
        Destination::Console => Box::new(ConsoleSink::new(settings, about)),
        Destination::File(file) => Box::new(FileSink::new(settings, file, about)),
        Destination::Kafka(kafka) => Box::new(KafkaSink::new(settings, kafka, about)),
        Destination::Webhook(webhook) => Box::new(WebhookSink::new(settings, webhook, about)),
    })
}
