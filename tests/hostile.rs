//! Values and blocks that cannot be applied: the error names the table and column, nothing is applied, and the
//! pipeline goes on with a good block.

use debshrew::change::{Change, Operation, Value};

use crate::support::{Rig, connect_as, database, delete, put, until, whole};

const TABLES: &str = "
create domain percent as integer check (value between 0 and 100);
create domain given as text not null;
create type pair as (a integer, b text);
create table parents (id integer primary key);
create table t (
  id integer primary key,
  needed integer not null default 0,
  small smallint,
  short varchar(3),
  padded char(3),
  bits bit(3),
  scaled numeric(4, 2),
  day date,
  doc jsonb,
  list integer[],
  two pair,
  share percent,
  words given default 'x',
  up integer references parents,
  double integer generated always as (small * 1000000) stored,
  serial bigint generated always as identity,
  constraint positive check (needed >= 0)
);
create table u (id numeric(6, 2) primary key, code text unique, name varchar(4));
create table k (a smallint, b varchar(3), primary key (a, b));
";

/// A row, and what the error says.
const BAD: &[(&str, &str, &[&str])] = &[
    ("nowhere", r#"{"id": 1}"#, &["there is no table `nowhere`", "`k`, `parents`, `t`, `u`"]),
    ("t", r#"{"id": 1, "nothing": 1}"#, &["table `t` has no column `nothing`"]),
    ("t", r#"{"needed": 1}"#, &["table `t`", "key column `id`"]),
    ("t", r#"{"id": null}"#, &["table `t`", "key column `id`"]),
    ("t", r#"{"id": 2147483648}"#, &["key column `id` of table `t`", "`2147483648`"]),
    ("t", r#"{"id": "one"}"#, &["key column `id` of table `t`", "`one`"]),
    ("t", r#"{"id": 1, "needed": null}"#, &["table `t`", "column `needed`"]),
    (
        "t",
        r#"{"id": 1, "needed": "x"}"#,
        &["table `t`", "column `needed`", "invalid input syntax for type integer"],
    ),
    ("t", r#"{"id": 1, "needed": 1.5}"#, &["table `t`", "column `needed`"]),
    ("t", r#"{"id": 1, "needed": [1]}"#, &["table `t`", "column `needed`"]),
    ("t", r#"{"id": 1, "needed": -1}"#, &["table `t`", "positive"]),
    ("t", r#"{"id": 1, "small": 32768}"#, &["table `t`", "column `small`", "out of range"]),
    ("t", r#"{"id": 1, "small": 32767}"#, &["table `t`", "out of range"]),
    ("t", r#"{"id": 1, "short": "abcd"}"#, &["table `t`", "column `short`", "too long"]),
    ("t", r#"{"id": 1, "short": "a\u0000"}"#, &["table `t`", "column `short`", "NUL"]),
    ("t", r#"{"id": 1, "padded": "abcd"}"#, &["table `t`", "column `padded`", "too long"]),
    ("t", r#"{"id": 1, "bits": "1111"}"#, &["table `t`", "column `bits`"]),
    ("t", r#"{"id": 1, "scaled": 100}"#, &["table `t`", "column `scaled`", "overflow"]),
    ("t", r#"{"id": 1, "day": "2026-02-30"}"#, &["table `t`", "column `day`", "out of range"]),
    ("t", r#"{"id": 1, "doc": {"a": "\u0000"}}"#, &["table `t`", "column `doc`", "unsupported Unicode"]),
    ("t", r#"{"id": 1, "list": [1, "x"]}"#, &["table `t`", "column `list`"]),
    ("t", r#"{"id": 1, "list": [[1], [2, 3]]}"#, &["table `t`", "column `list`", "malformed array"]),
    ("t", r#"{"id": 1, "two": {"c": 1}}"#, &["table `t`", "column `two`", "`c`"]),
    ("t", r#"{"id": 1, "two": ["x", "y"]}"#, &["table `t`", "column `two`"]),
    ("t", r#"{"id": 1, "share": 101}"#, &["table `t`", "column `share`", "percent_check"]),
    ("t", r#"{"id": 1, "words": null}"#, &["table `t`", "column `words`"]),
    ("t", r#"{"id": 1, "up": 7}"#, &["table `t`", "t_up_fkey"]),
    ("t", r#"{"id": 1, "double": 2}"#, &["column `double` of table `t` is generated"]),
    ("t", r#"{"id": 1, "serial": 2}"#, &["column `serial` of table `t` is generated"]),
    ("u", r#"{"id": 1, "code": "taken"}"#, &["table `u`", "u_code_key"]),
    ("u", r#"{"id": 1.005}"#, &["column `id` of table `u`", "`1.005`"]),
    ("u", r#"{"id": 12345}"#, &["table `u`", "column `id`"]),
    ("u", r#"{"id": 1, "name": "\ud83d\ude00\ud83d\ude00x12"}"#, &["table `u`", "column `name`", "too long"]),
    ("k", r#"{"a": 1, "b": "abcd"}"#, &["column `b` of table `k`", "`abcd`"]),
    ("k", r#"{"a": 1}"#, &["table `k`", "key column `b`"]),
    ("k", r#"{"a": 1, "b": "\u0000"}"#, &["column `b` of table `k`", "NUL"]),
];

async fn refused(rig: &mut Rig, height: u32, changes: Vec<Change>, parts: &[&str]) {
    let before = rig.everything().await;
    let what = format!("{:?}", changes.last());
    let error = match rig.try_commit(height, changes).await {
        Ok(_) => panic!("{what} was taken"),
        Err(error) => error,
    };
    let text = whole(&error);
    for part in parts {
        assert!(text.contains(part), "{what}: `{part}` is not in: {text}");
    }
    assert_eq!(error.kind(), debshrew::failure::Kind::Permanent, "{text}");
    assert_eq!(rig.everything().await, before, "{what}");
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_by_table_and_column_and_the_next_block_goes_on() {
    let test = database("hostile").await;
    let mut rig = Rig::up(&test, "hostile", TABLES).await;
    rig.commit(0, vec![put("u", r#"{"id": 9, "code": "taken"}"#), put("t", r#"{"id": 9}"#)]).await;
    for (height, (table, row, parts)) in (1..).zip(BAD) {
        // A good change stands before it, which must not stay behind either.
        refused(&mut rig, height, vec![put("t", r#"{"id": 5}"#), put(table, row)], parts).await;
        rig.commit(height, vec![put("t", &format!(r#"{{"id": 9, "needed": {height}}}"#))]).await;
    }
    rig.roll_back(0).await.unwrap();
    let log = "select count(*) from debshrew.block";
    assert_eq!(rig.client.query_one(log, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn keys_of_the_wrong_shape_are_refused() {
    let test = database("hostile_keys").await;
    let mut rig = Rig::up(&test, "keys", TABLES).await;
    for (key, part) in [
        (Value::Number("1".into()), "the key 1; its key has 2 columns"),
        (Value::Json("[1]".into()), "the key [1]; its key has 2 columns"),
        (Value::Json("[1,2,3]".into()), "the key [1,2,3]"),
        (Value::Json(r#"{"a":1}"#.into()), "key column `b`"),
        (Value::Text("{".into()), "the key {"),
        (Value::Null, "boolean or null"),
    ] {
        let change = Change::new::<&str>("k", Operation::Delete, Some(key), Vec::new());
        refused(&mut rig, 0, vec![change], &["table `k`", part]).await;
    }
    refused(&mut rig, 0, vec![delete("t", r#"{"id": "x"}"#)], &["key column `id` of table `t`"]).await;
    rig.commit(0, Vec::new()).await;
}

#[tokio::test]
async fn the_settings_of_role_and_database_change_no_result() {
    let test = database("hostile_settings").await;
    let columns =
        "k interval primary key, d date, i interval, b bytea, f float8, t timestamptz, x xml, l text[]";
    let mut rig = Rig::up(&test, "settings", &format!("create table t ({columns})")).await;
    for setting in [
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -10",
        "timezone = 'Asia/Kathmandu'",
        "xmloption = 'document'",
        "array_nulls = off",
        "standard_conforming_strings = off",
        "default_transaction_isolation = 'serializable'",
        "search_path = nowhere",
    ] {
        let sql = format!("alter database debshrew_test_hostile_settings set {setting}");
        rig.client.batch_execute(&sql).await.unwrap();
    }
    let row = r#"{"k": "-1 2:03:04", "d": "01/02/2026", "i": "-1 2:03:04", "b": "\\x00ff", "f": 0.1,
                  "t": "2026-01-01 00:00:00", "x": "<a/><b/>", "l": "{a,NULL}"}"#;
    rig.commit(0, vec![put("t", row)]).await;
    rig.commit(1, vec![put("t", row), put("t", r#"{"k": "-1 day 2:03:04", "f": 0.30000000000000004}"#)])
        .await;
    let same = rig
        .client
        .query_one(
            "select k = interval '-1 day +2:03:04' and d = date '2026-01-02' and i = interval '-1 day +2:03:04' \
                and b = '\\x00ff'::bytea and f = 0.30000000000000004 and t = timestamptz '2026-01-01 00:00:00Z' \
                and x::text = '<a/><b/>' and l[2] is null \
               from settings.t",
            &[],
        )
        .await
        .unwrap();
    assert!(same.get::<_, bool>(0), "{:?}", rig.everything().await);
    rig.writer().await.roll_back(None, debshrew::register::Cause::Operator).await.unwrap();
    assert_eq!(rig.everything().await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_row_that_a_trigger_keeps_out_is_an_error_and_one_that_it_keeps_stays() {
    let test = database("hostile_triggers").await;
    let sql = "
        create table t (id integer primary key, x text);
        create function refuse() returns trigger language plpgsql as 'begin return null; end';
        create trigger news before insert on t for each row when (new.x = 'no') execute function refuse();
        create trigger changes before update on t for each row when (new.x = 'no') execute function refuse();
        create trigger ends before delete on t for each row when (old.x = 'kept') execute function refuse()";
    let mut rig = Rig::up(&test, "triggers", sql).await;
    let row = |id: u32, x: &str| put("t", &format!(r#"{{"id": {id}, "x": "{x}"}}"#));
    rig.commit(0, vec![row(1, "kept"), row(2, "x")]).await;
    let before = rig.everything().await;
    let by = "one of its triggers `changes`, `news` must have kept the others out";
    for (kept, block) in [(4, vec![row(3, "x"), row(4, "no")]), (2, vec![row(1, "x"), row(2, "no")])] {
        let missing = format!(
            "table `t`, in the row `id` = `{kept}`: 0 rows were written where 1 should have been; {by}"
        );
        refused(&mut rig, 1, block, &[&missing]).await;
    }
    rig.commit(1, vec![delete("t", r#"{"id": 1}"#), delete("t", r#"{"id": 2}"#)]).await;
    assert_eq!(rig.everything().await, ["t (1,kept)"]);
    rig.roll_back(0).await.unwrap();
    assert_eq!(rig.everything().await, before);
}

#[tokio::test]
async fn a_block_of_more_bytes_than_one_statement_takes_is_split() {
    let test = database("hostile_bytes").await;
    let mut rig = Rig::up(&test, "bytes", "create table t (id integer primary key, a text, b text)").await;
    rig.commit(0, vec![put("t", r#"{"id": 1, "a": "first", "b": "b"}"#)]).await;
    let before = rig.everything().await;
    let text = "x".repeat(10 << 20);
    let some = |id: u32| put("t", &format!(r#"{{"id": {id}, "a": "{text}"}}"#));
    assert_eq!(rig.commit(1, (1..=14).map(some).collect()).await, 14);
    let sum = "select sum(length(a))::int8 from bytes.t";
    assert_eq!(rig.client.query_one(sum, &[]).await.unwrap().get::<_, i64>(0), 14 * (10 << 20));
    rig.roll_back(0).await.unwrap();
    assert_eq!(rig.everything().await, before);
}

#[tokio::test]
async fn a_block_of_a_hundred_thousand_changes_is_applied_and_rolled_back() {
    let test = database("hostile_large").await;
    let sql = "create table t (id bigint primary key, word text, number numeric); \
               create table n (amount numeric primary key)";
    let mut rig = Rig::up(&test, "large", sql).await;
    rig.commit(0, vec![put("t", r#"{"id": 1, "word": "first"}"#)]).await;
    let before = rig.everything().await;
    let mut changes: Vec<Change> = (1..=100_000)
        .map(|id| put("t", &format!(r#"{{"id": {id}, "word": "w{id}", "number": {id}}}"#)))
        .collect();
    changes.extend((1..=1000).map(|amount| put("n", &format!(r#"{{"amount": {amount}.0}}"#))));
    assert_eq!(rig.commit(1, changes).await, 101_000);
    let deletes = (1..=100_000).map(|id| delete("t", &format!(r#"{{"id": {id}}}"#))).collect();
    assert_eq!(rig.commit(2, deletes).await, 100_000);
    assert_eq!(rig.roll_back(1).await.unwrap().rows, 100_000);
    assert_eq!(rig.rows("t").await.len(), 100_000);
    rig.roll_back(0).await.unwrap();
    assert_eq!(rig.everything().await, before);
}

#[tokio::test]
async fn the_writer_outlives_a_time_limit_for_idle_sessions() {
    let test = database("hostile_idle").await;
    let mut rig = Rig::up(&test, "idle", "create table t (id integer primary key)").await;
    rig.client
        .batch_execute(
            "do $$ begin execute format('alter database %I set idle_session_timeout = 500', current_database()); \
             end $$",
        )
        .await
        .unwrap();
    rig.db = connect_as(&test.dsn);
    rig.commit(0, vec![put("t", r#"{"id": 0}"#)]).await;
    // A session that began later and has the limit.
    let other = test.connect().await;
    until("an idle session is ended", async || other.is_closed()).await;
    rig.commit(1, vec![put("t", r#"{"id": 1}"#)]).await;
}
