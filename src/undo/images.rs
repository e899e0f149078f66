//! What the journals hold above a height: of which tables there are images, and of which columns.
//!
//! An image holds all columns of a row or, of a row that was there before and after, those that the block set. So a row's
//! columns as they were are to be looked for one by one: each in the oldest image that holds it, and where none does, in
//! the row itself, which no block has changed there. One pass over the images finds them all, since there may be as many
//! column sets as images.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::db::DbError;
use crate::db::catalog::ColumnId;
use crate::table::{TableId, Tables, Target, join};

/// A table with images, and how its columns are to be looked for.
pub(super) struct Journaled<'a> {
    pub(super) target: &'a Target,
    /// No other table references it, so that rows can be taken out whenever others are put back.
    pub(super) childless: bool,
    /// Columns that every image of a row that existed holds.
    pub(super) always: Vec<ColumnId>,
    /// The others, which only some do.
    sometimes: Vec<ColumnId>,
}

/// The images that are undone. Statements that change rows see names of the user's, so theirs have schemas.
pub(super) const ABOVE: &str = "undo_height operator(pg_catalog.>) $1::pg_catalog.int4";

/// The tables with images above a height, by family.
pub(super) async fn above<'a>(
    client: &Client,
    tables: &'a Tables,
    height: i32,
) -> Result<Vec<Vec<Journaled<'a>>>, DbError> {
    let ids: Vec<TableId> = tables.parents_first().flatten().copied().collect();
    let parts = ids.iter().enumerate().map(|(index, id)| {
        format!(
            "select {index} as place, undo_held from {} where {ABOVE} group by undo_held",
            tables.get(*id).journal
        )
    });
    let sql = format!("-- undo::images::above\n{}", parts.collect::<Vec<_>>().join("\nunion all\n"));
    let rows =
        client.query(&sql, &[&height]).await.map_err(DbError::statement("see what the journals hold"))?;
    let mut held: BTreeMap<TableId, Vec<Vec<u8>>> = BTreeMap::new();
    for row in &rows {
        let place = usize::try_from(row.get::<_, i32>("place")).unwrap_or_default();
        held.entry(ids[place]).or_default().extend(row.get::<_, Option<Vec<u8>>>("undo_held"));
    }
    let journaled = |id: &TableId| {
        let target = tables.get(*id);
        held.get(id).map(|held| Journaled::new(target, is_childless(target, tables), held))
    };
    let families = tables.parents_first().map(|family| family.iter().filter_map(journaled).collect());
    Ok(families.filter(|family: &Vec<Journaled<'_>>| !family.is_empty()).collect())
}

impl<'a> Journaled<'a> {
    /// `held`: the different values of `undo_held` in its images, but for null.
    fn new(target: &'a Target, childless: bool, held: &[Vec<u8>]) -> Journaled<'a> {
        let held_by_all = |column: &ColumnId| {
            let slot = target.slots[column.position()];
            held.iter().all(|bits| is_set(bits, slot))
        };
        let (always, sometimes) = target.table.stored().partition(held_by_all);
        Journaled { target, childless, always, sometimes }
    }

    fn names(&self, columns: &[ColumnId]) -> String {
        columns.iter().map(|column| format!(", {}", self.target.name(*column))).collect()
    }

    /// Each row's oldest image above `$1`: its key, `undo_existed`, and what the row was at that height, as far as that image
    /// holds it. A row that a block deleted and made again has an image from before and was absent in between.
    pub(super) fn oldest(&self) -> String {
        self.oldest_with(&self.beside_key())
    }

    /// The same with the keys alone.
    pub(super) fn oldest_keys(&self) -> String {
        self.oldest_with(&[])
    }

    fn oldest_with(&self, columns: &[ColumnId]) -> String {
        let key = self.target.key_names();
        format!(
            "select distinct on ({key}) {key}, undo_existed{} from (\n  {}\n) held \
             order by {key}, undo_height, undo_existed desc",
            self.names(columns),
            self.held(columns)
        )
    }

    /// The columns of the oldest image that count.
    fn beside_key(&self) -> Vec<ColumnId> {
        self.always.iter().filter(|column| !self.target.table.key.contains(column)).copied().collect()
    }

    /// All images above `$1`, a row each, with their keys and these columns.
    fn held(&self, columns: &[ColumnId]) -> String {
        let target = self.target;
        let columns: Vec<ColumnId> = target.table.key.iter().chain(columns).copied().collect();
        let rows = format!(
            "select undo_height, undo_existed, {} from {} where {ABOVE}",
            join(columns.iter().map(|column| target.name(*column))),
            target.journal
        );
        let packed = target.packed_key();
        let Some((first, _)) = packed.first() else { return rows };
        let key = |column| packed.iter().find(|(_, place)| target.table.key[*place] == column);
        // Not in `from`, where it spreads composites over columns.
        let unpacked = columns.iter().map(|column| match key(*column) {
            Some((name, _)) => format!("pg_catalog.unnest({name})"),
            None => format!("null::{}", target.table.column(*column).type_sql),
        });
        format!(
            "{rows} and {first} is null\n  union all\n  select undo_height, undo_existed, {}\n    \
             from {} where {ABOVE} and {first} is not null",
            join(unpacked),
            target.journal,
        )
    }

    /// Each of the rows of `oldest` that existed, with every column as it was: its key, `undo_present` (whether it is there
    /// now), `undo_at` (where, if one place is enough to say it), `undo_whole` (whether all of it is known) and the others.
    pub(super) fn former(&self, oldest: &str) -> String {
        let target = self.target;
        let name = |column: &ColumnId| target.name(*column);
        let mut columns: Vec<String> =
            target.table.key.iter().map(|column| format!("f.{}", name(column))).collect();
        columns.push("t.tableoid is not null as undo_present".into());
        if !target.table.partitioned {
            columns.push("t.ctid as undo_at".into());
        }
        // What no image holds is in the row itself; if that is gone, somebody else has deleted it.
        columns.push(format!("t.tableoid is not null or {} as undo_whole", self.all_held()));
        columns.extend(self.beside_key().iter().map(|column| format!("f.{}", name(column))));
        let now =
            |column: &ColumnId| format!("t.{}::{}", name(column), target.table.column(*column).type_sql);
        columns.extend(self.sometimes.iter().map(|column| {
            let held = self.is_gathered("k.undo_held", *column);
            format!("case when {held} then k.{0} else {1} end as {0}", name(column), now(column))
        }));
        let gathered = match self.sometimes.is_empty() {
            true => String::new(),
            false => {
                format!("\n  left join (\n{}\n  ) k on {}", self.gathered(), target.same_keys("k", "f"))
            }
        };
        format!(
            "select {}\n  from (select * from {oldest} where undo_existed) f{gathered}\n  left join {} t on {}",
            columns.join(", "),
            target.table.sql(),
            target.lookup(|place| format!("f.{}", name(&target.table.key[place]))),
        )
    }

    /// Of each row the columns that not every image holds, each from the oldest image that does: its key, the columns, and
    /// `undo_held`, which tells the columns that any image holds.
    ///
    /// Each image is left with the bits that no older one of its row has. So of each column one image counts at most, and
    /// it can be of any type, and null.
    fn gathered(&self) -> String {
        let key = self.target.key_names();
        let columns = self.names(&self.sometimes);
        let bits = format!("pg_catalog.bit({})", self.bits());
        let values = self.sometimes.iter().map(|column| {
            let counts = self.is_gathered("undo_held", *column);
            format!(", debshrew.only_value({0}) filter (where {counts}) as {0}", self.target.name(*column))
        });
        format!(
            "    select {key}, pg_catalog.bit_or(undo_held) as undo_held{}\n    from (\n      \
               select {key}, undo_held operator(pg_catalog.&) operator(pg_catalog.~) coalesce(\n          \
                 pg_catalog.bit_or(undo_held) over (partition by {key} order by undo_height \
                 rows between unbounded preceding and 1 preceding), B'0'::{bits}) as undo_held{columns}\n      from (\n        \
                 select {key}, undo_height, case when undo_held is null then operator(pg_catalog.~) B'0'::{bits} \
                 else ('x' operator(pg_catalog.||) pg_catalog.encode(undo_held, 'hex'))::{bits} end as undo_held{columns}\n        \
                 from {} where {ABOVE} and undo_existed\n      ) image\n    ) image\n    \
             where undo_held operator(pg_catalog.<>) B'0'::{bits} group by {key}",
            values.collect::<String>(),
            self.target.journal,
        )
    }

    /// How many bits of `undo_held` there are to look at.
    fn bits(&self) -> usize {
        let last = self.sometimes.iter().map(|column| self.target.slots[column.position()]).max();
        (usize::from(last.unwrap_or_default()) / 8 + 1) * 8
    }

    /// Whether a bit string that was made of `undo_held` has a column's bit. Such strings begin with a byte's highest bit.
    fn is_gathered(&self, bits: &str, column: ColumnId) -> String {
        let slot = self.target.slots[column.position()];
        format!("pg_catalog.get_bit({bits}, {}) operator(pg_catalog.=) 1", slot / 8 * 8 + 7 - slot % 8)
    }

    /// Whether images hold all of a row.
    fn all_held(&self) -> String {
        let held = self.sometimes.iter().map(|column| self.is_gathered("k.undo_held", *column));
        let held = held.collect::<Vec<_>>().join(" and ");
        if held.is_empty() { "true".to_owned() } else { format!("coalesce({held}, false)") }
    }
}

fn is_childless(target: &Target, tables: &Tables) -> bool {
    let others = tables.all().iter().filter(|other| other.table.oid != target.table.oid);
    others.flat_map(|other| &other.table.foreign_keys).all(|key| key.references != target.table.oid)
}

fn is_set(bits: &[u8], slot: u16) -> bool {
    bits.get(usize::from(slot / 8)).is_some_and(|byte| byte >> (slot % 8) & 1 == 1)
}
