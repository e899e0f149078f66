//! Parents whose keys' equality only PostgreSQL knows, of foreign keys that cannot be deferred.

use crate::exact::{Wrong, forth_and_back};
use crate::support::{Rig, database};

/// A key's type, what it needs, and four keys as JSON.
const KEYS: &[(&str, &str, &str, [&str; 4])] = &[
    (
        "uuids",
        "uuid",
        "",
        [
            r#""a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11""#,
            r#""00000000-0000-0000-0000-000000000000""#,
            r#""ffffffff-ffff-ffff-ffff-ffffffffffff""#,
            r#""A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12""#,
        ],
    ),
    ("days", "date", "", [r#""2026-01-01""#, r#""infinity""#, r#""0044-03-15 BC""#, r#""-infinity""#]),
    (
        "instants",
        "timestamptz",
        "",
        [r#""2026-01-01T00:00:00Z""#, r#""infinity""#, r#""2026-01-01T05:00:00+04""#, r#""-infinity""#],
    ),
    (
        "moments",
        "timestamp(3)",
        "",
        [r#""2026-01-01 00:00:00.001""#, r#""infinity""#, r#""epoch""#, r#""2026-01-02""#],
    ),
    ("addresses", "inet", "", [r#""10.0.0.1/8""#, r#""::1""#, r#""10.0.0.0/8""#, r#""10.0.0.1""#]),
    ("networks", "cidr", "", [r#""10.0.0.0/8""#, r#""::1""#, r#""10.0.0.0/9""#, r#""10.0.0.1""#]),
    ("amounts", "numeric", "", ["1.50", r#""NaN""#, "-0.001", "18446744073709551617"]),
    ("scaled", "numeric(6, 2)", "", ["1.50", "2", "-3", "0"]),
    ("floats", "double precision", "", ["0.1", r#""NaN""#, r#""-Infinity""#, "0"]),
    ("spans", "interval", "", [r#""1 day""#, r#""25 hours""#, r#""-1 mon""#, r#""0""#]),
    ("padded", "char(4)", "", [r#""a""#, r#""abcd""#, r#""""#, r#""b""#]),
    (
        "moods",
        "mood",
        "create type mood as enum ('a', 'b', 'c', 'd');",
        [r#""a""#, r#""b""#, r#""c""#, r#""d""#],
    ),
    (
        "domains",
        "short",
        "create domain short as text check (length(value) < 9);",
        [r#""a""#, r#""b""#, r#""c""#, r#""""#],
    ),
    ("bits", "bit varying", "", [r#""0""#, r#""""#, r#""1""#, r#""00""#]),
    ("lists", "integer[]", "", ["[1, 2]", "[]", "[null]", "[3]"]),
    ("ranges", "int4range", "", [r#""[1,5)""#, r#""empty""#, r#""(,)""#, r#""[7,9)""#]),
];

/// Each of these with a foreign key that cannot be deferred, and with one that can.
fn both_kinds<T>(all: &[T]) -> impl Iterator<Item = (&T, &'static str)> {
    all.iter().flat_map(|one| [(one, ""), (one, " deferrable")])
}

/// Children take hold of their parents and let go; parents change, come and go.
const BLOCKS: [&str; 4] = [
    r#"+p {"id": KEY0, "note": "first"}
       +p {"id": KEY1}
       +c {"id": 1, "p": KEY0}
       +c {"id": 2, "p": KEY1}"#,
    r#"+p {"id": KEY0, "note": "second"}
       -c {"id": 2}
       -p {"id": KEY1}
       +p {"id": KEY2}
       +c {"id": 3, "p": KEY2}"#,
    r#"+p {"id": KEY3, "note": "third"}
       +c {"id": 1, "p": KEY3}
       +c {"id": 3, "p": KEY0}
       -p {"id": KEY2}
       +p {"id": KEY1, "note": "again"}
       +c {"id": 2, "p": KEY1}"#,
    r#"-c {"id": 1}
       -c {"id": 2}
       -c {"id": 3}
       -p {"id": KEY0}
       +p {"id": KEY0, "note": "fourth"}
       +c {"id": 4, "p": KEY0}
       +p {"id": KEY1, "note": "there all the time"}"#,
];

#[tokio::test]
async fn parents_of_every_key_type_are_restored_while_children_refer_to_them() {
    let test = database("exact_parents").await;
    let mut wrong = Wrong::default();
    for ((name, key_type, before, keys), late) in both_kinds(KEYS) {
        let name = &format!("{name}{}", late.replace(' ', "_"));
        let mut rig = Rig::up(&test, name, "create table good (id integer primary key)").await;
        let sql = format!(
            "{before} create table p (id {key_type} primary key, note text); \
             create table c (id integer primary key, p {key_type} not null references p{late})"
        );
        let report = rig.migrate(&sql).await.unwrap();
        if !report.pipelines[0].refused.is_empty() {
            wrong.0.push(format!("{name}: {:?}", report.pipelines[0].refused));
            continue;
        }
        let blocks = BLOCKS.map(|block| {
            keys.iter()
                .enumerate()
                .fold(block.to_owned(), |block, (number, key)| block.replace(&format!("KEY{number}"), key))
        });
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        wrong.note(name, forth_and_back(&mut rig, &blocks).await);
    }
    wrong.settle();
}

/// Keys of one value in several spellings.
const SPELLED: &[(&str, &str, &str, [&str; 3])] = &[
    ("amounts", "numeric", "", ["1.0", "1.00", "1"]),
    ("spans", "interval", "", [r#""1 day""#, r#""24:00:00""#, r#""1440 minutes""#]),
    (
        "folded",
        "text collate ci",
        "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);",
        [r#""Abc""#, r#""aBC""#, r#""abc""#],
    ),
    ("floats", "double precision", "", ["0", "-0.0", "0.0"]),
];

#[tokio::test]
async fn a_key_that_is_spelled_otherwise_is_exact_after_a_rollback() {
    let test = database("exact_parents_spelled").await;
    let sql = "select count(*) > 0 from pg_collation where collprovider = 'i'";
    let icu: bool = test.connect().await.query_one(sql, &[]).await.unwrap().get(0);
    let mut wrong = Wrong::default();
    for ((name, key_type, before, [one, two, three]), late) in both_kinds(SPELLED) {
        if before.contains("icu") && !icu {
            continue;
        }
        let name = &format!("{name}{}", late.replace(' ', "_"));
        let mut rig = Rig::up(&test, name, "create table good (id integer primary key)").await;
        let sql = format!(
            "{before} create table p (id {key_type} primary key, note text); \
             create table c (id integer primary key, p {key_type} not null references p{late})"
        );
        let report = rig.migrate(&sql).await.unwrap();
        if !report.pipelines[0].refused.is_empty() {
            wrong.0.push(format!("{name}: {:?}", report.pipelines[0].refused));
            continue;
        }
        let blocks = [
            format!("+p {{\"id\": {one}, \"note\": \"a\"}}"),
            format!("-p {{\"id\": {one}}}\n+p {{\"id\": {two}, \"note\": \"b\"}}"),
            format!("+c {{\"id\": 1, \"p\": {two}}}\n+p {{\"id\": {one}, \"note\": \"c\"}}"),
            format!("+c {{\"id\": 1, \"p\": {three}}}\n+c {{\"id\": 2, \"p\": {one}}}"),
            format!("-c {{\"id\": 1}}\n-c {{\"id\": 2}}\n-p {{\"id\": {two}}}\n+p {{\"id\": {three}}}"),
            format!("+c {{\"id\": 3, \"p\": {one}}}"),
        ];
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        wrong.note(name, forth_and_back(&mut rig, &blocks).await);
    }
    wrong.settle();
}

#[tokio::test]
async fn a_temporal_key_is_refused() {
    let test = database("exact_parents_temporal").await;
    let client = test.connect().await;
    let version: i32 =
        client.query_one("select current_setting('server_version_num')::int4", &[]).await.unwrap().get(0);
    if version < 180_000 {
        println!("not tried: PostgreSQL {version} has no temporal keys");
        return;
    }
    let mut rig = Rig::up(&test, "temporal", "create table good (id integer primary key)").await;
    let sql =
        "create table t (id int4range, valid daterange, x text, primary key (id, valid without overlaps))";
    let report = rig.migrate(sql).await.unwrap();
    assert!(
        report.pipelines[0].refused["t"].contains("without overlaps"),
        "{:?}",
        report.pipelines[0].refused
    );
}
