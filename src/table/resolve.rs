//! From a transform's changes to rows of known tables: names are looked up, values become the text of their
//! column's type, keys are found and brought to one form.
//!
//! Pure. What is wrong with a change is said here, before anything is sent to PostgreSQL.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::datum::{datum, hex_text};
use super::keys::{self, Claim};
use super::placement::{Place, Placement, Placements};
use super::target::{KeyForm, Target};
use super::{ChangeSet, Datum, Key, RowChange, TableError, Tables, excerpt, names};
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
        let mut placements = Placements::new(self);
        let mut row = Vec::new();
        for change in changes {
            let placement = placements.of(&change.layout)?;
            let (change, claimed) = row_change(placement, change, &mut row)?;
            resolved.compared |= placement.compared;
            match claimed.filter(|claimed| *claimed != change.key) {
                Some(key) if placement.compared => {
                    resolved.claims.push(Claim { change: resolved.changes.len(), key });
                }
                Some(key) => return Err(keys::conflict(placement.target, &key, &change.key)),
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

/// The change, and the key that its `key` says if that is another than the row's. `row` is room for the key's values.
fn row_change(
    placement: &Placement<'_>,
    change: Change,
    row: &mut Vec<Option<Value>>,
) -> Result<(RowChange, Option<Key>), TableError> {
    let Placement { table, target, .. } = *placement;
    let Change { layout, operation, key: named, values } = change;
    row.clear();
    row.resize(target.table.key.len(), None);
    let mut set = Vec::new();
    if operation == Operation::Upsert {
        set.reserve_exact(placement.beside_key);
    }
    let mut given = placement.places.iter().zip(&layout.columns).zip(values);
    while let Some(((place, name), value)) = given.next() {
        match *place {
            // A null says nothing of the key; `key` may.
            Place::Key(place) => row[place] = Some(value).filter(|value| *value != Value::Null),
            Place::Unknown => return Err(unknown_column(target, name)),
            Place::Column(_) | Place::Generated if operation == Operation::Delete => {}
            Place::Generated => return Err(generated(target, name)),
            Place::Column(id) => match value_text(target, id, value) {
                Ok(text) => set.push((id, text)),
                Err(error) => {
                    // The key may stand behind it.
                    let rest = given.filter_map(|((place, _), value)| match *place {
                        Place::Key(place) => Some((place, value)),
                        _ => None,
                    });
                    rest.for_each(|(place, value)| row[place] = Some(value));
                    let name =
                        row_name(target, row, named.and_then(|named| named_key(target, named, false).ok()));
                    return Err(error.of_row(name));
                }
            },
        }
    }
    let incomplete = row.iter().any(Option::is_none);
    let mut named = match named {
        Some(named) => named_key(target, named, incomplete)?,
        None => Vec::new(),
    };
    let mut key = Vec::with_capacity(row.len());
    for (place, value) in row.iter_mut().enumerate() {
        let named = named.get_mut(place);
        let value = match value.take() {
            None => named.and_then(Option::take),
            Some(value) => {
                // What is left in the end contradicts the row, as far as its spelling goes.
                named.and_then(|named| named.take_if(|named| *named == value || *named == Value::Null));
                Some(value)
            }
        };
        match key_text(target, place, value) {
            Ok(text) => key.push(text),
            Err(error) if target.table.key.len() == 1 => return Err(error),
            Err(error) => {
                let mut known: Vec<Option<String>> = key.iter().map(|text| Some(text.to_string())).collect();
                known.push(None);
                known.extend(row[place + 1..].iter().map(|value| value.as_ref().and_then(display)));
                return Err(error.of_row(target.row_name(&known)));
            }
        }
    }
    let key: Key = key.into();
    let differs = named.iter().any(Option::is_some);
    let claimed = if differs { Some(claimed_key(target, named, &key)?) } else { None };
    Ok((RowChange { table, key, operation, values: set }, claimed))
}

/// The row by its key, for messages, as far as the change says it.
fn row_name(target: &Target, row: &[Option<Value>], named: Option<Vec<Option<Value>>>) -> String {
    let named = named.unwrap_or_default();
    let known = row.iter().enumerate().map(|(place, value)| {
        let value = value.as_ref().or_else(|| named.get(place).and_then(Option::as_ref));
        value.and_then(display)
    });
    target.row_name(&known.collect::<Vec<Option<String>>>())
}

fn display(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Integer(integer) => Some(integer.to_string()),
        Value::Number(text) | Value::Text(text) | Value::Json(text) => Some(text.to_string()),
        Value::Bytes(bytes) => Some(hex_text(bytes).into()),
    }
}

fn value_text(target: &Target, column: ColumnId, value: Value) -> Result<Datum, TableError> {
    let column = target.table.column(column);
    datum(&column.shape, value).map_err(|source| TableError::Value {
        table: target.table.name.clone(),
        column: column.name.clone(),
        declared: column.declared.clone(),
        row: Box::default(),
        source: Box::new(source),
    })
}

fn generated(target: &Target, column: &str) -> TableError {
    TableError::Generated { table: target.table.name.clone(), column: column.to_owned() }
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

/// The row's key, but as `key` says it where it says it otherwise.
fn claimed_key(target: &Target, named: Vec<Option<Value>>, row: &Key) -> Result<Key, TableError> {
    let places = named.into_iter().enumerate().map(|(place, named)| match named {
        None => Ok(row[place].clone()),
        named => key_text(target, place, named),
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
            row: Box::default(),
            source: Box::new(source),
        })?
        .ok_or_else(|| TableError::KeyNull { table: table(), column: column.name.clone() })?;
    form.canonical(text).map_err(|text| TableError::KeyValue {
        table: table(),
        column: column.name.clone(),
        declared: column.declared.clone(),
        got: format!("`{}`", excerpt(&text)),
        row: Box::default(),
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
                Ok(number) if !(least..=most).contains(&number) => Err(text),
                Ok(_) if is_plain(&text) => Ok(text),
                Ok(number) => Ok(number.to_string().into()),
                Err(_) => Err(text),
            },
            KeyForm::Text { max_chars: Some(most) } if text.chars().count() > most => Err(text),
            KeyForm::Bytes if is_hex_text(&text) => Ok(text),
            KeyForm::Bytes => bytes(&text).map(|bytes| hex_text(&bytes)).ok_or(text),
            KeyForm::Text { .. } | KeyForm::Compared => Ok(text),
        }
    }
}

/// Whether the text of a whole number is the one that all its spellings are brought to.
fn is_plain(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    number == "0"
        || (digits.starts_with(|first| ('1'..='9').contains(&first))
            && !digits.ends_with(char::is_whitespace))
}

/// Whether a text is what [`hex_text`] makes of some bytes.
fn is_hex_text(text: &str) -> bool {
    let digits = text.strip_prefix("\\x").filter(|digits| digits.len().is_multiple_of(2));
    digits.is_some_and(|digits| digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
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
mod tests;
