//! What a process tells of itself over HTTP while it runs: metrics for Prometheus, probes, the state as JSON, and a page
//! that shows it as it changes.
//!
//! Reads what `observe` knows, and now and then the database; changes nothing. No answer waits for the database.

mod answers;
mod connections;
mod events;
mod guard;
mod page;
mod recorder;
mod sampler;
mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::db::Db;
use crate::observe::{self, Observer};
use guard::Guard;
use page::Page;
use sampler::Database;

/// More pages that are shown at once are turned away.
const MOST_WATCHERS: usize = 32;

/// For so long a connection may send no request, or a part of one, and take nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long answers that are under way may take in the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address} (`server.listen`)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the metrics cannot be collected: {0}")]
    Metrics(String),
}

/// The server of this process. Ends with [`Server::stop`], or when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: JoinSet<()>,
}

/// What all answers are made from.
struct Shared {
    observer: Observer,
    guard: Guard,
    page: Page,
    metrics: PrometheusHandle,
    /// How far behind each pipeline may be and count as ready.
    ready_lag: BTreeMap<String, u32>,
    db: OnceLock<Db>,
    database: Mutex<Arc<Database>>,
    /// Pipelines whose task ended by a defect, and how.
    broken: Mutex<BTreeMap<String, String>>,
    watchers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Server {
    /// Listens and answers from now on, also while what it tells of is only being prepared; `None` where no address is
    /// configured. Metrics are collected from here on: pipelines and the source are to be made afterwards.
    pub async fn start(config: &Config, observer: &Observer) -> Result<Option<Server>, ServerError> {
        let Some(address) = config.server.listen else { return Ok(None) };
        let listening = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let metrics = recorder::install().map_err(ServerError::Metrics)?;
        observe::process(observer.started());
        let shared = Arc::new(Shared {
            observer: observer.clone(),
            guard: Guard::new(config.server.token.clone()),
            page: Page::new(),
            metrics,
            ready_lag: ready_lag(config),
            db: OnceLock::new(),
            database: Mutex::default(),
            broken: Mutex::default(),
            watchers: Arc::new(Semaphore::new(MOST_WATCHERS)),
            stop: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(connections::serve(listener, answers::router(&shared), PATIENCE, shared.stop.clone()));
        tasks.spawn(recorder::keep_small(shared.metrics.clone()));
        tracing::info!(%address, "serving the status page and metrics");
        Ok(Some(Server { shared, address, tasks }))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells from now on what this database knows of these pipelines as well.
    pub fn sample(&mut self, db: &Db, pipelines: impl Iterator<Item = String>) {
        // It is called once.
        let _ = self.shared.db.set(db.clone());
        self.tasks.spawn(sampler::sample(Arc::clone(&self.shared), db.clone(), pipelines.collect()));
    }

    /// A pipeline's task ended otherwise than by its own decision: the process is not as it should be.
    pub fn broken(&self, pipeline: &str, how: &str) {
        lock(&self.shared.broken).insert(pipeline.to_owned(), how.to_owned());
    }

    /// Answers what was asked, and ends.
    pub async fn stop(mut self) {
        self.shared.stop.cancel();
        let _ = tokio::time::timeout(LAST_ANSWERS, self.tasks.join_next()).await;
    }
}

/// A pipeline that waits for confirmations stays that far behind.
fn ready_lag(config: &Config) -> BTreeMap<String, u32> {
    let allowed =
        |pipeline: &config::Pipeline| config.server.ready_lag.saturating_add(pipeline.confirmations);
    config.pipelines.iter().map(|(name, pipeline)| (name.clone(), allowed(pipeline))).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
