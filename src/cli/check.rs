//! `debshrew check`

mod chain;
mod servers;
mod sinks;
mod writer;

use super::amounts::span;
use super::error::quoted;
use super::start::{chosen, database, finish, transform};
use super::{Error, Globals, migrate, output};
use crate::config;
use crate::db::Db;
use crate::failure;
use crate::pipeline::PipelineError;
use crate::printable;
use crate::register;
use crate::schema::{self, Mode, Roles, SchemaError};

/// Of migrations that are pending.
const TO_RUN: &str = "to be run by `debshrew migrate`";

const HELP: &str = "\
Examples:
  debshrew check
  debshrew check --pipeline ledger";

/// Look for what would keep `run` from working: configuration, database, source, transforms, tables
///
/// Changes nothing. Says of each table that cannot be replicated why, and advises where a table could be better
/// declared.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Only this pipeline; may be repeated
    #[arg(long, value_name = "NAME")]
    pub pipeline: Vec<String>,
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    let config = globals.begin()?;
    config.check_runnable()?;
    let pipelines = chosen(&config, &args.pipeline)?;
    let mut findings = Findings::default();
    findings.good("configuration", counted(pipelines.len(), "pipeline"));
    for warning in &config.warnings {
        findings.note(format!("configuration: {warning}"));
    }
    for (name, settings) in &pipelines {
        match transform(name, settings) {
            Ok(_) => {
                findings.good(&format!("transform of `{name}`"), settings.transform.display().to_string())
            }
            Err(error) => findings.bad(&format!("transform of `{name}`"), &error),
        }
    }
    finish(async {
        let readings = servers::open(&config, &mut findings).await;
        if let Ok(db) = Db::new(&config.database)
            && let Some(host) = db.password_may_be_seen_on_the_way_to()
        {
            findings.note(format!(
                "database: the password may go to {host} unencrypted, and does if that server, or who poses as it, \
                 asks for it: `sslmode=verify-full` in the URL, or `database.tls_root_cert`, prevents it"
            ));
        }
        match database(&config).await {
            Ok(db) => {
                findings.good("database", db.target().to_owned());
                own_tables(&db, &mut findings).await;
                for pipeline in &pipelines {
                    match writer::rights(&db, pipeline, &mut findings).await {
                        // Whatever is looked at would only say the same again.
                        Some((_, false)) => continue,
                        Some((owner, true)) => writer::tables(&db, pipeline, &owner, &mut findings).await,
                        None => tables(&db, pipeline, &mut findings).await,
                    }
                    halt(&db, pipeline.0, &mut findings).await;
                    sinks::check(&db, pipeline, &mut findings).await;
                    for reading in &readings {
                        let is_one = config.source.urls.len() == 1;
                        chain::check(&db, pipeline, reading, is_one, &mut findings).await;
                    }
                }
            }
            Err(error) => findings.bad("database", &error),
        }
        Ok(())
    })?;
    output::print(&findings.lines.join("\n"))?;
    if findings.bad == 0 { Ok(()) } else { Err(Error::Checks(findings.bad)) }
}

/// debshrew's own migrations, which are those of all pipelines. What is wrong with them is said where they are tried.
async fn own_tables(db: &Db, findings: &mut Findings) {
    let pending = async {
        let client = db.client().await.ok()?;
        let progress = schema::progress(&client, &[]).await.ok()?;
        Some(progress.iter().map(|one| one.pending.len()).sum())
    };
    if let Some(some @ 1..) = pending.await {
        findings.good("debshrew's own tables", format!("{} {TO_RUN}", counted(some, "migration")));
    }
}

/// Whether the pipeline has halted, and nothing has gone on with it since.
async fn halt(db: &Db, name: &str, findings: &mut Findings) {
    let halted = async {
        let client = db.client().await?;
        match register::find(&**client, name).await? {
            Some(found) => Ok::<_, Error>(register::halt(&**client, found.id).await?),
            None => Ok(None),
        }
    };
    let what = format!("pipeline `{name}`");
    match halted.await {
        Ok(None) => {}
        Ok(Some(halt)) => {
            let reason = halt.reason.unwrap_or_else(|| "its process did not say why".to_owned());
            findings.say_bad(&what, format!("halted {} ago: {reason}", span(halt.age_seconds)));
            findings.say("      hint: mend that, then start `run`, which tries it again; docs/operations.md, \"A halt\"");
        }
        Err(error) => findings.bad(&what, &error),
    }
}

/// Tries the migrations in a transaction that is rolled back, and looks at the tables that they leave.
async fn tables(db: &Db, pipeline: &(&str, &config::Pipeline), findings: &mut Findings) {
    let what = format!("tables of `{}`", pipeline.0);
    let report = async {
        let mut client = db.dedicated().await?;
        Ok::<_, Error>(
            schema::migrate(&mut client, &migrate::wanted(&[*pipeline]), &Roles::default(), Mode::DryRun)
                .await?,
        )
    };
    let report = match report.await {
        Ok(report) => report,
        Err(Error::Pipeline(error)) if is_running(&error) => {
            return findings.note(format!("{what}: not looked at, as a running debshrew writes them"));
        }
        Err(error) => return findings.bad(&what, &error),
    };
    for pipeline in report.pipelines {
        let pending = match pipeline.migrations.len() {
            0 => String::new(),
            some => format!(" ({} {TO_RUN})", counted(some, "migration")),
        };
        findings.good(&what, format!("{}{pending}", quoted(pipeline.tables.iter().map(String::as_str))));
        for table in &pipeline.gone {
            findings.say_bad(
                &format!("table `{table}`"),
                "is gone, though no migration dropped it; a block that writes to it halts the pipeline"
                    .to_owned(),
            );
            findings.say(
                "      hint: restore a backup, or begin anew; if it is not needed, `debshrew migrate` drops its journal; \
                 docs/operations.md, \"A halt\"",
            );
        }
        for (table, reason) in &pipeline.refused {
            findings.say_bad(&format!("table `{table}`"), format!("cannot be replicated: {reason}"));
        }
        findings.lines.extend(pipeline.notes.iter().map(|note| format!("note  {note}")));
        for (table, advice) in &pipeline.advice {
            findings.note(format!("table `{table}`: {advice}"));
        }
        for cut in &pipeline.cut {
            findings.note(format!("after `migrate`, blocks of before cannot be rolled back: {cut}"));
        }
    }
}

fn is_running(error: &PipelineError) -> bool {
    matches!(error, PipelineError::Schema(SchemaError::Running { .. }))
}

fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

#[derive(Default)]
struct Findings {
    lines: Vec<String>,
    bad: usize,
}

impl Findings {
    /// In one line, whatever names and servers say.
    fn say(&mut self, line: &str) {
        self.lines.push(printable::line(line).into_owned());
    }

    fn good(&mut self, what: &str, found: String) {
        self.say(&format!("ok    {what}: {found}"));
    }

    fn note(&mut self, advice: String) {
        self.say(&format!("note  {advice}"));
    }

    fn bad(&mut self, what: &str, error: &Error) {
        self.say_bad(what, failure::chain(error));
        if let Some(hint) = error.hint() {
            self.say(&format!("      hint: {hint}"));
        }
    }

    fn say_bad(&mut self, what: &str, found: String) {
        self.say(&format!("BAD   {what}: {found}"));
        self.bad += 1;
    }
}
