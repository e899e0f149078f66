//! Tells systemd, where that has started this process: ready when the pipelines are at work, alive as long as the
//! runtime is.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::observe::{Observer, PipelineSnapshot, Snapshot, State};

/// How often the status is told, where nobody asks for signs of life.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Begins to tell, if anybody listens.
pub fn supervise(observer: Observer, stop: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        tokio::spawn(async move { tell(&observer, &stop).await });
    }
}

/// Goes on for as long as the process does, also after it was told to stop: the last block may take a while. What cannot
/// be told now may be told the next time: systemd ends a process that falls silent.
async fn tell(observer: &Observer, stop: &CancellationToken) {
    let interval = sd_notify::watchdog_enabled().map_or(STATUS_INTERVAL, |patience| patience / 3);
    let mut changes = observer.changes();
    let (mut is_ready, mut is_stopping, mut is_heard) = (false, false, true);
    let mut notify = |states: &[NotifyState<'_>]| {
        let told = sd_notify::notify(states);
        if let (Err(error), true) = (&told, is_heard) {
            tracing::warn!(reason = %error, "cannot tell systemd how it is");
        }
        is_heard = told.is_ok();
        is_heard
    };
    loop {
        let snapshot = observer.snapshot();
        if !is_ready && are_at_work(&snapshot) {
            is_ready = notify(&[NotifyState::Ready]);
        }
        notify(&[NotifyState::Status(&status(&snapshot)), NotifyState::Watchdog]);
        tokio::select! {
            () = stop.cancelled(), if !is_stopping => {
                notify(&[NotifyState::Stopping]);
                is_stopping = true;
            }
            // Every task has its turn: one that another task has to begin is the sign of it.
            () = tokio::time::sleep(interval) => drop(tokio::spawn(async {}).await),
            _ = changes.changed(), if !is_ready => {}
        }
    }
}

/// Whether each pipeline has come as far as to run, to wait, or to stand by.
fn are_at_work(snapshot: &Snapshot) -> bool {
    snapshot.pipelines.iter().all(|one| one.state != State::Starting)
}

/// `ledger: running, 2252 of 6000`, in one line for all.
fn status(snapshot: &Snapshot) -> String {
    let height = |height: Option<u32>| height.map_or("-".to_owned(), |height| height.to_string());
    let of = |one: &PipelineSnapshot| {
        let state = format!("{:?}", one.state).to_lowercase();
        format!("{}: {state}, {} of {}", one.name, height(one.height), height(one.source_height))
    };
    snapshot.pipelines.iter().map(of).collect::<Vec<_>>().join("; ")
}
