//! Brings the key values of a type whose equality only PostgreSQL knows (numeric, citext, timestamps, domains)
//! to one text for all that are equal, so that the fold sees two changes of one row as such.
//!
//! Asked during evaluation, on any connection: what a text means is the same on all of them.

use std::collections::HashMap;

use deadpool_postgres::Object;

use super::target::KeyForm;
use super::{Key, RowChange, TableError, TableId, Tables, Target};
use crate::change::Operation;
use crate::db::catalog::Column;

/// What a change's `key` says the key is, where it says it otherwise than the row.
#[derive(Debug)]
pub(super) struct Claim {
    /// The change's position.
    pub(super) change: usize,
    pub(super) key: Key,
}

/// Gives the changes of one row one key: as the change spells it that makes the row.
pub(super) async fn canonicalise(
    client: &Object,
    tables: &Tables,
    changes: &mut [RowChange],
    claims: &[Claim],
) -> Result<(), TableError> {
    let mut by_table: HashMap<TableId, Vec<usize>> = HashMap::new();
    for (index, change) in changes.iter().enumerate() {
        if tables.get(change.table).key_forms.contains(&KeyForm::Compared) {
            by_table.entry(change.table).or_default().push(index);
        }
    }
    for (table, indexes) in by_table {
        let target = tables.get(table);
        let claims: Vec<&Claim> =
            claims.iter().filter(|claim| changes[claim.change].table == table).collect();
        let keys = indexes.iter().map(|index| &changes[*index].key);
        let mut canonical: Vec<Key> = keys.chain(claims.iter().map(|claim| &claim.key)).cloned().collect();
        for place in 0..target.key_forms.len() {
            if target.key_forms[place] == KeyForm::Compared {
                column(client, target, place, &mut canonical).await?;
            }
        }
        let (canonical, claimed) = canonical.split_at(indexes.len());
        for (claim, claimed) in claims.iter().zip(claimed) {
            let position = indexes.binary_search(&claim.change).unwrap_or_default();
            if claimed != &canonical[position] {
                return Err(conflict(target, &claim.key, &changes[claim.change].key));
            }
        }
        spell(changes, &indexes, canonical);
    }
    Ok(())
}

/// A change's `key` and row, as they are spelled, name different rows.
pub(super) fn conflict(target: &Target, key: &Key, row: &Key) -> TableError {
    let place = (0..key.len()).find(|place| key[*place] != row[*place]).unwrap_or_default();
    TableError::KeyConflict {
        table: target.table.name.clone(),
        column: target.table.column(target.table.key[place]).name.clone(),
        key: format!("`{}`", super::excerpt(&key[place])),
        row: format!("`{}`", super::excerpt(&row[place])),
    }
}

/// A row that is deleted and made again has the spelling of what made it; any other keeps its first.
fn spell(changes: &mut [RowChange], indexes: &[usize], canonical: &[Key]) {
    let mut spelling: HashMap<&Key, (Key, Operation)> = HashMap::new();
    for (index, key) in indexes.iter().zip(canonical) {
        let change = &changes[*index];
        let known = spelling.entry(key).or_insert_with(|| (change.key.clone(), change.operation));
        if known.1 == Operation::Delete {
            known.0.clone_from(&change.key);
        }
        known.1 = change.operation;
    }
    for (index, key) in indexes.iter().zip(canonical) {
        if let Some((spelled, _)) = spelling.get(key) {
            changes[*index].key.clone_from(spelled);
        }
    }
}

/// Makes equal values of one key column equal texts.
async fn column(client: &Object, target: &Target, place: usize, keys: &mut [Key]) -> Result<(), TableError> {
    let column = target.table.column(target.table.key[place]);
    let texts: Vec<&str> = keys.iter().map(|key| &*key[place]).collect();
    let refused = |source| TableError::KeyRefused {
        table: target.table.name.clone(),
        column: column.name.clone(),
        source,
    };
    let statement = client.prepare_cached(&sql(column)).await.map_err(refused)?;
    let found = client.query(&statement, &[&texts]).await.map_err(refused)?;
    for (key, found) in keys.iter_mut().zip(&found) {
        if found.get::<_, bool>("changed") {
            let row: Vec<Option<String>> = key.iter().map(|text| Some(text.to_string())).collect();
            return Err(TableError::KeyChanged {
                table: target.table.name.clone(),
                column: column.name.clone(),
                declared: column.declared.clone(),
                got: format!("`{}`", key[place]),
                row: if key.len() > 1 { target.row_name(&row).into() } else { Box::default() },
            });
        }
        key[place] = found.get::<_, String>("canonical").into();
    }
    Ok(())
}

/// `changed` is what the declared type's length, scale or domain would store differently.
fn sql(column: &Column) -> String {
    let Column { type_sql, declared, .. } = column;
    let collate = column.collation.as_ref().map(|name| format!(" collate {name}")).unwrap_or_default();
    format!(
        "-- table::keys::column\n\
         select first_value(k::text) over (partition by k order by place) as canonical,\n       \
                k is distinct from k::{declared}::{type_sql}{collate} as changed\n  \
           from (select text::{type_sql}{collate} as k, place\n          \
                   from unnest($1::pg_catalog.text[]) with ordinality u (text, place)) v\n \
          order by place"
    )
}
