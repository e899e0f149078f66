//! HTTP spoken by hand, so that what a server really sends is seen: every header, and connections that just end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Answer {
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub async fn connect(url: &str) -> Client {
        let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        Client { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer; `None` when the connection ends before it is whole.
    pub async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value);
        let length: usize = length.expect("a content-length").parse().unwrap();
        while self.read.len() < length {
            self.more().await?;
        }
        let body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        Some(Answer { status, headers, body })
    }

    /// Whether the other side closes the connection, sending nothing more.
    pub async fn ends(&mut self) -> bool {
        self.read.is_empty() && self.more().await.is_none()
    }

    async fn more(&mut self) -> Option<()> {
        // A reset is an end, too.
        let read = self.stream.read_buf(&mut self.read).await.unwrap_or(0);
        (read > 0).then_some(())
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

pub fn request(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A JSON body, posted on a connection of its own.
pub async fn post(url: &str, path: &str, body: &str) -> Option<Answer> {
    let mut client = Client::connect(url).await;
    client.send(request(path, "Content-Type: application/json\r\n", body).as_bytes()).await;
    client.answer().await
}

/// A call's result; an error is a test's failure.
pub async fn call(url: &str, method: &str, params: serde_json::Value) -> String {
    let answer = attempt(url, method, params).await;
    answer["result"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

pub async fn attempt(url: &str, method: &str, params: serde_json::Value) -> serde_json::Value {
    let body = serde_json::json!({"id": 1, "method": method, "params": params}).to_string();
    let answer = in_time(post(url, "/", &body)).await;
    serde_json::from_str(&answer.expect("an answer").body).unwrap()
}

/// What is waited for comes within 20 s.
pub async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it came in time")
}
