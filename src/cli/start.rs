//! What commands begin with: asynchronous work that is told when to stop, the pipelines that were chosen, the
//! database, the transforms.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::quoted;
use super::{Error, Exit};
use crate::config::{self, Config};
use crate::db::{Db, DbError};
use crate::file;
use crate::runtime::Transform;

/// Runs `work` to its end on a multi-threaded runtime. SIGINT and SIGTERM cancel its token, upon which it is to end
/// by itself, between blocks; a second signal ends the process at once, which loses nothing either.
pub fn block_on<T, F>(work: impl FnOnce(CancellationToken) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    finish(async {
        let stop = CancellationToken::new();
        let signals = Signals::listen()?;
        tokio::spawn(signals.cancel(stop.clone()));
        work(stop).await
    })
}

/// Runs `work` to its end on a multi-threaded runtime. A signal ends the process at once, as it does with programs
/// that do not listen to it: for work whose every effect is one transaction.
pub fn finish<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(work);
    // An evaluation that is under way on another thread has no one left to read its result.
    runtime.shutdown_background();
    result
}

/// The pipelines that were named, or all.
pub fn chosen<'a>(
    config: &'a Config,
    names: &[String],
) -> Result<Vec<(&'a str, &'a config::Pipeline)>, Error> {
    let all = config.pipelines.iter().map(|(name, settings)| (name.as_str(), settings));
    if let Some(name) = names.iter().find(|name| !config.pipelines.contains_key(*name)) {
        let known = quoted(config.pipelines.keys().map(String::as_str));
        return Err(Error::UnknownPipeline { name: name.clone(), known });
    }
    Ok(all.filter(|(name, _)| names.is_empty() || names.iter().any(|chosen| chosen == name)).collect())
}

/// The database, if it can be reached now.
pub async fn database(config: &Config) -> Result<Db, Error> {
    let db = Db::new(&config.database)?;
    match db.client().await {
        Ok(_) => Ok(db),
        Err(error @ (DbError::TooOld { .. } | DbError::NotUtf8 { .. } | DbError::Pooled { .. })) => {
            Err(error.into())
        }
        Err(error) => Err(Error::DatabaseUnreachable(error)),
    }
}

/// Reads and compiles a pipeline's transform.
pub fn transform(pipeline: &str, settings: &config::Pipeline) -> Result<Transform, Error> {
    let path = settings.transform.display().to_string();
    let wasm = file::read(&settings.transform, file::MODULE).map_err(|source| Error::Transform {
        pipeline: pipeline.to_owned(),
        path: path.clone(),
        source,
    })?;
    Transform::compile(&path, &wasm, &settings.limits, settings.unknown_imports)
        .map_err(|source| Error::Unusable { pipeline: pipeline.to_owned(), source })
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
