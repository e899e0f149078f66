//! Reads what a transform emits in interface version 2: records in binary, as docs/transforms.md has them.
//!
//! Whatever a guest writes is hostile. What is read here means the same as the message of version 1 with the same
//! values, and is as strict: numbers are numbers, texts are UTF-8, documents are JSON.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Change, Layout, Operation, Value, Work};

/// What is wrong with a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BinaryError {
    #[error("the batch ends at byte {at}, in the middle of {what}")]
    Cut { at: usize, what: &'static str },
    #[error(
        "byte {at} of the batch is {got:#04x}, where a record begins: 1 (a declaration), 2 (an upsert) or 3 (a delete)"
    )]
    Record { at: usize, got: u8 },
    #[error("byte {at} of the batch is {got:#04x}, which is no kind of value; they go from 0 to 10")]
    Kind { at: usize, got: u8 },
    #[error("the declaration has the number {got}, and {declared} are declared, counted from 0")]
    Undeclared { got: u16, declared: usize },
    #[error("the declaration of table `{table}` has the column `{column}` twice")]
    Twice { table: String, column: String },
    #[error("more than {MOST_DECLARATIONS} declarations")]
    Declarations,
    #[error("the {what} at byte {at} of the batch is not UTF-8")]
    NotUtf8 { at: usize, what: &'static str },
    #[error("`{got}` (byte {at} of the batch) is no number as JSON writes them")]
    Number { at: usize, got: String },
    #[error("the JSON at byte {at} of the batch is none")]
    Json { at: usize },
    #[error("arrays are nested deeper than {DEEPEST} levels")]
    Deep,
}

const MOST_DECLARATIONS: usize = 1 << 16;

/// Kinds of values: an integer of 16 bytes, a float, a JSON text. Those above a float have bytes of their own.
const LARGE: u8 = 4;
const FLOAT: u8 = 5;
const JSON: u8 = 9;

/// PostgreSQL's arrays have at most six dimensions; `json` may have more.
const DEEPEST: usize = 32;

/// Remembers the declarations of a block.
#[derive(Default)]
pub struct Decoder {
    /// What changes refer to by number.
    declarations: Vec<Arc<Layout>>,
    /// What those cost that were made since somebody asked.
    made: usize,
}

impl Decoder {
    /// What `limits.output_bytes` counts for the declarations since this was asked last, beside their bytes.
    pub fn take_cost(&mut self) -> usize {
        std::mem::take(&mut self.made)
    }

    /// The next change of a batch, once the declarations before it are noted; `None` at the batch's end.
    pub fn next(&mut self, batch: &mut Batch<'_>) -> Result<Option<Change>, BinaryError> {
        loop {
            let at = batch.at;
            let operation = match batch.record() {
                None => return Ok(None),
                Some(1) => {
                    self.declare(batch)?;
                    continue;
                }
                Some(2) => Operation::Upsert,
                Some(3) => Operation::Delete,
                Some(got) => return Err(BinaryError::Record { at, got }),
            };
            return self.change(operation, batch).map(Some);
        }
    }

    fn declare(&mut self, batch: &mut Batch<'_>) -> Result<(), BinaryError> {
        if self.declarations.len() == MOST_DECLARATIONS {
            return Err(BinaryError::Declarations);
        }
        let table = batch.name("table's name")?;
        let count = u16::from_le_bytes(batch.array("a declaration")?);
        let mut columns: Vec<&str> = Vec::new();
        for _ in 0..count {
            columns.push(batch.name("column's name")?);
        }
        let mut sorted = columns.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BinaryError::Twice { table: excerpt(table), column: excerpt(twice[0]) });
        }
        let columns = columns.into_iter().map(Into::into).collect();
        let layout = Layout { table: table.into(), columns };
        self.made += layout.cost();
        self.declarations.push(Arc::new(layout));
        batch.work.columns += 1 + u64::from(count);
        Ok(())
    }

    fn change(&self, operation: Operation, batch: &mut Batch<'_>) -> Result<Change, BinaryError> {
        let number = u16::from_le_bytes(batch.array("a change")?);
        let declared = self.declarations.len();
        let undeclared = BinaryError::Undeclared { got: number, declared };
        let layout = self.declarations.get(usize::from(number)).ok_or(undeclared)?;
        let mut values = Vec::with_capacity(layout.columns.len());
        for _ in &layout.columns {
            values.push(batch.value(DEEPEST)?);
        }
        batch.work.changes += 1;
        Ok(Change { layout: Arc::clone(layout), operation, key: None, values })
    }
}

/// Records that were handed over together.
pub struct Batch<'a> {
    rest: &'a [u8],
    /// How much has been read, for messages.
    at: usize,
    work: Work,
}

impl<'a> Batch<'a> {
    pub fn new(bytes: &'a [u8]) -> Batch<'a> {
        Batch { rest: bytes, at: 0, work: Work::default() }
    }

    /// What was done since this was asked last.
    pub fn take_work(&mut self) -> Work {
        std::mem::take(&mut self.work)
    }

    /// A record's first byte; `None` at the end.
    fn record(&mut self) -> Option<u8> {
        self.array::<1>("a record").ok().map(|[first]| first)
    }

    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], BinaryError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(BinaryError::Cut { at: self.at + self.rest.len(), what });
        };
        self.rest = rest;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], BinaryError> {
        let Some((array, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(BinaryError::Cut { at: self.at + self.rest.len(), what });
        };
        self.rest = rest;
        self.at += N;
        Ok(*array)
    }

    /// A text with its length in two bytes.
    fn name(&mut self, what: &'static str) -> Result<&'a str, BinaryError> {
        let length = u16::from_le_bytes(self.array(what)?);
        self.utf8(length.into(), what)
    }

    /// As many bytes as the four before them say.
    fn sized(&mut self, what: &'static str) -> Result<&'a [u8], BinaryError> {
        let length = u32::from_le_bytes(self.array(what)?);
        self.take(length as usize, what)
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, BinaryError> {
        let length = u32::from_le_bytes(self.array(what)?);
        self.utf8(length as usize, what)
    }

    fn utf8(&mut self, length: usize, what: &'static str) -> Result<&'a str, BinaryError> {
        let at = self.at;
        std::str::from_utf8(self.take(length, what)?).map_err(|_| BinaryError::NotUtf8 { at, what })
    }

    fn value(&mut self, depth_left: usize) -> Result<Value, BinaryError> {
        let at = self.at;
        let [kind] = self.array("a change's values")?;
        self.work.values += 1;
        self.work.floats += u64::from(kind == FLOAT);
        self.work.texts += u64::from(kind > FLOAT || kind == LARGE);
        Ok(match kind {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Integer(i64::from_le_bytes(self.array("an integer")?)),
            LARGE => {
                let integer = i128::from_le_bytes(self.array("an integer")?);
                match i64::try_from(integer) {
                    Ok(integer) => Value::Integer(integer),
                    Err(_) => Value::Number(integer.to_string().into()),
                }
            }
            FLOAT => float(f64::from_le_bytes(self.array("a float")?)),
            6 => {
                let text = self.text("number")?;
                self.work.json_bytes += text.len() as u64;
                Value::Number(number(text, at)?.into())
            }
            7 => Value::Text(self.text("text")?.into()),
            8 => Value::Bytes(self.sized("bytes")?.into()),
            JSON => Value::from_raw(self.json(at)?),
            10 => Value::Json(self.items(depth_left)?.into()),
            got => return Err(BinaryError::Kind { at, got }),
        })
    }

    fn json(&mut self, at: usize) -> Result<&'a RawValue, BinaryError> {
        let text = self.text("JSON")?;
        self.work.json_bytes += text.len() as u64;
        json(text, at)
    }

    /// An array as the JSON text that version 1 has for it.
    fn items(&mut self, depth_left: usize) -> Result<String, BinaryError> {
        let Some(depth_left) = depth_left.checked_sub(1) else { return Err(BinaryError::Deep) };
        let count = u32::from_le_bytes(self.array("an array")?);
        let mut text = String::from("[");
        for index in 0..count {
            if index > 0 {
                text.push(',');
            }
            self.item(depth_left, &mut text)?;
        }
        text.push(']');
        Ok(text)
    }

    fn item(&mut self, depth_left: usize, out: &mut String) -> Result<(), BinaryError> {
        if self.rest.first() == Some(&JSON) {
            // As it was written.
            let at = self.at;
            self.take(1, "JSON")?;
            self.work.values += 1;
            out.push_str(self.json(at)?.get());
        } else {
            self.value(depth_left)?.write_json(out);
        }
        Ok(())
    }
}

/// The shortest digits that give the same number again; what JSON has no number for as PostgreSQL's text.
fn float(float: f64) -> Value {
    if float.is_finite() {
        Value::Number(format!("{float:?}").into())
    } else if float.is_nan() {
        Value::Text("NaN".into())
    } else {
        Value::Text(if float > 0.0 { "Infinity" } else { "-Infinity" }.into())
    }
}

fn json(text: &str, at: usize) -> Result<&RawValue, BinaryError> {
    serde_json::from_str(text).map_err(|_| BinaryError::Json { at })
}

fn number(text: &str, at: usize) -> Result<&str, BinaryError> {
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && text.ends_with(|last: char| last.is_ascii_digit())
        && json(text, at).is_ok();
    if is_number { Ok(text) } else { Err(BinaryError::Number { at, got: excerpt(text) }) }
}

fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

impl Value {
    /// Appends the value as version 1 has it.
    fn write_json(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match self {
            Value::Null => out.write_str("null"),
            Value::Bool(truth) => write!(out, "{truth}"),
            Value::Integer(integer) => write!(out, "{integer}"),
            Value::Number(text) | Value::Json(text) => out.write_str(text),
            Value::Text(text) => write!(out, "{}", serde_json::Value::from(&**text)),
            Value::Bytes(bytes) => write!(out, "\"\\\\x{}\"", hex::encode(bytes)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Recent;
    use crate::change::decode::{DecodeError, decode_list};
    use proptest::prelude::*;

    fn decode(batches: &[&[u8]]) -> Result<Vec<Change>, BinaryError> {
        let mut decoder = Decoder::default();
        let mut changes = Vec::new();
        for bytes in batches {
            let mut batch = Batch::new(bytes);
            while let Some(change) = decoder.next(&mut batch)? {
                changes.push(change);
            }
        }
        Ok(changes)
    }

    fn name(name: &str) -> Vec<u8> {
        [&u16::try_from(name.len()).unwrap().to_le_bytes()[..], name.as_bytes()].concat()
    }

    fn declaration(table: &str, columns: &[&str]) -> Vec<u8> {
        let count = u16::try_from(columns.len()).unwrap().to_le_bytes();
        let columns: Vec<u8> = columns.iter().flat_map(|column| name(column)).collect();
        [&[1], &name(table)[..], &count, &columns].concat()
    }

    fn sized(kind: u8, bytes: &[u8]) -> Vec<u8> {
        [&[kind], &u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat()
    }

    /// An upsert of one column with this value.
    fn one(value: &[u8]) -> Result<Value, BinaryError> {
        let mut changes = decode(&[&declaration("t", &["c"]), &[&[2, 0, 0], value].concat()])?;
        let Change { values, .. } = changes.pop().unwrap();
        Ok(values.into_iter().next().unwrap())
    }

    #[test]
    fn values_are_those_of_their_kind() {
        assert_eq!(one(&[0]), Ok(Value::Null));
        assert_eq!(one(&[1]), Ok(Value::Bool(false)));
        assert_eq!(one(&[3, 0xfe, 255, 255, 255, 255, 255, 255, 255]), Ok(Value::Integer(-2)));
        let wide = |integer: i128| [&[4], &integer.to_le_bytes()[..]].concat();
        assert_eq!(one(&wide(-3)), Ok(Value::Integer(-3)));
        assert_eq!(one(&wide(i128::MIN)), Ok(Value::Number(i128::MIN.to_string().into())));
        assert_eq!(one(&sized(6, b"-1.50e3")), Ok(Value::Number("-1.50e3".into())));
        assert_eq!(one(&sized(8, &[0, 255])), Ok(Value::Bytes([0, 255].into())));
        // What version 1 makes of the same document.
        assert_eq!(one(&sized(9, br#" "a\u00e9" "#)), Ok(Value::Text("aé".into())));
        assert_eq!(one(&sized(9, b"[1, 2]")), Ok(Value::Json("[1, 2]".into())));
    }

    #[test]
    fn the_changes_of_a_declaration_share_its_layout() {
        let (first, second) = (declaration("t", &["a"]), declaration("t", &["a"]));
        let change = |number: u8| vec![2, number, 0, 0];
        let changes =
            decode(&[&first, &change(0), &second, &[change(1), change(0)].concat(), &change(1)]).unwrap();
        let [a, b, c, d] = &changes[..] else { panic!("{changes:?}") };
        assert!(Arc::ptr_eq(&a.layout, &c.layout) && Arc::ptr_eq(&b.layout, &d.layout));
        assert_eq!(a, b);
        assert_eq!(a.columns().collect::<Vec<_>>(), [("a", &Value::Null)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |value: &[u8]| one(value).unwrap_err().to_string();
        assert_eq!(
            error(&[11]),
            "byte 3 of the batch is 0x0b, which is no kind of value; they go from 0 to 10"
        );
        assert_eq!(error(&[3, 0]), "the batch ends at byte 5, in the middle of an integer");
        assert_eq!(error(&[7, 255, 255, 255, 255]), "the batch ends at byte 8, in the middle of text");
        assert_eq!(error(&sized(7, &[0xff])), "the text at byte 8 of the batch is not UTF-8");
        for no_number in
            ["", "1 ", " 1", "+1", "01", ".5", "1.", "NaN", "\"1\"", "[1", "[1]", "-", "true", "1e"]
        {
            let error = one(&sized(6, no_number.as_bytes())).unwrap_err();
            assert_eq!(error, BinaryError::Number { at: 3, got: no_number.into() });
        }
        assert_eq!(one(&sized(9, b"{1}")), Err(BinaryError::Json { at: 3 }));
        let deep = |levels: usize| [[10, 1, 0, 0, 0].repeat(levels), vec![0]].concat();
        assert_eq!(one(&deep(100_000)), Err(BinaryError::Deep));
        assert!(one(&deep(DEEPEST)).is_ok());
        // Four billion items that are not there take no memory.
        assert!(error(&[10, 255, 255, 255, 255]).contains("in the middle of a change's values"));

        let error = |batch: &[u8]| decode(&[batch]).unwrap_err().to_string();
        assert!(error(&[4]).contains("where a record begins"));
        assert!(error(&[2, 0]).contains("in the middle of a change"));
        assert!(error(&[1, 1, 0, 0xff]).contains("the table's name at byte 3 of the batch is not UTF-8"));
        assert!(error(&[1, 1, 0, b't', 255, 255]).contains("in the middle of column's name"));
        assert_eq!(
            error(&declaration("t", &["a", "b", "a"])),
            "the declaration of table `t` has the column `a` twice"
        );
    }

    /// A value as both versions write it.
    fn value() -> impl Strategy<Value = (String, Vec<u8>)> {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let leaf = prop_oneof![
            Just(("null".to_owned(), vec![0])),
            any::<bool>().prop_map(|truth| (truth.to_string(), vec![1 + u8::from(truth)])),
            any::<i64>().prop_map(|number| (number.to_string(), [&[3], &number.to_le_bytes()[..]].concat())),
            any::<i128>().prop_map(|number| (number.to_string(), [&[4], &number.to_le_bytes()[..]].concat())),
            any::<f64>()
                .prop_filter("JSON has only these", |float| float.is_finite())
                .prop_map(|float| { (format!("{float:?}"), [&[5], &float.to_le_bytes()[..]].concat()) }),
            "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?"
                .prop_map(|digits| (digits.clone(), sized(6, digits.as_bytes()))),
            ".*".prop_map(move |text| (quoted(&text), sized(7, text.as_bytes()))),
            prop::collection::vec(any::<u8>(), 0..40)
                .prop_map(move |bytes| (quoted(&format!("\\x{}", hex::encode(&bytes))), sized(8, &bytes))),
            r#"\{"[a-z]*": ?(1\.0|"x"|null|\[\])\}|"\\u00e9"|null|true|-0|\[1\]"#
                .prop_map(|json| (json.clone(), sized(9, json.as_bytes()))),
        ];
        leaf.prop_recursive(3, 20, 4, |item| {
            prop::collection::vec(item, 0..4).prop_map(|items| {
                let count = u32::try_from(items.len()).unwrap().to_le_bytes();
                let (texts, bytes): (Vec<String>, Vec<Vec<u8>>) = items.into_iter().unzip();
                (format!("[{}]", texts.join(",")), [&[10], &count[..], &bytes.concat()].concat())
            })
        })
    }

    /// What JSON has for the kinds of value that it does not have.
    fn plain(value: Value) -> Value {
        match value {
            Value::Integer(integer) => Value::Number(integer.to_string().into()),
            Value::Bytes(bytes) => Value::Text(format!("\\x{}", hex::encode(bytes)).into()),
            other => other,
        }
    }

    proptest! {
        #[test]
        fn both_versions_read_the_same_changes(
            rows in prop::collection::vec((any::<bool>(), "[a-z]{1,8}", prop::collection::vec(value(), 0..5)), 1..6),
        ) {
            let (mut messages, mut batches) = (Vec::new(), Vec::new());
            for (number, (deletes, table, values)) in rows.iter().enumerate() {
                let names: Vec<String> = (0..values.len()).map(|column| format!("c{column}")).collect();
                let members = names.iter().zip(values).map(|(name, (text, _))| format!("\"{name}\":{text}"));
                let members = members.collect::<Vec<_>>().join(",");
                let (operation, image) = if *deletes { ("delete", "before") } else { ("update", "after") };
                messages.push(format!(
                    r#"{{"payload":{{"operation":"{operation}","table":"{table}","{image}":{{{members}}}}}}}"#
                ));
                batches.push(declaration(table, &names.iter().map(String::as_str).collect::<Vec<_>>()));
                let number = u16::try_from(number).unwrap().to_le_bytes();
                let record = [&[2 + u8::from(*deletes)], &number[..]].concat();
                batches.push([record, values.iter().flat_map(|(_, bytes)| bytes.clone()).collect()].concat());
            }
            let list = format!("[{}]", messages.join(","));
            let mut first = Vec::new();
            decode_list(&mut Recent::default(), list.as_bytes(), |_, change| {
                first.push(change);
                Ok::<(), DecodeError>(())
            }).unwrap();
            let batches: Vec<&[u8]> = batches.iter().map(Vec::as_slice).collect();
            let mut second = decode(&batches).unwrap();
            prop_assert_eq!(&second, &decode(&[&batches.concat()]).unwrap());
            for value in second.iter_mut().flat_map(|change| &mut change.values) {
                *value = plain(std::mem::replace(value, Value::Null));
            }
            prop_assert_eq!(second, first);
        }

        #[test]
        fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // Behind a declaration, so that values are reached too.
            let _ = decode(&[&declaration("t", &["c"]), &[&[2, 0, 0], &bytes[..]].concat()]);
            let _ = decode(&[&bytes]);
        }
    }
}
