//! One server: connections, authentication, time and size limits, retries, and rest after repeated failure.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Url};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::Semaphore;

use super::SourceError;
use super::doubt::Doubt;
use super::silence::{Awaited, Silence};
use crate::config;
use crate::failure::{Backoff, Kind, chain};
use crate::observe::ServerMetrics;

/// The server closes connections that were idle for 5 s; so they are given up before.
const IDLE: Duration = Duration::from_secs(4);

/// For how long a server that let a call fail is asked after the others.
const DISTRUST: Duration = Duration::from_secs(60);

/// After this many calls in a row that failed, each with its retries, the server is left alone for a while.
const FAILURES_BEFORE_REST: u32 = 3;

/// A server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Endpoint(Arc<Inner>);

struct Inner {
    /// Replaced when one of its connections has brought what is no answer to the call: none of them is used again.
    client: Mutex<Client>,
    dial: Dial,
    url: Url,
    /// What may be shown of it.
    shown: String,
    login: Option<Login>,
    /// What a server may repeat, and is not to be shown, the longest first.
    secrets: Vec<config::Secret>,
    retries: u32,
    max_response_bytes: usize,
    slots: Semaphore,
    breaker: Mutex<Breaker>,
    silence: Silence,
    silence_of_views: Silence,
    doubt: Doubt,
    lacks_state_roots: AtomicBool,
    metrics: ServerMetrics,
}

/// User and password.
type Login = (config::Secret, Option<config::Secret>);

struct Breaker {
    failures: u32,
    failed_at: Option<Instant>,
    resting_until: Option<Instant>,
    /// What the last call failed of.
    cause: String,
    pauses: Backoff,
}

/// What makes a client.
struct Dial {
    tls: rustls::ClientConfig,
    headers: HeaderMap,
    connect_timeout: Duration,
    request_timeout: Duration,
    max_connections: usize,
}

impl Dial {
    fn new(config: &config::Source) -> Result<Dial, SourceError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier())
            .map_err(|error| SourceError::Configuration(format!("cannot set up TLS: {error}")))?
            .with_no_client_auth();
        Ok(Dial {
            tls,
            headers: headers(config)?,
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            max_connections: config.max_connections,
        })
    }

    fn client(&self) -> Result<Client, SourceError> {
        Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .user_agent(concat!("debshrew/", env!("CARGO_PKG_VERSION")))
            .default_headers(self.headers.clone())
            .connect_timeout(self.connect_timeout)
            .timeout(self.request_timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(self.max_connections)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| SourceError::Configuration(format!("cannot make an HTTP client: {error}")))
    }
}

impl Endpoint {
    pub(super) fn new(url: &str, config: &config::Source) -> Result<Endpoint, SourceError> {
        let shown = config::shown_url(url);
        let wrong = |what: String| SourceError::Configuration(what);
        let url: Url = url.parse().map_err(|error| wrong(format!("`{shown}` is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("`{shown}` must begin with `http://` or `https://`")));
        }
        let dial = Dial::new(config)?;
        let client = dial.client()?;
        let breaker = Breaker {
            failures: 0,
            failed_at: None,
            resting_until: None,
            cause: String::new(),
            // Short, so that a server that is back is noticed soon, however long it was away.
            pauses: Backoff::new(Duration::from_millis(500), Duration::from_secs(1)),
        };
        let login = login(config, &url);
        let probe = posting(&client, &url, &login).build();
        let sent = probe.ok().and_then(|probe| probe.headers().get(AUTHORIZATION).cloned());
        Ok(Endpoint(Arc::new(Inner {
            client: Mutex::new(client),
            dial,
            metrics: ServerMetrics::new(&shown),
            shown,
            secrets: secrets(config, &url, sent.as_ref()),
            login,
            url,
            retries: config.retries,
            max_response_bytes: config.max_response_bytes,
            slots: Semaphore::new(config.max_connections.max(1)),
            breaker: Mutex::new(breaker),
            silence: Silence::default(),
            silence_of_views: Silence::default(),
            doubt: Doubt::default(),
            lacks_state_roots: AtomicBool::new(false),
        })))
    }

    pub(super) fn is(&self, other: &Endpoint) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether both URLs lead to the same place, whoever logs in there.
    pub(super) fn is_at_same_place(&self, other: &Endpoint) -> bool {
        let place = |url: &Url| (url.origin(), url.path().trim_end_matches('/').to_owned());
        place(&self.0.url) == place(&other.0.url) && self.0.url.query() == other.0.url.query()
    }

    /// The URL as it may be shown.
    pub(super) fn shown(&self) -> &str {
        &self.0.shown
    }

    /// What the server said, without what we sent it to be let in.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let hide = |text: String, secret: &config::Secret| text.replace(secret.reveal(), "…");
        self.0.secrets.iter().fold(text.to_owned(), hide)
    }

    /// Whether it has said that it keeps no state roots, and has been there ever since.
    pub(super) fn lacks_state_roots(&self) -> bool {
        self.0.lacks_state_roots.load(Ordering::Relaxed)
    }

    pub(super) fn note_no_state_roots(&self) {
        if !self.0.lacks_state_roots.swap(true, Ordering::Relaxed) {
            let server = self.shown();
            tracing::info!(
                server,
                "no state roots are kept: another program behind the same hashes is not found out"
            );
        }
    }

    /// How long this server is to be left alone, and why; `None` when it may be asked.
    pub(super) fn resting(&self) -> Option<(Duration, String)> {
        let breaker = self.breaker();
        let rest = breaker.resting_until?.checked_duration_since(Instant::now())?;
        (!rest.is_zero()).then(|| (rest, breaker.cause.clone()))
    }

    /// An error with the cause while it is to be left alone.
    pub(super) fn unless_resting(&self) -> Result<(), SourceError> {
        match self.resting() {
            Some((rest, cause)) => Err(SourceError::Resting { cause, wait_ms: rest.as_millis() }),
            None => Ok(()),
        }
    }

    /// How long it has answered nothing while it was asked.
    pub(super) fn silent_for(&self, awaited: Awaited) -> Option<Duration> {
        self.silence(awaited).lasts()
    }

    fn silence(&self, awaited: Awaited) -> &Silence {
        match awaited {
            Awaited::Look => &self.0.silence,
            Awaited::View => &self.0.silence_of_views,
        }
    }

    /// Whether it is one server at all.
    pub(super) fn doubt(&self) -> &Doubt {
        &self.0.doubt
    }

    /// Whether a call has failed a short while ago, with all its retries; it may well be that the tip can be
    /// asked for and the views cannot.
    pub(super) fn failed_lately(&self) -> bool {
        self.breaker().failed_at.is_some_and(|at| at.elapsed() < DISTRUST)
    }

    /// Sends a request and reads its answer; tries again what may pass, with another id. All calls only read, so a
    /// call whose answer was lost may be repeated.
    pub(super) async fn ask<T>(
        &self,
        call: &str,
        awaited: Awaited,
        next_id: impl Fn() -> u32,
        request: impl Fn(u32) -> String,
        read: impl Fn(u32, &[u8]) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut tries = 0;
        loop {
            let id = next_id();
            let answer = match self.once(call, awaited, request(id)).await {
                Ok(body) => read(id, &body),
                Err(error) => Err(error),
            };
            if let Err(SourceError::OtherCall { .. } | SourceError::Unexpected { .. }) = &answer {
                self.hang_up();
            }
            match answer {
                Ok(value) => {
                    self.succeeded();
                    return Ok(value);
                }
                Err(error) if error.kind() == Kind::Permanent || error.is_refusal() => {
                    self.0.metrics.failed();
                    return Err(error);
                }
                Err(error) if tries == self.0.retries => {
                    self.failed(&error);
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(reason = %error, "trying again");
                    tries += 1;
                    self.0.metrics.retries();
                    tokio::time::sleep(pauses.next_pause()).await;
                }
            }
        }
    }

    async fn once(&self, call: &str, awaited: Awaited, request: String) -> Result<Vec<u8>, SourceError> {
        // Never closed.
        let _slot = self.0.slots.acquire().await;
        let asking = self.silence(awaited).begin();
        let began = Instant::now();
        let answer = self.send(call, request).await;
        self.0.metrics.asked(began.elapsed());
        let timed_out =
            matches!(&answer, Err(SourceError::Unreachable { source, .. }) if source.is_timeout());
        asking.end(timed_out);
        answer
    }

    async fn send(&self, call: &str, request: String) -> Result<Vec<u8>, SourceError> {
        let unreachable = |source: reqwest::Error| SourceError::Unreachable {
            call: call.to_owned(),
            url: self.0.shown.clone(),
            source: source.without_url(),
        };
        let post = posting(&self.client(), &self.0.url, &self.0.login).body(request);
        let mut response = post.send().await.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            return Err(SourceError::Status {
                call: call.to_owned(),
                url: self.0.shown.clone(),
                status: status.as_u16(),
            });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > self.0.max_response_bytes {
                return Err(SourceError::TooLarge {
                    call: call.to_owned(),
                    url: self.0.shown.clone(),
                    allowed: self.0.max_response_bytes,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn client(&self) -> Client {
        self.0.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives up all connections: what one of them brings next may be the answer to a call before. (One on which
    /// a call has timed out is closed by itself, since its answer was not read.)
    fn hang_up(&self) {
        if let Ok(client) = self.0.dial.client() {
            *self.0.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        }
    }

    fn succeeded(&self) {
        let mut breaker = self.breaker();
        breaker.failures = 0;
        if breaker.resting_until.take().is_some() {
            self.0.metrics.rests(false);
        }
        breaker.pauses.reset();
    }

    /// One try is let through after each rest; if it fails too, the next rest is longer.
    fn failed(&self, error: &SourceError) {
        let mut breaker = self.breaker();
        breaker.failures += 1;
        self.0.metrics.failed();
        breaker.cause = chain(error);
        breaker.failed_at = Some(Instant::now());
        self.may_keep_state_roots();
        if breaker.failures >= FAILURES_BEFORE_REST {
            let rest = breaker.pauses.next_pause();
            breaker.resting_until = Some(Instant::now() + rest);
            self.0.metrics.rests(true);
        }
    }

    /// It could not say where its tip is, for whatever reason: others are asked before it for a
    /// while.
    pub(super) fn distrust(&self) {
        self.breaker().failed_at = Some(Instant::now());
        self.may_keep_state_roots();
    }

    /// What comes back may be a newer one; and what stood in front of it may have refused everything.
    fn may_keep_state_roots(&self) {
        self.0.lacks_state_roots.store(false, Ordering::Relaxed);
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        // Nothing panics while it is held.
        self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn posting(client: &Client, url: &Url, login: &Option<Login>) -> RequestBuilder {
    let post = client.post(url.clone());
    match login {
        Some((user, password)) => {
            post.basic_auth(user.reveal(), password.as_ref().map(config::Secret::reveal))
        }
        None => post,
    }
}

fn headers(config: &config::Source) -> Result<HeaderMap, SourceError> {
    let wrong = |what: String| SourceError::Configuration(what);
    let secret = |value: &str, what: &str| {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| wrong(format!("{what} holds characters that an HTTP header cannot have")))?;
        value.set_sensitive(true);
        Ok::<_, SourceError>(value)
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in &config.headers {
        let name: HeaderName =
            name.parse().map_err(|_| wrong(format!("`{name}` in `source.headers` is no header's name")))?;
        headers.insert(name.clone(), secret(value.reveal(), &format!("`source.headers.{name}`"))?);
    }
    if let Some(token) = &config.bearer_token {
        headers
            .insert(AUTHORIZATION, secret(&format!("Bearer {}", token.reveal()), "`source.bearer_token`")?);
    }
    Ok(headers)
}

/// A shorter one would be found everywhere, and what is left out would tell what it is.
const SHORTEST_SECRET: usize = 6;

/// `sent` is the header that a login makes.
fn secrets(config: &config::Source, url: &Url, sent: Option<&HeaderValue>) -> Vec<config::Secret> {
    let configured = [&config.username, &config.password, &config.bearer_token].into_iter().flatten();
    let configured = configured.chain(config.headers.values()).map(|secret| secret.reveal().to_owned());
    let in_url = [url.username(), url.password().unwrap_or_default(), url.path().trim_matches('/')];
    let in_path = url.path_segments().into_iter().flatten();
    let written = in_url.into_iter().chain(in_path).chain(url.query()).map(str::to_owned);
    let mut all: Vec<String> = configured.chain(written).collect();
    all.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    let sent = sent.and_then(|header| header.to_str().ok()?.split_once(' '));
    all.extend(sent.map(|(_scheme, login)| login.to_owned()));
    let decode = |text: &String| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let decoded: Vec<String> = all.iter().map(decode).collect();
    all.extend(decoded);
    all.retain(|text| text.len() >= SHORTEST_SECRET);
    all.sort_by_key(|text| (Reverse(text.len()), text.clone()));
    all.dedup();
    all.into_iter().map(config::Secret::new).collect()
}

/// The configuration's, unless the URL has one of its own: that one `reqwest` sends, and a second would be sent
/// beside it.
fn login(config: &config::Source, url: &Url) -> Option<Login> {
    let in_url = !url.username().is_empty() || url.password().is_some();
    let user = config.username.clone().filter(|_| !in_url && config.bearer_token.is_none())?;
    Some((user, config.password.clone()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn config() -> config::Source {
        config::Source {
            urls: Vec::new(),
            quorum: 1,
            username: Some(config::Secret::new("shared")),
            password: Some(config::Secret::new("sesame")),
            bearer_token: None,
            headers: BTreeMap::new(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            retries: 0,
            max_response_bytes: 1000,
            max_connections: 1,
            poll_interval: Duration::from_secs(1),
            wedge_timeout: Duration::from_secs(1),
        }
    }

    /// The header of a request that an endpoint with this URL sends, where `HOST` stands for the server.
    async fn sent(url: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let endpoint = Endpoint::new(&url.replace("HOST", &host), &config()).unwrap();
        assert!(
            !endpoint.shown().contains("own") && !endpoint.shown().contains("key"),
            "{}",
            endpoint.shown()
        );
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            String::from_utf8(head).unwrap().to_lowercase()
        };
        let (head, answer) =
            tokio::join!(serve, endpoint.ask("c", Awaited::Look, || 1, |_| String::new(), |_, _| Ok(())));
        answer.unwrap();
        head
    }

    #[tokio::test]
    async fn a_login_in_the_url_is_sent_in_place_of_the_shared_one() {
        let head = sent("http://HOST/").await;
        assert!(head.contains("authorization: basic c2hhcmvkonnlc2ftzq=="), "{head}");
        let head = sent("http://own:p%40ss@HOST/path?key=1").await;
        assert!(head.starts_with("post /path?key=1 "), "{head}");
        assert_eq!(head.matches("authorization:").count(), 1, "{head}");
        assert!(head.contains("authorization: basic b3duonbac3m="), "{head}");
    }
}
