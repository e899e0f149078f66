//! What is valid as plain SQL, one change after the other in the order in which they were emitted, is applied, comes
//! to the same, and is rolled back exactly.

use crate::exact::{Wrong, blocks_of, forth_and_back, plain::Plain};
use crate::support::{Journaling, Rig, database, whole};

struct Case {
    name: &'static str,
    sql: &'static str,
    blocks: &'static [&'static str],
}

const NAMES: &str = "create table names (id integer primary key, name text, note text); \
                     create unique index names_name_live on names (name) where name is not null";

const ABC: &str = r#"+names {"id": 1, "name": "a", "note": ""}
                     +names {"id": 2, "name": "b", "note": ""}
                     +names {"id": 3, "name": "c", "note": ""}"#;

const HANDED_ON: &str = r#"+names {"id": 3, "name": "d"}
                           +names {"id": 2, "name": "c", "note": "took c"}
                           +names {"id": 1, "name": "b"}"#;

const CASES: &[Case] = &[
    Case { name: "handed_on", sql: NAMES, blocks: &[ABC, HANDED_ON] },
    Case {
        name: "handed_on_with_the_same_columns",
        sql: NAMES,
        blocks: &[
            ABC,
            r#"+names {"id": 3, "name": "d"}
               +names {"id": 2, "name": "c"}
               +names {"id": 1, "name": "b"}"#,
        ],
    },
    Case {
        name: "guarded_by_a_trigger_with_an_error_of_its_own",
        sql: "create table t (id integer primary key, x integer, y text); \
              create function sums() returns trigger language plpgsql as $$ \
                declare much boolean; begin \
                execute format('select sum(x) > 10 from %I.t', tg_table_schema) into much; \
                if much then raise 'too much' using errcode = 'P0099'; end if; return null; end $$; \
              create trigger sums after insert or update on t for each row execute function sums()",
        blocks: &[
            r#"+t {"id": 1, "x": 9}
               +t {"id": 2, "x": 1}"#,
            r#"+t {"id": 1, "x": 0}
               +t {"id": 2, "x": 8, "y": "y"}
               +t {"id": 1, "x": 2}"#,
            r#"+t {"id": 1, "x": 1}
               +t {"id": 3, "x": 1}"#,
        ],
    },
    Case {
        name: "handed_on_deferrably",
        sql: "create table names (id integer primary key, name text, note text, unique (name) deferrable)",
        blocks: &[ABC, HANDED_ON],
    },
    Case {
        name: "handed_on_and_back",
        sql: NAMES,
        blocks: &[
            ABC,
            r#"+names {"id": 1, "name": "z"}
               +names {"id": 2, "name": "a", "note": "n"}
               +names {"id": 1, "name": "b"}"#,
        ],
    },
    Case {
        name: "handed_on_by_way_of_another",
        sql: NAMES,
        blocks: &[
            ABC,
            r#"+names {"id": 1, "name": "9"}
               +names {"id": 2, "name": "a"}
               +names {"id": 1, "name": "b"}"#,
        ],
    },
    Case {
        name: "handed_on_by_way_of_null",
        sql: NAMES,
        blocks: &[
            ABC,
            r#"+names {"id": 1, "name": null}
               +names {"id": 2, "name": "a"}
               +names {"id": 3, "name": "b"}
               +names {"id": 1, "name": "c"}"#,
        ],
    },
    Case {
        name: "handed_on_by_a_row_that_went",
        sql: NAMES,
        blocks: &[
            ABC,
            r#"+names {"id": 4, "name": "d"}
               -names {"id": 1}
               +names {"id": 4, "name": "a"}
               +names {"id": 1, "name": "d", "note": "again"}"#,
        ],
    },
    Case {
        name: "handed_to_a_row_that_goes",
        sql: NAMES,
        blocks: &[
            ABC,
            r#"+names {"id": 1, "name": "z"}
               +names {"id": 4, "name": "a"}
               -names {"id": 4}
               +names {"id": 2, "name": "a"}
               +names {"id": 3, "name": "b", "note": "n"}"#,
        ],
    },
    Case {
        name: "two_uniques",
        sql: "create table names (id integer primary key, name text unique, note text unique)",
        blocks: &[
            r#"+names {"id": 1, "name": "a", "note": "x"}
               +names {"id": 2, "name": "b", "note": "y"}"#,
            r#"+names {"id": 1, "name": "c"}
               +names {"id": 2, "name": "a", "note": "z"}
               +names {"id": 1, "note": "y"}
               +names {"id": 3, "name": "b", "note": "x"}"#,
        ],
    },
    Case {
        name: "ranges",
        sql: "create table t (id integer primary key, r int4range, note text, exclude using gist (r with &&))",
        blocks: &[
            r#"+t {"id": 1, "r": "[1,5)"}
               +t {"id": 2, "r": "[5,9)"}"#,
            r#"+t {"id": 1, "r": "[20,25)"}
               +t {"id": 2, "r": "[1,6)", "note": "took"}
               +t {"id": 1, "r": "[6,9)"}"#,
        ],
    },
    Case {
        name: "refers_to_a_row_made_before",
        sql: "create table t (id integer primary key, up integer references t, note text)",
        blocks: &[
            r#"+t {"id": 1}"#,
            r#"+t {"id": 5, "up": 1}
               +t {"id": 6, "note": "n"}
               +t {"id": 4, "up": 6}
               +t {"id": 7, "note": "n", "up": 4}"#,
            r#"+t {"id": 5, "up": 7}
               +t {"id": 4, "up": 1}
               -t {"id": 6}
               +t {"id": 7, "up": null}
               +t {"id": 8, "up": 5, "note": "n"}
               +t {"id": 7, "up": 8}"#,
        ],
    },
    Case {
        name: "refers_in_a_circle_of_tables",
        sql: "create table a (id integer primary key, b integer); \
              create table b (id integer primary key, a integer references a); \
              alter table a add foreign key (b) references b",
        blocks: &[
            r#"+a {"id": 1}
               +b {"id": 1, "a": 1}
               +a {"id": 2, "b": 1}
               +b {"id": 2, "a": 2}
               +a {"id": 3, "b": 2}"#,
            r#"+a {"id": 3, "b": null}
               -b {"id": 2}
               +b {"id": 3, "a": 3}
               +a {"id": 2, "b": 3}
               +b {"id": 1, "a": 2}
               -a {"id": 1}"#,
        ],
    },
    Case {
        name: "let_go_and_taken",
        sql: "create table p (id integer primary key, x text); \
              create table c (id integer primary key, p integer not null references p, x text)",
        blocks: &[
            r#"+p {"id": 1}
               +p {"id": 2}
               +c {"id": 1, "p": 1}"#,
            r#"-c {"id": 1}
               -p {"id": 1}
               +p {"id": 1, "x": "again"}
               +c {"id": 1, "p": 1}
               +c {"id": 2, "p": 2, "x": "x"}
               +c {"id": 2, "p": 1}
               -p {"id": 2}"#,
        ],
    },
    Case {
        name: "a_value_that_is_wrong_only_meanwhile",
        sql: "create table t (id integer primary key, a integer not null default 0, b integer not null default 0, \
                              constraint ordered check (a <= b))",
        blocks: &[
            r#"+t {"id": 1, "a": 1, "b": 2}"#,
            r#"+t {"id": 1, "b": 5}
               +t {"id": 1, "a": 4}
               +t {"id": 2, "b": 7}
               +t {"id": 2, "a": 6}"#,
        ],
    },
    Case {
        name: "upper_case_names",
        sql: "create table \"T\" (\"Id\" integer primary key, \"Name\" text unique, \"Note\" text)",
        blocks: &[
            r#"+T {"Id": 1, "Name": "a"}
               +T {"Id": 2, "Name": "b"}"#,
            r#"+T {"Id": 1, "Name": "c"}
               +T {"Id": 2, "Name": "a", "Note": "n"}
               +T {"Id": 1, "Name": "b"}"#,
        ],
    },
];

#[tokio::test]
async fn what_is_valid_one_by_one_is_applied_and_rolled_back() {
    let test = database("exact_order").await;
    let mut wrong = Wrong::default();
    for case in CASES {
        let name = case.name;
        let plain = Plain::up(&test, &format!("{name}_plain"), case.sql).await;
        let mut rig = Rig::up(&test, name, case.sql).await;
        let mut skipped = Rig::up(&test, &format!("{name}_skipped"), case.sql).await;
        for (height, block) in (0..).zip(blocks_of(case.blocks)) {
            plain.apply(&block).await.unwrap_or_else(|error| panic!("{name}: plainly: {error}"));
            let expected = plain.everything().await;
            for (rig, journaling) in [(&mut rig, Journaling::Kept), (&mut skipped, Journaling::Skipped)] {
                match rig.try_commit_with(height, block.clone(), journaling).await {
                    Err(error) => wrong.0.push(format!("{name} {journaling:?} {height}: {}", whole(&error))),
                    Ok(()) if rig.everything().await != expected => {
                        wrong.0.push(format!("{name} {journaling:?} {height}: {:?}", rig.everything().await));
                    }
                    Ok(()) => {}
                }
            }
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn what_was_applied_one_by_one_is_rolled_back_exactly() {
    let test = database("exact_order_back").await;
    let mut wrong = Wrong::default();
    for case in CASES {
        let mut rig = Rig::up(&test, case.name, case.sql).await;
        wrong.note(case.name, forth_and_back(&mut rig, case.blocks).await);
    }
    wrong.settle();
}
