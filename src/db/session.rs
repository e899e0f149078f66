//! What every session is made of: settings that no role's or database's get the better of, and how a connection whose
//! other end is gone is found out.

use std::time::Duration;

use deadpool_postgres::{ClientWrapper, HookError};
use tokio_postgres::Config;

/// How long what was sent may lie at a server that takes no more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// A minute: nothing is sent behind a statement before that is answered.
    Bounded,
    /// As long as the server's end is there, since more is sent behind a statement that takes long. The kernel cannot tell a
    /// server that does not read on meanwhile from one that is gone; the heartbeat of a lease does.
    WhileAlive,
}

impl Patience {
    pub(super) fn set(self, config: &mut Config) {
        config.keepalives_idle(Duration::from_secs(15));
        config.keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(3);
        if self == Patience::Bounded {
            config.tcp_user_timeout(Duration::from_secs(60));
        }
    }
}

/// The first to be sent: under a role's time limit what follows may take longer than that.
const UNLIMIT: &str = "-- db::session::pin\nset statement_timeout = 0";

/// Whatever the role's or the database's settings are: names without a schema are PostgreSQL's own, what a value's text
/// means is the same on every connection, and no time limit ends what we wait for. Compiling our plans takes longer than
/// running them. Not every version of PostgreSQL has each of the limits.
const PIN: &str = "-- db::session::pin\n\
    set search_path = ''; set timezone = 'UTC'; set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; \
    set extra_float_digits = 1; set bytea_output = 'hex'; set xmloption = 'content'; set array_nulls = on; \
    set standard_conforming_strings = on; set transform_null_equals = off; set jit = off; \
    set lock_timeout = 0; set idle_in_transaction_session_timeout = 0; \
    select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings \
     where name in ('transaction_timeout', 'idle_session_timeout')";

/// The server's end finds out within half a minute that ours is gone, and looks for that while a statement runs or waits.
/// Source: PostgreSQL's manual, "TCP Settings". Where the system has no such thing, PostgreSQL refuses.
const WATCH: &str = "-- db::session::watch\n\
    select pg_catalog.set_config(s.name, v.value, false) \
      from (values ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'), \
                   ('tcp_user_timeout', '30s'), ('client_connection_check_interval', '5s')) v (name, value) \
      join pg_catalog.pg_settings s on s.name = v.name";

/// `owner`: the role that is trusted as the owner, which the session is to know.
pub(super) async fn pin(client: &ClientWrapper, owner: &str) -> Result<(), HookError> {
    client.batch_execute(UNLIMIT).await.map_err(HookError::Backend)?;
    client.batch_execute(PIN).await.map_err(HookError::Backend)?;
    let owner = format!("-- db::session::pin\nset debshrew.owner_role = '{}'", owner.replace('\'', "''"));
    client.batch_execute(&owner).await.map_err(HookError::Backend)?;
    match client.batch_execute(WATCH).await {
        Err(error) if error.code().is_none() => Err(HookError::Backend(error)),
        Err(error) => {
            let reason = error.to_string();
            tracing::debug!(reason, "PostgreSQL does not look whether connections are alive");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
