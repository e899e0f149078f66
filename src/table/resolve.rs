//! From a transform's changes to rows of known tables: names are looked up, values become the text of their
//! column's type, keys are found and brought to one form.
//!
//! Pure. What is wrong with a change is said here, before anything is sent to PostgreSQL.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::datum::{datum, hex_text};
use super::keys::{self, Claim};
use super::target::{KeyForm, Target};
use super::{ChangeSet, Datum, Key, RowChange, TableError, TableId, Tables, excerpt, names};
use crate::change::{Change, Operation, Value};
use crate::db::Db;
use crate::db::catalog::ColumnId;

/// One write of the transform's state: a key, and its value or that it is gone.
pub type StateWrite = (Vec<u8>, Option<Vec<u8>>);

/// A block's row changes in the order in which they were emitted; not yet folded.
#[derive(Debug)]
pub struct Resolved {
    changes: Vec<RowChange>,
    claims: Vec<Claim>,
    /// PostgreSQL must say which keys are equal.
    compared: bool,
}

impl Resolved {
    /// Brings keys to their one form, with PostgreSQL's help where it takes that, and folds the changes.
    pub async fn fold(mut self, tables: &Tables, db: &Db) -> Result<ChangeSet, TableError> {
        if self.compared {
            let client = db.client().await?;
            keys::canonicalise(&client, tables, &mut self.changes, &self.claims).await?;
        }
        Ok(ChangeSet::fold(self.changes))
    }
}

impl Tables {
    /// Finds the rows that a block's changes and state writes are about.
    pub fn resolve(&self, changes: Vec<Change>, state: Vec<StateWrite>) -> Result<Resolved, TableError> {
        let mut resolved =
            Resolved { changes: Vec::with_capacity(changes.len()), claims: Vec::new(), compared: false };
        for change in changes {
            let id = self.find(&change.table)?;
            let target = self.get(id);
            let (change, claimed) = row_change(id, target, change)?;
            let compared = target.key_forms.contains(&KeyForm::Compared);
            resolved.compared |= compared;
            match claimed.filter(|claimed| *claimed != change.key) {
                Some(key) if compared => resolved.claims.push(Claim { change: resolved.changes.len(), key }),
                Some(key) => return Err(keys::conflict(target, &key, &change.key)),
                None => {}
            }
            resolved.changes.push(change);
        }
        if let Some(table) = self.state() {
            resolved.changes.extend(state.into_iter().map(|(key, value)| RowChange {
                table,
                key: Box::new([hex_text(&key)]),
                operation: if value.is_some() { Operation::Upsert } else { Operation::Delete },
                // The state's table is (key, value).
                values: value.map(|value| (ColumnId::new(1), Some(hex_text(&value)))).into_iter().collect(),
            }));
        }
        Ok(resolved)
    }
}

/// The change, and what its `key` says of the row besides.
fn row_change(id: TableId, target: &Target, change: Change) -> Result<(RowChange, Option<Key>), TableError> {
    let table = &target.table;
    let mut row: Vec<Option<Value>> = vec![None; table.key.len()];
    let mut values = Vec::with_capacity(change.columns.len());
    for (name, value) in change.columns {
        let Some(column) = table.find(&name) else { return Err(unknown_column(target, &name)) };
        if let Some(place) = table.key.iter().position(|key| *key == column) {
            // A null says nothing of the key; `key` may.
            row[place] = Some(value).filter(|value| *value != Value::Null);
        } else if change.operation == Operation::Upsert {
            values.push((column, value_text(target, column, value)?));
        }
    }
    let incomplete = row.iter().any(Option::is_none);
    let given = match change.key {
        Some(given) => named_key(target, given, incomplete)?,
        None => vec![None; row.len()],
    };
    let claims = row.iter().zip(&given).any(|(row, given)| row.is_some() && given.is_some());
    let mut key = Vec::with_capacity(row.len());
    for (place, (row, given)) in row.iter_mut().zip(&given).enumerate() {
        key.push(key_text(target, place, row.take().or_else(|| given.clone()))?);
    }
    let key: Key = key.into();
    let claimed = if claims { Some(claimed_key(target, given, &key)?) } else { None };
    Ok((RowChange { table: id, key, operation: change.operation, values }, claimed))
}

fn value_text(target: &Target, column: ColumnId, value: Value) -> Result<Datum, TableError> {
    let column = target.table.column(column);
    if column.generated || column.identity_always {
        return Err(TableError::Generated { table: target.table.name.clone(), column: column.name.clone() });
    }
    datum(&column.shape, value).map_err(|source| TableError::Value {
        table: target.table.name.clone(),
        column: column.name.clone(),
        declared: column.declared.clone(),
        source,
    })
}

fn unknown_column(target: &Target, column: &str) -> TableError {
    TableError::UnknownColumn {
        table: target.table.name.clone(),
        column: excerpt(column),
        known: names(target.table.columns.iter().map(|column| column.name.as_str())),
    }
}

/// The key's values as `key` gives them. One that does not say them is an error only if it is `needed`: older
/// transforms put labels of their own there.
fn named_key(target: &Target, given: Value, needed: bool) -> Result<Vec<Option<Value>>, TableError> {
    let columns = target.table.key.len();
    if columns == 1 {
        return Ok(vec![Some(given)]);
    }
    let shape =
        |got: &str| TableError::KeyShape { table: target.table.name.clone(), got: excerpt(got), columns };
    let nothing = |got: &str| if needed { Err(shape(got)) } else { Ok(vec![None; columns]) };
    // A key that the transform's language keeps as a string holds the array or object as text.
    let json = match &given {
        Value::Json(json) | Value::Text(json) => json,
        Value::Integer(integer) => return nothing(&integer.to_string()),
        Value::Number(digits) => return nothing(digits),
        Value::Bytes(bytes) => return nothing(&hex_text(bytes)),
        Value::Bool(_) | Value::Null => return nothing("a boolean or null"),
    };
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json) {
        if items.len() != columns {
            return nothing(json);
        }
        return Ok(items.into_iter().map(|item| Some(Value::from_raw(item))).collect());
    }
    let Ok(object) = serde_json::from_str::<HashMap<String, &RawValue>>(json) else { return nothing(json) };
    let named = target.table.key.iter().map(|column| object.get(&target.table.column(*column).name));
    Ok(named.map(|item| item.map(|item| Value::from_raw(item))).collect())
}

/// The key as `key` says it, where it says it.
fn claimed_key(target: &Target, given: Vec<Option<Value>>, row: &Key) -> Result<Key, TableError> {
    let places = given.into_iter().enumerate().map(|(place, given)| match given {
        Some(Value::Null) | None => Ok(row[place].clone()),
        Some(given) => key_text(target, place, Some(given)),
    });
    places.collect()
}

fn key_text(target: &Target, place: usize, value: Option<Value>) -> Result<Box<str>, TableError> {
    let column = target.table.column(target.table.key[place]);
    let table = || target.table.name.clone();
    let Some(value) = value else {
        return Err(TableError::KeyMissing { table: table(), column: column.name.clone() });
    };
    let form = target.key_forms[place];
    if let Some(text) = form.text_of(&value) {
        return Ok(text);
    }
    let text = datum(&column.shape, value)
        .map_err(|source| TableError::Value {
            table: table(),
            column: column.name.clone(),
            declared: column.declared.clone(),
            source,
        })?
        .ok_or_else(|| TableError::KeyNull { table: table(), column: column.name.clone() })?;
    form.canonical(text).map_err(|text| TableError::KeyValue {
        table: table(),
        column: column.name.clone(),
        declared: column.declared.clone(),
        got: format!("`{}`", excerpt(&text)),
    })
}

impl KeyForm {
    /// The one text of what is in its one form already.
    fn text_of(self, value: &Value) -> Option<Box<str>> {
        match (self, value) {
            (KeyForm::Integer { least, most }, Value::Integer(number)) if (least..=most).contains(number) => {
                Some(number.to_string().into())
            }
            (KeyForm::Bytes, Value::Bytes(bytes)) => Some(hex_text(bytes)),
            _ => None,
        }
    }

    /// The one text for all that are equal, or the text back when the type does not hold it.
    fn canonical(self, text: Box<str>) -> Result<Box<str>, Box<str>> {
        match self {
            KeyForm::Integer { least, most } => match text.trim().parse::<i64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number.to_string().into()),
                _ => Err(text),
            },
            KeyForm::Text { max_chars: Some(most) } if text.chars().count() > most => Err(text),
            KeyForm::Bytes => {
                bytes(&text).map(|bytes| format!("\\x{}", hex::encode(bytes)).into()).ok_or(text)
            }
            KeyForm::Text { .. } | KeyForm::Compared => Ok(text),
        }
    }
}

/// `bytea` in its hex or its escape format. Source: PostgreSQL's manual, "Binary Data Types".
fn bytes(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        return hex::decode(digits).ok();
    }
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        (rest, bytes) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (after, push(bytes, b'\\')),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                (after, push(bytes, ((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0')))
            }
            (b'\\', _) => return None,
            (byte, after) => (after, push(bytes, *byte)),
        };
    }
    Some(bytes)
}

fn push(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_have_one_text() {
        let integer = KeyForm::Integer { least: -5, most: 7 };
        assert_eq!(integer.canonical(" +007 ".into()), Ok("7".into()));
        assert_eq!(integer.canonical("8".into()), Err("8".into()));
        assert_eq!(integer.canonical("1.0".into()), Err("1.0".into()));
        assert_eq!(KeyForm::Bytes.canonical("\\xABcd".into()), Ok("\\xabcd".into()));
        assert_eq!(KeyForm::Bytes.canonical("a\\\\\\001b".into()), Ok("\\x615c0162".into()));
        assert_eq!(KeyForm::Bytes.canonical("\\xabc".into()), Err("\\xabc".into()));
        assert_eq!(KeyForm::Text { max_chars: Some(2) }.canonical("äöü".into()), Err("äöü".into()));
    }
}
