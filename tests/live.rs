//! What `run` and `status --watch` show on a terminal.

use debshrew::simulate::{Command, Fault, Misbehaviour};

use crate::support::{COUNTER, Scene, quick, until};

fn starting_with<'a>(lines: &'a [String], words: &str) -> Vec<&'a String> {
    lines.iter().filter(|line| line.starts_with(words)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn run_tells_in_one_line_how_far_it_is_below_the_log() {
    let scene = Scene::new("live_run", COUNTER, quick(1_500)).await;
    scene.succeed(&["migrate"]).await;
    let mut screen = scene.on_terminal(&["run"], 80, &[]);
    let lines = screen.says(" %, ").await;
    assert!(lines[0].ends_with("INFO counter: beginning with the first block height=0"), "{lines:#?}");
    let lines = screen
        .shows("how far it is", |lines| {
            lines.len() == 2
                && lines[1].starts_with("counter  ━")
                && lines[1].contains(" of 1 500, ")
                && lines[1].ends_with(" left")
        })
        .await;
    assert!(lines[1].contains(" blocks/s, "), "{lines:#?}");
    let lines = screen.says("counter  at the tip 1 500, last block 0 s ago").await;
    assert_eq!(lines.len(), 2, "{lines:#?}");

    scene.mine(1).await;
    screen.says("counter  at the tip 1 501").await;
    // Time goes on without a block.
    screen.says(", last block 2 s ago").await;
    let fault = Fault::Status { code: 503 };
    scene
        .source
        .control(Command::Misbehave(Misbehaviour { fault, calls: None, method: None, view: None }))
        .await
        .unwrap();
    let lines = screen.says("counter  waiting for ").await;
    assert!(lines.iter().any(|line| line.contains("WARN counter: waiting: ")), "{lines:#?}");
    assert!(lines.last().unwrap().ends_with('…'), "cut to the width: {lines:#?}");
    scene.source.control(Command::Clear {}).await.unwrap();
    screen.says("counter  at the tip 1 501").await;

    // What the terminal echoes disturbs nothing.
    screen.type_in("\x03");
    assert_eq!(screen.ended().await, 0);
    let lines = screen.lines();
    assert_eq!(starting_with(&lines, "counter").len(), 1, "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "counter  stopped at 1 501");
    assert_eq!(screen.cursor().1, 0, "{lines:#?}");
    assert!(
        lines.iter().any(
            |line| line.ends_with("INFO stopping after the block at hand; a second signal stops at once")
        )
    );
    assert!(screen.bytes().contains("\x1b[32mat the tip\x1b[0m"), "in colours");
    scene.follows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pipeline_has_a_line_that_fits_however_wide_the_terminal_is() {
    let broken = COUNTER.replace(r"\22count\22:", r"\22coumt\22:");
    let mut scene = Scene::new("live_width", COUNTER, quick(60)).await;
    scene.add_pipeline("a_pipeline_that_is_broken", &broken, "");
    scene.succeed(&["migrate"]).await;
    let screen = scene.on_terminal(&["run"], 40, &[("NO_COLOR", "1")]);
    let both = |lines: &[String]| {
        starting_with(lines, "a_pipeline_that_is_broken  halted: ").len() == 1
            && starting_with(lines, "counter                    at the").len() == 1
    };
    let lines = screen.shows("both", both).await;
    assert!(lines.last().unwrap().ends_with('…'), "{lines:#?}");
    screen.resize(25);
    let narrow = |lines: &[String]| lines.last().is_some_and(|line| line == "counter                …");
    screen.shows("narrow lines", narrow).await;
    screen.resize(120);
    let wide = |lines: &[String]| both(lines) && lines.last().unwrap().contains("at the tip 60, last block ");
    let lines = screen.shows("wide lines", wide).await;
    let at = lines.iter().position(|line| line.starts_with("a_pipeline_that_is_broken  halted: ")).unwrap();
    assert_eq!(at, lines.len() - 2, "the lines of both are the last: {lines:#?}");
    let coloured = ["\x1b[3", "\x1b[1;3", "\x1b[2m"].map(|code| screen.bytes().contains(code));
    assert_eq!(coloured, [false; 3], "{:?}", screen.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_cannot_move_its_cursor_gets_log_lines_alone() {
    let scene = Scene::new("live_dumb", COUNTER, quick(30)).await;
    scene.succeed(&["migrate"]).await;
    for (variables, arguments) in [
        ([("TERM", "dumb"), ("NO_COLOR", "1")], ["run", "--once"].as_slice()),
        ([("TERM", "xterm"), ("NO_COLOR", "1")], &["run", "--once", "--log-format", "json"]),
    ] {
        let mut screen = scene.on_terminal(arguments, 120, &variables);
        assert_eq!(screen.ended().await, 0);
        screen.says("counter").await;
        assert!(!screen.bytes().contains('\x1b'), "{:?}", screen.bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_watched_in_place_with_ages_pace_and_standbys() {
    let scene = Scene::new("live_status", COUNTER, quick(60)).await;
    scene.succeed(&["migrate"]).await;
    let mut writer = scene.start(&["run"]);
    scene.caught_up().await;
    let mut screen = scene.on_terminal(&["status", "--watch", "1"], 80, &[]);
    let lines = screen.says(" s ago").await;
    assert!(lines[0].ends_with("Z, every 1 s"), "{lines:#?}");
    assert_eq!(
        lines[2].split_whitespace().collect::<Vec<_>>().join(" "),
        "pipeline state height source lag pace left last block"
    );
    assert!(lines[3].starts_with("counter   running  60      60      0 "), "{lines:#?}");
    screen.says("0 blocks/s  -").await;
    scene.mine(20).await;
    let lines = screen.says("running  80      80      0").await;
    assert_eq!(starting_with(&lines, "counter").len(), 1, "in place: {lines:#?}");
    let _standby = scene.start(&["run"]);
    screen.says("` stands by for ").await;
    let reason = "update debshrew.activity set state = 'waiting', reason = repeat('the source is away ', 6)";
    scene.client.execute(reason, &[]).await.unwrap();
    let lines = screen.says("counter: waiting for ").await;
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("  the source is away ")).count(),
        2,
        "in full: {lines:#?}"
    );
    writer.kill().await.unwrap();
    screen.shows("the standby took over", |lines| lines.len() == 4 && lines[3].contains("running")).await;
    assert!(screen.bytes().contains("running\x1b[") || screen.bytes().contains("mrunning"), "in colours");
    screen.type_in("\x03");
    screen.ended().await;
    let lines = screen.lines();
    assert!(lines.len() == 5 && lines[4] == "^C", "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_watched_line_by_line_where_there_is_no_terminal() {
    let scene = Scene::new("live_lines", COUNTER, quick(5)).await;
    scene.succeed(&["run", "--migrate", "--once"]).await;
    for (arguments, word) in [
        (["status", "--watch=1"].as_slice(), "counter   stopped  5       5       0"),
        (&["status", "--watch=1", "--json"], "\"height\":5,"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("debshrew.toml"), &scene.toml).unwrap();
        let out = folder.path().join("out");
        let mut watching = tokio::process::Command::new(env!("CARGO_BIN_EXE_debshrew"))
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .stdout(std::fs::File::create(&out).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let text = || std::fs::read_to_string(&out).unwrap();
        until("it has looked three times", async || text().matches(word).count() >= 3).await;
        watching.kill().await.unwrap();
        assert!(!text().contains('\x1b'), "{}", text());
        if arguments.contains(&"--json") {
            for line in text().lines().take(3) {
                let json: serde_json::Value = serde_json::from_str(line).unwrap();
                let one = &json["pipelines"][0];
                assert!(one["block_age_seconds"].as_f64().unwrap() > 0.0, "{line}");
                assert!(
                    one["state_age_seconds"].is_number() && one["standbys"] == serde_json::json!([]),
                    "{line}"
                );
            }
        }
    }
    let plain = scene.succeed(&["status"]).await.stdout;
    assert!(plain.contains("Z, ") && plain.trim_end().ends_with(" s ago"), "{plain}");
}
