//! Secrets in all their places, through every command and many failures, at the most talkative log level: none is in
//! what is printed, logged or kept in debshrew's tables.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use debshrew::simulate::{Command, Fault, Misbehaviour};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{COUNTER, Output, Scene, debshrew, quick, until};

/// Every secret of these tests begins so.
const MARK: &str = "sesame";

fn hold(what: &str, text: &str) {
    // `user:password` as it is sent.
    for secret in [MARK, "c2VzYW1l"] {
        if let Some(line) = text.lines().find(|line| line.to_lowercase().contains(&secret.to_lowercase())) {
            panic!("{what}: {line}");
        }
    }
}

fn hold_output(what: &str, output: &Output) {
    hold(what, &output.stdout);
    hold(what, &output.stderr);
}

/// Forwards requests to the stand-in, whatever their path is; a connection a request. While `echo` is in the path, it
/// answers with an error of its own that repeats the request.
async fn gateway(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(forward(client, to));
        }
    });
    address
}

async fn forward(mut client: TcpStream, to: SocketAddr) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.to_lowercase().split_once("content-length: ")?.1.lines().next()?.parse().ok()?;
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.ok()?;
    if head.contains("echo") {
        let mut id = serde_json::from_slice::<serde_json::Value>(&body).ok()?["id"].take();
        if head.contains("echo-other") {
            id = serde_json::Value::from(head.as_str());
        }
        let message = format!("cannot do {head}");
        let error =
            serde_json::json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": message}});
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{error}", error.to_string().len());
        return client.write_all(answer.as_bytes()).await.ok();
    }
    let mut server = TcpStream::connect(to).await.ok()?;
    let (_, rest) = head.split_once("\r\n")?;
    server.write_all(format!("POST / HTTP/1.1\r\nConnection: close\r\n{rest}").as_bytes()).await.ok()?;
    server.write_all(&body).await.ok()?;
    tokio::io::copy(&mut server, &mut client).await.ok()?;
    client.shutdown().await.ok()
}

/// A source with a secret wherever there is room for one. Its host and port are `at`.
fn source(at: SocketAddr, scheme: &str, path: &str) -> String {
    format!(
        "[source]\nurls = ['{scheme}://{MARK}-user:{MARK}-login@{at}/v1/{MARK}-path{path}/?auth={MARK}-auth&sig={MARK}-sig']\n\
         headers = {{ x-api-key = '{MARK}-header' }}\nretries = 1\npoll_interval = '20ms'\nconnect_timeout = '2s'\n"
    )
}

const COMMANDS: [&[&str]; 9] = [
    &["config"],
    &["check"],
    &["migrate", "--dry-run"],
    &["migrate"],
    &["migrate", "--status"],
    &["run", "--once", "--log", "trace"],
    &[
        "run",
        "--once",
        "--log",
        "trace,hyper_util=trace,tokio_postgres=trace,reqwest=trace",
        "--log-format",
        "json",
    ],
    &["status", "--log", "trace"],
    &["rollback", "--to", "2", "--yes", "--log", "trace"],
];

async fn hold_tables(scene: &Scene) {
    let tables =
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname like 'debshrew%'";
    for table in scene.client.query(tables, &[]).await.unwrap() {
        let name: String = table.get(0);
        let all = format!("select coalesce(string_agg(t::text, E'\\n'), '') from {name} t");
        hold(&name, scene.client.query_one(&all, &[]).await.unwrap().get(0));
    }
}

/// A pipeline whose role has a password, for which the server asks.
async fn scene(name: &str) -> (Scene, SocketAddr, String) {
    let mut scene = Scene::new(name, COUNTER, quick(6)).await;
    let password = format!("{MARK}-dsn");
    let role = format!("{name}_role");
    let make = format!(
        "drop role if exists {role}; create role {role} superuser login password '{password}'; \
         create table if not exists public.unused ()"
    );
    scene.client.batch_execute(&make).await.unwrap();
    let old = &scene.database.dsn;
    let (place, parameters) = old.split_once('?').unwrap();
    let host = parameters.split('&').find(|pair| pair.starts_with("host=")).unwrap();
    let dsn = format!("{place}?{host}&port=5432&user={role}&password={password}");
    let simulator = scene.source.url().strip_prefix("http://").unwrap().parse().unwrap();
    let pipelines = scene.toml.split_once("[pipelines").unwrap().1.to_owned();
    scene.toml = format!("[database]\nurl = '{dsn}'\nSOURCE[pipelines{pipelines}");
    (scene, gateway(simulator).await, dsn)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_shows_a_secret_whether_it_works_or_not() {
    let (mut scene, gateway, dsn) = scene("leaks_commands").await;
    let refused: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let fine = source(gateway, "http", "");
    let toml = scene.toml.clone();
    for (what, from, to, works) in [
        ("all is well", "", "", true),
        ("source refused", fine.as_str(), source(refused, "http", "").as_str(), false),
        ("source without TLS", &fine, &source(gateway, "https", ""), false),
        ("source repeats the request", &fine, &source(gateway, "http", "/echo"), false),
        ("source answers another call", &fine, &source(gateway, "http", "/echo-other"), false),
        ("wrong password", "-dsn'", "-other'", false),
        ("database refused", &dsn, &format!("postgres://u:{MARK}@127.0.0.1:1/d"), false),
        (
            "database without TLS",
            &dsn,
            &format!("{}&sslmode=require", dsn.replace("host=", "hostaddr=127.0.0.1&host=")),
            false,
        ),
        ("no such database", "debshrew_test_leaks_commands", "debshrew_test_none", false),
        ("a host of two halves", &dsn, &format!("postgres://u:p@{MARK}@127.0.0.1/d"), false),
    ] {
        scene.toml = toml.replace("SOURCE", &fine);
        if !from.is_empty() {
            assert!(scene.toml.contains(from), "{what}");
            scene.toml = scene.toml.replace(from, to);
        }
        for arguments in COMMANDS {
            let output = scene.run(arguments).await;
            hold_output(&format!("{what}: {arguments:?}"), &output);
            assert!(!works || output.code == 0, "{what}: {arguments:?}: {}{}", output.stdout, output.stderr);
        }
        hold_tables(&scene).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_on_the_way_show_and_keep_no_secret() {
    let (mut scene, gateway, _) = scene("leaks_run").await;
    scene.toml = scene.toml.replace("SOURCE", &source(gateway, "http", ""));
    scene.succeed(&["migrate"]).await;
    let _running = scene.start(&["run", "--log", "trace"]);
    scene.caught_up().await;
    for fault in [
        Fault::Status { code: 500 },
        Fault::Status { code: 302 },
        Fault::Drop,
        Fault::NotJson,
        Fault::Error {
            message: format!("no route for /v1/{MARK}-path/ and {MARK}-user:{MARK}-login, {MARK}-header"),
        },
        Fault::Result { value: format!("https://{MARK}-user@h/?auth={MARK}-auth&sig={MARK}-sig").into() },
    ] {
        let misbehave = Misbehaviour { fault: fault.clone(), calls: None, method: None, view: None };
        scene.source.control(Command::Misbehave(misbehave)).await.unwrap();
        let said = "select last_error is not null from debshrew.pipelines";
        until(&format!("{fault:?} is said"), async || {
            scene.client.query_one(said, &[]).await.unwrap().get(0)
        })
        .await;
        hold_tables(&scene).await;
        hold_output("status", &scene.run(&["status", "--json"]).await);
        if fault == (Fault::Status { code: 302 }) {
            // Halts.
            return hold("the log", &std::fs::read_to_string(scene.log()).unwrap());
        }
        scene.source.control(Command::Clear {}).await.unwrap();
        let gone = "select last_error is null from debshrew.pipelines";
        until("it goes on", async || scene.client.query_one(gone, &[]).await.unwrap().get(0)).await;
    }
    hold("the log", &std::fs::read_to_string(scene.log()).unwrap());
}

#[test]
fn a_wrong_configuration_shows_no_value() {
    let secret = format!("{MARK}-value");
    let files = [
        "[database]\nurl = 'postgres://u:SECRET@h/d",
        "[database]\nurl = postgres://u:SECRET@h/d",
        "[source]\npassword = SECRET",
        "[source]\npassword = 'a' # \u{1} SECRET",
        "[source]\nbearer_token = 'SECRET\"\nretries = 1",
        "password = 'SECRET'\npassword = 'SECRET'",
        "[database]\nurl = ['SECRET']",
        "[database]\nurl = { SECRET = 'SECRET' }\n",
        "[database]\nulr = 'SECRET'",
        "[source]\npasword = 'SECRET'",
        "[source]\npassword = ['SECRET']",
        "[source]\nheaders = 'SECRET'",
        "[source]\nheaders = { 'x y' = 'SECRET' }",
        "[source]\nurls = 'u:SECRET@h'",
        "[source]\nurls = ['ftp://u:SECRET@h']",
        "[source]\nretries = 'SECRET'",
        "[source]\nusername = ['SECRET']",
        "[log]\nformat = 'SECRET'\n",
        "[log]\nfilter = 'debshrew=SECRET'\n",
        "[pipelines.a]\ntransform = 'a'\nschema = 'pg_SECRET'",
        "[pipelines.a]\ntransform = ['SECRET']",
    ];
    for text in files {
        // A table's name is a key.
        let text = text.replace("{ SECRET =", "{ a =").replace("SECRET", &secret);
        for command in ["config", "check", "run", "status"] {
            let output = debshrew(&[command]).file(&text).run();
            assert_eq!(output.code, 2, "{text}: {}{}", output.stdout, output.stderr);
            assert!(output.stderr.contains("debshrew.toml"), "{text}: {}", output.stderr);
            hold_output(&format!("{text}: {command}"), &output);
        }
    }
    for name in [
        "DEBSHREW__SOURCE__RETRIES",
        "DEBSHREW__SOURCE__URLS",
        "DEBSHREW__SOURCE__POLL_INTERVAL",
        "DEBSHREW__SOURCE__MAX_RESPONSE_BYTES",
        "DEBSHREW__LOG__FORMAT",
        "DEBSHREW__DATABASE__POOL_SIZE",
        "DEBSHREW__DATABASE__ULR",
        "DEBSHREW__PIPELINES__A__UNKNOWN_IMPORTS",
    ] {
        let output = debshrew(&["config"])
            .file("[pipelines.a]\ntransform = 'a'")
            .variable(name, &secret)
            .variable("PGPASSWORD", &secret)
            .run();
        assert_eq!(output.code, 2, "{name}: {}", output.stdout);
        assert!(output.stderr.contains(name), "{}", output.stderr);
        hold_output(name, &output);
    }
}

#[test]
fn wrong_urls_headers_and_arguments_show_nothing_of_themselves() {
    let file = "[pipelines.a]\ntransform = 'a'\n[source]\nurls = ['http://127.0.0.1:1']\nretries = 0\n";
    for dsn in [
        "postgres://u:SECRET@SECRET@127.0.0.1:1/d",
        "postgres://u:SECRET/SECRET@127.0.0.1:1/d",
        "postgres://u:a?SECRET=SECRET@127.0.0.1:1/d",
        "postgres://u:a@127.0.0.1:1/d?SECRET",
        "postgres://u:a@127.0.0.1:1/d?SECRET=1",
        "postgres://u:a@127.0.0.1:1/d?sslmode=SECRET",
        "postgres://u:a@127.0.0.1:1/d?sslrootcert=/SECRET",
        "postgres://u:SECRET",
        "postgress://u:SECRET@h/d",
        "host=127.0.0.1 port=1 password=a SECRET",
        "host=127.0.0.1 port=1 password=a SECRET=b",
        "host=127.0.0.1 port=SECRET",
        "password='SECRET",
        "SECRET",
    ] {
        let dsn = dsn.replace("SECRET", MARK);
        for command in ["config", "check", "migrate", "status"] {
            hold_output(&dsn, &debshrew(&[command, "--database-url", &dsn]).file(file).run());
            hold_output(&dsn, &debshrew(&[command]).file(file).variable("DATABASE_URL", &dsn).run());
            let flag = format!("--databse-url={dsn}");
            hold_output(&dsn, &debshrew(&[command, &flag]).run());
            // By itself, a word could be anything.
            if dsn != MARK {
                hold_output(&dsn, &debshrew(&[&dsn, command]).run());
            }
        }
    }
    for (name, value) in [
        ("DEBSHREW__SOURCE__HEADERS__X_KEY", "SECRET\nSECRET"),
        ("DEBSHREW__SOURCE__BEARER_TOKEN", "SECRET\r\nSECRET"),
        ("DEBSHREW__SOURCE__URLS", "http://u:SECRET/SECRET@127.0.0.1:1"),
        ("DEBSHREW__SOURCE__URLS", "http://u:SECRET"),
        ("DEBSHREW__SOURCE__URLS", "http://127.0.0.1:1/SECRET,https://SECRET@127.0.0.1:1?a=SECRET"),
        ("DEBSHREW__SOURCE__USERNAME", "SECRET"),
    ] {
        for command in ["config", "check"] {
            let command = debshrew(&[command, "--database-url", "host=127.0.0.1 port=1"]).file(file);
            hold_output(name, &command.variable(name, &value.replace("SECRET", MARK)).run());
        }
    }
    let output = debshrew(&["demo", "--log", "debshrew=sesame"]).run();
    assert_eq!(output.code, 2, "{}", output.stderr);
    hold_output("--log", &output);
}

#[test]
fn a_file_with_secrets_that_others_can_read_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("debshrew.toml");
    let checked = |text: &str, mode: u32, arguments: &[&str]| {
        let rest =
            "[source]\nurls = ['http://127.0.0.1:1']\nretries = 0\n[pipelines.a]\ntransform = 'a.wasm'\n";
        std::fs::write(&path, format!("{text}{rest}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let arguments = [arguments, &["--config", path.to_str().unwrap()]].concat();
        let output = debshrew(&arguments).run();
        let all = output.stdout + &output.stderr;
        all.contains("other users can read") && all.contains("(`database.url`)")
    };
    let secret = "[database]\nurl = 'postgres://u:sesame@127.0.0.1:1/d'\n";
    for (text, mode, expected) in [
        (secret, 0o644, true),
        (secret, 0o640, true),
        (secret, 0o600, false),
        ("[database]\nurl = 'postgres://u@127.0.0.1:1/d'\n", 0o644, false),
    ] {
        assert_eq!(checked(text, mode, &["check"]), expected, "{text} {mode:o}");
        assert_eq!(checked(text, mode, &["run"]), expected, "{text} {mode:o}");
    }
    // What a flag says is not the file's.
    assert!(!checked(secret, 0o644, &["check", "--database-url", "postgres://u:x@127.0.0.1:1/d"]));
}
