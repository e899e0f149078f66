//! What each journal followed when `migrate` ran last, by the catalog's own numbers; what follows from differences is
//! `schema`'s business.

use std::collections::BTreeMap;

use tokio_postgres::{GenericClient, Transaction};

use super::RegisterError;
use crate::db::DbError;

/// A table as it was.
#[derive(Clone, Debug)]
pub struct JournalRecord {
    pub oid: u32,
    pub columns: Vec<RecordedColumn>,
    /// What its rows had to meet; `None` if that was not recorded.
    pub constraints: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub struct RecordedColumn {
    pub number: i16,
    pub name: String,
    pub in_key: bool,
    /// Its bit in the journal's `undo_held`.
    pub slot: Option<i16>,
}

/// All tables of a pipeline as they were, by name.
pub async fn read_journals(
    client: &impl GenericClient,
    pipeline: i32,
) -> Result<BTreeMap<String, JournalRecord>, RegisterError> {
    let failed = || DbError::statement("read what the journals follow");
    let rows = client
        .query(
            "-- register::journals::read_journals\n\
             select table_name, table_oid, column_name, attribute_number, in_key, slot \
               from debshrew.journal_column where pipeline_id operator(pg_catalog.=) $1 order by attribute_number",
            &[&pipeline],
        )
        .await
        .map_err(failed())?;
    let mut tables: BTreeMap<String, JournalRecord> = BTreeMap::new();
    for row in &rows {
        let oid = row.get("table_oid");
        tables
            .entry(row.get("table_name"))
            .or_insert_with(|| JournalRecord { oid, columns: Vec::new(), constraints: None })
            .columns
            .push(RecordedColumn {
                number: row.get("attribute_number"),
                name: row.get("column_name"),
                in_key: row.get("in_key"),
                slot: row.get("slot"),
            });
    }
    let rows = client
        .query(
            "-- register::journals::read_constraints\n\
             select table_name, constraints from debshrew.journal_table where pipeline_id operator(pg_catalog.=) $1",
            &[&pipeline],
        )
        .await
        .map_err(failed())?;
    for row in &rows {
        if let Some(table) = tables.get_mut(row.get::<_, &str>("table_name")) {
            table.constraints = Some(row.get("constraints"));
        }
    }
    Ok(tables)
}

/// Records the tables as they are now.
pub async fn write_journals(
    transaction: &Transaction<'_>,
    pipeline: i32,
    tables: &BTreeMap<String, JournalRecord>,
) -> Result<(), RegisterError> {
    let failed = || DbError::statement("record what the journals follow");
    for table in ["journal_column", "journal_table"] {
        let sql = format!("delete from debshrew.{table} where pipeline_id operator(pg_catalog.=) $1");
        transaction.execute(&sql, &[&pipeline]).await.map_err(failed())?;
    }
    for (name, JournalRecord { oid, columns, constraints }) in tables {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let numbers: Vec<i16> = columns.iter().map(|column| column.number).collect();
        let in_key: Vec<bool> = columns.iter().map(|column| column.in_key).collect();
        let slots: Vec<Option<i16>> = columns.iter().map(|column| column.slot).collect();
        transaction
            .execute(
                "-- register::journals::write_journals\n\
                 insert into debshrew.journal_column \
                   (pipeline_id, table_name, table_oid, column_name, attribute_number, in_key, slot) \
                 select $1, $2, $3, c.* from rows from ( \
                   pg_catalog.unnest($4::pg_catalog.text[]), pg_catalog.unnest($5::pg_catalog.int2[]), \
                   pg_catalog.unnest($6::pg_catalog.bool[]), pg_catalog.unnest($7::pg_catalog.int2[])) c",
                &[&pipeline, name, oid, &names, &numbers, &in_key, &slots],
            )
            .await
            .map_err(failed())?;
        transaction
            .execute(
                "-- register::journals::write_constraints\n\
                 insert into debshrew.journal_table (pipeline_id, table_name, constraints) values ($1, $2, $3)",
                &[&pipeline, name, &constraints.as_deref().unwrap_or_default()],
            )
            .await
            .map_err(failed())?;
    }
    Ok(())
}
