//! Brings the key values of a type whose equality only PostgreSQL knows (numeric, citext, timestamps, domains)
//! to one text for all that are equal, so that the fold sees two changes of one row as such.

use tokio_postgres::Client;

use super::ApplyError;
use super::rows::Resolved;
use super::target::{KeyForm, Target};
use crate::change::fold::RowChange;
use crate::db::catalog::Column;

/// Replaces each such key value by the first equal one of the block.
pub(super) async fn canonicalise(
    client: &Client,
    targets: &[Target],
    resolved: &mut Resolved,
) -> Result<(), ApplyError> {
    for (table, rows) in &mut resolved.0 {
        let target = &targets[*table];
        for place in 0..target.key_forms.len() {
            if target.key_forms[place] == KeyForm::Compared {
                column(client, target, place, rows).await?;
            }
        }
    }
    Ok(())
}

async fn column(
    client: &Client,
    target: &Target,
    place: usize,
    rows: &mut [RowChange],
) -> Result<(), ApplyError> {
    let column = &target.table.columns[target.table.key[place]];
    let texts: Vec<&str> = rows.iter().map(|row| &*row.key[place]).collect();
    let found = client.query(&sql(column), &[&texts]).await.map_err(|source| ApplyError::Statement {
        doing: "read the keys for",
        table: target.table.name.clone(),
        column: Some(column.name.clone()),
        source,
    })?;
    for (row, found) in rows.iter_mut().zip(&found) {
        if found.get::<_, bool>("changed") {
            return Err(ApplyError::KeyChanged {
                table: target.table.name.clone(),
                column: column.name.clone(),
                declared: column.declared.clone(),
                got: format!("`{}`", row.key[place]),
            });
        }
        row.key[place] = found.get::<_, String>("canonical").into();
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
