//! Connections: how many, how long they may be idle, and how they end. No client can keep others out for long by what it
//! does not send or does not take.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

/// Further ones wait until one ends.
const MOST_CONNECTIONS: usize = 256;

/// Answers until it is to stop, and what was asked until then. Connections on which nothing moves for as long as
/// `patience` are closed.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Duration,
    stop: CancellationToken,
) {
    let open = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let next = async || {
        // Never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        (place, listener.accept().await)
    };
    while let Some((place, accepted)) = stop.run_until_cancelled(next()).await {
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, for example: wait for some to be given back.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // Only makes answers later if it fails.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(patience));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router.clone()));
        let connection = open.watch(connection);
        tokio::spawn(async move {
            // How a connection ends is its client's business.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// More than the buffers between client and server hold.
    const LONG: usize = 64 << 20;

    #[tokio::test]
    async fn who_does_not_take_an_answer_is_cut_off() {
        let chunk = Ok::<_, std::convert::Infallible>(Bytes::from(vec![b'x'; 1 << 16]));
        let endless = move || std::future::ready(Body::from_stream(stream::repeat(chunk.clone())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(200);
        let router = Router::new().route("/", get(endless));
        tokio::spawn(serve(listener, router, patience, CancellationToken::new()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        tokio::time::sleep(patience * 5).await;
        let (mut taken, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(count @ 1..) = client.read(&mut buffer).await {
            taken += count;
            assert!(taken < LONG, "the connection was kept");
        }
    }
}
