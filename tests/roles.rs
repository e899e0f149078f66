//! Three roles with no more rights than they need, as the manual makes them: owner, writer, reader.

use tokio_postgres::Client;

use crate::support::{COUNTER, Output, Scene, database, quick};

/// The statements under "Roles" in docs/operations.md, for the pipeline of these tests.
fn documented() -> String {
    let page = include_str!("../docs/operations.md");
    let section = page.split_once("\n## Roles\n").unwrap().1;
    let sql = section.split_once("```sql\n").unwrap().1.split_once("```").unwrap().0;
    sql.replace("debshrew_ledger", "debshrew_counter").replace("schema ledger ", "schema counter ")
}

/// The scene as one of the roles, who logs in with its password.
fn become_role(scene: &mut Scene, role: &str, password: &str) {
    let mark = if scene.database.dsn.contains('?') { '&' } else { '?' };
    let dsn = format!("{}{mark}user={role}&password={password}", scene.database.dsn);
    let begin = scene.toml.find("url = \"").unwrap() + 7;
    let end = begin + scene.toml[begin..].find('"').unwrap();
    scene.toml.replace_range(begin..end, &dsn);
}

async fn try_as(scene: &Scene, role: &str, sql: &str) -> String {
    let client: Client = scene.database.connect().await;
    client.batch_execute(&format!("set role {role}")).await.unwrap();
    let error = client.batch_execute(sql).await.unwrap_err();
    error.as_db_error().unwrap().message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_roles_of_the_manual_can_do_what_they_are_for_and_nothing_else() {
    let test = database("roles").await;
    let admin = test.connect().await;
    admin.batch_execute("drop schema debshrew cascade").await.unwrap();
    for role in ["debshrew_owner", "debshrew_writer", "debshrew_reader"] {
        let gone = format!(
            "do $$ begin if exists (select from pg_roles where rolname = '{role}') then \
               execute 'drop owned by {role}'; execute 'drop role {role}'; end if; end $$"
        );
        admin.batch_execute(&gone).await.unwrap();
    }
    admin.batch_execute(&documented()).await.unwrap();
    let mut scene = Scene::over(test, COUNTER, quick(120)).await;
    let roles = "[database]\nowner_role = \"debshrew_owner\"\nwrite_roles = [\"debshrew_writer\"]\n\
                 read_roles = [\"debshrew_reader\"]\n";
    scene.toml = scene.toml.replacen("[database]\n", roles, 1);
    let folder = tempfile::tempdir().unwrap();
    // Pruning, and a sink that sees all.
    scene.toml.push_str(&format!(
        "retention = 20\n[pipelines.counter.sinks.events]\nkind = \"file\"\npath = \"{}\"\n",
        folder.path().display()
    ));

    // Before the owner has migrated, the writer is told what it lacks.
    become_role(&mut scene, "debshrew_writer", "two");
    let Output { code, stdout, .. } = scene.run(&["check"]).await;
    let lacks = "role \"debshrew_writer\" lacks usage on schema debshrew: `grant usage on schema debshrew to \"debshrew_writer\"`";
    assert!(code == 1 && stdout.contains(lacks), "{stdout}");
    let Output { code, stderr, .. } = scene.run(&["migrate"]).await;
    assert!(code == 1 && stderr.contains("`migrate` is for `debshrew_owner`"), "{stderr}");

    become_role(&mut scene, "debshrew_owner", "one");
    let Output { stdout, .. } = scene.succeed(&["migrate"]).await;
    assert!(stdout.contains("role `debshrew_writer` may write"), "{stdout}");
    // A rollback switches it off.
    admin
        .batch_execute(
            "set role debshrew_owner; \
             create function counter.keep() returns trigger language plpgsql as 'begin return new; end'; \
             create trigger keep before insert or update on counter.seen for each row execute function counter.keep(); \
             reset role",
        )
        .await
        .unwrap();
    scene.succeed(&["check"]).await;

    become_role(&mut scene, "debshrew_writer", "two");
    let Output { stdout, .. } = scene.succeed(&["check"]).await;
    assert!(stdout.contains("ok    rights of `counter`'s writer"), "{stdout}");
    scene.succeed(&["run", "--once"]).await;
    scene.reorganise(5, 8).await;
    scene.settled().await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    scene.succeed(&["rollback", "--to", "118", "--yes"]).await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    scene.succeed(&["status"]).await;
    scene.succeed(&["sinks"]).await;
    scene.succeed(&["tail", "counter", "--once", "--from", "120"]).await;
    let enabled = "select tgenabled::text from pg_trigger where tgname = 'keep'";
    assert_eq!(admin.query_one(enabled, &[]).await.unwrap().get::<_, &str>(0), "O");

    writes_no_more_than_rows(&scene).await;
    is_told_what_it_lacks(&scene, &admin).await;
    reader_reads(&scene).await;
}

async fn writes_no_more_than_rows(scene: &Scene) {
    for (sql, said) in [
        ("create table counter.mine (id integer)", "permission denied for schema counter"),
        ("create table debshrew.mine (id integer)", "permission denied for schema debshrew"),
        ("drop table counter.seen", "must be owner of table seen"),
        ("alter table counter.seen disable trigger keep", "must be owner of table seen"),
        ("delete from debshrew.journal_column", "permission denied for table journal_column"),
        ("delete from debshrew.pipeline", "permission denied for table pipeline"),
        ("update debshrew.migration_history set name = ''", "permission denied for table migration_history"),
        ("truncate counter.seen", "permission denied for table seen"),
        (
            "select debshrew.switch_trigger('debshrew.pipeline'::regclass, 'x', 'disable')",
            "table debshrew.pipeline is not replicated",
        ),
        (
            "select debshrew.switch_trigger('counter.seen'::regclass, 'keep', 'owner to debshrew_writer; --')",
            "a trigger cannot be switched like this",
        ),
    ] {
        let found = try_as(scene, "debshrew_writer", sql).await;
        assert!(found.contains(said), "{sql}: {found}");
    }
}

/// Each line of `check` has the statement that mends it.
async fn is_told_what_it_lacks(scene: &Scene, admin: &Client) {
    admin
        .batch_execute(
            "revoke insert, delete on counter.seen from debshrew_writer; \
             revoke usage on schema debshrew_counter from debshrew_writer; \
             revoke update (start_height) on debshrew.pipeline from debshrew_writer; \
             revoke execute on function debshrew.switch_trigger from debshrew_writer",
        )
        .await
        .unwrap();
    let Output { code, stdout, .. } = scene.run(&["check"]).await;
    let lines: Vec<&str> = stdout.lines().filter(|line| line.contains(" lacks ")).collect();
    assert!(code == 1 && lines.len() == 4, "{stdout}");
    assert!(stdout.contains("lacks insert, delete on table counter.seen"), "{stdout}");
    for line in lines {
        let sql = line.split('`').rev().nth(1).unwrap();
        assert!(sql.starts_with("grant "), "{line}");
        admin.batch_execute(sql).await.unwrap();
    }
    scene.succeed(&["check"]).await;
}

async fn reader_reads(scene: &Scene) {
    let reader = scene.database.connect().await;
    reader
        .batch_execute("set role debshrew_reader; table counter.seen; table debshrew.pipelines")
        .await
        .unwrap();
    let found = try_as(scene, "debshrew_reader", "delete from counter.seen").await;
    assert!(found.contains("permission denied for table seen"), "{found}");
    let found = try_as(scene, "debshrew_reader", "table debshrew.checkpoint").await;
    assert!(found.contains("permission denied for table checkpoint"), "{found}");
}
