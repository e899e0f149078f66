//! `debshrew simulate`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::start::block_on;
use super::{Error, Globals, output};
use crate::simulate::{Options, Origin, Pace, Simulator};

const HELP: &str = "\
Examples:
  debshrew simulate                                  100 generated blocks on 127.0.0.1:8080
  debshrew simulate --mine-every 10s                 and a new one every ten seconds
  debshrew simulate --seed 7 --height 2000 --transactions 25
  debshrew simulate --blocks blk00000.dat            real blocks, the first at height 1
  curl -H 'Content-Type: application/json' -d '{\"reorg\": {\"depth\": 3}}' http://127.0.0.1:8080/control";

/// Play a metashrew server, for transforms that are being written and for tests
///
/// Serves generated blocks, the same ones for the same seed, or those of a file. A control endpoint mines,
/// reorganises, stalls and misbehaves: see docs/simulate.md.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// A name by which it is asked, beside addresses and `localhost`; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// Serve the blocks of this file, in Bitcoin Core's block file format, from height 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "transactions"])]
    pub blocks: Option<PathBuf>,
    /// What generated blocks are made from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// How many blocks there are at the start [default: 100, or all of the file's]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub height: Option<u32>,
    /// Transactions in each generated block
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub transactions: u32,
    /// Mine a block this often, such as 500ms or 10s; never when left out
    #[arg(long, value_name = "DURATION", value_parser = pause)]
    pub mine_every: Option<Duration>,
    /// How long a block takes to be indexed
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub index_delay: Duration,
    /// Hold each phase of a reorganisation until the control endpoint is told to step
    #[arg(long)]
    pub stepped: bool,
}

impl Args {
    fn options(&self) -> Options {
        let origin = match &self.blocks {
            Some(path) => Origin::File { path: path.clone(), height: self.height },
            None => Origin::Generated {
                seed: self.seed,
                height: self.height.unwrap_or(100),
                transactions: self.transactions,
            },
        };
        Options {
            listen: self.listen,
            hosts: self.hosts.clone(),
            origin,
            index_delay: self.index_delay,
            mine_every: self.mine_every,
            pace: if self.stepped { Pace::Stepped } else { Pace::Timed },
            ..Options::default()
        }
    }
}

pub fn run(args: &Args, globals: &Globals) -> Result<(), Error> {
    globals.begin()?;
    block_on(async |stop| {
        let simulator = Simulator::start(args.options()).await?;
        let tip = simulator.status().node;
        output::print(&format!("{} serves blocks up to {} ({})", simulator.url(), tip.height, tip.hash))?;
        stop.cancelled().await;
        Ok(())
    })
}

fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if pause.is_zero() { Err("it must be longer than nothing".into()) } else { Ok(pause) }
}
