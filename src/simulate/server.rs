//! The stand-in's HTTP: connections that are kept alive for a while, the headers and refusals of a real server,
//! and answers that are wrong on purpose.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::control::{Command, Fault};
use super::guard::Guard;
use super::rpc::{self, Call};
use super::stage::Stage;

/// The largest request that is read; a real server's limit.
const LARGEST_REQUEST: usize = 2 * 1024 * 1024;

/// Of a request that is too large this much is read and thrown away, so that its sender gets to read the answer.
const MOST_DISCARDED: usize = 64 * 1024 * 1024;

/// Further connections wait until one ends.
const MOST_CONNECTIONS: usize = 1_024;

const COMMANDS: &str = "`mine`, `reorg`, `step`, `rules`, `misbehave`, `clear`, `restart`, `status`";

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

type Body = UnsyncBoxBody<Bytes, Broken>;

/// The connection is to end here.
#[derive(Debug, thiserror::Error)]
#[error("ended on purpose")]
struct Broken;

/// Answers on the listener's connections; never returns. Dropping it ends all of them.
pub(super) async fn serve(listener: TcpListener, stage: Arc<Stage>, guard: Arc<Guard>, idle: Duration) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => {
                match accepted {
                    Ok((stream, _)) => {
                        // Only makes answers later if it fails.
                        let _ = stream.set_nodelay(true);
                        let io = TokioIo::new(stream);
                        connections.spawn(connection(io, stage.clone(), guard.clone(), idle));
                    }
                    // Out of file descriptors, for example: wait for some to be given back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    io: TokioIo<tokio::net::TcpStream>,
    stage: Arc<Stage>,
    guard: Arc<Guard>,
    idle: Duration,
) {
    let service = service_fn(move |request| handle(stage.clone(), guard.clone(), request));
    // How a connection ends is its client's business.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .serve_connection(io, service)
        .await;
}

async fn handle(
    stage: Arc<Stage>,
    guard: Arc<Guard>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    if let Err(why) = guard.admits(request.headers()) {
        // What it says does not matter.
        let _ = read(request, 0).await?;
        return Ok(status(StatusCode::FORBIDDEN, &json!({"error": why})));
    }
    let mut response = match (request.uri().path(), request.method()) {
        ("/", &Method::POST) => call(&stage, request).await?,
        ("/", _) => not_allowed("POST"),
        ("/control", &Method::GET) => status(StatusCode::OK, &json!(stage.status())),
        ("/control", &Method::POST) => control(&stage, request).await?,
        ("/control", _) => not_allowed("GET, POST"),
        _ => bare(StatusCode::NOT_FOUND),
    };
    let vary =
        HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
    response.headers_mut().insert(VARY, vary);
    Ok(response)
}

/// A JSON-RPC call.
async fn call(stage: &Stage, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    if !is_json(&request) {
        // What it says does not matter.
        let _ = read(request, 0).await?;
        return Ok(text(StatusCode::BAD_REQUEST, "Content type error"));
    }
    let body = match read(request, LARGEST_REQUEST).await? {
        Ok(body) => body,
        Err(message) => return Ok(text(StatusCode::PAYLOAD_TOO_LARGE, &message)),
    };
    let call = match serde_json::from_slice::<Value>(&body) {
        Ok(json) => Call::new(json),
        Err(error) => return Ok(text(StatusCode::BAD_REQUEST, &format!("Json deserialize error: {error}"))),
    };
    let fault = stage.world().faults.take(&call.method, call.view());
    let response = match fault {
        None => right(stage, &call).await.map(answer),
        Some(fault) => wrong(stage, &call, fault).await,
    };
    stage.count(&call.method);
    response
}

async fn right(stage: &Stage, call: &Call) -> Result<Vec<u8>, Broken> {
    stage.answer(call).await.json(&call.id).ok_or(Broken)
}

async fn wrong(stage: &Stage, call: &Call, fault: Fault) -> Result<Response<Body>, Broken> {
    match fault {
        Fault::Drop => Err(Broken),
        Fault::Cut => right(stage, call).await.map(cut),
        Fault::Slow { ms } => {
            let late = right(stage, call).await;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            late.map(answer)
        }
        Fault::Stall => {
            stage.stall().await;
            right(stage, call).await.map(answer)
        }
        Fault::Status { code } => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ok(text(code, "misbehaving as it was told to"))
        }
        Fault::Oversized { bytes } => Ok(oversized(&call.id, bytes)),
        Fault::NotJson => Ok(answer(b"<html><body>Bad gateway</body></html>".to_vec())),
        Fault::WrongShape => Ok(answer(br#"{"height":5,"blocks":[]}"#.to_vec())),
        Fault::Result { value } => Ok(answer(rpc::result(&call.id, &value))),
        Fault::Error { message } => Ok(answer(rpc::error(&call.id, &message))),
        Fault::OtherCall | Fault::Batch | Fault::Bare | Fault::NumericHeight | Fault::Lower { .. } => {
            let json = stage.answer(call).await.altered(&call.id, &fault).ok_or(Broken)?;
            Ok(answer(json))
        }
    }
}

async fn control(stage: &Stage, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let refused = |message: String| status(StatusCode::BAD_REQUEST, &json!({"error": message}));
    // A web page may send anything else to any server without asking it first.
    if !is_json(&request) {
        let _ = read(request, 0).await?;
        let message = "a command is sent as JSON: with the header `Content-Type: application/json`";
        return Ok(status(StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!({"error": message})));
    }
    let body = match read(request, LARGEST_REQUEST).await? {
        Ok(body) => body,
        Err(message) => return Ok(refused(message)),
    };
    let command = match serde_json::from_slice::<Command>(&body) {
        Ok(command) => command,
        Err(error) => {
            return Ok(refused(format!(
                "this is no command: {error}; a command is an object with one key, such as \
                 `{{\"mine\": {{\"blocks\": 3}}}}`, which is one of {COMMANDS}"
            )));
        }
    };
    Ok(match stage.control(command).await {
        Ok(now) => status(StatusCode::OK, &json!(now)),
        Err(error) => refused(error.to_string()),
    })
}

/// Whether the content is said to be JSON.
fn is_json(request: &Request<Incoming>) -> bool {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    kind.eq_ignore_ascii_case(JSON) || kind.to_ascii_lowercase().ends_with("+json")
}

/// A request's body, or why it is not taken.
async fn read(request: Request<Incoming>, limit: usize) -> Result<Result<Bytes, String>, Broken> {
    let mut body = request.into_body();
    let announced = body.size_hint().exact();
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|_| Broken)?.into_data().unwrap_or_default();
        length += data.len();
        if length <= limit {
            bytes.extend_from_slice(&data);
        } else if length > MOST_DISCARDED {
            break;
        }
    }
    Ok(match announced {
        _ if length <= limit => Ok(bytes.into()),
        Some(announced) => {
            Err(format!("JSON payload ({announced} bytes) is larger than allowed (limit: {limit} bytes)."))
        }
        None => Err(format!("JSON payload has exceeded limit ({limit} bytes).")),
    })
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn with(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn answer(json: Vec<u8>) -> Response<Body> {
    with(StatusCode::OK, JSON, full(json))
}

fn status(status: StatusCode, value: &Value) -> Response<Body> {
    with(status, JSON, full(format!("{value}\n")))
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    with(status, TEXT, full(message.to_owned()))
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = bare(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The whole length is announced, half of it comes.
fn cut(json: Vec<u8>) -> Response<Body> {
    let length = json.len();
    let half = Bytes::from(json).slice(..length / 2);
    let first = stream::once(async { Ok(Frame::data(half)) });
    let end = stream::once(async {
        // Lets the first half go out.
        tokio::task::yield_now().await;
        Err(Broken)
    });
    let mut response = with(StatusCode::OK, JSON, StreamBody::new(first.chain(end)).boxed_unsync());
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// A result of hex digits that makes the answer this long, made as it is sent.
fn oversized(id: &str, bytes: u64) -> Response<Body> {
    const CHUNK: u64 = 64 * 1024;
    let zeros = Bytes::from(vec![b'0'; CHUNK as usize]);
    let (before, after) = rpc::around_hex(id);
    let digits = bytes.saturating_sub((before.len() + after.len()) as u64);
    let chunks = (0..digits.div_ceil(CHUNK))
        .map(move |chunk| zeros.slice(..CHUNK.min(digits - chunk * CHUNK) as usize));
    let parts = std::iter::once(Bytes::from(before)).chain(chunks).chain([Bytes::from(after)]);
    let body = StreamBody::new(stream::iter(parts.map(|part| Ok(Frame::data(part)))));
    with(StatusCode::OK, JSON, body.boxed_unsync())
}
