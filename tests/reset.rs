//! `debshrew reset`: what it says goes, nothing else goes, and what a message says to do works to the letter.

use crate::support::{COUNTER, Output, Scene, quick};

#[tokio::test(flavor = "multi_thread")]
async fn the_way_out_of_a_reorganisation_that_is_too_deep_works_to_the_letter() {
    let mut scene = Scene::new("reset_too_deep", COUNTER, quick(30)).await;
    scene.toml.push_str("retention = 5\n");
    scene.succeed(&["run", "--migrate", "--once"]).await;
    scene.reorganise(12, 13).await;
    scene.settled().await;
    assert_eq!(scene.run(&["run", "--once"]).await.code, 3);
    let sql = "select last_error from debshrew.pipelines";
    let said: String = scene.client.query_one(sql, &[]).await.unwrap().get(0);
    let way = said.split_once("process all blocks again: ").unwrap_or_else(|| panic!("{said}")).1;
    let commands: Vec<Vec<&str>> =
        way.split('`').skip(1).step_by(2).map(|one| one.split(' ').collect()).collect();
    assert_eq!(
        commands,
        [vec!["debshrew", "reset", "counter"], vec!["debshrew", "migrate"], vec!["debshrew", "run"]]
    );

    let before = scene.whole().await;
    // Nobody is there to ask.
    let Output { code, stdout, .. } = scene.run(&commands[0][1..]).await;
    assert!(code == 2 && stdout.contains("\n  table counter.seen\n"), "{stdout}");
    assert_eq!(scene.whole().await, before);
    let mut screen = scene.on_terminal(&commands[0][1..], 200, &[]);
    screen.says("Go on? [y/N]").await;
    screen.type_in("y\n");
    assert_eq!(screen.ended().await, 0);
    assert_eq!(scene.run(&commands[1][1..]).await.code, 0);
    let _running = scene.start(&commands[2][1..]);
    scene.caught_up().await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_says_all_that_goes_and_leaves_what_is_not_of_the_pipeline() {
    let scene = Scene::new("reset_contents", COUNTER, quick(10)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    scene
        .client
        .batch_execute(
            "create function counter.twice(integer) returns integer language sql as 'select 2 * $1'; \
             create type counter.mood as enum ('good', 'bad'); create domain counter.many as integer; \
             create view counter.lately as select * from counter.seen; \
             create schema elsewhere; create view elsewhere.seen as select * from counter.seen; \
             create table elsewhere.kept (id integer primary key, of integer references counter.seen); \
             create role debshrew_test_reset_reader; \
             insert into debshrew.reader select pipeline_id, 'debshrew_test_reset_reader' from debshrew.pipeline",
        )
        .await
        .unwrap();
    let Output { stdout, .. } = scene.succeed(&["reset", "counter", "--yes"]).await;
    for gone in [
        "table counter.seen",
        "view counter.lately",
        "view elsewhere.seen",
        "function counter.twice(integer)",
        "type counter.mood",
        "counter.many",
        "kept_of_fkey on elsewhere.kept",
        "table debshrew_counter.seen",
        "table debshrew.migrations_counter",
    ] {
        assert!(stdout.contains(gone), "{gone}: {stdout}");
    }
    scene.client.batch_execute("table elsewhere.kept").await.unwrap();
    let reader = "select has_schema_privilege('debshrew_test_reset_reader', 'counter', 'usage')";
    scene.succeed(&["migrate"]).await;
    assert!(
        scene.client.query_one(reader, &[]).await.unwrap().get::<_, bool>(0),
        "a role is no longer let in"
    );
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
    scene
        .client
        .batch_execute("drop owned by debshrew_test_reset_reader; drop role debshrew_test_reset_reader")
        .await
        .unwrap();

    // While it runs nothing is taken from under it.
    let _running = scene.start(&["run"]);
    crate::support::until("it runs", async || scene.state().await == "running").await;
    let Output { code, stderr, .. } = scene.run(&["reset", "counter", "--yes"]).await;
    assert!(code == 1 && stderr.contains("a running debshrew writes it"), "{stderr}");
}
