//! Which rows changes are about, on two tables with the same columns.

use std::sync::Arc;

use super::*;
use crate::change::Layout;
use crate::db::catalog::{Column, Dependence, Shape, Table};
use crate::table::Role;

fn column(name: &str, type_oid: u32, shape: Shape) -> Column {
    Column {
        name: name.into(),
        number: 1,
        type_sql: "t".into(),
        type_oid,
        declared: "declared".into(),
        max_chars: None,
        constrained: false,
        shape,
        not_null: false,
        default: None,
        missing: None,
        varying_default: None,
        default_dependence: Dependence::Nothing,
        generated: name == "generated",
        identity_always: name == "counted",
        collation: None,
        loose_collation: false,
        equals: None,
    }
}

/// `id` and `hash` are the key, the latter first.
fn target(name: &str, role: Role) -> Target {
    let columns = vec![
        column("id", 20, Shape::Scalar),
        column("generated", 25, Shape::Scalar),
        column("hash", 17, Shape::Bytes),
        column("counted", 20, Shape::Scalar),
        column("list", 1007, Shape::Array { element: Box::new(Shape::Scalar), delimiter: ',' }),
        column("note", 25, Shape::Scalar),
    ];
    let table = Table {
        oid: 1,
        schema: "s".into(),
        name: name.into(),
        columns,
        key: vec![ColumnId::new(2), ColumnId::new(0)],
        key_temporal: false,
        key_deferrable: false,
        immediate_unique: None,
        immediate_unique_special: false,
        foreign_keys: Vec::new(),
        referenced_by: Vec::new(),
        triggers: Vec::new(),
        members: vec![1],
        trigger_oids: Vec::new(),
        partitioned: false,
        unlogged: false,
        inherits: false,
        has_rules: false,
        foreign_owner: None,
        row_security: false,
    };
    Target::new(table, role, "debshrew_s", name)
}

fn tables() -> Tables {
    let list = vec![target("t", Role::Rows), target("u", Role::Rows)];
    let refused = [("bare".to_owned(), "it has no primary key".to_owned())];
    Tables::new(list, target("state", Role::State), refused.into())
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn layout(table: &str, columns: &[&str]) -> Arc<Layout> {
    let columns = columns.iter().map(|name| (*name).into()).collect();
    Arc::new(Layout { table: table.into(), columns })
}

fn upsert(layout: &Arc<Layout>, values: Vec<Value>) -> Change {
    Change { layout: Arc::clone(layout), operation: Operation::Upsert, key: None, values }
}

fn error(changes: Vec<Change>) -> String {
    tables().resolve(changes, Vec::new()).unwrap_err().to_string()
}

#[test]
fn changes_of_layouts_in_turn_are_of_their_own_tables_and_columns() {
    let layouts = [
        layout("t", &["id", "hash", "note"]),
        layout("u", &["id", "hash", "note"]),
        layout("t", &["note", "hash", "id"]),
        layout("t", &["id", "hash", "note"]),
    ];
    let values = || vec![Value::Integer(1), Value::Bytes([1].into()), text("2")];
    let turns = [0, 1, 0, 0, 3, 2, 1, 2, 3];
    let changes = turns.map(|turn| upsert(&layouts[turn], values()));
    let resolved = tables().resolve(changes.into(), Vec::new()).unwrap();
    assert_eq!(resolved.changes.len(), turns.len());
    for (turn, change) in turns.into_iter().zip(&resolved.changes) {
        let (id, note) = if turn == 2 { ("2", "1") } else { ("1", "2") };
        assert_eq!(change.table, tables().find(&layouts[turn].table).unwrap());
        assert_eq!(*change.key, ["\\x01".into(), id.into()]);
        assert_eq!(change.values, [(ColumnId::new(5), Some(note.into()))]);
    }
}

#[test]
fn a_layout_that_went_is_not_taken_for_the_next_at_its_address() {
    let tables = tables();
    let mut placements = Placements::new(&tables);
    for number in 0..200 {
        let (table, column) = if number % 3 == 0 { ("t", "id") } else { ("u", "hash") };
        let placement = placements.of(&layout(table, &[column])).unwrap();
        assert_eq!(placement.target.table.name, table);
        assert_eq!(placement.places, [Place::Key(usize::from(column == "id"))]);
    }
}

#[test]
fn what_is_wrong_with_a_layout_is_an_error_of_the_change_that_has_it() {
    let key = || [Value::Integer(1), Value::Bytes([1].into())];
    let row = |value: Value| key().into_iter().chain([value]).collect::<Vec<_>>();
    let deleted = |layout: &Arc<Layout>, values| {
        vec![Change { operation: Operation::Delete, ..upsert(layout, values) }]
    };
    let has = "it has `id`, `generated`, `hash`, `counted`, `list`, `note`";
    let (generated, counted) = (layout("t", &["id", "hash", "generated"]), layout("t", &["counted"]));
    let unknown = layout("t", &["id", "hash", "none"]);
    let no_column = format!("table `t` has no column `none`; {has}");
    assert_eq!(error(vec![upsert(&unknown, row(Value::Null))]), no_column);
    assert_eq!(error(deleted(&unknown, row(Value::Null))), no_column);
    assert_eq!(
        error(vec![upsert(&generated, row(Value::Null))]),
        "column `generated` of table `t` is generated by PostgreSQL; leave it out"
    );
    assert_eq!(
        error(vec![upsert(&counted, vec![Value::Null])]),
        "column `counted` of table `t` is generated by PostgreSQL; leave it out"
    );
    assert!(tables().resolve(deleted(&generated, row(Value::Null)), Vec::new()).is_ok());
    let no_table = "there is no table `state` in this pipeline; it has `t`, `u`";
    assert_eq!(error(vec![upsert(&layout("state", &["none"]), vec![Value::Null])]), no_table);
    assert_eq!(
        error(vec![upsert(&layout("bare", &[]), Vec::new())]),
        "table `bare` cannot be replicated: it has no primary key"
    );

    // What is wrong with a change before that comes first, and so does a value before it.
    let list = layout("t", &["list", "none"]);
    let no_list = upsert(&list, vec![Value::Bool(true), Value::Null]);
    let wrong = "column `list` of table `t`, which is declared";
    assert_eq!(error(vec![no_list.clone(), upsert(&unknown, row(Value::Null))]), wrong);
    assert_eq!(error(vec![upsert(&unknown, row(Value::Null)), no_list]), no_column);
    let keyless = upsert(&layout("t", &["id", "none"]), vec![Value::Null, Value::Null]);
    assert_eq!(error(vec![keyless]), no_column);
    let keyless = upsert(&layout("t", &["id"]), vec![Value::Integer(1)]);
    assert!(error(vec![keyless]).contains("does not say its key column `hash`"));
}

#[test]
fn a_key_beside_the_row_may_say_what_the_row_does_not() {
    let layout = layout("t", &["id", "hash"]);
    let keyed = |key: &str, id: Value, hash: Value| {
        let change = Change { key: Some(Value::Json(key.into())), ..upsert(&layout, vec![id, hash]) };
        tables().resolve(vec![change], Vec::new()).map(|resolved| {
            assert!(resolved.claims.is_empty());
            resolved.changes[0].key.join(" ")
        })
    };
    let one = Value::Integer(1);
    let bytes = || Value::Bytes([0xab].into());
    assert_eq!(keyed(r#"["\\xab", 1]"#, one.clone(), bytes()).unwrap(), "\\xab 1");
    assert_eq!(keyed(r#"["\\xAB", "01"]"#, text("1"), text("\\xaB")).unwrap(), "\\xab 1");
    assert_eq!(keyed(r#"["\\xAB", null]"#, one.clone(), Value::Null).unwrap(), "\\xab 1");
    assert_eq!(keyed(r#"{"id": 1}"#, Value::Null, bytes()).unwrap(), "\\xab 1");
    let error = keyed(r#"["\\xab", 2]"#, one, bytes()).unwrap_err().to_string();
    assert!(error.contains("its `key` says `2` for column `id`, and the row itself says `1`"), "{error}");
    let error = keyed(r#"["\\xab", null]"#, Value::Null, bytes()).unwrap_err().to_string();
    assert!(error.contains("a null in its key column `id`"), "{error}");
}

#[test]
fn equal_keys_have_one_text() {
    let integer = KeyForm::Integer { least: -5, most: 7 };
    assert_eq!(integer.canonical(" +007 ".into()), Ok("7".into()));
    for (spelled, one) in [("-5", "-5"), ("7", "7"), ("0", "0"), ("-0", "0"), ("05", "5"), ("-05", "-5")] {
        assert_eq!(integer.canonical(spelled.into()), Ok(one.into()));
    }
    for spelled in ["5 ", " 5", "5\n", "+5"] {
        assert_eq!(integer.canonical(spelled.into()), Ok("5".into()));
    }
    assert_eq!(integer.canonical("8".into()), Err("8".into()));
    assert_eq!(integer.canonical("1.0".into()), Err("1.0".into()));
    assert_eq!(KeyForm::Bytes.canonical("\\xABcd".into()), Ok("\\xabcd".into()));
    assert_eq!(KeyForm::Bytes.canonical("\\xabcd".into()), Ok("\\xabcd".into()));
    assert_eq!(KeyForm::Bytes.canonical("\\x".into()), Ok("\\x".into()));
    assert_eq!(KeyForm::Bytes.canonical("a\\\\\\001b".into()), Ok("\\x615c0162".into()));
    assert_eq!(KeyForm::Bytes.canonical("\\xabc".into()), Err("\\xabc".into()));
    assert_eq!(KeyForm::Text { max_chars: Some(2) }.canonical("äöü".into()), Err("äöü".into()));
}
