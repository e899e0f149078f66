//! Notices what a pipeline's migrations do to rows, which no journal sees: rows that they write, and
//! expressions by which they convert a column.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::SchemaError;
use crate::db::{DbError, quote};

/// The rows of a schema's tables at one moment of a transaction.
#[derive(Debug)]
pub(super) struct Witness(BTreeMap<u32, Seen>);

#[derive(Debug)]
struct Seen {
    name: String,
    /// Rows that this session has inserted, updated or deleted of late.
    written: i64,
    empty: bool,
}

impl Witness {
    pub(super) async fn look(transaction: &Transaction<'_>, schema: &str) -> Result<Witness, SchemaError> {
        let failed = || DbError::statement("see whether the migrations write rows");
        let rows = transaction
            .query(
                "-- schema::witness::look\n\
                 select c.oid, c.relname::text as name, w.written \
                   from pg_catalog.pg_class c \
                  cross join lateral ( \
                          select sum(pg_catalog.pg_stat_get_xact_tuples_inserted(p.oid) \
                                     + pg_catalog.pg_stat_get_xact_tuples_updated(p.oid) \
                                     + pg_catalog.pg_stat_get_xact_tuples_deleted(p.oid))::int8 as written \
                            from (select c.oid union select relid from pg_catalog.pg_partition_tree(c.oid)) p \
                        ) w \
                  where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p') and not c.relispartition \
                    and pg_catalog.has_table_privilege(c.oid, 'select')",
                &[&quote(schema)],
            )
            .await
            .map_err(failed())?;
        let mut seen = BTreeMap::new();
        for row in &rows {
            let name: String = row.get("name");
            let sql = format!("select not exists (select from {}.{})", quote(schema), quote(&name));
            let empty = transaction.query_one(&sql, &[]).await.map_err(failed())?.get(0);
            seen.insert(row.get("oid"), Seen { name, written: row.get("written"), empty });
        }
        Ok(Witness(seen))
    }

    /// The tables whose rows have been written since `before`, truncation included.
    pub(super) fn written_since(&self, before: &Witness) -> Vec<&str> {
        let changed = |(oid, now): &(&u32, &Seen)| match before.0.get(oid) {
            Some(was) => now.written != was.written || now.empty != was.empty,
            None => !now.empty,
        };
        self.0.iter().filter(changed).map(|(_, seen)| seen.name.as_str()).collect()
    }
}

/// Whether SQL converts a column by an expression of its own (`alter column … type … using …`) beyond a cast.
pub(super) fn converts_by_expression(sql: &str) -> bool {
    let code: String =
        sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    code.to_lowercase().split(';').any(|statement| {
        let statement = format!(" {} ", statement.split_whitespace().collect::<Vec<_>>().join(" "));
        let Some((_, after)) = statement.split_once(" type ") else { return false };
        after.split(" using ").skip(1).any(|expression| !is_plain_cast(expression))
    })
}

/// `name::type`, with whatever further actions of the statement stand behind it.
fn is_plain_cast(expression: &str) -> bool {
    let own = expression.split(", alter ").next().unwrap_or_default();
    let plain = |c: char| c.is_alphanumeric() || "_\".:[](), ".contains(c);
    own.split_once("::").is_some_and(|(column, to)| {
        column.chars().all(|c| c.is_alphanumeric() || "_\"".contains(c)) && to.chars().all(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_are_told_from_other_expressions() {
        for plain in [
            "alter table t alter column a type text",
            "alter table t alter a type integer using a::integer, alter b type numeric(5,2) using \"b\"::numeric(5,2);",
            "create type pair as (a int); create index on t using btree (a)",
            "alter table t alter a type text; -- using a || 'x'",
        ] {
            assert!(!converts_by_expression(plain), "{plain}");
        }
        for own in [
            "alter table t\n  alter column a type bigint\n  using a * 100;",
            "alter table t alter a type integer using length(a)",
            "ALTER TABLE t ALTER a TYPE integer USING a::integer + 1",
        ] {
            assert!(converts_by_expression(own), "{own}");
        }
    }
}
