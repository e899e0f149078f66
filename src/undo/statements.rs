//! The statements of a rollback: two a table, or one for tables that reference one another in a circle, whose references
//! are checked at its end. Each says how many of the rows that it put back are what the journal has.

use super::images::{ABOVE, Journaled};
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

/// Deletes the rows that did not exist, where they are not gone already.
pub(super) fn remove(family: &[Journaled<'_>]) -> Option<String> {
    let left =
        |(_, table): &(usize, &Journaled<'_>)| table.target.restore == Restore::InPlace && !table.childless;
    let mut parts = family.iter().enumerate().filter(left).peekable();
    parts.peek()?;
    Some(all("remove", parts.map(|(number, table)| table.removed(number))))
}

fn all(name: &str, parts: impl Iterator<Item = Part>) -> String {
    let parts: Vec<Part> = parts.collect();
    let sum = |of: fn(&Part) -> &String| {
        parts.iter().map(|part| of(part).as_str()).collect::<Vec<_>>().join(&format!("\n    {PLUS} "))
    };
    format!(
        "-- undo::{name}\nwith {}\nselect {} as expected,\n  {} as restored,\n  {} as rows",
        parts.iter().map(|part| part.ctes.as_str()).collect::<Vec<_>>().join(", "),
        sum(|part| &part.expected),
        sum(|part| &part.restored),
        sum(|part| &part.rows),
    )
}

const PLUS: &str = "operator(pg_catalog.+)";
const MINUS: &str = "operator(pg_catalog.-)";

/// Of the rows of `f`, those that did not exist.
const CREATED: &str = "not f.undo_existed";

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

    /// Finds the row of `from` in the table.
    fn find(&self, from: &str) -> String {
        self.target.lookup(|place| format!("{from}.{}", self.name(self.target.table.key[place])))
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
        let same = self.target.same_keys(&made, &o);
        count(&format!("{made} join {o} on {same} where {}", self.identical(&made, &o)))
    }

    /// The images of all rows, and of those that existed what they were.
    fn images(&self, number: usize) -> String {
        let f = format!("f{number}");
        format!(
            "{f} as materialized (\n{}\n), o{number} as materialized (\n{}\n)",
            self.oldest(),
            self.former(&f)
        )
    }

    fn insert(&self, o: &str, only: &str) -> String {
        let columns = join(self.target.table.stored().map(|column| self.name(column)));
        format!(
            "insert into {} ({columns}) overriding system value\n  select {} from {o} where {o}.undo_whole and {only}\n  \
             returning {columns}",
            self.target.table.sql(),
            self.stored(o),
        )
    }

    /// Deletes those rows of `f` that are `only`.
    fn gone(&self, number: usize, only: &str) -> String {
        let keys: String = match self.target.has_triggers() {
            true => {
                self.target.table.key.iter().map(|column| format!("t.{}, ", self.name(*column))).collect()
            }
            false => String::new(),
        };
        format!(
            "gone{number} as (\n  delete from {} t using f{number} f where {only} and {}\n  returning {}f.undo_existed\n)",
            self.target.table.sql(),
            self.find("f"),
            keys,
        )
    }

    /// How many of those rows are there all the same. Nothing can have kept them where there are no triggers, switched off
    /// though they are: then PostgreSQL's delete says enough.
    fn left(&self, number: usize, only: &str) -> String {
        if !self.target.has_triggers() {
            return "0".to_owned();
        }
        let same = self.target.same_keys(&format!("gone{number}"), "f");
        count(&format!(
            "f{number} f join {} t on {} where {only} and not exists (select from gone{number} where {same})",
            self.target.table.sql(),
            self.find("f"),
        ))
    }

    /// Overwrites rows that existed where they are, and inserts those that are gone. Rows that did not exist are deleted, if
    /// no other table may still reference them.
    fn overwritten(&self, number: usize) -> Part {
        let o = format!("o{number}");
        let mut ctes = format!(
            "{}, changed{number} as (\n  {}\n), made{number} as (\n  {}\n)",
            self.images(number),
            self.change(&o),
            self.insert(&o, &format!("not {o}.undo_present")),
        );
        let mut part = Part {
            ctes: String::new(),
            expected: count(&o),
            restored: format!(
                "{} {PLUS} {}",
                count(&format!("changed{number} where same")),
                self.count_made(number)
            ),
            rows: count(&o),
        };
        if self.childless {
            ctes.push_str(&format!(", {}", self.gone(number, CREATED)));
            part.rows.push_str(&format!(" {PLUS} {}", count(&format!("gone{number}"))));
            // After the delete.
            part.restored.push_str(&format!(" {MINUS} {}", self.left(number, CREATED)));
        }
        Part { ctes, ..part }
    }

    fn change(&self, o: &str) -> String {
        let table = &self.target.table;
        let set: Vec<String> = table
            .stored()
            .filter(|column| match table.key.iter().position(|key| key == column) {
                // A key is the same, but may be spelled otherwise.
                Some(place) => self.target.is_compared(place) && !table.column(*column).identity_always,
                None => true,
            })
            .map(|column| format!("{0} = {o}.{0}", self.name(column)))
            .collect();
        if set.is_empty() {
            return format!("select true as same from {o} where undo_present");
        }
        // Where it was found: nobody else can have written it meanwhile.
        let found = match table.partitioned {
            true => self.find(o),
            false => format!("t.ctid operator(pg_catalog.=) {o}.undo_at"),
        };
        format!(
            "update {} t set {}\n    from {o}\n   where {o}.undo_present and {found}\n  returning {} as same",
            table.sql(),
            set.join(", "),
            self.identical("t", o)
        )
    }

    /// Takes all rows out that were changed, and inserts those that existed again: no two ever hold the same unique value.
    fn made_afresh(&self, number: usize) -> Part {
        let o = format!("o{number}");
        let gone = count(&format!("gone{number}"));
        let ctes = format!(
            "{}, {}, made{number} as (\n  {}\n)",
            self.images(number),
            self.gone(number, "true"),
            // Not before all are out.
            self.insert(&o, &format!("{gone} operator(pg_catalog.>=) 0")),
        );
        Part {
            ctes,
            expected: count(&o),
            restored: format!("{} {MINUS} {}", self.count_made(number), self.left(number, "true")),
            rows: format!("{} {PLUS} {}", count(&o), count(&format!("gone{number} where not undo_existed"))),
        }
    }

    /// Deletes the rows that did not exist, once those that referenced them have let go.
    fn removed(&self, number: usize) -> Part {
        let ctes =
            format!("f{number} as materialized (\n{}\n), {}", self.oldest_keys(), self.gone(number, CREATED));
        let gone = count(&format!("gone{number}"));
        Part {
            ctes,
            expected: gone.clone(),
            restored: format!("{gone} {MINUS} {}", self.left(number, CREATED)),
            rows: gone,
        }
    }

    /// Forgets the images above `$1`, once they are put back.
    pub(super) fn forget(&self) -> String {
        format!("-- undo::forget\ndelete from {} where {ABOVE}", self.target.journal)
    }
}
