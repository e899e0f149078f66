//! Reads what a transform emits: change messages of interface version 1, as JSON.
//!
//! Lenient where existing transforms are (extra fields, any header), strict about what is applied. Values are
//! kept as they were written, so no digit passes through a float.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Change, Operation, Recent, Value};

/// What is wrong with a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the changes are not UTF-8 text (byte {at} of {of})")]
    NotUtf8 { at: usize, of: usize },
    #[error("the changes are no JSON array of messages (`header`, `payload`)")]
    NotMessages(#[source] serde_json::Error),
    #[error("change {index}: `operation` is `{got}`; it must be `create`, `update` or `delete`")]
    Operation { index: usize, got: String },
    #[error("change {index} ({operation} of table `{table}`): `after` is missing")]
    NoAfter { index: usize, operation: String, table: String },
    #[error("change {index} of table `{table}`: `{field}` must be an object by column name")]
    NotAnObject {
        index: usize,
        table: String,
        field: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    operation: String,
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
}

/// Reads a list of messages and hands each change to `take` as it is read, so that a list that holds more than is
/// allowed is given up before all of it is kept; `recent` are the layouts of the changes before it.
pub fn decode_list<E: From<DecodeError>>(
    recent: &mut Recent,
    bytes: &[u8],
    take: impl FnMut(&mut Recent, Change) -> Result<(), E>,
) -> Result<(), E> {
    let mut failed = None;
    let mut deserializer = serde_json::Deserializer::from_str(text(bytes)?);
    let list = List { recent, take, failed: &mut failed };
    let read = deserializer.deserialize_seq(list).and_then(|()| deserializer.end());
    match (failed, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(DecodeError::NotMessages(error).into()),
        (None, Ok(())) => Ok(()),
    }
}

struct List<'r, F, E> {
    recent: &'r mut Recent,
    take: F,
    /// Why it was given up, which serde's errors have no room for.
    failed: &'r mut Option<E>,
}

impl<'de, F, E> Visitor<'de> for List<'_, F, E>
where
    F: FnMut(&mut Recent, Change) -> Result<(), E>,
    E: From<DecodeError>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(message) = list.next_element::<Message<'de>>()? {
            let taken = change(self.recent, index, message.payload).map_err(E::from);
            if let Err(error) = taken.and_then(|change| (self.take)(self.recent, change)) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("given up"));
            }
            index += 1;
        }
        Ok(())
    }
}

/// The change of a message that was pushed by itself; `index` is its number among the block's, for errors.
pub fn decode_one(recent: &mut Recent, index: usize, bytes: &[u8]) -> Result<Change, DecodeError> {
    let message: Message<'_> = serde_json::from_str(text(bytes)?).map_err(DecodeError::NotMessages)?;
    change(recent, index, message.payload)
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes)
        .map_err(|error| DecodeError::NotUtf8 { at: error.valid_up_to(), of: bytes.len() })
}

fn change(recent: &mut Recent, index: usize, payload: Payload<'_>) -> Result<Change, DecodeError> {
    let Payload { operation, table, key, before, after } = payload;
    let (operation, image, field) = match operation.as_str() {
        "create" | "update" => match present(after) {
            Some(after) => (Operation::Upsert, Some(after), "after"),
            None => return Err(DecodeError::NoAfter { index, operation, table: excerpt(&table) }),
        },
        "delete" => (Operation::Delete, present(before), "before"),
        _ => return Err(DecodeError::Operation { index, got: excerpt(&operation) }),
    };
    let columns = match image.map(|image| serde_json::from_str::<Columns<'_>>(image.get())) {
        None => IndexMap::new(),
        Some(Ok(Columns(columns))) => columns,
        // What `before` of a delete holds is a help for the key alone: older transforms put other things there.
        Some(Err(_)) if operation == Operation::Delete && present(key).is_some() => IndexMap::new(),
        Some(Err(source)) => {
            return Err(DecodeError::NotAnObject { index, table: excerpt(&table), field, source });
        }
    };
    let layout = recent.layout(&table, columns.keys().map(|name| &**name));
    let values = columns.into_values().collect();
    Ok(Change { layout, operation, key: present(key).map(Value::from_raw), values })
}

/// `null` says as little as nothing.
fn present(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

/// An object's members in their order; of one that occurs twice, the last, as most readers of JSON have it.
struct Columns<'a>(IndexMap<Cow<'a, str>, Value>);

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Columns<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Columns<'de>, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Columns<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object by column name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns<'de>, A::Error> {
                let mut columns = IndexMap::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'_>, &RawValue>()? {
                    columns.insert(name, Value::from_raw(value));
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use proptest::prelude::*;

    fn list(bytes: &[u8]) -> Result<Vec<Change>, DecodeError> {
        list_after(&mut Recent::default(), bytes)
    }

    fn list_after(recent: &mut Recent, bytes: &[u8]) -> Result<Vec<Change>, DecodeError> {
        let mut changes = Vec::new();
        decode_list(recent, bytes, |_, change| {
            changes.push(change);
            Ok::<(), DecodeError>(())
        })?;
        Ok(changes)
    }

    fn one(payload: &str) -> Result<Change, DecodeError> {
        list(format!(r#"[{{"header":{{"source":"s"}},"payload":{payload}}}]"#).as_bytes())
            .map(|changes| changes.into_iter().next().unwrap())
    }

    #[test]
    fn a_message_of_version_one_is_read_whole() {
        let change = one(r#"{"operation":"create","table":"balances","key":"a","before":null,
                "after":{"address":"a\u00e9","amount":18446744073709551617.10,"tags":["x"],"gone":null}}"#)
        .unwrap();
        assert_eq!(change.operation, Operation::Upsert);
        assert_eq!(change.table(), "balances");
        assert_eq!(change.key, Some(Value::Text("a".into())));
        assert_eq!(
            change.columns().collect::<Vec<_>>(),
            [
                ("address", &Value::Text("aé".into())),
                ("amount", &Value::Number("18446744073709551617.10".into())),
                ("tags", &Value::Json(r#"["x"]"#.into())),
                ("gone", &Value::Null),
            ]
        );
    }

    #[test]
    fn a_delete_needs_no_image() {
        let change = one(r#"{"operation":"delete","table":"t","key":["a",1]}"#).unwrap();
        assert_eq!(change.operation, Operation::Delete);
        assert_eq!(change.key, Some(Value::Json(r#"["a",1]"#.into())));
        assert!(change.values.is_empty());
        let change = one(r#"{"operation":"delete","table":"t","key":null,"before":{"a":1}}"#).unwrap();
        assert_eq!((&change.key, change.columns().count()), (&None, 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |payload: &str| one(payload).unwrap_err().to_string();
        assert_eq!(
            error(r#"{"operation":"upsert","table":"t"}"#),
            "change 0: `operation` is `upsert`; it must be `create`, `update` or `delete`"
        );
        assert_eq!(
            error(r#"{"operation":"update","table":"t","after":null}"#),
            "change 0 (update of table `t`): `after` is missing"
        );
        assert!(
            error(r#"{"operation":"create","table":"t","after":[1]}"#).contains("`after` must be an object")
        );
        assert!(matches!(list(b"[{\xff}]"), Err(DecodeError::NotUtf8 { at: 2, of: 5 })));
        for bad in ["", "{}", "[1]", "[{}]", "[", r#"[{"payload":{"operation":"create"}}]"#] {
            assert!(matches!(list(bad.as_bytes()), Err(DecodeError::NotMessages(_))), "{bad}");
        }
        assert!(list("[".repeat(100_000).as_bytes()).is_err());
        assert!(
            decode_one(&mut Recent::default(), 3, br#"{"payload":{"operation":"x","table":"t"}}"#)
                .unwrap_err()
                .to_string()
                .starts_with("change 3")
        );
    }

    #[test]
    fn of_a_member_that_occurs_twice_the_last_counts() {
        let change = one(r#"{"operation":"create","table":"t","after":{"a":1,"b":2,"a":3}}"#).unwrap();
        assert_eq!(
            change.columns().collect::<Vec<_>>(),
            [("a", &Value::Number("3".into())), ("b", &Value::Number("2".into()))]
        );
    }

    #[test]
    fn messages_of_the_same_columns_share_a_layout() {
        let mut recent = Recent::default();
        let message = |after: &str| {
            let payload = format!(r#"{{"operation":"update","table":"t","after":{after}}}"#);
            format!(r#"{{"payload":{payload}}}"#)
        };
        let messages = [r#"{"a":1,"b":2}"#, r#"{"a":3,"\u0062":4}"#, r#"{"b":5,"a":6}"#].map(message);
        let pushed = decode_one(&mut recent, 0, messages[0].as_bytes()).unwrap();
        let listed = list_after(&mut recent, format!("[{}]", messages.join(",")).as_bytes()).unwrap();
        let shared = |change: &Change| Arc::ptr_eq(&change.layout, &pushed.layout);
        assert_eq!(listed.iter().map(shared).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(
            listed[2].columns().collect::<Vec<_>>(),
            [("b", &Value::Number("5".into())), ("a", &Value::Number("6".into()))]
        );
    }

    proptest! {
        #[test]
        fn no_digit_is_lost(number in "-?(0|[1-9][0-9]{0,60})(\\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?", text in ".*") {
            let quoted = serde_json::to_string(&text).unwrap();
            let change =
                one(&format!(r#"{{"operation":"create","table":"t","after":{{"n":{number},"t":{quoted}}}}}"#)).unwrap();
            prop_assert_eq!(&change.values[0], &Value::Number(number.into()));
            prop_assert_eq!(&change.values[1], &Value::Text(text.into()));
        }
    }
}
