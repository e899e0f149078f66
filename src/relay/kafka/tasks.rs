//! Where `krafka` runs what it does on its own.

use std::time::Duration;

use krafka::KrafkaError;
use tokio::runtime::Runtime;
use tokio_util::context::TokioContext;

/// What the client does on its own: a queued batch, for one, it would try to send for as long as it may, however long nobody
/// waits for it, and so behind what a later client has written. Here it ends with its driver.
#[derive(Default)]
pub(super) struct Tasks(Option<Runtime>);

impl Tasks {
    pub(super) fn new() -> std::io::Result<Tasks> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("kafka")
            .enable_all()
            .build()?;
        Ok(Tasks(Some(runtime)))
    }

    /// A call of the client's, which must not hang.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        call: impl Future<Output = Result<T, KrafkaError>>,
    ) -> Result<T, KrafkaError> {
        let Some(runtime) = &self.0 else { return Err(KrafkaError::closed("the client")) };
        // Boxed: these are large.
        let call = TokioContext::new(Box::pin(call), runtime.handle().clone());
        match tokio::time::timeout(limit, call).await {
            Ok(done) => done,
            Err(_) => Err(KrafkaError::timeout(format!("{what} took longer than {limit:?}"))),
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
