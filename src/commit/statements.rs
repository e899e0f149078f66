//! The statements that a block is made of, as text: set-based, a few plain shapes for every table.
//!
//! Names come from the catalog and pass `quote`; values are always bound, as one array of texts a column.
//! `v` is always the rows that were bound, `t` the table.
//!
//! What a block does to rows is journaled by the statement that does it, which knows whether they exist; of rows that did
//! not, what was really inserted. That every row was written is checked by the statement itself.

use super::plan::{Action, Images, Shape};
use crate::db::catalog::{ColumnId, Table};
use crate::table::{Tables, Target, cast, join};

/// PostgreSQL's select lists have 1,664 entries at most.
const MAX_ENTRIES: usize = 1_600;

impl Shape {
    pub(super) fn sql(&self, tables: &Tables) -> String {
        let target = tables.get(self.table);
        let rows = Rows::new(target, self);
        match self.action {
            Action::Delete => rows.delete(),
            Action::Put if self.is_upsert(target) => rows.upsert(),
            Action::Put | Action::Replace => rows.put(),
        }
    }

    /// Whether nothing is to be journaled, every column is there for a row that may be new, and nothing tells a plain
    /// `on conflict` from what is done where a journal is kept.
    fn is_upsert(&self, target: &Target) -> bool {
        self.images == Images::None
            && target.has_arbiter()
            && target.is_order_free()
            // Such a statement's plan does not know the partitions, nor what triggers they get.
            && !target.table.partitioned
            && !self.values.is_empty()
            && target.values().eq(self.values.iter().copied())
    }
}

/// Statements for rows that are bound to them as arrays.
struct Rows<'a> {
    target: &'a Target,
    action: Action,
    /// The columns that are bound, the key's first.
    columns: Vec<ColumnId>,
    /// The columns that are set to their defaults.
    others: Vec<ColumnId>,
    images: Images,
    /// The columns that are journaled of rows that are found.
    journaled: Vec<ColumnId>,
}

impl<'a> Rows<'a> {
    fn new(target: &'a Target, shape: &Shape) -> Rows<'a> {
        let columns: Vec<ColumnId> = target.table.key.iter().chain(&*shape.values).copied().collect();
        let others = match shape.action {
            Action::Replace => target.values().filter(|column| !columns.contains(column)).collect(),
            Action::Delete | Action::Put => Vec::new(),
        };
        let journaled = match (shape.images, shape.action) {
            (Images::None | Images::Made, _) => Vec::new(),
            (Images::Set, Action::Put) => {
                target.table.stored().filter(|column| columns.contains(column)).collect()
            }
            (Images::Set | Images::Whole, _) => target.table.stored().collect(),
        };
        Rows { target, action: shape.action, columns, others, images: shape.images, journaled }
    }

    fn table(&self) -> &'a Table {
        &self.target.table
    }

    /// `(select …casts… from rows from (unnest($1), …)) v`, its columns named `c0`, `c1`, ….
    fn from(&self) -> String {
        let columns = self.columns.iter().enumerate();
        let casts = columns
            .map(|(index, column)| format!("{} as c{index}", cast(self.table().column(*column), index)));
        let arrays =
            (1..=self.columns.len()).map(|number| format!("pg_catalog.unnest(${number}::pg_catalog.text[])"));
        let names = (0..self.columns.len()).map(|index| format!("c{index}"));
        format!("(select {} from rows from ({}) as u ({})) v", join(casts), join(arrays), join(names))
    }

    fn same_key(&self) -> String {
        self.target.lookup(|place| format!("v.c{place}"))
    }

    /// The block's height, the parameter behind the arrays.
    fn height(&self) -> String {
        format!("${}::pg_catalog.int4", self.columns.len() + 1)
    }

    /// Raises an error unless as many rows were written as were bound, and by no trigger that is not known. No row is the
    /// result.
    fn all_written(&self, written: &str) -> String {
        format!(
            "select debshrew.rows_missing({}, n.expected, n.written) from (\n  \
               select pg_catalog.cardinality($1::pg_catalog.text[])::pg_catalog.int8 as expected, {written} as written\n\
             ) n where n.expected operator(pg_catalog.<>) n.written and {}",
            literal(&self.table().name),
            self.no_new_trigger()
        )
    }

    /// Raises an error when the statement is planned and the table has a trigger that it did not have when it was looked at.
    /// A foreign key has some as well, on both sides.
    fn no_new_trigger(&self) -> String {
        let known: Vec<String> = self.table().trigger_oids.iter().map(u32::to_string).collect();
        format!(
            "debshrew.has_only_triggers({}::pg_catalog.oid, '{{{}}}'::pg_catalog.oid[])",
            self.table().oid,
            known.join(",")
        )
    }

    /// Stores what these rows hold in `columns` of `from`, which are those that are journaled.
    fn journal_images(&self, columns: impl Iterator<Item = String>, from: &str) -> String {
        let held = self.target.held(&self.journaled);
        let (held_name, held) = match held {
            None => ("", String::new()),
            Some(bits) => (", undo_held", format!(", '\\x{}'::pg_catalog.bytea", hex::encode(bits))),
        };
        format!(
            "insert into {} (undo_height, undo_existed{held_name}, {})\n  select {}, true{held}, {} from {from}",
            self.target.journal,
            join(self.journaled.iter().map(|column| self.target.name(*column))),
            self.height(),
            join(columns),
        )
    }

    /// Stores the keys of the rows that were made: all in one row, if there can be arrays of them.
    fn journal_absent(&self) -> String {
        let packed: Vec<(String, usize)> = self.target.packed_key();
        let (names, keys, only) = if packed.is_empty() {
            let keys = (0..self.table().key.len()).map(|place| format!("c{place}"));
            (self.target.key_names(), join(keys), "")
        } else {
            (
                join(packed.iter().map(|(name, _)| name.clone())),
                join(packed.iter().map(|(_, place)| format!("pg_catalog.array_agg(c{place})"))),
                " having pg_catalog.count(*) operator(pg_catalog.>) 0",
            )
        };
        format!(
            "insert into {} (undo_height, undo_existed, {names})\n  select {}, false, {keys} from made{only}",
            self.target.journal,
            self.height(),
        )
    }

    /// Deletes the rows. A row that a trigger keeps stays, as it would with plain SQL. A rule that would do something else
    /// instead is an error inside `with`.
    fn delete(&self) -> String {
        let delete = format!(
            "delete from {} t\n using {}\n where {}",
            self.table().sql(),
            self.from(),
            self.same_key()
        );
        if self.journaled.is_empty() {
            // What is returned keeps rules out that would do something else for some rows only.
            let check = self.no_new_trigger();
            return format!(
                "-- commit::delete\nwith gone as (\n{delete}\nreturning 1\n)\nselect where {check}"
            );
        }
        let held = || self.journaled.iter().map(|column| self.target.name(*column));
        format!(
            "-- commit::delete\nwith gone as (\n{delete}\nreturning {}\n)\n{} where {}",
            join(held().map(|name| format!("t.{name}"))),
            self.journal_images(held(), "gone"),
            self.no_new_trigger(),
        )
    }

    /// Inserts the rows, or sets the columns that are bound in those that exist. PostgreSQL checks
    /// `not null` before it sees the conflict, so this takes all columns; and it keeps no journal. There is no trigger that
    /// could keep a row out; a rule that would is an error, inside `with` or beside `on conflict`.
    fn upsert(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| self.target.name(*column)).collect();
        let values = names[self.table().key.len()..].iter();
        format!(
            "-- commit::upsert\nwith put as (\n  insert into {} ({}) overriding system value\n  select {} from {}\n  \
             on conflict ({}) do update set {}\n)\nselect where {}",
            self.table().sql(),
            names.join(", "),
            join((0..self.columns.len()).map(|index| format!("v.c{index}"))),
            self.from(),
            self.target.key_names(),
            join(values.map(|name| format!("{name} = excluded.{name}"))),
            self.no_new_trigger(),
        )
    }

    /// Sets the columns that are bound in those rows that exist, and inserts the rows that do not.
    ///
    /// Each row is looked up once for all of that; `on conflict` would look it up again beside the journal's
    /// statement, and locks it. What exists is updated first: a row that is new may take a unique value from it.
    fn put(&self) -> String {
        let table = self.table();
        let name = |column: &ColumnId| self.target.name(*column);
        // A row of many columns is looked up once more for its image.
        let wide = self.columns.len() + self.journaled.len() >= MAX_ENTRIES;
        let held = if wide { &[][..] } else { &self.journaled };
        let held: String =
            held.iter().map(|column| format!(", t.{0} as o{1}", name(column), column.position())).collect();
        format!(
            "-- commit::put\nwith v as materialized (\n  select v.*, t.tableoid is not null as existed{held}\n    \
             from {}\n    left join {} t on {}\n), changed as (\n  {}\n), made as (\n  \
             insert into {} ({}) overriding system value\n  select {} from v where not existed\n  returning {}\n){}\n{}",
            self.from(),
            table.sql(),
            self.same_key(),
            self.change(),
            table.sql(),
            join(self.columns.iter().map(name)),
            join((0..self.columns.len()).map(|index| format!("c{index}"))),
            join((0..).zip(&table.key).map(|(place, column)| format!("{} as c{place}", name(column)))),
            self.journal(wide),
            self.all_written(&format!(
                "{} operator(pg_catalog.+) {}",
                self.count_changed(),
                self.count_made()
            )),
        )
    }

    /// The parts that journal.
    fn journal(&self, wide: bool) -> String {
        let absent = format!(", absent as (\n  {}\n)", self.journal_absent());
        match self.images {
            Images::None => return String::new(),
            Images::Made => return absent,
            Images::Set | Images::Whole => {}
        }
        let images = if wide {
            let held = self.journaled.iter().map(|column| format!("t.{}", self.target.name(*column)));
            let from = format!("v join {} t on {} where v.existed", self.table().sql(), self.same_key());
            self.journal_images(held, &from)
        } else {
            let held = self.journaled.iter().map(|column| format!("o{}", column.position()));
            self.journal_images(held, "v where existed")
        };
        format!(", images as (\n  {images}\n){absent}")
    }

    /// Updates what exists; where triggers fire, `kept` says whether the row still has its key.
    fn change(&self) -> String {
        let keys = self.table().key.len();
        let given = (0..).zip(&self.columns).skip(keys);
        let mut sets: Vec<String> =
            given.map(|(index, column)| format!("{} = v.c{index}", self.target.name(*column))).collect();
        sets.extend(self.others.iter().map(|column| format!("{} = default", self.target.name(*column))));
        if self.action == Action::Replace {
            // A row that was deleted and made again has its key as the second spelled it.
            sets.extend(
                self.respelled()
                    .map(|place| format!("{} = v.c{place}", self.target.name(self.table().key[place]))),
            );
        }
        if sets.is_empty() {
            return "select true as kept from v where existed".to_owned();
        }
        let kept = match self.target.has_triggers() {
            true => {
                let same =
                    self.target.matches(|place, column, equals| format!("{column} {equals} v.c{place}"));
                format!("{same} as kept")
            }
            false => "1".to_owned(),
        };
        format!(
            "update {} t set {}\n    from v\n   where v.existed and {}\n  returning {kept}",
            self.table().sql(),
            sets.join(", "),
            self.same_key()
        )
    }

    /// Places in the key whose values may be equal and yet not the same.
    fn respelled(&self) -> impl Iterator<Item = usize> + '_ {
        let target = self.target;
        let own = |place: &usize| !target.table.column(target.table.key[*place]).identity_always;
        (0..target.table.key.len()).filter(|place| target.is_compared(*place)).filter(own)
    }

    fn count_changed(&self) -> &'static str {
        match self.target.has_triggers() {
            true => "(select pg_catalog.count(*) from changed where kept)",
            false => "(select pg_catalog.count(*) from changed)",
        }
    }

    /// How many rows were made under the key that was bound.
    fn count_made(&self) -> String {
        if !self.target.has_triggers() {
            return "(select pg_catalog.count(*) from made)".to_owned();
        }
        let same = self.target.matches(|place, _, equals| format!("v.c{place} {equals} made.c{place}"));
        format!("(select pg_catalog.count(*) from made where exists (select from v where {same}))")
    }
}

/// A name as a text of SQL.
fn literal(name: &str) -> String {
    format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "''"))
}
