//! What the journals hold above a height: of which tables there are images, and of which columns.
//!
//! An image holds all columns of a row or, of a row that was there before and after, those that the block set. So a row's
//! columns as they were are to be looked for one by one: each in the oldest image that holds it, and where none does, in
//! the row itself, which no block has changed there. Columns that are held by the same images are looked for together.

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
    /// The others: in groups that the same images hold, each with a bit of `undo_held` that tells which.
    pub(super) groups: Vec<(u16, Vec<ColumnId>)>,
}

/// The tables with images above a height, by family.
pub(super) async fn above<'a>(
    client: &Client,
    tables: &'a Tables,
    height: i32,
) -> Result<Vec<Vec<Journaled<'a>>>, DbError> {
    let ids: Vec<TableId> = tables.parents_first().flatten().copied().collect();
    let parts = ids.iter().enumerate().map(|(index, id)| {
        format!(
            "select {index} as place, undo_held from {} where undo_height > $1::pg_catalog.int4 group by undo_held",
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
        let mut always = Vec::new();
        let mut groups: BTreeMap<Vec<bool>, (u16, Vec<ColumnId>)> = BTreeMap::new();
        for column in target.table.stored() {
            let slot = target.slots[column.position()];
            let by: Vec<bool> = held.iter().map(|bits| is_set(bits, slot)).collect();
            if by.iter().all(|held| *held) {
                always.push(column);
            } else {
                groups.entry(by).or_insert_with(|| (slot, Vec::new())).1.push(column);
            }
        }
        Journaled { target, childless, always, groups: groups.into_values().collect() }
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
            "select undo_height, undo_existed, {} from {} where undo_height > $1::pg_catalog.int4",
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
             from {} where undo_height > $1::pg_catalog.int4 and {first} is not null",
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
        let held = (0..self.groups.len()).map(|number| format!("k{number}.undo_held is not null"));
        let held = held.collect::<Vec<_>>().join(" and ");
        let held = if held.is_empty() { "true".to_owned() } else { held };
        columns.push(format!("t.tableoid is not null or ({held}) as undo_whole"));
        columns.extend(self.beside_key().iter().map(|column| format!("f.{}", name(column))));
        let mut joins = String::new();
        for (number, (slot, group)) in self.groups.iter().enumerate() {
            joins.push_str(&format!(
                "\n  left join ({}) k{number} on {}",
                self.group(*slot, group),
                self.target.same_keys(&format!("k{number}"), "f")
            ));
            columns.extend(group.iter().map(|column| {
                let now = format!("t.{}::{}", name(column), target.table.column(*column).type_sql);
                format!(
                    "case when k{number}.undo_held then k{number}.{0} else {now} end as {0}",
                    name(column)
                )
            }));
        }
        format!(
            "select {}\n  from (select * from {oldest} where undo_existed) f{joins}\n  left join {} t on {}",
            columns.join(", "),
            target.table.sql(),
            target.lookup(|place| format!("f.{}", name(&target.table.key[place]))),
        )
    }

    /// Each row's oldest image that holds this group.
    fn group(&self, slot: u16, group: &[ColumnId]) -> String {
        let key = self.target.key_names();
        format!(
            "select distinct on ({key}) {key}, true as undo_held{} from {} \
             where undo_height > $1::pg_catalog.int4 and undo_existed and {} order by {key}, undo_height",
            self.names(group),
            self.target.journal,
            self.target.is_held(slot)
        )
    }
}

fn is_childless(target: &Target, tables: &Tables) -> bool {
    let others = tables.all().iter().filter(|other| other.table.oid != target.table.oid);
    others.flat_map(|other| &other.table.foreign_keys).all(|key| key.references != target.table.oid)
}

fn is_set(bits: &[u8], slot: u16) -> bool {
    bits.get(usize::from(slot / 8)).is_some_and(|byte| byte >> (slot % 8) & 1 == 1)
}
