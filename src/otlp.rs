//! Traces: the log's spans, sent by OTLP (as JSON over HTTP) to where the variables `OTEL_…` of the OpenTelemetry
//! specification say. Nothing is sent unless one of them names an endpoint.
//!
//! A thread of its own sends them in batches; when it cannot keep up, spans are dropped rather than waited for.

use std::env;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use rustls_platform_verifier::BuilderVerifierExt;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// Either says that traces are wanted, and where.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
const SERVICE: &str = "OTEL_SERVICE_NAME";
const NAME: &str = "debshrew";

/// The longest that the process's end waits for spans to be sent.
const LAST_WORDS: Duration = Duration::from_secs(5);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Why no traces are sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error("cannot set up TLS for traces")]
    Tls(#[from] rustls::Error),
    #[error("cannot make an HTTP client for traces")]
    Client(#[from] reqwest::Error),
    #[error("the variables OTEL_… do not say how to send traces")]
    Exporter(#[from] ExporterBuildError),
}

/// Gets ready to send, if the environment asks for it. To be called outside of the asynchronous runtime.
pub fn begin() -> Result<(), OtlpError> {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    if ENDPOINTS.iter().any(is_set) && PROVIDER.get().is_none() {
        let _ = PROVIDER.set(provider(None)?);
    }
    Ok(())
}

/// What hands spans to the sender, if there is one.
pub fn layer<S>() -> Option<OpenTelemetryLayer<S, SdkTracer>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    PROVIDER.get().map(layer_of)
}

/// Sends what is left.
pub fn end() {
    if let Some(provider) = PROVIDER.get() {
        // There is nobody left to tell.
        let _ = provider.shutdown_with_timeout(LAST_WORDS);
    }
}

fn layer_of<S>(provider: &SdkTracerProvider) -> OpenTelemetryLayer<S, SdkTracer>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer().with_tracer(provider.tracer(NAME))
}

/// Sends to `endpoint`, or to where the environment says.
fn provider(endpoint: Option<String>) -> Result<SdkTracerProvider, OtlpError> {
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpJson);
    let exporter = match endpoint {
        Some(endpoint) => exporter.with_endpoint(endpoint),
        None => exporter,
    };
    let exporter = exporter.with_http_client(client()?).build()?;
    let resource = match env::var_os(SERVICE) {
        Some(_) => Resource::builder(),
        None => Resource::builder().with_service_name(NAME),
    };
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

/// The same TLS as everywhere else.
fn client() -> Result<reqwest::blocking::Client, OtlpError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    let client = reqwest::blocking::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("debshrew/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Takes one request, and answers it. Returns its first line and its body.
    fn receive(listener: TcpListener) -> (String, Value) {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        (first, serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn spans_are_sent_with_their_fields_and_events() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let received = std::thread::spawn(move || receive(listener));
        let provider = provider(Some(endpoint)).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer_of(&provider));
        tracing::subscriber::with_default(subscriber, || {
            let pipeline = tracing::info_span!("pipeline", pipeline = "ledger").entered();
            tracing::info_span!("block", height = 7).in_scope(|| tracing::info!("committed"));
            drop(pipeline);
        });
        provider.shutdown().unwrap();
        let (request, body) = received.join().unwrap();
        assert!(request.starts_with("POST /v1/traces "), "{request}");
        let sent = &body["resourceSpans"][0];
        let resource = sent["resource"].to_string();
        assert!(resource.contains("service.name") && resource.contains("debshrew"), "{resource}");
        let spans = sent["scopeSpans"][0]["spans"].as_array().unwrap();
        let named = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap();
        let (pipeline, block) = (named("pipeline"), named("block"));
        assert_eq!(block["parentSpanId"], pipeline["spanId"]);
        assert!(pipeline["attributes"].to_string().contains("ledger"), "{pipeline}");
        assert!(block["attributes"].to_string().contains("height"), "{block}");
        assert!(block["events"].to_string().contains("committed"), "{block}");
    }
}
