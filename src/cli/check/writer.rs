//! What `check` says as a role that writes what another one owns: what it lacks, and how the tables are. Migrations are the
//! owner's to try.

use super::super::error::quoted;
use super::super::{Error, migrate};
use super::{Findings, counted};
use crate::config;
use crate::db::Db;
use crate::register::{self, RegisterError};
use crate::schema::{self, tables_in_step};
use crate::table::Tables;

/// Who owns debshrew's schema, if it is another role, and whether this one lacks nothing; what it lacks is said.
pub(super) async fn rights(
    db: &Db,
    (name, settings): &(&str, &config::Pipeline),
    findings: &mut Findings,
) -> Option<(String, bool)> {
    let looked = async {
        let client = db.client().await?;
        let Some(owner) = schema::other_owner(&**client).await? else { return Ok(None) };
        Ok::<_, Error>(Some((owner, schema::lacking(&**client, name, &settings.schema).await?)))
    };
    let what = format!("rights of `{name}`'s writer");
    match looked.await {
        Ok(None) => None,
        Ok(Some((owner, lacks))) => {
            for lack in &lacks {
                findings.say_bad(&what, lack.clone());
            }
            if lacks.is_empty() {
                findings.good(&what, format!("all that it needs of what `{owner}` owns"));
            } else {
                findings.say(&format!(
                    "      hint: `debshrew migrate --grant-write ROLE` as `{owner}` grants all of it, also for later tables"
                ));
            }
            Some((owner, lacks.is_empty()))
        }
        Err(error) => {
            findings.bad(&what, &error);
            Some((String::new(), false))
        }
    }
}

/// The tables as they are now, if their journals fit them.
pub(super) async fn tables(
    db: &Db,
    pipeline: &(&str, &config::Pipeline),
    owner: &str,
    findings: &mut Findings,
) {
    let what = format!("tables of `{}`", pipeline.0);
    let looked = async {
        let pending = migrate::pending(&[*pipeline], db).await?;
        let client = db.client().await?;
        let found = register::find(&**client, pipeline.0).await?;
        let found = found.ok_or_else(|| RegisterError::NotSetUp(pipeline.0.to_owned()))?;
        Ok::<(Tables, usize), Error>((tables_in_step(&client, &found).await?, pending.len()))
    };
    match looked.await {
        Ok((tables, pending)) => {
            let names = quoted(tables.of_rows().map(|target| target.table.name.as_str()));
            match pending {
                0 => findings.good(&what, names),
                some => findings.say_bad(
                    &what,
                    format!("{} to be run by `debshrew migrate` as `{owner}`", counted(some, "migration")),
                ),
            }
            for (table, reason) in tables.refused() {
                findings.say_bad(&format!("table `{table}`"), format!("cannot be replicated: {reason}"));
            }
        }
        Err(error) => findings.bad(&what, &error),
    }
}
