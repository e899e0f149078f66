//! Values that mean something else at another time or place, and messages that contradict themselves.

use debshrew::change::Change;
use debshrew::failure::Kind;

use crate::exact::Wrong;
use crate::support::{Rig, changes, database, delete, keyed, put, whole};

const TABLES: &str = "
create type pair as (at timestamptz, note text);
create type nested as (one pair, days date[]);
create domain birthday as date;
create domain birthdays as date[];
create type word as enum ('now', 'today');
create type span as range (subtype = timetz);
create table t (
  id integer primary key, d date, c time, z timetz, m timestamp, i timestamptz(3),
  ds date[], pair_of pair, deep nested, pairs pair[], r daterange, rs tstzmultirange, rr daterange[], own birthday,
  owns birthdays, clocks span, word text, words text[], kind word, doc jsonb, short varchar(9)
);
create table days (d date primary key, x text);
create table moments (a text, m timestamp, x text, primary key (a, m));
create table births (b birthday primary key, x text);
create table periods (p tsrange primary key, x text);
";

/// Table, column, and a row.
const CLOCK: &[(&str, &str, &str)] = &[
    ("t", "d", r#"{"id": 1, "d": "now"}"#),
    ("t", "d", r#"{"id": 1, "d": "today"}"#),
    ("t", "d", r#"{"id": 1, "d": "tomorrow"}"#),
    ("t", "d", r#"{"id": 1, "d": "yesterday"}"#),
    ("t", "d", r#"{"id": 1, "d": " TODAY "}"#),
    ("t", "c", r#"{"id": 1, "c": "now"}"#),
    ("t", "z", r#"{"id": 1, "z": "NOW"}"#),
    ("t", "m", r#"{"id": 1, "m": "Today 10:00"}"#),
    ("t", "m", r#"{"id": 1, "m": "10:00 tomorrow"}"#),
    ("t", "m", r#"{"id": 1, "m": "yesterday allballs"}"#),
    ("t", "i", r#"{"id": 1, "i": "now"}"#),
    ("t", "i", r#"{"id": 1, "i": "yesterday 10:00+02"}"#),
    ("t", "i", r#"{"id": 1, "i": "today\t"}"#),
    ("t", "ds", r#"{"id": 1, "ds": ["2026-01-01", "today"]}"#),
    ("t", "ds", r#"{"id": 1, "ds": "{2026-01-01,today}"}"#),
    ("t", "ds", r#"{"id": 1, "ds": "{\"today\"}"}"#),
    ("t", "pair_of", r#"{"id": 1, "pair_of": {"at": "now", "note": "x"}}"#),
    ("t", "pair_of", r#"{"id": 1, "pair_of": ["now", "x"]}"#),
    ("t", "pair_of", r#"{"id": 1, "pair_of": "(now,x)"}"#),
    ("t", "pair_of", r#"{"id": 1, "pair_of": "(\"today 10:00\",x)"}"#),
    ("t", "deep", r#"{"id": 1, "deep": {"one": {"at": "now"}}}"#),
    ("t", "deep", r#"{"id": 1, "deep": {"days": ["today"]}}"#),
    ("t", "pairs", r#"{"id": 1, "pairs": [null, {"at": "Tomorrow"}]}"#),
    ("t", "r", r#"{"id": 1, "r": "[2026-01-01,today]"}"#),
    ("t", "r", r#"{"id": 1, "r": "[yesterday,)"}"#),
    ("t", "rs", r#"{"id": 1, "rs": "{[now,)}"}"#),
    ("t", "rr", r#"{"id": 1, "rr": ["[today,)"]}"#),
    ("t", "own", r#"{"id": 1, "own": "today"}"#),
    ("t", "owns", r#"{"id": 1, "owns": ["today"]}"#),
    ("t", "clocks", r#"{"id": 1, "clocks": "[00:00+00,now]"}"#),
    ("days", "d", r#"{"d": "today", "x": "x"}"#),
    ("moments", "m", r#"{"a": "a", "m": "now"}"#),
    ("births", "b", r#"{"b": "Yesterday"}"#),
    ("periods", "p", r#"{"p": "[2026-01-01,now)"}"#),
];

/// What looks like them and is the same at all times.
const FIXED: &str = r#"
    +t {"id": 1, "d": "infinity", "m": "epoch", "i": "-infinity", "ds": ["epoch", null], "c": "allballs"}
    +t {"id": 2, "word": "now", "words": ["today", "tomorrow"], "kind": "now", "doc": "now", "short": "yesterday"}
    +t {"id": 3, "pair_of": {"at": "2026-01-01T00:00:00Z", "note": "now"}, "doc": ["today"], "word": "Today 10:00"}
    +t {"id": 4, "pairs": [{"at": null, "note": "today"}], "r": "[epoch,infinity)", "kind": "today"}
    +t {"id": 5, "pair_of": "(2026-01-01,\"now\")", "i": "2026-01-01 10:00 UTC"}
    +moments {"a": "now", "m": "epoch", "x": "today"}
    +days {"d": "infinity", "x": "now"}"#;

#[tokio::test]
async fn text_that_means_another_time_each_time_is_refused() {
    let test = database("exact_clock").await;
    let mut rig = Rig::up(&test, "clock", TABLES).await;
    rig.commit(0, changes(FIXED)).await;
    let before = rig.whole().await;
    let mut wrong = Wrong::default();
    for (table, column, row) in CLOCK {
        let kinds: &[fn(&str, &str) -> Change] = if *table == "t" { &[put] } else { &[put, delete] };
        for change in kinds {
            match rig.try_commit(1, vec![put("t", r#"{"id": 9}"#), change(table, row)]).await {
                Ok(_) => {
                    wrong.0.push(format!("{table} {row} was taken"));
                    rig.roll_back(0).await.unwrap();
                }
                Err(error) => {
                    let said = whole(&error);
                    for part in [format!("`{table}`"), format!("`{column}`")] {
                        assert!(said.contains(&part), "{row}: {said}");
                    }
                    assert_eq!(error.kind(), Kind::Permanent, "{said}");
                    assert_eq!(rig.whole().await, before, "{row}");
                }
            }
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn words_and_times_that_are_always_the_same_are_stored() {
    let test = database("exact_clock_fixed").await;
    let mut rig = Rig::up(&test, "fixed", TABLES).await;
    rig.commit(0, changes(FIXED)).await;
    let row = "select word || words::text || kind::text || doc::text || short from fixed.t where id = 2";
    let words: String = rig.client.query_one(row, &[]).await.unwrap().get(0);
    assert_eq!(words, r#"now{today,tomorrow}now"now"yesterday"#);
}

const KEYED: &str = "
create table t (id integer primary key, x text);
create table n (id numeric primary key, x text);
create table w (id text primary key, x text);
create table u (id uuid primary key, x text);
create table b (id bytea primary key, x text);
create table d (id timestamptz primary key, x text);
create table k (a integer, b text, x text, primary key (a, b));
";

/// Table, `key`, row, and both keys as they were written.
const CONTRADICTIONS: &[(&str, &str, &str, [&str; 2])] = &[
    ("t", "5", r#"{"id": 6, "x": "x"}"#, ["5", "6"]),
    ("t", "\"5\"", r#"{"id": 6}"#, ["5", "6"]),
    ("n", "1.5", r#"{"id": 1.50001, "x": "x"}"#, ["1.5", "1.50001"]),
    ("w", "\"five\"", r#"{"id": "six"}"#, ["five", "six"]),
    ("w", "\"five\"", r#"{"id": "Five"}"#, ["five", "Five"]),
    (
        "u",
        "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
        r#"{"id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"}"#,
        ["380a11", "380a12"],
    ),
    ("b", r#""\\x00ff""#, r#"{"id": "\\x00fe"}"#, ["00ff", "00fe"]),
    ("d", "\"2026-01-01T00:00:00Z\"", r#"{"id": "2026-01-01T00:00:00+01"}"#, ["00:00:00Z", "00:00:00+01"]),
    ("k", r#"[1, "p"]"#, r#"{"a": 1, "b": "q", "x": "x"}"#, ["p", "q"]),
    ("k", r#"{"a": 1, "b": "p"}"#, r#"{"a": 2, "b": "p"}"#, ["1", "2"]),
    ("k", r#"{"a": 1, "b": "p"}"#, r#"{"a": 2}"#, ["1", "2"]),
    ("k", r#""[1, \"p\"]""#, r#"{"b": "q"}"#, ["p", "q"]),
];

/// The same key in two spellings.
const AGREE: &[(&str, &str, &str)] = &[
    ("t", "\"5\"", r#"{"id": 5, "x": "x"}"#),
    ("t", "5", r#"{"id": "05"}"#),
    ("n", "1.0", r#"{"id": 1.00}"#),
    ("n", "\"1\"", r#"{"id": 1e0}"#),
    ("u", "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"", r#"{"id": "a0eebc999c0b4ef8bb6d6bb9bd380a11"}"#),
    ("b", r#""\\xABCD""#, r#"{"id": "\\xabcd"}"#),
    ("d", "\"2026-01-01T00:00:00Z\"", r#"{"id": "2026-01-01T01:00:00+01"}"#),
    ("k", r#"[1, "p"]"#, r#"{"a": "1", "b": "p"}"#),
    ("k", r#"{"b": "p", "a": 1}"#, r#"{"a": 1}"#),
    ("k", r#"["1", "p"]"#, r#"{"x": "x"}"#),
];

#[tokio::test]
async fn a_key_that_contradicts_the_row_is_refused_and_both_are_named() {
    let test = database("exact_contradictions").await;
    let mut rig = Rig::up(&test, "contradictions", KEYED).await;
    rig.commit(0, vec![put("t", r#"{"id": 5, "x": "there"}"#)]).await;
    let before = rig.whole().await;
    let mut wrong = Wrong::default();
    for (table, key, row, parts) in CONTRADICTIONS {
        for operation in [put("t", r#"{"id": 1}"#).operation, delete("t", r#"{"id": 1}"#).operation] {
            let change = Change { operation, ..keyed(table, key, row) };
            match rig.try_commit(1, vec![put("t", r#"{"id": 9}"#), change]).await {
                Ok(_) => {
                    wrong.0.push(format!("{table} {key} {row} {operation:?} was taken"));
                    rig.roll_back(0).await.unwrap();
                }
                Err(error) => {
                    let said = whole(&error);
                    assert!(said.contains(&format!("`{table}`")), "{said}");
                    for part in parts {
                        assert!(said.contains(part), "{table} {key} {row}: `{part}` is not in: {said}");
                    }
                    assert_eq!(error.kind(), Kind::Permanent, "{said}");
                    assert_eq!(rig.whole().await, before, "{key} {row}");
                }
            }
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn a_key_that_says_the_same_as_the_row_in_another_spelling_is_taken() {
    let test = database("exact_agree").await;
    let mut rig = Rig::up(&test, "agree", KEYED).await;
    for (height, (table, key, row)) in (0..).zip(AGREE) {
        let taken = rig.try_commit(height, vec![keyed(table, key, row)]).await;
        assert_eq!(taken.unwrap_or_else(|error| panic!("{table} {key} {row}: {}", whole(&error))), 1);
    }
    let counts = rig.everything().await.len();
    assert_eq!(counts, 6, "{:?}", rig.everything().await);
}

#[tokio::test]
async fn hexadecimal_digits_behind_0x_are_not_stored_as_letters() {
    let test = database("exact_hex").await;
    let sql = "create type two as (a bytea, b text); create domain hash as bytea; \
               create table t (id integer primary key, b bytea, bs bytea[], pair_of two, h hash, x text, xs text[]); \
               create table k (b bytea primary key, x text)";
    let mut rig = Rig::up(&test, "hex", sql).await;
    rig.commit(0, vec![put("t", r#"{"id": 1, "b": "\\xdeadbeef", "x": "0xdeadbeef", "xs": ["0xde"]}"#)])
        .await;
    let before = rig.whole().await;
    let mut wrong = Wrong::default();
    for (table, column, row) in [
        ("t", "b", r#"{"id": 2, "b": "0xdeadbeef"}"#),
        ("t", "b", r#"{"id": 2, "b": "0XDEADBEEF"}"#),
        ("t", "b", r#"{"id": 2, "b": "0x"}"#),
        ("t", "bs", r#"{"id": 2, "bs": [null, "0xdeadbeef"]}"#),
        ("t", "bs", r#"{"id": 2, "bs": "{NULL,0xdeadbeef}"}"#),
        ("t", "pair_of", r#"{"id": 2, "pair_of": {"a": "0xdeadbeef"}}"#),
        ("t", "h", r#"{"id": 2, "h": "0xdeadbeef"}"#),
        ("k", "b", r#"{"b": "0xdeadbeef", "x": "x"}"#),
    ] {
        match rig.try_commit(1, vec![put(table, row)]).await {
            Ok(_) => {
                wrong.0.push(format!("{table} {row} was taken"));
                rig.roll_back(0).await.unwrap();
            }
            Err(error) => {
                let said = whole(&error);
                for part in [&*format!("`{table}`"), &*format!("`{column}`"), "\\x"] {
                    assert!(said.contains(part), "{row}: `{part}` is not in: {said}");
                }
                assert_eq!(error.kind(), Kind::Permanent, "{said}");
                assert_eq!(rig.whole().await, before, "{row}");
            }
        }
    }
    wrong.settle();
}
