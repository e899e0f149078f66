//! What PostgreSQL does with the same rows without debshrew: COPY, which is the most it can take in, and a
//! prepared statement a row, pipelined, which is how one would write an indexer by hand.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt, SinkExt, TryFutureExt};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::Outcome;
use crate::apply::fill;
use crate::rows::{RowChange, Table};
use crate::server::{Base, Server};

/// Puts rows into a table by COPY, in one transaction.
pub(crate) async fn copy(client: &Client, table: &Table, text: Vec<u8>) -> Outcome<u64> {
    /// As much as `psql` sends at once, or more.
    const CHUNK: usize = 64 << 10;
    let text = Bytes::from(text);
    let sink = client.copy_in(&format!("copy {} from stdin", table.name)).await?;
    futures_util::pin_mut!(sink);
    let mut start = 0;
    while start < text.len() {
        let end = text.len().min(start + CHUNK);
        sink.feed(text.slice(start..end)).await?;
        start = end;
    }
    Ok(sink.finish().await?)
}

/// A database with the table and no pipeline.
async fn filled(server: &Server, table: &Table, rows: u64) -> Outcome<Base> {
    let base = server.database().await?;
    base.client
        .batch_execute(&format!("create schema bench; set search_path = bench; {}", table.ddl))
        .await?;
    fill(&base, table, rows).await?;
    Ok(base)
}

/// Rows a second that COPY puts into a new table that has `before` rows.
pub(crate) async fn copied(server: &Server, table: &Table, before: u64, rows: u64) -> Outcome<f64> {
    let base = filled(server, table, before).await?;
    let text = table.copy(before..before + rows);
    let start = Instant::now();
    let written = copy(&base.client, table, text).await?;
    let took = start.elapsed();
    if written != rows {
        return Err(format!("COPY took {written} rows of {rows}").into());
    }
    Ok(rows as f64 / took.as_secs_f64())
}

/// Changes a second of these blocks with a prepared statement a row, all of a block's sent before any reply is
/// awaited, a transaction a block. The first `warm` blocks are not counted.
pub(crate) async fn statements(
    server: &Server,
    table: &Table,
    before: u64,
    blocks: &[Vec<RowChange>],
    warm: usize,
) -> Outcome<f64> {
    let base = filled(server, table, before).await?;
    let put = base.client.prepare(&upsert(table)).await?;
    let delete = base.client.prepare(&delete(table)).await?;
    let (warmed, counted) = blocks.split_at(warm);
    for block in warmed {
        transaction(&base.client, &put, &delete, block).await?;
    }
    let start = Instant::now();
    for block in counted {
        transaction(&base.client, &put, &delete, block).await?;
    }
    let changes: usize = counted.iter().map(Vec::len).sum();
    Ok(changes as f64 / start.elapsed().as_secs_f64())
}

async fn transaction(
    client: &Client,
    put: &Statement,
    delete: &Statement,
    block: &[RowChange],
) -> Outcome<()> {
    let parameters: Vec<(&Statement, Vec<&(dyn ToSql + Sync)>)> = block
        .iter()
        .map(|change| {
            let (statement, cells) = match change {
                RowChange::Put(cells) => (put, cells),
                RowChange::Delete(key) => (delete, key),
            };
            (statement, cells.iter().map(|cell| cell.parameter()).collect())
        })
        .collect();
    let mut sent: Vec<BoxFuture<'_, Result<u64, tokio_postgres::Error>>> = Vec::new();
    sent.push(client.batch_execute("begin; set local synchronous_commit = off").map_ok(|()| 0).boxed());
    for (statement, parameters) in &parameters {
        sent.push(client.execute(*statement, parameters).boxed());
    }
    sent.push(client.batch_execute("commit").map_ok(|()| 0).boxed());
    let counts = try_join_all(sent).await?;
    let changed: u64 = counts.iter().sum();
    if changed == block.len() as u64 {
        Ok(())
    } else {
        Err(format!("{changed} rows changed where {} should have", block.len()).into())
    }
}

fn upsert(table: &Table) -> String {
    let places: Vec<String> = (1..=table.columns.len()).map(|place| format!("${place}")).collect();
    let (key, rest) = table.columns.split_at(table.key);
    let set: Vec<String> = rest.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "insert into {} ({}) values ({}) on conflict ({}) do update set {}",
        table.name,
        table.columns.join(", "),
        places.join(", "),
        key.join(", "),
        set.join(", ")
    )
}

fn delete(table: &Table) -> String {
    let key: Vec<String> = table.columns[..table.key]
        .iter()
        .enumerate()
        .map(|(place, column)| format!("{column} = ${}", place + 1))
        .collect();
    format!("delete from {} where {}", table.name, key.join(" and "))
}
