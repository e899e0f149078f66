//! What lies between a process and PostgreSQL: a proxy on TCP that is slow, or that takes everything and forwards nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::TestDb;

#[derive(Default)]
struct How {
    swallows: AtomicBool,
    /// Of what goes to the server, on each connection; 0 is as many as there are.
    bytes_per_second: AtomicU64,
}

pub struct Proxy {
    pub database: TestDb,
    how: Arc<How>,
    _listening: AbortOnDropHandle<()>,
}

impl Proxy {
    /// In front of a private server, which is on a Unix socket.
    pub async fn start(to: &TestDb) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (before, after) = to.dsn.split_once("host=").expect("a private server");
        let (folder, after) = after.split_once("&port=5432").unwrap();
        let socket = format!("{}/.s.PGSQL.5432", folder.replace("%2F", "/"));
        let dsn = format!("{before}host=127.0.0.1&port={port}{after}");
        let how = Arc::<How>::default();
        let listening = tokio::spawn(listen(listener, socket, Arc::clone(&how)));
        Proxy { database: TestDb { dsn }, how, _listening: AbortOnDropHandle::new(listening) }
    }

    /// From now on it acknowledges what comes, and forwards nothing.
    pub fn swallow(&self, swallows: bool) {
        self.how.swallows.store(swallows, Ordering::SeqCst);
    }

    pub fn throttle(&self, bytes_per_second: u64) {
        self.how.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }
}

async fn listen(listener: TcpListener, socket: String, how: Arc<How>) {
    while let Ok((client, _)) = listener.accept().await {
        let (how, socket) = (Arc::clone(&how), socket.clone());
        tokio::spawn(async move {
            let server = UnixStream::connect(socket).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::select! {
                () = forward(from_client, to_server, &how, true) => {}
                () = forward(from_server, to_client, &how, false) => {}
            }
        });
    }
}

async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, how: &How, is_up: bool) {
    let mut part = vec![0; 8192];
    loop {
        let Ok(length @ 1..) = from.read(&mut part).await else {
            // A vanished end is not told to the other.
            while how.swallows.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return;
        };
        if how.swallows.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&part[..length]).await.is_err() {
            return;
        }
        let rate = how.bytes_per_second.load(Ordering::SeqCst);
        if is_up && rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(length as f64 / rate as f64)).await;
        }
    }
}
