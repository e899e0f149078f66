//! Random schemas and changes of their rows, each as a transform would emit it and as plain SQL.

use debshrew::change::Change;
use debshrew::db::quote;

use crate::exact::plain;
use crate::support::{delete, put};
use crate::zoo::{Cell, KINDS, cell};

/// What the schemas use and is not theirs.
pub const OUTSIDE: &str = "
create schema elsewhere;
create table elsewhere.lookup (id integer primary key);
insert into elsewhere.lookup values (1), (2), (3);
create table elsewhere.log (what text);
create schema zoo;
create type zoo.mood as enum ('sad', 'ok', 'happy');
create type zoo.pair as (a integer, b text);
create domain zoo.percent as numeric(5, 2) check (value >= 0 and value <= 100);
";

/// The table with a column of every type.
const ZOO: &str = include_str!("../zoo/V1__zoo.sql");

/// Numbers that are the same for the same seed: SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// Values in JSON and in SQL.
type Values = &'static [(&'static str, &'static str)];

/// Keys of one column: type and values.
const KEYS: &[(&str, Values)] = &[
    ("integer", &[("1", "1"), ("2", "2"), ("\"3\"", "3"), ("-4", "-4")]),
    ("text", &[("\"a\"", "'a'"), ("\"b\"", "'b'"), ("\"C, \\\"\"", "'C, \"'"), ("\"\"", "''")]),
    ("numeric", &[("1.0", "1.0"), ("1.00", "1.00"), ("2", "2"), ("\"NaN\"", "'NaN'"), ("2.50", "2.50")]),
    (
        "uuid",
        &[
            ("\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
            ("\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
            ("\"00000000-0000-0000-0000-000000000000\"", "'00000000-0000-0000-0000-000000000000'"),
        ],
    ),
    ("bytea", &[("\"\\\\x00\"", "'\\x00'"), ("\"\\\\xFF\"", "'\\xff'"), ("\"\"", "''")]),
    ("date", &[("\"2026-01-01\"", "'2026-01-01'"), ("\"infinity\"", "'infinity'"), ("\"epoch\"", "'epoch'")]),
    (
        "timestamptz",
        &[
            ("\"2026-01-01T00:00:00Z\"", "'2026-01-01 00:00:00+00'"),
            ("\"2026-01-01T01:00:00+01\"", "'2026-01-01 00:00:00+00'"),
            ("\"-infinity\"", "'-infinity'"),
        ],
    ),
    ("inet", &[("\"10.0.0.1/8\"", "'10.0.0.1/8'"), ("\"10.0.0.1\"", "'10.0.0.1'"), ("\"::1\"", "'::1'")]),
];

const SMALL: Values = &[("1", "1"), ("2", "2"), ("3", "3"), ("null", "null")];
const NOTES: Values = &[("\"x\"", "'x'"), ("\"no\"", "'no'"), ("\"kept\"", "'kept'"), ("null", "null")];
const RANGES: Values =
    &[("\"[1,3)\"", "'[1,3)'"), ("\"[2,5)\"", "'[2,5)'"), ("\"[5,9)\"", "'[5,9)'"), ("null", "null")];

/// A function that depends on what is in a table meanwhile.
const LOOKS: &str = "create function looks() returns bigint language plpgsql set search_path from current as \
                       $$ begin return (select count(*) from t0); end $$;\n";

/// When a trigger fires, and what its function does.
const TRIGGERS: &[(&str, &str)] = &[
    ("before insert or update on T for each row", "new.note := 'fired'; return new;"),
    ("before insert or update on T for each row", "new.version := coalesce(old.version, 0) + 1; return new;"),
    ("before update on T for each row", "new.version := coalesce(old.version, 0) + 1; return new;"),
    ("before insert on T for each row", "new.version := 7; return new;"),
    ("before insert or update on T for each row", "new.note := upper(new.note); return new;"),
    (
        "before update on T for each row when (new.note is distinct from old.note)",
        "new.version := coalesce(new.version, 0) + 1; return new;",
    ),
    ("before insert or update on T for each row when (new.note = 'no')", "return null;"),
    ("before update on T for each row when (new.note = 'no')", "return null;"),
    ("before delete on T for each row when (old.note = 'kept')", "return null;"),
    ("before insert or update on T for each row", "select count(*) from t0 into new.version; return new;"),
    ("before insert on T for each row when (looks() > 1)", "new.version := 2; return new;"),
    (
        "after insert or update on T for each row",
        "if (select count(version) from t0) > 3 then raise exception 'many'; end if; return null;",
    ),
    (
        "after insert or update or delete on T for each row",
        "insert into elsewhere.log values (tg_op); return null;",
    ),
    (
        "after insert or update or delete on T for each statement",
        "insert into elsewhere.log values (tg_op); return null;",
    ),
];

struct Column {
    name: String,
    declared: String,
    values: Vec<Cell>,
}

struct Table {
    name: String,
    key: Vec<Column>,
    columns: Vec<Column>,
    key_deferrable: bool,
    generated: bool,
}

pub struct Schema {
    tables: Vec<Table>,
    pub sql: String,
}

fn cells(values: Values) -> Vec<Cell> {
    values.iter().map(|(json, sql)| cell(json, sql)).collect()
}

fn column(name: &str, declared: &str, values: Values) -> Column {
    Column { name: name.into(), declared: declared.into(), values: cells(values) }
}

/// A column of the zoo's, with its type as it is declared there.
fn of_the_zoo(random: &mut Random) -> Column {
    let (name, values) = random.one(KINDS);
    let line = ZOO.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(' '));
    let mut declared = line.unwrap().trim_end_matches(',').to_owned();
    for own in ["mood", "pair", "percent"] {
        if declared == own {
            declared = format!("zoo.{own}");
        }
    }
    Column { name: (*name).into(), declared, values: cells(values) }
}

impl Table {
    fn random(random: &mut Random, number: usize) -> Table {
        let key = match random.chance(6) {
            true => vec![
                column("Key a", "integer", &[("1", "1"), ("2", "2")]),
                column("kb", "varchar(3)", &[("\"x\"", "'x'"), ("\"y\"", "'y'")]),
            ],
            false => {
                let (declared, values) = random.one(KEYS);
                vec![column("id", declared, values)]
            }
        };
        let mut columns = vec![
            column("note", "text", NOTES),
            column("version", "integer default 0", SMALL),
            column("u", "integer", SMALL),
        ];
        if random.chance(3) {
            columns.push(column("r", "int4range", RANGES));
        }
        if random.chance(3) {
            columns.push(column(
                "outer",
                "integer references elsewhere.lookup",
                &[("1", "1"), ("3", "3"), ("4", "4")],
            ));
        }
        if random.chance(4) {
            columns.push(column(
                "n",
                "integer not null default 1 check (n > 0)",
                &[("1", "1"), ("2", "2"), ("0", "0")],
            ));
        }
        if random.chance(3) {
            columns.push(column("seen", "integer default looks()", SMALL));
        }
        for _ in 0..random.below(4) {
            let new = of_the_zoo(random);
            if columns.iter().chain(&key).all(|column| column.name != new.name) {
                columns.push(new);
            }
        }
        Table {
            name: format!("t{number}"),
            key,
            columns,
            key_deferrable: random.chance(6),
            generated: random.chance(4),
        }
    }

    fn sql(&self, random: &mut Random) -> String {
        let key: Vec<String> = self.key.iter().map(|column| quote(&column.name)).collect();
        let late = if self.key_deferrable { " deferrable" } else { "" };
        let mut parts: Vec<String> = self
            .key
            .iter()
            .chain(&self.columns)
            .map(|column| format!("{} {}", quote(&column.name), column.declared))
            .collect();
        parts.push(format!("primary key ({}){late}", key.join(", ")));
        if self.generated {
            parts.push("twice text generated always as (note || note) stored".into());
        }
        if self.columns.iter().any(|column| column.name == "r") {
            parts.push(format!("exclude using gist (r with &&){}", random.one(&["", " deferrable"])));
        }
        let name = &self.name;
        let mut behind = String::new();
        match random.below(5) {
            0 => parts.push("unique (u)".into()),
            1 => parts.push("unique (u) deferrable".into()),
            2 => behind = format!("create unique index on {name} (u) where u < 3;\n"),
            _ => {}
        }
        format!("create table {name} ({});\n{behind}", parts.join(", "))
    }

    fn trigger(&self, random: &mut Random, number: usize) -> String {
        let (when, body) = random.one(TRIGGERS);
        let name = &self.name;
        let when = when.replace('T', name);
        format!(
            "create function fire_{name}_{number}() returns trigger language plpgsql set search_path from current as \
               $$ begin {body} end $$;\n\
             create trigger fires_{number} {when} execute function fire_{name}_{number}();\n"
        )
    }
}

impl Schema {
    pub fn random(random: &mut Random) -> Schema {
        let count = 1 + random.below(3);
        let mut tables: Vec<Table> = (0..count).map(|number| Table::random(random, number)).collect();
        let mut sql = LOOKS.to_owned();
        sql.extend(tables.iter().map(|table| table.sql(random)));
        for child in 0..count {
            let parent = random.below(count);
            let [key] = &*tables[parent].key else { continue };
            // Such a key cannot be referred to.
            if tables[parent].key_deferrable || random.chance(2) {
                continue;
            }
            let (declared, mut values) = (key.declared.clone(), key.values.clone());
            values.push(cell("null", "null"));
            let late =
                random.one(&["", "", " deferrable", " on delete restrict", " deferrable initially deferred"]);
            sql.push_str(&format!(
                "alter table t{child} add up {} references t{parent}{late};\n{}",
                declared,
                if random.chance(2) { format!("create index on t{child} (up);\n") } else { String::new() }
            ));
            tables[child].columns.push(Column { name: "up".into(), declared, values });
        }
        for table in &tables {
            for number in 0..[0, 0, 1, 2][random.below(4)] {
                sql.push_str(&table.trigger(random, number));
            }
        }
        Schema { tables, sql }
    }

    /// Changes of few rows, so that many meet; most set one of a few sets of columns.
    pub fn block(&self, random: &mut Random) -> Vec<Edit> {
        (0..random.below(9)).map(|_| self.edit(random)).collect()
    }

    fn edit(&self, random: &mut Random) -> Edit {
        let table = random.below(self.tables.len());
        let Table { key, columns, .. } = &self.tables[table];
        let value =
            |column: &Column, random: &mut Random| (column.name.clone(), random.one(&column.values).clone());
        let key = key.iter().map(|column| value(column, random)).collect();
        let values = (!random.chance(4)).then(|| {
            let few = random.chance(2);
            let chosen =
                columns.iter().filter(|_| !random.chance(if few { 2 } else { 5 })).collect::<Vec<_>>();
            chosen.into_iter().map(|column| value(column, random)).collect()
        });
        Edit { table, key, values }
    }

    /// Keeps the tables' rows as they are now, in the oracle's schema.
    pub fn snapshot(&self, plain: &str, height: u32) -> String {
        let copies = self.tables.iter().map(|Table { name, .. }| {
            let to = format!("{plain}_kept.h{height}_{name}");
            format!("drop table if exists {to}; create table {to} as table {plain}.{name};\n")
        });
        copies.collect()
    }

    /// Where a snapshot's rows are.
    pub fn of_snapshot(&self, plain: &str, height: u32) -> String {
        format!("{plain}_kept.h{height}_")
    }

    /// Makes the rows of one schema those of another.
    pub fn restore(&self, to: &str, from: &str) -> String {
        self.restore_from(to, &format!("{from}."))
    }

    pub fn restore_from(&self, to: &str, from: &str) -> String {
        let names: Vec<String> = self.tables.iter().map(|table| format!("{to}.{}", table.name)).collect();
        let mut sql = format!("set session_replication_role = replica;\ntruncate {};\n", names.join(", "));
        for Table { name, key, columns, .. } in &self.tables {
            let columns: Vec<String> = key.iter().chain(columns).map(|column| quote(&column.name)).collect();
            let columns = columns.join(", ");
            sql.push_str(&format!(
                "insert into {to}.{name} ({columns}) select {columns} from {from}{name};\n"
            ));
        }
        sql + "set session_replication_role = origin"
    }
}

/// One change: its table, the key's columns and the others. `None` deletes the row.
#[derive(Clone)]
pub struct Edit {
    table: usize,
    key: Vec<(String, Cell)>,
    values: Option<Vec<(String, Cell)>>,
}

impl Edit {
    fn row(&self) -> String {
        let all = self.key.iter().chain(self.values.iter().flatten());
        let fields: Vec<String> = all.map(|(name, cell)| format!("{name:?}: {}", cell.json)).collect();
        format!("{{{}}}", fields.join(", "))
    }

    pub fn line(&self, schema: &Schema) -> String {
        let sign = if self.values.is_some() { '+' } else { '-' };
        format!("{sign}{} {}", schema.tables[self.table].name, self.row())
    }

    pub fn change(&self, schema: &Schema) -> Change {
        let kind = if self.values.is_some() { put } else { delete };
        kind(&schema.tables[self.table].name, &self.row())
    }

    pub fn sql(&self, schema: &Schema, plain: &str) -> String {
        let table = format!("{plain}.{}", schema.tables[self.table].name);
        let set = |(name, cell): &(String, Cell)| format!("{} = {}", quote(name), cell.sql);
        let same: Vec<String> = self.key.iter().map(set).collect();
        let same = same.join(" and ");
        let Some(values) = &self.values else { return format!("delete from {table} where {same};\n") };
        let all = || self.key.iter().chain(values);
        let names: Vec<String> = all().map(|(name, _)| quote(name)).collect();
        let cells: Vec<&str> = all().map(|(_, cell)| &*cell.sql).collect();
        let sets: Vec<String> = values.iter().map(set).collect();
        plain::put(&table, &same, &sets.join(", "), &names.join(", "), &cells.join(", "))
    }
}
