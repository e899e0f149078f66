//! Brings the key values of a type whose equality only PostgreSQL knows (numeric, citext, timestamps, domains)
//! to one text for all that are equal, so that the fold sees two changes of one row as such.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::ApplyError;
use super::rows::Resolved;
use super::target::{KeyForm, Target};
use crate::change::Operation;
use crate::change::fold::{Key, RowChange};
use crate::db::catalog::Column;

/// Gives the changes of one row one key: as the change spells it that makes the row.
pub(super) async fn canonicalise(
    client: &Client,
    targets: &[Target],
    resolved: &mut Resolved,
) -> Result<(), ApplyError> {
    for (table, rows) in &mut resolved.0 {
        let target = &targets[*table];
        if !target.key_forms.contains(&KeyForm::Compared) {
            continue;
        }
        let mut canonical: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        for place in 0..target.key_forms.len() {
            if target.key_forms[place] == KeyForm::Compared {
                column(client, target, place, &mut canonical).await?;
            }
        }
        spell(rows, &canonical);
    }
    Ok(())
}

/// A row that is deleted and made again has the spelling of what made it; any other keeps its first.
fn spell(rows: &mut [RowChange], canonical: &[Key]) {
    let mut spelling: HashMap<&Key, (Key, Operation)> = HashMap::new();
    for (row, key) in rows.iter().zip(canonical) {
        let known = spelling.entry(key).or_insert_with(|| (row.key.clone(), row.operation));
        if known.1 == Operation::Delete {
            known.0.clone_from(&row.key);
        }
        known.1 = row.operation;
    }
    for (row, key) in rows.iter_mut().zip(canonical) {
        if let Some((spelled, _)) = spelling.get(key) {
            row.key.clone_from(spelled);
        }
    }
}

/// Makes equal values of one key column equal texts.
async fn column(client: &Client, target: &Target, place: usize, keys: &mut [Key]) -> Result<(), ApplyError> {
    let column = &target.table.columns[target.table.key[place]];
    let texts: Vec<&str> = keys.iter().map(|key| &*key[place]).collect();
    let found = client.query(&sql(column), &[&texts]).await.map_err(|source| ApplyError::Statement {
        doing: "read the keys for",
        table: target.table.name.clone(),
        column: Some(column.name.clone()),
        source,
    })?;
    for (key, found) in keys.iter_mut().zip(&found) {
        if found.get::<_, bool>("changed") {
            return Err(ApplyError::KeyChanged {
                table: target.table.name.clone(),
                column: column.name.clone(),
                declared: column.declared.clone(),
                got: format!("`{}`", key[place]),
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
        "-- apply::keys::column\n\
         select first_value(k::text) over (partition by k order by place) as canonical,\n       \
                k is distinct from k::{declared}::{type_sql}{collate} as changed\n  \
           from (select text::{type_sql}{collate} as k, place\n          \
                   from unnest($1::pg_catalog.text[]) with ordinality u (text, place)) v\n \
          order by place"
    )
}
