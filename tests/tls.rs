//! Passwords on their way to PostgreSQL: a server that has no TLS, or that somebody poses as, is sent none where TLS
//! was asked for.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::debshrew;

/// A root certificate that nobody has the key of.
const ROOT: &str = include_str!("tls/root.pem");

/// A server that answers "no TLS", and then asks for the password in clear. All that came after the question for TLS.
async fn without_tls(mut stream: TcpStream) -> Vec<u8> {
    let mut request = [0; 8];
    stream.read_exact(&mut request).await.unwrap();
    // Source: PostgreSQL's manual, "Message Formats": SSLRequest.
    assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47], "it did not ask for TLS first");
    stream.write_all(b"N").await.unwrap();
    let mut received = Vec::new();
    let mut asked = false;
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut received)).await
    {
        if !asked {
            // AuthenticationCleartextPassword
            stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await.unwrap();
            asked = true;
        }
    }
    received
}

#[tokio::test]
async fn with_a_root_certificate_a_server_without_tls_is_sent_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, ROOT).unwrap();
    let root = root.to_str().unwrap();
    for (parameters, key) in [
        ("", root),
        ("?sslmode=prefer", root),
        (&format!("?sslrootcert={root}"), ""),
        ("?sslrootcert=system", ""),
        ("?sslmode=verify-full", ""),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dsn = format!("postgres://someone:sesame@{address}/d{parameters}");
        let command = debshrew(&["status", "--database-url", &dsn])
            .variable("DEBSHREW__DATABASE__TLS_ROOT_CERT", key)
            .variable("DEBSHREW__DATABASE__CONNECT_TIMEOUT", "5s");
        let run = tokio::task::spawn_blocking(move || command.run());
        let (stream, _) = listener.accept().await.unwrap();
        let received = without_tls(stream).await;
        assert_eq!(String::from_utf8_lossy(&received), "", "{parameters} {key}");
        let output = run.await.unwrap();
        assert!(output.stderr.contains("server does not support TLS"), "{}", output.stderr);
    }
}

#[test]
fn a_root_certificate_and_no_tls_contradict_one_another() {
    let dsn = "postgres://someone:sesame@127.0.0.1:1/d?sslmode=disable";
    let output =
        debshrew(&["status", "--database-url", dsn]).file("[database]\ntls_root_cert = 'root.pem'").run();
    assert_eq!(output.code, 2, "{}", output.stderr);
    assert!(
        output.stderr.starts_with("error: `database.tls_root_cert` asks for TLS, and the database URL's"),
        "{}",
        output.stderr
    );
}

#[test]
fn check_says_when_a_password_may_go_unencrypted() {
    let checked = |dsn: &str| {
        let file = format!(
            "[database]\nurl = '{dsn}'\nconnect_timeout = '100ms'\n[source]\nurls = ['http://127.0.0.1:1']\n\
             retries = 0\n[pipelines.a]\ntransform = 'a.wasm'"
        );
        let output = debshrew(&["check"]).file(&file).run();
        output.stdout.contains("note  database: the password may go to 192.0.2.1 unencrypted")
    };
    for (dsn, expected) in [
        ("postgres://u:p@192.0.2.1/d", true),
        ("postgres://u:p@192.0.2.1/d?sslmode=disable", true),
        ("postgres://u:p@192.0.2.1/d?sslmode=verify-full", false),
        ("postgres://u@192.0.2.1/d", false),
        ("postgres://u:p@127.0.0.1:1/d", false),
    ] {
        assert_eq!(checked(dsn), expected, "{dsn}");
    }
}
