//! What belongs to others is not used: their schemas, their tables, their locks; and readers see what is theirs to see.

use debshrew::schema::{Mode, Roles, migrate};
use tokio_postgres::Client;

use crate::support::{COUNTER, Output, Rig, Scene, TestDb, database, quick, until, whole};

/// A role of this database's, made anew.
async fn role(client: &Client, name: &str, more: &str) {
    let sql = format!(
        "do $$ begin if exists (select from pg_roles where rolname = '{name}') then \
           execute 'drop owned by {name}'; execute 'drop role {name}'; end if; end $$; create role {name} {more}"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Names that a role can take over which may only create in `public`, as everybody could before PostgreSQL 15: each makes
/// him a superuser when one calls it.
fn traps(mallory: &str) -> String {
    let gain = format!(
        "begin if (select rolsuper from pg_roles where rolname = current_user) then \
         execute 'alter role {mallory} superuser'; end if; "
    );
    format!(
        "create function public.gain() returns void language plpgsql as $$ {gain} end $$; \
         create function public.equal(oid, int4) returns bool language plpgsql as $$ {gain} return $1::int8 = $2; end $$; \
         create operator public.= (leftarg = oid, rightarg = int4, function = public.equal); \
         create function public.unnest(text[]) returns setof text language plpgsql as \
           $$ {gain} return query select pg_catalog.unnest($1); end $$; \
         create function public.unnest(oid[]) returns setof oid language plpgsql as \
           $$ {gain} return query select pg_catalog.unnest($1); end $$; \
         create function public.unnest(int2[]) returns setof int2 language plpgsql as \
           $$ {gain} return query select pg_catalog.unnest($1); end $$; \
         create function public.brin_summarize_new_values(oid) returns int4 language plpgsql as \
           $$ {gain} return 0; end $$; \
         create function public.array_agg(text) returns text[] language plpgsql as $$ {gain} return null; end $$; \
         create function public.format(text, text) returns text language plpgsql as \
           $$ {gain} return pg_catalog.format($1, $2); end $$; \
         create function public.equal(name, text) returns bool language plpgsql as \
           $$ {gain} return $1::text operator(pg_catalog.=) $2; end $$; \
         create operator public.= (leftarg = name, rightarg = text, function = public.equal);"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_create_in_public_gains_nothing_by_it() {
    let test = database("owners_traps").await;
    let admin = test.connect().await;
    role(&admin, "debshrew_test_mallory", "").await;
    admin
        .batch_execute(
            "alter database debshrew_test_owners_traps reset search_path; \
             grant create, usage on schema public to debshrew_test_mallory",
        )
        .await
        .unwrap();
    let mallory = test.connect().await;
    mallory.batch_execute("set role debshrew_test_mallory").await.unwrap();
    mallory.batch_execute(&traps("debshrew_test_mallory")).await.unwrap();

    let mut scene = Scene::over(test, COUNTER, quick(30)).await;
    // The tables are among what he makes.
    scene.toml.push_str("schema = \"public\"\n");
    let checked = scene.succeed(&["check"]).await;
    let note = "role debshrew_test_mallory may create objects in schema `public`";
    assert!(checked.stdout.contains(note), "{}", checked.stdout);
    scene.succeed(&["migrate"]).await;
    scene.succeed(&["run", "--once"]).await;
    scene.reorganise(5, 8).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    scene.succeed(&["rollback", "--to", "20", "--yes"]).await;
    scene.succeed(&["status"]).await;
    let reader = scene.database.connect().await;
    reader
        .batch_execute("set search_path to default; table debshrew.pipelines; table debshrew.blocks; table debshrew.reorgs")
        .await
        .unwrap();
    let super_now = "select rolsuper from pg_roles where rolname = 'debshrew_test_mallory'";
    assert!(!admin.query_one(super_now, &[]).await.unwrap().get::<_, bool>(0), "he is a superuser");
}

/// The database without debshrew's schema.
async fn bare(name: &str) -> (TestDb, Client) {
    let test = database(name).await;
    let admin = test.connect().await;
    admin.batch_execute("drop schema debshrew cascade").await.unwrap();
    (test, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_somebody_else_made_first_are_refused_by_name() {
    let (test, admin) = bare("owners_schemas").await;
    role(&admin, "debshrew_test_squatter", "").await;
    let scene = Scene::over(test, COUNTER, quick(5)).await;
    for schema in ["debshrew", "debshrew_counter", "counter"] {
        admin
            .batch_execute(&format!("create schema {schema} authorization debshrew_test_squatter"))
            .await
            .unwrap();
        let said = format!("schema `{schema}` belongs to role `debshrew_test_squatter`");
        for command in
            [&["check"][..], &["migrate"], &["migrate", "--dry-run"], &["run", "--migrate", "--once"]]
        {
            let Output { code, stdout, stderr } = scene.run(command).await;
            assert_ne!(code, 0, "{schema} {command:?} was taken: {stdout}");
            assert!((stdout + &stderr).contains(&said), "{schema} {command:?}: {stderr}");
        }
        admin.batch_execute(&format!("drop schema {schema} cascade")).await.unwrap();
    }
    // Nor is one used that was given away later.
    scene.succeed(&["migrate"]).await;
    for schema in ["debshrew", "debshrew_counter", "counter"] {
        admin.batch_execute(&format!("alter schema {schema} owner to debshrew_test_squatter")).await.unwrap();
        for command in [&["run", "--once"][..], &["check"], &["rollback", "--to", "1", "--yes"]] {
            let Output { code, stdout, stderr } = scene.run(command).await;
            assert_ne!(code, 0, "{schema} {command:?} was taken: {stdout}");
            let said = format!("schema `{schema}` belongs to role `debshrew_test_squatter`");
            assert!((stdout + &stderr).contains(&said), "{schema} {command:?}: {stderr}");
        }
        admin.batch_execute(&format!("alter schema {schema} owner to postgres")).await.unwrap();
    }
    let status = "alter schema debshrew owner to debshrew_test_squatter";
    admin.batch_execute(status).await.unwrap();
    assert_ne!(scene.run(&["status"]).await.code, 0, "status reads what is another's");
}

#[tokio::test]
async fn schemas_of_a_role_that_we_are_a_member_of_and_of_the_databases_owner_are_taken() {
    let (test, admin) = bare("owners_members").await;
    role(&admin, "debshrew_test_group", "").await;
    role(&admin, "debshrew_test_owner", "").await;
    role(&admin, "debshrew_test_member", "in role debshrew_test_group").await;
    admin
        .batch_execute(
            "grant create on database debshrew_test_owners_members to debshrew_test_member; \
             create schema debshrew authorization debshrew_test_group; \
             create schema taken authorization debshrew_test_owner; \
             grant all on schema taken to debshrew_test_member; \
             alter database debshrew_test_owners_members owner to debshrew_test_owner",
        )
        .await
        .unwrap();
    let member = TestDb { dsn: test.as_role("debshrew_test_member") };
    let (_, report) = Rig::up_with_report(&member, "taken", "create table t (id integer primary key)").await;
    assert_eq!(report.pipelines[0].tables, ["t"]);
    // The owner of a database may have left it to others.
    admin.batch_execute("alter database debshrew_test_owners_members owner to postgres").await.unwrap();
}

#[tokio::test]
async fn a_table_that_belongs_to_somebody_else_is_not_replicated() {
    let test = database("owners_tables").await;
    let admin = test.connect().await;
    role(&admin, "debshrew_test_tabler", "").await;
    let sql = "create table mine (id integer primary key);
               create table his (id integer primary key); alter table his owner to debshrew_test_tabler;
               create table split (id integer primary key) partition by list (id);
               create table split_1 partition of split for values in (1);
               alter table split_1 owner to debshrew_test_tabler;";
    let (_, report) = Rig::up_with_report(&test, "tables", sql).await;
    assert_eq!(report.pipelines[0].tables, ["mine"]);
    for table in ["his", "split"] {
        let reason = &report.pipelines[0].refused[table];
        assert!(reason.contains("belongs to role `debshrew_test_tabler`"), "{table}: {reason}");
    }
}

#[tokio::test]
async fn a_table_that_belongs_to_somebody_else_is_not_read_either() {
    let (test, admin) = bare("owners_policies").await;
    role(&admin, "debshrew_test_humble", "").await;
    role(&admin, "debshrew_test_policer", "").await;
    admin
        .batch_execute(
            "grant create on database debshrew_test_owners_policies to debshrew_test_humble; \
             create schema open authorization debshrew_test_humble; \
             grant create, usage on schema open to debshrew_test_policer; set role debshrew_test_policer; \
             create table open.his (id integer primary key); insert into open.his values (1); \
             create function open.ran() returns bool language plpgsql as $$ begin \
               raise exception 'his code ran as %', current_user; end $$; \
             alter table open.his enable row level security; \
             create policy p on open.his using (open.ran()); grant select on open.his to public; reset role",
        )
        .await
        .unwrap();
    let plain = TestDb { dsn: test.as_role("debshrew_test_humble") };
    let (_, report) = Rig::up_with_report(&plain, "open", "create table t (id integer primary key)").await;
    assert_eq!(report.pipelines[0].tables, ["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_has_put_into_our_schemas_is_refused() {
    let (test, admin) = bare("owners_objects").await;
    role(&admin, "debshrew_test_planter", "").await;
    let scene = Scene::over(test, COUNTER, quick(5)).await;
    let history =
        "(version int4 primary key, name varchar(255), applied_on varchar(255), checksum varchar(255))";
    for (schema, thing) in [
        ("debshrew", format!("table debshrew.migration_history {history}")),
        ("debshrew", "function debshrew.advance() returns int language sql as 'select 1'".to_owned()),
        (
            "debshrew_counter",
            "table debshrew_counter.debshrew_state (key bytea primary key, value bytea)".to_owned(),
        ),
    ] {
        let sql = format!(
            "create schema {schema}; grant create, usage on schema {schema} to debshrew_test_planter; \
             set role debshrew_test_planter; create {thing}; reset role"
        );
        admin.batch_execute(&sql).await.unwrap();
        for command in [&["check"][..], &["migrate"]] {
            let Output { code, stdout, stderr } = scene.run(command).await;
            assert_ne!(code, 0, "{thing} {command:?} was taken: {stdout}");
            let said = "belongs to role `debshrew_test_planter`, which debshrew does not trust";
            assert!((stdout + &stderr).contains(said), "{thing} {command:?}: {stderr}");
        }
        admin.batch_execute(&format!("drop schema {schema} cascade")).await.unwrap();
    }
    // Nor does a trigger fire that somebody was let make.
    scene.succeed(&["migrate"]).await;
    admin
        .batch_execute(
            "create schema planted authorization debshrew_test_planter; \
             grant usage on schema debshrew to debshrew_test_planter; \
             grant trigger on debshrew.activity to debshrew_test_planter; set role debshrew_test_planter; \
             create function planted.g() returns trigger language plpgsql as $$ begin return new; end $$; \
             create trigger g before update on debshrew.activity for each row execute function planted.g(); reset role",
        )
        .await
        .unwrap();
    for command in [&["check"][..], &["migrate"], &["run", "--once"]] {
        let Output { code, stdout, stderr } = scene.run(command).await;
        assert_ne!(code, 0, "{command:?}: {stdout}");
        let said = "`debshrew.activity`'s trigger `g` belongs to role `debshrew_test_planter`";
        assert!((stdout + &stderr).contains(said), "{command:?}: {stderr}");
    }
}

/// Takes the pipeline's lock, as anybody can who may connect.
async fn squat(client: &Client) -> i32 {
    let sql = "set application_name = E'debshrew/squat\\nted'; select pg_advisory_lock(1684173672, pipeline_id) \
               from debshrew.pipeline where name = 'counter'";
    client.batch_execute(sql).await.unwrap();
    client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_our_locks_is_named_and_does_not_count_as_a_writer() {
    let scene = Scene::new("owners_locks", COUNTER, quick(10)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let squatter = scene.database.connect().await;
    let state = "select state from debshrew.pipelines";
    scene.client.batch_execute("update debshrew.activity set state = 'running'").await.unwrap();
    assert_eq!(scene.client.query_one(state, &[]).await.unwrap().get::<_, &str>(0), "stopped");
    let pid = squat(&squatter).await;
    let found: String = scene.client.query_one(state, &[]).await.unwrap().get(0);
    assert_eq!(found, "stopped", "somebody's lock counts as the writer's");

    // A name is cut and cleaned by PostgreSQL.
    let named = format!("process {pid} of role \"postgres\" with application name \"debshrew/squat");
    for command in [&["migrate"][..], &["rollback", "--to", "5", "--yes"]] {
        let Output { code, stderr, .. } = scene.run(command).await;
        assert_eq!(code, 1, "{command:?}: {stderr}");
        assert!(stderr.contains(&named) && stderr.contains("is not its writer"), "{command:?}: {stderr}");
        assert!(stderr.contains(&format!("select pg_terminate_backend({pid})")), "{command:?}: {stderr}");
    }
    let _standby = scene.start(&["run"]);
    scene.logged(&named, 1).await;
    scene.client.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    until("the pipeline runs", async || scene.state().await == "running").await;

    // Of a real writer the same is said, and that it is one.
    let Output { stderr, .. } = scene.run(&["migrate"]).await;
    assert!(stderr.contains("a running debshrew writes it (PostgreSQL process "), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_the_lock_on_migrations_is_named_while_it_is_waited_for() {
    let scene = Scene::new("owners_migrations", COUNTER, quick(5)).await;
    let squatter = scene.database.connect().await;
    squatter
        .batch_execute("set application_name = 'slow'; select pg_advisory_lock(1684173672, 0)")
        .await
        .unwrap();
    let mut migrating = scene.start(&["migrate"]);
    scene.logged("waiting for the lock on migrations", 1).await;
    scene.logged("of role \"postgres\" with application name \"slow\"", 1).await;
    squatter.batch_execute("select pg_advisory_unlock(1684173672, 0)").await.unwrap();
    assert!(migrating.wait().await.unwrap().success());
}

#[tokio::test]
async fn readers_are_let_into_what_is_replicated_alone_and_into_what_is_made_later() {
    let test = database("owners_readers").await;
    let admin = test.connect().await;
    role(&admin, "debshrew_test_lector", "").await;
    let sql = "create table t (id integer primary key, x text); create view seen as select x from t;
               create view twice as select x from seen;";
    admin
        .batch_execute("create schema shared; create table shared.secrets (id integer primary key, x text)")
        .await
        .unwrap();
    admin
        .batch_execute(
            "create table shared.no_key (x text); create view shared.leak as select x from shared.no_key; \
             create function shared.told() returns text language sql as 'select min(x) from shared.no_key'; \
             create materialized view shared.stored as select shared.told() as x; \
             create view shared.of_stored as select x from shared.stored; \
             create materialized view shared.xml as \
               select pg_catalog.query_to_xml('table shared.no_key', true, false, '')::text as x; \
             create materialized view shared.copied as select count(*) from shared.secrets where x < 'z'",
        )
        .await
        .unwrap();
    let mut rig = Rig::up(&test, "shared", sql).await;
    let roles = Roles { readers: vec!["debshrew_test_lector".to_owned()], ..Roles::default() };
    migrate(&mut rig.db.dedicated().await.unwrap(), &[rig.wanted()], &roles, Mode::Apply).await.unwrap();
    // Made by others, later: nothing of ours lets readers in.
    admin.batch_execute("create table shared.later (x text)").await.unwrap();
    rig.migrate("create table made_later (id integer primary key)").await.unwrap();
    let may = "select has_table_privilege('debshrew_test_lector', $1::text::regclass, 'select')";
    for (name, expected) in [
        ("t", true),
        ("seen", true),
        ("twice", true),
        ("made_later", true),
        ("secrets", true),
        ("no_key", false),
        ("leak", false),
        ("stored", false),
        ("of_stored", false),
        ("xml", false),
        ("copied", true),
        ("later", false),
    ] {
        let found: bool = admin.query_one(may, &[&format!("shared.{name}")]).await.unwrap().get(0);
        assert_eq!(found, expected, "{name}");
    }
    // A role that is gone is passed over.
    admin.batch_execute("drop owned by debshrew_test_lector; drop role debshrew_test_lector").await.unwrap();
    rig.migrate("create table last (id integer primary key)")
        .await
        .unwrap_or_else(|error| panic!("{}", whole(&error)));
}
