//! What `check` says of what stands in the way, and `migrate` of what it takes away.

use crate::support::{COUNTER, Output, Scene, quick};

fn lines<'a>(stdout: &'a str, words: &str) -> Vec<&'a str> {
    stdout.lines().filter(|line| line.contains(words)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halt_is_bad_until_a_process_goes_on() {
    let mut scene =
        Scene::new("checks_halt", &COUNTER.replace(r"\22count\22:", r"\22coumt\22:"), quick(5)).await;
    let output = scene.run(&["run", "--migrate", "--once"]).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    let hint =
        "its line `halted` in the log says why; so does `debshrew status`, until another process goes on";
    assert!(output.stderr.contains(hint), "{}", output.stderr);
    let Output { code, stdout, .. } = scene.run(&["check"]).await;
    let halted = lines(&stdout, "BAD   pipeline `counter`: halted ");
    assert!(code == 1 && halted.len() == 1 && halted[0].contains("`coumt`"), "{stdout}");
    assert_eq!(lines(&stdout, "      hint: mend that, then start `run`").len(), 1, "{stdout}");
    let at = scene.toml.find("[pipelines.counter]").unwrap();
    scene.toml.truncate(at);
    scene.add_pipeline("counter", COUNTER, "");
    scene.succeed(&["run", "--once"]).await;
    let Output { stdout, .. } = scene.succeed(&["check"]).await;
    assert_eq!(lines(&stdout, "halted"), [""; 0], "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_is_said() {
    let scene = Scene::new("checks_gone", COUNTER, quick(5)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    scene.client.batch_execute("drop table counter.seen cascade").await.unwrap();
    let Output { code, stdout, .. } = scene.run(&["check"]).await;
    let gone = "table `seen`: is gone, though no migration dropped it";
    assert!(code == 1 && lines(&stdout, &format!("BAD   {gone}")).len() == 1, "{stdout}");
    assert_eq!(lines(&stdout, "      hint: restore a backup, or begin anew").len(), 1, "{stdout}");
    let Output { stdout, .. } = scene.succeed(&["migrate"]).await;
    let warned = "warning: counter: table `seen` was gone, though no migration dropped it; ";
    assert_eq!(lines(&stdout, warned).len(), 1, "{stdout}");
    assert_eq!(lines(&stdout, "counter: dropped the journal of `seen`").len(), 1, "{stdout}");
    let Output { stdout, .. } = scene.succeed(&["migrate"]).await;
    assert_eq!(lines(&stdout, "gone"), [""; 0], "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_a_migration_drops_is_no_loss() {
    let mut scene = Scene::new("checks_dropped", COUNTER, quick(5)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    let folder = tempfile::tempdir().unwrap();
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/counter");
    std::fs::copy(format!("{here}/V1__seen.sql"), folder.path().join("V1__seen.sql")).unwrap();
    std::fs::write(folder.path().join("V2__gone.sql"), "drop table seen cascade").unwrap();
    scene.toml = scene.toml.replace(here, &folder.path().display().to_string());
    for command in ["check", "migrate"] {
        let Output { stdout, .. } = scene.succeed(&[command]).await;
        assert_eq!(lines(&stdout, "gone, though"), [""; 0], "{stdout}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_migrations_are_counted_once_and_what_is_not_looked_at_is_a_note() {
    let mut scene = Scene::new("checks_own", COUNTER, quick(5)).await;
    scene.add_pipeline("again", COUNTER, "");
    scene.client.batch_execute("drop schema debshrew cascade").await.unwrap();
    let Output { stdout, .. } = scene.succeed(&["check"]).await;
    let own = format!(
        "ok    debshrew's own tables: {} migrations to be run by",
        debshrew::db::migrate::own().len()
    );
    assert_eq!(lines(&stdout, &own).len(), 1, "{stdout}");
    for pipeline in ["counter", "again"] {
        let tables =
            format!("ok    tables of `{pipeline}`: `seen` (1 migration to be run by `debshrew migrate`)");
        assert_eq!(lines(&stdout, &tables).len(), 1, "{stdout}");
    }
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run", "--pipeline", "counter"]);
    scene.logged("beginning with the first block", 1).await;
    let Output { stdout, .. } = scene.succeed(&["check"]).await;
    assert_eq!(lines(&stdout, "own tables"), [""; 0], "{stdout}");
    let note = "note  tables of `counter`: not looked at, as a running debshrew writes them";
    assert_eq!(lines(&stdout, note).len(), 1, "{stdout}");
}
