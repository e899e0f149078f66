//! PostgreSQL's own way out: what a subscriber has, and what a connector sees, through a reorg.

use super::commit;
use crate::support::{Rig, own_server, until};

const TABLES: &str = "
    create table owners (name text primary key, since integer);
    create table things (id integer primary key, owner text references owners deferrable, size numeric, note text unique);
    alter table owners replica identity full; alter table things replica identity full;";

const LOGICAL: [(&str, &str); 3] =
    [("wal_level", "logical"), ("max_replication_slots", "4"), ("max_wal_senders", "4")];

#[tokio::test]
async fn a_subscriber_has_the_tables_through_a_reorg() {
    let (cluster, test) = own_server(&LOGICAL).await;
    let mut rig = Rig::up(&test, "routed", TABLES).await;
    let admin = test.connect().await;
    // The pipeline's schema alone: journals stay at home.
    admin.batch_execute("create publication routed for table routed.owners, routed.things").await.unwrap();
    admin.batch_execute("create database copy template template0").await.unwrap();
    for slot in ["'routed', 'pgoutput'", "'seen', 'test_decoding'"] {
        admin.batch_execute(&format!("select pg_create_logical_replication_slot({slot})")).await.unwrap();
    }
    let (copy, connection) =
        tokio_postgres::connect(&cluster.dsn("copy"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    copy.batch_execute(&format!(
        "create schema routed; set search_path = routed; {TABLES}; set search_path = ''"
    ))
    .await
    .unwrap();
    // A slot of the same server cannot be made by the subscription itself.
    let subscribe = format!(
        "create subscription routed connection '{}' publication routed with (create_slot = false, slot_name = 'routed')",
        test.dsn
    );
    copy.batch_execute(&subscribe).await.unwrap();
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
                              +owners {"name": "b", "since": 1}
                              +things {"id": 2, "owner": "b", "note": "y"}"#,
    )
    .await;
    same(&rig, &copy).await;
    seen(&admin).await;
    rig.roll_back(0).await.unwrap();
    same(&rig, &copy).await;
    // One transaction, in which nothing says that it is a rollback; a table with a unique value beside its key has its rows
    // deleted and inserted again.
    let seen = seen(&admin).await;
    let changes: Vec<&str> = seen
        .iter()
        .filter_map(|line| line.strip_prefix("table routed."))
        .map(|line| line.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(changes, ["DELETE", "DELETE", "INSERT", "DELETE"], "{seen:#?}");
    assert_eq!(seen.iter().filter(|line| line.starts_with("COMMIT")).count(), 1, "{seen:#?}");
    commit(
        &mut rig,
        1,
        1,
        r#"+owners {"name": "c"}
                              +things {"id": 2, "owner": "c", "note": "x2"}"#,
    )
    .await;
    same(&rig, &copy).await;
    copy.batch_execute("alter subscription routed disable; alter subscription routed set (slot_name = none); drop subscription routed")
        .await
        .unwrap();
}

/// Waits until the copy has the same rows.
async fn same(rig: &Rig, copy: &tokio_postgres::Client) {
    let expected = rig.everything().await;
    until("the copy is the same", async || crate::support::everything(copy, "routed").await == expected)
        .await;
}

/// What a connector was shown since the last look.
async fn seen(client: &tokio_postgres::Client) -> Vec<String> {
    let sql = "select data from pg_logical_slot_get_changes('seen', null, null)";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
