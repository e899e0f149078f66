//! Rows: structs whose fields are a table's columns.

use crate::Column;

/// A row of a table, or some of its columns: always those of the primary key. [`row!`](crate::row) makes them.
pub trait Row {
    /// The table's name, without a schema.
    const TABLE: &'static str;

    fn write(&self, row: &mut RowWriter<'_>);
}

/// Writes columns as members of a JSON object.
pub struct RowWriter<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> RowWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> RowWriter<'a> {
        RowWriter { out, empty: true }
    }

    /// A column; `name` is as in the catalog.
    pub fn column(&mut self, name: &str, value: &impl Column) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        name.write(self.out);
        self.out.push(b':');
        value.write(self.out);
    }

    /// `member` is a comma, the column's name in quotes, and a colon, as the macro knows them beforehand.
    #[doc(hidden)]
    pub fn member(&mut self, member: &'static str, value: &impl Column) {
        let member = if self.empty { &member[1..] } else { member };
        self.empty = false;
        self.out.extend_from_slice(member.as_bytes());
        value.write(self.out);
    }
}

/// Declares a struct whose fields are columns of a table, its primary key's first, and makes it a [`Row`].
///
/// ```
/// debshrew_sdk::row! {
///     /// An output, as it is when it is made.
///     pub struct Output<'a> in "outputs" {
///         key { txid: debshrew_sdk::Hash, position: u32 }
///         value: u64,
///         script: debshrew_sdk::Bytes<'a>,
///     }
/// }
/// debshrew_sdk::row! {
///     /// What changes when it is spent: a struct with fewer columns leaves the others alone.
///     pub struct Spent in "outputs" {
///         key { txid: debshrew_sdk::Hash, position: u32 }
///         spent_height: u32,
///     }
/// }
/// # fn f(block: &mut debshrew_sdk::Block, txid: debshrew_sdk::Hash) {
/// block.update(&Spent { txid, position: 0, spent_height: block.height() });
/// Output::delete(block, txid, 0);
/// # }
/// ```
#[macro_export]
macro_rules! row {
    (
        $(#[$attribute:meta])*
        $visible:vis struct $name:ident $(<$lifetime:lifetime>)? in $table:literal {
            key { $($key:ident: $key_type:ty),+ $(,)? }
            $($(#[$doc:meta])* $column:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visible struct $name $(<$lifetime>)? {
            $(pub $key: $key_type,)+
            $($(#[$doc])* pub $column: $type,)*
        }

        impl $(<$lifetime>)? $crate::Row for $name $(<$lifetime>)? {
            const TABLE: &'static str = $table;

            fn write(&self, row: &mut $crate::RowWriter<'_>) {
                $(row.member(concat!(",\"", stringify!($key), "\":"), &self.$key);)+
                $(row.member(concat!(",\"", stringify!($column), "\":"), &self.$column);)*
            }
        }

        impl $(<$lifetime>)? $name $(<$lifetime>)? {
            /// Deletes the row with this key.
            #[allow(dead_code)]
            $visible fn delete(block: &mut $crate::Block, $($key: $key_type),+) {
                block.delete($table, |row| {
                    $(row.member(concat!(",\"", stringify!($key), "\":"), &$key);)+
                });
            }
        }
    };
}
