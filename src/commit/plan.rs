//! From a block's changes to the statements that are sent, in an order that constraints allow.
//!
//! Pure: what is sent is decided here, sending it is the transaction's. A plan is made once and owns what it sends.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::order::Order;
use super::parameters::{ELEMENT_BYTES, TextArray};
use super::{CommitError, Journaling, MAX_MESSAGE_BYTES};
use crate::db::catalog::ColumnId;
use crate::table::{ChangeSet, Datum, Emitted, Key, Net, NetRow, TableId, Tables, Target, Touch};

/// One statement: what it does to which table, with which columns bound.
///
/// Two steps with equal shapes have equal SQL, so that it is prepared once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) table: TableId,
    pub(super) action: Action,
    /// Columns beside the key that are bound.
    pub(super) values: Box<[ColumnId]>,
    pub(super) images: Images,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Delete,
    /// Sets the columns that are bound, in a row that exists or in a new one.
    Put,
    /// Sets the columns that are not bound to their defaults, besides.
    Replace,
}

/// What a statement journals of the rows that it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Images {
    /// Nothing.
    None,
    /// The keys of rows that it makes.
    Made,
    /// Those, and of rows that it finds the key and the columns that it sets.
    Set,
    /// The same with all columns: a trigger may change any of them, or later changes of the block may.
    Whole,
}

impl Action {
    /// For messages: "PostgreSQL refused to … table".
    pub(super) fn doing(self) -> &'static str {
        match self {
            Action::Delete => "delete from",
            Action::Put | Action::Replace => "insert into or update",
        }
    }
}

/// A statement and its values: one array a bound column, the key's columns first.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) shape: Shape,
    pub(super) arrays: Vec<TextArray>,
}

/// The most bytes of values that one statement is sent with, a single row's aside.
const MAX_STATEMENT_BYTES: usize = 128 << 20;

/// The statements that change the tables, and journal what they find there.
pub(super) fn steps(
    tables: &Tables,
    changes: &ChangeSet,
    journaling: Journaling,
    order: Order,
) -> Result<Vec<Step>, CommitError> {
    match order {
        Order::Sets => in_sets(tables, changes, journaling),
        Order::Emission => {
            let changes = changes.in_order();
            changes.into_iter().map(|change| one(tables, change, journaling)).collect()
        }
    }
}

/// Rows of tables with unique values beside the key are deleted first, so that others may take their values.
/// Other deletes come last, so that whatever referenced a row has let go of it before. Rows are put into the
/// tables that are referenced before those that reference them, and deleted the other way.
fn in_sets(tables: &Tables, changes: &ChangeSet, journaling: Journaling) -> Result<Vec<Step>, CommitError> {
    let by_table: BTreeMap<TableId, &IndexMap<Key, NetRow>> = changes.tables().collect();
    let touched: Vec<Rewrite<'_>> = tables
        .parents_first()
        .flatten()
        .filter_map(|table| {
            let rows = *by_table.get(table)?;
            Some(Rewrite { table: *table, target: tables.get(*table), rows, journaling })
        })
        .collect();
    let mut steps = Vec::new();
    for table in touched.iter().rev().filter(|table| table.target.deletes_first()) {
        table.delete(|net| !matches!(net, Net::Upsert(_)), &mut steps)?;
    }
    for table in &touched {
        table.put(&mut steps)?;
    }
    for table in touched.iter().rev().filter(|table| !table.target.deletes_first()) {
        table.delete(|net| matches!(net, Net::Delete), &mut steps)?;
    }
    Ok(steps)
}

/// The statement of one change. The row's first change in the block journals it; what it was before the others is the
/// block's own.
fn one(tables: &Tables, change: Emitted<'_>, journaling: Journaling) -> Result<Step, CommitError> {
    let target = tables.get(change.table);
    let images = match (journaling, change.touch, change.values) {
        (Journaling::Skipped, _, _) | (_, Touch::Again, None) => Images::None,
        (Journaling::Kept, Touch::Only, _) if !target.has_triggers() => Images::Set,
        (Journaling::Kept, Touch::Only | Touch::First, _) => Images::Whole,
        // What it finds is the block's own; but the change before may have found nothing.
        (Journaling::Kept, Touch::Again, Some(_)) => Images::Made,
    };
    let (action, values) = match change.values {
        None => (Action::Delete, &[][..]),
        Some(values) => (Action::Put, values),
    };
    // A column occurs once in a change, and shapes have their columns in order.
    let mut values: Vec<&(ColumnId, Datum)> = values.iter().collect();
    values.sort_unstable_by_key(|(column, _)| *column);
    check_size(target, change.key, values.iter().copied())?;
    let shape = Shape {
        table: change.table,
        action,
        values: values.iter().map(|(column, _)| *column).collect(),
        images,
    };
    let single = |text: Option<&str>| {
        let mut array = TextArray::default();
        array.push(text);
        array
    };
    let keys = change.key.iter().map(|text| single(Some(text)));
    let arrays = keys.chain(values.iter().map(|(_, datum)| single(datum.as_deref()))).collect();
    Ok(Step { shape, arrays })
}

/// What becomes of one table's rows.
struct Rewrite<'a> {
    table: TableId,
    target: &'a Target,
    rows: &'a IndexMap<Key, NetRow>,
    journaling: Journaling,
}

/// A row's key and the columns that it sets.
type Set<'a> = (&'a Key, &'a [(ColumnId, Datum)]);

impl Rewrite<'_> {
    fn images(&self) -> Images {
        match self.journaling {
            Journaling::Skipped => Images::None,
            Journaling::Kept if self.target.has_triggers() => Images::Whole,
            Journaling::Kept => Images::Set,
        }
    }

    fn delete(&self, gone: impl Fn(&Net) -> bool, steps: &mut Vec<Step>) -> Result<(), CommitError> {
        let gone = self.rows.iter().filter(|(_, row)| gone(&row.net));
        self.steps(Action::Delete, &[], gone.map(|(key, _)| (key, &[][..])).collect(), steps)
    }

    fn put(&self, steps: &mut Vec<Step>) -> Result<(), CommitError> {
        // Rows that set the same columns go together.
        let mut groups: IndexMap<(Action, Vec<ColumnId>), Vec<Set<'_>>> = IndexMap::new();
        for (key, row) in self.rows {
            let (values, action) = match &row.net {
                Net::Delete => continue,
                Net::Replace(values) if !self.target.deletes_first() => (values, Action::Replace),
                // What had to be replaced has been deleted.
                Net::Upsert(values) | Net::Replace(values) => (values, Action::Put),
            };
            let columns: Vec<ColumnId> = values.iter().map(|(column, _)| *column).collect();
            groups.entry((action, columns)).or_default().push((key, values));
        }
        for ((action, columns), rows) in groups {
            self.steps(action, &columns, rows, steps)?;
        }
        Ok(())
    }

    /// By key, where the order makes no other difference: neighbours in the key's index are near one another then.
    fn steps(
        &self,
        action: Action,
        columns: &[ColumnId],
        mut rows: Vec<Set<'_>>,
        steps: &mut Vec<Step>,
    ) -> Result<(), CommitError> {
        if self.target.is_order_free() {
            rows.sort_unstable_by(|(a, _), (b, _)| self.target.order(a, b));
        }
        for (key, values) in &rows {
            check_size(self.target, key, values.iter())?;
        }
        for rows in portions(&rows, MAX_STATEMENT_BYTES, set_bytes) {
            let keys = (0..self.target.table.key.len()).map(|place| {
                let bytes = rows.iter().map(|(key, _)| key[place].len() + ELEMENT_BYTES).sum();
                let mut array = TextArray::with_capacity(bytes);
                rows.iter().for_each(|(key, _)| array.push(Some(&key[place])));
                array
            });
            let values = (0..columns.len()).map(|index| {
                let bytes = rows.iter().map(|(_, values)| datum_bytes(&values[index])).sum();
                let mut array = TextArray::with_capacity(bytes);
                rows.iter().for_each(|(_, values)| array.push(values[index].1.as_deref()));
                array
            });
            let arrays = keys.chain(values).collect();
            let shape = Shape { table: self.table, action, values: columns.into(), images: self.images() };
            steps.push(Step { shape, arrays });
        }
        Ok(())
    }
}

/// Refuses a row that fits into no message.
fn check_size<'a>(
    target: &Target,
    key: &Key,
    values: impl Iterator<Item = &'a (ColumnId, Datum)> + Clone,
) -> Result<(), CommitError> {
    let bytes = key_bytes(key) + values.clone().map(datum_bytes).sum::<usize>();
    if bytes <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    let keys = target.table.key.iter().zip(key.iter()).map(|(column, text)| (text.len(), *column));
    let largest = keys.chain(values.map(|value| (datum_bytes(value), value.0))).max();
    let column = largest.map(|(_, column)| target.table.column(column).name.clone()).unwrap_or_default();
    Err(CommitError::TooLarge { table: target.table.name.clone(), column, bytes })
}

fn key_bytes(key: &Key) -> usize {
    key.iter().map(|text| text.len() + ELEMENT_BYTES).sum()
}

fn datum_bytes((_, datum): &(ColumnId, Datum)) -> usize {
    datum.as_ref().map_or(0, |text| text.len()) + ELEMENT_BYTES
}

fn set_bytes((key, values): &Set<'_>) -> usize {
    key_bytes(key) + values.iter().map(datum_bytes).sum::<usize>()
}

/// Cuts a list where its items would come to more than `most` bytes; an item that is larger stands alone.
fn portions<T>(items: &[T], most: usize, bytes: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut portions = Vec::new();
    let mut begin = 0;
    let mut size = 0;
    for (index, item) in items.iter().enumerate() {
        let more = bytes(item);
        if index > begin && size + more > most {
            portions.push(&items[begin..index]);
            (begin, size) = (index, 0);
        }
        size += more;
    }
    if begin < items.len() {
        portions.push(&items[begin..]);
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_portion_is_larger_than_it_may_be_unless_one_item_is() {
        let cut = |items: &[usize]| -> Vec<Vec<usize>> {
            portions(items, 10, |item| *item).into_iter().map(<[usize]>::to_vec).collect()
        };
        assert_eq!(cut(&[]), [] as [Vec<usize>; 0]);
        assert_eq!(cut(&[5, 5, 1, 9]), [vec![5, 5], vec![1, 9]]);
        assert_eq!(cut(&[11, 1, 12]), [vec![11], vec![1], vec![12]]);
    }
}
