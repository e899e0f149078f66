//! The oracle: a change as plain SQL, one by one, as its author means it.

use debshrew::change::{Change, Operation, Value};
use debshrew::db::quote;
use tokio_postgres::Client;

use crate::support::{TestDb, everything};

/// A schema without journals, which changes are applied to one by one.
pub struct Plain {
    client: Client,
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
        let client = test.connect().await;
        let name = quote(schema);
        let sql = format!("create schema {name}; set search_path = {name}; {sql}; set search_path = ''");
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        Plain { client, schema: schema.to_owned() }
    }

    pub async fn everything(&self) -> Vec<String> {
        everything(&self.client, &quote(&self.schema)).await
    }

    pub fn name(&self) -> String {
        self.schema.clone()
    }

    /// Runs SQL as it stands.
    pub async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
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
        let table = self.sql(change.table());
        let key = self.key(change.table()).await;
        let is_key = &|name: &str| key.iter().any(|key| key == name);
        let of = |wanted: bool| change.columns().filter(move |(name, _)| is_key(name) == wanted);
        let set = |(name, value): (&str, &Value)| format!("{} = {}", quote(name), literal(value));
        let same = of(true).map(set).collect::<Vec<_>>().join(" and ");
        if change.operation == Operation::Delete {
            return format!("delete from {table} where {same};\n");
        }
        let sets = of(false).map(set).collect::<Vec<_>>().join(", ");
        let names = change.columns().map(|(name, _)| quote(name)).collect::<Vec<_>>().join(", ");
        let values = change.columns().map(|(_, value)| literal(value)).collect::<Vec<_>>().join(", ");
        put(&table, &same, &sets, &names, &values)
    }

    /// One block: all of its changes, or none and the error. Deferrable constraints are deferred.
    pub async fn apply(&self, changes: &[Change]) -> Result<(), String> {
        let mut body = String::new();
        for change in changes {
            body.push_str(&self.one(change).await);
        }
        self.apply_sql(&body).await
    }

    pub async fn apply_sql(&self, body: &str) -> Result<(), String> {
        let sql = format!(
            "set timezone = 'UTC'; begin; set constraints all deferred; do $plain$ begin\n{body}end $plain$; commit"
        );
        if let Err(error) = self.client.batch_execute(&sql).await {
            self.client.batch_execute("rollback").await.unwrap();
            return Err(error.as_db_error().map_or(error.to_string(), |error| error.message().to_owned()));
        }
        Ok(())
    }
}

/// Updates the row, or inserts it where there is none. A row that a trigger keeps out is an error.
pub fn put(table: &str, same: &str, sets: &str, names: &str, values: &str) -> String {
    let kept_out = "if not found then raise exception 'a trigger kept a row out'; end if;";
    let update = match sets {
        "" => "null;".to_owned(),
        sets => format!("update {table} set {sets} where {same}; {kept_out}"),
    };
    format!(
        "if exists (select from {table} where {same}) then {update} else \
           insert into {table} ({names}) overriding system value values ({values}); {kept_out} end if;\n"
    )
}
