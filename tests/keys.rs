//! Keys of every type that PostgreSQL can index: rows are found by them, and found again by a rollback.

use crate::support::{Rig, TestDb, database, delete, put};

struct Case {
    name: &'static str,
    /// What the table needs.
    before: &'static str,
    key_type: &'static str,
    /// Keys of four rows, as JSON.
    keys: [&'static str; 4],
}

const fn case(
    name: &'static str,
    before: &'static str,
    key_type: &'static str,
    keys: [&'static str; 4],
) -> Case {
    Case { name, before, key_type, keys }
}

const CASES: &[Case] = &[
    case("small", "", "smallint", ["1", "-2", "3", "32767"]),
    case("exact", "", "numeric", ["1.50", "\"NaN\"", "-0.001", "18446744073709551617"]),
    case("scaled", "", "numeric(4, 1)", ["1.5", "2", "-3", "0"]),
    case("float", "", "double precision", ["0.1", "\"NaN\"", "\"-Infinity\"", "0"]),
    case("words", "", "text", ["\"a,b\"", "\"\"", "\"NULL\"", "\"{\\\"\\\\\""]),
    case("short", "", "varchar(3)", ["\"a\"", "\"abc\"", "\"\"", "\"é\""]),
    case("padded", "", "char(4)", ["\"a\"", "\"abcd\"", "\"\"", "\"b\""]),
    case("letter", "", "\"char\"", ["\"a\"", "\"b\"", "\"c\"", "\"d\""]),
    case("named", "", "name", ["\"a\"", "\"b c\"", "\"\"", "\"NULL\""]),
    case("folded", "create extension citext", "citext", ["\"a\"", "\"B\"", "\"c\"", "\"D\""]),
    case(
        "loose",
        "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "text collate ci",
        ["\"a\"", "\"B\"", "\"c\"", "\"D\""],
    ),
    case("collated", "", "text collate \"C\"", ["\"a\"", "\"B\"", "\"c\"", "\"D\""]),
    case("bits", "", "bit(4)", ["\"0101\"", "\"0000\"", "\"1111\"", "\"0001\""]),
    case("more_bits", "", "varbit", ["\"0\"", "\"\"", "\"1\"", "\"00\""]),
    case("bytes", "", "bytea", ["\"\\\\x00\"", "\"\\\\x\"", "\"\\\\xff\"", "\"\\\\x5c\""]),
    case("day", "", "date", ["\"2026-01-01\"", "\"infinity\"", "\"-infinity\"", "\"0044-03-15 BC\""]),
    case(
        "instant",
        "",
        "timestamptz(3)",
        ["\"2026-01-01T00:00:00Z\"", "\"infinity\"", "\"-infinity\"", "\"1970-01-01T00:00:00.001Z\""],
    ),
    case("span", "", "interval", ["\"1 day\"", "\"25 hours\"", "\"-1 mon\"", "\"0\""]),
    case("address", "", "inet", ["\"10.0.0.1/8\"", "\"::1\"", "\"10.0.0.0/8\"", "\"10.0.0.1\""]),
    case(
        "uuids",
        "",
        "uuid",
        [
            "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
            "\"00000000-0000-0000-0000-000000000000\"",
            "\"ffffffff-ffff-ffff-ffff-ffffffffffff\"",
            "\"00000000-0000-0000-0000-000000000001\"",
        ],
    ),
    case("document", "", "jsonb", ["{\"a\": 1}", "[]", "\"a\"", "7"]),
    case(
        "feeling",
        "create type mood as enum ('a', 'b', 'c', 'd')",
        "mood",
        ["\"a\"", "\"b\"", "\"c\"", "\"d\""],
    ),
    case("ranged", "", "int4range", ["\"[1,5)\"", "\"empty\"", "\"(,1)\"", "\"[7,8)\""]),
    case("ranges", "", "int4multirange", ["\"{[1,5)}\"", "\"{}\"", "\"{[1,2),[3,4)}\"", "\"{(,1)}\""]),
    case(
        "percent",
        "create domain percent as numeric(5, 2) check (value <= 100)",
        "percent",
        ["1", "2.5", "3", "100"],
    ),
    case(
        "pairs",
        "create type pair as (a integer, b text)",
        "pair",
        ["[1, \"x\"]", "[1, \"\"]", "[2, null]", "[null, null]"],
    ),
    case(
        "pairs_in_domain",
        "create type pair as (a integer, b text); create domain pair_of as pair",
        "pair_of",
        ["[1, \"x\"]", "[1, \"\"]", "[2, null]", "[3, \"y\"]"],
    ),
    case("numbers", "", "integer[]", ["[1, 2]", "[]", "[null]", "[[1, 2], [3, 4]]"]),
    case(
        "listed",
        "create domain list as text[]",
        "list",
        ["[\"a\"]", "[]", "[\"NULL\", null]", "[\"b\", \"\"]"],
    ),
    case("oids", "", "oid", ["1", "2", "3", "4294967295"]),
];

impl Case {
    fn put(&self, row: usize, values: &str) -> debshrew::change::Change {
        put("t", &format!("{{\"k\": {}{values}}}", self.keys[row]))
    }

    async fn check(&self, test: &TestDb) {
        let Case { name, before, key_type, .. } = self;
        let mut rig = Rig::up(
            test,
            name,
            &format!(
                "{before};
                 create table t (note text, k {key_type} primary key, b integer default 7);
                 create table pairs (k {key_type}, note text, id integer, primary key (id, k))"
            ),
        )
        .await;
        let both = |row: usize, id: u32| {
            put("pairs", &format!("{{\"k\": {}, \"id\": {id}, \"note\": \"{id}\"}}", self.keys[row]))
        };
        let gone = |row: usize| delete("t", &format!("{{\"k\": {}}}", self.keys[row]));
        let blocks = [
            vec![self.put(0, ", \"note\": \"0\", \"b\": 1"), self.put(1, ", \"note\": \"1\""), both(0, 1)],
            vec![self.put(0, ", \"note\": \"2\""), self.put(2, ""), both(0, 2), both(2, 1), both(0, 1)],
            vec![
                gone(0),
                self.put(0, ""),
                gone(1),
                self.put(3, ""),
                self.put(2, ", \"b\": null"),
                both(3, 1),
            ],
            vec![self.put(1, ""), gone(0), gone(3), both(3, 2)],
        ];
        let mut were = Vec::new();
        for (height, block) in (0..).zip(&blocks) {
            rig.commit(height, block.clone()).await;
            were.push(rig.everything().await);
        }
        for to in [2, 1, 0] {
            rig.roll_back(to).await.unwrap_or_else(|error| panic!("{name}: {error}: {error:?}"));
            assert_eq!(rig.everything().await, were[to as usize], "{name}");
        }
        for (height, block) in (1..).zip(&blocks[1..]) {
            rig.commit(height, block.clone()).await;
        }
        rig.roll_back(0).await.unwrap();
        assert_eq!(rig.everything().await, were[0], "{name}");
    }
}

#[tokio::test]
async fn rows_with_keys_of_any_type_are_rolled_back() {
    let test = database("keys").await;
    let sql = "select exists (select from pg_available_extensions where name = 'citext'), \
                      exists (select from pg_collation where collprovider = 'i')";
    let found = test.connect().await.query_one(sql, &[]).await.unwrap();
    let (citext, icu): (bool, bool) = (found.get(0), found.get(1));
    for case in CASES {
        // What a server was built without cannot be tried on it.
        if (case.name == "folded" && !citext) || (case.name == "loose" && !icu) {
            continue;
        }
        case.check(&test).await;
    }
}

#[tokio::test]
async fn a_row_takes_the_unique_value_that_a_row_before_it_gave_up() {
    let test = database("keys_unique").await;
    // What statistics say of a table must make no difference.
    for (rows, key) in
        [1, 2, 5, 20, 60, 200].into_iter().flat_map(|rows| [(rows, "integer"), (rows, "integer[]")])
    {
        let row = |id: u32, name: u32| {
            let id = if key == "integer" { id.to_string() } else { format!("[{id}]") };
            put("t", &format!("{{\"id\": {id}, \"name\": \"n{name}\", \"note\": null}}"))
        };
        let tables = format!("create table t (id {key} primary key, name text unique, note text)");
        let mut rig = Rig::up(&test, &format!("unique_{rows}_{}", key.len()), &tables).await;
        rig.commit(0, (1..=rows).map(|id| row(id, id)).collect()).await;
        rig.stop().await;
        rig.run("analyze t").await;
        let before = rig.everything().await;
        // From the last row to the first, and from there to a new one.
        let passed = (1..=rows).rev().map(|id| row(id, id + 1));
        rig.commit(1, passed.chain([row(rows + 1, 1)]).collect()).await;
        let after = rig.everything().await;
        assert_eq!(after.len() as u32, rows + 1);
        rig.roll_back(0).await.unwrap();
        assert_eq!(rig.everything().await, before);
    }
}

#[tokio::test]
async fn rows_are_looked_up_by_their_key_in_a_table_that_has_grown() {
    let test = database("keys_grown").await;
    for (name, key) in [("number", "integer"), ("words", "text"), ("exact", "numeric"), ("list", "integer[]")]
    {
        let mut rig = Rig::up(&test, name, &format!("create table t (k {key} primary key, n integer)")).await;
        let text = |k: u32| if name == "list" { format!("{{{k}}}") } else { k.to_string() };
        rig.commit(0, vec![put("t", &format!("{{\"k\": \"{}\", \"n\": 1}}", text(1)))]).await;
        rig.run("analyze t").await;
        let block = |n: u32| {
            let kept = (1..20).map(|k| put("t", &format!("{{\"k\": \"{}\", \"n\": {n}}}", text(k))));
            kept.chain([delete("t", &format!("{{\"k\": \"{}\"}}", text(10 * n)))]).collect()
        };
        rig.commit(1, block(2)).await;
        let text = if name == "list" { "array[k]" } else { "k" };
        rig.run(&format!("insert into t select {text}::text::{key}, 0 from generate_series(20, 5000) k"))
            .await;
        rig.commit(2, block(3)).await;
        rig.stop().await;
        let sql = "select idx_tup_fetch + seq_tup_read from pg_stat_user_tables where schemaname = $1 and relname = 't'";
        let read: i64 = rig.client.query_one(sql, &[&name]).await.unwrap().get(0);
        assert!(read < 200, "{name}: {read} rows were read");
    }
}
