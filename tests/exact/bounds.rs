//! Wide tables, and blocks of many column sets.

use debshrew::change::{Change, Operation, Value};
use debshrew::failure::Kind;

use crate::support::{Journaling, Rig, database, delete, put, whole};

fn wide(columns: usize) -> String {
    let columns: Vec<String> = (0..columns).map(|column| format!("c{column} integer")).collect();
    format!("create table t (id integer primary key, {})", columns.join(", "))
}

/// A row that sets every `step`th column.
fn row(id: u32, columns: usize, step: usize, value: u32) -> Change {
    let values: Vec<String> =
        (0..columns).step_by(step).map(|column| format!(r#", "c{column}": {value}"#)).collect();
    put("t", &format!(r#"{{"id": {id}{}}}"#, values.concat()))
}

async fn blocks(rig: &mut Rig, columns: usize) {
    let mut states = Vec::new();
    for (height, block) in (0..).zip([
        vec![row(1, columns, 1, 1), row(2, columns, 7, 2), row(3, columns, columns, 3)],
        vec![
            row(1, columns, 1, 4),
            row(2, columns, 3, 5),
            delete("t", r#"{"id": 3}"#),
            row(4, columns, 1, 6),
        ],
        vec![
            delete("t", r#"{"id": 1}"#),
            row(1, columns, 5, 7),
            row(2, columns, columns, 8),
            row(3, columns, 1, 9),
        ],
    ]) {
        let done = rig.try_commit(height, block).await;
        done.unwrap_or_else(|error| panic!("block {height} of {columns} columns: {}", whole(&error)));
        states.push(rig.everything().await);
    }
    for to in [1, 0] {
        rig.roll_back(to).await.unwrap_or_else(|error| panic!("{columns} columns: {}", whole(&error)));
        assert!(rig.everything().await == states[to as usize], "{columns} columns back to {to}");
    }
}

#[tokio::test]
async fn a_table_of_1500_columns_is_written_and_rolled_back() {
    let test = database("exact_wide").await;
    let mut rig = Rig::up(&test, "wide", &wide(1_499)).await;
    blocks(&mut rig, 1_499).await;
}

#[tokio::test]
async fn tables_of_as_many_columns_as_there_can_be_are_written_or_refused_beforehand() {
    let test = database("exact_widest").await;
    for columns in [830, 1_580, 1_590, 1_595, 1_597, 1_598] {
        let name = format!("widest_{columns}");
        let mut rig = Rig::up(&test, &name, "create table good (id integer primary key)").await;
        let report = rig.migrate(&wide(columns)).await;
        let report = report.unwrap_or_else(|error| panic!("{columns}: {}", whole(&error)));
        match report.pipelines[0].refused.get("t") {
            Some(reason) => assert!(columns > 1_500 && reason.contains("columns"), "{columns}: {reason}"),
            None => blocks(&mut rig, columns).await,
        }
        rig.commit(9, vec![put("good", r#"{"id": 1}"#)]).await;
    }
}

/// Kilobytes that the writer's session has had in use at most, where the system says.
async fn most_used_kb(rig: &Rig) -> Option<i64> {
    let sql = "select pid from pg_stat_activity where application_name = $1 and datname = current_database()";
    let pid: i32 = rig.client.query_one(sql, &[&format!("debshrew/{}", rig.name)]).await.unwrap().get(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[tokio::test]
async fn a_block_of_three_thousand_column_sets_takes_little_memory() {
    let test = database("exact_column_sets").await;
    let columns: Vec<String> =
        (0..40).map(|column| format!("c{column} integer not null default 0")).collect();
    let sql = format!("create table t (id integer primary key, {})", columns.join(", "));
    let mut rig = Rig::up(&test, "sets", &sql).await;
    rig.commit(0, (0..1_500).map(|id| put("t", &format!(r#"{{"id": {id}}}"#))).collect()).await;
    let before = rig.everything().await;
    let some = |id: u64| {
        // The bits of a number that is another one for each row, spread over the columns.
        let chosen = (id + 1) * 0x1_0001_0001 % (1 << 40);
        let set = (0..40).filter(|column| chosen >> column & 1 == 1);
        let values: Vec<String> = set.map(|column| format!(r#", "c{column}": {id}"#)).collect();
        put("t", &format!(r#"{{"id": {id}{}}}"#, values.concat()))
    };
    let used = most_used_kb(&rig).await;
    assert_eq!(rig.commit(1, (0..3_000).map(some).collect()).await, 3_000);
    if let (Some(used), Some(now)) = (used, most_used_kb(&rig).await) {
        assert!(now - used < 400_000, "{} MB more", (now - used) / 1_000);
    }
    let sum = "select count(*) from sets.t where c0 = id or c16 = id or c32 = id";
    assert!(rig.client.query_one(sum, &[]).await.unwrap().get::<_, i64>(0) > 0);
    rig.roll_back(0).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert_eq!(rig.everything().await, before);
}

/// A row of `u` with values of so many bytes.
fn heavy(sizes: &[usize]) -> Change {
    let mut columns = vec![("id", Value::Number("1".into()))];
    for (size, name) in sizes.iter().zip(["a", "b"]) {
        columns.push((name, Value::Text("x".repeat(*size).into())));
    }
    Change::new("u", Operation::Upsert, None, columns)
}

/// More than PostgreSQL takes in a message, and half of what the protocol can say.
const TOO_LARGE: usize = 1_100 << 20;

#[tokio::test]
async fn a_value_that_is_too_large_to_send_is_an_error_that_does_not_pass_by_itself() {
    let test = database("exact_too_large").await;
    let sql =
        "create table t (id integer primary key); create table u (id integer primary key, a text, b text)";
    let mut rig = Rig::up(&test, "large", sql).await;
    rig.commit(0, vec![put("t", r#"{"id": 1}"#)]).await;
    let before = rig.whole().await;
    let error = rig.try_commit(1, vec![put("t", r#"{"id": 2}"#), heavy(&[TOO_LARGE])]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent, "{}", whole(&error));
    assert!(whole(&error).contains("`u`"), "{}", whole(&error));
    assert_eq!(rig.whole().await, before);
}

#[tokio::test]
async fn behind_a_part_that_cannot_be_sent_nothing_is_committed() {
    let test = database("exact_unsent").await;
    let sql =
        "create table t (id integer primary key); create table u (id integer primary key, a text, b text)";
    let mut rig = Rig::up(&test, "unsent", sql).await;
    rig.commit(0, vec![put("t", r#"{"id": 1}"#)]).await;
    let some = |id: u32| put("t", &format!(r#"{{"id": {id}}}"#));
    let blocks =
        vec![vec![some(2)], vec![some(3), heavy(&[TOO_LARGE, TOO_LARGE])], vec![some(4)], vec![some(5)]];
    let error = rig.try_commit_all(1, blocks, Journaling::Kept).await.expect_err("it was taken");
    assert_eq!(rig.whole().await, ["t (1)", "t (2)", "checkpoint 1"], "{}", whole(&error));
    assert_eq!(error.kind(), Kind::Permanent, "{}", whole(&error));
    rig.commit(2, vec![some(3)]).await;
}
