//! Notices what a pipeline's migrations do to rows, which no journal sees: rows that they write, and tables that they
//! rewrite.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Transaction;

use super::SchemaError;
use crate::db::owners::foreign_tables;
use crate::db::{DbError, quote};
use crate::register::JournalRecord;

/// The rows of a schema's tables at one moment of a transaction.
#[derive(Debug)]
pub(super) struct Witness {
    tables: BTreeMap<u32, Table>,
    /// All tables of the database, in whatever schema.
    known: BTreeSet<u32>,
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
    /// The table and its partitions, each with where its rows are stored: elsewhere after it was rewritten.
    members: BTreeMap<u32, u32>,
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
                 select c.oid, c.relname::text as name, m.counted, m.locked, m.members, m.files \
                   from pg_catalog.pg_class c \
                  cross join lateral ( \
                          select sum(pg_catalog.pg_stat_get_xact_tuples_inserted(p.oid) \
                                     + pg_catalog.pg_stat_get_xact_tuples_updated(p.oid) \
                                     + pg_catalog.pg_stat_get_xact_tuples_deleted(p.oid))::int8 as counted, \
                                 array_agg(p.oid) as members, \
                                 array_agg(coalesce(pg_catalog.pg_relation_filenode(p.oid), 0)) as files, \
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
        // To read another's table is to run what its policies call.
        let foreign = foreign_tables(transaction, schema).await?;
        let mut tables = BTreeMap::new();
        for row in rows.iter().filter(|row| !foreign.contains_key(&row.get("oid"))) {
            let name: String = row.get("name");
            let sql = format!("select not exists (select from {}.{})", quote(schema), quote(&name));
            let empty = transaction.query_one(&sql, &[]).await.map_err(failed())?.get(0);
            let (counted, locked) = (row.get("counted"), row.get("locked"));
            let members = row.get::<_, Vec<u32>>("members").into_iter().zip(row.get::<_, Vec<u32>>("files"));
            tables.insert(row.get("oid"), Table { name, counted, locked, empty, members: members.collect() });
        }
        let setting = "select pg_catalog.current_setting('track_counts')::bool";
        let is_counting = transaction.query_one(setting, &[]).await.map_err(failed())?.get(0);
        let all = "select oid from pg_catalog.pg_class where relkind in ('r', 'p')";
        let all = transaction.query(all, &[]).await.map_err(failed())?;
        let known = all.iter().map(|row| row.get(0)).collect();
        Ok(Witness { tables, known, is_counting })
    }

    /// Tables of these that were gone already.
    pub(super) fn lacks(&self, recorded: &BTreeMap<String, JournalRecord>) -> Vec<String> {
        let lacking = recorded.iter().filter(|(_, record)| !self.known.contains(&record.oid));
        lacking.map(|(name, _)| name.clone()).collect()
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
            let gone = was.members.keys().any(|member| !now.members.contains_key(member));
            // One that was a table of its own before may bring rows along.
            let come = now
                .members
                .keys()
                .any(|member| !was.members.contains_key(member) && before.known.contains(member));
            if now.counted != was.counted || now.empty != was.empty || unseen || gone || come {
                deeds.written.push(now.name.clone());
            }
            if now.members.iter().any(|(member, file)| was.members.get(member).is_some_and(|was| was != file))
            {
                deeds.rewritten.push(now.name.clone());
            }
        }
        deeds
    }
}
