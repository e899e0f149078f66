//! A stand-in for metashrew: serves blocks that are generated or read from a file, as a real server was seen to,
//! and does on command what real servers do at the worst moment. See docs/simulate.md.
//!
//! Two things are kept apart: the node, whose chain commands change, and the index, which follows it with a delay
//! and answers the calls. Whatever misleads a client happens between the two; see [`Phase`].
//!
//! Knows nothing of pipelines or databases. It shares no code with `source`, which is tested against it.

mod block;
mod chain;
mod control;
mod fault;
mod file;
mod generate;
mod guard;
mod index;
mod rpc;
mod server;
mod stage;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::block::{BlockHash, Height};
use chain::Supply;
use generate::Generator;
use guard::Guard;
use index::Rules;
use stage::Stage;

pub use control::{
    Command, Fault, IndexStatus, Misbehaviour, NodeStatus, Order, Pace, Phase, RuleChange, Status,
};
pub use file::FileProblem;
pub use index::Timing;

/// Why the stand-in does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read the blocks in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use the blocks in `{}`", path.display())]
    Blocks {
        path: PathBuf,
        #[source]
        source: FileProblem,
    },
    /// What is wrong with a command, and what is allowed.
    #[error("{0}")]
    Command(String),
    #[error("the making of blocks ended unexpectedly")]
    Ended(#[source] tokio::task::JoinError),
}

/// Where blocks come from. Both kinds go on with generated blocks.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The same blocks for the same numbers.
    Generated { seed: u64, height: u32, transactions: u32 },
    /// A file in Bitcoin Core's block file format, whose first block has height 1. `height` is how many of its
    /// blocks the node has at the start: all of them when left out, mining brings the others.
    File { path: PathBuf, height: Option<u32> },
}

/// What a stand-in is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names by which it is asked, beside addresses and `localhost`. Requests that name another host are refused, since
    /// web pages can send such.
    pub hosts: Vec<String>,
    pub origin: Origin,
    /// How long the index takes for a block; with zero it has every block at once.
    pub index_delay: Duration,
    /// Mine a block this often.
    pub mine_every: Option<Duration>,
    pub pace: Pace,
    pub order: Order,
    pub timing: Timing,
    /// A deeper reorganisation wedges the index.
    pub max_reorg_depth: u32,
    /// A connection on which nothing is asked for this long is closed.
    pub idle_timeout: Duration,
}

impl Default for Options {
    /// 100 generated blocks on a free port of this machine.
    fn default() -> Options {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            hosts: Vec::new(),
            origin: Origin::Generated { seed: 1, height: 100, transactions: 10 },
            index_delay: Duration::ZERO,
            mine_every: None,
            pace: Pace::Timed,
            order: Order::StateFirst,
            timing: Timing::default(),
            max_reorg_depth: 100,
            idle_timeout: Duration::from_secs(5),
        }
    }
}

/// A stand-in that serves until it is dropped. To be started within a tokio runtime.
///
/// ```
/// use debshrew::simulate::{Command, Options, Pace, Phase, Simulator};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let simulator = Simulator::start(Options { pace: Pace::Stepped, ..Options::default() }).await?;
/// simulator.control(Command::Reorg { depth: 3, length: None, branch: None }).await?;
/// let until = Some(Phase::RolledBack);
/// let status = simulator.control(Command::Step { count: 1, until }).await?;
/// assert_eq!(status.index.height.map(|height| height.get()), Some(97));
/// # Ok::<(), debshrew::simulate::SimulateError>(())
/// # }).unwrap();
/// ```
pub struct Simulator {
    address: SocketAddr,
    stage: Arc<Stage>,
    /// Dropping it ends them.
    _tasks: JoinSet<()>,
}

impl Simulator {
    /// Makes or reads the blocks and begins to serve them.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the file cannot be read or used.
    pub async fn start(options: Options) -> Result<Simulator, SimulateError> {
        let address = options.listen;
        let listening = |source| SimulateError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let rules = Rules {
            pace: options.pace,
            order: options.order,
            timing: options.timing,
            index_delay: options.index_delay,
            max_reorg_depth: options.max_reorg_depth,
            no_hash: Vec::new(),
            first_hash: 0,
            state_roots: true,
            late_root: false,
            other_program: false,
            broken_rollback: false,
        };
        let origin = options.origin;
        let stage = tokio::task::spawn_blocking(move || build(origin, rules))
            .await
            .map_err(SimulateError::Ended)??;
        let stage = Arc::new(stage);
        let mut tasks = JoinSet::new();
        let guard = Arc::new(Guard::new(options.hosts));
        tasks.spawn(server::serve(listener, stage.clone(), guard, options.idle_timeout));
        let driven = stage.clone();
        tasks.spawn(async move { driven.drive().await });
        if let Some(pause) = options.mine_every {
            tasks.spawn(mine_every(stage.clone(), pause));
        }
        Ok(Simulator { address, stage, _tasks: tasks })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does what a command says, and returns how the stand-in is doing afterwards.
    ///
    /// # Errors
    /// When the command asks for something impossible; nothing has changed then, but for the steps before the one
    /// that was impossible.
    pub async fn control(&self, command: Command) -> Result<Status, SimulateError> {
        self.stage.control(command).await
    }

    pub fn status(&self) -> Status {
        self.stage.status()
    }

    /// The hashes of the node's chain, from the genesis block's to the tip's.
    pub fn chain(&self) -> Vec<BlockHash> {
        self.stage.chain()
    }

    /// Waits for a status that fits, however long that takes.
    pub async fn until(&self, fits: impl FnMut(&Status) -> bool) -> Status {
        self.stage.until(fits).await
    }
}

fn build(origin: Origin, rules: Rules) -> Result<Stage, SimulateError> {
    let (own, generator, height) = match origin {
        Origin::Generated { seed, height, transactions } => {
            (vec![file::regtest_genesis()], Generator::new(seed, transactions), Some(height))
        }
        Origin::File { path, height } => (file::read(&path)?, Generator::new(1, 10), height),
    };
    let supply = Arc::new(Supply::new(own, generator));
    let height = height.unwrap_or(supply.file_height()).min(Height::MAX.get());
    let node = stage::beginning(&supply, height);
    Ok(Stage::new(supply, node, rules))
}

async fn mine_every(stage: Arc<Stage>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        if let Err(error) = stage.control(Command::Mine { blocks: 1 }).await {
            tracing::error!(reason = %error, "mining has ended");
            return;
        }
    }
}
