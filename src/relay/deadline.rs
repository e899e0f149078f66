//! Calls of sinks do not hang for ever.

use std::time::Duration;

use super::error::RelayError;
use super::sink::SinkError;

/// The longest that a call may take.
const DEADLINE: Duration = Duration::from_secs(120);

pub(super) async fn within<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, SinkError>>,
) -> Result<T, RelayError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(RelayError::Deadline { what, seconds: DEADLINE.as_secs() }),
    }
}
