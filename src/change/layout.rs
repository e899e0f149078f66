//! What many changes have in common: their table and the names of their columns.

use std::collections::VecDeque;
use std::sync::Arc;

/// A table and some of its columns. Changes share it, so that whoever looks the names up need do so only once.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// The table's name, exactly as in the catalog, without a schema.
    pub table: Box<str>,
    /// In the order in which a change gives their values. A column occurs once at most.
    pub columns: Box<[Box<str>]>,
}

impl Layout {
    /// What `limits.output_bytes` counts for it beside its names' bytes.
    pub(super) fn cost(&self) -> usize {
        const A_LAYOUT: usize = 64;
        const A_COLUMN: usize = 48;
        A_LAYOUT + self.columns.len() * A_COLUMN
    }

    fn is<'a>(&self, table: &str, columns: impl ExactSizeIterator<Item = &'a str>) -> bool {
        *self.table == *table
            && self.columns.len() == columns.len()
            && self.columns.iter().zip(columns).all(|(known, column)| **known == *column)
    }
}

/// The layouts met lately, for changes that come with their names: those with the same names get the same layout.
#[derive(Debug, Default)]
pub struct Recent {
    /// The latest first.
    layouts: VecDeque<Arc<Layout>>,
    /// What those cost that had to be made.
    made: usize,
}

impl Recent {
    /// A transform has a handful of tables, and few sets of columns for each.
    const MOST: usize = 32;

    /// What the layouts cost that were made since this was asked last.
    pub fn take_cost(&mut self) -> usize {
        std::mem::take(&mut self.made)
    }

    pub(super) fn layout<'a>(
        &mut self,
        table: &str,
        columns: impl ExactSizeIterator<Item = &'a str> + Clone,
    ) -> Arc<Layout> {
        let known = self.layouts.iter().position(|known| known.is(table, columns.clone()));
        let layout = match known.and_then(|place| self.layouts.remove(place)) {
            Some(known) => known,
            None => {
                let made = Layout { table: table.into(), columns: columns.map(Into::into).collect() };
                self.made += made.cost();
                Arc::new(made)
            }
        };
        self.layouts.truncate(Self::MOST - 1);
        self.layouts.push_front(Arc::clone(&layout));
        layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_names_in_the_same_order_give_the_same_layout() {
        let mut recent = Recent::default();
        let mut layout = |table, columns: &[&'static str]| recent.layout(table, columns.iter().copied());
        let first = layout("t", &["a", "b"]);
        assert!(Arc::ptr_eq(&first, &layout("t", &["a", "b"])));
        for (table, columns) in
            [("t", &["b", "a"][..]), ("t", &["a"]), ("t", &["a", "b", "c"]), ("u", &["a", "b"]), ("t", &[])]
        {
            let other = layout(table, columns);
            assert!(!Arc::ptr_eq(&first, &other));
            assert!(other.is(table, columns.iter().copied()));
            assert!(Arc::ptr_eq(&other, &layout(table, columns)));
        }
        assert!(Arc::ptr_eq(&first, &layout("t", &["a", "b"])));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut recent = Recent::default();
        let mut layout = |number: usize| recent.layout(&number.to_string(), ["a"].into_iter());
        let (first, second) = (layout(0), layout(1));
        for number in 2..=Recent::MOST {
            layout(number);
            assert!(Arc::ptr_eq(&second, &layout(1)), "it is met all the time");
        }
        assert!(!Arc::ptr_eq(&first, &layout(0)));
        assert_eq!(recent.layouts.len(), Recent::MOST);
    }
}
