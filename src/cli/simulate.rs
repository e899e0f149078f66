//! `debshrew simulate`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Error, Globals};

const HELP: &str = "\
Examples:
  debshrew simulate                                  100 generated blocks on 127.0.0.1:8080
  debshrew simulate --mine-every 10s                 and a new one every ten seconds
  debshrew simulate --seed 7 --height 2000 --transactions 25
  debshrew simulate --blocks blk00000.dat            real blocks, the first at height 1";

/// Play a metashrew server, for transforms that are being written and for tests
///
/// Serves generated blocks, the same ones for the same seed, or those of a file. A control endpoint mines,
/// reorganises, stalls and misbehaves.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Serve the blocks of this file, in Bitcoin Core's block file format, from height 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "height", "transactions"])]
    pub blocks: Option<PathBuf>,
    /// What generated blocks are made from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// How many blocks to generate at the start
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub height: u32,
    /// Transactions in each generated block, about
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub transactions: u32,
    /// Mine a block this often, such as 500ms or 10s; never when left out
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub mine_every: Option<Duration>,
    /// How long a block takes to be indexed
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub index_delay: Duration,
}

pub fn run(_args: &Args, _globals: &Globals) -> Result<(), Error> {
    Err(Error::Unbuilt { command: "simulate" })
}
