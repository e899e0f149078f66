//! Streams of changes: a consumer that replays a sink's steps has the tables as they were at the stream's cursor, whatever
//! blocks, reorgs, prunes and crashes there are.

#[cfg(feature = "failpoints")]
mod crash;
mod edges;
mod kept;
mod random;
mod replica;
mod routes;
pub mod sink;

use debshrew::config::Beginning;

use crate::relay::replica::Replica;
use crate::relay::sink::{Memory, relay};
use crate::support::{Rig, changes, database};

const TABLES: &str = "
    create table owners (name text primary key, since integer);
    create table things (id integer primary key, owner text references owners deferrable, size numeric, note text)";

/// Commits a block on the chain of this letter.
async fn commit(rig: &mut Rig, height: u32, chain: u8, block: &str) {
    rig.commit_at(random::at(height, chain), changes(block)).await.unwrap();
}

fn first() -> Beginning {
    Beginning::Height(debshrew::block::Height::new(0).unwrap())
}

#[tokio::test]
async fn a_reorg_is_taken_back_block_by_block() {
    let test = database("relay_reorg").await;
    let mut rig = Rig::up(&test, "retracts", TABLES).await;
    let sink = Memory::default();
    let relay = relay(&rig, "events", first(), &sink);
    relay.catch_up().await.unwrap();
    commit(
        &mut rig,
        0,
        0,
        r#"+owners {"name": "a", "since": 0}
                              +things {"id": 1, "owner": "a", "size": "1.50", "note": "x"}"#,
    )
    .await;
    commit(
        &mut rig,
        1,
        0,
        r#"+things {"id": 1, "size": "2"}
                              +owners {"name": "b", "since": 1}"#,
    )
    .await;
    commit(
        &mut rig,
        2,
        0,
        r#"-things {"id": 1}
                              -owners {"name": "a"}
                              +things {"id": 2, "owner": "b"}"#,
    )
    .await;
    relay.catch_up().await.unwrap();
    assert_eq!(
        sink.told(),
        [
            "apply 0: c owners(a, 0) c things(1, a, 1.50, x)",
            "apply 1: c owners(b, 1) u things(1, a, 1.50, x -> 1, a, 2, x)",
            "apply 2: c things(2, b, null, null) d things(1, a, 2, x) d owners(a, 0)",
        ]
    );
    rig.roll_back(0).await.unwrap();
    commit(&mut rig, 1, 1, r#"+owners {"name": "c"}"#).await;
    // A block that no sink has published is never seen.
    rig.roll_back(0).await.unwrap();
    commit(&mut rig, 1, 2, r#"+owners {"name": "d"}"#).await;
    relay.catch_up().await.unwrap();
    assert_eq!(
        sink.told()[3..],
        [
            "retract 2: c owners(a, 0) c things(1, a, 2, x) d things(2, b, null, null)",
            "retract 1: u things(1, a, 2, x -> 1, a, 1.50, x) d owners(b, 1)",
            "apply 1: c owners(d, null)",
        ]
    );
    let mut replica = Replica::default();
    replica.replay(&sink.steps()).unwrap();
    assert_eq!(replica.rows(), rig.contents().await);
}
