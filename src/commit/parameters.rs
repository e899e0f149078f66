//! The values of a statement as they are sent: one array of texts a column, in PostgreSQL's binary form, so that what a
//! message will take is known before any of it is sent.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// A `text[]` that is being put together, or is sent.
#[derive(Debug, Default)]
pub(super) struct TextArray {
    elements: Vec<u8>,
    count: i32,
    has_nulls: bool,
}

/// What the length before each element takes.
pub(super) const ELEMENT_BYTES: usize = 4;

impl TextArray {
    pub(super) fn with_capacity(bytes: usize) -> TextArray {
        TextArray { elements: Vec::with_capacity(bytes), count: 0, has_nulls: false }
    }

    /// A text is shorter than a message may be, as the plan has seen to.
    pub(super) fn push(&mut self, text: Option<&str>) {
        self.count += 1;
        match text {
            None => {
                self.has_nulls = true;
                self.elements.put_i32(-1);
            }
            Some(text) => {
                self.elements.put_u32(text.len() as u32);
                self.elements.put_slice(text.as_bytes());
            }
        }
    }

    /// The texts, to look at them again one by one.
    pub(super) fn texts(&self) -> Vec<Option<&str>> {
        let mut rest = self.elements.as_slice();
        let mut texts = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<ELEMENT_BYTES>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let (text, after) = after.split_at(length.unwrap_or(0).min(after.len()));
            texts.push(length.and_then(|_| std::str::from_utf8(text).ok()));
            rest = after;
        }
        texts
    }
}

impl ToSql for TextArray {
    /// Source: PostgreSQL's `array_recv`.
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.reserve(self.elements.len() + 20);
        out.put_i32(i32::from(self.count > 0));
        out.put_i32(self.has_nulls.into());
        out.put_u32(Type::TEXT.oid());
        if self.count > 0 {
            out.put_i32(self.count);
            out.put_i32(1);
            out.put_slice(&self.elements);
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT_ARRAY
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_driver_makes_of_the_same_texts() {
        for texts in [&[Some("a"), None, Some(""), Some("é\"{")][..], &[Some("x")], &[None], &[]] {
            let mut array = TextArray::default();
            texts.iter().for_each(|text| array.push(*text));
            let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
            array.to_sql(&Type::TEXT_ARRAY, &mut ours).unwrap();
            texts.to_sql(&Type::TEXT_ARRAY, &mut theirs).unwrap();
            // Of no elements the driver says that there is one dimension.
            if !texts.is_empty() {
                assert_eq!(ours, theirs);
            }
            assert_eq!(array.texts(), texts);
        }
    }
}
