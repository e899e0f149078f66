//! What debshrew is installed with: the service, the containers, what watches it; and what it tells systemd.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use debshrew::config::KEYS;
use debshrew::observe::metrics::METRICS;
use serde_json::Value;

use crate::support::{COUNTER, DEADLINE, Scene, quick};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Names of metrics as Prometheus has them, each with its labels.
fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut series = BTreeMap::new();
    for metric in METRICS {
        let labels: BTreeSet<&str> = metric.labels.iter().copied().collect();
        if format!("{:?}", metric.kind).starts_with("Histogram") {
            for part in ["bucket", "count", "sum"] {
                series.insert(format!("{}_{part}", metric.name), labels.clone());
            }
        } else {
            series.insert(metric.name.to_owned(), labels);
        }
    }
    series
}

/// Whether a letter can stand in a metric's name.
fn in_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The metrics of debshrew's that an expression names, each with the labels that it is asked for by.
fn named(expression: &str) -> Vec<(String, Vec<String>)> {
    let starts = expression.match_indices("debshrew_").map(|(index, _)| index);
    let starts = starts.filter(|index| !expression[..*index].ends_with(in_name));
    let read = |index: usize| {
        let name: String = expression[index..].chars().take_while(|letter| in_name(*letter)).collect();
        let behind = &expression[index + name.len()..];
        let asked = behind.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
        let labels = asked.split(',').map(|one| one.chars().take_while(|letter| in_name(*letter)).collect());
        (name, labels.filter(|label: &String| !label.is_empty()).collect())
    };
    starts.map(read).collect()
}

/// What is wrong with an expression's metrics.
fn problems(expression: &str) -> Vec<String> {
    let series = series();
    let mut problems = Vec::new();
    for (name, labels) in named(expression) {
        match series.get(&name) {
            None => problems.push(format!("there is no metric {name}: {expression}")),
            Some(known) => {
                let unknown = labels.iter().filter(|label| *label != "le" && !known.contains(label.as_str()));
                problems.extend(unknown.map(|label| format!("{name} has no label {label}: {expression}")));
            }
        }
    }
    problems
}

#[test]
fn what_is_wrong_with_an_expression_is_seen() {
    assert_eq!(problems(r#"rate(debshrew_commit_seconds_bucket{pipeline="a", le="5"}[1m])"#), [""; 0]);
    assert_eq!(problems("sum by (pipeline) (debshrew_lag_blocks)"), [""; 0]);
    assert_eq!(problems("debshrew_lag_block").len(), 1);
    assert_eq!(problems("debshrew_commit_seconds").len(), 1);
    assert_eq!(problems(r#"debshrew_lag_blocks{table="x"}"#).len(), 1);
}

/// Runs a program that may not be there. What it says if it is not content.
fn complaint(program: &str, arguments: &[&str]) -> Option<String> {
    match std::process::Command::new(program).args(arguments).current_dir(path("")).output() {
        Err(_) => None,
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()),
    }
}

#[test]
fn alerts_name_metrics_that_there_are_and_say_the_same_as_those_in_sql() {
    let rules = yaml("deploy/prometheus/alerts.yaml");
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert_eq!(problems(rule["expr"].as_str().unwrap()), [""; 0], "{name}");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 20), "{name}");
        }
        names.insert(name.strip_prefix("Debshrew").unwrap().to_lowercase());
    }
    let sql = text("sql/alerts.sql");
    for alert in sql.lines().filter_map(|line| line.strip_prefix("select '")?.split('\'').next()) {
        assert!(names.contains(&alert.replace('_', "")), "{alert} is none of {names:?}");
    }
    assert_eq!(complaint("promtool", &["check", "rules", "deploy/prometheus/alerts.yaml"]), None);
    assert_eq!(complaint("promtool", &["check", "config", "deploy/prometheus/prometheus.yaml"]), None);
    assert_eq!(complaint("promtool", &["test", "rules", "deploy/prometheus/alerts_test.yaml"]), None);
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/debshrew.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    let (mut ids, mut shown) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert_eq!(problems(expression), [""; 0], "{title}");
            assert!(!named(expression).is_empty(), "{title}");
            shown.extend(named(expression).into_iter().map(|(name, _)| name));
        }
    }
    assert!(shown.contains("debshrew_checkpoint_height") && shown.contains("debshrew_lag_blocks"));
}

/// The arguments of a list in YAML.
fn arguments(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|argument| argument.as_str().unwrap()).collect()
}

/// Whether the command line would take them.
fn parses(arguments: &[&str]) -> bool {
    let line = ["debshrew"].iter().chain(arguments);
    debshrew::cli::command().try_get_matches_from(line).is_ok()
}

/// Where a service of the compose file listens, by its command or its published ports.
fn listens(service: &Value, port: &str) -> bool {
    arguments(&service["ports"]).iter().any(|published| published.ends_with(&format!(":{port}")))
}

#[test]
fn the_compose_file_is_whole() {
    let compose = yaml("deploy/compose.yaml");
    let services = compose["services"].as_object().unwrap();
    assert_eq!(
        services.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        BTreeSet::from(["debshrew", "grafana", "postgres", "prometheus", "simulate"])
    );
    for (name, service) in services {
        let ours = service["<<"]["image"] == "debshrew" || service["image"] == "debshrew";
        assert!(ours || service["image"].as_str().is_some_and(|image| image.contains(':')), "{name}");
        assert_eq!(service["healthcheck"]["test"][0], "CMD", "{name}");
        if ours {
            assert!(parses(&arguments(&service["command"])), "{name}");
        }
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services.contains_key(other) && how["condition"] == "service_healthy", "{name} {other}");
        }
        for volume in arguments(&service["volumes"]) {
            let (host, _) = volume.split_once(':').unwrap();
            let built = host.starts_with("../transforms/target/");
            let there = match host.strip_prefix('.') {
                Some(_) => built || path("deploy").join(host).exists(),
                None => compose["volumes"].as_object().unwrap().contains_key(host),
            };
            assert!(there, "{name}: {host} is not there");
        }
        for port in arguments(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the network");
        }
        for variable in service["environment"].as_object().into_iter().flatten().map(|(name, _)| name) {
            let Some(key) = variable.strip_prefix("DEBSHREW__") else { continue };
            let key = key.to_lowercase().replace("__", ".");
            let is_known = KEYS.iter().any(|known| known.name == key);
            assert!(is_known, "{variable} is no key");
        }
    }
    let health = arguments(&services["debshrew"]["healthcheck"]["test"]);
    assert!(health[1] == "debshrew" && parses(&health[2..]), "{health:?}");
}

#[test]
fn the_containers_find_one_another() {
    let compose = yaml("deploy/compose.yaml");
    let services = &compose["services"];
    let inputs = debshrew::config::Inputs {
        file: Some(path("deploy/compose/debshrew.toml")),
        ..debshrew::config::Inputs::default()
    };
    let config = debshrew::config::load(&inputs).unwrap();
    assert_eq!(config.source.urls, ["http://simulate:8080"]);
    let simulate = arguments(&services["simulate"]["command"]);
    assert!(simulate.contains(&"0.0.0.0:8080") && listens(&services["simulate"], "8080"), "{simulate:?}");
    assert!(simulate.windows(2).any(|pair| pair == ["--host", "simulate"]), "{simulate:?}");
    // What it reads is mounted.
    let mounts: Vec<&str> = arguments(&services["debshrew"]["volumes"])
        .iter()
        .map(|volume| volume.split(':').nth(1).unwrap())
        .collect();
    let ledger = &config.pipelines["ledger"];
    for file in [Some(&ledger.transform), ledger.migrations.as_ref()].into_iter().flatten() {
        assert!(mounts.iter().any(|mount| file.starts_with(mount)), "{} is not mounted", file.display());
    }
    let environment = &services["debshrew"]["environment"];
    let database = environment["DATABASE_URL"].as_str().unwrap();
    let postgres = &services["postgres"]["environment"];
    let part = |name: &str| postgres[name].as_str().unwrap();
    let expected = format!(
        "postgres://{}:{}@postgres/{}",
        part("POSTGRES_USER"),
        part("POSTGRES_PASSWORD"),
        part("POSTGRES_DB")
    );
    assert_eq!(database, expected);
    // Prometheus asks debshrew, Grafana asks Prometheus.
    let listen = environment["DEBSHREW__SERVER__LISTEN"].as_str().unwrap();
    let port = listen.rsplit(':').next().unwrap();
    let scraped = &yaml("deploy/prometheus/prometheus.yaml")["scrape_configs"][0];
    assert_eq!(scraped["static_configs"][0]["targets"][0], format!("debshrew:{port}"));
    assert_eq!(scraped["authorization"]["credentials"], environment["DEBSHREW__SERVER__TOKEN"]);
    let source = &yaml("deploy/grafana/datasource.yaml")["datasources"][0];
    assert_eq!(source["url"], "http://prometheus:9090");
    assert!(listens(&services["prometheus"], "9090") && listens(&services["debshrew"], port));
    let dashboards = yaml("deploy/grafana/provider.yaml");
    let folder = dashboards["providers"][0]["options"]["path"].as_str().unwrap();
    let grafana = arguments(&services["grafana"]["volumes"]);
    assert!(grafana.iter().any(|volume| volume.contains(&format!(":{folder}/debshrew.json"))), "{grafana:?}");
}

#[test]
fn the_image_is_built_from_files_that_there_are() {
    let dockerfile = text("Dockerfile");
    let mut copied = BTreeSet::new();
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        if line.starts_with("--from") {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(path(source).exists(), "the Dockerfile copies {source}, which is not there");
            copied.insert(*source);
        }
    }
    for needed in ["Cargo.toml", "Cargo.lock", "migrations", "sql", "src"] {
        assert!(copied.contains(needed), "the Dockerfile does not copy {needed}");
    }
}

const UNIT: &str = "deploy/systemd/debshrew.service";

#[test]
fn the_service_is_bounded_and_starts_what_there_is() {
    let unit = text(UNIT);
    let lines: BTreeSet<&str> = unit.lines().collect();
    for line in [
        "Type=notify",
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "SystemCallFilter=@system-service",
        "MemoryDenyWriteExecute=yes",
        "LoadCredential=database.url:/etc/debshrew/database.url",
    ] {
        assert!(lines.contains(line), "{UNIT} has no line {line}");
    }
    assert!(unit.contains("WatchdogSec="));
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/debshrew ")).unwrap();
    assert!(parses(&start.split(' ').collect::<Vec<_>>()), "{start}");
    // A credential's name is a key.
    let credential = unit.lines().find_map(|line| line.strip_prefix("LoadCredential=")).unwrap();
    assert!(KEYS.iter().any(|key| credential.starts_with(&format!("{}:", key.name))), "{credential}");

    // systemd's own opinion, with the program that there is.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("debshrew.service");
    std::fs::write(&copy, unit.replace("/usr/bin/debshrew", env!("CARGO_BIN_EXE_debshrew"))).unwrap();
    let copy = copy.to_str().unwrap();
    assert_eq!(complaint("systemd-analyze", &["verify", "--man=no", "--recursive-errors=no", copy]), None);
    // From 0 to 100; what is bounded as tightly as a service on the network can be has some 10 to 20.
    assert_eq!(complaint("systemd-analyze", &["security", "--offline=yes", "--threshold=20", copy]), None);
}

/// What is sent to where systemd listens, a line each.
async fn sent(socket: &UnixDatagram) -> Vec<String> {
    let socket = socket.try_clone().unwrap();
    let receive = tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned).collect()
    });
    tokio::time::timeout(DEADLINE, receive).await.expect("systemd is told nothing").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_when_it_is_ready_that_it_lives_and_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("notify");
    let socket = UnixDatagram::bind(&place).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let scene = Scene::new("deploy_systemd", COUNTER, quick(3)).await;
    scene.succeed(&["migrate"]).await;
    let variables = [("NOTIFY_SOCKET", place.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let mut running = scene.start_with(&["run"], &variables);
    let mut told = sent(&socket).await;
    while !told.contains(&"READY=1".to_owned()) {
        told = sent(&socket).await;
    }
    // Signs of life, that are told well within the time that systemd waits.
    let mut last = std::time::Instant::now();
    for _ in 0..5 {
        while !sent(&socket).await.contains(&"WATCHDOG=1".to_owned()) {}
        assert!(last.elapsed() < Duration::from_secs(5), "{:?}", last.elapsed());
        last = std::time::Instant::now();
    }
    // It does not fall silent for good when systemd could not be reached for a moment.
    std::fs::remove_file(&place).unwrap();
    scene.logged("cannot tell systemd", 1).await;
    let socket = UnixDatagram::bind(&place).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    while !sent(&socket).await.contains(&"WATCHDOG=1".to_owned()) {}
    scene.caught_up().await;
    let status = "STATUS=counter: running, 3 of 3".to_owned();
    while !sent(&socket).await.contains(&status) {}
    let id = running.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    while !sent(&socket).await.contains(&"STOPPING=1".to_owned()) {}
    assert!(running.wait().await.unwrap().success());
}

#[test]
fn the_package_has_what_it_needs_and_what_the_service_reads() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let list = |value: &toml::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let mut installed = Vec::new();
    for asset in package["assets"].as_array().unwrap() {
        let [source, place, mode] = &list(asset)[..] else { panic!("{asset:?}") };
        let is_built = source.starts_with("target/");
        let folder = source.strip_suffix("/*.md").unwrap_or(source);
        assert!(is_built || path(folder).exists(), "{source} is not there");
        assert_eq!(mode == "755", source == "target/release/debshrew", "{source}");
        let name = source.rsplit('/').next().unwrap();
        installed.push(if place.ends_with('/') { format!("/{place}{name}") } else { format!("/{place}") });
    }
    let unit = text(UNIT);
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    for needed in start.split(' ').filter(|word| word.starts_with('/')) {
        assert!(installed.contains(&needed.to_owned()), "{needed} is none of {installed:?}");
    }
    let units = package["systemd-units"]["unit-scripts"].as_str().unwrap();
    assert_eq!(path(units).join("debshrew.service"), path(UNIT));
    for kept in list(&package["conf-files"]) {
        assert!(installed.contains(&kept), "{kept} is none of {installed:?}");
    }
    // What is in it is right as it is, but for what only its user knows.
    let inputs = debshrew::config::Inputs {
        file: Some(path("deploy/debian/debshrew.toml")),
        ..debshrew::config::Inputs::default()
    };
    let config = debshrew::config::load(&inputs).unwrap();
    assert!(config.pipelines.is_empty() && config.source.urls.is_empty());
}

/// Longer ones are broken, and the package's list shows half a sentence.
#[test]
fn the_package_is_described_in_one_line() {
    assert!(env!("CARGO_PKG_DESCRIPTION").len() <= 80, "{}", env!("CARGO_PKG_DESCRIPTION"));
}
