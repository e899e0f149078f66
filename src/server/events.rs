//! The state as a stream of events: a new one when something has changed, and now and then in any case, by which the page
//! knows that it has not lost the server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::Shared;
use super::status::status_json;

/// At most so often.
const PAUSE: Duration = Duration::from_millis(500);

/// At least so often.
const PULSE: Duration = Duration::from_secs(3);

struct Watching {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    /// When the next event may be sent, and must be.
    earliest: Instant,
    latest: Instant,
    _place: OwnedSemaphorePermit,
}

/// Ends when the server does; `None` while too many others watch.
pub(super) fn events(shared: &Arc<Shared>) -> Option<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let place = Arc::clone(&shared.watchers).try_acquire_owned().ok()?;
    let now = Instant::now();
    let changes = shared.observer.changes();
    let watching =
        Watching { shared: Arc::clone(shared), changes, earliest: now, latest: now, _place: place };
    Some(stream::unfold(watching, |mut watching| async move {
        let stop = watching.shared.stop.clone();
        stop.run_until_cancelled(watching.next()).await?;
        let status = status_json(&watching.shared);
        Some((Ok(Event::default().event("status").data(status)), watching))
    }))
}

impl Watching {
    /// Waits until there is something to say.
    async fn next(&mut self) {
        let changed = async {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout_at(self.latest, changed).await;
        tokio::time::sleep_until(self.earliest.min(self.latest)).await;
        self.changes.mark_unchanged();
        let now = Instant::now();
        (self.earliest, self.latest) = (now + PAUSE, now + PULSE);
    }
}
