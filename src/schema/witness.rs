//! Notices what a pipeline's migrations do to rows, which no journal sees: rows that they write, and tables that they
//! rewrite.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::SchemaError;
use crate::db::{DbError, quote};

/// The rows of a schema's tables at one moment of a transaction.
#[derive(Debug)]
pub(super) struct Witness {
    tables: BTreeMap<u32, Table>,
    /// Whether this session counts the rows that it writes.
    pub(super) is_counting: bool,
}

#[derive(Debug)]
struct Table {
    name: String,
    /// Rows that this session has inserted, updated or deleted of late, as PostgreSQL counts them.
    counted: i64,
    /// This transaction holds the lock that writing takes, whether or not a row was written. A session that does not count
    /// (`track_counts`) takes it all the same.
    locked: bool,
    empty: bool,
    /// Where the rows are stored: elsewhere after the table was rewritten.
    files: Vec<u32>,
}

/// What migrations have done to rows.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    /// Tables whose rows were written, truncation included.
    pub(super) written: Vec<String>,
    /// Tables that were there before and were rewritten, each row by some rule.
    pub(super) rewritten: Vec<String>,
}

impl Witness {
    pub(super) async fn look(transaction: &Transaction<'_>, schema: &str) -> Result<Witness, SchemaError> {
        let failed = || DbError::statement("see whether the migrations write rows");
        let rows = transaction
            .query(
                "-- schema::witness::look\n\
                 select c.oid, c.relname::text as name, m.counted, m.locked, m.files \
                   from pg_catalog.pg_class c \
                  cross join lateral ( \
                          select sum(pg_catalog.pg_stat_get_xact_tuples_inserted(p.oid) \
                                     + pg_catalog.pg_stat_get_xact_tuples_updated(p.oid) \
                                     + pg_catalog.pg_stat_get_xact_tuples_deleted(p.oid))::int8 as counted, \
                                 coalesce(array_agg(pg_catalog.pg_relation_filenode(p.oid) order by p.oid) \
                                            filter (where pg_catalog.pg_relation_filenode(p.oid) is not null), '{}') \
                                   as files, \
                                 bool_or(exists (select from pg_catalog.pg_locks l \
                                                  where l.pid = pg_catalog.pg_backend_pid() \
                                                    and l.locktype = 'relation' and l.relation = p.oid \
                                                    and l.mode = 'RowExclusiveLock')) as locked \
                            from (select c.oid union select relid from pg_catalog.pg_partition_tree(c.oid)) p \
                        ) m \
                  where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p') and not c.relispartition \
                    and pg_catalog.has_table_privilege(c.oid, 'select')",
                &[&quote(schema)],
            )
            .await
            .map_err(failed())?;
        let mut tables = BTreeMap::new();
        for row in &rows {
            let name: String = row.get("name");
            let sql = format!("select not exists (select from {}.{})", quote(schema), quote(&name));
            let empty = transaction.query_one(&sql, &[]).await.map_err(failed())?.get(0);
            let (counted, locked, files) = (row.get("counted"), row.get("locked"), row.get("files"));
            tables.insert(row.get("oid"), Table { name, counted, locked, empty, files });
        }
        let setting = "select pg_catalog.current_setting('track_counts')::bool";
        let is_counting = transaction.query_one(setting, &[]).await.map_err(failed())?.get(0);
        Ok(Witness { tables, is_counting })
    }

    /// What was done since `before`. Where PostgreSQL may not have `counted` the rows, a lock says enough.
    pub(super) fn since(&self, before: &Witness, counted: bool) -> Deeds {
        let mut deeds = Deeds::default();
        for (oid, now) in &self.tables {
            let Some(was) = before.tables.get(oid) else {
                deeds.written.extend((!now.empty).then(|| now.name.clone()));
                continue;
            };
            let unseen = !counted && now.locked && !was.locked;
            if now.counted != was.counted || now.empty != was.empty || unseen {
                deeds.written.push(now.name.clone());
            }
            if now.files != was.files {
                deeds.rewritten.push(now.name.clone());
            }
        }
        deeds
    }
}
