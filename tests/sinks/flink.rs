//! What Flink makes of a file through reorgs: run by scripts/flink.sh, which says where its libraries are
//! (`DEBSHREW_TEST_FLINK`).

use std::process::Command;

use crate::support::{Scene, quick};

const OPENED: [&str; 3] = ["java.util", "java.lang", "java.nio"];

/// The last line that Flink prints of the folder's events: `aggregate COUNT SUM after N changes`.
fn aggregate(libraries: &str, folder: &std::path::Path) -> String {
    let opened = OPENED.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED"));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flink/Aggregate.java");
    let output = Command::new("java")
        .args(["-Xmx1g", "-cp", &format!("{libraries}/*")])
        .args(opened)
        .arg(program)
        .arg(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.lines().find(|line| line.starts_with("aggregate ")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn flink_has_the_same_aggregate_through_reorgs() {
    let Ok(libraries) = std::env::var("DEBSHREW_TEST_FLINK") else {
        println!("skipped: scripts/flink.sh runs it");
        return;
    };
    let mut scene = Scene::new("sinks_flink", crate::support::COUNTER, quick(60)).await;
    scene.toml = scene.toml.split("[pipelines.").next().unwrap().to_owned();
    scene.add_built("ledger", "ledger");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    scene.toml.push_str(&format!(
        "[pipelines.ledger.sinks.flink]\nkind = \"file\"\nfrom = 0\ntables = [\"balances\"]\npath = \"{}\"\n",
        path.display()
    ));
    scene.succeed(&["run", "--migrate", "--once"]).await;
    for depth in [2, 5, 1] {
        scene.reorganise(depth, depth + 3).await;
        scene.settled().await;
        scene.succeed(&["run", "--once"]).await;
    }
    // Flink reads whole folders: of this one the rows alone.
    let rows = folder.path().join("rows");
    std::fs::create_dir(&rows).unwrap();
    let segment = path.join("000000000001.jsonl.part");
    std::fs::copy(segment, rows.join("rows.jsonl")).unwrap();
    let text = std::fs::read_to_string(rows.join("rows.jsonl")).unwrap();
    assert!(text.contains(r#""step":"retract""#), "nothing was taken back");
    let printed = aggregate(&libraries, &rows);
    let sql = "select format('aggregate %s %s after ', count(*), sum(balance)) from ledger.balances";
    let expected: String = scene.client.query_one(sql, &[]).await.unwrap().get(0);
    println!("{printed}");
    assert!(printed.starts_with(&expected), "{printed}, and PostgreSQL: {expected}");
}
