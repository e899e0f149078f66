//! Begins asynchronous work and tells it when to stop.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Error, Exit};

/// Runs `work` to its end on a multi-threaded runtime. SIGINT and SIGTERM cancel its token, upon which it is to end
/// by itself, between blocks; a second signal ends the process at once, which loses nothing either.
pub fn block_on<T, F>(work: impl FnOnce(CancellationToken) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = Signals::listen()?;
        tokio::spawn(signals.cancel(stop.clone()));
        work(stop).await
    });
    // An evaluation that is under way on another thread has no one left to read its result.
    runtime.shutdown_background();
    result
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Error> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(Error::Runtime)?,
            terminate: signal(SignalKind::terminate()).map_err(Error::Runtime)?,
        })
    }

    async fn cancel(mut self, stop: CancellationToken) {
        self.next().await;
        tracing::info!("stopping after the block at hand; a second signal stops at once");
        stop.cancel();
        self.next().await;
        std::process::exit(Exit::Failure as i32);
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_signal_cancels_the_token() {
        let seen = block_on(async |stop| {
            let kill = tokio::process::Command::new("kill")
                .arg("-TERM")
                .arg(std::process::id().to_string())
                .status();
            assert!(kill.await.unwrap().success());
            tokio::time::timeout(Duration::from_secs(30), stop.cancelled()).await.unwrap();
            Ok("cancelled")
        });
        assert_eq!(seen.unwrap(), "cancelled");
    }
}
