//! The constraints of tables under the names that tables and columns had when they were recorded: a constraint is told from
//! others by how PostgreSQL writes it, and what was renamed since is written otherwise.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Transaction;

use super::constraints::{Constraint, read};
use super::record::Records;
use super::{SchemaError, execute, is_refusal};
use crate::db::{DbError, quote};

/// The constraints as they are now, each with its definition under the recorded names.
pub(super) async fn read_beside_recorded(
    transaction: &Transaction<'_>,
    schema: &str,
    records: &Records,
) -> Result<BTreeMap<u32, Vec<Constraint>>, SchemaError> {
    let mut constraints = read(transaction, schema).await?;
    let back = Relations::look(transaction, schema).await?.renamings_back(schema, records);
    if back.is_empty() {
        return Ok(constraints);
    }
    execute(transaction, "savepoint names", "set a savepoint").await?;
    // PostgreSQL writes them best.
    let former = match transaction.batch_execute(&back).await {
        Ok(()) => read(transaction, schema).await?,
        // Somebody else's table, or a name that something else than a table has taken: they count as new.
        Err(error) if is_refusal(&error) => BTreeMap::new(),
        Err(error) => {
            return Err(DbError::statement("write the constraints under former names")(error).into());
        }
    };
    let sql = "rollback to savepoint names; release savepoint names";
    execute(transaction, sql, "go back to a savepoint").await?;
    for (table, constraints) in &mut constraints {
        let former = former.get(table).map(Vec::as_slice).unwrap_or_default();
        for constraint in constraints {
            if let Some(former) = former.iter().find(|former| former.id == constraint.id) {
                constraint.recorded.clone_from(&former.definition);
            }
        }
    }
    Ok(constraints)
}

/// What has a name in a schema, by number.
struct Relations {
    names: BTreeMap<u32, String>,
    columns: BTreeMap<u32, BTreeMap<i16, String>>,
    /// Types of no table, which none can be called like either.
    types: Vec<String>,
}

impl Relations {
    async fn look(transaction: &Transaction<'_>, schema: &str) -> Result<Relations, SchemaError> {
        let rows = transaction
            .query(
                "-- schema::names::look\n\
                 select c.oid, c.relname::text as name, \
                        coalesce(a.attnum, 0::int2) as number, coalesce(a.attname::text, '') as column_name \
                   from pg_catalog.pg_class c \
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
                   left join pg_catalog.pg_attribute a \
                     on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p') \
                  where n.nspname = $1 and c.relkind <> 'c'",
                &[&schema],
            )
            .await
            .map_err(DbError::statement("read the tables' names"))?;
        let types = transaction
            .query(
                "-- schema::names::look\n\
                 select t.typname::text as name \
                   from pg_catalog.pg_type t \
                   join pg_catalog.pg_namespace n on n.oid = t.typnamespace \
                   left join pg_catalog.pg_class c on c.oid = t.typrelid \
                  where n.nspname = $1 and (c.oid is null or c.relkind = 'c') \
                    and not exists (select from pg_catalog.pg_type e where e.typarray = t.oid)",
                &[&schema],
            )
            .await
            .map_err(DbError::statement("read the types' names"))?;
        let types = types.iter().map(|row| row.get("name")).collect();
        let mut relations = Relations { names: BTreeMap::new(), columns: BTreeMap::new(), types };
        for row in &rows {
            let oid = row.get("oid");
            relations.names.insert(oid, row.get("name"));
            relations.columns.entry(oid).or_default().insert(row.get("number"), row.get("column_name"));
        }
        Ok(relations)
    }

    /// The statements that give tables and columns the names that they had.
    fn renamings_back(&self, schema: &str, records: &Records) -> String {
        let mut sql = String::new();
        if records.restored {
            return sql;
        }
        let recorded = || records.all().filter(|(_, record)| self.names.contains_key(&record.oid));
        let tables = recorded().map(|(name, record)| (record.oid, name)).collect();
        let tables = renamings(&self.names, &tables);
        let is_wanted = |name: &&String| tables.iter().any(|(_, to)| to == *name);
        for (index, name) in self.types.iter().filter(is_wanted).enumerate() {
            let aside = quote(&format!("debshrew renaming type {index}"));
            sql.push_str(&format!("alter type {}.{} rename to {aside};\n", quote(schema), quote(name)));
        }
        for (from, to) in tables {
            sql.push_str(&format!(
                "alter table {}.{} rename to {};\n",
                quote(schema),
                quote(&from),
                quote(&to)
            ));
        }
        for (name, record) in recorded() {
            let columns = record.columns.iter().map(|column| (column.number, column.name.as_str())).collect();
            for (from, to) in renamings(&self.columns[&record.oid], &columns) {
                let table = format!("{}.{}", quote(schema), quote(name));
                sql.push_str(&format!(
                    "alter table {table} rename column {} to {};\n",
                    quote(&from),
                    quote(&to)
                ));
            }
        }
        sql
    }
}

/// From which name to which, one after the other, so that what is still there has the name that it had: by way of names that
/// nobody uses, since some may have been swapped, or taken by what is new.
fn renamings<N: Ord>(now: &BTreeMap<N, String>, was: &BTreeMap<N, &str>) -> Vec<(String, String)> {
    let renamed: Vec<(&str, &str)> = was
        .iter()
        .filter_map(|(number, was)| Some((now.get(number)?.as_str(), *was)))
        .filter(|(now, was)| now != was)
        .collect();
    let freed: BTreeSet<&str> = renamed.iter().map(|(now, _)| *now).collect();
    let wanted: BTreeSet<&str> = renamed.iter().map(|(_, was)| *was).collect();
    let in_the_way =
        now.values().map(String::as_str).filter(|now| wanted.contains(now) && !freed.contains(now));
    let between = |index: usize| format!("debshrew renaming {index}");
    let aside = renamed.iter().map(|(now, _)| *now).chain(in_the_way);
    let aside = aside.enumerate().map(|(index, now)| (now.to_owned(), between(index)));
    let back = renamed.iter().enumerate().map(|(index, (_, was))| (between(index), (*was).to_owned()));
    aside.chain(back).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(i16, &str)]) -> BTreeMap<i16, String> {
        pairs.iter().map(|(number, name)| (*number, (*name).to_owned())).collect()
    }

    #[test]
    fn swapped_and_taken_names_are_given_back() {
        let was = BTreeMap::from([(1, "a"), (2, "b"), (3, "c"), (4, "gone"), (5, "same")]);
        let mut now = of(&[(1, "b"), (2, "a"), (3, "d"), (5, "same"), (6, "c")]);
        for (from, to) in renamings(&now, &was) {
            assert!(!now.values().any(|name| *name == to), "{to} is taken");
            *now.values_mut().find(|name| **name == from).unwrap() = to;
        }
        let third = now.remove(&6).unwrap();
        assert!(!was.values().any(|name| *name == third), "{third}");
        assert_eq!(now, of(&[(1, "a"), (2, "b"), (3, "c"), (5, "same")]));
    }

    #[test]
    fn where_nothing_was_renamed_there_is_nothing_to_do() {
        assert_eq!(renamings(&of(&[(1, "a"), (3, "new")]), &BTreeMap::from([(1, "a"), (2, "gone")])), []);
    }
}
