//! The calls that are made, as JSON-RPC: what is sent, and what an answer must look like.
//!
//! Source: transcripts of a real server, `rockshrew-mono` 9.0.1-rc.2. Heights are sent as JSON numbers (a
//! string is silently taken as 0) and never left out (that means the latest); the tip's height comes as a
//! decimal string; an application's errors come as HTTP 200 with code -32000.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::SourceError;
use super::endpoint::Endpoint;
use crate::block::{BlockHash, Height, StateRoot};
use crate::view::{Answer, Question, ViewFailure};

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    message: String,
}

/// A call's result, or the error that the application answered.
type Answered<T> = Result<T, String>;

pub(super) async fn height(endpoint: &Endpoint) -> Result<Height, SourceError> {
    let call = Call { endpoint, name: "metashrew_height".into() };
    let text: String = call
        .make("metashrew_height", json!([]), "a height as a string")
        .await?
        .map_err(|message| call.refused(message))?;
    let height = text.parse().ok().and_then(Height::new);
    height.ok_or_else(|| call.unexpected(&text, "a height below 2^31 as a decimal string"))
}

/// `None` when the server has no block at that height.
pub(super) async fn block_hash(
    endpoint: &Endpoint,
    height: Height,
) -> Result<Option<BlockHash>, SourceError> {
    let call = Call { endpoint, name: format!("metashrew_getblockhash({height})") };
    let params = json!([height.get()]);
    match call.make::<String>("metashrew_getblockhash", params, "a block hash").await? {
        Ok(text) => match text.parse() {
            Ok(hash) => Ok(Some(hash)),
            Err(_) => Err(call.unexpected(&text, "`0x` and 64 hex digits")),
        },
        Err(message) if message.contains("not found") => Ok(None),
        Err(message) => Err(call.refused(message)),
    }
}

/// `None` when the server keeps none: it has no such method, as older ones, or a proxy in front of it refuses it.
pub(super) async fn state_root(
    endpoint: &Endpoint,
    height: Height,
) -> Result<Option<StateRoot>, SourceError> {
    if endpoint.lacks_state_roots() {
        return Ok(None);
    }
    let call = Call { endpoint, name: format!("metashrew_stateroot({height})") };
    // As a string: a number means the latest.
    let params = json!([height.to_string()]);
    match call.make::<String>("metashrew_stateroot", params, "a state root").await {
        Ok(Ok(text)) => {
            let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(&text)).ok();
            let root = bytes.and_then(|bytes| StateRoot::from_slice(&bytes));
            root.map(Some).ok_or_else(|| call.unexpected(&text, "`0x` and 64 hex digits"))
        }
        Ok(Err(message)) if message.to_lowercase().contains("not found") => {
            endpoint.note_no_state_roots();
            Ok(None)
        }
        Ok(Err(message)) => Err(call.refused(message)),
        Err(SourceError::Status { status: 400 | 403..=405 | 501, .. }) => {
            endpoint.note_no_state_roots();
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn view(
    endpoint: &Endpoint,
    question: &Question,
    height: Height,
) -> Result<Answer, SourceError> {
    let Question { view, input } = question;
    let call = Call { endpoint, name: format!("view `{view}` at block {height}") };
    let params = json!([view, format!("0x{}", hex::encode(input)), height.get()]);
    match call.make::<String>("metashrew_view", params, "the view's answer in hex").await? {
        Ok(text) => {
            let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(&text));
            bytes.map(Ok).map_err(|_| call.unexpected(&text, "`0x` and hex digits"))
        }
        Err(message) => Ok(Err(ViewFailure { message: endpoint.without_secrets(&message) })),
    }
}

/// One call, named for messages.
struct Call<'a> {
    endpoint: &'a Endpoint,
    name: String,
}

impl Call<'_> {
    async fn make<T: for<'de> Deserialize<'de>>(
        &self,
        method: &str,
        params: serde_json::Value,
        expected: &'static str,
    ) -> Result<Answered<T>, SourceError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        self.endpoint
            .ask(&self.name, &request, |body| {
                let wrong = || self.unexpected(&String::from_utf8_lossy(body), expected);
                let response: Response<'_> = serde_json::from_slice(body).map_err(|_| wrong())?;
                match (response.result, response.error) {
                    (_, Some(error)) => Ok(Err(error.message)),
                    (Some(result), None) => serde_json::from_str(result.get()).map(Ok).map_err(|_| wrong()),
                    (None, None) => Err(wrong()),
                }
            })
            .await
    }

    fn refused(&self, message: String) -> SourceError {
        SourceError::Refused {
            call: self.name.clone(),
            url: self.endpoint.shown().to_owned(),
            message: excerpt(&self.endpoint.without_secrets(&message)),
        }
    }

    fn unexpected(&self, got: &str, expected: &'static str) -> SourceError {
        SourceError::Unexpected {
            call: self.name.clone(),
            url: self.endpoint.shown().to_owned(),
            got: excerpt(&self.endpoint.without_secrets(got)),
            expected,
        }
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(200).collect()
}
