//! The statements that replication is made of, as text: set-based, a few plain shapes for every table.
//!
//! Names come from the catalog and pass `quote`; values are always bound, as one array of texts a column.
//! `v` is always the rows that were bound, `t` the table, `o` the oldest images in its journal.

use crate::db::catalog::Column;
use crate::db::quote;

use super::target::Target;

/// A statement and how many arrays it is bound to.
pub(super) struct Rows<'a> {
    target: &'a Target,
    /// Positions of the columns that are bound, the key's first.
    columns: Vec<usize>,
}

impl<'a> Rows<'a> {
    /// Rows of the key's columns and then `values`.
    pub(super) fn new(target: &'a Target, values: &[usize]) -> Rows<'a> {
        Rows { target, columns: target.table.key.iter().chain(values).copied().collect() }
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

    fn names(&self) -> String {
        join(self.columns.iter().map(|column| quote(&self.target.table.columns[*column].name)))
    }

    fn bound(&self) -> String {
        join((0..self.columns.len()).map(|index| format!("v.c{index}")))
    }

    /// `t.key = v.c0 and …`, with the operators of the key's index.
    fn same_key(&self) -> String {
        self.target.matches(|position| format!("v.c{position}"))
    }

    /// Stores the rows' images, or their absence, before the block at the last parameter's height.
    pub(super) fn journal(&self) -> String {
        let table = &self.target.table;
        let values: Vec<usize> = self.target.values().collect();
        let names = table.key.iter().chain(&values).map(|column| quote(&table.columns[*column].name));
        let key = table.key.iter().enumerate();
        let key = key.map(|(index, column)| {
            format!("coalesce(t.{}, v.c{index})", quote(&table.columns[*column].name))
        });
        let values = values.iter().map(|column| format!("t.{}", quote(&table.columns[*column].name)));
        format!(
            "-- apply::journal\ninsert into {} (undo_height, undo_existed, {})\n\
             select ${}::pg_catalog.int4, t.{} is not null, {}\n  from {}\n  left join {} t on {}",
            self.target.journal,
            join(names),
            self.columns.len() + 1,
            quote(&table.columns[table.key[0]].name),
            join(key.chain(values)),
            self.from(),
            table.sql(),
            self.same_key(),
        )
    }

    pub(super) fn delete(&self) -> String {
        format!(
            "-- apply::delete\ndelete from {} t\n using {}\n where {}",
            self.target.table.sql(),
            self.from(),
            self.same_key()
        )
    }

    /// Inserts rows, or overwrites the columns that are bound; with `others` also sets those to their defaults.
    pub(super) fn upsert(&self, others: &[usize]) -> String {
        let columns = &self.target.table.columns;
        let key = self.target.table.key.len();
        let given = self.columns[key..].iter().map(|column| {
            let name = quote(&columns[*column].name);
            format!("{name} = excluded.{name}")
        });
        let defaults = others.iter().map(|column| format!("{} = default", quote(&columns[*column].name)));
        let sets: Vec<String> = given.chain(defaults).collect();
        let action =
            if sets.is_empty() { "nothing".into() } else { format!("update set {}", sets.join(", ")) };
        format!(
            "-- apply::upsert\ninsert into {} ({}) overriding system value\nselect {}\n  from {}\n\
             on conflict ({}) do {action}",
            self.target.table.sql(),
            self.names(),
            self.bound(),
            self.from(),
            self.target.key_names(),
        )
    }

    /// Sets the columns that are bound in those rows that exist.
    pub(super) fn update(&self) -> String {
        let key = self.target.table.key.len();
        let columns = &self.target.table.columns;
        let sets = (key..self.columns.len())
            .map(|index| format!("{} = v.c{index}", quote(&columns[self.columns[index]].name)));
        format!(
            "-- apply::update\nupdate {} t\n   set {}\n  from {}\n where {}",
            self.target.table.sql(),
            join(sets),
            self.from(),
            self.same_key()
        )
    }

    /// Inserts those rows that do not exist.
    pub(super) fn insert_missing(&self) -> String {
        format!(
            "-- apply::insert_missing\ninsert into {} ({}) overriding system value\nselect {}\n  from {}\n \
             where not exists (select from {} t where {})",
            self.target.table.sql(),
            self.names(),
            self.bound(),
            self.from(),
            self.target.table.sql(),
            self.same_key()
        )
    }
}

impl Target {
    fn matches(&self, value: impl Fn(usize) -> String) -> String {
        let parts: Vec<String> = self
            .table
            .key
            .iter()
            .enumerate()
            .map(|(position, column)| {
                let column = &self.table.columns[*column];
                let equals = column.equals.as_deref().unwrap_or("operator(pg_catalog.=)");
                format!("t.{} {equals} {}", quote(&column.name), value(position))
            })
            .collect();
        parts.join(" and ")
    }

    fn key_names(&self) -> String {
        join(self.table.key.iter().map(|column| quote(&self.table.columns[*column].name)))
    }

    /// Each row's image of the lowest height above `$1`: what it was at that height.
    fn oldest(&self) -> String {
        format!(
            "(select distinct on ({key}) * from {journal} where undo_height > $1::pg_catalog.int4 \
             order by {key}, undo_height) o",
            key = self.key_names(),
            journal = self.journal,
        )
    }

    fn same_key_as_oldest(&self) -> String {
        self.matches(|position| format!("o.{}", quote(&self.table.columns[self.table.key[position]].name)))
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
