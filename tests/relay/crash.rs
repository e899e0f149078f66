//! The process is killed at every point of a step, and in the middle of retractions: a file has every block once.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::support::{COUNTER, Scene, debshrew, quick, until};

/// A consumer of the data files that knows rows by all that is in them.
#[derive(Default)]
struct Reader {
    rows: BTreeSet<String>,
}

impl Reader {
    fn read(&mut self, folder: &Path) {
        let mut segments: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.contains(".jsonl") && !name.contains("transactions")
            })
            .collect();
        segments.sort();
        for segment in segments {
            for line in std::fs::read_to_string(segment).unwrap().lines() {
                let event: Value = serde_json::from_str(line).unwrap();
                let table = event["source"]["table"].as_str().unwrap().to_owned();
                let row = |row: &Value| (!row.is_null()).then(|| format!("{table} {row}"));
                if let Some(before) = row(&event["before"]) {
                    assert!(self.rows.remove(&before), "not held: {line}");
                }
                if let Some(after) = row(&event["after"]) {
                    assert!(self.rows.insert(after), "held already: {line}");
                }
            }
        }
    }
}

/// What was committed to the file, by the name of each step.
fn steps(folder: &Path) -> Vec<String> {
    let mut segments: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("transactions"))
        .collect();
    segments.sort();
    let text: String = segments.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ends = lines.filter(|line| line["status"] == "END");
    ends.map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

/// Runs until it is killed at a point of a step, or everything is published.
async fn killed_at(scene: &Scene, point: &str, pass: u32) -> bool {
    let command = debshrew(&["run", "--once"])
        .file(&scene.toml)
        .variable("FAILPOINTS", &format!("{point}={pass}*off->return"));
    let output = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
    assert!(output.code == 0 || output.code == -1, "{}", output.stderr);
    output.code == -1
}

/// All rows, by way of another stream: a snapshot.
async fn rows(scene: &Scene, name: &str) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let toml = format!(
        "{}\n[pipelines.counter.sinks.{name}]\nkind = \"file\"\npath = \"{}\"\n",
        scene.toml,
        folder.path().display()
    );
    let command = debshrew(&["run", "--once"]).file(&toml);
    let output = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
    assert_eq!(output.code, 0, "{}", output.stderr);
    let mut reader = Reader::default();
    reader.read(folder.path());
    reader.rows
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_of_a_step_a_file_has_every_block_once() {
    let mut scene = Scene::new("relay_crash", COUNTER, quick(20)).await;
    let folder = tempfile::tempdir().unwrap();
    scene.toml.push_str(&format!(
        "[pipelines.counter.sinks.events]\nkind = \"file\"\nfrom = 0\npath = \"{}\"\n",
        folder.path().display()
    ));
    scene.succeed(&["migrate"]).await;
    let points = ["relay-before-publish", "relay-after-publish", "relay-before-cursor", "relay-after-cursor"];
    let mut kills = 0;
    for (round, point) in (0..).zip(points.into_iter().cycle().take(12)) {
        // In the middle of blocks, and of what a reorg takes back.
        kills += u32::from(killed_at(&scene, point, round % 3).await);
        scene.succeed(&["run", "--once"]).await;
        scene.reorganise(4, 6).await;
        scene.settled().await;
        kills += u32::from(killed_at(&scene, point, round % 5).await);
        kills += u32::from(killed_at(&scene, point, 0).await);
    }
    assert!(kills >= 20, "{kills} kills");
    scene.succeed(&["run", "--once"]).await;
    let mut reader = Reader::default();
    reader.read(folder.path());
    assert_eq!(reader.rows, rows(&scene, "all").await);
    let steps = steps(folder.path());
    let unique: BTreeSet<&String> = steps.iter().collect();
    assert_eq!(unique.len(), steps.len(), "{steps:?}");
    assert!(steps.iter().any(|step| step.contains("retract")), "{steps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_waits_for_a_sink_if_it_is_asked_to() {
    let mut scene = Scene::new("relay_blocks", COUNTER, quick(20)).await;
    // Nothing listens there.
    scene.toml.push_str(
        "[pipelines.counter.sinks.hook]\nkind = \"webhook\"\nfrom = 0\nurl = \"http://127.0.0.1:9/\"\nmax_lag = \"500ms\"\n\
         on_lag = \"block\"\n",
    );
    scene.succeed(&["migrate"]).await;
    let running = scene.start(&["run"]);
    until("it waits", async || {
        let sql =
            "select state = 'waiting' and last_error like 'sink `hook` is behind%' from debshrew.pipelines";
        scene.client.query_one(sql, &[]).await.unwrap().get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
    scene.mine(5).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let height = "select height from debshrew.pipelines";
    assert!(scene.client.query_one(height, &[]).await.unwrap().get::<_, i32>(0) < 25, "it did not wait");
    drop(running);
    // Without the sink it goes on.
    scene.toml = scene.toml.split("[pipelines.counter.sinks").next().unwrap().to_owned();
    until("its session has ended", async || scene.run(&["sink", "drop", "hook", "--yes"]).await.code == 0)
        .await;
    scene.succeed(&["run", "--once"]).await;
    scene.follows().await;
}
