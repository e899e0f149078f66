//! The statements of a rollback: a few a table, each of which says how many of the rows that it put back are what the
//! journal has.

use super::images::Journaled;
use crate::db::catalog::ColumnId;
use crate::table::join;

impl Journaled<'_> {
    fn name(&self, column: ColumnId) -> String {
        self.target.name(column)
    }

    fn stored(&self, of: &str) -> String {
        join(self.target.table.stored().map(|column| format!("{of}.{}", self.name(column))))
    }

    /// Finds the row of `o` in the table.
    fn lookup(&self) -> String {
        self.target.lookup(|place| format!("o.{}", self.name(self.target.table.key[place])))
    }

    /// Whether a row of the table and one of `o` are the same, bit by bit. Domains are compared as what they are over.
    fn identical(&self, of: &str) -> String {
        let table = &self.target.table;
        let now = table
            .stored()
            .map(|column| format!("{of}.{}::{}", self.name(column), table.column(column).type_sql));
        format!("pg_catalog.record_image_eq(row({}), row({}))", join(now), self.stored("o"))
    }

    /// The rows that are inserted: counted if they are what they were.
    fn count_made(&self) -> String {
        let target = self.target;
        let same = target.table.key.iter().map(|column| {
            let equals = target.table.column(*column).equals.as_deref().unwrap_or("operator(pg_catalog.=)");
            format!("made.{0} {equals} o.{0}", target.name(*column))
        });
        format!(
            "(select pg_catalog.count(*) from made join o on {} where {})",
            same.collect::<Vec<_>>().join(" and "),
            self.identical("made")
        )
    }

    fn insert(&self, only: &str) -> String {
        let columns = join(self.target.table.stored().map(|column| self.name(column)));
        format!(
            "insert into {} ({columns}) overriding system value\n  select {} from o where o.undo_existed and {only}\n  \
             returning {columns}",
            self.target.table.sql(),
            self.stored("o"),
        )
    }

    /// Overwrites rows that existed where they are, and inserts those that are gone. Says how many there were, and how many
    /// are what they were; `rows` counts what was put back or removed.
    pub(super) fn put_back(&self) -> String {
        let table = &self.target.table;
        let set: Vec<String> = table
            .stored()
            .filter(|column| match table.key.iter().position(|key| key == column) {
                // A key is the same, but may be spelled otherwise.
                Some(place) => self.target.is_compared(place) && !table.column(*column).identity_always,
                None => true,
            })
            .map(|column| format!("{0} = o.{0}", self.name(column)))
            .collect();
        let changed = match set.is_empty() {
            true => "select true as same from o where o.undo_existed and o.undo_present".to_owned(),
            false => format!(
                "update {} t set {}\n    from o\n   where o.undo_existed and o.undo_present and {}\n  returning {} as same",
                table.sql(),
                set.join(", "),
                self.lookup(),
                self.identical("t")
            ),
        };
        format!(
            "-- undo::put_back\nwith o as materialized (\n{}\n), changed as (\n  {changed}\n), made as (\n  {}\n)\n\
             select (select pg_catalog.count(*) from o where undo_existed) as expected,\n       \
             (select pg_catalog.count(*) from changed where same) + {} as restored,\n       \
             (select pg_catalog.count(*) from o where undo_existed) as rows",
            self.former(),
            self.insert("not o.undo_present"),
            self.count_made(),
        )
    }

    /// Takes all rows out that were changed, and inserts those that existed again: no two ever hold the same unique value.
    pub(super) fn make_afresh(&self) -> String {
        format!(
            "-- undo::make_afresh\nwith o as materialized (\n{}\n), gone as (\n  delete from {} t using o where o.undo_present \
             and {} returning o.undo_existed\n), made as (\n  {}\n)\n\
             select (select pg_catalog.count(*) from o where undo_existed)\n       \
             + (select pg_catalog.count(*) from o where undo_present) as expected,\n       \
             {} + (select pg_catalog.count(*) from gone) as restored,\n       \
             (select pg_catalog.count(*) from o where undo_existed or undo_present) as rows",
            self.former(),
            self.target.table.sql(),
            self.lookup(),
            // Not before all are out.
            self.insert("(select pg_catalog.count(*) from gone) >= 0"),
            self.count_made(),
        )
    }

    /// Deletes the rows that did not exist. Says how many of them there were, and how many are gone.
    pub(super) fn remove(&self) -> String {
        let table = self.target.table.sql();
        format!(
            "-- undo::remove\nwith o as materialized (\n  select * from (\n{}\n  ) f where not undo_existed\n), gone as (\n  \
             delete from {table} t using o where {1} returning 1\n)\n\
             select (select pg_catalog.count(*) from o join {table} t on {1}) as expected,\n       \
             (select pg_catalog.count(*) from gone) as restored, (select pg_catalog.count(*) from gone) as rows",
            self.oldest(),
            self.lookup(),
        )
    }

    /// Forgets the images above `$1`, once they are put back.
    pub(super) fn forget(&self) -> String {
        format!(
            "-- undo::forget\ndelete from {} where undo_height > $1::pg_catalog.int4",
            self.target.journal
        )
    }
}
