//! The log: every line says which pipeline, values are fields, all fields are in the manual, and there are few lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use debshrew::simulate::{Command, Fault, Misbehaviour};
use serde_json::Value;

use crate::support::{COUNTER, Scene, debshrew, quick};

/// Field and form, as docs/logs.md has them.
fn manual() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logs.md")).unwrap();
    let table = page.split("| field | form | meaning |\n|---|---|---|\n").nth(1).unwrap();
    let rows = table.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    rows.map(|row| (row[1].trim_matches('`').to_owned(), row[2].to_owned())).collect()
}

fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Holds a line's fields to the manual.
fn hold(line: &Value) {
    let manual = manual();
    for (name, value) in line.as_object().unwrap() {
        let form = manual.get(name).unwrap_or_else(|| panic!("`{name}` is not in docs/logs.md: {line}"));
        let is_so = match form.as_str() {
            "text" => value.is_string(),
            "number" => value.is_number(),
            "list" => value.is_array(),
            other => panic!("docs/logs.md: what is `{other}`?"),
        };
        assert!(is_so, "`{name}` is no {form}: {line}");
    }
    let message = line["message"].as_str().unwrap();
    let is_transform_s = line["target"] == "debshrew::transform";
    assert!(
        is_transform_s || !message.contains(|c: char| c.is_ascii_digit()),
        "a value in a message: {line}"
    );
}

fn find<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    lines
        .iter()
        .find(|line| line["message"] == message)
        .unwrap_or_else(|| panic!("no `{message}`: {lines:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_pipeline_says_so_and_has_fields() {
    // Logs a line as well.
    let import = r#"(import "env" "__height""#;
    let wat = COUNTER
        .replace(import, &format!(r#"(import "env" "__stdout" (func $stdout (param i32))) {import}"#))
        .replace("(global $end", r#"(data (i32.const 100000) "\05\00\00\00hello") (global $end"#)
        .replace("(drop (call $block_hash))", "(call $stdout (i32.const 100000)) (drop (call $block_hash))");
    let scene = Scene::new("logs_run", &wat, quick(39)).await;
    scene.succeed(&["migrate"]).await;
    let mut running = scene.start(&["run", "--log", "debug", "--log-format", "json"]);
    scene.caught_up().await;
    scene.reorganise(2, 3).await;
    scene.caught_up().await;
    let view = Some("blocktracker".to_owned());
    let fault = Fault::Status { code: 503 };
    let misbehave = Misbehaviour { fault, calls: Some(1), method: None, view };
    scene.source.control(Command::Misbehave(misbehave)).await.unwrap();
    scene.mine(1).await;
    scene.caught_up().await;
    let all = Misbehaviour { fault: Fault::Status { code: 503 }, calls: None, method: None, view: None };
    scene.source.control(Command::Misbehave(all)).await.unwrap();
    scene.logged("\"waiting\"", 1).await;
    scene.source.control(Command::Clear {}).await.unwrap();
    scene.logged("\"going on\"", 1).await;
    running.kill().await.unwrap();

    let log = std::fs::read_to_string(scene.log()).unwrap();
    let lines = lines(&log);
    lines.iter().for_each(hold);
    let since = lines.iter().position(|line| line.get("pipeline").is_some()).unwrap();
    for line in &lines[since..] {
        let of_pipelines = !line["target"].as_str().unwrap().starts_with("debshrew::cli");
        assert!(!of_pipelines || line["pipeline"] == "counter", "which pipeline? {line}");
    }
    let hello = find(&lines, "hello");
    assert_eq!((&hello["target"], &hello["height"]), (&"debshrew::transform".into(), &0.into()), "{hello}");
    assert_eq!(find(&lines, "beginning with the first block")["height"], 0);
    let blocks: Vec<&Value> = lines.iter().filter(|line| line["message"] == "block").collect();
    let heights: Vec<u64> = blocks.iter().map(|line| line["height"].as_u64().unwrap()).collect();
    assert_eq!(heights[..40], (0..40).collect::<Vec<u64>>());
    for name in ["hash", "changes", "fuel", "views", "computed_ms", "waited_ms", "commit_ms"] {
        assert!(blocks.iter().all(|line| line.get(name).is_some()), "{name}: {:#?}", blocks[0]);
    }
    assert_eq!((&blocks[1]["changes"], &blocks[1]["views"]), (&1.into(), &1.into()), "{}", blocks[1]);
    let reorg = lines.iter().find(|line| line.get("depth").is_some()).unwrap();
    assert_eq!(
        (&reorg["depth"], &reorg["from_height"], &reorg["height"]),
        (&2.into(), &39.into(), &37.into())
    );
    assert!(reorg["hash"].as_str().unwrap().len() == 64 && reorg["took_ms"].is_number(), "{reorg}");
    // Below a block's evaluation, what the source's client says is of that block.
    let again = lines.iter().find(|line| line["message"] == "trying again" && line.get("height").is_some());
    let again = again.unwrap_or_else(|| panic!("no block's call was tried again: {log}"));
    assert_eq!((&again["target"], &again["height"]), (&"debshrew::source::endpoint".into(), &41.into()));
    assert!(find(&lines, "waiting")["reason"].as_str().unwrap().contains("HTTP 503"));
    assert_eq!(
        (&find(&lines, "waiting")["level"], &find(&lines, "going on")["level"]),
        (&"WARN".into(), &"INFO".into())
    );
    assert!(find(&lines, "going on")["waited_ms"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_named_whatever_the_filter_lets_through() {
    let scene = Scene::new("logs_error", &COUNTER.replace(r"\22count\22:", r"\22coumt\22:"), quick(5)).await;
    let output = scene.run(&["run", "--migrate", "--once", "--log", "error", "--log-format", "json"]).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    let [halted, error] = &lines(&output.stderr)[..] else { panic!("{}", output.stderr) };
    [halted, error].into_iter().for_each(hold);
    assert_eq!(
        (&halted["message"], &halted["pipeline"], &halted["height"]),
        (&"halted".into(), &"counter".into(), &0.into())
    );
    assert!(halted["reason"].as_str().unwrap().contains("`coumt`"), "{halted}");
    assert_eq!(
        (&error["message"], &error["exit_code"], &error["level"], &error["target"]),
        (&"pipeline `counter` has halted".into(), &3.into(), &"ERROR".into(), &"debshrew".into())
    );
    assert!(error["hint"].as_str().unwrap().contains("`debshrew status`"), "{error}");
}

#[test]
fn a_command_s_error_is_a_json_line_where_the_log_is() {
    let toml = "[database]\nurl = 'host=127.0.0.1 port=1'\nconnect_timeout = '1s'\n";
    let cases = [
        (debshrew(&["status"]).file("log.format = 'json'\n[database]\nurl = 'host=127.0.0.1 port=1'"), 4),
        (debshrew(&["status", "--log-format", "json"]).file(toml), 4),
        (debshrew(&["status", "--log-format", "json"]).file("nonsense = 1"), 2),
        (debshrew(&["status"]).file("nonsense = 1").variable("DEBSHREW__LOG__FORMAT", "json"), 2),
    ];
    for (command, code) in cases {
        let output = command.run();
        let [error] = &lines(&output.stderr)[..] else { panic!("{}", output.stderr) };
        hold(error);
        assert_eq!((output.code, &error["exit_code"]), (code, &code.into()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_lines_are_said_while_all_is_well() {
    let scene = Scene::new("logs_few", COUNTER, quick(1_499)).await;
    scene.succeed(&["migrate"]).await;
    let text = scene.succeed(&["run", "--once"]).await.stderr;
    let said: Vec<&str> = text.lines().filter(|line| line.contains(" counter: ")).collect();
    assert_eq!(said.len(), 2, "{text}");
    assert!(
        said[0].contains("INFO debshrew::pipeline counter: beginning with the first block height=0"),
        "{text}"
    );
    assert!(said[1].contains("INFO debshrew::progress counter: committed height=1499 hash="), "{text}");
    let _running = scene.start(&["run"]);
    scene.mine(1).await;
    scene.logged("committed height=1500 ", 1).await;
    scene.mine(1).await;
    scene.logged("committed height=1501 ", 1).await;
}

/// Fields that are not given to an event.
const OTHERS: [&str; 9] =
    ["timestamp", "level", "message", "target", "pipeline", "causes", "hint", "exit_code", "dropped"];

#[test]
fn the_manual_has_all_fields_of_all_events_and_no_others() {
    let mut fields: BTreeSet<String> = OTHERS.map(str::to_owned).into();
    let mut events = 0;
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        for macro_name in ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "debug_span!("] {
            for call in code.split(&format!("tracing::{macro_name}")).skip(1) {
                fields.extend(fields_of(call));
                events += 1;
            }
        }
    }
    assert!(events > 30, "{events} events");
    let manual: BTreeSet<String> = manual().into_keys().collect();
    assert_eq!(fields, manual);
}

#[test]
fn fields_are_found_in_events() {
    let found = |call: &str| fields_of(call).join(" ");
    assert_eq!(found(r#""plain {x}, {y}");"#), "");
    assert_eq!(
        found(r#"target: X, parent: None, height, hash = %f(a, b), ?c, "said, d = 1", e);"#),
        "height hash c"
    );
}

/// The names of an event's fields: all that stand before its message.
fn fields_of(call: &str) -> Vec<String> {
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for character in call.chars() {
        match character {
            '"' if depth == 0 && part.trim().is_empty() => break,
            ')' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                break;
            }
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        part.push(character);
    }
    let names = parts.iter().map(|part| part.split('=').next().unwrap_or_default().trim());
    let names = names
        .filter(|name| !["target:", "parent:"].iter().any(|of| name.starts_with(of)) && !name.is_empty());
    names.map(|name| name.trim_start_matches(['%', '?']).to_owned()).collect()
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.into_iter().chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}
