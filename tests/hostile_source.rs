//! Sources that answer wrongly in every way that the stand-in knows: nothing wrong is committed, what may pass is
//! waited for, what cannot is said, and memory stays bounded.

use debshrew::simulate::{Command, Fault, Misbehaviour, Simulator};
use serde_json::json;

use crate::support::{COUNTER, Scene, debshrew, quick, until};

/// Short time limits and few retries, so that each misbehaviour is met by all of them.
const IMPATIENT: &str =
    "request_timeout = \"300ms\"\nretries = 1\nmax_response_bytes = \"1MiB\"\npoll_interval = \"20ms\"\n";

async fn following(name: &str) -> (Scene, tokio::process::Child) {
    let mut scene = Scene::new(name, COUNTER, quick(30)).await;
    scene.toml = scene.toml.replace("poll_interval = \"20ms\"\n", IMPATIENT);
    scene.toml.push_str("patience = \"1s\"\n");
    scene.succeed(&["migrate"]).await;
    let running = scene.start(&["run"]);
    scene.caught_up().await;
    (scene, running)
}

fn misbehave(fault: Fault, calls: Option<u32>, method: Option<&str>) -> Command {
    Command::Misbehave(Misbehaviour { fault, calls, method: method.map(str::to_owned), view: None })
}

/// What passes by itself, or once the server is mended.
fn passing() -> Vec<Fault> {
    vec![
        Fault::Drop,
        Fault::Cut,
        Fault::Slow { ms: 1_000 },
        Fault::Stall,
        Fault::Status { code: 500 },
        Fault::Status { code: 503 },
        Fault::Status { code: 429 },
        Fault::NotJson,
        Fault::WrongShape,
        Fault::Result { value: json!(null) },
        Fault::Result { value: json!(7) },
        Fault::Result { value: json!({"result": "0x"}) },
        Fault::Result { value: json!("0xnothex") },
        Fault::Result { value: json!("0x123") },
        Fault::Result { value: json!("999999999999999999999") },
        Fault::Result { value: json!("-1") },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_waited_for_and_nothing_wrong_is_committed() {
    let (scene, _running) = following("hostile_passing").await;
    for fault in passing() {
        // A few calls, which retries get over.
        scene.source.control(misbehave(fault.clone(), Some(1), None)).await.unwrap();
        scene.mine(1).await;
        scene.caught_up().await;
        scene.whole().await;
        // All calls of one kind, until the pipeline has given up on one and says so.
        for method in ["metashrew_height", "metashrew_getblockhash", "metashrew_view"] {
            scene.source.control(misbehave(fault.clone(), None, Some(method))).await.unwrap();
            let before = scene.whole().await;
            scene.mine(1).await;
            let said = "select state = 'waiting' from debshrew.pipelines";
            until(&format!("{fault:?} of {method} is said"), async || {
                scene.client.query_one(said, &[]).await.unwrap().get(0)
            })
            .await;
            assert_eq!(scene.whole().await, before);
            scene.source.control(Command::Clear {}).await.unwrap();
            scene.caught_up().await;
        }
        scene.follows().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_halts_the_pipeline_and_is_said() {
    for (name, fault, expected) in [
        ("hostile_413", Fault::Status { code: 413 }, "answered HTTP 413"),
        ("hostile_large", Fault::Oversized { bytes: 8 << 30 }, "is larger than `source.max_response_bytes`"),
    ] {
        let (scene, mut running) = following(name).await;
        let before = scene.whole().await;
        scene.source.control(misbehave(fault, None, Some("metashrew_view"))).await.unwrap();
        scene.mine(1).await;
        assert_eq!(running.wait().await.unwrap().code(), Some(3), "{name}");
        let reason = "select state, last_error from debshrew.pipelines";
        let row = scene.client.query_one(reason, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "halted");
        assert!(row.get::<_, &str>(1).contains(expected), "{}", row.get::<_, &str>(1));
        assert_eq!(scene.whole().await, before);
    }
}

/// The most memory that a process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_any_size_take_no_more_memory_than_allowed() {
    let (mut scene, running) = following("hostile_memory").await;
    drop(running);
    // Has nothing to do, and so keeps the process alive when the other one halts.
    scene.add_pipeline("idle", COUNTER, "confirmations = 1000");
    scene.succeed(&["migrate"]).await;
    let running = scene.start(&["run"]);
    scene
        .source
        .control(misbehave(Fault::Oversized { bytes: 8 << 30 }, None, Some("metashrew_view")))
        .await
        .unwrap();
    scene.mine(1).await;
    let halted = "select state = 'halted' from debshrew.pipelines where pipeline = 'counter'";
    until("it has met the answer", async || scene.client.query_one(halted, &[]).await.unwrap().get(0)).await;
    let peak = peak_memory(running.id().unwrap());
    assert!(peak < 100 << 20, "{peak} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_views_fail_is_left_for_another() {
    let (scene, running) = following("hostile_fail_over").await;
    drop(running);
    let other = Simulator::start(quick(30)).await.unwrap();
    let urls = format!("urls = [\"{}\", \"{}\"]", scene.source.url(), other.url());
    let mut scene = scene;
    scene.toml = scene.toml.replace(&format!("urls = [\"{}\"]", scene.source.url()), &urls);
    // Tip and hashes are right, so that only a call for a view tells.
    scene.source.control(misbehave(Fault::Status { code: 500 }, None, Some("metashrew_view"))).await.unwrap();
    let status = other.control(Command::Mine { blocks: 5 }).await.unwrap();
    scene.mine(5).await;
    assert_eq!(other.chain(), scene.source.chain(), "the same seed, the same chain");
    let _running = scene.start(&["run"]);
    scene.caught_up().await;
    scene.follows().await;
    assert!(other.status().calls("metashrew_view") > status.calls("metashrew_view"));
    // And back, when the other one is gone.
    scene.source.control(Command::Clear {}).await.unwrap();
    drop(other);
    scene.mine(5).await;
    scene.caught_up().await;
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_the_source_never_answers_halts_at_its_block_and_not_before() {
    // Block 30 sends a view more than the server takes.
    let too_much =
        COUNTER.replace("(memory (export \"memory\") 2)", "(memory (export \"memory\") 64)").replace(
            "(local $count i32) (local $length i32)\n",
            "(local $count i32) (local $length i32)
        (if (i32.eq (call $height) (i32.const 30)) (then
          (i32.store (i32.const 65536) (i32.const 3000000))
          (drop (call $view (i32.const 100) (i32.const 65536)))))\n",
        );
    assert!(too_much.contains("3000000"));
    let mut scene = Scene::new("hostile_question", &too_much, quick(60)).await;
    scene.toml.push_str("patience = \"1s\"\n");
    let output = scene.run(&["run", "--migrate", "--once"]).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert_eq!(scene.whole().await.len(), 30);
    let said = "select state, last_error, last_error_height from debshrew.pipelines";
    let row = scene.client.query_one(said, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i32>(2)), ("halted", 30));
    assert!(row.get::<_, &str>(1).contains("HTTP 413"), "{}", row.get::<_, &str>(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_used_and_can_be_left_out() {
    let scene = Scene::new("hostile_proxy", COUNTER, quick(5)).await;
    let run = async |no_proxy: &'static str| {
        let command = debshrew(&["run", "--migrate", "--once"])
            .file(&scene.toml)
            .variable("HTTP_PROXY", "http://user:sesame@127.0.0.1:1")
            .variable("NO_PROXY", no_proxy)
            .variable("DEBSHREW__SOURCE__RETRIES", "0");
        tokio::task::spawn_blocking(move || command.run()).await.unwrap()
    };
    let output = run("").await;
    assert_eq!(output.code, 4, "{}", output.stderr);
    assert!(!output.stderr.contains("sesame"), "{}", output.stderr);
    assert_eq!(run("127.0.0.1").await.code, 0);
    scene.follows().await;
}
