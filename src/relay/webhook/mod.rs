//! A webhook: a step is the body of one signed POST, at least once.

mod answer;
mod body;
mod signature;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use percent_encoding::percent_decode_str;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, Url};
use rustls_platform_verifier::BuilderVerifierExt;

use self::body::Bodies;
use self::signature::Signer;
use super::format::About;
use super::sink::{Position, Sink, SinkError};
use super::step::Step;
use crate::config::{self, Secret};
use crate::failure::{Kind, chain};

/// Shorter parts of a URL are no secrets, and would make what a server says unreadable.
const SHORTEST_SECRET: usize = 4;

pub(super) struct WebhookSink {
    settings: config::Webhook,
    /// Pipeline and sink, so that ids are apart from those of others who send to the same place.
    stream: String,
    bodies: Bodies,
    open: Option<Open>,
}

/// What sends.
struct Open {
    client: Client,
    url: Url,
    signer: Option<Signer>,
}

impl WebhookSink {
    pub(super) fn new(sink: &config::Sink, settings: &config::Webhook, about: &About) -> WebhookSink {
        let stream = format!("{}/{}", about.pipeline, about.sink);
        WebhookSink { settings: settings.clone(), stream, bodies: Bodies::new(sink, about), open: None }
    }

    /// The URL as it may be shown.
    fn shown(&self) -> String {
        config::shown_url(self.settings.url.reveal())
    }

    fn make(&self) -> Result<Open, SinkError> {
        let url = self.url()?;
        let signer = match &self.settings.secret {
            None => None,
            Some(secret) => Some(
                Signer::new(secret)
                    .map_err(|problem| SinkError::permanent(format!("`secret` cannot sign: {problem}")))?,
            ),
        };
        Ok(Open { client: self.client()?, url, signer })
    }

    fn url(&self) -> Result<Url, SinkError> {
        let url: Result<Url, _> = self.settings.url.reveal().parse();
        let url = url
            .map_err(|error| SinkError::permanent(format!("`url` ({}) is no URL: {error}", self.shown())))?;
        if matches!(url.scheme(), "http" | "https") {
            return Ok(url);
        }
        Err(SinkError::permanent(format!("`url` ({}) must begin with `https://` or `http://`", self.shown())))
    }

    fn client(&self) -> Result<Client, SinkError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier())
            .map_err(|error| SinkError::permanent("cannot set up TLS").because(error))?
            .with_no_client_auth();
        Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("debshrew/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.settings.timeout)
            .timeout(self.settings.timeout)
            .tcp_nodelay(true)
            // Whoever is sent on is sent on by somebody who may not be who is meant.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| SinkError::permanent("cannot make an HTTP client").because(error))
    }

    async fn post(&mut self, step: &Step) -> Result<(), SinkError> {
        let body = self.bodies.write(step);
        if body.len() > self.settings.max_bytes {
            let (bytes, most) = (body.len(), self.settings.max_bytes);
            return Err(SinkError::permanent(format!(
                "{} takes {bytes} bytes, of which `max_bytes` allows {most}",
                step.title()
            ))
            .advise("raise `max_bytes`, or leave tables out with `tables`"));
        }
        let Some(open) = &self.open else { return Err(SinkError::transient("it is not open")) };
        let id = format!("{}/{}", self.stream, step.id());
        let now = SystemTime::now();
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = open
            .client
            .post(open.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("idempotency-key", &id);
        if let Some(signer) = &open.signer {
            request = request.header("webhook-signature", signer.sign(&id, timestamp, &body));
        }
        let response = request.body(body).send().await.map_err(|error| self.unanswered(step, error))?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(self.refused(step, response, now).await)
    }

    /// The error for a request that was not answered.
    fn unanswered(&self, step: &Step, error: reqwest::Error) -> SinkError {
        let (shown, step) = (self.shown(), step.title());
        let what = match () {
            () if error.is_connect() => format!("cannot connect to {shown}"),
            () if error.is_timeout() => {
                format!(
                    "{shown} did not answer within {:?} what it was sent of {step}",
                    self.settings.timeout
                )
            }
            () => format!("{shown} gave no answer to what it was sent of {step}"),
        };
        let cause = self.without_secrets(&chain(&error.without_url()));
        SinkError::transient(what).because(cause)
    }

    /// The error for an answer that is no success.
    async fn refused(&self, step: &Step, response: Response, now: SystemTime) -> SinkError {
        let status = response.status();
        let retry_after = answer::retry_after(response.headers(), now);
        let said = self.without_secrets(&answer::said(&beginning(response).await));
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let message = format!("{} answered {status} to {}{said}", self.shown(), step.title());
        let error = match answer::kind(status) {
            Kind::Transient => SinkError { retry_after, ..SinkError::transient(message) },
            Kind::Permanent => SinkError::permanent(message),
        };
        match answer::advice(status) {
            Some(advice) => error.advise(advice),
            None => error,
        }
    }

    /// What others say, without what was sent to them to be let in.
    fn without_secrets(&self, text: &str) -> String {
        let secrets = secrets(&self.settings);
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.reveal(), "…"))
    }

    async fn connect(&self) -> Result<Vec<String>, SinkError> {
        let url = self.make()?.url;
        let shown = self.shown();
        let failed = |what: &str| SinkError::transient(format!("{what} {shown}"));
        let connecting = async {
            let addresses = tokio::task::spawn_blocking(move || url.socket_addrs(|| None))
                .await
                .map_err(|error| failed("cannot resolve").because(error))?
                .map_err(|error| failed("cannot resolve").because(error))?;
            tokio::net::TcpStream::connect(&addresses[..])
                .await
                .map_err(|error| failed("cannot connect to").because(error))
        };
        match tokio::time::timeout(self.settings.timeout, connecting).await {
            Err(_) => return Err(failed("connecting took too long:")),
            Ok(connected) => drop(connected?),
        }
        let mut said = vec![format!("{shown} accepts connections; nothing was sent to it")];
        if self.settings.secret.is_none() {
            said.push(
                "requests are not signed: set `secret`, so that the receiver can tell them from others"
                    .to_owned(),
            );
        }
        Ok(said)
    }
}

impl Sink for WebhookSink {
    fn open(&mut self) -> BoxFuture<'_, Result<Position, SinkError>> {
        async {
            self.open = Some(self.make()?);
            Ok(Position::NotKept)
        }
        .boxed()
    }

    fn publish<'a>(&'a mut self, step: &'a Step) -> BoxFuture<'a, Result<(), SinkError>> {
        self.post(step).boxed()
    }

    /// What the receiver has answered is not to come again behind what follows it.
    fn steps_at_once(&self) -> usize {
        1
    }

    /// Every step was answered when it was published.
    fn flush(&mut self) -> BoxFuture<'_, Result<(), SinkError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn check(&mut self) -> BoxFuture<'_, Result<Vec<String>, SinkError>> {
        self.connect().boxed()
    }
}

/// The beginning of what a server says, or as much of it as comes.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < answer::READ_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    read.truncate(answer::READ_BYTES);
    read
}

/// What a server may repeat and is not to be shown, the longest first.
fn secrets(settings: &config::Webhook) -> Vec<Secret> {
    let mut all: Vec<String> = settings.secret.iter().map(|secret| secret.reveal().to_owned()).collect();
    all.push(settings.url.reveal().to_owned());
    if let Ok(url) = settings.url.reveal().parse::<Url>() {
        let whole = [url.username(), url.password().unwrap_or_default(), url.path().trim_matches('/')];
        all.extend(
            whole
                .into_iter()
                .chain(url.path_segments().into_iter().flatten())
                .chain(url.query())
                .map(str::to_owned),
        );
        all.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    }
    let decoded: Vec<String> =
        all.iter().map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned()).collect();
    all.extend(decoded);
    all.retain(|text| text.len() >= SHORTEST_SECRET);
    all.sort_by_key(|text| std::cmp::Reverse(text.len()));
    all.into_iter().map(Secret::new).collect()
}
