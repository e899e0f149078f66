//! The statements that replication is made of, as text: set-based, a few plain shapes for every table.
//!
//! Names come from the catalog and pass `quote`; values are always bound, as one array of texts a column.
//! `v` is always the rows that were bound, `t` the table, `o` the oldest images in its journal.
//!
//! What a block does to rows is journaled by the statement that does it, which knows whether they exist. How many
//! rows a statement wrote is in its tag or, where that tells of some of them only, its result.

use crate::db::catalog::Column;
use crate::db::quote;

use super::target::Target;
use super::writer::Journaling;

/// Statements for rows that are bound to them as arrays.
pub(super) struct Rows<'a> {
    target: &'a Target,
    /// Positions of the columns that are bound, the key's first.
    columns: Vec<usize>,
    journaling: Journaling,
}

impl<'a> Rows<'a> {
    /// Rows of the key's columns and then `values`.
    pub(super) fn new(target: &'a Target, values: &[usize], journaling: Journaling) -> Rows<'a> {
        Rows { target, columns: target.table.key.iter().chain(values).copied().collect(), journaling }
    }

    /// `(select …casts… from unnest($1, $2, …)) v`, its columns named `c0`, `c1`, ….
    fn from(&self) -> String {
        let casts: Vec<String> = (0..self.columns.len())
            .map(|index| {
                format!("{} as c{index}", cast(&self.target.table.columns[self.columns[index]], index))
            })
            .collect();
        let parameters = (1..=self.columns.len()).map(|number| format!("${number}::pg_catalog.text[]"));
        let names = (0..self.columns.len()).map(|index| format!("c{index}"));
        format!("(select {} from unnest({}) as u ({})) v", casts.join(", "), join(parameters), join(names))
    }

    /// `t.key = any (array[v.c0]) and …`, with the operators of the key's index.
    ///
    /// A plain `=` could be joined in any way. While a table is small that would be by going through all of it, and in
    /// an order of the plan's; and the plan stays when the table has grown. With `any` each row that is bound is looked
    /// up in the key's index, one after the other. Of arrays there are no arrays; two bounds come to the same.
    fn same_key(&self) -> String {
        self.target.matches(|place, column, equals| match self.target.is_array(place) {
            false => format!("{column} {equals} any (array[v.c{place}])"),
            true => format!(
                "{column} operator(pg_catalog.>=) v.c{place} and {column} operator(pg_catalog.<=) v.c{place}"
            ),
        })
    }

    /// The block's height, the parameter behind the arrays.
    fn height(&self) -> String {
        format!("${}::pg_catalog.int4", self.columns.len() + 1)
    }

    /// Stores what these rows of `from` hold in `columns`.
    fn journal_images(&self, columns: impl Iterator<Item = String>, from: &str) -> String {
        let table = &self.target.table;
        format!(
            "insert into {} (undo_height, undo_existed, {})\n  select {}, true, {} from {from}",
            self.target.journal,
            join(table.stored().map(|column| quote(&table.columns[column].name))),
            self.height(),
            join(columns),
        )
    }

    /// Stores the keys of the rows of `v` that do not exist: all in one row, if there can be arrays of them.
    fn journal_absent(&self) -> String {
        let packed: Vec<(String, usize)> = self.target.packed_key();
        let (names, keys, only) = if packed.is_empty() {
            (
                self.target.key_names(),
                join((0..self.target.table.key.len()).map(|place| format!("c{place}"))),
                "",
            )
        } else {
            (
                join(packed.iter().map(|(name, _)| name.clone())),
                join(packed.iter().map(|(_, place)| format!("pg_catalog.array_agg(c{place})"))),
                " having pg_catalog.count(*) > 0",
            )
        };
        format!(
            "insert into {} (undo_height, undo_existed, {names})\n  \
             select {}, false, {keys} from v where not existed{only}",
            self.target.journal,
            self.height(),
        )
    }

    /// Deletes the rows.
    pub(super) fn delete(&self) -> String {
        let table = &self.target.table;
        let delete =
            format!("delete from {} t\n using {}\n where {}", table.sql(), self.from(), self.same_key());
        match self.journaling {
            Journaling::Skipped => format!("-- apply::delete\n{delete}"),
            Journaling::Kept => {
                let held = || table.stored().map(|column| quote(&table.columns[column].name));
                format!(
                    "-- apply::delete\nwith gone as (\n{delete}\nreturning {}\n)\n{}",
                    join(held().map(|name| format!("t.{name}"))),
                    self.journal_images(held(), "gone"),
                )
            }
        }
    }

    /// Inserts the rows, or sets the columns that are bound in those that exist. PostgreSQL checks
    /// `not null` before it sees the conflict, so this takes all columns; and it keeps no journal.
    pub(super) fn upsert(&self) -> String {
        let table = &self.target.table;
        let names: Vec<String> =
            self.columns.iter().map(|column| quote(&table.columns[*column].name)).collect();
        let sets: Vec<String> =
            names[table.key.len()..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
        format!(
            "-- apply::upsert\ninsert into {} ({}) overriding system value\nselect {} from {}\n\
             on conflict ({}) do update set {}",
            table.sql(),
            names.join(", "),
            join((0..self.columns.len()).map(|index| format!("v.c{index}"))),
            self.from(),
            self.target.key_names(),
            sets.join(", "),
        )
    }

    /// Sets the columns that are bound in those rows that exist, with `others` also those to their defaults, and
    /// inserts the rows that do not. Counts both.
    ///
    /// Each row is looked up once for all of that; `on conflict` would look it up again beside the journal's
    /// statement, and locks it. What exists is updated first: a row that is new may take a unique value from it.
    pub(super) fn put(&self, others: &[usize]) -> String {
        let table = &self.target.table;
        let name = |column: usize| quote(&table.columns[column].name);
        let (held, journal) = match self.journaling {
            Journaling::Kept => (
                table.stored().map(|column| format!(", t.{} as o{column}", name(column))).collect(),
                format!(
                    "images as (\n  {}\n), absent as (\n  {}\n), ",
                    self.journal_images(table.stored().map(|column| format!("o{column}")), "v where existed"),
                    self.journal_absent()
                ),
            ),
            Journaling::Skipped => (String::new(), String::new()),
        };
        let given = (table.key.len()..self.columns.len())
            .map(|index| format!("{} = v.c{index}", name(self.columns[index])));
        let sets: Vec<String> =
            given.chain(others.iter().map(|column| format!("{} = default", name(*column)))).collect();
        let changed = match sets.is_empty() {
            true => "select from v where existed".to_owned(),
            false => format!(
                "update {} t set {}\n    from v\n   where v.existed and {}\n  returning 1",
                table.sql(),
                sets.join(", "),
                self.same_key()
            ),
        };
        format!(
            "-- apply::put\nwith v as materialized (\n  select v.*, t.tableoid is not null as existed{held}\n    \
             from {}\n    left join {} t on {}\n), {journal}changed as (\n  {changed}\n), made as (\n  \
             insert into {} ({}) overriding system value\n  select {} from v where not existed\n  returning 1\n)\n\
             select (select pg_catalog.count(*) from changed) + (select pg_catalog.count(*) from made)",
            self.from(),
            table.sql(),
            self.same_key(),
            table.sql(),
            join(self.columns.iter().map(|column| name(*column))),
            join((0..self.columns.len()).map(|index| format!("c{index}"))),
        )
    }
}

impl Target {
    /// What `same` says of each of the key's columns: its place in the key, itself, and its operator.
    fn matches(&self, same: impl Fn(usize, &str, &str) -> String) -> String {
        let parts = self.table.key.iter().enumerate().map(|(place, column)| {
            let column = &self.table.columns[*column];
            let equals = column.equals.as_deref().unwrap_or("operator(pg_catalog.=)");
            same(place, &format!("t.{}", quote(&column.name)), equals)
        });
        parts.collect::<Vec<String>>().join(" and ")
    }

    fn key_names(&self) -> String {
        join(self.table.key.iter().map(|column| quote(&self.table.columns[*column].name)))
    }

    /// Each row's image of the lowest height above `$1`: what it was at that height. A row that a block deleted and
    /// made again has an image from before and was absent in between.
    fn oldest(&self) -> String {
        let columns = &self.table.columns;
        let held = || self.table.stored().map(|column| quote(&columns[column].name));
        let rows = format!(
            "select undo_height, undo_existed, {} from {} where undo_height > $1::pg_catalog.int4",
            join(held()),
            self.journal
        );
        let packed = self.packed_key();
        let all = match packed.first() {
            None => rows,
            Some((first, _)) => {
                let key = |column| packed.iter().find(|(_, place)| self.table.key[*place] == column);
                // Not in `from`, where it spreads composites over columns.
                let unpacked = self.table.stored().map(|column| match key(column) {
                    Some((name, _)) => format!("pg_catalog.unnest({name})"),
                    None => format!("null::{}", columns[column].type_sql),
                });
                format!(
                    "{rows} and {first} is null\n  union all\n  select undo_height, undo_existed, {}\n    \
                     from {} where undo_height > $1::pg_catalog.int4",
                    join(unpacked),
                    self.journal,
                )
            }
        };
        format!(
            "(select distinct on ({key}) * from (\n  {all}\n) held order by {key}, undo_height, undo_existed desc) o",
            key = self.key_names(),
        )
    }

    fn same_key_as_oldest(&self) -> String {
        self.matches(|place, column, equals| {
            format!("{column} {equals} o.{}", quote(&self.table.columns[self.table.key[place]].name))
        })
    }

    /// Deletes every row that was touched above `$1`.
    pub(super) fn undo_touched(&self) -> String {
        format!(
            "-- apply::rollback::undo_touched\ndelete from {} t\n using {}\n where {}",
            self.table.sql(),
            self.oldest(),
            self.same_key_as_oldest()
        )
    }

    /// Deletes the rows that did not exist at `$1`.
    pub(super) fn undo_created(&self) -> String {
        format!(
            "-- apply::rollback::undo_created\ndelete from {} t\n using {}\n where not o.undo_existed and {}",
            self.table.sql(),
            self.oldest(),
            self.same_key_as_oldest()
        )
    }

    /// Puts back the images of the rows that existed at `$1`.
    pub(super) fn undo_existed(&self) -> String {
        let columns = &self.table.columns;
        let names = join(self.table.stored().map(|column| quote(&columns[column].name)));
        let images = join(self.table.stored().map(|column| format!("o.{}", quote(&columns[column].name))));
        let sets: Vec<String> = self
            .values()
            .filter(|column| !columns[*column].identity_always)
            .map(|column| {
                let name = quote(&columns[column].name);
                format!("{name} = excluded.{name}")
            })
            .collect();
        let on_conflict = match (self.restore, sets.is_empty()) {
            // The rows are gone by then.
            (super::target::Restore::Afresh, _) => String::new(),
            (_, true) => format!("on conflict ({}) do nothing", self.key_names()),
            (_, false) => format!("on conflict ({}) do update set {}", self.key_names(), sets.join(", ")),
        };
        format!(
            "-- apply::rollback::undo_existed\ninsert into {} ({names}) overriding system value\nselect {images}\n  \
             from {}\n where o.undo_existed\n{on_conflict}",
            self.table.sql(),
            self.oldest(),
        )
    }

    /// Forgets the images above `$1`, once they are put back.
    pub(super) fn forget_above(&self) -> String {
        format!(
            "-- apply::rollback::forget_above\ndelete from {} where undo_height > $1::pg_catalog.int4",
            self.journal
        )
    }

    /// Takes away the images above `$1` up to and including `$2`.
    pub(super) fn forget_between(&self) -> String {
        format!(
            "-- apply::prune::forget_between\ndelete from {} \
             where undo_height > $1::pg_catalog.int4 and undo_height <= $2::pg_catalog.int4",
            self.journal
        )
    }
}

/// A bound text as the column's type.
pub(super) fn cast(column: &Column, index: usize) -> String {
    let collate = column.collation.as_ref().map(|name| format!(" collate {name}")).unwrap_or_default();
    match column.type_oid {
        25 => format!("u.c{index}{collate}"),
        _ => format!("u.c{index}::{}{collate}", column.type_sql),
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
