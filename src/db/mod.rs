//! The PostgreSQL connection: pool, TLS, catalog, locks, migrations.
//!
//! Knows nothing of blocks, changes or journals; `apply` builds those on what is here.

pub mod catalog;
mod fit;
pub mod lock;
pub mod migrate;
pub mod owners;
mod session;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio_postgres::error::SqlState;

use self::fit::Door;
use crate::config;
use crate::failure::Kind;

/// What went wrong between us and PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Why, in words that hold nothing of it.
    #[error("cannot read the database URL (`database.url`): {0}")]
    Url(String),
    #[error("{0}")]
    Tls(String),
    #[error("cannot connect to PostgreSQL at {target}")]
    Connect {
        target: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("got no connection to PostgreSQL at {target}")]
    Pool {
        target: String,
        #[source]
        source: PoolError,
    },
    #[error("PostgreSQL did not accept: {what}")]
    Statement {
        what: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("{0}")]
    Catalog(String),
    #[error(
        "schema `{schema}` belongs to role `{owner}`, which is neither debshrew's role, nor one that it is a member of, \
         nor the database's owner, nor a superuser, nor \
         `database.owner_role`: what `{owner}` puts there would run with debshrew's rights; look at \
         what is in it, then drop it or give it to debshrew's role (`alter schema … owner to …`)"
    )]
    ForeignSchema { schema: String, owner: String },
    #[error(
        "`{name}` belongs to role `{owner}`, which debshrew does not trust: what `{owner}` puts there would run with \
         debshrew's rights; look at it, then drop it, and let nobody else create in that schema"
    )]
    ForeignObject { name: String, owner: String },
    #[error("PostgreSQL at {target} has version {found}, and debshrew needs 14 or a newer one")]
    TooOld { target: String, found: String },
    #[error(
        "database `{database}` has the encoding {encoding}, and debshrew needs UTF8: other text than the transform's would be \
         stored, or none; `create database … encoding 'UTF8' template template0` makes one"
    )]
    NotUtf8 { database: String, encoding: String },
    #[error(
        "there is a connection pooler in transaction mode at {target} (as pgbouncer can be, and Supabase's port 6543 and \
         Neon's `-pooler` hosts are): statements of one session go to several of PostgreSQL's, so that locks and settings \
         would be somebody else's; name PostgreSQL itself in `database.url`, or a pooler in session mode"
    )]
    Pooled { target: String },
    #[error("a migration failed: {detail}")]
    Migration { detail: String, kind: Kind },
    #[error(
        "the database's `debshrew` schema has version {found}, and this debshrew knows versions up to {known}: \
         run a newer debshrew"
    )]
    NewerDatabase { found: i32, known: i32 },
    #[error(
        "the database's `debshrew` schema has version {found}, and this debshrew needs version {known}: \
         run `debshrew migrate`"
    )]
    OlderDatabase { found: i32, known: i32 },
}

impl DbError {
    pub fn kind(&self) -> Kind {
        match self {
            DbError::Url(_)
            | DbError::Tls(_)
            | DbError::Catalog(_)
            | DbError::ForeignSchema { .. }
            | DbError::ForeignObject { .. }
            | DbError::TooOld { .. }
            | DbError::NotUtf8 { .. }
            | DbError::Pooled { .. }
            | DbError::NewerDatabase { .. }
            | DbError::OlderDatabase { .. } => Kind::Permanent,
            // All are in use, or making one took too long.
            DbError::Pool { .. } => Kind::Transient,
            DbError::Connect { source, .. } | DbError::Statement { source, .. } => kind_of(source),
            DbError::Migration { kind, .. } => *kind,
        }
    }

    /// Names what was being done when `source` came back.
    pub fn statement(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> DbError {
        let what = what.into();
        move |source| DbError::Statement { what, source }
    }
}

/// Whether PostgreSQL's error may pass by itself. The classes are those of appendix A of its manual,
/// "PostgreSQL Error Codes".
pub fn kind_of(error: &tokio_postgres::Error) -> Kind {
    let Some(state) = error.code() else {
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        if cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::InvalidInput) {
            // A message larger than the protocol allows was not sent, and will not be the next time either.
            return Kind::Permanent;
        }
        // No answer of the server's: the connection broke, or it never came to be.
        return Kind::Transient;
    };
    let transient = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::IDLE_SESSION_TIMEOUT,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IN_FAILED_SQL_TRANSACTION,
    ];
    // 08: connection, 53: resources (disk, memory, connections), 58: input and output of the system.
    let class = &state.code()[..2];
    if transient.contains(state) || matches!(class, "08" | "53" | "58") {
        Kind::Transient
    } else {
        Kind::Permanent
    }
}

/// They are many more than a process needs: it is the server that says how many there can be.
const MOST_DEDICATED: usize = 1024;

/// A pool of connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    /// Where connections for one owner alone are made.
    dedicated: Pool,
    /// The one connection on which heartbeats go, so that none waits behind anything else.
    beats: Pool,
    target: String,
    /// The schema `debshrew` is there, and belongs to a role that is trusted.
    trusted: Arc<AtomicBool>,
    door: Arc<Door>,
    /// What is behind the door will do.
    fit: Arc<AtomicBool>,
    clear_to: Option<String>,
}

impl Db {
    /// Reads the URL and prepares the pool; connects to nothing yet.
    pub fn new(config: &config::Database) -> Result<Db, DbError> {
        let plan = tls::Plan::read(config)?;
        let connector = plan.connector()?;
        let clear_to = plan.clear_to();
        let mut postgres = plan.postgres;
        postgres.connect_timeout(config.connect_timeout);
        if postgres.get_application_name().is_none() {
            postgres.application_name("debshrew");
        }
        let target = config::shown_target(&postgres);
        let door = Door { postgres: postgres.clone(), connector: connector.clone() };
        let pool = |size: usize, patience: session::Patience| {
            let mut postgres = postgres.clone();
            patience.set(&mut postgres);
            let manager = Manager::from_config(
                postgres,
                connector.clone(),
                ManagerConfig { recycling_method: RecyclingMethod::Verified },
            );
            Pool::builder(manager)
                .max_size(size)
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(Duration::from_secs(30)))
                .create_timeout(Some(config.connect_timeout))
                .recycle_timeout(Some(config.connect_timeout))
                .post_create(pinned(config))
                .build()
                .map_err(|error| DbError::Tls(error.to_string()))
        };
        Ok(Db {
            pool: pool(config.pool_size, session::Patience::Bounded)?,
            dedicated: pool(MOST_DEDICATED, session::Patience::WhileAlive)?,
            beats: pool(1, session::Patience::Bounded)?,
            target,
            trusted: Arc::default(),
            door: Arc::new(door),
            fit: Arc::default(),
            clear_to,
        })
    }

    /// A connection of the pool, which goes back there when it is dropped. Of a database whose schema `debshrew` is
    /// somebody else's there is none: nothing is read there.
    pub async fn client(&self) -> Result<Object, DbError> {
        self.get(&self.pool).await
    }

    /// The connection on which heartbeats go; whoever gets no answer there is to take it out of its pool.
    pub async fn beats(&self) -> Result<Object, DbError> {
        self.get(&self.beats).await
    }

    async fn get(&self, pool: &Pool) -> Result<Object, DbError> {
        let client = self.fit_client(pool).await?.map_err(|error| match error {
            PoolError::Backend(source) | PoolError::PostCreateHook(HookError::Backend(source)) => {
                DbError::Connect { target: self.target.clone(), source }
            }
            source => DbError::Pool { target: self.target.clone(), source },
        })?;
        if !self.trusted.load(Ordering::Relaxed) {
            let there = owners::refuse_foreign_schemas(&**client, &["debshrew"]).await?;
            owners::refuse_foreign_objects(&**client, &["debshrew"]).await?;
            self.trusted.store(there, Ordering::Relaxed);
        }
        Ok(client)
    }

    /// A connection of the pool, to a server and a database that will do.
    async fn fit_client(&self, pool: &Pool) -> Result<Result<Object, PoolError>, DbError> {
        if self.fit.load(Ordering::Relaxed) {
            return Ok(pool.get().await);
        }
        self.door.refuse_unfit(&self.target).await?;
        self.fit.store(true, Ordering::Relaxed);
        // The sessions that this took may still count, where a role may not have many.
        for _ in 0..20 {
            match pool.get().await {
                Err(error) if is_full(&error) => tokio::time::sleep(Duration::from_millis(50)).await,
                got => return Ok(got),
            }
        }
        Ok(pool.get().await)
    }

    /// A connection for one owner alone, whose session may be set up as it likes; closed when dropped.
    pub async fn dedicated(&self) -> Result<ClientWrapper, DbError> {
        Ok(Object::take(self.get(&self.dedicated).await?))
    }

    /// The database's name.
    pub async fn name(&self) -> Result<String, DbError> {
        let row = self.client().await?.query_one("-- db::name\nselect current_database()::text", &[]).await;
        row.map(|row| row.get(0)).map_err(DbError::statement("ask for the database's name"))
    }

    /// How many connections of the pool are open, idle and waited for.
    pub fn pool(&self) -> deadpool_postgres::Status {
        self.pool.status()
    }

    /// The server and database, without secrets: `db.example:5432/app`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The host beyond this machine to which the password may go unencrypted, if there is one. Whether it does is for
    /// that server to say: it may ask for a proof that one knows the password (SCRAM), or for the password itself.
    pub fn password_may_be_seen_on_the_way_to(&self) -> Option<&str> {
        self.clear_to.as_deref()
    }
}

fn is_full(error: &PoolError) -> bool {
    matches!(error, PoolError::Backend(error) if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS))
}

/// Pins each session's settings. The session also knows which role is trusted as the owner; see [`owners`].
fn pinned(config: &config::Database) -> Hook {
    let owner = config.owner_role.clone().unwrap_or_default();
    Hook::async_fn(move |client: &mut ClientWrapper, _| {
        let owner = owner.clone();
        Box::pin(async move { session::pin(client, &owner).await })
    })
}

/// A name as SQL: in double quotes, with those inside doubled. The one way in which names get into SQL.
///
/// Source: PostgreSQL's manual, "Lexical Structure", quoted identifiers.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_inside_names_are_doubled() {
        assert_eq!(quote("a\"b.C d"), "\"a\"\"b.C d\"");
    }
}
