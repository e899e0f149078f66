//! Random edits of the tables in tests/zoo, each as a transform would emit it and as plain SQL.

use debshrew::change::{Change, Operation, Value};
use proptest::prelude::*;
use proptest::sample::select;

/// One change: its table, the key's columns and the others, each with a value in both notations.
#[derive(Clone, Debug)]
pub struct Edit {
    table: &'static str,
    key: Vec<(&'static str, Cell)>,
    /// `None` deletes the row.
    values: Option<Vec<(&'static str, Cell)>>,
}

/// A value as JSON, and the same as SQL, written by hand.
#[derive(Clone, Debug)]
pub struct Cell {
    pub json: String,
    pub sql: String,
}

pub fn cell(json: &str, sql: &str) -> Cell {
    Cell { json: json.into(), sql: sql.into() }
}

impl Cell {
    fn value(&self) -> Value {
        Value::from_raw(&serde_json::value::RawValue::from_string(self.json.clone()).unwrap())
    }
}

fn identifier(name: &str) -> String {
    format!("\"{name}\"")
}

impl Edit {
    pub fn new(
        table: &'static str,
        key: Vec<(&'static str, Cell)>,
        values: Option<Vec<(&'static str, Cell)>>,
    ) -> Edit {
        Edit { table, key, values }
    }

    pub fn change(&self) -> Change {
        let values = self.values.iter().flatten();
        let columns = self.key.iter().chain(values).map(|(name, cell)| (*name, cell.value())).collect();
        let operation = if self.values.is_some() { Operation::Upsert } else { Operation::Delete };
        Change::new(self.table, operation, None, columns)
    }

    /// Plain SQL: update the row, insert it when there is none.
    pub fn sql(&self) -> String {
        let table = format!("zoo.{}", identifier(self.table));
        let same: Vec<String> =
            self.key.iter().map(|(name, cell)| format!("{} = {}", identifier(name), cell.sql)).collect();
        let same = same.join(" and ");
        let Some(values) = &self.values else { return format!("delete from {table} where {same};\n") };
        let sets: Vec<String> =
            values.iter().map(|(name, cell)| format!("{} = {}", identifier(name), cell.sql)).collect();
        let update = if sets.is_empty() {
            String::new()
        } else {
            format!("update {table} set {} where {same};\n", sets.join(", "))
        };
        let all = || self.key.iter().chain(values);
        let names: Vec<String> = all().map(|(name, _)| identifier(name)).collect();
        let cells: Vec<&str> = all().map(|(_, cell)| cell.sql.as_str()).collect();
        format!(
            "{update}insert into {table} ({}) select {} where not exists (select from {table} where {same});\n",
            names.join(", "),
            cells.join(", ")
        )
    }
}

/// Values of one column.
pub type Choice = (&'static str, &'static [(&'static str, &'static str)]);

const NULL: (&str, &str) = ("null", "null");

/// The columns of the table `kinds`.
pub const KINDS: &[Choice] = &[
    ("small", &[("-32768", "'-32768'::smallint"), NULL]),
    ("medium", &[("0", "0"), ("\"12\"", "12"), ("2147483647", "2147483647")]),
    ("large", &[("-4611686018427387904", "'-4611686018427387904'::bigint"), ("1", "1"), NULL]),
    (
        "exact",
        &[
            ("18446744073709551617.100", "18446744073709551617.100"),
            ("\"NaN\"", "'NaN'"),
            ("1e-30", "1e-30"),
            ("-0.0", "-0.0"),
            NULL,
        ],
    ),
    ("scaled", &[("1.005", "1.005"), ("\"99999999.99\"", "99999999.99")]),
    ("single", &[("0.1", "'0.1'::real"), ("\"-Infinity\"", "'-infinity'")]),
    (
        "double",
        &[("0.1", "'0.1'::float8"), ("\"NaN\"", "'nan'"), ("-0.0", "'-0'::float8"), ("1e308", "1e308")],
    ),
    ("yes", &[("true", "true"), ("\"f\"", "false"), NULL]),
    ("short", &[("\"ä\\\"'\\\\\"", "'ä\"''\\'"), ("\"\"", "''"), ("12", "'12'")]),
    ("padded", &[("\"ab\"", "'ab'"), NULL]),
    ("bytes", &[("\"\\\\x00ff\"", "'\\x00ff'"), ("\"\"", "''")]),
    ("day", &[("\"2026-02-28\"", "'2026-02-28'"), ("\"infinity\"", "'infinity'")]),
    ("clock", &[("\"23:59:59.999999\"", "'23:59:59.999999'")]),
    ("clock_zone", &[("\"01:02:03+05\"", "'01:02:03+05'")]),
    ("moment", &[("\"2000-01-01 00:00:00.000001\"", "'2000-01-01 00:00:00.000001'")]),
    ("instant", &[("\"2000-01-01T00:00:00Z\"", "'2000-01-01T00:00:00Z'"), ("\"-infinity\"", "'-infinity'")]),
    ("span", &[("\"1 year 2 months -3 days 04:05:06\"", "'1 year 2 months -3 days 04:05:06'")]),
    ("id", &[("\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'")]),
    (
        "document",
        &[("{\"a\": [1.50, null]}", "'{\"a\": [1.50, null]}'"), ("\"text\"", "'\"text\"'"), ("7", "'7'")],
    ),
    (
        "binary_document",
        &[("{\"b\":null,\"a\":1.50}", "'{\"b\":null,\"a\":1.50}'"), ("[null]", "'[null]'"), NULL],
    ),
    ("address", &[("\"10.0.0.1/8\"", "'10.0.0.1/8'"), ("\"::1\"", "'::1'")]),
    ("network", &[("\"10.0.0.0/8\"", "'10.0.0.0/8'")]),
    ("numbers", &[("[1,null,-3]", "'{1,NULL,-3}'"), ("[]", "'{}'"), ("[[1,2],[3,4]]", "'{{1,2},{3,4}}'")]),
    ("words", &[("[\"a,b\",\"\",null,\"NULL\",\"\\\"\\\\\"]", "array['a,b', '', null, 'NULL', '\"\\']")]),
    ("documents", &[("[{\"a\":[1]},null,\"x\"]", "array['{\"a\":[1]}', null, '\"x\"']::jsonb[]")]),
    ("feeling", &[("\"happy\"", "'happy'"), ("\"sad\"", "'sad'"), NULL]),
    ("share", &[("12.345", "12.345"), ("\"100\"", "100")]),
    (
        "both_of",
        &[
            ("{\"a\":1,\"b\":\"x,)\\\"\"}", "row(1, 'x,)\"')::zoo.pair"),
            ("[null,\"\"]", "row(null, '')::zoo.pair"),
            NULL,
        ],
    ),
    ("range", &[("\"[1,5]\"", "'[1,5]'"), ("\"empty\"", "'empty'")]),
    ("ranges", &[("\"{[1,2),[5,9)}\"", "'{[1,2),[5,9)}'")]),
    ("place", &[("\"(1.5,-2)\"", "'(1.5,-2)'")]),
    ("bits", &[("\"0101\"", "'0101'")]),
    ("more_bits", &[("\"1\"", "'1'"), ("\"\"", "''")]),
    ("search", &[("\"'a':1 'b':2\"", "$$'a':1 'b':2$$")]),
];

fn one_of(choice: &'static Choice) -> impl Strategy<Value = (&'static str, Cell)> {
    select(choice.1).prop_map(|(json, sql)| (choice.0, cell(json, sql)))
}

fn some_of(choices: &'static [Choice]) -> impl Strategy<Value = Vec<(&'static str, Cell)>> {
    proptest::sample::subsequence((0..choices.len()).collect::<Vec<_>>(), 0..=choices.len()).prop_flat_map(
        move |columns| columns.into_iter().map(|column| one_of(&choices[column])).collect::<Vec<_>>(),
    )
}

fn with(
    table: &'static str,
    key: impl Strategy<Value = Vec<(&'static str, Cell)>> + 'static,
    values: impl Strategy<Value = Vec<(&'static str, Cell)>> + 'static,
) -> BoxedStrategy<Edit> {
    let values = prop_oneof![3 => values.prop_map(Some), 1 => Just(None)];
    (key, values).prop_map(move |(key, values)| Edit { table, key, values }).boxed()
}

fn integer_key(name: &'static str) -> impl Strategy<Value = Vec<(&'static str, Cell)>> {
    (1..9).prop_map(move |key: i32| vec![(name, cell(&key.to_string(), &key.to_string()))])
}

const NOTE: &[Choice] = &[("note", &[("\"x\"", "'x'"), ("\"y\"", "'y'"), NULL])];
const MIXED: &[Choice] = &[("Value", &[("\"v\"", "'v'"), NULL])];
const PARENT_NOTE: &[Choice] = &[("note", &[("\"p\"", "'p'"), NULL])];

pub fn edit() -> impl Strategy<Value = Edit> {
    let text_key = select(&["k1", "K1", "ü \\ ' \" {", ""][..]).prop_map(|key| {
        vec![("key", cell(&serde_json::to_string(key).unwrap(), &format!("'{}'", key.replace('\'', "''"))))]
    });
    let mixed_key = (1..3, select(&["x", "y"][..])).prop_map(|(a, b): (i32, &str)| {
        vec![
            ("a", cell(&a.to_string(), &a.to_string())),
            ("B c", cell(&format!("\"{b}\""), &format!("'{b}'"))),
        ]
    });
    // A row that may have to be inserted needs its `not null` column.
    let mixed = (some_of(MIXED), 0..5).prop_map(|(mut values, number): (Vec<_>, i32)| {
        values.push(("number", cell(&number.to_string(), &number.to_string())));
        values
    });
    let amount =
        select(&["1.0", "1.00", "1", "2", "-0.5"][..]).prop_map(|text| vec![("amount", cell(text, text))]);
    let names = integer_key("id").prop_flat_map(|key| {
        // A name that is the row's own: rows that take one another's names in a block depend on the order.
        let own = format!("n{}", key[0].1.sql);
        (Just(key), some_of(NOTE), any::<bool>()).prop_map(move |(key, mut values, named)| {
            if named {
                values.push(("name", cell(&format!("\"{own}\""), &format!("'{own}'"))));
            }
            (key, values)
        })
    });
    let unique = (names, 0..4).prop_map(|((key, values), gone)| Edit {
        table: "unique_values",
        key,
        values: (gone > 0).then_some(values),
    });
    let keys_alone = (select(&["a", "b"][..]), select(&["\\x00", "\\xff"][..])).prop_map(|(a, b)| {
        vec![
            ("a", cell(&format!("\"{a}\""), &format!("'{a}'"))),
            ("b", cell(&serde_json::to_string(b).unwrap(), &format!("'{b}'"))),
        ]
    });
    // Parents are never deleted, since a child may need them; children have a parent that always exists first.
    prop_oneof![
        4 => with("kinds", text_key, some_of(KINDS)),
        1 => with("Mixed Case", mixed_key, mixed),
        1 => with("equal_not_identical", amount, some_of(NOTE)),
        1 => unique,
        1 => with("parts", integer_key("id"), some_of(NOTE)),
        1 => with("keys_alone", keys_alone, Just(Vec::new())),
        1 => (integer_key("id"), some_of(PARENT_NOTE))
            .prop_map(|(key, values)| Edit { table: "parents", key, values: Some(values) }),
    ]
}
