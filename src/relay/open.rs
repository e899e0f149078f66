//! Makes a sink of what the configuration says.

use super::console::ConsoleSink;
use super::file::FileSink;
use super::format::About;
use super::sink::{Sink, SinkError};
use crate::config::{self, Destination};

/// What shows steps on standard output; as JSON lines also on a terminal, if that is asked for.
pub fn console(settings: &config::Sink, about: &About, json: bool) -> Box<dyn Sink> {
    Box::new(if json { ConsoleSink::json(settings, about) } else { ConsoleSink::new(settings, about) })
}

/// Makes the sink that is configured; it opens nothing before it is asked to.
pub fn open(settings: &config::Sink, about: &About) -> Result<Box<dyn Sink>, SinkError> {
    match &settings.to {
        Destination::Console => Ok(Box::new(ConsoleSink::new(settings, about))),
        Destination::File(file) => Ok(Box::new(FileSink::new(settings, file, about))),
        Destination::Kafka(_) | Destination::Webhook(_) => {
            let kind = settings.to.kind();
            Err(SinkError::permanent(format!("the sink `{}` cannot be of kind `{kind}` yet", about.sink)))
        }
    }
}
