//! Which tables cannot be replicated, each with its reason, and which unusual ones can: their rows are written and
//! rolled back like any other's.

use debshrew::pipeline::{PipelineError, Writer};
use debshrew::register::Cause;

use crate::support::{Rig, changes, connect_as, database, put};

/// Name, SQL that makes the table `t` and whatever else, and a part of the reason.
const REFUSED: &[(&str, &str, &str)] = &[
    ("no_key", "create table t (id integer)", "it has no primary key"),
    ("unlogged", "create unlogged table t (id integer primary key)", "it is unlogged"),
    (
        "unlogged_part",
        "create table t (id integer primary key) partition by range (id); \
         create unlogged table p partition of t for values from (1) to (9)",
        "it is unlogged",
    ),
    (
        "cascade",
        "create table p (id integer primary key); \
         create table t (id integer primary key, p integer references p on delete cascade)",
        "its foreign key `t_p_fkey` says `cascade`",
    ),
    (
        "cascade_outside",
        "create schema elsewhere; create table elsewhere.p (id integer primary key); \
         create table t (id integer primary key, p integer references elsewhere.p on delete cascade)",
        "its foreign key `t_p_fkey` says `cascade`",
    ),
    (
        "set_null",
        "create table p (id integer primary key); \
         create table t (id integer primary key, p integer references p on delete set null)",
        "its foreign key `t_p_fkey` says `set null`",
    ),
    (
        "set_default",
        "create table p (id integer primary key); \
         create table t (id integer primary key, p integer default 1 references p on update set default)",
        "its foreign key `t_p_fkey` says `set default`",
    ),
    (
        "trigger",
        "create table p (id integer primary key); create table t (id integer primary key); \
         create function count_it() returns trigger language plpgsql as \
           $$ begin insert into p values (new.id); return new; end $$; \
         create trigger counts after insert on t for each row execute function count_it()",
        "its trigger `counts` seems to write to `p`",
    ),
    (
        "part_trigger",
        "create table p (id integer primary key); \
         create table t (id integer primary key) partition by range (id); \
         create table low partition of t for values from (1) to (9); \
         create function count_it() returns trigger language plpgsql as \
           $$ begin insert into p values (new.id); return new; end $$; \
         create trigger counts after insert on low for each row execute function count_it()",
        "its trigger `counts` seems to write to `p`",
    ),
    (
        "rule",
        "create table t (id integer primary key); create rule no_deletes as on delete to t do instead nothing",
        "it has rewrite rules",
    ),
    (
        "inheritance",
        "create table p (id integer primary key); create table t (primary key (id)) inherits (p)",
        "it takes part in table inheritance",
    ),
    (
        "inherited",
        "create table t (id integer primary key); create table p (primary key (id)) inherits (t)",
        "it takes part in table inheritance",
    ),
    (
        "generated_key",
        "create table t (a integer, id integer generated always as (a + 1) stored primary key)",
        "its primary key has a generated column",
    ),
    (
        "not_deferrable_afresh",
        "create table p (id integer primary key, name text unique); \
         create table t (id integer primary key, p integer references p)",
        "its foreign key `t_p_fkey` is not deferrable, and `p` must be rolled back by deleting and inserting",
    ),
    (
        "journal_column",
        "create table t (id integer primary key, undo_height integer)",
        "its column `undo_height` has a name that the journal needs",
    ),
];

#[tokio::test]
async fn what_cannot_be_journaled_is_refused_with_the_reason() {
    let test = database("refusals").await;
    for (name, sql, reason) in REFUSED {
        let mut rig = Rig::up(&test, name, "create table good (id integer primary key)").await;
        let report = rig.migrate(sql).await.unwrap_or_else(|error| panic!("{name}: {error}: {error:?}"));
        let said = report.pipelines[0].refused.get("t").unwrap_or_else(|| panic!("{name} was not refused"));
        assert!(said.contains(reason), "{name}: {said}");
        let error = rig.try_commit(0, vec![put("t", r#"{"id": 1}"#)]).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert!(matches!(error, PipelineError::Table(_)), "{name}: {error:?}");
        rig.commit(0, vec![put("good", r#"{"id": 1}"#)]).await;
    }
}

#[tokio::test]
async fn names_that_debshrew_uses_are_refused() {
    let test = database("refusals_names").await;
    let mut rig = Rig::up(&test, "names", "create table good (id integer primary key)").await;
    for name in ["debshrew_state", "debshrew_state_journal"] {
        let report = rig.migrate(&format!("create table {name} (id integer primary key)")).await.unwrap();
        assert!(report.pipelines[0].refused[name].contains("rename it"));
    }
}

#[tokio::test]
async fn row_level_security_that_hides_rows_is_refused() {
    let test = database("refusals_security").await;
    let sql = "create table t (id integer primary key); alter table t enable row level security;";
    let mut rig = Rig::up(&test, "security", sql).await;
    // Superusers see all rows, so nothing is hidden from this one.
    rig.commit(0, vec![put("t", r#"{"id": 1}"#)]).await;
    rig.stop().await;
    rig.client
        .batch_execute(
            "drop role if exists debshrew_test_seen; create role debshrew_test_seen login; \
             grant all on schema security, debshrew, debshrew_security to debshrew_test_seen; \
             grant all on all tables in schema security, debshrew, debshrew_security to debshrew_test_seen",
        )
        .await
        .unwrap();
    let db = connect_as(&test.as_role("debshrew_test_seen"));
    let writer = Writer::try_take_over(&db, "security").await.unwrap().unwrap();
    assert!(writer.tables().refused()["t"].contains("row level security hides rows"));
}

struct Works {
    name: &'static str,
    sql: &'static str,
    /// Blocks of changes: `+table {row}` and `-table {key}`, one a line.
    blocks: &'static [&'static str],
    /// Rows afterwards of all tables, sorted.
    rows: &'static [&'static str],
}

const WORKS: &[Works] = &[
    Works {
        name: "identity",
        sql: "create table a (id integer generated always as identity primary key, x text); \
              create table b (id integer generated by default as identity primary key, x text); \
              create table c (id integer primary key, n integer generated always as identity, x text)",
        blocks: &[
            r#"+a {"id": 7, "x": "a"}
               +b {"id": 8, "x": "b"}
               +c {"id": 9, "x": "c"}"#,
            r#"+a {"id": 7, "x": "aa"}
               -b {"id": 8}
               -c {"id": 9}
               +c {"id": 10}"#,
        ],
        rows: &["a (7,aa)", "c (10,2,)"],
    },
    Works {
        name: "generated",
        sql: "create table t (id integer primary key, a integer, b integer generated always as (a + id) stored)",
        blocks: &[r#"+t {"id": 1, "a": 1}"#, r#"+t {"id": 1, "a": 2}"#],
        rows: &["t (1,2,3)"],
    },
    Works {
        name: "swaps",
        sql: "create table t (id integer primary key, place integer, unique (place) deferrable)",
        blocks: &[
            r#"+t {"id": 1, "place": 1}
               +t {"id": 2, "place": 2}"#,
            r#"+t {"id": 1, "place": 2}
               +t {"id": 2, "place": 1}"#,
        ],
        rows: &["t (1,2)", "t (2,1)"],
    },
    Works {
        name: "families",
        sql: "create table p (id integer primary key, x text); \
              create table c (id integer primary key, p integer not null references p); \
              create table d (id integer primary key, c integer not null references c deferrable)",
        blocks: &[
            r#"+d {"id": 1, "c": 1}
               +c {"id": 1, "p": 1}
               +p {"id": 1}
               +p {"id": 2}"#,
            r#"-p {"id": 1}
               -c {"id": 1}
               -d {"id": 1}
               +d {"id": 2, "c": 2}
               +c {"id": 2, "p": 2}"#,
            r#"+p {"id": 3}
               +c {"id": 2, "p": 3}
               -p {"id": 2}"#,
        ],
        rows: &["c (2,3)", "d (2,2)", "p (3,)"],
    },
    Works {
        name: "trees",
        sql: "create table t (id integer primary key, up integer references t, x text)",
        blocks: &[
            r#"+t {"id": 3, "up": 2}
               +t {"id": 2, "up": 1}
               +t {"id": 1, "up": null}"#,
            r#"+t {"id": 3, "up": 1}
               -t {"id": 2}
               +t {"id": 4, "up": 3}"#,
            r#"-t {"id": 1}
               -t {"id": 3}
               -t {"id": 4}"#,
        ],
        rows: &[],
    },
    Works {
        name: "partitions",
        sql: "create table p (id integer, at integer, x text, primary key (id, at)) partition by range (at); \
              create table p1 partition of p for values from (0) to (10); \
              create table p2 partition of p for values from (10) to (20); \
              create table c (id integer primary key, p integer, at integer, \
                              foreign key (p, at) references p deferrable) partition by hash (id); \
              create table c1 partition of c for values with (modulus 2, remainder 0); \
              create table c2 partition of c for values with (modulus 2, remainder 1)",
        blocks: &[
            r#"+p {"id": 1, "at": 5, "x": "a"}
               +p {"id": 1, "at": 15, "x": "b"}
               +c {"id": 1, "p": 1, "at": 5}
               +c {"id": 2, "p": 1, "at": 15}"#,
            r#"-c {"id": 1}
               -p {"id": 1, "at": 5}
               +p {"id": 2, "at": 15}
               +c {"id": 2, "p": 2, "at": 15}
               +c {"id": 3, "p": 2, "at": 15}"#,
        ],
        rows: &["c (2,2,15)", "c (3,2,15)", "p (1,15,b)", "p (2,15,)"],
    },
    Works {
        name: "a.b \"c\" D",
        sql: "create table \"T.\"\"x\" (\"i.\"\"d\" integer primary key, \"A B\" text, \"c0\" text, t text, excluded text)",
        blocks: &[
            r#"+T."x {"i.\"d": 1, "A B": "x", "c0": "y", "t": "z", "excluded": "w"}"#,
            r#"+T."x {"i.\"d": 1, "A B": null}
               +T."x {"i.\"d": 2, "excluded": "v"}"#,
        ],
        rows: &["T.\"x (1,,y,z,w)", "T.\"x (2,,,,v)"],
    },
    Works {
        name: "keys_alone",
        sql: "create table t (a integer, b text, primary key (b, a))",
        blocks: &[
            r#"+t {"a": 1, "b": "x"}
               +t {"a": 1, "b": "y"}"#,
            r#"+t {"a": 1, "b": "x"}
               -t {"a": 1, "b": "y"}"#,
        ],
        rows: &["t (1,x)"],
    },
    Works {
        name: "types",
        sql: "create domain small as integer check (value < 100); create type mood as enum ('sad', 'happy'); \
              create type pair as (a small, b mood); \
              create table t (id small primary key, m mood, ps pair[], ss small[], r int4range, \
                              exclude using gist (r with &&) deferrable, n text); \
              create unique index on t (n) where m = 'sad'",
        blocks: &[
            r#"+t {"id": 1, "m": "sad", "ps": [{"a": 1, "b": "happy"}, null], "ss": [99, null], "r": "[1,5)", "n": "x"}
               +t {"id": 2, "m": "happy", "r": "[5,9)", "n": "x"}"#,
            r#"+t {"id": 1, "m": "happy", "r": "[5,9)"}
               +t {"id": 2, "m": "sad", "r": "[1,5)"}"#,
        ],
        rows: &[r#"t (1,happy,"{""(1,happy)"",NULL}","{99,NULL}","[5,9)",x)"#, r#"t (2,sad,,,"[1,5)",x)"#],
    },
    Works {
        name: "exclusion",
        sql: "create table t (id integer primary key, r int4range, exclude using gist (r with &&))",
        blocks: &[
            r#"+t {"id": 1, "r": "[1,5)"}"#,
            r#"-t {"id": 1}
               +t {"id": 2, "r": "[2,4)"}"#,
        ],
        rows: &["t (2,\"[2,4)\")"],
    },
    Works {
        name: "keys",
        sql: "create table v (k varchar(3) primary key, x integer, y text); \
              create table c (k char(4) primary key, x integer, y text); \
              create table n (k numeric primary key, x integer, y text); \
              create table m (k timestamptz primary key, x integer, y text); \
              create table d (k numeric(6, 2) primary key deferrable, x integer, y text)",
        blocks: &[
            r#"+v {"k": "abc", "x": 1}
               +c {"k": "ab", "x": 1}
               +n {"k": 1.0, "x": 1}
               +m {"k": "2026-01-01T02:00:00+02", "x": 1}
               +d {"k": 1.5, "x": 1}"#,
            r#"+v {"k": "abc", "x": 2}
               +c {"k": "ab  ", "x": 2}
               +n {"k": 1.00, "x": 2}
               +n {"k": 1, "y": "z"}
               +m {"k": "2026-01-01T00:00:00Z", "x": 2}
               +d {"k": "1.50", "x": 2}"#,
        ],
        rows: &[
            "c (\"ab  \",2,)",
            "d (1.50,2,)",
            "m (\"2026-01-01 00:00:00+00\",2,)",
            "n (1.0,2,z)",
            "v (abc,2,)",
        ],
    },
    Works {
        name: "any_case",
        sql: "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
              create domain name_of as text collate nocase; \
              create table t (k text collate nocase primary key, x integer); \
              create table d (k name_of primary key, x integer)",
        blocks: &[
            r#"+t {"k": "Abc", "x": 1}
               +d {"k": "Abc", "x": 1}"#,
            r#"+t {"k": "aBC", "x": 2}
               +t {"k": "abc", "x": 3}
               +d {"k": "aBC", "x": 2}
               +d {"k": "abc", "x": 3}"#,
            r#"+d {"k": "ABC", "x": 4}"#,
        ],
        rows: &["d (Abc,4)", "t (Abc,3)"],
    },
    Works {
        name: "extensions",
        sql: "create extension citext schema extensions; create extension hstore schema extensions; \
              create table t (k extensions.citext primary key, x integer, h extensions.hstore)",
        blocks: &[
            r#"+t {"k": "Abc", "x": 1, "h": "a=>1"}"#,
            r#"+t {"k": "aBC", "x": 2}
               +t {"k": "abc", "h": "\"b\"=>NULL"}"#,
        ],
        rows: &[r#"t (Abc,2,"""b""=>NULL")"#],
    },
];

#[tokio::test]
async fn unusual_tables_are_written_and_rolled_back() {
    let test = database("refusals_works").await;
    let client = test.connect().await;
    client.batch_execute("create schema extensions").await.unwrap();
    let found = client
        .query_one(
            "select count(*) = 2, (select count(*) > 0 from pg_collation where collprovider = 'i') \
               from pg_available_extensions where name in ('citext', 'hstore')",
            &[],
        )
        .await
        .unwrap();
    let (extensions, icu): (bool, bool) = (found.get(0), found.get(1));
    for works in WORKS {
        // What a server was built without cannot be tried on it.
        if (works.name == "extensions" && !extensions) || (works.name == "any_case" && !icu) {
            continue;
        }
        check(&mut Rig::up(&test, works.name, works.sql).await, works).await;
    }
}

/// Forth, all the way back block by block, forth again, and back to the start at once.
async fn check(rig: &mut Rig, works: &Works) {
    rig.client.batch_execute("set timezone = 'UTC'").await.unwrap();
    for _ in 0..2 {
        let mut states = vec![rig.everything().await];
        for (height, block) in (0..).zip(works.blocks) {
            rig.commit(height, changes(block)).await;
            states.push(rig.everything().await);
        }
        let mut rows = rig.everything().await;
        if works.name == "identity" {
            // The second time, the sequence goes on.
            rows.iter_mut().for_each(|row| *row = row.replace("(10,4,)", "(10,2,)"));
        }
        assert_eq!(rows, works.rows, "{}", works.name);
        for height in (0..works.blocks.len()).rev() {
            let to = height.checked_sub(1).map(|height| debshrew::block::Height::new(height as u32).unwrap());
            let undone = rig.writer().await.roll_back(to, Cause::Reorg).await;
            undone.unwrap_or_else(|error| panic!("{}: {error}: {error:?}", works.name));
            assert_eq!(rig.everything().await, states[height], "{} back to {to:?}", works.name);
        }
    }
    for (height, block) in (0..).zip(works.blocks) {
        rig.commit(height, changes(block)).await;
    }
    rig.writer().await.roll_back(None, Cause::Reorg).await.unwrap();
    assert_eq!(rig.everything().await, [] as [&str; 0], "{}", works.name);
}

#[tokio::test]
async fn wide_tables_are_written_and_rolled_back() {
    let test = database("refusals_wide").await;
    let columns: Vec<String> = (0..200).map(|column| format!("c{column} integer default {column}")).collect();
    let sql = format!("create table t (id integer primary key, {})", columns.join(", "));
    let mut rig = Rig::up(&test, "wide", &sql).await;
    rig.commit(0, vec![put("t", r#"{"id": 1, "c199": 7}"#)]).await;
    let before = rig.everything().await;
    let values: Vec<String> = (0..200).map(|column| format!(r#""c{column}": {}"#, column * 2)).collect();
    rig.commit(1, vec![put("t", &format!("{{\"id\": 1, {}}}", values.join(", ")))]).await;
    assert!(rig.everything().await[0].ends_with(",396,398)"));
    rig.roll_back(0).await.unwrap();
    assert_eq!(rig.everything().await, before);
}
