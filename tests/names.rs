//! Names in SQL mean what they are meant to, whatever others have made in the database.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::{
    COUNTER, DEADLINE, Journaling, Pruner, Rig, Scene, TestDb, changes, connect_as, own_server, quick,
};

/// What has the name of something in pg_catalog. See the file.
const CLONES: &str = include_str!("names/clones.sql");

/// A server that logs each statement, and how it was understood, as a table's rows.
const LOGGING: [(&str, &str); 7] = [
    ("logging_collector", "on"),
    ("log_destination", "csvlog"),
    ("log_filename", "statements"),
    ("log_rotation_size", "0"),
    ("log_statement", "all"),
    ("debug_print_parse", "on"),
    ("debug_pretty_print", "off"),
];

const TABLES: &str = "
    create table parents (name text primary key, x text, y numeric default 1, z jsonb);
    create table parts (
      height integer, place numeric, x text, owner text references parents deferrable initially deferred,
      primary key (height, place));
    create table times (at timestamptz primary key, x text);
    create table words (words text[] primary key, x text);
    create table uniques (id bigint primary key, name text unique, x text);
    create table split (id integer primary key, x text) partition by list (id);
    create table split_1 partition of split for values in (1, 2, 3);
    create table one (id integer primary key, other integer);
    create table other (id integer primary key, one integer references one deferrable);
    alter table one add foreign key (other) references other deferrable;
    create table touched (id integer primary key, x text, at timestamptz);
    create function touch() returns trigger language plpgsql as 'begin new.at := now(); return new; end';
    create trigger touch before insert or update on touched for each row execute function touch();";

/// Blocks that take every kind of statement.
const BLOCKS: [&str; 3] = [
    r#"+parents {"name": "a", "x": "1", "y": 1, "z": {}}
       +parents {"name": "b", "x": "1"}
       +parts {"height": 1, "place": "1.0", "x": "1", "owner": "a"}
       +times {"at": "2026-01-01T00:00:00Z", "x": "1"}
       +words {"words": ["a", "b"], "x": "1"}
       +uniques {"id": 1, "name": "a", "x": "1"}
       +uniques {"id": 2, "name": "b", "x": "1"}
       +split {"id": 1, "x": "1"}
       +one {"id": 1, "other": 1}
       +other {"id": 1, "one": 1}
       +touched {"id": 1, "x": "1"}"#,
    r#"+parents {"name": "a", "x": "2"}
       +parents {"name": "c", "x": "2", "y": 3, "z": null}
       -parts {"height": 1, "place": "1.00"}
       +parts {"height": 1, "place": "1.00", "x": "2", "owner": "c"}
       +times {"at": "2026-01-01T01:00:00+01:00", "x": "2"}
       +words {"words": ["a", "b"], "x": "2"}
       +uniques {"id": 1, "name": "c"}
       +uniques {"id": 2, "name": "a", "x": "2"}
       +split {"id": 1, "x": "2"}
       -one {"id": 1}
       -other {"id": 1}
       +touched {"id": 1, "x": "2"}
       +touched {"id": 1, "x": "3"}"#,
    r#"-parents {"name": "b"}
       -words {"words": ["a", "b"]}
       -touched {"id": 1}
       -uniques {"id": 1}
       -uniques {"id": 2}
       -split {"id": 1}"#,
];

/// Commits with and without a journal, rolls back, prunes.
async fn write(test: &TestDb) {
    let mut rig = Rig::up(test, "written", TABLES).await;
    for (height, block) in (0..).zip(BLOCKS) {
        // Where the tables' unique names are handed on, a block is applied twice.
        rig.commit(height, changes(block)).await;
    }
    rig.roll_back_to_start().await.unwrap();
    for (height, block) in (0..).zip(BLOCKS) {
        rig.try_commit_with(height, changes(block), Journaling::Skipped).await.unwrap();
    }
    for height in 3..9 {
        rig.commit(height, changes(BLOCKS[height as usize % 3])).await;
    }
    let mut pruner = Pruner::new(connect_as(&test.dsn), 2);
    rig.prune(&mut pruner).await;
    rig.roll_back(7).await.unwrap();
    let refused = rig.try_commit(8, changes(r#"+uniques {"id": 9, "name": "a", "x": "much"}"#)).await;
    refused.unwrap_err();
}

/// Runs every command that talks to the database.
async fn command(scene: &Scene) {
    scene.succeed(&["check"]).await;
    scene.succeed(&["migrate", "--dry-run"]).await;
    scene.succeed(&["migrate", "--grant-read", "reader"]).await;
    scene.succeed(&["migrate", "--status"]).await;
    scene.succeed(&["run", "--once"]).await;
    scene.reorganise(5, 8).await;
    scene.settled().await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    scene.succeed(&["rollback", "--to", "22", "--yes"]).await;
    scene.succeed(&["status"]).await;
}

/// The log as a table, and all that was logged so far in it.
async fn log(client: &Client) -> Vec<(String, String, Option<String>)> {
    // Its own statements are not logged.
    let sql = "set log_statement = 'none'; set debug_print_parse = off; create temp table logged \
               (a text, b text, c text, d text, e text, f text, g text, h text, i text, j text, k text, l text, m text, \
                message text, detail text, p text, q text, r text, s text, t text, u text, v text, application text, \
                w text, x text, y text)";
    client.batch_execute(sql).await.unwrap();
    for sql in ["set log_statement = 'all'", "select 'the end of the log'", "set log_statement = 'none'"] {
        client.batch_execute(sql).await.unwrap();
    }
    let folder: String = client.query_one("show data_directory", &[]).await.unwrap().get(0);
    let begun = Instant::now();
    loop {
        let copy =
            format!("truncate logged; copy logged from '{folder}/log/statements.csv' with (format csv)");
        // A line may have been written in part.
        let copied = client.batch_execute(&copy).await;
        if copied.is_ok() {
            let end = "select exists (select from logged where message like '%the end of the log%')";
            if client.query_one(end, &[]).await.unwrap().get(0) {
                break;
            }
        }
        assert!(begun.elapsed() < DEADLINE, "the log does not come to its end: {copied:?}");
        tokio::task::yield_now().await;
    }
    let rows =
        client.query("select application || '/' || d, message, detail from logged", &[]).await.unwrap();
    client.batch_execute("drop table logged").await.unwrap();
    rows.iter()
        .map(|row| (row.get::<_, Option<String>>(0).unwrap_or_default(), row.get(1), row.get(2)))
        .collect()
}

/// The schema of each object that is not PostgreSQL's own, by number.
async fn schemas(client: &Client) -> BTreeMap<u32, String> {
    let sql = "select o.oid, n.nspname::text from pg_namespace n join ( \
                 select oid, pronamespace from pg_proc union all select oid, oprnamespace from pg_operator union all \
                 select oid, typnamespace from pg_type union all select oid, relnamespace from pg_class union all \
                 select oid, collnamespace from pg_collation) o (oid, namespace) on n.oid = o.namespace \
                where o.oid >= 16384";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The objects outside PostgreSQL, debshrew and the pipelines that a parse tree has.
fn foreign<'a>(tree: &str, schemas: &'a BTreeMap<u32, String>) -> BTreeSet<&'a str> {
    let ours =
        |schema: &&str| schema.starts_with("debshrew") || ["counter", "written", "pg_toast"].contains(schema);
    let words: Vec<&str> = tree.split(|letter: char| !(letter.is_alphanumeric() || letter == ':')).collect();
    let fields = words.windows(2).filter(|pair| pair[0].starts_with(':'));
    let numbers = fields.filter_map(|pair| pair[1].parse::<u32>().ok());
    numbers
        .filter_map(|number| schemas.get(&number))
        .map(String::as_str)
        .filter(|schema| !ours(schema))
        .collect()
}

/// The statements of a line of the log; what is prepared is called by its name there.
fn statements(message: &str) -> Vec<String> {
    let Some((kind, text)) = message.split_once(": ") else { return Vec::new() };
    match kind {
        "statement" => text.split(';').map(str::to_owned).collect(),
        _ if kind.starts_with("execute ") => vec![text.to_owned()],
        _ => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_means_what_somebody_else_has_made() {
    let (_server, test) = own_server(&LOGGING).await;
    let admin = test.connect().await;
    admin.batch_execute("set log_statement = 'none'; set debug_print_parse = off").await.unwrap();
    admin.batch_execute(CLONES).await.unwrap();
    // Sessions begin with a path that has everything of PostgreSQL's a second time, and first.
    let path = "alter database debshrew_test_own set search_path = clones, pg_catalog; create role reader";
    admin.batch_execute(path).await.unwrap();
    let scene = Scene::over(test, COUNTER, quick(30)).await;
    command(&scene).await;
    write(&scene.database).await;
    let schemas = schemas(&admin).await;
    assert!(schemas.values().filter(|schema| *schema == "clones").count() > 3_500, "clones are missing");

    let logged = log(&admin).await;
    let ours = |line: &&(String, String, Option<String>)| line.0.starts_with("debshrew");
    let mut trees = 0;
    for (application, message, tree) in logged.iter().filter(ours) {
        if message.starts_with("parse tree") {
            trees += 1;
            let found = foreign(tree.as_deref().unwrap_or_default(), &schemas);
            assert!(found.is_empty(), "{application}: {found:?} in {tree:?}");
        }
    }
    assert!(trees > 300, "{trees} statements were looked at");

    // The writer's session has the pipeline's schema in its path, for the user's triggers and defaults: what is sent
    // there is understood once more, by a session with the worst of paths.
    let replay = scene.database.connect().await;
    replay.batch_execute("set search_path = clones, pg_catalog; set log_statement = 'none'").await.unwrap();
    let mut texts = BTreeSet::new();
    // A rollback has an empty path but while it puts rows back.
    let mut empty = BTreeSet::new();
    for (session, message) in
        logged.iter().filter(|line| line.0.matches('/').count() == 2).map(|line| (&line.0, &line.1))
    {
        for text in statements(message) {
            if text.contains("set local search_path = ''") {
                empty.insert(session);
            } else if ["commit", "rollback"].contains(&text.as_str())
                || text.contains("set local search_path = \"")
            {
                empty.remove(session);
            } else if !empty.contains(session) {
                texts.insert(text);
            }
        }
    }
    let texts: Vec<String> = texts.into_iter().collect();
    let mut prepared = 0;
    for (number, text) in texts.iter().enumerate() {
        replay.batch_execute(&format!("set application_name = 'replay/{number}'")).await.unwrap();
        match replay.prepare(text).await {
            Ok(_) => prepared += 1,
            // `begin` and its like cannot be prepared.
            Err(error) if error.code() == Some(&SqlState::SYNTAX_ERROR) => {}
            Err(error) => panic!("{error:?}: {text}"),
        }
    }
    assert!(prepared > 40, "{prepared} statements of writers were looked at");
    let mut faults = BTreeSet::new();
    for (application, message, tree) in &log(&admin).await {
        let number = application
            .strip_prefix("replay/")
            .and_then(|rest| rest.split('/').next()?.parse::<usize>().ok());
        let Some(text) = number.filter(|_| message.starts_with("parse tree")).map(|number| &texts[number])
        else {
            continue;
        };
        if !foreign(tree.as_deref().unwrap_or_default(), &schemas).is_empty() {
            faults.insert(text);
        }
    }
    let first = faults.first();
    assert!(first.is_none(), "{} statements have names without a schema, among them {first:?}", faults.len());
}
