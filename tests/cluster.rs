//! The private server: what survives which kind of stop, and that nothing is left behind.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
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
