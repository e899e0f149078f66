//! `debshrew check`

mod chain;
mod servers;
mod sinks;

use super::error::quoted;
use super::start::{chosen, database, finish, transform};
use super::{Error, Globals, migrate, output};
use crate::config;
use crate::db::Db;
use crate::failure;
use crate::pipeline::PipelineError;
use crate::printable;
use crate::schema::{self, Mode, SchemaError};

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
                for pipeline in &pipelines {
                    tables(&db, pipeline, &mut findings).await;
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

/// Tries the migrations in a transaction that is rolled back, and looks at the tables that they leave.
async fn tables(db: &Db, pipeline: &(&str, &config::Pipeline), findings: &mut Findings) {
    let what = format!("tables of `{}`", pipeline.0);
    let report = async {
        let mut client = db.dedicated().await?;
        Ok::<_, Error>(schema::migrate(&mut client, &migrate::wanted(&[*pipeline]), &[], Mode::DryRun).await?)
    };
    let report = match report.await {
        Ok(report) => report,
        Err(Error::Pipeline(error)) if is_running(&error) => {
            return findings.good(&what, "not looked at: a running debshrew writes them".into());
        }
        Err(error) => return findings.bad(&what, &error),
    };
    for pipeline in report.pipelines {
        let pending = pipeline.migrations.len() + report.own.len();
        let pending = match pending {
            0 => String::new(),
            some => format!(" ({} to be run by `debshrew migrate`)", counted(some, "migration")),
        };
        findings.good(&what, format!("{}{pending}", quoted(pipeline.tables.iter().map(String::as_str))));
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
