//! The statements of a rollback: two a table, or one for tables that reference one another in a circle, whose references
//! are checked at its end. Each says how many of the rows that it put back are what the journal has.

use super::images::Journaled;
use crate::db::catalog::ColumnId;
use crate::table::{Restore, join};

/// A table's part of a statement.
struct Part {
    /// What stands in `with`.
    ctes: String,
    /// How many rows are to come out right, how many do, and how many are put back or removed.
    expected: String,
    restored: String,
    rows: String,
}

/// Puts back the rows that existed. Tables with unique values beside their key are made afresh.
pub(super) fn put_back(family: &[Journaled<'_>]) -> String {
    let part = |(number, table): (usize, &Journaled<'_>)| match table.target.restore {
        Restore::InPlace => table.overwritten(number),
        Restore::Afresh => table.made_afresh(number),
    };
    all("put_back", family.iter().enumerate().map(part))
}

/// Deletes the rows that did not exist; of tables that are made afresh, they are gone already.
pub(super) fn remove(family: &[Journaled<'_>]) -> Option<String> {
    let in_place = |(_, table): &(usize, &Journaled<'_>)| table.target.restore == Restore::InPlace;
    let mut parts = family.iter().enumerate().filter(in_place).peekable();
    parts.peek()?;
    Some(all("remove", parts.map(|(number, table)| table.removed(number))))
}

fn all(name: &str, parts: impl Iterator<Item = Part>) -> String {
    let parts: Vec<Part> = parts.collect();
    let sum = |of: fn(&Part) -> &String| {
        parts.iter().map(|part| of(part).as_str()).collect::<Vec<_>>().join("\n    + ")
    };
    format!(
        "-- undo::{name}\nwith {}\nselect {} as expected,\n  {} as restored,\n  {} as rows",
        parts.iter().map(|part| part.ctes.as_str()).collect::<Vec<_>>().join(", "),
        sum(|part| &part.expected),
        sum(|part| &part.restored),
        sum(|part| &part.rows),
    )
}

fn count(from: &str) -> String {
    format!("(select pg_catalog.count(*) from {from})")
}

impl Journaled<'_> {
    fn name(&self, column: ColumnId) -> String {
        self.target.name(column)
    }

    fn stored(&self, of: &str) -> String {
        join(self.target.table.stored().map(|column| format!("{of}.{}", self.name(column))))
    }

    /// Finds the row of `o` in the table.
    fn lookup(&self, o: &str) -> String {
        self.target.lookup(|place| format!("{o}.{}", self.name(self.target.table.key[place])))
    }

    /// Whether a row of the table and one of `o` are the same, bit by bit. Domains are compared as what they are over.
    fn identical(&self, of: &str, o: &str) -> String {
        let table = &self.target.table;
        let now = table
            .stored()
            .map(|column| format!("{of}.{}::{}", self.name(column), table.column(column).type_sql));
        format!("pg_catalog.record_image_eq(row({}), row({}))", join(now), self.stored(o))
    }

    /// How many of the rows that were inserted are what they were.
    fn count_made(&self, number: usize) -> String {
        let (made, o) = (format!("made{number}"), format!("o{number}"));
        let same = self.target.table.key.iter().map(|column| {
            let equals = self.target.table.column(*column).equals.as_deref();
            let name = self.name(*column);
            format!("{made}.{name} {} {o}.{name}", equals.unwrap_or("operator(pg_catalog.=)"))
        });
        let same = same.collect::<Vec<_>>().join(" and ");
        count(&format!("{made} join {o} on {same} where {}", self.identical(&made, &o)))
    }

    fn insert(&self, o: &str, only: &str) -> String {
        let columns = join(self.target.table.stored().map(|column| self.name(column)));
        format!(
            "insert into {} ({columns}) overriding system value\n  select {} from {o} where {o}.undo_existed and {o}.undo_whole and {only}\n  \
             returning {columns}",
            self.target.table.sql(),
            self.stored(o),
        )
    }

    /// Overwrites rows that existed where they are, and inserts those that are gone.
    fn overwritten(&self, number: usize) -> Part {
        let (table, o) = (&self.target.table, format!("o{number}"));
        let set: Vec<String> = table
            .stored()
            .filter(|column| match table.key.iter().position(|key| key == column) {
                // A key is the same, but may be spelled otherwise.
                Some(place) => self.target.is_compared(place) && !table.column(*column).identity_always,
                None => true,
            })
            .map(|column| format!("{0} = {o}.{0}", self.name(column)))
            .collect();
        let changed = match set.is_empty() {
            true => format!("select true as same from {o} where undo_existed and undo_present"),
            false => format!(
                "update {} t set {}\n    from {o}\n   where {o}.undo_existed and {o}.undo_present and {}\n  \
                 returning {} as same",
                table.sql(),
                set.join(", "),
                self.lookup(&o),
                self.identical("t", &o)
            ),
        };
        let ctes = format!(
            "{o} as materialized (\n{}\n), changed{number} as (\n  {changed}\n), made{number} as (\n  {}\n)",
            self.former(),
            self.insert(&o, &format!("not {o}.undo_present")),
        );
        let changed = count(&format!("changed{number} where same"));
        Part {
            ctes,
            expected: count(&format!("{o} where undo_existed")),
            restored: format!("{changed} + {}", self.count_made(number)),
            rows: count(&format!("{o} where undo_existed")),
        }
    }

    /// Takes all rows out that were changed, and inserts those that existed again: no two ever hold the same unique value.
    fn made_afresh(&self, number: usize) -> Part {
        let (o, gone) = (format!("o{number}"), format!("gone{number}"));
        let ctes = format!(
            "{o} as materialized (\n{}\n), {gone} as (\n  delete from {} t using {o} where {o}.undo_present and {} \
             returning 1\n), made{number} as (\n  {}\n)",
            self.former(),
            self.target.table.sql(),
            self.lookup(&o),
            // Not before all are out.
            self.insert(&o, &format!("{} >= 0", count(&gone))),
        );
        let (existed, present) =
            (count(&format!("{o} where undo_existed")), count(&format!("{o} where undo_present")));
        Part {
            ctes,
            expected: format!("{existed} + {present}"),
            restored: format!("{} + {}", self.count_made(number), count(&gone)),
            rows: count(&format!("{o} where undo_existed or undo_present")),
        }
    }

    /// Deletes the rows that did not exist.
    fn removed(&self, number: usize) -> Part {
        let (table, o, gone) = (self.target.table.sql(), format!("o{number}"), format!("gone{number}"));
        let lookup = self.lookup(&o);
        let ctes = format!(
            "{o} as materialized (\n  select * from (\n{}\n  ) f where not undo_existed\n), {gone} as (\n  \
             delete from {table} t using {o} where {lookup} returning 1\n)",
            self.oldest(),
        );
        Part {
            ctes,
            expected: count(&format!("{o} join {table} t on {lookup}")),
            restored: count(&gone),
            rows: count(&gone),
        }
    }

    /// Forgets the images above `$1`, once they are put back.
    pub(super) fn forget(&self) -> String {
        format!(
            "-- undo::forget\ndelete from {} where undo_height > $1::pg_catalog.int4",
            self.target.journal
        )
    }
}
