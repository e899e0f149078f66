//! A metashrew server's calls, read and answered as the real one was seen to.
//!
//! The odd parts are on purpose: what a real server takes silently is taken silently here.

use std::num::ParseIntError;

use bytes::Bytes;
use serde_json::Value;

use super::control::Fault;
use super::index::{Index, Rules, ViewAnswer};

/// A call that was read.
pub(super) struct Call {
    /// As JSON text; `null` when there is none.
    pub(super) id: String,
    /// Empty when there is none.
    pub(super) method: String,
    params: Value,
}

/// What is answered to a call.
pub(super) enum Answer {
    /// A result of hex digits, behind `0x`.
    Hex(Bytes),
    Text(String),
    Error(String),
    /// The call ends the connection without an answer.
    Hangup,
}

impl Call {
    /// Anything that is JSON is a call, if only one of an unknown method.
    pub(super) fn new(mut json: Value) -> Call {
        let id = json.get("id").map_or_else(|| "null".to_owned(), Value::to_string);
        let method = json.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        let params = json.get_mut("params").map(Value::take).unwrap_or_default();
        Call { id, method, params }
    }

    /// The view that is asked for, if it is one.
    pub(super) fn view(&self) -> Option<&str> {
        self.params.get(0).and_then(Value::as_str).filter(|_| self.method == "metashrew_view")
    }

    /// Whether the call waits while the server rolls back.
    pub(super) fn waits(&self) -> bool {
        matches!(self.method.as_str(), "metashrew_height" | "metashrew_getblockhash")
    }

    /// How far above the tip a state root is asked for: a real server walks all the way down.
    pub(super) fn walk(&self, index: &Index) -> u32 {
        let text = self.params.get(0).and_then(Value::as_str);
        match (self.method.as_str(), text.map(str::parse::<u32>)) {
            ("metashrew_stateroot", Some(Ok(height))) => height.saturating_sub(index.height().unwrap_or(0)),
            _ => 0,
        }
    }

    pub(super) fn answer(&self, index: &mut Index, rules: &Rules) -> Answer {
        match self.method.as_str() {
            "metashrew_height" => Answer::Text(index.height().unwrap_or(0).to_string()),
            "metashrew_getblockhash" => self.block_hash(index, rules),
            "metashrew_view" => self.view_answer(index, rules).unwrap_or_else(Answer::Error),
            "metashrew_stateroot" if rules.state_roots => {
                self.state_root(index, rules).unwrap_or_else(Answer::Error)
            }
            "metashrew_snapshot" => Answer::Text(snapshot(index)),
            _ => Answer::Error("Generic error: Method not found".into()),
        }
    }

    fn block_hash(&self, index: &Index, rules: &Rules) -> Answer {
        let Some(height) = self.params.get(0) else { return Answer::Hangup };
        // What is no natural number is 0, and of large ones the low 32 bits count.
        let height = height.as_u64().unwrap_or(0) as u32;
        match index.hash(height).filter(|_| rules.tells_hash(height)) {
            Some(hash) => Answer::Hex(Bytes::copy_from_slice(hash.as_bytes())),
            None => Answer::Error(format!("Storage error: Block hash not found for height {height}")),
        }
    }

    fn view_answer(&self, index: &mut Index, rules: &Rules) -> Result<Answer, String> {
        let (Some(name), Some(input)) = (self.params.get(0), self.params.get(1)) else {
            return Ok(Answer::Hangup);
        };
        let name = name.as_str().unwrap_or_default();
        let height = match self.params.get(2) {
            Some(Value::Number(number)) => Some(number.to_string().parse().map_err(invalid_height)?),
            Some(Value::String(text)) => height(text.split(':').next().unwrap_or_default())?,
            _ => None,
        };
        // The views do not look at their input.
        hex::decode(input.as_str().unwrap_or_default().trim_start_matches("0x"))
            .map_err(|error| format!("Serialization error: Invalid hex input: {error}"))?;
        match index.view(name, height, rules) {
            ViewAnswer::Bytes(bytes) => Ok(Answer::Hex(bytes)),
            ViewAnswer::Unknown => Err(view_failure(&format!("Failed to get view function '{name}'"))),
            ViewAnswer::Failed => Err(view_failure(&format!("Failed to execute view function '{name}'"))),
        }
    }

    fn state_root(&self, index: &Index, rules: &Rules) -> Result<Answer, String> {
        let Some(pinned) = self.params.get(0) else { return Ok(Answer::Hangup) };
        let height = pinned.as_str().map(height).transpose()?.flatten();
        Ok(Answer::Hex(Bytes::copy_from_slice(&index.state_root(height, rules))))
    }
}

/// `None` is the latest.
fn height(text: &str) -> Result<Option<u32>, String> {
    if text == "latest" { Ok(None) } else { text.parse().map(Some).map_err(invalid_height) }
}

fn invalid_height(error: ParseIntError) -> String {
    format!("Serialization error: Invalid height: {error}")
}

fn view_failure(what: &str) -> String {
    format!("View function error: View function failed: {what}")
}

/// A JSON text within a JSON answer.
fn snapshot(index: &Index) -> String {
    let blocks = index.height().map_or(0, |height| height + 1);
    serde_json::json!({
        "blocks_synced_from_snapshots": 0,
        "blocks_synced_normally": blocks,
        "current_height": blocks,
        "enabled": true,
        "indexed_height": index.height().unwrap_or(0),
        "last_snapshot_height": null,
        "snapshots_applied": 0,
        "snapshots_created": 0,
        "storage_size_bytes": null,
        "sync_mode": "Normal",
        "total_entries": 0,
    })
    .to_string()
}

impl Answer {
    /// The JSON-RPC answer; `None` for a connection that ends without one.
    pub(super) fn json(&self, id: &str) -> Option<Vec<u8>> {
        match self {
            Answer::Hex(bytes) => Some(hex_result(id, bytes)),
            Answer::Text(text) => Some(result(id, &Value::from(text.as_str()))),
            Answer::Error(message) => Some(error(id, message)),
            Answer::Hangup => None,
        }
    }
}

impl Answer {
    /// The JSON-RPC answer as a fault leaves it.
    pub(super) fn altered(&self, id: &str, fault: &Fault) -> Option<Vec<u8>> {
        let height = |answer: &Answer| match answer {
            Answer::Text(text) => text.parse::<u32>().ok(),
            _ => None,
        };
        match (fault, height(self)) {
            (Fault::OtherCall, _) => self.json(r#""another""#),
            (Fault::Batch, _) => {
                let json = self.json(id)?;
                Some([b"[", json.as_slice(), b"]"].concat())
            }
            (Fault::Bare, _) => {
                let mut json: Value = serde_json::from_slice(&self.json(id)?).ok()?;
                let members = json.as_object_mut()?;
                members.retain(|name, _| !matches!(name.as_str(), "id" | "jsonrpc"));
                Some(json.to_string().into_bytes())
            }
            (Fault::NumericHeight, Some(height)) => Some(result(id, &Value::from(height))),
            (Fault::Lower { by }, Some(height)) => {
                Some(result(id, &Value::from(height.saturating_sub(*by).to_string())))
            }
            _ => self.json(id),
        }
    }
}

pub(super) fn result(id: &str, value: &Value) -> Vec<u8> {
    format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{value}}}"#).into_bytes()
}

pub(super) fn error(id: &str, message: &str) -> Vec<u8> {
    let message = Value::from(message);
    format!(r#"{{"error":{{"code":-32000,"message":{message}}},"id":{id},"jsonrpc":"2.0"}}"#).into_bytes()
}

/// What stands before the hex digits of a result, and after them.
pub(super) fn around_hex(id: &str) -> (String, &'static str) {
    (format!(r#"{{"id":{id},"jsonrpc":"2.0","result":"0x"#), r#""}"#)
}

fn hex_result(id: &str, bytes: &[u8]) -> Vec<u8> {
    let (before, after) = around_hex(id);
    let mut json = Vec::with_capacity(before.len() + 2 * bytes.len() + after.len());
    json.extend_from_slice(before.as_bytes());
    json.resize(before.len() + 2 * bytes.len(), 0);
    // Two digits a byte are what there is room for.
    let _ = hex::encode_to_slice(bytes, &mut json[before.len()..]);
    json.extend_from_slice(after.as_bytes());
    json
}
