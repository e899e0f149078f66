//! `migrate`: from every earlier version of debshrew's own schema, all or nothing, one at a time, and who may read
//! afterwards.

use debshrew::block::Height;
use debshrew::db::migrate::{OWN_HISTORY, own, run};
use debshrew::pipeline::PipelineError;
use debshrew::register::Cause;
use debshrew::schema::{Mode, Roles, SchemaError, migrate, progress};
use debshrew::undo::{Pruner, UndoError};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::{Rig, at, connect_as, database, delete, put};

const TABLE: &str = "create table t (id integer primary key, x text)";

fn whole(error: &SchemaError) -> String {
    let source = std::error::Error::source(error);
    let below = source.and_then(std::error::Error::source).or(source);
    format!("{error}: {}", below.map(ToString::to_string).unwrap_or_default())
}

/// A pipeline with two blocks, of which the second changed and made a row, as the first version stored it.
const SEED: &str = "
create schema old;
create table old.t (id integer primary key, x text);
insert into old.t values (1, 'second'), (2, 'new');
create schema debshrew_old;
create table debshrew_old.debshrew_state (
  key bytea not null, value bytea not null, constraint debshrew_state_pkey primary key (key));
create table debshrew_old.debshrew_state_journal (
  undo_height integer not null, undo_existed boolean not null, key bytea, value bytea);
create table debshrew_old.t (undo_height integer not null, undo_existed boolean not null, id integer, x text);
insert into debshrew_old.t values (1, true, 1, 'first'), (1, false, 2, null);
insert into debshrew.pipeline (name, schema_name, start_height) values ('old', 'old', 0);
insert into debshrew.checkpoint (pipeline_id, height, hash) values (1, 1, decode(repeat('01', 32), 'hex'));
insert into debshrew.activity (pipeline_id, state) values (1, 'stopped');
insert into debshrew.block (pipeline_id, height, hash, changes, journaled)
select 1, h, decode(repeat('0' || h, 32), 'hex'), 1, true from generate_series(0, 1) h;
insert into debshrew.reorg (pipeline_id, from_height, from_hash, depth, rows_restored, cause)
values (1, 0, decode(repeat('07', 32), 'hex'), 1, 1, 'reorg');
insert into debshrew.journal_column (pipeline_id, table_name, table_oid, column_name, attribute_number, in_key)
values (1, 't', 'old.t'::regclass, 'id', 1, true), (1, 't', 'old.t'::regclass, 'x', 2, false),
       (1, 'debshrew_state', 'debshrew_old.debshrew_state'::regclass, 'key', 1, true),
       (1, 'debshrew_state', 'debshrew_old.debshrew_state'::regclass, 'value', 2, false);
";

#[tokio::test]
async fn every_earlier_version_migrates_with_its_data_and_goes_on() {
    let mut versions = own();
    versions.sort();
    for version in 1..=versions.len() {
        let test = database(&format!("migrations_from_{version}")).await;
        let mut client = test.connect().await;
        client.batch_execute("drop schema debshrew cascade; create schema debshrew").await.unwrap();
        let transaction = client.transaction().await.unwrap();
        run(&transaction, &versions[..version], OWN_HISTORY).await.unwrap();
        transaction.batch_execute(SEED).await.unwrap();
        transaction.commit().await.unwrap();

        let mut rig =
            Rig::up(&test, "old", "create table if not exists t (id integer primary key, x text)").await;
        let history = format!("select count(*) from {OWN_HISTORY}");
        let applied: i64 = client.query_one(&history, &[]).await.unwrap().get(0);
        assert_eq!(applied, versions.len() as i64, "from version {version}");
        assert_eq!(rig.commit(2, vec![delete("t", r#"{"id": 1}"#)]).await, 1);
        assert_eq!(rig.roll_back(0).await.unwrap().to, Some(at(0)));
        assert_eq!(rig.rows("t").await, ["(1,first)"], "from version {version}");
        let reorgs = "select count(*) from debshrew.reorgs where pipeline = 'old'";
        assert_eq!(client.query_one(reorgs, &[]).await.unwrap().get::<_, i64>(0), 2);
    }
}

#[tokio::test]
async fn a_database_newer_than_the_program_is_refused() {
    let test = database("migrations_newer").await;
    let mut rig = Rig::up(&test, "newer", TABLE).await;
    rig.client
        .batch_execute("insert into debshrew.migration_history select 999, 'later', applied_on, checksum from debshrew.migration_history where version = 1")
        .await
        .unwrap();
    let error = rig.migrate_again(Mode::Apply).await.unwrap_err();
    assert!(error.to_string().contains("has version 999, and this debshrew knows versions up to"), "{error}");
    assert!(progress(&rig.client, &[]).await.is_err());
    let error = rig.try_writer().await.err().expect("a newer database was written");
    assert!(error.to_string().contains("run a newer debshrew"), "{error}");
}

#[tokio::test]
async fn a_database_older_than_the_program_is_not_written() {
    let test = database("migrations_older").await;
    let mut rig = Rig::up(&test, "older", TABLE).await;
    rig.client.batch_execute("delete from debshrew.migration_history").await.unwrap();
    let error = rig.try_writer().await.err().expect("an older database was written");
    assert!(
        error.to_string().contains("has version 0") && error.to_string().contains("run `debshrew migrate`")
    );
}

#[tokio::test]
async fn migrations_that_were_edited_or_taken_away_are_named() {
    let test = database("migrations_edited").await;
    let mut rig = Rig::up(&test, "edited", TABLE).await;
    rig.migrate("alter table t add y text").await.unwrap();
    let second = rig.folder().join("V2__step.sql");
    std::fs::write(&second, "alter table t add z text").unwrap();
    let error = rig.migrate_again(Mode::Apply).await.unwrap_err().to_string();
    assert!(error.contains("pipeline `edited`") && error.contains("V2__step"), "{error}");
    assert!(error.contains("different"), "{error}");
    std::fs::remove_file(&second).unwrap();
    let error = rig.migrate_again(Mode::Apply).await.unwrap_err().to_string();
    assert!(error.contains("pipeline `edited`") && error.contains("V2__step"), "{error}");
    assert!(error.contains("missing"), "{error}");
}

#[tokio::test]
async fn a_file_that_has_no_migrations_name_is_not_passed_over() {
    let test = database("migrations_misnamed").await;
    let mut rig = Rig::up(&test, "misnamed", TABLE).await;
    std::fs::write(rig.folder().join("README.md"), "").unwrap();
    rig.migrate_again(Mode::Apply).await.unwrap();
    for name in ["V2_step.sql", "V2.sql", "2__step.sql", "V2__a-step.sql", "V__step.sql", "V2__step.SQL"] {
        std::fs::write(rig.folder().join(name), "select 1").unwrap();
        let error = rig.migrate_again(Mode::Apply).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{name}` in the migrations folder")), "{name}: {error}");
        std::fs::remove_file(rig.folder().join(name)).unwrap();
    }
    std::fs::write(rig.folder().join("V002__a_2nd_step.sql"), "select 1").unwrap();
    let report = rig.migrate_again(Mode::Apply).await.unwrap();
    assert_eq!(report.pipelines[0].migrations, ["V2__a_2nd_step"]);
}

/// Every object, with its columns, and every history: what a migration may leave behind.
async fn left_behind(client: &Client) -> Vec<String> {
    let sql = "
        select format('%s.%s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
         where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_'
        union all select nspname from pg_namespace where nspname !~ '^pg_'
        union all select format('%s %s', name, start_height) from debshrew.pipeline
        union all select format('%s %s', height, journal_floor) from debshrew.checkpoint
        union all select column_name from debshrew.journal_column
        union all select defaclacl::text from pg_default_acl
         order by 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn what_fails_and_what_is_only_tried_leaves_nothing_behind() {
    let test = database("migrations_nothing").await;
    let mut rig = Rig::up(&test, "nothing", TABLE).await;
    rig.commit(0, vec![put("t", r#"{"id": 1}"#)]).await;
    let before = left_behind(&rig.client).await;
    rig.add("create table fine (id integer primary key); alter table t drop x; update t set id = 2");
    let tried = rig.migrate_again(Mode::DryRun).await.unwrap();
    assert_eq!(tried.pipelines[0].migrations, ["V2__step"]);
    assert!(tried.pipelines[0].journals.iter().any(|done| done.contains("made the journal of `fine`")));
    assert_eq!(left_behind(&rig.client).await, before);
    rig.add("-- ä\ncreate table broken (id nonsense)");
    let error = rig.migrate_again(Mode::Apply).await.unwrap_err().to_string();
    assert!(error.contains("pipeline `nothing`: V3__step, line 2: ERROR: type \"nonsense\""), "{error}");
    assert_eq!(left_behind(&rig.client).await, before);
    // A new pipeline that fails is not registered either.
    let mut wanted = rig.wanted();
    wanted.name = "another".into();
    wanted.schema = "another".into();
    let mut session = rig.db.dedicated().await.unwrap();
    assert!(migrate(&mut session, &[wanted], &Roles::default(), Mode::Apply).await.is_err());
    assert_eq!(left_behind(&rig.client).await, before);
}

#[tokio::test]
async fn a_migration_that_commits_by_itself_is_noticed() {
    let test = database("migrations_commit").await;
    let mut rig = Rig::up(&test, "commits", TABLE).await;
    let error = rig.migrate("create table u (id integer primary key); commit; begin").await.unwrap_err();
    assert!(error.to_string().contains("take `commit` and `rollback` out"), "{error}");
    assert!(error.to_string().contains("V2__step"), "{error}");
}

#[tokio::test]
async fn two_at_once_run_one_after_the_other() {
    let test = database("migrations_two").await;
    let mut rig = Rig::up(&test, "two", TABLE).await;
    rig.add("create table once (id integer primary key)");
    let (mut one, mut two) = (rig.db.dedicated().await.unwrap(), rig.db.dedicated().await.unwrap());
    let wanted = [rig.wanted()];
    let roles = Roles::default();
    let (one, two) = tokio::join!(
        migrate(&mut one, &wanted, &roles, Mode::Apply),
        migrate(&mut two, &wanted, &roles, Mode::Apply),
    );
    let mut ran: Vec<usize> =
        [one, two].into_iter().map(|report| report.unwrap().pipelines[0].migrations.len()).collect();
    ran.sort_unstable();
    assert_eq!(ran, [0, 1]);
}

#[tokio::test]
async fn while_a_pipeline_runs_its_migration_is_refused() {
    let test = database("migrations_running").await;
    let mut rig = Rig::up(&test, "running", TABLE).await;
    rig.commit(0, Vec::new()).await;
    let mut session = rig.db.dedicated().await.unwrap();
    let wanted = [rig.wanted()];
    let error = migrate(&mut session, &wanted, &Roles::default(), Mode::Apply).await.unwrap_err();
    assert!(matches!(error, SchemaError::Running { .. }), "{error:?}");
    assert!(error.to_string().contains("stop it first"));
    rig.stop().await;
    // The session that was refused holds nothing back.
    migrate(&mut session, &wanted, &Roles::default(), Mode::Apply).await.unwrap();
    rig.commit(1, Vec::new()).await;
}

#[tokio::test]
async fn readers_can_read_everything_later_tables_included_and_write_nothing() {
    let test = database("migrations_readers").await;
    let mut rig = Rig::up(&test, "readable", TABLE).await;
    rig.client
        .batch_execute("drop role if exists debshrew_test_reader; create role debshrew_test_reader")
        .await
        .unwrap();
    let mut session = rig.db.dedicated().await.unwrap();
    let wanted = [rig.wanted()];
    let nobody = Roles { readers: vec!["nobody \"at\" home".into()], ..Roles::default() };
    let error = migrate(&mut session, &wanted, &nobody, Mode::Apply).await.unwrap_err();
    assert!(whole(&error).contains("role \"nobody \"at\" home\" does not exist"), "{}", whole(&error));
    let roles = Roles { readers: vec!["debshrew_test_reader".to_owned()], ..Roles::default() };
    let report = migrate(&mut session, &wanted, &roles, Mode::Apply).await.unwrap();
    assert_eq!(report.roles.readers, roles.readers);
    rig.migrate("create table later (id integer primary key); create view seen as select * from later")
        .await
        .unwrap();
    rig.commit(0, vec![put("later", r#"{"id": 1}"#)]).await;

    let reader = test.connect().await;
    reader.batch_execute("set role debshrew_test_reader").await.unwrap();
    for table in ["readable.t", "readable.later", "readable.seen"].into_iter().chain([
        "debshrew.pipelines",
        "debshrew.blocks",
        "debshrew.reorgs",
        "debshrew.table_sizes",
    ]) {
        reader
            .query(&format!("select * from {table}"), &[])
            .await
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
    }
    for forbidden in [
        "insert into readable.later values (2)",
        "update readable.t set x = 'y'",
        "delete from readable.later",
        "truncate readable.later",
        "create table readable.mine ()",
        "update debshrew.checkpoint set height = null, hash = null",
        "select * from debshrew_readable.debshrew_state",
        "select debshrew.advance(1, 1, 0, '', 1, '', 0, true, null, null)",
    ] {
        let error = reader.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{forbidden}: {error:?}");
    }
}

#[tokio::test]
async fn a_role_that_may_create_schemas_is_enough() {
    let test = database("migrations_role").await;
    let client = test.connect().await;
    client
        .batch_execute(
            "drop schema debshrew cascade; drop role if exists debshrew_test_plain; \
             create role debshrew_test_plain; \
             grant create, temporary on database debshrew_test_migrations_role to debshrew_test_plain",
        )
        .await
        .unwrap();
    let plain = crate::support::TestDb { dsn: test.as_role("debshrew_test_plain") };
    let sql = "create table p (id integer primary key, n text unique); \
               create table t (id integer primary key, p integer references p deferrable)";
    let mut rig = Rig::up(&plain, "plain", sql).await;
    let mut pruner = Pruner::new(connect_as(&plain.dsn), 1);
    for height in 0..70 {
        let row = format!(r#"{{"id": {height}, "p": {height}}}"#);
        let parent = format!(r#"{{"id": {height}, "n": "n{height}"}}"#);
        rig.commit(height, vec![put("t", &row), put("p", &parent)]).await;
        rig.writer().await.prune(&mut pruner).await;
    }
    rig.roll_back(68).await.unwrap();
    assert_eq!(rig.rows("t").await.len(), 69);
    // The pruner works beside; a rollback below its floor is refused.
    let error = rig.writer().await.roll_back(Height::new(1), Cause::Operator).await.unwrap_err();
    assert!(matches!(error, PipelineError::Undo(UndoError::TooDeep { .. })), "{error:?}");
}
