//! How values of every type come out, read from PostgreSQL by both ways that lead to a sink: a snapshot, and the journal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use debshrew::config::Compression;
use debshrew::relay::{Relay, Until, open};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::steps::{about, to_file};
use crate::support::{Rig, changes, database};

/// A type, a value of it as SQL, and the same in an event.
const VALUES: &[(&str, &str, &str)] = &[
    ("smallint", "-32768", "-32768"),
    ("integer", "2147483647", "2147483647"),
    ("bigint", "9223372036854775807", "9223372036854775807"),
    ("oid", "4294967295", r#""4294967295""#),
    ("real", "0.1", "0.1"),
    ("real", "'NaN'", r#""NaN""#),
    ("double precision", "0.1::float8 + 0.2", "0.30000000000000004"),
    ("double precision", "1e20", "1e+20"),
    ("double precision", "5e-324", "5e-324"),
    ("double precision", "'-0'", "-0"),
    ("double precision", "'-infinity'", r#""-Infinity""#),
    ("numeric", "'12345678901234567890.1234567890'", r#""12345678901234567890.1234567890""#),
    ("numeric(10, 2)", "1.5", r#""1.50""#),
    ("numeric", "'NaN'", r#""NaN""#),
    ("numeric", "'infinity'", r#""Infinity""#),
    ("money", "'-1234.5'", r#""-$1,234.50""#),
    ("boolean", "true", "true"),
    ("boolean", "false", "false"),
    ("bytea", "'\\x00ff10'", r#""AP8Q""#),
    ("bytea", "''", r#""""#),
    ("text", "E'größer \"\\\\\\n\\t\\u0001 \\U0001F980'", r#""größer \"\\\n\t\u0001 🦀""#),
    ("varchar(5)", "''", r#""""#),
    ("char(4)", "'ab'", r#""ab  ""#),
    ("\"char\"", "'x'", r#""x""#),
    ("name", "'n'", r#""n""#),
    ("mood", "'so so'", r#""so so""#),
    ("percent", "12.5", r#""12.50""#),
    ("whole", "7", "7"),
    ("date", "'2026-02-28'", r#""2026-02-28""#),
    ("date", "'0044-03-15 BC'", r#""0044-03-15 BC""#),
    ("date", "'infinity'", r#""infinity""#),
    ("time", "'23:59:59.5'", r#""23:59:59.5""#),
    ("time", "'24:00'", r#""24:00:00""#),
    ("timetz", "'01:02:03+05:30'", r#""01:02:03+05:30""#),
    ("timetz", "'01:02:03-07'", r#""01:02:03-07:00""#),
    ("timetz", "'01:02:03+00'", r#""01:02:03Z""#),
    ("timestamp", "'2026-01-01 00:00:00.000001'", r#""2026-01-01T00:00:00.000001""#),
    ("timestamp", "'-infinity'", r#""-infinity""#),
    ("timestamp", "'0044-03-15 12:00 BC'", r#""0044-03-15 12:00:00 BC""#),
    ("timestamp(0)", "'2026-01-01 00:00:00.6'", r#""2026-01-01T00:00:01""#),
    ("timestamptz", "'2026-01-01 02:00:00.123456+02'", r#""2026-01-01T00:00:00.123456Z""#),
    ("timestamptz", "'12026-01-01 00:00:00+00'", r#""12026-01-01T00:00:00Z""#),
    ("timestamptz", "'infinity'", r#""infinity""#),
    ("timestamptz", "'0044-03-15 12:00+00 BC'", r#""0044-03-15 12:00:00+00 BC""#),
    ("interval", "'1 year 2 mons -3 days 04:05:06.7'", r#""1 year 2 mons -3 days +04:05:06.7""#),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", r#""a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11""#),
    ("json", "'{\"b\": 1.50,  \"a\": []}'", r#""{\"b\": 1.50,  \"a\": []}""#),
    ("jsonb", "'{\"b\": 1.50,  \"a\": []}'", r#""{\"a\": [], \"b\": 1.50}""#),
    ("jsonb", "'null'", r#""null""#),
    ("xml", "'<a>&amp;</a>'", r#""<a>&amp;</a>""#),
    ("inet", "'10.0.0.1/8'", r#""10.0.0.1/8""#),
    ("cidr", "'10.0.0.0/8'", r#""10.0.0.0/8""#),
    ("macaddr", "'08:00:2b:01:02:03'", r#""08:00:2b:01:02:03""#),
    ("bit(4)", "B'1010'", r#""1010""#),
    ("varbit", "B'101'", r#""101""#),
    ("point", "'(1,2.5)'", r#""(1,2.5)""#),
    ("tsvector", "'''a'':1 ''b'''", r#""'a':1 'b'""#),
    ("tsquery", "'''a'' & ''b'''", r#""'a' & 'b'""#),
    ("pg_lsn", "'16/B374D848'", r#""16/B374D848""#),
    ("pair", "row(1, 'a \"b\", c')", r#""(1,\"a \"\"b\"\", c\")""#),
    ("int4range", "'[1,5]'", r#""[1,6)""#),
    ("tstzrange", "'[2026-01-01 00:00+00,)'", r#""[\"2026-01-01 00:00:00+00\",)""#),
    ("int4multirange", "'{[1,2),[5,6)}'", r#""{[1,2),[5,6)}""#),
    ("integer[]", "'{1,NULL,3}'", "[1,null,3]"),
    ("integer[]", "'{}'", "[]"),
    ("integer[]", "'[0:1]={1,2}'", "[1,2]"),
    ("integer[]", "'{{1,2},{3,NULL}}'", "[[1,2],[3,null]]"),
    ("bigint[]", "'{9223372036854775807}'", "[9223372036854775807]"),
    ("float8[]", "'{0.1,NaN}'", r#"[0.1,"NaN"]"#),
    ("numeric[]", "'{1.10}'", r#"["1.10"]"#),
    ("boolean[]", "'{t,f}'", "[true,false]"),
    ("bytea[]", "array['\\x00ff'::bytea]", r#"["AP8="]"#),
    ("text[]", r#"array['a,b', '{}', 'NULL', null, '', '"\']"#, r#"["a,b","{}","NULL",null,"","\"\\"]"#),
    ("char(2)[]", "array['a']::char(2)[]", r#"["a "]"#),
    ("timestamptz[]", "'{2026-01-01 00:00+00,infinity}'", r#"["2026-01-01T00:00:00Z","infinity"]"#),
    ("date[]", "'{2026-01-01}'", r#"["2026-01-01"]"#),
    ("jsonb[]", "array['{\"a\": \"b\"}'::jsonb]", r#"["{\"a\": \"b\"}"]"#),
    ("uuid[]", "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'", r#"["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]"#),
    ("box[]", "'{(1,1),(0,0);(2,2),(1,1)}'", r#"["(1,1),(0,0)","(2,2),(1,1)"]"#),
    ("mood[]", "array['sad', 'so so']::mood[]", r#"["sad","so so"]"#),
    ("pair[]", "array[row(1, 'a,b')]::pair[]", r#"["(1,\"a,b\")"]"#),
    ("int4range[]", "array['[1,5)'::int4range]", r#"["[1,5)"]"#),
    ("interval[]", "array['1 day'::interval]", r#"["1 day"]"#),
    ("inet[]", "'{10.0.0.1}'", r#"["10.0.0.1"]"#),
    ("percents", "array[1, 2.5]", r#"["1.00","2.50"]"#),
];

const TYPES: &str = "create type mood as enum ('sad', 'so so'); create type pair as (a integer, b text); \
    create domain percent as numeric(5, 2) check (value >= 0); create domain whole as integer; \
    create domain percents as numeric(5, 2)[];";

fn table() -> String {
    let mut sql = format!("{TYPES} create table kinds (id integer primary key, note text");
    for (number, (type_, _, _)) in VALUES.iter().enumerate() {
        write!(sql, ", c{number} {type_}").unwrap();
    }
    sql + ");"
}

/// Publishes all that is there, from the beginning or from where it was.
async fn publish(rig: &Rig, path: &Path) {
    let settings = to_file(path, u64::MAX, Compression::None);
    let made = settings.clone();
    let (_wake, wake) = tokio::sync::watch::channel(0);
    let relay = Relay {
        pipeline: rig.name.clone(),
        name: "events".into(),
        settings,
        db: rig.db.clone(),
        metrics: debshrew::observe::SinkMetrics::new(&rig.name, "events"),
        make: Arc::new(move || open(&made, &about())),
        wake,
    };
    let until = Until { stop: CancellationToken::new(), finish: CancellationToken::new() };
    until.finish.cancel();
    relay.run(&until).await.unwrap();
}

type Object = BTreeMap<String, Box<RawValue>>;

fn fields(json: &RawValue) -> Object {
    serde_json::from_str(json.get()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_has_one_form_by_both_ways() {
    let test = database("events_types").await;
    let mut rig = Rig::up(&test, "kinds", &table()).await;
    rig.commit(0, changes(r#"+kinds {"id": 2, "note": "another"}"#)).await;
    let values: Vec<&str> = VALUES.iter().map(|(_, value, _)| *value).collect();
    rig.run(&format!("set search_path = kinds; insert into kinds values (1, 'old', {})", values.join(", ")))
        .await;
    let folder = tempfile::tempdir().unwrap();
    publish(&rig, folder.path()).await;
    rig.commit(1, changes(r#"+kinds {"id": 1, "note": "new"}"#)).await;
    rig.stop().await;
    publish(&rig, folder.path()).await;

    let text = std::fs::read_to_string(folder.path().join("000000000001.jsonl.part")).unwrap();
    let events: Vec<Object> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let operations: Vec<&str> = events.iter().map(|event| event["op"].get()).collect();
    assert_eq!(operations, [r#""r""#, r#""r""#, r#""u""#]);
    let read =
        events[..2].iter().map(|event| fields(&event["after"])).find(|row| row["id"].get() == "1").unwrap();
    let (before, after) = (fields(&events[2]["before"]), fields(&events[2]["after"]));
    assert_eq!((before["note"].get(), after["note"].get()), (r#""old""#, r#""new""#));
    let mut wrong = String::new();
    for (number, (type_, value, expected)) in VALUES.iter().enumerate() {
        let name = format!("c{number}");
        for (way, row) in [("snapshot", &read), ("before", &before), ("after", &after)] {
            let found = row[&name].get();
            if found != *expected {
                writeln!(wrong, "{type_} {value}, {way}: {found}, and not {expected}").unwrap();
            }
        }
        // PostgreSQL itself says whether a string means what it was. Money is read by the locale, and bytea is base64.
        let is_text = expected.starts_with('"') && !matches!(*type_, "bytea" | "money");
        if is_text {
            let text: String = serde_json::from_str(expected).unwrap();
            let same = format!(
                "select $1::text::kinds.t{number} is not distinct from c{number}::kinds.t{number} from kinds.kinds where id = 1"
            );
            let same = same.replace(&format!("kinds.t{number}"), &qualified(type_));
            let same = match *type_ {
                // Has no equality.
                "json" | "xml" | "point" => same
                    .replace(" is not distinct from ", "::text = ")
                    .replace(&format!("c{number}::{}", qualified(type_)), &format!("c{number}::text")),
                _ => same,
            };
            let row = rig.client.query_one(&same, &[&text]).await;
            let is_same: bool = row.unwrap_or_else(|error| panic!("{type_} {value}: {error:?}")).get(0);
            if !is_same {
                writeln!(wrong, "{type_} {value}: {text} is another value").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A type's name without a search path.
fn qualified(type_: &str) -> String {
    match type_ {
        "mood" | "pair" | "percent" | "whole" | "percents" => format!("kinds.{type_}"),
        other => other.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn null_is_null_whatever_the_type() {
    let test = database("events_nulls").await;
    let mut rig = Rig::up(&test, "kinds", &table()).await;
    rig.commit(0, changes(r#"+kinds {"id": 1}"#)).await;
    rig.stop().await;
    let folder = tempfile::tempdir().unwrap();
    publish(&rig, folder.path()).await;
    let text = std::fs::read_to_string(folder.path().join("000000000001.jsonl.part")).unwrap();
    let event: Object = serde_json::from_str(text.trim_end()).unwrap();
    let row = fields(&event["after"]);
    assert_eq!(row.len(), VALUES.len() + 2);
    assert!(row.iter().all(|(name, value)| name == "id" || value.get() == "null"), "{row:?}");
}
