//! What events look like, byte for byte: tests/golden has it. Consumers were written against it, so that a change is to be
//! meant, and said in the manual. `DEBSHREW_GOLDEN=write` writes the files anew.

use debshrew::relay::format::{Documents, Envelopes, Status, control, control_key, records};
use debshrew::relay::{Step, StepKind};
use debshrew::undo::EventType;

use super::steps::{about, apply, balances, block, cursor, event, moment, snapshot, table};

fn steps() -> Vec<Step> {
    let balances = balances();
    let owners =
        table("Own\"ers", &[("b", EventType::Bytes, false), ("a", EventType::Int32, false)], &[1, 0]);
    let (old, new) = ([Some("a\"b"), Some("-5"), None], [Some("a\"b"), Some("7"), Some("größer")]);
    let (below, at) = (block(6, 1), block(7, 2));
    let mut read = snapshot(
        Some(below),
        0,
        true,
        vec![event(&balances, None, Some(&old)), event(&owners, None, Some(&[Some("\\xff"), Some("1")]))],
    );
    if let StepKind::Snapshot { void, .. } = &mut read.kind {
        void.push(balances.clone());
    }
    let changes = || {
        vec![
            event(&balances, Some(&old), Some(&new)),
            event(&owners, Some(&[Some("\\xff"), Some("1")]), None),
            event(&balances, None, Some(&[Some("c"), Some("0"), None])),
        ]
    };
    let undone: Vec<_> = changes().into_iter().rev().map(debshrew::undo::Event::inverted).collect();
    let kind = StepKind::Retract { block: at, previous: Some(below), fork: Some(below), reorg: 3 };
    vec![
        read,
        apply(at, Some(below), 0, changes()),
        Step { kind, events: undone, cursor: cursor(Some(below), 3), at: moment() },
        apply(block(7, 4), Some(below), 3, Vec::new()),
    ]
}

fn hold(name: &str, text: &[u8]) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::str::from_utf8(text).unwrap();
    for line in text.lines() {
        let json: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(json.is_ok(), "{line}");
    }
    if std::env::var("DEBSHREW_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for (line, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(line, golden, "{name}");
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{name}");
}

/// Keys and values; a key that there is none of is `null`.
fn messages(steps: &[Step], schemas: bool) -> Vec<u8> {
    let (mut out, mut envelopes) = (Vec::new(), Envelopes::new(&about(), schemas));
    for step in steps {
        envelopes.begin(step);
        for record in records(step) {
            if !envelopes.key(record, &mut out) {
                out.extend_from_slice(b"null");
            }
            out.push(b'\n');
            envelopes.value(step, record, &mut out);
            out.push(b'\n');
        }
    }
    out
}

#[test]
fn envelopes_are_as_they_were() {
    hold("debezium.jsonl", &messages(&steps(), false));
}

#[test]
fn documents_are_as_they_were() {
    let (mut out, mut documents) = (Vec::new(), Documents::new(&about()));
    for step in steps() {
        documents.write(&step, &mut out);
        out.push(b'\n');
    }
    hold("compact.jsonl", &out);
    let mut out = Vec::new();
    documents.write_envelopes(&mut Envelopes::new(&about(), false), &steps()[1], &mut out);
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let alone = messages(&steps()[1..2], false);
    let alone: Vec<serde_json::Value> = alone
        .split(|byte| *byte == b'\n')
        .skip(1)
        .step_by(2)
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(json["events"].as_array().unwrap(), &alone);
}

#[test]
fn control_records_are_as_they_were() {
    let mut out = Vec::new();
    for step in steps() {
        for status in Status::of(&step) {
            control(status, &step, false, &mut out);
            out.push(b'\n');
        }
    }
    control_key(&steps()[0], false, &mut out);
    out.push(b'\n');
    hold("transactions.jsonl", &out);
}

#[test]
fn schemas_are_as_they_were() {
    use EventType::*;
    let list = |element| Array { element: Box::new(element), delimiter: ',' };
    let columns = [
        ("small", Int16),
        ("medium", Int32),
        ("large", Int64),
        ("single", Float32),
        ("double", Float64),
        ("exact", Numeric),
        ("yes", Boolean),
        ("bytes", Bytes),
        ("document", Json),
        ("day", Date),
        ("clock", Time),
        ("clock_zone", TimeWithZone),
        ("moment", Timestamp),
        ("instant", TimestampWithZone),
        ("id", Uuid),
        ("markup", Text("xml".into())),
        ("words", list(Text("text".into()))),
        ("instants", list(TimestampWithZone)),
    ];
    let described: Vec<(&str, EventType, bool)> =
        columns.iter().enumerate().map(|(place, (name, type_))| (*name, type_.clone(), place > 1)).collect();
    let kinds = table("0 kinds-of", &described, &[1, 0]);
    let mut row = vec![None; columns.len()];
    row[0] = Some("1");
    row[1] = Some("2");
    let step = apply(block(7, 2), None, 0, vec![event(&kinds, None, Some(&row))]);
    let mut out = messages(std::slice::from_ref(&step), true);
    control(Status::End, &step, true, &mut out);
    out.push(b'\n');
    control_key(&step, true, &mut out);
    out.push(b'\n');
    hold("schemas.jsonl", &out);
    for message in out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: serde_json::Value = serde_json::from_slice(message).unwrap();
        conforms(&message["schema"], &message["payload"], "");
    }
}

#[test]
fn the_manual_shows_events_as_they_are() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| std::fs::read_to_string(format!("{folder}/{path}")).unwrap();
    let page = read("docs/sinks.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Events\n")).unwrap();
    let examples: Vec<serde_json::Value> = section
        .split("```json\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).unwrap())
        .collect();
    let golden =
        ["debezium", "compact", "transactions"].map(|name| read(&format!("tests/golden/{name}.jsonl")));
    let golden: Vec<serde_json::Value> =
        golden.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(examples.len() >= 4, "{examples:?}");
    for example in examples {
        assert!(golden.contains(&example), "docs/sinks.md shows what no event looks like: {example}");
    }
}

/// Holds a value to a schema as Kafka Connect's JSON converter does: what is named and no more.
fn conforms(schema: &serde_json::Value, value: &serde_json::Value, at: &str) {
    if value.is_null() {
        assert_eq!(schema["optional"], true, "{at}");
        return;
    }
    let is_one = match schema["type"].as_str().unwrap() {
        "struct" => {
            let fields = schema["fields"].as_array().unwrap();
            let object = value.as_object().unwrap();
            let names: Vec<&str> = fields.iter().map(|field| field["field"].as_str().unwrap()).collect();
            let strange = object.keys().find(|name| !names.contains(&name.as_str()));
            assert_eq!(strange, None, "{at}");
            for (field, name) in fields.iter().zip(names) {
                conforms(field, &value[name], &format!("{at}.{name}"));
            }
            true
        }
        "array" => {
            value
                .as_array()
                .unwrap()
                .iter()
                .for_each(|one| conforms(&schema["items"], one, &format!("{at}[]")));
            true
        }
        "string" | "bytes" => value.is_string(),
        "boolean" => value.is_boolean(),
        "int16" | "int32" | "int64" => value.is_i64(),
        "float" | "double" => value.is_number(),
        other => panic!("{at}: {other}"),
    };
    assert!(is_one, "{at}: {schema} {value}");
}
