//! Whether sinks could be written to.

use std::time::Duration;

use super::Findings;
use crate::cli::relays::make;
use crate::config;
use crate::db::Db;
use crate::failure::chain;
use crate::register::{self, SinkOverview};

/// The longest that a sink is asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries each configured sink without publishing anything, and names those that are no longer configured.
pub(super) async fn check(db: &Db, pipeline: &(&str, &config::Pipeline), findings: &mut Findings) {
    let (name, settings) = pipeline;
    let known = match db.client().await {
        Ok(client) => register::sink_overview(&**client).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let known: Vec<&SinkOverview> = known.iter().filter(|sink| sink.pipeline == *name).collect();
    let database = db.name().await.unwrap_or_default();
    for (sink, configured) in &settings.sinks {
        let what = format!("sink `{name}.{sink}`");
        let trying = async {
            let mut open = make(name, sink, configured, &database)()?;
            open.check().await
        };
        match tokio::time::timeout(PATIENCE, trying).await {
            Ok(Ok(notes)) => {
                findings.good(&what, configured.to.kind().to_owned());
                for note in notes {
                    findings.note(format!("{what}: {note}"));
                }
            }
            Ok(Err(error)) => {
                findings.say_bad(&what, chain(&error));
                if let Some(advice) = &error.advice {
                    findings.say(&format!("      hint: {advice}"));
                }
            }
            Err(_) => findings.say_bad(&what, format!("no answer within {} s", PATIENCE.as_secs())),
        }
        if let Some(stuck) =
            known.iter().find(|one| one.sink == *sink && ["halted", "lost"].contains(&one.state.as_str()))
        {
            let why = stuck.last_error.clone().unwrap_or_default();
            findings.say_bad(&what, format!("is {}: {why}", stuck.state));
        }
    }
    for gone in known.iter().filter(|one| !settings.sinks.contains_key(&one.sink) && one.holds_journals) {
        findings.note(format!(
            "sink `{name}.{0}` is not configured, and journals are kept for it: `debshrew sink drop {name}.{0}` forgets it",
            gone.sink
        ));
    }
}
