//! Images that hold columns in very many combinations: a column comes from the oldest image that holds it.

use std::time::Instant;

use debshrew::change::Change;

use crate::exact::forth_and_back;
use crate::support::{Rig, database, put, whole};

/// Columns that take every value exactly or not at all, with values for each.
const KINDS: [(&str, [&str; 4]); 12] = [
    ("integer", ["1", "-7", "0", "2147483647"]),
    ("text collate \"C\"", [r#""""#, r#""null""#, r#""a b""#, r#""Ä\\\"""#]),
    ("integer[]", [r#""{}""#, r#""{NULL}""#, r#""{{1,2},{3,NULL}}""#, r#""[0:1]={5,6}""#]),
    ("text[]", [r#""{}""#, r#""{\"\"}""#, r#""{NULL,\"NULL\"}""#, r#""{a,b}""#]),
    ("pair", [r#""(,)""#, r#""(1,)""#, r#""(2,\"a,b\")""#, r#""(,\"\")""#]),
    ("pair[]", [r#""{}""#, r#""{\"(1,x)\",NULL}""#, r#""{\"(,)\"}""#, r#""{NULL}""#]),
    ("json", ["{\"b\":  1, \"a\": null}", "[1, 1.0]", "\"null\"", "{}"]),
    ("numeric", ["1", "1.0", "1.00", r#""NaN""#]),
    ("float8", [r#""-0""#, "0", r#""NaN""#, "1e-300"]),
    ("bytea", [r#""\\x""#, r#""\\x00ff""#, r#""\\x30""#, r#""\\x6162""#]),
    ("share", ["0", "1", "0.50", "0.5"]),
    ("point", [r#""(0,0)""#, r#""(-0,1)""#, r#""(1,2)""#, r#""(NaN,0)""#]),
];
const COLUMNS: usize = 60;
const IDS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];
const ARRAYS: [&str; 5] = ["{}", "{0}", "{0,1}", "{NULL}", "{a,\\\"\\\"}"];

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// A change of a row: it is deleted, or set in some columns of its own.
    fn change(&mut self, ids: &[&str]) -> String {
        let id = ids[self.roll(ids.len() as u64) as usize];
        if self.roll(9) == 0 {
            return format!(r#"-t {{"id": "{id}"}}"#);
        }
        // Few columns as a rule, now and then nearly all.
        let often = [2, 2, 10, 50][self.roll(4) as usize];
        let mut row = format!(r#"+t {{"id": "{id}""#);
        for column in 0..COLUMNS {
            if self.roll(60) < often {
                let values = &KINDS[column % KINDS.len()].1;
                let value = values.get(self.roll(5) as usize).unwrap_or(&"null");
                row.push_str(&format!(r#", "c{column}": {value}"#));
            }
        }
        row + "}"
    }
}

#[tokio::test]
async fn hundreds_of_column_sets_are_rolled_back_exactly() {
    let test = database("exact_patterns").await;
    let columns: Vec<String> =
        (0..COLUMNS).map(|column| format!("c{column} {}", KINDS[column % KINDS.len()].0)).collect();
    for (name, key, behind) in [
        ("in_place", "primary key (id)", ""),
        ("afresh", "primary key (id), unique (c0, id)", ""),
        ("numbers", "primary key (id)", "; alter table t alter id type numeric using id::numeric"),
        ("arrays", "primary key (id)", "; alter table t alter id type text[] using array[id]"),
        (
            "partitioned",
            "primary key (id)) partition by hash (id",
            "; \
           create table t0 partition of t for values with (modulus 2, remainder 0); \
           create table t1 partition of t for values with (modulus 2, remainder 1)",
        ),
        ("referenced", "primary key (id)", "; create table u (id text primary key references t)"),
    ] {
        let sql = format!(
            "create type pair as (n integer, x text); create domain share as numeric check (value <= 1); \
             create table t (id text, {}, {key}){behind}",
            columns.join(", ")
        );
        let mut rig = Rig::up(&test, name, &sql).await;
        let ids = if name == "arrays" { &ARRAYS[..] } else { &IDS[..] };
        let mut dice = Dice(name.len() as u64);
        let blocks: Vec<String> =
            (0..20).map(|_| (0..20).map(|_| dice.change(ids)).collect::<Vec<_>>().join("\n")).collect();
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        forth_and_back(&mut rig, &blocks)
            .await
            .unwrap_or_else(|wrong| panic!("{name}: {}", &wrong[..wrong.len().min(500)]));
    }
}

#[tokio::test]
async fn as_many_column_sets_as_a_table_has_columns_are_rolled_back_as_fast_as_they_came() {
    const WIDTH: usize = 1_500;
    let test = database("exact_patterns_many").await;
    let columns: Vec<String> = (0..WIDTH).map(|column| format!("c{column} integer")).collect();
    let sql = format!("create table t (id integer primary key, {})", columns.join(", "));
    let mut rig = Rig::up(&test, "many", &sql).await;
    let row = |id: usize, value: usize| -> Change {
        // Each row sets a column of its own, and one that another row sets as well.
        put("t", &format!(r#"{{"id": {id}, "c{id}": {value}, "c{}": {value}}}"#, id * 7 % WIDTH))
    };
    rig.commit(0, (0..WIDTH).map(|id| row(id, 1)).collect()).await;
    let before = rig.everything().await;
    let start = Instant::now();
    for (height, ids) in (1..).zip((0..WIDTH).collect::<Vec<_>>().chunks(300)) {
        rig.commit(height, ids.iter().map(|id| row(*id, 2)).collect()).await;
    }
    let forth = start.elapsed();
    let start = Instant::now();
    rig.roll_back(0).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    let back = start.elapsed();
    assert!(rig.everything().await == before, "not what it was");
    assert!(back < forth, "{back:?} back, {forth:?} forth");
}
