//! `debshrew migrate`

use super::start::{chosen, database, finish};
use super::{Error, Globals, output};
use crate::config::{self, Config};
use crate::db::Db;
use crate::printable;
use crate::schema::{self, Mode, Report, Roles, SchemaError, Wanted};

const HELP: &str = "\
Examples:
  debshrew migrate
  debshrew migrate --status                 what has been applied, and what has not
  debshrew migrate --dry-run                try it in a transaction that is rolled back
  debshrew migrate --grant-read reporting   let a role read what is replicated, later tables included
  debshrew migrate --grant-write writer     let a role run pipelines, and roll them back, without owning their tables";

/// Bring the database's schema up to date: debshrew's own, each pipeline's, and the journals
///
/// Runs under a lock, so that two processes may try it at once. A database that is newer than this program is
/// refused.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Show what has been applied and what has not, and change nothing
    #[arg(long, conflicts_with_all = ["dry_run", "grant_read", "grant_write"])]
    pub status: bool,
    /// Run everything in a transaction, show what it did, and roll it back
    #[arg(long)]
    pub dry_run: bool,
    /// Let this role read the pipelines' tables and debshrew's views; may be repeated
    #[arg(long, value_name = "ROLE")]
    pub grant_read: Vec<String>,
    /// Let this role write for the pipelines, and roll them back; may be repeated
    #[arg(long, value_name = "ROLE")]
    pub grant_write: Vec<String>,
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_database()?;
    let pipelines = chosen(&config, &[])?;
    let mut roles = roles(&config);
    roles.readers.extend(args.grant_read.iter().cloned());
    roles.writers.extend(args.grant_write.iter().cloned());
    finish(async {
        let db = database(&config).await?;
        if args.status {
            return status(&pipelines, &db).await;
        }
        let mode = if args.dry_run { Mode::DryRun } else { Mode::Apply };
        let report = schema::migrate(&mut *db.dedicated().await?, &wanted(&pipelines), &roles, mode).await?;
        output::print(&describe(&report))?;
        if args.dry_run {
            output::print("dry run: everything was rolled back")?;
        }
        Ok(())
    })
}

/// Migrates as the configuration says; what was done goes to the log. While another process writes a pipeline and
/// nothing is pending there is nothing to do but to stand by.
pub(super) async fn apply(
    config: &Config,
    pipelines: &[(&str, &config::Pipeline)],
    db: &Db,
) -> Result<(), Error> {
    let roles = roles(config);
    let report =
        match schema::migrate(&mut *db.dedicated().await?, &wanted(pipelines), &roles, Mode::Apply).await {
            Err(SchemaError::Running { .. }) if pending(pipelines, db).await?.is_empty() => return Ok(()),
            report => report?,
        };
    for (said, line) in lines(&report) {
        match said {
            Said::Done => tracing::info!("migrate: {line}"),
            Said::Warning => tracing::warn!("migrate: {line}"),
        }
    }
    Ok(())
}

/// The roles that the configuration lets in.
fn roles(config: &Config) -> Roles {
    Roles { readers: config.database.read_roles.clone(), writers: config.database.write_roles.clone() }
}

pub(super) fn wanted(pipelines: &[(&str, &config::Pipeline)]) -> Vec<Wanted> {
    let wanted = pipelines.iter().map(|(name, settings)| Wanted {
        name: (*name).to_owned(),
        schema: settings.schema.clone(),
        migrations: settings.migrations.clone(),
        start_height: settings.start_height,
    });
    wanted.collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Done,
    Warning,
}

fn describe(report: &Report) -> String {
    let line = |(said, line)| match said {
        Said::Done => line,
        Said::Warning => format!("warning: {line}"),
    };
    lines(report).into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What was done, and what is to be known; each in one line, whatever tables are called.
fn lines(report: &Report) -> Vec<(Said, String)> {
    let mut lines: Vec<(Said, String)> = Vec::new();
    let mut say = |said, line: String| lines.push((said, printable::line(&line).into_owned()));
    for migration in &report.own {
        say(Said::Done, format!("debshrew: applied {migration}"));
    }
    for pipeline in &report.pipelines {
        let name = &pipeline.name;
        for migration in &pipeline.migrations {
            say(Said::Done, format!("{name}: applied {migration}"));
        }
        for step in &pipeline.journals {
            say(Said::Done, format!("{name}: {step}"));
        }
        for why in &pipeline.cut {
            let what = "blocks committed before cannot be rolled back any more, since";
            say(Said::Warning, format!("{name}: {what} {why}"));
        }
        for sink in &pipeline.lost_sinks {
            let way_out = format!("`debshrew sink resync {name}.{sink}`");
            let why = &pipeline.lost_since;
            say(Said::Warning, format!("{name}: sink `{sink}` must begin again ({way_out}), since {why}"));
        }
        for table in &pipeline.gone {
            say(
                Said::Warning,
                format!(
                    "{name}: table `{table}` was gone, though no migration dropped it; a block that writes to it halts \
                     the pipeline: restore a backup, or begin anew"
                ),
            );
        }
        for (table, why) in &pipeline.refused {
            say(Said::Warning, format!("{name}: `{table}` cannot be replicated: {why}"));
        }
    }
    if lines.is_empty() {
        lines.push((Said::Done, "nothing to do: everything is up to date".into()));
    }
    let let_in = |roles: &[String], what: &str| -> Vec<(Said, String)> {
        let line = |role| printable::line(&format!("role `{role}` may {what}")).into_owned();
        roles.iter().map(|role| (Said::Done, line(role))).collect()
    };
    lines.extend(let_in(&report.roles.readers, "read"));
    lines.extend(let_in(&report.roles.writers, "write"));
    lines
}

/// What has not been applied yet, each with whose it is.
pub(super) async fn pending(pipelines: &[(&str, &config::Pipeline)], db: &Db) -> Result<Vec<String>, Error> {
    let progress = schema::progress(&*db.client().await?, &wanted(pipelines)).await?;
    let named = progress.iter().flat_map(|one| one.pending.iter().map(|name| format!("{}: {name}", one.of)));
    Ok(named.collect())
}

async fn status(pipelines: &[(&str, &config::Pipeline)], db: &Db) -> Result<(), Error> {
    let client = db.client().await?;
    let mut rows = Vec::new();
    for progress in schema::progress(&client, &wanted(pipelines)).await? {
        for had in progress.applied {
            rows.push([progress.of.clone(), format!("V{}__{}", had.version, had.name), had.applied_on]);
        }
        rows.extend(
            progress.pending.into_iter().map(|migration| [progress.of.clone(), migration, "pending".into()]),
        );
    }
    output::print(&output::table(&["of", "migration", "applied"], rows))
}
