//! What the stand-in can be told to do, and what it says of itself; the same for the control endpoint, as JSON,
//! and for whoever runs it inside his own process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::block::{BlockHash, Height};

/// The methods that calls are counted under; all others are counted as `other`.
pub(super) const METHODS: [&str; 6] = [
    "metashrew_height",
    "metashrew_getblockhash",
    "metashrew_view",
    "metashrew_preview",
    "metashrew_stateroot",
    "metashrew_snapshot",
];

/// A command. As JSON an object with the command's name as its only key: `{"mine": {"blocks": 3}}`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// The node finds this many blocks on its tip.
    Mine {
        #[serde(default = "one")]
        blocks: u32,
    },
    /// The node leaves its last `depth` blocks for `length` others, by default one more, of another branch, by
    /// default one that is new (`fork-1`, `fork-2`, …).
    Reorg {
        depth: u32,
        #[serde(default)]
        length: Option<u32>,
        #[serde(default)]
        branch: Option<String>,
    },
    /// The index goes on by this many phases, or until it is in one; see [`Pace::Stepped`].
    Step {
        #[serde(default = "one")]
        count: u32,
        #[serde(default)]
        until: Option<Phase>,
    },
    /// Changes how the index behaves; what is left out stays as it is.
    Rules(RuleChange),
    /// Answers the next calls wrongly.
    Misbehave(Misbehaviour),
    /// Ends all misbehaviour; calls that were stalled are answered.
    Clear {},
    /// Ends a wedge, as starting the server again does: it goes on from where it stands.
    Restart {},
    /// Changes nothing.
    Status {},
}

fn one() -> u32 {
    1
}

/// What may be changed about the index.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleChange {
    pub pace: Option<Pace>,
    pub order: Option<Order>,
    /// How long a block takes to be indexed.
    pub index_delay_ms: Option<u64>,
    /// [`Timing::view_lag`](super::Timing::view_lag)
    pub view_lag_ms: Option<u64>,
    /// A deeper reorganisation wedges the index.
    pub max_reorg_depth: Option<u32>,
    /// Heights that have no hash, for good.
    pub no_hash: Option<Vec<u32>>,
    /// No height below this one has a hash, as on a server that was started there.
    pub first_hash: Option<u32>,
    /// Whether `metashrew_stateroot` is answered; older servers do not know it.
    pub state_roots: Option<bool>,
    /// Whether the tip's state root is not there yet, so that the one below it is answered.
    pub late_root: Option<bool>,
    /// The index is that of another program over the same blocks: other views, other state roots, the same hashes.
    pub other_program: Option<bool>,
    /// Whether the index's own rollbacks go wrong, silently: what it holds above their forks is wrong from then on.
    pub broken_rollback: Option<bool>,
}

/// How the index goes through a reorganisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Each phase lasts as long as on a real server.
    Timed,
    /// Each phase lasts until [`Command::Step`].
    Stepped,
}

/// Which half of a block appears first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As a real server does it.
    StateFirst,
    /// As none was seen to do it. No client can tell the gap that this leaves from an empty state.
    HashFirst,
}

/// Where the index stands towards the node's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// What is indexed belongs to the node's chain.
    Following,
    /// The node has switched branch; every answer is the old branch's.
    Unnoticed,
    /// Calls for height and hashes wait; views answer the old branch's state.
    RollingBack,
    /// Calls for height and hashes wait; views answer empty or fail, even below the fork.
    HalfRolledBack,
    /// The height has fallen to the fork, while views are still wrong: only with a `view_lag`.
    Dropped,
    /// The height has fallen to the fork. Views are right up to there and empty above it, where the hashes are
    /// still those of the old branch.
    RolledBack,
    /// The state of the next block is there, its hash and height are not.
    StateFirst,
    /// The hash and height of the next block are there, its state is not.
    HashFirst,
    /// A block of the new branch is there; more will come, and hashes above it are the old branch's.
    Replaced,
    /// The height stays at the fork for good, with the old branch's hashes above it.
    Wedged,
}

/// What is answered wrongly, how often, and to which calls.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Misbehaviour {
    pub fault: Fault,
    /// How many calls; all until [`Command::Clear`] when left out.
    #[serde(default)]
    pub calls: Option<u32>,
    /// Only calls of this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only calls of this view.
    #[serde(default)]
    pub view: Option<String>,
}

/// A wrong answer. As JSON a string, or an object with one key: `"drop"`, `{"slow": {"ms": 500}}`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The connection ends without an answer.
    Drop,
    /// The connection ends in the middle of the answer.
    Cut,
    /// The right answer, as of now, but later.
    Slow { ms: u64 },
    /// No answer until [`Command::Clear`], then the right one.
    Stall,
    /// An HTTP status with a line of text.
    Status { code: u16 },
    /// A well-formed answer that is this long.
    Oversized { bytes: u64 },
    /// HTTP 200 with a page of HTML.
    NotJson,
    /// JSON that is no answer of JSON-RPC.
    WrongShape,
    /// A JSON-RPC answer with this result, whatever was asked: `"0x"` is an empty view.
    Result { value: serde_json::Value },
    /// A JSON-RPC error.
    Error { message: String },
    /// The right answer, with another call's id.
    OtherCall,
    /// The right answer, as the only one of a batch.
    Batch,
    /// The right answer, without `jsonrpc` and `id`.
    Bare,
    /// The tip's height as a JSON number, as hosted gateways answer it; to other calls the right answer.
    NumericHeight,
    /// The tip's height, lower by so many; to other calls the right answer.
    Lower { by: u32 },
}

/// How the stand-in is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub node: NodeStatus,
    pub index: IndexStatus,
    /// The calls that were answered, or dropped, by method; see [`Status::calls`].
    pub calls: BTreeMap<&'static str, u64>,
    /// Calls that are being held: by a rollback, or by `stall`.
    pub waiting: u64,
    /// Misbehaviours in force.
    pub misbehaviours: usize,
}

/// The node's tip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    #[serde(serialize_with = "number")]
    pub height: Height,
    #[serde(serialize_with = "text")]
    pub hash: BlockHash,
    pub branch: String,
}

/// What is indexed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexStatus {
    /// `None` while nothing is.
    #[serde(serialize_with = "optional_number")]
    pub height: Option<Height>,
    pub phase: Phase,
    /// Where a reorganisation that is under way forked.
    #[serde(serialize_with = "optional_number")]
    pub fork: Option<Height>,
}

impl Status {
    /// How many calls of a method were answered, or dropped, so far.
    pub fn calls(&self, method: &str) -> u64 {
        self.calls.get(method).copied().unwrap_or(0)
    }

    /// Whether the index has all of the node's chain.
    pub fn settled(&self) -> bool {
        self.index.phase == Phase::Following && self.index.height == Some(self.node.height)
    }
}

fn number<S: Serializer>(height: &Height, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(height.get())
}

fn optional_number<S: Serializer>(height: &Option<Height>, serializer: S) -> Result<S::Ok, S::Error> {
    height.map(Height::get).serialize(serializer)
}

fn text<S: Serializer>(hash: &BlockHash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}
