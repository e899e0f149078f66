//! The calls that are made, as JSON-RPC: what is sent, and what an answer must look like.
//!
//! Source: transcripts of a real server, `rockshrew-mono` 9.0.1-rc.2. Heights are sent as JSON numbers (a
//! string is silently taken as 0) and never left out (that means the latest); the tip's height comes as a
//! decimal string, and from hosted gateways as a number; an application's errors come as HTTP 200 with code -32000.
//!
//! An answer counts only for the call whose id it has. What stands in between (a proxy, a gateway) may mix answers
//! up, and a connection may bring one late.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::SourceError;
use super::endpoint::Endpoint;
use super::silence::Awaited;
use crate::block::{BlockHash, Height, StateRoot};
use crate::view::{Answer, Question, ViewFailure};

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(default)]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ErrorObject<'a>>,
}

#[derive(Deserialize)]
struct ErrorObject<'a> {
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    message: String,
}

/// What the application answered instead of a result.
struct Failed {
    message: String,
    /// Of JSON-RPC's own codes the one for a method that there is none of. A gateway answers it in words of its own.
    is_no_method: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TipHeight {
    Text(String),
    Number(serde_json::Number),
}

/// A call's result, or the error that the application answered.
type Answered<T> = Result<T, Failed>;

const HEIGHT: &str = "a height below 2^31, as a decimal string or a number";

pub(super) async fn height(endpoint: &Endpoint) -> Result<Height, SourceError> {
    let call = Call { endpoint, name: "metashrew_height".into() };
    let answered = call.make("metashrew_height", json!([]), HEIGHT).await?;
    let text = match answered.map_err(|failed| call.refused(failed.message))? {
        TipHeight::Text(text) => text,
        TipHeight::Number(number) => number.to_string(),
    };
    // More than digits, as in `+5`, is no height that a server was seen to answer.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let height = text.parse().ok().filter(|_| digits).and_then(Height::new);
    height.ok_or_else(|| call.unexpected(&text, HEIGHT))
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
        // A gateway may not know the method.
        Err(Failed { message, is_no_method: false })
            if message.contains("not found") && !message.contains("Method") =>
        {
            Ok(None)
        }
        Err(failed) => Err(call.refused(failed.message)),
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
        Ok(Err(failed)) if failed.is_no_method || failed.message.to_lowercase().contains("not found") => {
            endpoint.note_no_state_roots();
            Ok(None)
        }
        Ok(Err(failed)) => Err(call.refused(failed.message)),
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
        Err(failed) => Ok(Err(ViewFailure { message: endpoint.without_secrets(&failed.message) })),
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
        let params = params.to_string();
        // Each try has an id of its own, so that one does not take the late answer of another.
        let request =
            |id: u32| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let read = |id, body: &[u8]| self.read(id, body, expected);
        let awaited = if method == "metashrew_view" { Awaited::View } else { Awaited::Look };
        self.endpoint.ask(&self.name, awaited, next_id, request, read).await
    }

    fn read<T: for<'de> Deserialize<'de>>(
        &self,
        id: u32,
        body: &[u8],
        expected: &'static str,
    ) -> Result<Answered<T>, SourceError> {
        let wrong = || self.unexpected(&String::from_utf8_lossy(body), expected);
        // An array would be read as well, member by member.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(wrong());
        }
        let response: Response<'_> = serde_json::from_slice(body).map_err(|_| wrong())?;
        let is = |member: Option<&RawValue>, text: &str| member.is_some_and(|member| member.get() == text);
        if !is(response.jsonrpc, r#""2.0""#) || !is(response.id, &id.to_string()) {
            return Err(SourceError::OtherCall {
                call: self.name.clone(),
                url: self.endpoint.shown().to_owned(),
                got: excerpt(&self.endpoint.without_secrets(&String::from_utf8_lossy(body))),
                id,
            });
        }
        match (response.result, response.error) {
            (_, Some(ErrorObject { code, message })) => {
                Ok(Err(Failed { message, is_no_method: is(code, "-32601") }))
            }
            (Some(result), None) => serde_json::from_str(result.get()).map(Ok).map_err(|_| wrong()),
            (None, None) => Err(wrong()),
        }
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

/// Unlike that of any other call under way in this process, and most likely in others: they may share a gateway. As
/// small as the smallest integers that a server may take.
fn next_id() -> u32 {
    static NEXT: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new(RandomState::new().hash_one(std::process::id()) as u32));
    NEXT.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 1)
}
