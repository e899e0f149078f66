//! Reads what version 2 emits, for tests of transforms. As the host does, but for a host that trusts: what is wrong
//! is an error without further words.

use serde_json::{Number, Value};

use crate::testing::{Change, Operation};
use crate::Error;

/// The changes of a block.
pub(crate) fn changes(emitted: &[u8]) -> Result<Vec<Change>, Error> {
    let mut reader = Reader(emitted);
    let mut declared: Vec<(String, Vec<String>)> = Vec::new();
    let mut changes = Vec::new();
    while !reader.0.is_empty() {
        let operation = match reader.array()? {
            [1] => {
                let table = reader.name()?;
                let count = u16::from_le_bytes(reader.array()?);
                let columns = (0..count).map(|_| reader.name()).collect::<Result<_, _>>()?;
                declared.push((table, columns));
                continue;
            }
            [2] => Operation::Upsert,
            [3] => Operation::Delete,
            [other] => return Err(format!("no record begins with {other}").into()),
        };
        let number = usize::from(u16::from_le_bytes(reader.array()?));
        let (table, columns) = declared.get(number).ok_or("not declared")?;
        let columns = columns.iter().map(|column| Ok((column.clone(), reader.value()?)));
        changes.push(Change {
            operation,
            table: table.clone(),
            columns: columns.collect::<Result<_, Error>>()?,
        });
    }
    Ok(changes)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.take(N)?.try_into()?)
    }

    fn name(&mut self) -> Result<String, Error> {
        let length = u16::from_le_bytes(self.array()?);
        Ok(String::from_utf8(self.take(length.into())?.to_vec())?)
    }

    fn sized(&mut self) -> Result<&'a [u8], Error> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(length as usize)
    }

    fn value(&mut self) -> Result<Value, Error> {
        Ok(match self.array()? {
            [0] => Value::Null,
            [1] => false.into(),
            [2] => true.into(),
            [3] => i64::from_le_bytes(self.array()?).into(),
            [4] => serde_json::from_str(&i128::from_le_bytes(self.array()?).to_string())?,
            [5] => {
                let float = f64::from_le_bytes(self.array()?);
                let infinite = if float > 0.0 { "Infinity" } else { "-Infinity" };
                let text = if float.is_nan() { "NaN" } else { infinite };
                Number::from_f64(float).map_or(text.into(), Value::from)
            }
            [6 | 9] => serde_json::from_slice(self.sized()?)?,
            [7] => std::str::from_utf8(self.sized()?)?.into(),
            [8] => format!("\\x{}", crate::hex(self.sized()?)).into(),
            [10] => {
                let count = u32::from_le_bytes(self.array()?);
                (0..count).map(|_| self.value()).collect::<Result<_, _>>()?
            }
            [other] => return Err(format!("no kind of value is {other}").into()),
        })
    }
}

#[cfg(test)]
pub(crate) fn value(written: &[u8]) -> Result<Value, Error> {
    let mut reader = Reader(written);
    let value = reader.value()?;
    if reader.0.is_empty() {
        Ok(value)
    } else {
        Err("more than a value".into())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    /// What the test transform of `block` emits, byte by byte.
    pub(crate) fn messages(emitted: &[u8]) {
        let txid = b"\x08\x01\0\0\0\x01";
        let integer = |integer: u8| [3, integer, 0, 0, 0, 0, 0, 0, 0];
        let expected = [
            b"\x01\x05\0coins\x03\0\x04\0txid\x08\0position\x05\0owner" as &[u8],
            &[b"\x02\0\0", &txid[..], &integer(0), b"\x07\x01\0\0\0a"].concat(),
            &[b"\x02\0\0", &txid[..], &integer(1), b"\x07\x02\0\0\0b\""].concat(),
            b"\x01\x05\0coins\x03\0\x04\0txid\x08\0position\x06\0height",
            &[b"\x02\x01\0", &txid[..], &integer(0), &integer(7)].concat(),
            b"\x01\x05\0coins\x02\0\x04\0txid\x08\0position",
            &[b"\x03\x02\0", &txid[..], &integer(1)].concat(),
        ];
        assert_eq!(emitted, expected.concat());
    }
}
