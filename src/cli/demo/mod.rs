//! `debshrew demo`: everything at work, told in steps, with every claim checked by SQL.

mod claims;
mod stage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::start::block_on;
use super::{Error, Globals, output};
use crate::simulate::{Command, Options, Origin, Simulator};
use crate::telemetry;
use claims::{DEMO, UNDISTURBED};
use stage::{Program, Running, Server, run as sql, texts, value};

const HELP: &str = "\
Examples:
  debshrew demo
  debshrew demo --exit --blocks 200
  debshrew demo --database-url postgres://me@localhost/scratch";

/// Show everything at work: a private PostgreSQL, a stand-in source, a reorg, a crash, and the rows after it
///
/// Needs PostgreSQL's server programs, or a database to use in their place: only the one that --database-url
/// names, never one from the configuration. What it claims is checked by SQL.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// End after the last step, with 0 if every claim held, instead of following new blocks
    #[arg(long)]
    pub exit: bool,
    /// How many blocks to begin with
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    pub blocks: u32,
    /// The folder with the example transforms, built by `make transforms`
    #[arg(long, value_name = "FOLDER", default_value = "transforms")]
    pub transforms: PathBuf,
}

/// How deep the reorganisation is.
const DEPTH: u32 = 3;

/// Between two blocks at the end, when new ones are followed.
const BLOCK_EVERY: Duration = Duration::from_secs(3);

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    telemetry::init(globals.log.as_deref().unwrap_or("warn"), telemetry::Format::Text)?;
    block_on(async |stop| {
        let mut hangup = signal(SignalKind::hangup()).map_err(Error::Runtime)?;
        let (demo, mut running) = tokio::select! {
            biased;
            // Nobody waits for the last step's answer unless they asked for it.
            () = told_to_end(&stop, &mut hangup) => return if args.exit { Err(Error::Stopped) } else { Ok(()) },
            played = Demo::play(args, globals) => played?,
        };
        if !args.exit {
            tokio::select! {
                biased;
                () = told_to_end(&stop, &mut hangup) => {}
                failed = demo.follow(&mut running) => failed?,
            }
        }
        running.stop().await
    })
}

/// A signal that ends commands, or the terminal's end, of which the processes that were started hear by us alone.
async fn told_to_end(stop: &CancellationToken, hangup: &mut Signal) {
    tokio::select! {
        () = stop.cancelled() => {}
        _ = hangup.recv() => {}
    }
}

struct Demo {
    server: Server,
    source: Simulator,
    program: Arc<Program>,
}

impl Demo {
    /// All steps. Returns the stage, and the process that follows the source on it.
    async fn play(args: &Args, globals: &Globals) -> Result<(Demo, Running), Error> {
        let demo = Demo::set_up(args, globals).await?;
        let client = demo.server.client().await?;
        let mut running = demo.program.start(&["run", "--pipeline", DEMO])?;
        demo.catch_up(&client, &mut running).await?;
        demo.reorganise(&client, &mut running).await?;
        let running = demo.crash(&client, running).await?;
        demo.compare(&client).await?;
        demo.ask(&client).await?;
        match demo.server.private_dsn() {
            Some(dsn) if !args.exit => output::print(&format!("\nGo on by yourself:\n\n   psql '{dsn}'"))?,
            // It is about to go.
            Some(_) => {}
            None => output::print("\nGo on by yourself: the schema `demo` stays in the database.")?,
        }
        Ok((demo, running))
    }

    async fn set_up(args: &Args, globals: &Globals) -> Result<Demo, Error> {
        output::print("1. A database, and a simulated source")?;
        let server = match &globals.database_url {
            Some(dsn) => Server::given(dsn).await?,
            None => Server::private().await?,
        };
        let client = server.client().await?;
        let version: String = value(&client, "select current_setting('server_version')").await?;
        output::print(&format!("   PostgreSQL {version} at {}", server.shown()))?;
        forget(&client).await?;
        let source = Simulator::start(Options {
            listen: ([127, 0, 0, 1], 0).into(),
            origin: Origin::Generated { seed: 1, height: args.blocks, transactions: 10 },
            ..Options::default()
        })
        .await?;
        output::print(&format!("   {} blocks at {}", args.blocks, source.url()))?;
        let program = Program::new(&server.dsn, &source.url(), &args.transforms, &[DEMO, UNDISTURBED])?;
        program.finish(&["migrate"]).await?;
        output::print("   the transform `ledger`, its tables made by `debshrew migrate`")?;
        Ok(Demo { server, source, program })
    }

    /// The height and hash of the source's tip.
    fn tip(&self) -> (u32, String) {
        let node = self.source.status().node;
        (node.height.get(), node.hash.to_string())
    }

    /// Waits until the source's tip is committed.
    async fn caught_up(&self, client: &Client, running: &mut Running) -> Result<u32, Error> {
        let (height, hash) = self.tip();
        let bar = progress_bar(height)?;
        let at = format!("select coalesce(max(height), 0) from debshrew.blocks where pipeline = '{DEMO}'");
        let is_there = format!(
            "select exists (select from debshrew.blocks where pipeline = '{DEMO}' and block_hash = '{hash}')"
        );
        running
            .until("the source's tip is committed", async || {
                bar.set_position(value::<i32>(client, &at).await?.unsigned_abs().into());
                value(client, &is_there).await
            })
            .await?;
        bar.finish_and_clear();
        Ok(height)
    }

    async fn catch_up(&self, client: &Client, running: &mut Running) -> Result<(), Error> {
        output::print("\n2. `debshrew run` follows the source from its first block")?;
        let since = Instant::now();
        let height = self.caught_up(client, running).await?;
        let rows = "select format('%s transactions, %s inputs, %s outputs, %s balances', \
                    (select count(*) from demo.transactions), (select count(*) from demo.inputs), \
                    (select count(*) from demo.outputs), (select count(*) from demo.balances))";
        let rows: String = value(client, rows).await?;
        let seconds = since.elapsed().as_secs_f64();
        output::print(&format!("   {} blocks in {seconds:.1} s:\n   {rows}", height + 1))?;
        claims::consistent(client).await
    }

    async fn reorganise(&self, client: &Client, running: &mut Running) -> Result<(), Error> {
        output::print(&format!("\n3. The source changes to another branch, {DEPTH} blocks deep"))?;
        let abandoned = format!(
            "select block_hash from debshrew.blocks where pipeline = '{DEMO}' order by height desc limit {DEPTH}"
        );
        let abandoned: Vec<String> = texts(client, &abandoned).await?.into_iter().flatten().collect();
        self.source.control(Command::Reorg { depth: DEPTH, length: None, branch: None }).await?;
        self.caught_up(client, running).await?;
        let seen = "select depth::text, from_height::text, left(from_hash, 16) || '…', fork_height::text, \
                    rows_restored::text from debshrew.reorgs where pipeline = 'demo'";
        let header = ["depth", "from height", "from hash", "back to height", "rows undone"];
        show(&header, texts(client, seen).await?)?;
        let depth: i32 =
            value(client, "select max(depth) from debshrew.reorgs where pipeline = 'demo'").await?;
        let holds = if depth == DEPTH as i32 { Ok(()) } else { Err(format!("{depth} blocks were")) };
        claims::hold(&format!("{DEPTH} blocks were rolled back, and the new branch's committed"), holds)?;
        claims::gone(client, &abandoned).await?;
        claims::consistent(client).await
    }

    /// A lock holds the next block's transaction up in its middle; then the process is killed.
    async fn crash(&self, client: &Client, mut running: Running) -> Result<Running, Error> {
        output::print("\n4. `kill -9` in the middle of a block")?;
        let before = counts(client).await?;
        sql(client, "begin; lock table demo.transactions in share mode").await?;
        self.source.control(Command::Mine { blocks: 1 }).await?;
        let waiting = "select exists (select from pg_stat_activity where application_name = 'debshrew/demo' \
                       and datname = current_database() and wait_event_type = 'Lock')";
        running
            .until("the block's transaction waits for the lock", async || value(client, waiting).await)
            .await?;
        running.kill().await?;
        // What it had sent already would still be committed once the lock is gone: cut that off, too.
        let cut = "select count(*) from pg_stat_activity a, pg_terminate_backend(a.pid, 10000) \
                   where application_name = 'debshrew/demo' and datname = current_database()";
        let _: i64 = value(client, cut).await?;
        sql(client, "commit").await?;
        output::print("   killed when its transaction had written to some tables and not to others")?;
        let after = counts(client).await?;
        let unchanged = if before == after { Ok(()) } else { Err(format!("{before:?} became {after:?}")) };
        claims::hold("nothing of the unfinished block is there", unchanged)?;
        let mut running = self.program.start(&["run", "--pipeline", DEMO])?;
        self.caught_up(client, &mut running).await?;
        output::print("   started again, and went on from its checkpoint")?;
        claims::consistent(client).await?;
        Ok(running)
    }

    async fn compare(&self, client: &Client) -> Result<(), Error> {
        output::print("\n5. The same blocks into another schema, with no reorganisation and no crash")?;
        self.program.finish(&["run", "--once", "--pipeline", UNDISTURBED]).await?;
        claims::as_undisturbed(client).await
    }

    async fn ask(&self, client: &Client) -> Result<(), Error> {
        output::print("\n6. It is all plain SQL")?;
        let richest = "select left(encode(script_hash, 'hex'), 16) || '…', \
                       to_char(balance / 1e8, 'FM999,999,990.00000000') \
                       from demo.balances order by balance desc, script_hash limit 5";
        output::print(
            "\n   select script_hash, balance / 1e8 as bitcoin\n     from demo.balances order by balance desc limit 5;",
        )?;
        show(&["script_hash", "bitcoin"], texts(client, richest).await?)?;
        let blocks = "select b.height::text, left(encode(b.hash, 'hex'), 16) || '…', b.transactions::text \
                      from demo.blocks b order by b.height desc limit 5";
        output::print(
            "\n   select height, hash, transactions\n     from demo.blocks order by height desc limit 5;",
        )?;
        show(&["height", "hash", "transactions"], texts(client, blocks).await?)?;
        let pipelines =
            "select pipeline, state, height::text, lag_blocks::text from debshrew.pipelines order by 1";
        output::print("\n   select pipeline, state, height, lag_blocks from debshrew.pipelines;")?;
        show(&["pipeline", "state", "height", "lag_blocks"], texts(client, pipelines).await?)
    }

    /// Mines a block now and then, without end.
    async fn follow(&self, running: &mut Running) -> Result<(), Error> {
        let client = self.server.client().await?;
        let and = self.server.private_dsn().map_or("", |_| " and takes the private database away");
        output::print(&format!("\nNew blocks follow; Ctrl-C ends it{and}."))?;
        loop {
            tokio::time::sleep(BLOCK_EVERY).await;
            self.source.control(Command::Mine { blocks: 1 }).await?;
            let since = Instant::now();
            let height = self.caught_up(&client, running).await?;
            let transactions: i32 =
                value(&client, &format!("select transactions from demo.blocks where height = {height}"))
                    .await?;
            let delay = since.elapsed().as_millis();
            output::print(&format!(
                "   block {height}: {transactions} transactions, in the tables {delay} ms later"
            ))?;
        }
    }
}

/// Takes away what an earlier demo left in a database that is used again. A demo makes both pipelines at once; one
/// of them alone, or a schema that is not a pipeline's, is somebody's own and stays.
async fn forget(client: &Client) -> Result<(), Error> {
    let both = format!("name in ('{DEMO}', '{UNDISTURBED}') and schema_name = name");
    let ours = format!("select count(*) = 2 from debshrew.pipeline where {both}");
    let migrated = "select to_regclass('debshrew.pipeline') is not null";
    if value::<bool>(client, migrated).await? && value::<bool>(client, &ours).await? {
        // One transaction.
        let away = [DEMO, UNDISTURBED].map(|name| {
            format!(
                "drop schema if exists {name}, debshrew_{name} cascade; \
                 drop table if exists debshrew.migrations_{name}; \
                 delete from debshrew.pipeline where name = '{name}';"
            )
        });
        sql(client, &away.concat()).await?;
        return output::print("   took away what an earlier demo left");
    }
    let taken =
        format!("select nspname::text from pg_namespace where nspname in ('{DEMO}', '{UNDISTURBED}')");
    match texts(client, &taken).await?.into_iter().flatten().next() {
        None => Ok(()),
        Some(name) => Err(Error::Demo(format!(
            "the database has a schema `{name}` that is not of an earlier demo: rename it, or name another database"
        ))),
    }
}

/// How many rows each table has, the checkpoint's height among them.
async fn counts(client: &Client) -> Result<Vec<Vec<String>>, Error> {
    let counts = "select height::text, (select count(*) from demo.blocks)::text, \
                  (select count(*) from demo.transactions)::text, (select count(*) from demo.inputs)::text, \
                  (select count(*) from demo.outputs)::text, (select sum(balance) from demo.balances)::text \
                  from debshrew.pipelines where pipeline = 'demo'";
    texts(client, counts).await
}

fn show(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Error> {
    let table = output::table(header, rows);
    output::print(&table.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n"))
}

/// On standard error, and on a terminal only.
fn progress_bar(height: u32) -> Result<ProgressBar, Error> {
    let speed = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // Writing to a String does not fail.
        let _ = write!(text, "{:.0}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template("   [{bar:40}] {pos}/{len} blocks, {speed}")
        .map_err(|error| stage::broken("draw a progress bar", &error))?
        .with_key("speed", speed);
    Ok(ProgressBar::new(height.into()).with_style(style.progress_chars("=> ")))
}
