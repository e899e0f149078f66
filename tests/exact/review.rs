//! Ways in which blocks were half, wrong or never ended that came to light late: each is small, and of a kind of its own.

use std::time::Duration;

use debshrew::failure::Kind;

use crate::exact::{Wrong, forth_and_back, undo};
use crate::support::{Journaling, Rig, changes, database, whole};

#[tokio::test]
async fn a_trigger_that_is_committed_while_a_block_waits_for_its_table_is_noticed() {
    let test = database("exact_race").await;
    let sql = "create table t (id integer primary key, a integer, stamp integer default 0)";
    let mut rig = Rig::up(&test, "race", sql).await;
    rig.commit(0, changes("+t {\"id\": 1, \"a\": 1}")).await;
    rig.commit(1, changes("+t {\"id\": 1, \"a\": 2}")).await;
    let before = rig.everything().await;
    let other = test.connect().await;
    let ddl = "begin; set search_path = race; \
               create function stamps() returns trigger language plpgsql as \
                 $$ begin new.stamp := coalesce(old.stamp, 0) + 1; return new; end $$; \
               create trigger stamps before update on t for each row execute function stamps()";
    other.batch_execute(ddl).await.unwrap();
    let waiting = test.connect().await;
    let committing = async {
        let sql = "select exists (select from pg_stat_activity where application_name = 'debshrew/race' \
                   and datname = current_database() and wait_event_type = 'Lock')";
        while !waiting.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
        other.batch_execute("commit").await.unwrap();
    };
    let (done, ()) = tokio::join!(rig.try_commit(2, changes("+t {\"id\": 1, \"a\": 3}")), committing);
    assert_eq!(done.expect_err("the trigger is new").kind(), Kind::Transient);
    rig.commit(2, changes("+t {\"id\": 1, \"a\": 3}")).await;
    undo(&mut rig, Some(1), &before).await.unwrap();
}

#[tokio::test]
async fn a_trigger_that_a_partition_gets_meanwhile_is_noticed_without_a_journal_too() {
    let test = database("exact_part_trigger").await;
    let sql = "create table t (id integer primary key, a integer) partition by range (id); \
               create table t1 partition of t for values from (0) to (99)";
    let mut rig = Rig::up(&test, "parts", sql).await;
    rig.try_commit_with(0, changes("+t {\"id\": 1, \"a\": 1}"), Journaling::Skipped).await.unwrap();
    rig.try_commit_with(1, changes("+t {\"id\": 1, \"a\": 2}"), Journaling::Skipped).await.unwrap();
    rig.run(
        "create function never() returns trigger language plpgsql as 'begin return null; end'; \
         create trigger never before insert or update on t1 for each row execute function never()",
    )
    .await;
    let before = rig.whole().await;
    for _ in 0..2 {
        let block = changes("+t {\"id\": 1, \"a\": 3}\n+t {\"id\": 2, \"a\": 4}");
        rig.try_commit_with(2, block, Journaling::Skipped).await.expect_err("the rows are lost");
        assert_eq!(rig.whole().await, before);
    }
}

#[tokio::test]
async fn a_row_whose_delete_a_trigger_keeps_is_journaled_by_what_comes_behind() {
    let test = database("exact_kept_delete").await;
    let sql = "create table t (id integer primary key, a integer, note text); \
               create function keeps() returns trigger language plpgsql as 'begin return null; end'; \
               create trigger keeps before delete on t for each row when (old.note = 'kept') execute function keeps()";
    let mut wrong = Wrong::default();
    for (name, block) in [
        ("put", "-t {\"id\": 1}\n+t {\"id\": 1, \"a\": 2}"),
        ("gone", "-t {\"id\": 1}\n+t {\"id\": 1, \"a\": 2, \"note\": \"x\"}\n-t {\"id\": 1}"),
        ("twice", "-t {\"id\": 1}\n-t {\"id\": 1}\n+t {\"id\": 1, \"a\": 2}\n+t {\"id\": 1, \"a\": 3}"),
        ("other", "-t {\"id\": 2}\n-t {\"id\": 2}\n+t {\"id\": 2, \"a\": 2}\n-t {\"id\": 2}"),
    ] {
        let mut rig = Rig::up(&test, name, sql).await;
        let first = "+t {\"id\": 1, \"a\": 1, \"note\": \"kept\"}\n+t {\"id\": 2, \"a\": 1}";
        wrong.note(name, forth_and_back(&mut rig, &[first, block]).await);
    }
    wrong.settle();
}

#[tokio::test]
async fn a_foreign_key_of_a_partition_alone_is_refused_like_one_of_the_table() {
    let test = database("exact_part_key").await;
    for action in ["cascade", "set null"] {
        let name = action.replace(' ', "_");
        let mut rig = Rig::up(&test, &name, "create table good (id integer primary key)").await;
        let sql = format!(
            "create table p (id integer primary key); \
             create table t (id integer primary key, p integer) partition by range (id); \
             create table t1 partition of t for values from (0) to (99); \
             alter table t1 add foreign key (p) references p on delete {action}"
        );
        let report = rig.migrate(&sql).await.unwrap();
        let said = report.pipelines[0].refused.get("t").unwrap_or_else(|| panic!("{action} was not refused"));
        assert!(said.contains(action), "{said}");
    }
}

#[tokio::test]
async fn a_shorter_type_of_another_base_does_not_cut_off_what_the_journal_holds() {
    let test = database("exact_cut_off").await;
    for (name, sql) in [
        ("text", "alter table t alter x type varchar(5)"),
        ("domain", "create domain brief as varchar(5); alter table t alter x type brief"),
        ("padded", "alter table t alter x type char(5)"),
    ] {
        let mut rig = Rig::up(&test, name, "create table t (id integer primary key, x text)").await;
        rig.commit(0, changes("+t {\"id\": 1, \"x\": \"abcdefgh\"}")).await;
        rig.commit(1, changes("+t {\"id\": 1, \"x\": \"abc\"}")).await;
        let report = rig.migrate(sql).await.unwrap();
        assert!(report.pipelines[0].cut.iter().any(|cut| cut.contains("`t`")), "{name}");
        rig.roll_back(0).await.expect_err("it was cut off");
    }
}

#[tokio::test]
async fn a_journal_outlasts_a_reference_from_outside_that_is_taken_back() {
    let test = database("exact_suspended").await;
    let mut rig = Rig::up(&test, "suspended", "create table t (id integer primary key, x text)").await;
    rig.commit(0, changes("+t {\"id\": 1, \"x\": \"a\"}")).await;
    let first = rig.everything().await;
    rig.commit(1, changes("+t {\"id\": 1, \"x\": \"b\"}\n+t {\"id\": 2}")).await;
    let sql = "create schema theirs; \
               create table theirs.likes (t integer, constraint liked foreign key (t) references suspended.t)";
    rig.client.batch_execute(sql).await.unwrap();
    for _ in 0..2 {
        let report = rig.migrate("create table if not exists more (id integer primary key)").await.unwrap();
        assert!(report.pipelines[0].refused.contains_key("t"));
        assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    }
    rig.client.batch_execute("alter table theirs.likes drop constraint liked").await.unwrap();
    let report = rig.migrate("alter table t add y text").await.unwrap();
    assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    rig.roll_back(0).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    rig.stop().await;
    rig.run("alter table t drop y").await;
    assert_eq!(rig.everything().await, first);
}

#[tokio::test]
async fn a_block_that_is_refused_with_others_behind_it_ends() {
    let test = database("exact_ends").await;
    let mut rig = Rig::up(&test, "ends", "create table t (id integer primary key, at timestamptz)").await;
    let good = |id: u32| changes(&format!("+t {{\"id\": {id}, \"at\": \"2026-01-01\"}}"));
    let bad = |id: u32| changes(&format!("+t {{\"id\": {id}, \"at\": \"300000-01-01\"}}"));
    for round in 0..60 {
        let blocks = vec![good(1), bad(2), good(3), good(4), good(5), good(6)];
        let next = 1 + round;
        let done = rig.try_commit_all(round, blocks, Journaling::Kept);
        let done = tokio::time::timeout(Duration::from_secs(60), done).await;
        let error = done.expect("it does not end").expect_err("it was taken");
        assert_eq!(error.kind(), Kind::Permanent, "{}", whole(&error));
        assert!(rig.whole().await.contains(&format!("checkpoint {}", next - 1)));
    }
}

#[tokio::test]
async fn references_within_a_block_hold_in_sets_whatever_else_the_block_does() {
    let test = database("exact_sets_second").await;
    let sql = "create table p (id integer primary key); create table c (id integer primary key, p integer references p); \
               create table t (id integer primary key, n integer, s bigserial)";
    let mut rig = Rig::up(&test, "sets_second", sql).await;
    let blocks = [
        "+c {\"id\": 1, \"p\": 1}\n+p {\"id\": 1}\n+t {\"id\": 1}",
        "+c {\"id\": 2, \"p\": 2}\n+p {\"id\": 2}\n+t {\"id\": 2, \"n\": 2}\n+t {\"id\": 2, \"n\": 3}",
    ];
    forth_and_back(&mut rig, &blocks)
        .await
        .map(drop)
        .or_else(|error| {
            // A number that a default gives is another one the second time.
            if error.contains("back to") { Ok(()) } else { Err(error) }
        })
        .unwrap();
}

#[tokio::test]
async fn a_unique_index_made_meanwhile_is_reckoned_with_by_the_next_writer() {
    let test = database("exact_new_unique").await;
    let mut rig = Rig::up(&test, "unique", "create table t (id integer primary key, x text)").await;
    rig.commit(0, changes("+t {\"id\": 1, \"x\": \"a\"}\n+t {\"id\": 2, \"x\": \"b\"}")).await;
    let first = rig.everything().await;
    rig.commit(1, changes("+t {\"id\": 1, \"x\": \"c\"}\n+t {\"id\": 2, \"x\": \"a\"}")).await;
    rig.run("create unique index on t (x)").await;
    let error = rig.roll_back(0).await.expect_err("it is new");
    assert_eq!(error.kind(), Kind::Transient, "{}", whole(&error));
    rig.stop().await;
    undo(&mut rig, Some(0), &first).await.unwrap();
}

#[tokio::test]
async fn after_a_restore_the_first_migration_may_rename_columns() {
    let test = database("exact_restored").await;
    let sql = "create table t (id integer primary key, a integer, b integer)";
    let mut rig = Rig::up(&test, "restored", sql).await;
    rig.commit(0, changes("+t {\"id\": 1, \"a\": 1, \"b\": 1}")).await;
    let first = rig.everything().await;
    rig.commit(1, changes("+t {\"id\": 1, \"a\": 2}")).await;
    rig.stop().await;
    let renumber = "update debshrew.journal_column \
                       set table_oid = table_oid::int8 + 100000, attribute_number = attribute_number + 7";
    rig.client.batch_execute(renumber).await.unwrap();
    let report = rig.migrate("alter table t rename a to aa").await.unwrap();
    assert_eq!(report.pipelines[0].cut, [] as [&str; 0]);
    undo(&mut rig, Some(0), &first).await.unwrap();
}
