//! The private server: what survives which kind of stop, and that nothing is left behind.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use debshrew::cluster::{Cluster, Stop};

const SETTINGS: [(&str, &str); 3] =
    [("fsync", "off"), ("shared_buffers", "1MB"), ("application_name", "it's")];

async fn connect(cluster: &Cluster) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.dsn("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn text(client: &tokio_postgres::Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn data_survive_both_kinds_of_stop_and_no_file_survives_the_drop() {
    let cluster = Cluster::start(&SETTINGS).unwrap();
    let client = connect(&cluster).await;
    assert_eq!(text(&client, "show fsync").await, "off");
    assert_eq!(text(&client, "show listen_addresses").await, "");
    client.batch_execute("create table kept (number int); insert into kept values (1)").await.unwrap();

    cluster.stop(Stop::Fast).unwrap();
    assert!(client.execute("select 1", &[]).await.is_err());
    cluster.start_again().unwrap();
    let client = connect(&cluster).await;
    client.batch_execute("insert into kept values (2)").await.unwrap();

    cluster.stop(Stop::Immediate).unwrap();
    cluster.start_again().unwrap();
    let client = connect(&cluster).await;
    assert_eq!(text(&client, "select sum(number)::text from kept").await, "3");

    let folder = cluster.folder().to_owned();
    assert!(folder.join("data").exists());
    drop(cluster);
    assert!(!folder.exists());
    assert!(client.execute("select 1", &[]).await.is_err());
}

#[test]
fn a_setting_that_the_server_refuses_is_named() {
    let error = Cluster::start(&[("no_such_setting", "1")]).unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

/// Not a test: the process that the next one kills.
#[test]
#[ignore = "run by `nothing_survives_the_kill_of_its_process` in a process of its own"]
fn host() {
    let cluster = Cluster::start(&SETTINGS).unwrap();
    println!("FOLDER {}", cluster.folder().display());
    // Until it is killed, or its parent has ended.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn nothing_survives_the_kill_of_its_process() {
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["cluster::host", "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let folder = lines
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("FOLDER ")?.1.to_owned()))
        .expect("the host says where its server is");
    let mut session = UnixStream::connect(Path::new(&folder).join(".s.PGSQL.5432")).unwrap();

    host.kill().unwrap();
    host.wait().unwrap();
    // Closed by the last who holds it: the watchdog.
    let mut rest = String::new();
    host.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(!Path::new(&folder).exists(), "{folder} is still there: {rest}");
    session.set_nonblocking(true).unwrap();
    assert_eq!(session.read(&mut [0; 1]).ok(), Some(0), "the server still runs: {rest}");
}

/// The folder, and all folders and sockets below it, with the files right in it.
fn places(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        // Some files of a running server come and go.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(places(&entry.path()).into_iter().filter(|path| path.is_dir()));
        }
        found.push(entry.path());
    }
    found
}

#[test]
fn folders_sockets_and_files_are_closed_to_other_users() {
    let cluster = Cluster::start(&SETTINGS).unwrap();
    let (mut sockets, mut open) = (0, Vec::new());
    for path in places(cluster.folder()) {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        sockets += usize::from(metadata.file_type().is_socket());
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            open.push(format!("{} {mode:o}", path.display()));
        }
    }
    assert_eq!((sockets, open), (1, Vec::new()));
}

/// Tries to come in as the user `nobody`. Only root can become another user.
#[test]
fn another_user_gets_in_nowhere() {
    let cluster = Cluster::start(&SETTINGS).unwrap();
    if Path::new("/proc/self").metadata().unwrap().uid() != 0 {
        println!("skipped: only root can try as another user");
        return;
    }
    if cluster.folder().metadata().unwrap().uid() == 65534 {
        println!("skipped: the server runs as `nobody` itself");
        return;
    }
    let script = r#"ls "$1"; cat "$1/log" "$1/pgpass" "$1/data/pg_hba.conf"
        PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin | tail -1)"
        psql -h "$1" -U postgres -Atc "select 'in as ' || current_user""#;
    let attempt = Command::new("/bin/sh")
        .args(["-c", script, "attempt"])
        .arg(cluster.folder())
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&attempt.stdout), "");
    let refusals = String::from_utf8_lossy(&attempt.stderr);
    assert_eq!(refusals.to_lowercase().matches("permission denied").count(), 5, "{refusals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reaches_the_socket_needs_the_password() {
    let cluster = Cluster::start(&SETTINGS).unwrap();
    let without =
        format!("host={} port=5432 user=postgres dbname=postgres", cluster.folder().to_str().unwrap());
    for dsn in [without.clone(), format!("{without} password=guess")] {
        assert!(tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.is_err(), "{dsn}");
    }
    let client = connect(&cluster).await;
    let rules = "select string_agg(distinct auth_method, ',') from pg_hba_file_rules";
    assert_eq!(text(&client, rules).await, "scram-sha-256");
    assert!(!format!("{cluster:?}").contains("password"), "{cluster:?}");
}

/// Not a test: the process that the next one looks into. Prints what the server can see of its environment.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by `the_environment_stays_with_us` in a process of its own"]
async fn environment_host() {
    let cluster = Cluster::start(&SETTINGS).unwrap();
    let client = connect(&cluster).await;
    client
        .batch_execute("create temp table seen (line text); copy seen from program 'env' (delimiter e'\x01')")
        .await
        .unwrap();
    for row in client.query("select line from seen", &[]).await.unwrap() {
        println!("SEEN {}", row.get::<_, String>(0));
    }
    // The processes that were started: they name the folder.
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        if command.contains(cluster.folder().to_str().unwrap()) {
            println!("SEEN {command} {}", String::from_utf8_lossy(&read("environ")).replace('\0', " "));
        }
    }
}

#[test]
fn the_environment_stays_with_us() {
    let host = Command::new(std::env::current_exe().unwrap())
        .args(["cluster::environment_host", "--exact", "--ignored", "--nocapture"])
        .env("DATABASE_URL", "postgres://u:sesame@h/d")
        .env("SOME_TOKEN", "sesame")
        .output()
        .unwrap();
    assert!(host.status.success(), "{}", String::from_utf8_lossy(&host.stderr));
    let output = String::from_utf8_lossy(&host.stdout);
    let seen: Vec<&str> = output.lines().filter(|line| line.contains("SEEN ")).collect();
    assert!(seen.iter().any(|line| line.contains("SEEN PATH=")), "{output}");
    // The watchdog and the server.
    assert!(seen.iter().filter(|line| line.contains("debshrew-")).count() >= 2, "{output}");
    let leaks: Vec<_> = seen.iter().filter(|line| line.contains("sesame")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
