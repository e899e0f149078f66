//! The oracle: a change as plain SQL, one by one, as its author means it.

use debshrew::change::{Change, Operation, Value};
use debshrew::db::quote;
use tokio_postgres::Client;

use crate::support::{Rig, TestDb};

/// A schema without journals, which changes are applied to one by one.
pub struct Plain {
    client: Client,
    rig: Rig,
    schema: String,
}

fn literal(value: &Value) -> String {
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match value {
        Value::Null => "null".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Integer(integer) => text(&integer.to_string()),
        Value::Number(digits) => text(digits),
        Value::Text(string) => text(string),
        Value::Bytes(bytes) => text(&format!("\\x{}", hex::encode(bytes))),
        Value::Json(json) => text(json),
    }
}

impl Plain {
    pub async fn up(test: &TestDb, schema: &str, sql: &str) -> Plain {
        let rig = Rig::up(test, schema, sql).await;
        Plain { client: test.connect().await, rig, schema: schema.to_owned() }
    }

    pub async fn everything(&self) -> Vec<String> {
        self.rig.everything().await
    }

    async fn key(&self, table: &str) -> Vec<String> {
        let sql = "select a.attname::text from pg_index i \
                     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey) \
                    where i.indrelid = $1::text::regclass and i.indisprimary";
        let rows = self.client.query(sql, &[&self.sql(table)]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    fn sql(&self, table: &str) -> String {
        format!("{}.{}", quote(&self.schema), quote(table))
    }

    /// The statements of one change: an update, and an insert where there was no such row.
    async fn one(&self, change: &Change) -> String {
        let table = self.sql(&change.table);
        let key = self.key(&change.table).await;
        let is_key = &|name: &str| key.iter().any(|key| key == name);
        let of = |wanted: bool| change.columns.iter().filter(move |(name, _)| is_key(name) == wanted);
        let set =
            |(name, value): &(std::sync::Arc<str>, Value)| format!("{} = {}", quote(name), literal(value));
        let same = of(true).map(set).collect::<Vec<_>>().join(" and ");
        if change.operation == Operation::Delete {
            return format!("delete from {table} where {same};\n");
        }
        let sets = of(false).map(set).collect::<Vec<_>>().join(", ");
        let names = change.columns.iter().map(|(name, _)| quote(name)).collect::<Vec<_>>().join(", ");
        let values = change.columns.iter().map(|(_, value)| literal(value)).collect::<Vec<_>>().join(", ");
        let there = format!("exists (select from {table} where {same})");
        let update =
            if sets.is_empty() { "null".into() } else { format!("update {table} set {sets} where {same}") };
        format!(
            "if {there} then {update}; \
             else insert into {table} ({names}) overriding system value values ({values}); end if;\n"
        )
    }

    /// One block: all of its changes, or none and the error. Deferrable constraints are deferred.
    pub async fn apply(&self, changes: &[Change]) -> Result<(), String> {
        let mut body = String::new();
        for change in changes {
            body.push_str(&self.one(change).await);
        }
        let sql = format!(
            "set timezone = 'UTC'; begin; set constraints all deferred; do $plain$ begin\n{body}end $plain$; commit"
        );
        let done = self.client.batch_execute(&sql).await;
        if let Err(error) = done {
            self.client.batch_execute("rollback").await.unwrap();
            let error = error.as_db_error().map_or(error.to_string(), |error| error.message().to_owned());
            return Err(error);
        }
        Ok(())
    }
}
