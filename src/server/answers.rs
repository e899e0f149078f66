//! What is answered to whom.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response, Sse};
use axum::routing::get;
use serde_json::json;

use super::status::{not_ready, status_json};
use super::{Shared, events, lock};
use crate::observe::Pool;
use crate::printable;

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// Of Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Probes that nobody needs a token for: they tell yes or no.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

pub(super) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/events", get(watch))
        .fallback(async || answer(StatusCode::NOT_FOUND, TEXT, "there is nothing here: see /\n"))
        .layer(from_fn_with_state(Arc::clone(shared), admit))
        .with_state(Arc::clone(shared))
}

/// Lets in who may ask, and says of every answer what a browser may do with it.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&shared, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(CACHE_CONTROL, "no-store");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    response
}

fn refusal(shared: &Shared, request: &Request) -> Option<Response> {
    let (headers, path) = (request.headers(), request.uri().path());
    if let Err(why) = shared.guard.admits(headers) {
        return Some(answer(StatusCode::FORBIDDEN, TEXT, format!("{why}\n")));
    }
    let given = token_in(request.uri()).filter(|_| path == "/");
    if let Some(cookie) = given.and_then(|given| shared.guard.cookie_for(given)) {
        // Takes the token out of the address, and with it out of the browser's history.
        return Some(
            (StatusCode::SEE_OTHER, [(LOCATION, "/".to_owned()), (SET_COOKIE, cookie)]).into_response(),
        );
    }
    if OPEN.contains(&path) || shared.guard.knows(headers) {
        return None;
    }
    let message = "this needs the token that `server.token` has: as a header `Authorization: Bearer …` or, in a browser, \
                   once as `/?token=…`\n";
    let mut response = answer(StatusCode::UNAUTHORIZED, TEXT, message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Some(response)
}

fn token_in(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token="))
}

async fn page(State(shared): State<Arc<Shared>>) -> Response {
    let mut response = answer(StatusCode::OK, HTML, shared.page.html);
    if let Ok(policy) = HeaderValue::from_str(&shared.page.policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.observer.tell_ages();
    if let Some(db) = shared.db.get() {
        let status = db.pool();
        let idle = status.available;
        let in_use = status.size.saturating_sub(idle);
        Pool { in_use, idle, most: status.max_size, waiting: status.waiting }.tell();
    }
    answer(StatusCode::OK, METRICS, shared.metrics.render())
}

/// Whether the process is as it should be; a pipeline that halted has decided so.
async fn healthz(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let broken: Vec<String> = lock(&shared.broken).keys().cloned().collect();
    let healthy = broken.is_empty();
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Which ones is for those who may know.
    let told = if shared.guard.knows(request.headers()) { broken } else { Vec::new() };
    json_answer(code, &json!({ "healthy": healthy, "broken_pipelines": told }))
}

async fn readyz(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let reasons = not_ready(&shared, &shared.observer.snapshot());
    let ready = reasons.is_empty();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Why not is for those who may know.
    let told = if shared.guard.knows(request.headers()) { reasons } else { Vec::new() };
    json_answer(code, &json!({ "ready": ready, "not_ready": told }))
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    answer(StatusCode::OK, JSON, status_json(&shared))
}

async fn watch(State(shared): State<Arc<Shared>>) -> Response {
    match events::events(&shared) {
        Some(events) => Sse::new(events).into_response(),
        None => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many pages are open already\n"),
    }
}

fn answer(code: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    (code, [(CONTENT_TYPE, kind)], body.into()).into_response()
}

fn json_answer(code: StatusCode, value: &serde_json::Value) -> Response {
    answer(code, JSON, format!("{}\n", printable::line(&value.to_string())))
}
