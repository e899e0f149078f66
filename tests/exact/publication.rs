//! Logical replication of the database beside: its publications stand in the way of nothing, and subscribers see
//! what a rollback gives.

use std::time::Instant;

use crate::support::{
    DEADLINE, Pruner, Rig, TestDb, changes, connect_as, database, own_server, until, whole,
};

const TABLES: &str = "create table t (id integer primary key, x text); \
                      create table u (id numeric primary key, x text unique); \
                      create table parts (id integer primary key, x text) partition by hash (id); \
                      create table part_0 partition of parts for values with (modulus 2, remainder 0); \
                      create table part_1 partition of parts for values with (modulus 2, remainder 1)";

/// Every block touches old rows and new ones.
fn block(height: u32) -> String {
    let (old, new, gone) = (height % 5, 100 + height, 100 + height.saturating_sub(2));
    ["t", "u", "parts"]
        .map(|table| {
            format!(
                "+{table} {{\"id\": {old}, \"x\": \"{old} {height}\"}}\n\
                 +{table} {{\"id\": {new}, \"x\": \"new {new}\"}}\n\
                 -{table} {{\"id\": {gone}}}\n"
            )
        })
        .concat()
}

async fn commit_upto(rig: &mut Rig, states: &mut Vec<Vec<String>>, count: usize) {
    while states.len() < count {
        let height = states.len() as u32;
        let done = rig.try_commit(height, changes(&block(height))).await;
        done.unwrap_or_else(|error| panic!("block {height}: {}", whole(&error)));
        states.push(rig.everything().await);
    }
}

#[tokio::test]
async fn beside_a_publication_for_all_tables_blocks_and_rollbacks_go_on() {
    let test = database("exact_publication").await;
    test.connect().await.batch_execute("create publication downstream for all tables").await.unwrap();
    let mut rig = Rig::up(&test, "published", TABLES).await;
    let mut states = Vec::new();
    commit_upto(&mut rig, &mut states, 10).await;
    rig.roll_back(4).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert_eq!(rig.everything().await, states[4]);
    states.truncate(5);
    commit_upto(&mut rig, &mut states, 8).await;
    rig.migrate("alter table t add n integer").await.unwrap_or_else(|error| panic!("{}", whole(&error)));
}

#[tokio::test]
async fn a_publication_made_meanwhile_stands_in_the_way_of_nothing() {
    let test = database("exact_publication_later").await;
    let mut rig = Rig::up(&test, "published", TABLES).await;
    let mut states = Vec::new();
    commit_upto(&mut rig, &mut states, 5).await;
    test.connect().await.batch_execute("create publication downstream for all tables").await.unwrap();
    commit_upto(&mut rig, &mut states, 8).await;
    rig.roll_back(2).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert_eq!(rig.everything().await, states[2]);
}

#[tokio::test]
async fn beside_a_publication_for_all_tables_the_journal_is_pruned() {
    let test = database("exact_publication_pruned").await;
    test.connect().await.batch_execute("create publication downstream for all tables").await.unwrap();
    let mut rig = Rig::up(&test, "published", TABLES).await;
    let mut pruner = Pruner::new(connect_as(&test.dsn), 10);
    let mut states = Vec::new();
    commit_upto(&mut rig, &mut states, 90).await;
    let deadline = Instant::now() + DEADLINE;
    let left = "select count(*) from debshrew_published.t where undo_height < 64";
    loop {
        rig.prune(&mut pruner).await;
        if rig.client.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "images below the floor are still there");
        tokio::task::yield_now().await;
    }
    rig.roll_back(80).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert_eq!(rig.everything().await, states[80]);
}

/// What a subscriber receives: the pipeline's tables.
#[tokio::test]
async fn a_subscriber_has_the_same_rows_after_a_rollback() {
    let (cluster, publisher) = own_server(&[("wal_level", "logical"), ("max_connections", "50")]).await;
    let admin = publisher.connect().await;
    admin.batch_execute("create database subscriber").await.unwrap();
    let subscriber = TestDb { dsn: cluster.dsn("subscriber") };
    let mut rig = Rig::up(&publisher, "published", TABLES).await;
    let there = Rig::up(&subscriber, "published", TABLES).await;
    let publish =
        "create publication everything for all tables; create publication app for tables in schema published";
    admin.batch_execute(publish).await.unwrap();
    admin.query_one("select pg_create_logical_replication_slot('app', 'pgoutput')", &[]).await.unwrap();
    let subscribe = format!(
        "create subscription app connection '{}' publication app with (create_slot = false, copy_data = false)",
        publisher.dsn
    );
    there.client.batch_execute(&subscribe).await.unwrap();
    let mut states = Vec::new();
    for (count, back) in [(12, 7), (20, 9), (15, 3)] {
        commit_upto(&mut rig, &mut states, count).await;
        until("the subscriber has the blocks", async || there.everything().await == states[count - 1]).await;
        rig.roll_back(back).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
        states.truncate(back as usize + 1);
        assert_eq!(rig.everything().await, states[back as usize]);
        until("the subscriber has the rollback", async || there.everything().await == states[back as usize])
            .await;
    }
    there.client.batch_execute("alter subscription app disable").await.unwrap();
    there
        .client
        .batch_execute("alter subscription app set (slot_name = none); drop subscription app")
        .await
        .unwrap();
}
