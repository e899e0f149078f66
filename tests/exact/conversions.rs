//! Migrations whose conversions and constraints journaled images may not survive: exact, or the floor is raised and
//! said; never a rollback that gives old values, and never one that halts.

use debshrew::failure::Kind;
use debshrew::schema::{Mode, Report, SchemaError};

use crate::exact::Wrong;
use crate::support::{Rig, TestDb, changes, connect_as, database, is_too_deep, until, whole};

const TABLES: &str = "
create domain amount as numeric;
create table t (
  id integer primary key, n numeric, i integer, w text, v varchar(20), l integer[], a amount, r int4range
);
create table k (id text primary key, x text);
create table p (id integer primary key);
create table d (id integer primary key, code text unique);
create table c (
  id integer primary key, d integer references d deferrable, code text references d (code) deferrable,
  a integer, b integer, z integer, low integer, high integer, r int4range,
  constraint both_of unique (a, b), constraint ordered check (low < high), constraint apart exclude using gist (r with &&)
);
create unique index lowered on c (lower(code));
create table e (id integer primary key, x integer, y integer) partition by range (id);
create table e1 partition of e for values from (0) to (100);
create unique index e1_x on e1 (x);
alter table e1 add constraint e1_y check (y > 0);
";

/// What the rows once were (`w` null, values twice, out of bounds) is in the journal alone.
const BLOCKS: &[&str] = &[
    r#"+t {"id": 1, "n": 100000000, "i": 1, "w": null, "v": "longer than that", "l": [1], "a": -1, "r": "[1,5)"}
       +t {"id": 2, "n": 200000000, "i": 1, "w": "w", "v": "b", "l": [2], "a": 2, "r": "[3,9)"}
       +t {"id": 3, "n": 300000000, "i": 3, "w": "x"}
       +k {"id": "Abc", "x": "1"}
       +k {"id": "def", "x": "1"}
       +d {"id": 1, "code": "one"}
       +d {"id": 2, "code": "two"}
       +c {"id": 1, "d": 1, "code": "one", "a": 1, "b": 1, "z": 1, "low": 1, "high": 2, "r": "[1,3)"}
       +c {"id": 2, "d": 2, "code": "two", "a": 2, "b": 1, "z": 1, "low": 3, "high": 4, "r": "[3,5)"}
       +e {"id": 1, "x": 1, "y": 1}"#,
    r#"+t {"id": 1, "n": 150000000, "i": 5, "w": "a", "v": "short", "l": [3], "a": 1, "r": "[10,11)"}
       -t {"id": 3}
       +k {"id": "Abc", "x": "2"}
       -k {"id": "def"}
       +c {"id": 1, "d": 2, "a": 3, "high": 3, "r": "[7,9)"}
       +e {"id": 1, "x": 2}"#,
    r#"+t {"id": 2, "n": 250000000, "i": 7, "w": "b", "v": "s", "l": [4]}
       +k {"id": "ghi", "x": "3"}
       +c {"id": 2, "b": 2, "z": 2, "low": 2, "r": "[1,3)"}
       +e {"id": 1, "y": 2}
       +p {"id": 5}
       +p {"id": 7}"#,
];

const AFTER: &str = r#"+t {"id": 1, "n": 3}
                       -t {"id": 2}
                       +k {"id": "new", "x": "4"}
                       -k {"id": "ghi"}"#;

/// Name, SQL, and the table that is named.
const CUT: &[(&str, &str, &str)] = &[
    ("scaled", "alter table t alter column n type numeric(20,8) using n / 1e8", "t"),
    ("scaled_alike", "alter table t alter column n type numeric using n / 1e8", "t"),
    ("times", "alter table t alter i type integer using i * 100", "t"),
    ("upper", "alter table t alter column w set data type text using upper(w)", "t"),
    ("domain", "create domain share as numeric; alter table t alter n type share using n / 1e8", "t"),
    ("of_domain", "alter table t alter a type amount using a + 1", "t"),
    ("array", "alter table t alter l type integer[] using l || 0", "t"),
    ("other_column", "alter table t alter i type integer using id", "t"),
    (
        "function",
        "create function f(v integer) returns integer immutable language sql as 'select v + 1'; \
                  alter table t alter i type integer using f(i)",
        "t",
    ),
    ("constant", "alter table t alter v type varchar(20) using 'x'", "t"),
    ("key", "alter table k alter id type text using lower(id)", "k"),
    ("several", "alter table t alter i type bigint, alter n type numeric(20,8) using n / 1e8", "t"),
    ("block", "do $$ begin execute 'alter table t alter i type integer using i * 100'; end $$", "t"),
    (
        "pieces",
        "do $$ begin \
           execute format('alter table %I alter %I type integer %s %I * 100', 't', 'i', 'us' || 'ing', 'i'); \
         end $$",
        "t",
    ),
    (
        "called",
        "create procedure scale() language plpgsql as \
           $$ begin execute 'alter table t alter i type integer u' || 'sing i * 100'; end $$; call scale()",
        "t",
    ),
    ("comment", "alter table t alter i type integer /* ; */ using i * 100", "t"),
    ("key_block", "do $$ begin execute 'alter table k alter id type text using lower(id)'; end $$", "k"),
    ("unseen", "set local track_counts = off; update t set i = i * 100; set local track_counts = on", "t"),
    ("unseen_delete", "set local track_counts = off; delete from k where id = 'Abc'", "k"),
    (
        "unseen_insert",
        "do $$ begin set local track_counts = off; insert into k values ('inserted'); \
                     set local track_counts = on; end $$",
        "k",
    ),
    ("unseen_truncate", "set local track_counts = off; truncate k", "k"),
    ("narrowed", "alter table t alter v type varchar(5) using left(v, 5)", "t"),
    ("narrowed_plainly", "alter table t alter v type varchar(6)", "t"),
    ("not_null", "alter table t alter w set not null", "t"),
    ("not_null_check", "alter table t add constraint given check (w is not null)", "t"),
    ("check", "alter table t add constraint small check (i >= 5)", "t"),
    ("check_between", "alter table t add check (n <> 100000000 and id > 0)", "t"),
    ("unique", "alter table t add unique (i)", "t"),
    ("unique_late", "alter table t add unique (i) deferrable initially deferred", "t"),
    (
        "unique_index",
        "create unique index on t (lower(w), i)  where i < 9; create unique index on t (i)",
        "t",
    ),
    ("exclusion", "alter table t add exclude using gist (r with &&)", "t"),
    ("foreign_key", "alter table t add foreign key (i) references p", "t"),
    ("foreign_key_late", "alter table t add foreign key (i) references p deferrable", "t"),
    ("domain_check", "alter domain amount add constraint positive check (value > 0)", "t"),
    ("domain_not_null", "delete from t where a is null; alter domain amount set not null", "t"),
    (
        "to_domain",
        "create domain filled as text check (value is not null); alter table t alter w type filled",
        "t",
    ),
    // Written as the one that was there, of other columns and tables.
    (
        "unique_of_another",
        "alter table c drop constraint both_of; alter table c rename a to was; alter table c rename z to a; \
         alter table c add unique (a, b)",
        "c",
    ),
    (
        "references_another",
        "alter table c drop constraint c_d_fkey; alter table d rename to was; alter table p rename to d; \
         insert into d values (1), (2); alter table c add foreign key (d) references d deferrable",
        "c",
    ),
    ("renamed_and_new", "alter table c rename a to aa; alter table c add unique (aa, z)", "c"),
    ("partition_check", "alter table e1 rename to e_one; alter table e_one add check (y > 1)", "e"),
    ("partial_domain", "create domain brief as varchar(6); alter table t alter v type brief", "t"),
];

/// What every image survives, so that nothing is lost.
const KEPT: &[(&str, &str)] = &[
    ("wider", "alter table t alter i type bigint, alter v type varchar(30)"),
    ("plain_cast", "alter table t alter i type numeric using i::numeric"),
    ("check_held", "alter table t add check (id > 0)"),
    ("not_null_held", "alter table t alter i set not null"),
    ("unique_held", "alter table t add unique (n)"),
    ("index", "create index on t (lower(w))"),
    ("dropped", "alter table t add constraint c check (i > 0); alter table t drop constraint c"),
    ("renamed_unique_column", "alter table c rename a to aa"),
    ("renamed_checked_column", "alter table c rename low to least"),
    ("renamed_excluded_column", "alter table c rename r to span"),
    ("renamed_indexed_column", "alter table c rename code to sign"),
    ("renamed_referring_column", "alter table c rename d to parent"),
    ("renamed_referenced_column", "alter table d rename code to sign"),
    ("renamed_table", "alter table c rename to cc"),
    ("renamed_referenced_table", "alter table d rename to dd"),
    ("renamed_partitioned_table", "alter table e rename to ee; alter table ee rename x to xx"),
    ("renamed_partition", "alter table e1 rename to e_one"),
    ("renamed_index", "alter index lowered rename to small; alter index e1_x rename to e_one_x"),
    (
        "renamed_constraint",
        "alter table c rename constraint both_of to pair; alter table c rename constraint ordered to \"in order\"; \
         alter table c rename constraint c_d_fkey to parent; alter table e1 rename constraint e1_y to y",
    ),
    (
        "renamed_qualified",
        "alter table renamed_qualified.c rename a to aa; alter table renamed_qualified.d rename to dd",
    ),
    (
        "renamed_and_constrained",
        "alter table c rename a to aa; alter table c rename to cc; alter table cc add check (id > 0)",
    ),
    (
        "swapped_columns",
        "alter table c rename a to x; alter table c rename b to a; alter table c rename x to b",
    ),
    ("swapped_tables", "alter table d rename to x; alter table p rename to d; alter table x rename to p"),
    ("taken_column", "alter table c rename a to aa; alter table c add a integer"),
    ("taken_table", "alter table c rename to cc; create view c as select id from cc"),
    ("taken_by_enum", "alter table c rename to cc; create type c as enum ('x')"),
    ("taken_by_composite", "alter table c rename to cc; create type c as (x integer)"),
    ("taken_by_domain", "alter table c rename to cc; create domain c as integer"),
    (
        "taken_by_index_and_type",
        "alter table c rename to cc; create index c on cc (z); create type c as enum ('x')",
    ),
];

async fn committed(test: &TestDb, name: &str) -> Rig {
    let mut rig = Rig::up(test, name, TABLES).await;
    for (height, block) in (0..).zip(BLOCKS) {
        rig.commit(height, changes(block)).await;
    }
    rig
}

/// What is wrong with how a migration was dealt with, if anything is.
async fn cut(test: &TestDb, name: &str, sql: &str, table: &str) -> Result<(), String> {
    let mut rig = committed(test, name).await;
    let report = rig.migrate(sql).await.map_err(|error| format!("the migration: {}", whole(&error)))?;
    let cut = report.pipelines[0].cut.clone();
    let before = rig.everything().await;
    let after = rig.try_commit(3, changes(AFTER)).await;
    after.map_err(|error| format!("the block behind: {}", whole(&error)))?;
    if !cut.iter().any(|cut| cut.contains(&format!("`{table}`"))) {
        let done = rig.roll_back(0).await.map_err(|error| whole(&error)).map(|_| ());
        return Err(format!("cut {cut:?}; back to 0: {done:?}, {:?}", rig.everything().await));
    }
    match rig.roll_back(1).await {
        Err(error) if is_too_deep(&error) => {}
        other => return Err(format!("rolled back past it: {other:?}")),
    }
    rig.roll_back(2).await.map_err(|error| format!("back to 2: {}", whole(&error)))?;
    if rig.everything().await != before {
        return Err(format!("not exact: {:?}", rig.everything().await));
    }
    Ok(())
}

#[tokio::test]
async fn a_migration_that_journaled_rows_do_not_survive_raises_the_floor() {
    let test = database("exact_conversions").await;
    let mut wrong = Wrong::default();
    for (name, sql, table) in CUT {
        wrong.note(name, cut(&test, name, sql, table).await);
    }
    wrong.settle();
}

/// What is wrong with how one that loses nothing was dealt with, if anything is.
async fn kept(test: &TestDb, name: &str, sql: &str) -> Result<(), String> {
    let mut rig = committed(test, name).await;
    let report = rig.migrate(sql).await.map_err(|error| format!("the migration: {}", whole(&error)))?;
    if !report.pipelines[0].cut.is_empty() {
        return Err(format!("cut {:?}", report.pipelines[0].cut));
    }
    let after = rig.try_commit(3, changes(AFTER)).await;
    after.map_err(|error| format!("the block behind: {}", whole(&error)))?;
    rig.roll_back(0).await.map_err(|error| format!("back to 0: {}", whole(&error)))?;
    let mut model = Rig::up(test, &format!("{name}_model"), TABLES).await;
    model.commit(0, changes(BLOCKS[0])).await;
    let sql = sql.replace(&format!("{name}."), &format!("{name}_model."));
    model.migrate(&sql).await.map_err(|error| format!("the model: {}", whole(&error)))?;
    let (rows, expected) = (rig.everything().await, model.everything().await);
    if rows == expected { Ok(()) } else { Err(format!("{rows:?}, not {expected:?}")) }
}

#[tokio::test]
async fn a_migration_that_journaled_rows_survive_keeps_them() {
    let test = database("exact_conversions_kept").await;
    let mut wrong = Wrong::default();
    for (name, sql) in KEPT {
        wrong.note(name, kept(&test, name, sql).await);
    }
    wrong.settle();
}

/// Between two migrations, and with a restore from a dump before it, where every table has another number.
#[tokio::test]
async fn what_was_renamed_by_hand_or_after_a_restore_keeps_them_too() {
    const RENAMED: &str =
        "alter table c rename a to aa; alter table d rename code to sign; alter table d rename to dd";
    let test = database("exact_conversions_by_hand").await;
    let mut rig = committed(&test, "by_hand").await;
    rig.client
        .batch_execute(&format!("set search_path = by_hand; {RENAMED}; reset search_path"))
        .await
        .unwrap();
    let report = rig.migrate_again(Mode::Apply).await.unwrap();
    assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    rig.roll_back(0).await.unwrap_or_else(|error| panic!("{}", whole(&error)));

    let mut rig = committed(&test, "restored").await;
    let sql = "update debshrew.journal_column set table_oid = table_oid::int8 + 1000000, attribute_number = attribute_number + 5";
    rig.client.batch_execute(sql).await.unwrap();
    let report = rig.migrate(RENAMED).await.unwrap();
    assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    rig.roll_back(0).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
}

/// What the journals hold makes these two slow; their tables' rows do not.
const SLOW: &[(&str, &str)] = &[
    ("slow_check", "alter table t add check (slow(i))"),
    (
        "slow_type",
        "create domain slow as bigint constraint slow check (slow(value)); alter table t alter i type slow",
    ),
];

#[tokio::test]
async fn what_took_too_long_is_no_reason_to_raise_the_floor() {
    let test = database("exact_timeouts").await;
    let mut wrong = Wrong::default();
    for (name, sql) in SLOW {
        let mut rig = committed(&test, name).await;
        let slow = "create function slow(v bigint) returns boolean language plpgsql immutable as \
                      'begin if v = 1 then perform pg_sleep(1); end if; return true; end'";
        rig.migrate(slow).await.unwrap();
        rig.add(sql);
        let (migrated, ()) = tokio::join!(rig.migrate_again(Mode::Apply), cancel(&test, "PgSleep"));
        wrong.note(name, cut_short(migrated));
        let report = rig.migrate_again(Mode::Apply).await.unwrap();
        assert_eq!(report.pipelines[0].cut, [] as [&str; 0], "{name}");
    }
    let mut rig = committed(&test, "waits").await;
    rig.client
        .batch_execute("alter table waits.c rename a to aa; alter table waits.c rename to cc")
        .await
        .unwrap();
    let reader = test.connect().await;
    reader.batch_execute("begin; select from waits.cc").await.unwrap();
    let (migrated, ()) = tokio::join!(rig.migrate_again(Mode::Apply), cancel(&test, "relation"));
    wrong.note("waits", cut_short(migrated));
    reader.batch_execute("commit").await.unwrap();
    let report = rig.migrate_again(Mode::Apply).await.unwrap();
    assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    wrong.settle();
}

/// Cancels the first statement that waits for this.
async fn cancel(test: &TestDb, event: &str) {
    let client = test.connect().await;
    let sql = "select count(pg_cancel_backend(pid)) from pg_stat_activity \
                where datname = current_database() and wait_event = $1";
    until("a statement is cancelled", async || {
        client.query_one(sql, &[&event]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
}

/// What is wrong with the end of a migration that PostgreSQL cut short, if anything is.
fn cut_short(ended: Result<Report, SchemaError>) -> Result<(), String> {
    match ended {
        Err(error) if error.kind() == Kind::Transient => Ok(()),
        Err(error) => Err(whole(&error)),
        Ok(report) => Err(format!("cut {:?}", report.pipelines[0].cut)),
    }
}

#[tokio::test]
async fn rows_that_a_database_does_not_count_are_noticed_all_the_same() {
    let test = database("exact_uncounted").await;
    let mut rig = committed(&test, "uncounted").await;
    let sql = "alter database debshrew_test_exact_uncounted set track_counts = off";
    rig.client.batch_execute(sql).await.unwrap();
    rig.db = connect_as(&test.dsn);
    let report = rig.migrate("update t set i = i * 100").await.unwrap();
    assert!(report.pipelines[0].cut.iter().any(|cut| cut.contains("`t`")), "{:?}", report.pipelines[0].cut);
}

#[tokio::test]
async fn constraints_are_checked_by_the_first_migration_that_records_them_too() {
    let test = database("exact_unrecorded").await;
    let mut rig = committed(&test, "unrecorded").await;
    // As a journal that an earlier version made.
    let sql = "delete from debshrew.journal_table; update debshrew.journal_column set slot = null";
    rig.client.batch_execute(sql).await.unwrap();
    let report = rig.migrate("alter table t alter w set not null").await.unwrap();
    assert!(report.pipelines[0].cut.iter().any(|cut| cut.contains("`t`")), "{:?}", report.pipelines[0].cut);
}
