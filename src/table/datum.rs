//! From a JSON value to the input text of a column's type.
//!
//! Pure. PostgreSQL itself reads the text, so every type that it knows works, extensions' included; only what
//! has no single text form in JSON (arrays, composites, `json` itself) is arranged here.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::Datum;
use super::leaves::{self, Misread, excerpt};
use crate::change::Value;
use crate::db::catalog::Shape;

/// Why a value cannot be given to a column. The caller adds table and column.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatumError {
    #[error("holds a NUL character, which PostgreSQL's text cannot store")]
    Nul,
    #[error("got {got}; {allowed}")]
    Kind { got: String, allowed: &'static str },
    #[error("got an object with `{field}`, which the composite type does not have; it has {fields}")]
    Field { field: String, fields: String },
    #[error("got an array of {got} values for a composite type of {fields} fields")]
    Fields { got: usize, fields: usize },
    #[error(
        "got arrays nested deeper than {MOST_DIMENSIONS} levels, which is the most that PostgreSQL's have"
    )]
    Dimensions,
    #[error("got {got}, which holds half of a surrogate pair: that is no character")]
    Surrogate { got: String },
    #[error("got an array or object that is not JSON")]
    Json,
    #[error(
        "got {got}, which PostgreSQL would store as these characters; write bytes as `\\x` and hex digits"
    )]
    HexPrefix { got: String },
    #[error(
        "got {got}: `{word}` means another time whenever the block is processed; write the time that is meant"
    )]
    Clock { got: String, word: &'static str },
}

/// Source: PostgreSQL's manual, "PostgreSQL Limits" (`MAXDIM`).
const MOST_DIMENSIONS: usize = 6;

/// The text that PostgreSQL reads `value` from; `None` for JSON's null, which is SQL's null for every type.
pub(super) fn datum(shape: &Shape, value: Value) -> Result<Datum, DatumError> {
    let text: Box<str> = match (shape, value) {
        (_, Value::Null) => return Ok(None),
        (Shape::Json, Value::Bytes(bytes)) => quoted_json(&hex_text(&bytes))?.into(),
        (_, Value::Bytes(bytes)) => return Ok(Some(hex_text(&bytes))),
        (_, Value::Integer(integer)) if takes_atoms(shape) => return Ok(Some(integer.to_string().into())),
        (Shape::Json, Value::Text(text)) => quoted_json(&text)?.into(),
        (_, Value::Bool(truth)) if takes_atoms(shape) => if truth { "true" } else { "false" }.into(),
        (_, Value::Number(digits)) if takes_atoms(shape) => digits,
        (_, Value::Text(text)) => text,
        (Shape::Json, Value::Json(json)) => json,
        (_, Value::Json(json)) if json.starts_with('"') => {
            return Err(DatumError::Surrogate { got: excerpt(&json) });
        }
        (Shape::Scalar | Shape::Bytes | Shape::Time, Value::Json(json)) => {
            return Err(kind(&json, "the column takes a string, a number or a boolean"));
        }
        // Each of its parts is looked at by itself.
        (Shape::Array { .. } | Shape::Composite(_), Value::Json(json)) => {
            return Ok(Some(literal(shape, &json)?.into()));
        }
        (
            Shape::Array { .. } | Shape::Composite(_),
            Value::Bool(_) | Value::Integer(_) | Value::Number(_),
        ) => {
            return Err(DatumError::Kind {
                got: "a number or a boolean".into(),
                allowed: "the column takes an array or object, or a string in PostgreSQL's own notation",
            });
        }
        // Atoms of scalars and of json are taken above.
        (_, Value::Bool(_) | Value::Integer(_) | Value::Number(_)) => return Err(DatumError::Json),
    };
    if text.contains('\0') {
        return Err(DatumError::Nul);
    }
    match leaves::check(shape, &text) {
        Ok(()) => Ok(Some(text)),
        Err(Misread::HexPrefix { got }) => Err(DatumError::HexPrefix { got }),
        Err(Misread::Clock { got, word }) => Err(DatumError::Clock { got, word }),
    }
}

/// `bytea` in hex format.
pub(super) fn hex_text(bytes: &[u8]) -> Box<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text.into()
}

fn takes_atoms(shape: &Shape) -> bool {
    matches!(shape, Shape::Scalar | Shape::Bytes | Shape::Time | Shape::Json)
}

fn kind(got: &str, allowed: &'static str) -> DatumError {
    DatumError::Kind { got: excerpt(got), allowed }
}

fn quoted_json(text: &str) -> Result<String, DatumError> {
    serde_json::to_string(text).map_err(|_| DatumError::Json)
}

/// An array's or composite's literal. Source: PostgreSQL's manual, "Array Input and Output Syntax" and
/// "Composite Type Input and Output Syntax".
fn literal(shape: &Shape, json: &str) -> Result<String, DatumError> {
    let mut out = String::with_capacity(json.len() + 2);
    match shape {
        Shape::Array { element, delimiter } => array(element, *delimiter, json, MOST_DIMENSIONS, &mut out)?,
        Shape::Composite(fields) => composite(fields, json, &mut out)?,
        Shape::Scalar | Shape::Bytes | Shape::Time | Shape::Json => return Err(DatumError::Json),
    }
    Ok(out)
}

fn array(
    element: &Shape,
    delimiter: char,
    json: &str,
    dimensions_left: usize,
    out: &mut String,
) -> Result<(), DatumError> {
    let Some(dimensions_left) = dimensions_left.checked_sub(1) else { return Err(DatumError::Dimensions) };
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json) else {
        return Err(kind(json, "the column takes an array"));
    };
    out.push('{');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(delimiter);
        }
        // An array inside an array is a further dimension, unless the elements take arrays as they are.
        let nested = item.get().starts_with('[') && !matches!(element, Shape::Json | Shape::Composite(_));
        if nested {
            array(element, delimiter, item.get(), dimensions_left, out)?;
        } else {
            match datum(element, Value::from_raw(item))? {
                None => out.push_str("NULL"),
                Some(text) => quoted(&text, out),
            }
        }
    }
    out.push('}');
    Ok(())
}

fn composite(fields: &[(String, Shape)], json: &str, out: &mut String) -> Result<(), DatumError> {
    let values: Vec<Datum> = if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json) {
        if items.len() != fields.len() {
            return Err(DatumError::Fields { got: items.len(), fields: fields.len() });
        }
        let pairs = fields.iter().zip(items);
        pairs.map(|((_, shape), item)| datum(shape, Value::from_raw(item))).collect::<Result<_, _>>()?
    } else {
        named_fields(fields, json)?
    };
    out.push('(');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if let Some(text) = value {
            quoted(text, out);
        }
    }
    out.push(')');
    Ok(())
}

fn named_fields(fields: &[(String, Shape)], json: &str) -> Result<Vec<Datum>, DatumError> {
    let mut object: BTreeMap<String, &RawValue> = serde_json::from_str(json).map_err(|_| DatumError::Json)?;
    let values = fields
        .iter()
        .map(|(name, shape)| match object.remove(name.as_str()) {
            Some(item) => datum(shape, Value::from_raw(item)),
            None => Ok(None),
        })
        .collect::<Result<_, _>>()?;
    match object.keys().next() {
        None => Ok(values),
        Some(field) => Err(DatumError::Field {
            field: field.clone(),
            fields: fields.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// In double quotes, with quotes and backslashes escaped: read alike in array and composite literals.
fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints() -> Shape {
        Shape::Array { element: Box::new(Shape::Scalar), delimiter: ',' }
    }

    fn json(text: &str) -> Value {
        Value::Json(text.into())
    }

    fn text(shape: &Shape, value: Value) -> String {
        datum(shape, value).unwrap().unwrap().into()
    }

    #[test]
    fn json_columns_take_json_and_others_their_text() {
        assert_eq!(text(&Shape::Json, Value::Text("a\"b".into())), r#""a\"b""#);
        assert_eq!(text(&Shape::Json, json(r#"{"a":1.50}"#)), r#"{"a":1.50}"#);
        assert_eq!(text(&Shape::Scalar, Value::Text("a\"b".into())), "a\"b");
        assert_eq!(
            text(&Shape::Scalar, Value::Number("18446744073709551617.0".into())),
            "18446744073709551617.0"
        );
        assert_eq!(datum(&Shape::Json, Value::Null), Ok(None));
        assert_eq!(text(&Shape::Scalar, Value::Integer(-5)), "-5");
        assert_eq!(text(&Shape::Json, Value::Integer(5)), "5");
        assert_eq!(text(&Shape::Scalar, Value::Bytes([0, 255].into())), "\\x00ff");
        assert_eq!(text(&Shape::Json, Value::Bytes([255].into())), r#""\\xff""#);
        assert!(matches!(datum(&ints(), Value::Integer(1)), Err(DatumError::Kind { .. })));
    }

    #[test]
    fn arrays_keep_nulls_quotes_and_dimensions() {
        assert_eq!(text(&ints(), json("[1,null,\"a\\\"\\\\,{\"]")), r#"{"1",NULL,"a\"\\,{"}"#);
        assert_eq!(text(&ints(), json("[[1,2],[3,4]]")), r#"{{"1","2"},{"3","4"}}"#);
        assert_eq!(text(&ints(), json("[]")), "{}");
        let documents = Shape::Array { element: Box::new(Shape::Json), delimiter: ',' };
        assert_eq!(text(&documents, json(r#"[[1],{"a":"b"},"c"]"#)), r#"{"[1]","{\"a\":\"b\"}","\"c\""}"#);
    }

    #[test]
    fn composites_take_objects_by_name_and_arrays_by_position() {
        let shape = Shape::Composite(vec![("a".into(), Shape::Scalar), ("b".into(), ints())]);
        assert_eq!(text(&shape, json(r#"{"b":[1]}"#)), r#"(,"{\"1\"}")"#);
        assert_eq!(text(&shape, json(r#"["x",null]"#)), r#"("x",)"#);
        assert!(matches!(datum(&shape, json(r#"{"c":1}"#)), Err(DatumError::Field { .. })));
        assert!(matches!(datum(&shape, json("[1]")), Err(DatumError::Fields { got: 1, fields: 2 })));
    }

    #[test]
    fn bytes_are_not_the_characters_of_a_hex_number() {
        let bytes = |text: &str| datum(&Shape::Bytes, Value::Text(text.into()));
        assert!(matches!(bytes("0xdeadbeef"), Err(DatumError::HexPrefix { .. })));
        assert!(bytes("\\xdeadbeef").is_ok() && bytes("\\060x00").is_ok() && bytes("deadbeef").is_ok());
    }

    #[test]
    fn what_cannot_be_given_is_refused() {
        assert_eq!(datum(&Shape::Scalar, Value::Text("a\0".into())), Err(DatumError::Nul));
        assert!(matches!(datum(&Shape::Scalar, json("[1]")), Err(DatumError::Kind { .. })));
        assert!(matches!(datum(&ints(), Value::Number("1".into())), Err(DatumError::Kind { .. })));
        assert!(matches!(datum(&ints(), json(r#"{"a":1}"#)), Err(DatumError::Kind { .. })));
        assert!(datum(&ints(), json("[[[[[[1]]]]]]")).is_ok());
        let deep = json(&("[".repeat(100_000) + &"]".repeat(100_000)));
        assert_eq!(datum(&ints(), deep), Err(DatumError::Dimensions));
    }
}
