//! Runs refinery's migrations inside a transaction of the caller's, so that what must stay in step with them
//! is committed together with them, and so that a dry run is a real run that is rolled back.

use std::path::Path;

use refinery::{AsyncMigrate, Migration, Runner};
use refinery_core::parse_migration_name;
use refinery_core::traits::r#async::{AsyncQuery, AsyncTransaction};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::error::{DbError as Refusal, ErrorPosition};
use tokio_postgres::{GenericClient, Transaction};

use super::{DbError, kind_of};
use crate::failure::Kind;
use crate::file;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// debshrew's own migrations, as built into this binary.
pub fn own() -> Vec<Migration> {
    embedded::migrations::runner().get_migrations().clone()
}

/// The migrations in a folder: files named `V1__what_it_does.sql`, in the order of their numbers. A file with SQL
/// that is called otherwise is an error, since refinery would pass it over.
pub fn in_folder(folder: &Path) -> Result<Vec<Migration>, DbError> {
    if !folder.is_dir() {
        return Err(DbError::Catalog(format!("the migrations folder `{}` does not exist", folder.display())));
    }
    if let Some(name) = misnamed(folder) {
        return Err(DbError::Catalog(format!(
            "`{name}` in the migrations folder `{}` is not named like `V1__what_it_does.sql`: a `V`, its number, two \
             `_`, then letters, digits and `_`",
            folder.display()
        )));
    }
    check_files(folder)?;
    let mut migrations = refinery::load_sql_migrations(folder).map_err(|error| DbError::Migration {
        detail: format!("cannot read the folder `{}`: {error}", folder.display()),
        kind: Kind::Permanent,
    })?;
    if migrations.is_empty() {
        return Err(DbError::Catalog(format!(
            "the migrations folder `{}` holds no file named like `V1__what_it_does.sql`",
            folder.display()
        )));
    }
    migrations.sort();
    Ok(migrations)
}

/// Refuses files that refinery, which reads folders below this one as well, would wait for or not have room for.
fn check_files(folder: &Path) -> Result<(), DbError> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            // refinery does not follow links to folders.
            if !path.is_symlink() {
                check_files(&path)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "sql") {
            file::check(&path, file::MIGRATION).map_err(|error| {
                DbError::Catalog(format!("cannot read the migration `{}`: {error}", path.display()))
            })?;
        }
    }
    Ok(())
}

/// A file in the folder that ends in `.sql` and has no migration's name.
fn misnamed(folder: &Path) -> Option<String> {
    let names =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let has_no_number = |name: &String| {
        let Some(stem) = name.strip_suffix(".sql") else { return name.to_lowercase().ends_with(".sql") };
        // What follows the name's letters, digits and `_` is not looked at by refinery's function.
        parse_migration_name(stem).map_or(true, |(_, _, rest)| !stem.ends_with(&format!("__{rest}")))
    };
    names.filter(has_no_number).min()
}

/// A migration that a database has had.
#[derive(Clone, Debug)]
pub struct Applied {
    pub version: i32,
    pub name: String,
    pub applied_on: String,
}

/// What the `history` table says has been applied; nothing when it does not exist yet.
pub async fn applied(client: &impl GenericClient, history: &str) -> Result<Vec<Applied>, DbError> {
    let reading = || DbError::statement(format!("read the migration history `{history}`"));
    let exists: bool = client
        .query_one("-- db::migrate::applied\nselect pg_catalog.to_regclass($1) is not null", &[&history])
        .await
        .map_err(reading())?
        .get(0);
    if !exists {
        return Ok(Vec::new());
    }
    let rows = client
        .query(&format!("select version, name, applied_on from {history} order by version"), &[])
        .await
        .map_err(reading())?;
    Ok(rows
        .iter()
        .map(|row| Applied { version: row.get(0), name: row.get(1), applied_on: row.get(2) })
        .collect())
}

/// Refuses a database whose own schema is newer than this binary.
pub async fn refuse_newer(client: &impl GenericClient) -> Result<(), DbError> {
    let (found, known) = versions(client).await?;
    if found > known { Err(DbError::NewerDatabase { found, known }) } else { Ok(()) }
}

/// Refuses a database whose own schema is older than this binary.
pub async fn refuse_older(client: &impl GenericClient) -> Result<(), DbError> {
    let (found, known) = versions(client).await?;
    if found < known { Err(DbError::OlderDatabase { found, known }) } else { Ok(()) }
}

/// The version of the database's own schema, and the newest that this binary knows.
async fn versions(client: &impl GenericClient) -> Result<(i32, i32), DbError> {
    let known = own().iter().map(Migration::version).max().unwrap_or(0);
    let found = applied(client, OWN_HISTORY).await?.iter().map(|applied| applied.version).max().unwrap_or(0);
    Ok((found, known))
}

/// Where debshrew's own migrations are recorded.
pub const OWN_HISTORY: &str = "debshrew.migration_history";

/// Runs those of `migrations` that `history` does not name, and returns them. A migration that was changed
/// after it ran, or that is missing from the folder, is an error.
pub async fn run(
    transaction: &Transaction<'_>,
    migrations: &[Migration],
    history: &str,
) -> Result<Vec<Migration>, DbError> {
    let begun = transaction_id(transaction).await?;
    // Not grouped, so that an error names its migration; they share the caller's transaction all the same.
    let report = Runner::new(migrations)
        .set_abort_divergent(true)
        .set_abort_missing(true)
        .set_migration_table_name(history)
        .run_async(&mut Inside(transaction))
        .await
        .map_err(|error| describe(error, migrations))?;
    if transaction_id(transaction).await? != begun {
        return Err(DbError::Migration {
            detail: format!(
                "one of {} ends the transaction that all migrations share: take `commit` and `rollback` out of it; \
                 what stood before them may have been committed already",
                report
                    .applied_migrations()
                    .iter()
                    .map(|one| format!("`{one}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            kind: Kind::Permanent,
        });
    }
    Ok(report.applied_migrations().clone())
}

async fn transaction_id(transaction: &Transaction<'_>) -> Result<String, DbError> {
    transaction
        .query_one("-- db::migrate::transaction_id\nselect pg_catalog.pg_current_xact_id()::text", &[])
        .await
        .map(|row| row.get(0))
        .map_err(DbError::statement("see which transaction this is"))
}

fn describe(error: refinery::Error, migrations: &[Migration]) -> DbError {
    let mut kind = Kind::Permanent;
    let mut detail = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        if let Some(postgres) = inner.downcast_ref::<tokio_postgres::Error>() {
            kind = kind_of(postgres);
            if let Some(refusal) = postgres.as_db_error() {
                // Before anything of a migration ran, the text is another, and names none.
                let failed = migrations.iter().find(|one| detail.contains(&format!(" {one}`")));
                detail = failed.map_or(String::new(), |one| place(one, refusal)) + &refusal.to_string();
                if let Some(hint) = refusal.hint() {
                    detail.push_str(&format!(" (hint: {hint})"));
                }
            }
        }
        cause = inner.source();
    }
    DbError::Migration { detail, kind }
}

/// The migration, and its line if PostgreSQL said where.
fn place(migration: &Migration, refusal: &Refusal) -> String {
    let line = match (refusal.position(), migration.sql()) {
        (Some(ErrorPosition::Original(position)), Some(sql)) => {
            let before = sql.chars().take(*position as usize).filter(|letter| *letter == '\n').count();
            format!(", line {}", before + 1)
        }
        _ => String::new(),
    };
    format!("{migration}{line}: ")
}

/// refinery's view of a transaction that somebody else began and will end.
struct Inside<'a>(&'a Transaction<'a>);

impl AsyncTransaction for Inside<'_> {
    type Error = tokio_postgres::Error;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, Self::Error> {
        let mut count = 0;
        for query in queries {
            self.0.batch_execute(query).await?;
            count += 1;
        }
        Ok(count)
    }
}

impl AsyncQuery<Vec<Migration>> for Inside<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, Self::Error> {
        let rows = self.0.query(query, &[]).await?;
        Ok(rows
            .iter()
            .map(|row| {
                // refinery writes both as text; a row that somebody altered counts as another migration.
                let applied_on = OffsetDateTime::parse(row.get(2), &Rfc3339);
                let checksum = row.get::<_, &str>(3).parse::<u64>();
                Migration::applied(
                    row.get(0),
                    row.get(1),
                    applied_on.unwrap_or(OffsetDateTime::UNIX_EPOCH),
                    checksum.unwrap_or(0),
                )
            })
            .collect())
    }
}

impl AsyncMigrate for Inside<'_> {}
