//! No time limit of a role's or database's gets at our sessions; what is slow ends well.

use std::time::Instant;

use crate::support::{
    COUNTER, Proxy, Pruner, Rig, Scene, connect_as, database, own_server, put, quick, until,
};

/// Each so short that something of ours takes longer, and the first statement of a session does not.
const LIMITS: [(&str, &str); 4] = [
    ("statement_timeout", "50ms"),
    ("lock_timeout", "50ms"),
    ("idle_in_transaction_session_timeout", "50ms"),
    ("idle_session_timeout", "1s"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_database_s_time_limits_end_nothing_of_ours() {
    let test = database("steady_limits").await;
    let mut rig = Rig::up(&test, "limited", "create table t (id integer primary key, x text)").await;
    let admin = test.connect().await;
    for (limit, value) in LIMITS {
        let sql = format!("alter database debshrew_test_steady_limits set {limit} = '{value}'");
        admin.batch_execute(&sql).await.unwrap();
    }
    rig.stop().await;
    rig.db = connect_as(&test.dsn);
    let slow = "create function slow() returns trigger language plpgsql as \
                  'begin perform pg_sleep(0.3); return null; end'; \
                create trigger slow after insert or delete on debshrew_limited.t for each statement execute function slow()";
    for height in 0..100 {
        rig.commit(height, vec![put("t", &format!(r#"{{"id": {height}, "x": "a"}}"#))]).await;
    }
    admin
        .batch_execute(&format!("set statement_timeout = 0; set search_path = public; {slow}"))
        .await
        .unwrap();
    rig.commit(100, vec![put("t", r#"{"id": 1, "x": "b"}"#)]).await;
    let left = "select count(*) from debshrew_limited.t where undo_height <= 80";
    let admin = connect_as(&test.dsn).dedicated().await.unwrap();
    let mut pruner = Pruner::new(connect_as(&test.dsn), 10);
    until("all is pruned", async || {
        rig.writer().await.prune(&mut pruner).await;
        admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let session = rig.db.dedicated().await.unwrap();
    session.batch_execute("begin; select pg_catalog.pg_sleep(0.2)").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    session.batch_execute("commit").await.unwrap();
    rig.roll_back(95).await.unwrap();
    assert_eq!(rig.rows("t").await.len(), 96);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_database_s_time_limits_everything_is_published_and_followed() {
    let mut scene = Scene::new("steady_limited", COUNTER, quick(30)).await;
    let folder = tempfile::tempdir().unwrap();
    scene.toml.push_str(&format!(
        "[pipelines.counter.sinks.events]\nkind = \"file\"\nfrom = 0\npath = \"{}\"\n",
        folder.path().display()
    ));
    for (limit, value) in LIMITS {
        let sql = format!("alter database debshrew_test_steady_limited set {limit} = '{value}'");
        scene.client.batch_execute(&sql).await.unwrap();
    }
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    scene.reorganise(3, 5).await;
    scene.caught_up().await;
    scene.follows().await;
    let published = "select height from debshrew.sinks where state = 'streaming'";
    let tip = scene.height().await as i32 - 1;
    until("all is published", async || {
        scene.client.query_opt(published, &[]).await.unwrap().is_some_and(|row| row.get::<_, i32>(0) == tip)
    })
    .await;
    let log = std::fs::read_to_string(scene.log()).unwrap();
    assert!(!log.contains("trying again"), "{log}");
}

#[tokio::test]
async fn every_session_looks_whether_its_client_is_there() {
    let test = database("steady_watched").await;
    let db = connect_as(&test.dsn);
    let settings = "select name, setting from pg_catalog.pg_settings \
                     where name = any ($1) or name = 'client_connection_check_interval' order by name";
    for client in [db.dedicated().await.unwrap(), deadpool_postgres::Object::take(db.client().await.unwrap())]
    {
        let limits = LIMITS.map(|(limit, _)| limit);
        let rows = client.query(settings, &[&&limits[..]]).await.unwrap();
        let set: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let zero = |name: &str| (name.to_owned(), "0".to_owned());
        assert_eq!(
            set,
            [
                ("client_connection_check_interval".to_owned(), "5000".to_owned()),
                zero("idle_in_transaction_session_timeout"),
                zero("idle_session_timeout"),
                zero("lock_timeout"),
                zero("statement_timeout"),
            ]
        );
    }
}

/// A rig that is connected by way of a proxy.
async fn far(name: &str, sql: &str) -> (debshrew::cluster::Cluster, Proxy, Rig) {
    let (cluster, test) = own_server(&[]).await;
    let proxy = Proxy::start(&test).await;
    let mut rig = Rig::up(&test, name, sql).await;
    rig.stop().await;
    rig.db = connect_as(&proxy.database.dsn);
    (cluster, proxy, rig)
}

/// 12 MB at 150 kB/s are 80 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_succeeds() {
    let (_cluster, proxy, mut rig) = far("upload", "create table t (id integer primary key, x text)").await;
    rig.commit(0, vec![put("t", r#"{"id": 0, "x": "a"}"#)]).await;
    proxy.throttle(150_000);
    let since = Instant::now();
    let x = "x".repeat(12_000_000);
    rig.commit(1, vec![put("t", &format!(r#"{{"id": 1, "x": "{x}"}}"#))]).await;
    println!("it took {:?}", since.elapsed());
    assert!(since.elapsed().as_secs() > 60);
}

/// Blocks are sent behind one whose statement takes longer than a minute; the server reads none of them meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_with_more_behind_it_succeeds() {
    let sql = "create table t (id integer primary key, x text); \
               create function slow() returns trigger language plpgsql as \
                 'begin if new.id = 1 then perform pg_catalog.pg_sleep(75); end if; return new; end'; \
               create trigger slow before insert on t for each row execute function slow()";
    let (_cluster, _proxy, mut rig) = far("behind", sql).await;
    let x = "x".repeat(8_000_000);
    let row = |id: u32| vec![put("t", &format!(r#"{{"id": {id}, "x": "{x}"}}"#))];
    let since = Instant::now();
    let done = rig.try_commit_all(0, (0..5).map(row).collect(), crate::support::Journaling::Kept).await;
    println!("it took {:?}", since.elapsed());
    done.unwrap();
    assert_eq!(rig.rows("t").await.len(), 5);
}
