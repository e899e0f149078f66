//! What is said of what is refused: enough to find the row, the trigger or the constraint.

use crate::exact::Wrong;
use crate::support::{Rig, changes, database, whole};

/// Each with its tables, a block, and parts of what is said of it.
const BLOCKS: &[(&str, &str, &str, &[&str])] = &[
    (
        "clock",
        "create table t (at timestamptz, id integer primary key)",
        r#"+t {"at": "now", "id": 5}"#,
        &["column `at` of table `t`", "in the row `id` = `5`", "means another time"],
    ),
    (
        "prefix",
        "create table t (a text, b integer, x bytea, primary key (a, b))",
        r#"+t {"a": "one", "b": 2, "x": "0xdead"}"#,
        &["column `x` of table `t`", "in the row `a` = `one`, `b` = `2`"],
    ),
    (
        "kind",
        "create table t (a text, b integer, x integer[], primary key (a, b))",
        r#"+t {"a": "one", "b": 2, "x": true}"#,
        &["column `x` of table `t`", "in the row `a` = `one`, `b` = `2`"],
    ),
    (
        "part_of_a_key",
        "create table t (a text, b integer, c integer, primary key (a, b, c))",
        r#"+t {"a": "one", "b": "two", "c": 3}"#,
        &["key column `b` of table `t`", "cannot hold `two`", "in the row `a` = `one`, `c` = `3`"],
    ),
    (
        "scale",
        "create table t (a text, b numeric(6, 2), primary key (a, b))",
        "+t {\"a\": \"one\", \"b\": 1.50}\n+t {\"a\": \"two\", \"b\": 1.555}",
        &["key column `b` of table `t`", "in the row `a` = `two`, `b` = `1.555`"],
    ),
    (
        "input",
        "create table t (id integer primary key, x integer)",
        r#"+t {"id": 1, "x": "1"}
           +t {"id": 4, "x": "4"}
           +t {"id": 3, "x": "three"}
           +t {"id": 2, "x": "two"}
           +t {"id": 5, "x": "5"}"#,
        &["table `t`, at column `x`, in the row `id` = `2`", "invalid input syntax"],
    ),
    (
        "length",
        "create table t (id text, n integer, x varchar(3), primary key (id, n))",
        r#"+t {"id": "a", "n": 1, "x": "abc"}
           +t {"id": "b", "n": 1, "x": "abcd"}
           +t {"id": "c", "n": 1, "x": "abc"}"#,
        &["table `t`, at column `x`, in the row `id` = `b`, `n` = `1`", "too long"],
    ),
    (
        "kept_out",
        "create table t (id integer primary key, x text); \
         create function fire() returns trigger language plpgsql as 'begin return null; end'; \
         create function late() returns trigger language plpgsql as 'begin return null; end'; \
         create trigger \"The bouncer\" before insert on t for each row when (new.x = 'no') execute function fire(); \
         create trigger looker after insert on t for each row when (new.x = 'looked') execute function late()",
        r#"+t {"id": 1, "x": "yes"}
           +t {"id": 2, "x": "no"}
           +t {"id": 3, "x": "yes"}"#,
        &[
            "table `t`, in the row `id` = `2`: 0 rows were written where 1",
            "its trigger `The bouncer` must have kept",
        ],
    ),
    (
        "kept_out_by_one_of_two",
        "create table t (id integer primary key, x text); \
         create function fire() returns trigger language plpgsql as \
           $$ begin if new.x = 'no' then return null; end if; return new; end $$; \
         create trigger one before insert on t for each row execute function fire(); \
         create trigger two before insert or update on t for each row execute function fire()",
        r#"+t {"id": 1, "x": "yes"}
           +t {"id": 2, "x": "no"}"#,
        &["table `t`, in the row `id` = `2`", "one of its triggers `one`, `two` must have kept"],
    ),
];

#[tokio::test]
async fn what_is_refused_is_said_with_its_row() {
    let test = database("exact_messages").await;
    let mut wrong = Wrong::default();
    for (name, sql, block, parts) in BLOCKS {
        let mut rig = Rig::up(&test, name, sql).await;
        match rig.try_commit(0, changes(block)).await {
            Ok(_) => wrong.0.push(format!("{name} was taken")),
            Err(error) => {
                let said = whole(&error);
                if !parts.iter().all(|part| said.contains(part)) {
                    wrong.0.push(format!("{name}: {said}"));
                }
            }
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn advice_on_unique_values_can_be_followed() {
    let test = database("exact_messages_unique").await;
    let sql = "create table plain (id integer primary key, a text unique); \
               create table lower (id integer primary key, a text); create unique index on lower (lower(a)); \
               create table partly (id integer primary key, a text); create unique index on partly (a) where a <> ''; \
               create table followed (id integer primary key, a text, \
                 exclude using btree (lower(a) with =) where (a <> '') deferrable)";
    let (mut rig, report) = Rig::up_with_report(&test, "uniques", sql).await;
    let said = |table: &str| -> Vec<&str> {
        let of =
            report.pipelines[0].advice.iter().filter(|(of, text)| of == table && text.contains("row by row"));
        of.map(|(_, text)| text.as_str()).collect()
    };
    assert!(
        matches!(&*said("plain"), [one] if one.contains("as a `deferrable` constraint")),
        "{:?}",
        said("plain")
    );
    for table in ["lower", "partly"] {
        let ok = matches!(&*said(table), [one] if one.contains("exclude using btree") && !one.contains("as a `deferrable`"));
        assert!(ok, "{:?}", said(table));
    }
    assert_eq!(said("followed"), [] as [&str; 0]);
    rig.commit(0, changes("+followed {\"id\": 1, \"a\": \"x\"}\n+followed {\"id\": 2, \"a\": \"y\"}")).await;
    rig.commit(1, changes("+followed {\"id\": 1, \"a\": \"Y\"}\n+followed {\"id\": 2, \"a\": \"X\"}")).await;
    let rows: Vec<String> =
        rig.everything().await.into_iter().filter(|row| row.starts_with("followed")).collect();
    assert_eq!(rows, ["followed (1,Y)", "followed (2,X)"]);
}

#[tokio::test]
async fn constraints_that_images_do_not_meet_are_said_by_name() {
    let test = database("exact_messages_constraints").await;
    let sql = "create table p (id integer primary key, x text); \
               create table t (id integer primary key, a integer, b text, p integer)";
    let mut rig = Rig::up(&test, "named", sql).await;
    rig.commit(0, changes(r#"+t {"id": 1, "a": -1, "b": "x", "p": 7}"#)).await;
    rig.commit(1, changes("+p {\"id\": 1}\n+t {\"id\": 1, \"a\": 1, \"b\": \"y\", \"p\": 1}")).await;
    let sql = "alter table t add constraint \"Above all\" check (a > 0), add constraint to_p foreign key (p) references p; \
               create unique index lower_b on t (lower(b))";
    let report = rig.migrate(sql).await.unwrap();
    let cut = report.pipelines[0].cut.join("\n");
    for part in ["`Above all` (CHECK ((a > 0)))", "`to_p` (FOREIGN KEY (p)", "`lower_b` (unique "] {
        assert!(cut.contains(part), "{part}: {cut}");
    }
}

#[tokio::test]
async fn a_log_that_triggers_fill_is_to_be_kept_in_another_schema() {
    let test = database("exact_messages_log").await;
    let sql = "create table t (id integer primary key); create table log (id serial primary key, what integer); \
               create function fire() returns trigger language plpgsql as \
                 'begin insert into log (what) values (new.id); return null; end'; \
               create trigger logs after insert on t for each row execute function fire()";
    let (_rig, report) = Rig::up_with_report(&test, "logged", sql).await;
    let said = &report.pipelines[0].refused["t"];
    assert!(
        said.contains("an audit") && said.contains("alter table \"logged\".\"log\" set schema"),
        "{said}"
    );
}
