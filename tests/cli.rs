//! What commands print and with which code they exit.

use crate::support::{Output, database, debshrew};

fn commands() -> Vec<String> {
    debshrew::cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

#[test]
fn help_is_an_answer_with_examples_and_exit_codes() {
    let Output { code, stdout, stderr } = debshrew(&["help"]).run();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("Exit codes:\n  0  success"), "{stdout}");
    for command in commands() {
        let Output { code, stdout, stderr } = debshrew(&[&command, "--help"]).run();
        assert_eq!((code, stderr.as_str()), (0, ""), "{command}");
        assert!(stdout.contains(&format!("Examples:\n  debshrew {command}")), "{stdout}");
    }
    let version = debshrew(&["--version"]).run();
    assert_eq!((version.code, version.stdout), (0, format!("debshrew {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_allowed() {
    for (arguments, expected) in [
        (&[][..], "Usage: debshrew"),
        (&["fly"], "unrecognized subcommand 'fly'"),
        (&["run", "--untl", "5"], "'--until'"),
        (&["run", "--until", "2147483648"], "a height is a whole number from 0 to 2147483647"),
        (&["run", "--until", "5", "--once"], "cannot be used with"),
        (&["rollback"], "--to <HEIGHT>"),
        (&["config", "--log-format", "xml"], "[possible values: text, json]"),
    ] {
        let Output { code, stdout, stderr } = debshrew(arguments).run();
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn config_shows_values_with_their_origins_and_no_secrets() {
    let output = debshrew(&["config", "--source-url", "http://a:1", "--log", "debug"])
        .file("[source]\nretries = 7\npassword = 'sesame'\nusername = 'u'\n[pipelines.ledger]\ntransform = 'l.wasm'")
        .variable("DATABASE_URL", "postgres://u:sesame@h/d")
        .run();
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let rows: Vec<Vec<&str>> = output
        .stdout
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    for row in [
        ["key", "value", "origin"],
        ["database.url", "h:5432/d …", "variable DATABASE_URL"],
        ["database.tls_root_cert", "(not set)", "default"],
        ["database.read_roles", "(none)", "default"],
        ["source.urls", "http://a:1", "flag --source-url"],
        ["source.retries", "7", "file debshrew.toml"],
        ["source.password", "[hidden]", "file debshrew.toml"],
        ["log.filter", "debug", "flag --log"],
        ["pipelines.ledger.transform", "l.wasm", "file debshrew.toml"],
        ["pipelines.ledger.schema", "ledger", "default"],
    ] {
        assert!(rows.iter().any(|found| *found == row), "{row:?} is not in:\n{}", output.stdout);
    }
    assert!(!output.stdout.contains("sesame"));
}

#[test]
fn a_wrong_configuration_exits_with_2_and_names_the_place() {
    let output = debshrew(&["config"]).file("[source]\nretrys = 1").run();
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    assert_eq!(
        output.stderr,
        "error: the key `source.retrys` (file debshrew.toml) is unknown; the nearest known one is `source.retries`\n\
         hint: `debshrew config` lists every key and where its value comes from\n"
    );
    let output = debshrew(&["config", "--config", "none.toml"]).run();
    assert_eq!(output.code, 2);
    assert!(
        output
            .stderr
            .starts_with("error: cannot read the configuration file `none.toml`\n  caused by: No such")
    );
}

#[test]
fn what_a_command_needs_is_asked_for() {
    let output = debshrew(&["status"]).run();
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    assert!(
        output.stderr.starts_with("error: no database is configured\nhint: set `url`"),
        "{}",
        output.stderr
    );
    let output = debshrew(&["run", "--database-url", "host=h", "--source-url", "http://h"]).run();
    assert_eq!(output.code, 2);
    assert!(output.stderr.starts_with("error: no pipeline is configured\nhint: add a"), "{}", output.stderr);
}

#[test]
fn errors_say_what_to_do() {
    let output = debshrew(&["status", "--database-url", "postgress://u@h/d"]).run();
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("\nhint: it is to be like postgres://USER"), "{}", output.stderr);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = debshrew(&["simulate", "--listen", &address]).run();
    assert!(output.stderr.contains("\nhint: --listen takes another address"), "{}", output.stderr);
    let pipeline =
        "[source]\nurls = 'http://127.0.0.1:1'\nretries = 0\n[pipelines.ledger]\ntransform = 'l.wasm'";
    let output = debshrew(&["check", "--database-url", "host=127.0.0.1 port=1"]).file(pipeline).run();
    assert_eq!((output.code, output.stderr.as_str()), (1, "error: 3 of the checks failed\n"));
    let mut lines = output.stdout.lines();
    assert_eq!(lines.next(), Some("ok    configuration: 1 pipeline"));
    assert!(
        lines.next().unwrap().starts_with("BAD   transform of `ledger`: cannot read the transform `l.wasm`")
    );
    assert!(lines.next().unwrap().starts_with("      hint: build it, or set `pipelines.ledger.transform`"));
}

#[tokio::test]
async fn what_the_server_says_is_said_once() {
    let test = database("cli_words").await;
    let output =
        debshrew(&["migrate", "--database-url", &test.dsn, "--grant-read", "debshrew_test_nobody"]).run();
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        "error: PostgreSQL did not accept: let role \"debshrew_test_nobody\" read\n  \
         caused by: ERROR: role \"debshrew_test_nobody\" does not exist\n"
    );
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_debshrew"))
        .arg("config")
        .env_clear()
        .current_dir(std::env::temp_dir())
        .stdout(writer)
        .status();
    assert_eq!(status.unwrap().code(), Some(0));
}

#[tokio::test]
async fn files_that_are_no_files_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let pipe = path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::create_dir(path("migrations")).unwrap();
    std::fs::File::create(path("large.wasm")).unwrap().set_len((16 << 20) + 1).unwrap();
    std::fs::File::create(path("large.toml")).unwrap().set_len((1 << 20) + 1).unwrap();
    assert!(
        std::process::Command::new("mkfifo").arg(path("migrations/V1__pipe.sql")).status().unwrap().success()
    );
    let test = database("no_files").await;
    let check = |keys: &str| debshrew(&["check"]).file(keys).variable("DATABASE_URL", &test.dsn);
    let pipeline = |keys: &str| format!("[source]\nurls = ['http://127.0.0.1:1']\n[pipelines.a]\n{keys}");
    let a_pipe = "it is a pipe; name a regular file";
    for (output, parts) in [
        (debshrew(&["config", "--config", &pipe]), ["cannot read the configuration file", a_pipe]),
        (debshrew(&["config", "--config", "/dev/zero"]), ["`/dev/zero`", "it is a device"]),
        (debshrew(&["config", "--config", &path("large.toml")]), ["large.toml", "it is larger than 1 MiB"]),
        (debshrew(&["simulate", "--blocks", &pipe]), ["cannot read the blocks", a_pipe]),
        (check(&pipeline(&format!("transform = '{pipe}'"))), ["cannot read the transform", a_pipe]),
        (check(&pipeline("transform = '/dev/zero'")), ["cannot read the transform", "it is a device"]),
        (check(&pipeline("transform = '/'")), ["cannot read the transform", "it is a folder"]),
        (
            check(&pipeline(&format!("transform = '{}'", path("large.wasm")))),
            ["it is larger than 16 MiB, the most that is read of such a file", "build it with `--release`"],
        ),
        (
            check(&pipeline(&format!("transform = 'x'\nmigrations = '{}'", path("migrations")))),
            ["cannot read the migration", a_pipe],
        ),
        (
            debshrew(&["status"]).file(&format!(
                "[database]\nurl = 'postgres://h/d?sslmode=verify-full'\ntls_root_cert = '{pipe}'"
            )),
            ["cannot read root certificates", a_pipe],
        ),
    ] {
        let Output { code, stdout, stderr } = output.run();
        assert_ne!(code, 0);
        for part in parts {
            assert!(stdout.contains(part) || stderr.contains(part), "`{part}` is not in: {stdout}\n{stderr}");
        }
    }
}
