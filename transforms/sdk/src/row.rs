//! Rows: structs whose fields are a table's columns.

use crate::abi::RowWriter;

/// A row of a table, or some of its columns: always those of the primary key. [`row!`](crate::row) makes them.
pub trait Row {
    /// What is written, in its order.
    const SHAPE: &'static Shape;

    fn write(&self, row: &mut RowWriter<'_>);
}

/// A table, and some of its columns.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// The table's name, without a schema.
    pub table: &'static str,
    pub columns: &'static [&'static str],
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
            const SHAPE: &'static $crate::Shape = &$crate::Shape {
                table: $table,
                columns: &[$(stringify!($key),)+ $(stringify!($column),)*],
            };

            fn write(&self, row: &mut $crate::RowWriter<'_>) {
                $(row.member(concat!(",\"", stringify!($key), "\":"), &self.$key);)+
                $(row.member(concat!(",\"", stringify!($column), "\":"), &self.$column);)*
            }
        }

        impl $(<$lifetime>)? $name $(<$lifetime>)? {
            /// Deletes the row with this key.
            #[allow(dead_code)]
            $visible fn delete(block: &mut $crate::Block, $($key: $key_type),+) {
                const KEY: &$crate::Shape =
                    &$crate::Shape { table: $table, columns: &[$(stringify!($key),)+] };
                block.delete(KEY, |row| {
                    $(row.member(concat!(",\"", stringify!($key), "\":"), &$key);)+
                });
            }
        }
    };
}
