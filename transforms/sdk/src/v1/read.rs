//! Reads what version 1 emits, for tests of transforms.

use serde_json::{Map, Value};

use crate::testing::{Change, Operation};
use crate::Error;

/// The changes of a block.
pub(crate) fn changes(emitted: &[u8]) -> Result<Vec<Change>, Error> {
    let Some(list) = emitted.get(4..) else { return Ok(Vec::new()) };
    let messages: Vec<Value> = serde_json::from_slice(list)?;
    messages.into_iter().map(change).collect()
}

fn change(mut message: Value) -> Result<Change, Error> {
    let payload = &mut message["payload"];
    let (operation, image) = match payload["operation"].as_str() {
        Some("create" | "update") => (Operation::Upsert, "after"),
        Some("delete") => (Operation::Delete, "before"),
        _ => return Err(format!("no operation: {payload}").into()),
    };
    let Some(table) = payload["table"].as_str().map(str::to_owned) else {
        return Err(format!("no table: {payload}").into());
    };
    let columns: Map<String, Value> = serde_json::from_value(payload[image].take())?;
    Ok(Change { operation, table, columns })
}

#[cfg(test)]
pub(crate) fn value(written: &[u8]) -> Result<Value, Error> {
    Ok(serde_json::from_slice(written)?)
}

#[cfg(test)]
pub(crate) mod tests {
    /// What the test transform of `block` emits, byte by byte.
    pub(crate) fn messages(emitted: &[u8]) {
        let (length, json) = emitted.split_at(4);
        assert_eq!(length, (json.len() as u32).to_le_bytes());
        let header = format!(
            r#"{{"header":{{"source":"coins","block_height":7,"block_hash":"{}"}},"payload":"#,
            "ab".repeat(32)
        );
        let payloads = [
            r#"{"operation":"create","table":"coins","after":{"txid":"\\x01","position":0,"owner":"a"}}}"#,
            r#"{"operation":"create","table":"coins","after":{"txid":"\\x01","position":1,"owner":"b\""}}}"#,
            r#"{"operation":"update","table":"coins","after":{"txid":"\\x01","position":0,"height":7}}}"#,
            r#"{"operation":"delete","table":"coins","before":{"txid":"\\x01","position":1}}}"#,
        ];
        let expected = payloads.map(|payload| format!("{header}{payload}")).join(",");
        assert_eq!(std::str::from_utf8(json).unwrap(), format!("[{expected}]"));
    }
}
