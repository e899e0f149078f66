//! Schemas as Kafka Connect's JSON converter writes them beside the payload, with the names that Debezium gives to types
//! where the values are written as Debezium writes them.
//!
//! Made once a table, so that they may take their time.

use serde_json::{Value, json};

use crate::undo::{EventColumn, EventTable, EventType};

/// `{"schema":…,"payload":`; the payload and a closing brace are to follow.
pub(super) fn head(schema: &Value) -> Vec<u8> {
    format!(r#"{{"schema":{schema},"payload":"#).into_bytes()
}

/// Of a value: the row before and after, and what Debezium puts beside.
pub(super) fn envelope(name: &str, table: &EventTable) -> Value {
    let row = |field| {
        let fields = table.columns.iter().map(|column| named(column, column.nullable));
        let fields: Vec<Value> = fields.collect();
        let name = full_name(name, table, "Value");
        json!({"type": "struct", "fields": fields, "optional": true, "name": name, "field": field})
    };
    let source = json!({
        "type": "struct", "optional": false, "name": "io.debshrew.Source", "field": "source",
        "fields": [
            text("version"), text("connector"), text("name"), text("db"), text("schema"), text("table"), long("ts_ms"),
            text("snapshot"), text("sequence"), optional(long("height")), optional(text("hash")), text("step"),
            long("reorg_id"),
        ],
    });
    let transaction = json!({
        "type": "struct", "optional": true, "name": "event.block", "version": 1, "field": "transaction",
        "fields": [text("id"), long("total_order"), long("data_collection_order")],
    });
    json!({
        "type": "struct", "optional": false, "name": full_name(name, table, "Envelope"),
        "fields": [
            row("before"), row("after"), source, transaction, text("op"), optional(long("ts_ms")), optional(long("ts_us")),
            optional(long("ts_ns")),
        ],
    })
}

/// Of a key.
pub(super) fn key(name: &str, table: &EventTable) -> Value {
    let fields = table.key.iter().filter_map(|place| Some(named(table.columns.get(*place)?, false)));
    let fields: Vec<Value> = fields.collect();
    json!({"type": "struct", "fields": fields, "optional": false, "name": full_name(name, table, "Key")})
}

/// Of control records.
pub(super) fn control() -> Value {
    let at = json!({
        "type": "struct", "optional": true, "name": "io.debshrew.Block", "field": "fork",
        "fields": [long("height"), text("hash")],
    });
    let collection = json!({
        "type": "struct", "optional": true, "name": "event.collection", "version": 1,
        "fields": [text("data_collection"), long("event_count")],
    });
    json!({
        "type": "struct", "optional": false, "name": "io.debezium.connector.common.TransactionMetadataValue", "version": 1,
        "fields": [
            text("status"), text("id"), optional(long("event_count")),
            {"type": "array", "items": collection, "optional": true, "field": "data_collections"},
            long("ts_ms"), text("step"), text("snapshot"), optional(long("height")), optional(text("hash")),
            optional(text("previous_hash")), long("reorg_id"), at,
        ],
    })
}

/// Of a control record's key.
pub(super) fn control_key() -> Value {
    let name = "io.debezium.connector.common.TransactionMetadataKey";
    json!({"type": "struct", "optional": false, "name": name, "version": 1, "fields": [text("id")]})
}

fn text(field: &str) -> Value {
    json!({"type": "string", "optional": false, "field": field})
}

fn long(field: &str) -> Value {
    json!({"type": "int64", "optional": false, "field": field})
}

fn optional(mut field: Value) -> Value {
    field["optional"] = true.into();
    field
}

fn named(column: &EventColumn, nullable: bool) -> Value {
    let mut schema = of(&column.type_, nullable);
    schema["field"] = column.name.as_str().into();
    schema
}

fn of(type_: &EventType, nullable: bool) -> Value {
    let (plain, name) = match type_ {
        EventType::Boolean => ("boolean", None),
        EventType::Int16 => ("int16", None),
        EventType::Int32 => ("int32", None),
        EventType::Int64 => ("int64", None),
        EventType::Float32 => ("float", None),
        EventType::Float64 => ("double", None),
        EventType::Bytes => ("bytes", None),
        EventType::Json => ("string", Some("io.debezium.data.Json")),
        EventType::Uuid => ("string", Some("io.debezium.data.Uuid")),
        EventType::TimeWithZone => ("string", Some("io.debezium.time.ZonedTime")),
        EventType::TimestampWithZone => ("string", Some("io.debezium.time.ZonedTimestamp")),
        EventType::Text(name) if name == "xml" => ("string", Some("io.debezium.data.Xml")),
        // Debezium's IsoDate, IsoTime and IsoTimestamp end in a `Z`, which these have not.
        EventType::Numeric
        | EventType::Date
        | EventType::Time
        | EventType::Timestamp
        | EventType::Text(_) => ("string", None),
        EventType::Array { element, .. } => {
            return json!({"type": "array", "items": of(element, true), "optional": nullable});
        }
    };
    let mut schema = json!({"type": plain, "optional": nullable});
    if let Some(name) = name {
        schema["name"] = name.into();
        schema["version"] = 1.into();
    }
    schema
}

/// `name.schema.table.Kind`, in the characters that a schema's name may have.
fn full_name(name: &str, table: &EventTable, kind: &str) -> String {
    let fit = |part: &str| -> String {
        let fit = |one: char| if one.is_ascii_alphanumeric() || one == '_' { one } else { '_' };
        let begins_right = part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let prefix = if begins_right { "" } else { "_" };
        prefix.chars().chain(part.chars().map(fit)).collect()
    };
    format!("{}.{}.{}.{kind}", fit(name), fit(&table.schema), fit(&table.name))
}
