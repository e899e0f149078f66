//! The events of blocks, from their images: a row before a block is its image there, and after the block its next image
//! above, or the row as it is.
//!
//! One pass a table over all images above a height, row by row and each row's from the latest back, since an image may
//! hold only the columns that its block changed. The caller's transaction must see one state of the database.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::event::{Event, EventTable, Operation, Row};
use crate::block::Height;
use crate::db::DbError;
use crate::table::{KeyForm, Role, Tables, Target, join};

/// Which blocks, and how much of them at once.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Blocks above this height; -1 for all of them.
    pub above: i32,
    /// Up to this one.
    pub to: Height,
    /// Nothing is committed above that.
    pub is_last: bool,
    /// About so many bytes; blocks beyond are left out, but for the first one that has events.
    pub max_bytes: usize,
}

/// What blocks did.
#[derive(Debug, Default)]
pub struct Derived {
    /// Of each block that changed anything, in the order in which a consumer is to take them.
    pub blocks: BTreeMap<Height, Vec<Event>>,
    /// Up to where all blocks are there.
    pub to: Option<Height>,
}

/// Derives the events of blocks for these tables.
pub async fn derive(
    client: &Client,
    tables: &Tables,
    wanted: impl Fn(&str) -> bool + Sync,
    range: Range,
) -> Result<Derived, DbError> {
    let mut gathered = Gathered { range, to: range.to, blocks: BTreeMap::new(), bytes: 0 };
    let ids = tables.parents_first().flatten().copied().collect::<Vec<_>>();
    for (place, id) in ids.into_iter().enumerate() {
        let target = tables.get(id);
        if target.role == Role::Rows && wanted(&target.table.name) {
            of_table(client, target, place, &mut gathered).await?;
        }
    }
    Ok(gathered.finish())
}

async fn of_table(
    client: &Client,
    target: &Target,
    place: usize,
    gathered: &mut Gathered,
) -> Result<(), DbError> {
    let failed = || DbError::statement(format!("read the journal of `{}`", target.table.name));
    let sql = images(target, gathered.range, gathered.to);
    let mut rows = pin!(client.simple_query_raw(&sql).await.map_err(failed())?);
    let slots = target.table.stored().map(|column| target.slots[column.position()]).collect();
    let mut fold = Fold::new(Arc::new(EventTable::new(target)), slots);
    while let Some(message) = rows.try_next().await.map_err(failed())? {
        if let SimpleQueryMessage::Row(row) = message {
            let image = Image::read(&row).ok_or_else(|| damaged(target))?;
            fold.take(image, &mut |height, found| gathered.add(place, height, found));
        }
    }
    fold.end(&mut |height, found| gathered.add(place, height, found));
    Ok(())
}

fn damaged(target: &Target) -> DbError {
    DbError::Catalog(format!("the journal of `{}` cannot be read", target.table.name))
}

/// All images above a height of rows that a block up to `to` changed, and those rows as they are: each row's images go from
/// the latest back, the row itself first, and `place` numbers them from 1 on.
fn images(target: &Target, range: Range, to: Height) -> String {
    let columns: Vec<_> = target.table.stored().collect();
    let names = join(columns.iter().map(|column| target.name(*column)));
    let table = &target.table;
    let now =
        join(columns.iter().map(|column| {
            format!("t.{0}::{1} as {0}", target.name(*column), table.column(*column).type_sql)
        }));
    let key_names = target.key_names();
    let lookup = target.lookup(|place| format!("k.{}", target.name(table.key[place])));
    let touched = match range.is_last {
        true => "touched as materialized (select * from held)".to_owned(),
        false => format!(
            "low as materialized (select distinct {key_names} from held where undo_height <= {to}), \
             touched as materialized (select * from held h where exists (select from low l where {}))",
            target.same_keys("l", "h")
        ),
    };
    // One sort serves both.
    let order = "undo_height desc nulls first, undo_existed";
    let key = sorted_key(target);
    format!(
        "-- undo::derive\n\
         with held as (\n{held}\n), {touched}, rows as (\n  \
           select undo_height, undo_existed, undo_held, {names} from touched\n  \
           union all\n  \
           select null, true, null, {now} from (select distinct {key_names} from touched) k join {sql} t on {lookup}\n\
         )\n\
         select row_number() over (partition by {key} order by {order}) as place, undo_height, undo_existed, undo_held, {names} \
           from rows order by {key}, {order}",
        held = all_images(target, range.above),
        sql = table.sql(),
    )
}

/// The images above a height, a row each, with all columns that they may hold.
fn all_images(target: &Target, above: i32) -> String {
    let columns: Vec<_> = target.table.stored().collect();
    let from = format!("from {} where undo_height > {above}", target.journal);
    let names = join(columns.iter().map(|column| target.name(*column)));
    let rows = format!("  select undo_height, undo_existed, undo_held, {names} {from}");
    let packed = target.packed_key();
    let Some((first, _)) = packed.first() else { return rows };
    let unpacked = join(columns.iter().map(|column| {
        let key = packed.iter().find(|(_, place)| target.table.key[*place] == *column);
        match key {
            Some((name, _)) => format!("unnest({name})"),
            None => format!("null::{}", target.table.column(*column).type_sql),
        }
    }));
    format!(
        "{rows} and {first} is null\n  union all\n  \
         select undo_height, undo_existed, undo_held, {unpacked} {from} and {first} is not null"
    )
}

/// The key, to sort by: texts by their bytes, where these tell them apart.
fn sorted_key(target: &Target) -> String {
    let columns = target.table.key.iter().zip(&target.key_forms).map(|(column, form)| {
        let collate = if matches!(form, KeyForm::Text { .. }) { " collate \"C\"" } else { "" };
        format!("{}{collate}", target.name(*column))
    });
    join(columns)
}

/// A row of the query: an image, or the row as it is.
struct Image {
    /// The first of its row's.
    is_first: bool,
    /// `None` for the row as it is.
    height: Option<i32>,
    existed: bool,
    /// The bits of the columns that it holds; all where there are none.
    held: Option<Vec<u8>>,
    values: Row,
}

impl Image {
    fn read(row: &SimpleQueryRow) -> Option<Image> {
        let held = match row.get(3) {
            None => None,
            Some(text) => Some(hex::decode(text.strip_prefix("\\x")?).ok()?),
        };
        Some(Image {
            is_first: row.get(0)? == "1",
            height: row.get(1).map(str::parse).transpose().ok()?,
            existed: row.get(2)? == "t",
            held,
            values: Row::new((4..row.len()).map(|column| row.get(column))),
        })
    }
}

/// Goes back through a row's images, and says what each block did to it.
struct Fold {
    table: Arc<EventTable>,
    /// Each column's bit in `held`.
    slots: Vec<u16>,
    /// What the row was before the images that were seen.
    row: Option<Row>,
    /// What one block made of it, as far as its images were seen.
    block: Option<(i32, Option<Row>)>,
}

impl Fold {
    fn new(table: Arc<EventTable>, slots: Vec<u16>) -> Fold {
        Fold { table, slots, row: None, block: None }
    }

    fn take(&mut self, image: Image, found: &mut impl FnMut(i32, Found)) {
        if image.is_first {
            self.end(found);
            self.row = None;
        }
        let Some(height) = image.height else {
            self.row = Some(image.values);
            return;
        };
        // A row that a block deleted and made again has two images: of before the block, and of its absence in between.
        if self.block.as_ref().is_some_and(|(of, _)| *of != height) {
            self.end_block(found);
        }
        if self.block.is_none() {
            self.block = Some((height, self.row.clone()));
        }
        self.row = match (image.existed, image.held) {
            (false, _) => None,
            (true, None) => Some(image.values),
            (true, Some(held)) => Some(self.overlaid(&image.values, &held)),
        };
    }

    /// The row, but for the columns that an image holds.
    fn overlaid(&self, image: &Row, held: &[u8]) -> Row {
        let is_held =
            |slot: u16| held.get(usize::from(slot / 8)).is_some_and(|byte| byte >> (slot % 8) & 1 == 1);
        let columns = self.slots.iter().enumerate().map(|(column, slot)| match is_held(*slot) {
            true => image.get(column),
            false => self.row.as_ref().and_then(|row| row.get(column)),
        });
        Row::new(columns)
    }

    /// Ends a row, whose events are all known then.
    fn end(&mut self, found: &mut impl FnMut(i32, Found)) {
        self.end_block(found);
    }

    fn end_block(&mut self, found: &mut impl FnMut(i32, Found)) {
        let Some((height, after)) = self.block.take() else { return };
        let before = self.row.clone();
        let event = |before, after| Event { table: Arc::clone(&self.table), before, after };
        match (before, after) {
            (before, after) if before == after => {}
            (Some(before), Some(after)) if self.is_respelled(&before, &after) => {
                found(height, Found::Respelled([event(Some(before), None), event(None, Some(after))]));
            }
            (before, after) => found(height, Found::One(event(before, after))),
        }
    }

    /// Whether the key's text has changed, though the key is the same: `1.0` and `1.00`. Consumers know rows by the text.
    fn is_respelled(&self, before: &Row, after: &Row) -> bool {
        self.table.key.iter().any(|place| before.get(*place) != after.get(*place))
    }
}

/// What a block did to a row.
enum Found {
    One(Event),
    /// It deleted the row and made it again under a key that is spelled otherwise.
    Respelled([Event; 2]),
}

/// Events by block, with their tables' places in the order of references, and whether they take rows out at the end.
struct Gathered {
    range: Range,
    /// Blocks above are left out.
    to: Height,
    blocks: BTreeMap<i32, Vec<(usize, bool, Event)>>,
    bytes: usize,
}

impl Gathered {
    fn add(&mut self, place: usize, height: i32, found: Found) {
        if height > self.to.to_sql() {
            return;
        }
        let block = self.blocks.entry(height).or_default();
        let mut push = |is_gone, event: Event| {
            self.bytes += event.bytes();
            block.push((place, is_gone, event));
        };
        match found {
            Found::One(event) => push(event.operation() == Operation::Delete, event),
            Found::Respelled(events) => events.into_iter().for_each(|event| push(false, event)),
        }
        while self.bytes > self.range.max_bytes && self.blocks.len() > 1 {
            let Some((highest, events)) = self.blocks.pop_last() else { break };
            self.bytes -= events.iter().map(|(_, _, event)| event.bytes()).sum::<usize>();
            self.to = Height::from_sql(highest - 1).unwrap_or(self.to);
        }
    }

    fn finish(self) -> Derived {
        let blocks = self.blocks.into_iter().filter_map(|(height, mut events)| {
            // Rows go into referenced tables before those that reference them, and out of them after.
            events.sort_by_key(|(place, is_gone, _)| {
                let place = i64::try_from(*place).unwrap_or(i64::MAX);
                (*is_gone, if *is_gone { -place } else { place })
            });
            Some((Height::from_sql(height)?, events.into_iter().map(|(_, _, event)| event).collect()))
        });
        Derived { blocks: blocks.collect(), to: Some(self.to) }
    }
}
