//! Where the values of changes go: each layout's names are looked up once, not for every change.

use std::collections::HashMap;
use std::sync::Arc;

use super::target::{KeyForm, Target};
use super::{TableError, TableId, Tables};
use crate::change::Layout;
use crate::db::catalog::ColumnId;

/// Where the values of a column go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Into the key, to this place in it.
    Key(usize),
    Column(ColumnId),
    /// Nowhere: PostgreSQL sets the column itself.
    Generated,
    /// Nowhere: the table has no such column.
    Unknown,
}

/// A layout whose names have been looked up.
#[derive(Debug)]
pub(super) struct Placement<'a> {
    /// Held, so that no other comes to have its address.
    layout: Arc<Layout>,
    pub(super) table: TableId,
    pub(super) target: &'a Target,
    /// Where each of the layout's columns goes. One that goes nowhere is an error of the changes that have it, not of
    /// the layout.
    pub(super) places: Vec<Place>,
    /// How many of the columns are the change's to set, and not in the key.
    pub(super) beside_key: usize,
    /// PostgreSQL must say which keys are equal.
    pub(super) compared: bool,
}

/// The layouts that were looked up so far.
pub(super) struct Placements<'a> {
    tables: &'a Tables,
    list: Vec<Placement<'a>>,
    by_address: HashMap<*const Layout, usize>,
    /// The one that was wanted last: changes of one layout mostly come in a row.
    last: usize,
}

impl<'a> Placements<'a> {
    pub(super) fn new(tables: &'a Tables) -> Placements<'a> {
        Placements { tables, list: Vec::new(), by_address: HashMap::new(), last: 0 }
    }

    /// An error says that there is no such table.
    pub(super) fn of(&mut self, layout: &Arc<Layout>) -> Result<&Placement<'a>, TableError> {
        if !self.list.get(self.last).is_some_and(|last| Arc::ptr_eq(&last.layout, layout)) {
            self.last = match self.by_address.get(&Arc::as_ptr(layout)) {
                Some(known) => *known,
                None => self.look_up(layout)?,
            };
        }
        Ok(&self.list[self.last])
    }

    fn look_up(&mut self, layout: &Arc<Layout>) -> Result<usize, TableError> {
        let table = self.tables.find(&layout.table)?;
        let target = self.tables.get(table);
        let places: Vec<Place> = layout.columns.iter().map(|name| place(target, name)).collect();
        let beside_key = places.iter().filter(|place| matches!(place, Place::Column(_))).count();
        let compared = target.key_forms.contains(&KeyForm::Compared);
        let number = self.list.len();
        self.by_address.insert(Arc::as_ptr(layout), number);
        let layout = Arc::clone(layout);
        self.list.push(Placement { layout, table, target, places, beside_key, compared });
        Ok(number)
    }
}

fn place(target: &Target, name: &str) -> Place {
    let Some(id) = target.find(name) else { return Place::Unknown };
    if let Some(place) = target.table.key.iter().position(|key| *key == id) {
        return Place::Key(place);
    }
    let column = target.table.column(id);
    if column.generated || column.identity_always { Place::Generated } else { Place::Column(id) }
}
