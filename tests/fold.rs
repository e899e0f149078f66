//! Many changes of few rows, applied as one block, are what the same changes are, one by one in plain SQL; and the
//! block can be taken back.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Handle;

use crate::support::{Rig, database};
use crate::zoo::{Cell, Edit, cell};

/// In `zoo`, where the edits' plain SQL looks for them. Each table has columns `a`, `b` and `c` beside its key.
const TABLES: &str = "
create table plain (id integer primary key, a text, b integer not null default 7, c numeric(6, 2) default 1.5);
create table taken (
  id integer primary key, a text, b integer not null default 7, c numeric(6, 2) default 1.5, own integer,
  unique (id, own)
);
create table late (
  id integer, a text, b integer not null default 7, c numeric(6, 2) default 1.5, primary key (id) deferrable
);
create table equal (id numeric primary key, a text, b integer not null default 7, c numeric(6, 2) default 1.5);
create table pairs (
  a text, name varchar(3), b integer not null default 7, id integer, c numeric(6, 2) default 1.5,
  primary key (name, id)
);
create table parts (id integer primary key, a text, b integer not null default 7, c numeric(6, 2) default 1.5)
  partition by hash (id);
create table parts_0 partition of parts for values with (modulus 2, remainder 0);
create table parts_1 partition of parts for values with (modulus 2, remainder 1);
create table bare (id integer primary key);
";

fn columns() -> impl Strategy<Value = Vec<(&'static str, Cell)>> {
    let a = select(&[("\"x\"", "'x'"), ("\"\"", "''"), ("null", "null")][..]);
    let b = select(&[("1", "1"), ("\"2\"", "2"), ("3", "3")][..]);
    let c = select(&[("0.25", "0.25"), ("null", "null"), ("12", "12")][..]);
    (a, b, c, subsequence(vec![0, 1, 2], 0..=3)).prop_map(|(a, b, c, given)| {
        let all = [("a", a), ("b", b), ("c", c)];
        given.into_iter().map(|column| (all[column].0, cell(all[column].1.0, all[column].1.1))).collect()
    })
}

fn change() -> impl Strategy<Value = Edit> {
    let table = select(&["plain", "taken", "late", "equal", "pairs", "parts", "bare"][..]);
    // Two changes in five delete, so that rows are deleted and made again, and made and deleted.
    let values = prop_oneof![3 => columns().prop_map(Some), 2 => Just(None)];
    (table, 0..3usize, any::<bool>(), values).prop_map(|(table, id, other, values)| {
        let number = id.to_string();
        let mut key = vec![("id", cell(&number, &number))];
        if table == "equal" && other {
            // Equal, but not identical.
            key = vec![("id", cell(&format!("{id}.0"), &format!("{id}.0")))];
        }
        if table == "pairs" {
            let name = if other { "\"p\"" } else { "\"q\"" };
            key.push(("name", cell(name, &name.replace('"', "'"))));
        }
        let values = values.map(|values| if table == "bare" { Vec::new() } else { values });
        Edit::new(table, key, values)
    })
}

async fn plainly(plain: &Rig, edits: &[Edit]) -> Vec<String> {
    let sql: String = edits.iter().map(Edit::sql).collect();
    plain.client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    plain.everything().await
}

/// The first block finds empty tables, the second what the first has left.
async fn compare(blocks: [Vec<Edit>; 2], folded: &mut Rig, plain: &Rig) -> Result<(), TestCaseError> {
    folded.stop().await;
    for rig in [&*folded, plain] {
        rig.run("truncate plain, taken, late, equal, pairs, parts, bare").await;
    }
    let forget = "truncate debshrew.block; \
                  update debshrew.checkpoint set height = null, hash = null, journal_floor = null; \
                  truncate debshrew_zoo.plain, debshrew_zoo.taken, debshrew_zoo.late, debshrew_zoo.equal, \
                           debshrew_zoo.pairs, debshrew_zoo.parts, debshrew_zoo.bare";
    folded.client.batch_execute(forget).await.unwrap();
    for (height, edits) in (0..).zip(&blocks) {
        let before = folded.everything().await;
        folded.commit(height, edits.iter().map(Edit::change).collect()).await;
        let expected = plainly(plain, edits).await;
        prop_assert_eq!(folded.everything().await, expected.clone());
        if height > 0 {
            folded.roll_back(height - 1).await.unwrap();
            prop_assert_eq!(folded.everything().await, before);
            folded.commit(height, edits.iter().map(Edit::change).collect()).await;
            prop_assert_eq!(folded.everything().await, expected);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_what_its_changes_are_one_by_one() {
    let (one, two) = (database("fold").await, database("fold_plain").await);
    let state = RefCell::new((Rig::up(&one, "zoo", TABLES).await, Rig::up(&two, "zoo", TABLES).await));
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config { cases: 40, max_shrink_iters: 100, ..Config::default() });
        let ran = runner.run(&[vec(change(), 0..30), vec(change(), 0..40)], |blocks| {
            let (folded, plain) = &mut *state.borrow_mut();
            Handle::current().block_on(compare(blocks, folded, plain))
        });
        ran.unwrap_or_else(|error| panic!("{error}"));
    });
}
