//! What a transform, a server, PostgreSQL or a name says reaches terminal, log and `last_error` as text: no
//! character that a terminal obeys, and no line that somebody else began.

use debshrew::simulate::{Command, Fault, Misbehaviour};

use crate::support::{COUNTER, Output, Scene, debshrew, quick, until};

/// Forges a line of the log, clears the screen, writes a window's title, and turns the direction of writing.
const HOSTILE: &str = "end\n2026-01-01T00:00:00Z ERROR debshrew: FORGED\r\x1b[2J\x1b]0;t\x07\u{9b}31m\x7f\u{202e}\u{2066}\u{2028}";

fn is_unfit(c: char) -> bool {
    c != '\n' && c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Holds a text to the rule, and to have said what is hostile all the same.
fn hold(what: &str, text: &str) {
    assert!(text.contains("FORGED"), "{what} says nothing of it: {text:?}");
    assert!(!text.contains(is_unfit), "{what}: {text:?}");
    let forged =
        text.lines().find(|line| line.trim_start().starts_with("2026-01-01") && !line.starts_with("    "));
    assert_eq!(forged, None, "{what}");
}

fn hold_output(what: &str, output: &Output) {
    hold(what, &format!("{}{}", output.stdout, output.stderr));
}

/// A transform that logs this, and then has no changes, or fails with it as its last words.
fn transform(result: &str) -> String {
    let length = u32::try_from(HOSTILE.len()).unwrap().to_le_bytes();
    let bytes = length.iter().chain(HOSTILE.as_bytes());
    let escaped: String = bytes.map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
          (import "env" "__stdout" (func $stdout (param i32)))
          (import "env" "__stderr" (func $stderr (param i32)))
          (memory (export "memory") 1)
          (data (i32.const 512) "\02\00\00\00[]")
          (data (i32.const 1024) "{escaped}")
          (func (export "process_block") (result i32)
            (call $stdout (i32.const 1024)) (call $stderr (i32.const 1024)) {result}))"#
    )
}

async fn last_error(scene: &Scene) -> String {
    let sql = "select coalesce(last_error, '') from debshrew.pipelines where pipeline = 'counter'";
    scene.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transform_says_obeys_the_reader() {
    for format in ["text", "json"] {
        let scene =
            Scene::new(&format!("terminal_log_{format}"), &transform("(i32.const 512)"), quick(3)).await;
        let run = ["run", "--migrate", "--once", "--log-format", format];
        let output = scene.succeed(&run).await;
        hold_output(&format!("a log in {format}"), &output);
        assert_eq!(
            output.stderr.lines().filter(|line| line.contains("FORGED")).count(),
            8,
            "{}",
            output.stderr
        );

        let scene =
            Scene::new(&format!("terminal_trap_{format}"), &transform("(i32.const -1)"), quick(3)).await;
        let output = scene.run(&run).await;
        assert_eq!(output.code, 3, "{}", output.stderr);
        hold_output("last words", &output);
        hold("last_error", &last_error(&scene).await);
        hold_output("status", &scene.run(&["status"]).await);
        hold_output("status --json", &scene.run(&["status", "--json"]).await);
        // As an older version stored it.
        let stored = "update debshrew.activity set reason = $1";
        scene.client.execute(stored, &[&HOSTILE]).await.unwrap();
        hold_output("status", &scene.run(&["status"]).await);
        let json = scene.run(&["status", "--json"]).await;
        hold_output("status --json", &json);
        let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json["pipelines"][0]["last_error"], HOSTILE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_answers_obeys_the_reader() {
    let scene = Scene::new("terminal_source", COUNTER, quick(3)).await;
    scene.succeed(&["migrate"]).await;
    let faults = [
        Fault::Error { message: HOSTILE.into() },
        Fault::Result { value: HOSTILE.into() },
        Fault::Result { value: serde_json::json!([HOSTILE]) },
    ];
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    for fault in faults {
        let misbehave = Misbehaviour { fault, calls: None, method: None, view: None };
        scene.source.control(Command::Misbehave(misbehave)).await.unwrap();
        until("it is said", async || last_error(&scene).await.contains("FORGED")).await;
        hold("last_error", &last_error(&scene).await);
        hold_output("check", &scene.run(&["check"]).await);
        hold_output("run", &scene.run(&["run", "--once"]).await);
        scene.source.control(Command::Clear {}).await.unwrap();
        until("it goes on", async || last_error(&scene).await.is_empty()).await;
    }
    hold("the log", &std::fs::read_to_string(scene.log()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgresql_and_names_say_obeys_the_reader() {
    let scene = Scene::new("terminal_postgres", COUNTER, quick(3)).await;
    scene.succeed(&["migrate"]).await;
    let raises = format!(
        "create function counter.refuse() returns trigger language plpgsql as $f$ begin \
           raise exception using message = '{HOSTILE}', detail = '{HOSTILE}', hint = '{HOSTILE}'; end $f$; \
         create trigger refuse before insert on counter.seen for each row execute function counter.refuse()"
    );
    scene.client.batch_execute(&raises).await.unwrap();
    let output = scene.run(&["run", "--once"]).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    hold_output("run", &output);
    hold("last_error", &last_error(&scene).await);

    // No primary key: refused, and named.
    let table = format!("create table counter.\"{}\" (id int)", &HOSTILE[..50]);
    scene.client.batch_execute(&table).await.unwrap();
    hold_output("check", &scene.run(&["check"]).await);
    hold_output("migrate", &scene.run(&["migrate"]).await);
    hold_output("run --migrate", &scene.run(&["run", "--migrate", "--once"]).await);
}

#[test]
fn paths_and_arguments_obey_the_reader() {
    let toml = format!(
        "[database]\nurl = 'host=127.0.0.1 port=1'\n[source]\nurls = ['http://127.0.0.1:1']\nretries = 0\n\
         [pipelines.a]\ntransform = {}",
        // As in JSON, but for a character that TOML wants escaped as well.
        serde_json::Value::from(HOSTILE).to_string().replace('\x7f', "\\u007f")
    );
    hold_output("config", &debshrew(&["config"]).file(&toml).run());
    hold_output("check", &debshrew(&["check"]).file(&toml).run());
    hold_output("a pipeline's name", &debshrew(&["run", "--pipeline", HOSTILE]).file(&toml).run());
    hold_output("a file's name", &debshrew(&["config", "--config", HOSTILE]).run());
    hold_output("a command's name", &debshrew(&[HOSTILE]).run());
    hold_output("a flag's value", &debshrew(&["config", "--log-format", HOSTILE]).run());
    let key = format!("{} = 1", serde_json::Value::from(HOSTILE).to_string().replace('\x7f', "\\u007f"));
    hold_output("a key", &debshrew(&["config"]).file(&key).run());
}
