//! The heartbeat of who holds a lock: said every few seconds, on a connection beside, as long as the lock is held. Who waits
//! for the lock ends the session of a holder that has gone silent, and who holds it learns here that it is not the holder
//! any more.

use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::RegisterError;
use crate::db::lock::Lock;
use crate::db::{Db, DbError};
use crate::failure::chain;

const INTERVAL: Duration = Duration::from_secs(2);

/// No answer to one heartbeat takes longer; a new connection is made then.
const ANSWER: Duration = Duration::from_secs(3);

/// Without an answer for so long, the lock's own connection is given up as well.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// Who has been silent for so long, by the database's clock, may be ended.
const SILENT_SECONDS: f64 = 10.0;

/// Between the two looks that must find the same, so that a database that itself stood still gives the holder time.
const TWO_LOOKS: Duration = Duration::from_millis(900);

/// What a heartbeat is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Pipeline(i32),
    Sink(i32),
}

impl Of {
    fn table(self) -> &'static str {
        match self {
            Of::Pipeline(_) => "debshrew.heartbeat",
            Of::Sink(_) => "debshrew.sink_heartbeat",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Of::Pipeline(_) => "pipeline_id",
            Of::Sink(_) => "sink_id",
        }
    }

    fn id(self) -> i32 {
        match self {
            Of::Pipeline(id) | Of::Sink(id) => id,
        }
    }

    fn lock(self) -> Lock {
        match self {
            Of::Pipeline(id) => Lock::Writer(id),
            Of::Sink(id) => Lock::Sink(id),
        }
    }
}

/// Why the lock is held no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// Another process has taken over.
    TakenOver,
    /// PostgreSQL has ended the session that held it.
    SessionEnded,
    /// PostgreSQL does not answer.
    NoAnswer,
}

impl Lost {
    fn error(self, of: String, taken_over: RegisterError) -> RegisterError {
        match self {
            Lost::TakenOver => taken_over,
            Lost::SessionEnded => RegisterError::SessionEnded { of },
            Lost::NoAnswer => RegisterError::Silent(GIVEN_UP),
        }
    }
}

/// A heartbeat, until it is dropped.
pub(super) struct Heartbeat {
    lost: watch::Receiver<Option<Lost>>,
    _task: AbortOnDropHandle<()>,
}

impl Heartbeat {
    /// Of the session that has just taken the lock, under this epoch.
    pub(super) async fn begin(
        db: &Db,
        session: &Client,
        of: Of,
        epoch: i64,
    ) -> Result<Heartbeat, RegisterError> {
        let (table, key) = (of.table(), of.key());
        let sql = format!(
            "-- register::heartbeat::begin\n\
             insert into {table} ({key}, epoch, session_pid, beat_at) \
             values ($1, $2, pg_catalog.pg_backend_pid(), pg_catalog.clock_timestamp()) \
             on conflict ({key}) do update set epoch = excluded.epoch, session_pid = excluded.session_pid, \
               beat_at = excluded.beat_at \
             returning session_pid"
        );
        let row = session.query_one(&sql, &[&of.id(), &epoch]).await;
        let pid: i32 = row.map_err(DbError::statement("begin the heartbeat"))?.get(0);
        let (tell, lost) = watch::channel(None);
        let db = db.clone();
        let beating = async move {
            let reason = keep_beating(&db, of, epoch, pid).await;
            tell.send_replace(Some(reason));
        };
        let task = AbortOnDropHandle::new(tokio::spawn(beating.in_current_span()));
        Ok(Heartbeat { lost, _task: task })
    }

    /// Waits until the lock is held no longer, if that ever happens, and says why.
    pub(super) fn lost(
        &self,
        of: String,
        taken_over: RegisterError,
    ) -> impl Future<Output = RegisterError> + Send + use<> {
        let mut lost = self.lost.clone();
        async move {
            if let Ok(reason) = lost.wait_for(Option::is_some).await
                && let Some(reason) = *reason
            {
                return reason.error(of, taken_over);
            }
            // The lease was dropped.
            std::future::pending().await
        }
    }
}

/// Returns why that is of no use any more.
async fn keep_beating(db: &Db, of: Of, epoch: i64, pid: i32) -> Lost {
    let mut answered = Instant::now();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match beat(db, of, epoch, pid).await {
            Ok(None) => answered = Instant::now(),
            Ok(Some(lost)) => return lost,
            Err(error) => {
                // A refusal is an answer as well: of a disk that is full, or of a server that only reads for now.
                let refused = matches!(&error, RegisterError::Db(DbError::Statement { source, .. })
                    if source.code().is_some_and(|code| *code != SqlState::ADMIN_SHUTDOWN));
                if refused {
                    answered = Instant::now();
                }
                tracing::debug!(reason = chain(&error), "cannot say that this process is alive");
            }
        }
        if answered.elapsed() >= GIVEN_UP {
            return Lost::NoAnswer;
        }
    }
}

/// Says once that the process is alive. Returns why the lock is not its own any more, if so.
async fn beat(db: &Db, of: Of, epoch: i64, pid: i32) -> Result<Option<Lost>, RegisterError> {
    let silent = || RegisterError::Silent(ANSWER);
    let client = tokio::time::timeout(ANSWER, db.beats()).await.map_err(|_| silent())??;
    let sql = format!(
        "-- register::heartbeat::beat\n\
         update {} set beat_at = pg_catalog.clock_timestamp() where {} = $1 and epoch = $2 \
         returning exists (select from pg_catalog.pg_stat_get_activity($3))",
        of.table(),
        of.key()
    );
    let beating = async {
        let beat = client.prepare_cached(&sql).await?;
        client.query_opt(&beat, &[&of.id(), &epoch, &pid]).await
    };
    let Ok(beaten) = tokio::time::timeout(ANSWER, beating).await else {
        // Nobody is to wait on this connection again.
        drop(Object::take(client));
        return Err(silent());
    };
    let row = beaten.map_err(DbError::statement("say that this process is alive"))?;
    Ok(match row.map(|row| row.get(0)) {
        None => Some(Lost::TakenOver),
        Some(false) => Some(Lost::SessionEnded),
        Some(true) => None,
    })
}

/// What one who waits for a lock knows of its holder.
#[derive(Debug, Default)]
pub struct Silence {
    /// The last heartbeat that was too old, and when it was seen first.
    seen: Option<(String, Instant)>,
}

impl Silence {
    /// Ends the session of the pipeline's writer if that has gone silent. To be asked again and again.
    pub async fn end_writer(&mut self, client: &Client, pipeline: i32) -> Result<(), RegisterError> {
        self.end(client, Of::Pipeline(pipeline)).await
    }

    /// The same of whoever publishes to the sink.
    pub async fn end_relay(&mut self, client: &Client, sink: i32) -> Result<(), RegisterError> {
        self.end(client, Of::Sink(sink)).await
    }

    async fn end(&mut self, client: &Client, of: Of) -> Result<(), RegisterError> {
        let Some(holder) = of.lock().holder(client).await? else {
            self.seen = None;
            return Ok(());
        };
        let sql = format!(
            "-- register::heartbeat::silent\n\
             select beat_at::text as beat, extract(epoch from pg_catalog.clock_timestamp() - beat_at)::float8 as age \
               from {} where {} = $1 and session_pid = $2",
            of.table(),
            of.key()
        );
        let row = client.query_opt(&sql, &[&of.id(), &holder.pid]).await;
        let row = row.map_err(DbError::statement("look for the heartbeat of who holds the lock"))?;
        let silent = row.filter(|row| row.get::<_, f64>("age") > SILENT_SECONDS);
        let Some((beat, age)) = silent.map(|row| (row.get::<_, String>("beat"), row.get::<_, f64>("age")))
        else {
            self.seen = None;
            return Ok(());
        };
        match &self.seen {
            Some((seen, since)) if *seen == beat => {
                if since.elapsed() < TWO_LOOKS {
                    return Ok(());
                }
            }
            _ => {
                self.seen = Some((beat, Instant::now()));
                return Ok(());
            }
        }
        tracing::warn!(
            reason = format!("{holder} holds its lock and has not said for {age:.0} s that it is alive"),
            "ending the session of a process that is gone"
        );
        let sql = format!(
            "-- register::heartbeat::end\n\
             select pg_catalog.pg_terminate_backend(session_pid) from {} \
              where {} = $1 and session_pid = $2 and beat_at::text = $3",
            of.table(),
            of.key()
        );
        let ended = client.query(&sql, &[&of.id(), &holder.pid, &beat]).await;
        ended.map_err(DbError::statement(format!("end the session {}", holder.pid)))?;
        Ok(())
    }
}
