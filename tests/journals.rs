//! Journals follow their tables through migrations: afterwards a rollback to a block from before gives the rows
//! that the migration would have made of the rows of then; where that cannot be known, it is refused.

use debshrew::pipeline::PipelineError;
use debshrew::schema::{Mode, SchemaError};
use debshrew::undo::UndoError;

use crate::support::{Rig, TestDb, database, delete, put};

const TABLES: &str = "
create type mood as enum ('sad', 'happy');
create table t (
  id integer primary key,
  a text not null default 'a0',
  b integer,
  c integer generated always as (b * 2) stored,
  d integer,
  e varchar(5),
  f mood
);
create table other (id integer primary key, x text);
create table more (id integer primary key, x integer not null);
create table pairs (x text, b integer, a text, primary key (a, b));
create table lists (x text, k integer[] primary key);
";

async fn blocks(rig: &mut Rig, upto: u32) {
    let blocks = [
        vec![
            put("t", r#"{"id": 1, "a": "x", "b": 1, "d": 10, "e": "12345", "f": "sad"}"#),
            put("t", r#"{"id": 2, "a": "y", "b": 2, "d": null}"#),
            put("t", r#"{"id": 3}"#),
            put("other", r#"{"id": 1, "x": "o"}"#),
            put("more", r#"{"id": 1, "x": 100}"#),
            put("more", r#"{"id": 2, "x": 200}"#),
            put("pairs", r#"{"a": "1", "b": 2, "x": "p"}"#),
            put("lists", r#"{"k": [1, null], "x": "l"}"#),
        ],
        vec![
            put("t", r#"{"id": 1, "a": "x1", "d": 11, "f": "happy"}"#),
            delete("t", r#"{"id": 2}"#),
            put("t", r#"{"id": 4, "b": 4}"#),
            put("other", r#"{"id": 1, "x": "p"}"#),
            put("more", r#"{"id": 1, "x": 101}"#),
            put("pairs", r#"{"a": "2", "b": 1}"#),
            put("pairs", r#"{"a": "2", "b": 2}"#),
            delete("pairs", r#"{"a": "1", "b": 2}"#),
            put("lists", r#"{"k": [], "x": "l"}"#),
        ],
        vec![
            put("t", r#"{"id": 1, "b": 10}"#),
            put("t", r#"{"id": 2, "a": "again"}"#),
            delete("t", r#"{"id": 3}"#),
            put("other", r#"{"id": 2, "x": "q"}"#),
            delete("more", r#"{"id": 2}"#),
            put("pairs", r#"{"a": "1", "b": 2, "x": "q"}"#),
            put("pairs", r#"{"a": "1", "b": 1}"#),
            put("lists", r#"{"k": [], "x": null}"#),
            delete("lists", r#"{"k": [1, null]}"#),
        ],
    ];
    for (height, block) in (0..=upto).zip(blocks) {
        rig.commit(height, block).await;
    }
}

struct Case {
    name: &'static str,
    sql: &'static str,
    /// A row to delete in a block after the migration.
    gone: (&'static str, &'static str),
}

const fn case(name: &'static str, sql: &'static str) -> Case {
    Case { name, sql, gone: ("t", r#"{"id": 1}"#) }
}

const KEPT: &[Case] = &[
    case("nullable", "alter table t add column n text"),
    case("constant_default", "alter table t add column n integer not null default 5"),
    case(
        "default_dropped",
        "alter table t add column n integer not null default 5; alter table t alter n drop default",
    ),
    case(
        "default_changed",
        "alter table t add column n integer default 5; alter table t alter n set default 6",
    ),
    case("stable_default", "alter table t add column n text default current_user"),
    case("array_default", "alter table t add column n text[] default array['a,\"b''', null, '\\']"),
    case("domain_default", "create domain five as integer default 5; alter table t add n five"),
    case("dropped", "alter table t drop column b cascade"),
    case("renamed", "alter table t rename column a to z"),
    case(
        "swapped",
        "alter table t rename column a to z; alter table t rename column b to a; alter table t rename column z to b",
    ),
    case("same_name", "alter table t drop column a; alter table t add column a text default 'new'"),
    case("renamed_over", "alter table t drop column a; alter table t rename column d to a"),
    case("widened", "alter table t alter d type bigint, alter e type varchar(9)"),
    case("to_text", "alter table t alter d type text using d::text, alter f type text"),
    case("renamed_and_retyped", "alter table t rename d to dd; alter table t alter dd type numeric"),
    case("key_renamed", "alter table t rename id to key; alter table t alter key type bigint")
        .gone("t", r#"{"key": 1}"#),
    case("key_reordered", "alter table pairs drop constraint pairs_pkey, add primary key (b, a)")
        .gone("pairs", r#"{"a": "1", "b": 2}"#),
    case(
        "key_swapped",
        "alter table pairs rename a to z; alter table pairs rename b to a; alter table pairs rename z to b",
    )
    .gone("pairs", r#"{"a": 2, "b": "1"}"#),
    case(
        "key_retyped",
        "alter table pairs alter a type integer using a::integer, alter b type numeric(9, 1)",
    )
    .gone("pairs", r#"{"a": 1, "b": 2}"#),
    case("key_collated", "alter table pairs alter a type varchar(9) collate \"C\"")
        .gone("pairs", r#"{"a": "1", "b": 2}"#),
    case("key_no_array", "alter table lists alter k type text").gone("lists", r#"{"k": "{}"}"#),
    case("table_added", "create table added (id integer primary key)"),
    case("table_dropped", "drop table other"),
    case("table_renamed", "alter table t rename to renamed").gone("renamed", r#"{"id": 1}"#),
    case(
        "tables_swapped",
        "alter table other rename to z; alter table more rename to other; alter table z rename to more",
    ),
    case("tables_moved_up", "drop table t; alter table other rename to t; alter table more rename to other"),
    case(
        "name_taken",
        "alter table other rename to others; create table other (id integer primary key, x text)",
    ),
    case("generated_added", "alter table t add column n integer generated always as (d + 1) stored"),
    case("type_dropped", "alter table t drop column f; drop type mood cascade"),
];

const CUT: &[(Case, &str)] = &[
    (
        case(
            "backfilled",
            "alter table t add n integer; update t set n = id; alter table t alter n set not null",
        ),
        "column `n` of `t` is new",
    ),
    (
        case("backfilled_nullable", "alter table t add n integer; update t set n = id"),
        "rows of `t` were written",
    ),
    (case("volatile", "alter table t add column n float8 default random()"), "column `n` of `t` is new"),
    (
        case(
            "own_volatile",
            "create function mine() returns float8 language sql as 'select random()'; \
             alter table t add column n float8 default mine()",
        ),
        "column `n` of `t` is new",
    ),
    (case("identity", "alter table t add n bigint generated always as identity"), "column `n` of `t` is new"),
    (
        case("domain", "create domain five as integer default 5 check (value > 0); alter table t add n five"),
        "column `n` of `t` is new",
    ),
    (
        case("not_castable", "alter table t alter d type date using '2000-01-01'::date + d"),
        "cannot be cast to date",
    ),
    (case("expression", "alter table t alter d type bigint using d * 100"), "converted by an expression"),
    (
        case("not_generated", "alter table t alter c drop expression"),
        "column `c` of `t` are not in the journal",
    ),
    (
        case("type_dropped_later", "alter table t alter f type text; drop type mood cascade"),
        "column `f` of `t` are not in the journal",
    ),
    (
        case("primary_key", "alter table t drop constraint t_pkey, add primary key (id, a)")
            .gone("t", r#"{"id": 1, "a": "x1"}"#),
        "the primary key of `t` has changed",
    ),
    (
        case(
            "key_column_anew",
            "alter table pairs drop a; alter table pairs add a text not null default '0'; \
              delete from pairs where b = 1 or x is null; alter table pairs add primary key (a, b)",
        )
        .gone("pairs", r#"{"a": "0", "b": 2}"#),
        "the primary key of `pairs` has changed",
    ),
    (
        case("key_array", "alter table pairs alter a type integer[] using ('{' || a || '}')::integer[]")
            .gone("pairs", r#"{"a": [1], "b": 2}"#),
        "the primary key of `pairs` has changed",
    ),
    (
        case("made_anew", "drop table other; create table other (id integer primary key, x text)"),
        "`other` was dropped and made anew",
    ),
    (case("written", "update other set x = upper(x)"), "rows of `other` were written"),
    (case("truncated", "truncate other"), "rows of `other` were written"),
    (
        case(
            "derived",
            "create table totals as select 1 as id, sum(d) as total from t; alter table totals add primary key (id)",
        ),
        "rows of `totals` were written",
    ),
    (case("refused", "alter table other set unlogged"), "`other` is there, but is not replicated"),
];

impl Case {
    const fn gone(self, table: &'static str, key: &'static str) -> Case {
        Case { gone: (table, key), ..self }
    }

    async fn migrated(&self, rig: &mut Rig) -> Vec<String> {
        let report = rig.migrate(self.sql).await.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        report.pipelines[0].cut.clone()
    }

    async fn check_kept(&self, test: &TestDb) {
        let mut rig = Rig::up(test, self.name, TABLES).await;
        blocks(&mut rig, 2).await;
        assert_eq!(self.migrated(&mut rig).await, [] as [&str; 0], "{}", self.name);
        if self.name != "tables_moved_up" {
            assert_eq!(rig.commit(3, vec![delete(self.gone.0, self.gone.1)]).await, 1);
        }
        rig.roll_back(0).await.unwrap_or_else(|error| panic!("{}: {error}: {error:?}", self.name));
        let mut model = Rig::up(test, &format!("{}_model", self.name), TABLES).await;
        blocks(&mut model, 0).await;
        self.migrated(&mut model).await;
        assert_eq!(rig.everything().await, model.everything().await, "{}", self.name);
    }

    async fn check_cut(&self, test: &TestDb, reason: &str) {
        let mut rig = Rig::up(test, self.name, TABLES).await;
        blocks(&mut rig, 2).await;
        let cut = self.migrated(&mut rig).await;
        assert!(cut.iter().any(|cut| cut.contains(reason)), "{}: {cut:?}", self.name);
        let before = rig.everything().await;
        assert_eq!(rig.commit(3, vec![delete(self.gone.0, self.gone.1)]).await, 1);
        let error = rig.roll_back(1).await.unwrap_err();
        assert!(matches!(error, PipelineError::Undo(UndoError::TooDeep { .. })), "{}: {error:?}", self.name);
        assert!(error.to_string().contains("reaches back to height 2, and height 1 is needed"), "{error}");
        rig.roll_back(2).await.unwrap_or_else(|error| panic!("{}: {error}: {error:?}", self.name));
        assert_eq!(rig.everything().await, before, "{}", self.name);
    }
}

#[tokio::test]
async fn rolled_back_past_a_migration_rows_are_as_the_migration_makes_them() {
    let test = database("journals_kept").await;
    for case in KEPT {
        case.check_kept(&test).await;
    }
}

#[tokio::test]
async fn where_former_values_are_not_known_a_rollback_past_the_migration_is_refused() {
    let test = database("journals_cut").await;
    for (case, reason) in CUT {
        case.check_cut(&test, reason).await;
    }
}

#[tokio::test]
async fn before_the_first_block_nothing_is_cut() {
    let test = database("journals_first").await;
    let mut rig = Rig::up(&test, "first", TABLES).await;
    let report = rig.migrate("insert into other values (7, 'seed'); drop table more").await.unwrap();
    assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    blocks_of_t(&mut rig).await;
    rig.writer().await.roll_back(None, debshrew::register::Cause::Operator).await.unwrap();
    assert_eq!(rig.everything().await, ["other (7,seed)"]);
}

async fn blocks_of_t(rig: &mut Rig) {
    rig.commit(0, vec![put("t", r#"{"id": 1}"#)]).await;
    rig.commit(1, vec![put("t", r#"{"id": 1, "b": 1}"#), delete("other", r#"{"id": 7}"#)]).await;
}

#[tokio::test]
async fn tables_changed_behind_its_back_are_noticed() {
    let test = database("journals_out_of_step").await;
    for (name, sql, difference) in [
        ("added", "create table added (id integer primary key)", "table `added` has no journal"),
        ("column_added", "alter table t add n integer", "the journal of `t` lacks its column `n`"),
        ("renamed", "alter table t rename b to bb", "lacks its column `bb`"),
        ("retyped", "alter table t alter d type bigint", "lacks its column `d`"),
        ("table_renamed", "alter table t rename to tt", "table `tt` has no journal"),
        ("column_anew", "alter table t drop d; alter table t add d integer", "`d` of `t` is another one"),
        (
            "table_anew",
            "drop table other; create table other (id integer primary key, x text)",
            "`other` is another one",
        ),
        ("key", "alter table t drop constraint t_pkey, add primary key (a)", "`t` has another primary key"),
    ] {
        let mut rig = Rig::up(&test, name, TABLES).await;
        blocks(&mut rig, 0).await;
        rig.stop().await;
        rig.run(sql).await;
        let error = rig.try_writer().await.err().unwrap_or_else(|| panic!("{name} was not noticed"));
        assert!(matches!(error, PipelineError::Schema(SchemaError::OutOfStep { .. })), "{name}: {error:?}");
        assert!(error.to_string().contains(difference), "{name}: {error}");
        rig.migrate_again(Mode::Apply).await.unwrap();
        rig.commit(1, Vec::new()).await;
    }
}

#[tokio::test]
async fn a_database_restored_from_a_dump_can_still_be_rolled_back() {
    let test = database("journals_restored").await;
    let mut rig = Rig::up(&test, "restored", TABLES).await;
    blocks(&mut rig, 0).await;
    let before = rig.everything().await;
    rig.commit(1, vec![put("t", r#"{"id": 1, "a": "later"}"#), delete("other", r#"{"id": 1}"#)]).await;
    rig.stop().await;
    // What a dump does: it gives all tables, and columns behind dropped ones, other numbers.
    let renumber = "update debshrew.journal_column \
                       set table_oid = table_oid::int8 + 100000, attribute_number = attribute_number + 7";
    rig.client.batch_execute(renumber).await.unwrap();
    rig.commit(2, Vec::new()).await;
    let report = rig.migrate("alter table t add n integer").await.unwrap();
    assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    rig.roll_back(0).await.unwrap();
    rig.stop().await;
    rig.run("alter table t drop n").await;
    assert_eq!(rig.everything().await, before);
}

/// What journals were before they held keys in arrays: a row for each.
const ONE_BY_ONE: &str = "
insert into debshrew_one.t (undo_height, undo_existed, id)
  select undo_height, false, unnest(undo_absent_1) from debshrew_one.t;
insert into debshrew_one.pairs (undo_height, undo_existed, b, a)
  select undo_height, false, unnest(undo_absent_1), unnest(undo_absent_2) from debshrew_one.pairs;
insert into debshrew_one.debshrew_state_journal (undo_height, undo_existed, key)
  select undo_height, false, unnest(undo_absent_1) from debshrew_one.debshrew_state_journal;
delete from debshrew_one.t where undo_absent_1 is not null;
delete from debshrew_one.pairs where undo_absent_1 is not null;
delete from debshrew_one.debshrew_state_journal where undo_absent_1 is not null;
alter table debshrew_one.t drop undo_absent_1;
alter table debshrew_one.pairs drop undo_absent_1, drop undo_absent_2;
alter table debshrew_one.debshrew_state_journal drop undo_absent_1;
";

#[tokio::test]
async fn journals_of_absent_rows_one_by_one_are_rolled_back_with_those_of_many_at_once() {
    let test = database("journals_one").await;
    let mut rig = Rig::up(&test, "one", TABLES).await;
    let mut were = Vec::new();
    blocks(&mut rig, 0).await;
    were.push(rig.everything().await);
    rig.commit(
        1,
        vec![put("t", r#"{"id": 8}"#), put("t", r#"{"id": 9}"#), put("pairs", r#"{"a": "9", "b": 9}"#)],
    )
    .await;
    were.push(rig.everything().await);
    rig.stop().await;
    rig.client.batch_execute(ONE_BY_ONE).await.unwrap();
    let error = rig.try_writer().await.err().expect("journals that lack columns");
    assert!(error.to_string().contains("the journal of `t` lacks its column `undo_absent_1`"), "{error}");
    let report = rig.migrate_again(Mode::Apply).await.unwrap();
    assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    rig.commit(
        2,
        vec![delete("t", r#"{"id": 8}"#), put("t", r#"{"id": 9, "b": 9}"#), put("t", r#"{"id": 7}"#)],
    )
    .await;
    were.push(rig.everything().await);
    rig.commit(3, vec![put("t", r#"{"id": 8, "d": 1}"#), delete("pairs", r#"{"a": "9", "b": 9}"#)]).await;
    for to in [2, 1, 0] {
        rig.roll_back(to).await.unwrap();
        assert_eq!(rig.everything().await, were[to as usize]);
    }
}
