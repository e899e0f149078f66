//! Tables outside the pipeline's schema whose rows refer to ours: said beforehand, and never changed by a rollback.

use crate::exact::{Wrong, undo};
use crate::support::{Rig, TestDb, changes, database, whole};

const ACTIONS: &[(&str, &str)] = &[
    ("no_action", ""),
    ("restrict", "on delete restrict"),
    ("cascade", "on delete cascade"),
    ("set_null", "on delete set null"),
    ("set_default", "on delete set default"),
    ("deferred", "deferrable initially deferred"),
    ("deferred_cascade", "on delete cascade deferrable initially deferred"),
];

/// Whether rollbacks overwrite rows or make them again.
const KEYS: &[(&str, &str)] = &[("", ""), ("_unique", ", unique (x)"), ("_late", ", unique (x) deferrable")];

async fn outside(rig: &Rig, name: &str, action: &str) {
    let sql = format!(
        "create schema mine_{name}; \
         create table mine_{name}.favourites (who text, token integer, \
           constraint liked foreign key (token) references {name}.t {action}); \
         insert into mine_{name}.favourites values ('u1', 1), ('u2', 1)"
    );
    rig.client.batch_execute(&sql).await.unwrap();
}

async fn favourites(rig: &Rig, name: &str) -> Vec<String> {
    let sql = format!("select f::text from mine_{name}.favourites f order by 1");
    rig.client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn committed(test: &TestDb, name: &str, unique: &str) -> Rig {
    let sql = format!(
        "create table t (id integer primary key, x text{unique}); create table good (id integer primary key)"
    );
    let mut rig = Rig::up(test, name, &sql).await;
    rig.commit(0, changes(r#"+t {"id": 1, "x": "a"}"#)).await;
    rig
}

#[tokio::test]
async fn a_reference_from_outside_is_refused_with_its_name_and_what_to_do() {
    let test = database("exact_outside").await;
    let mut wrong = Wrong::default();
    for (name, action) in ACTIONS {
        let mut rig = committed(&test, name, "").await;
        outside(&rig, name, action).await;
        let report = rig.migrate("create table more (id integer primary key)").await.unwrap();
        let Some(said) = report.pipelines[0].refused.get("t") else {
            wrong.0.push(format!("{name} was not refused"));
            continue;
        };
        for part in [&*format!("mine_{name}.favourites"), "liked", "drop constraint"] {
            assert!(said.replace('"', "").contains(part), "{name}: `{part}` is not in: {said}");
        }
        assert!(!report.pipelines[0].refused.contains_key("good"));
    }
    wrong.settle();
}

#[tokio::test]
async fn a_reference_from_a_partitioned_table_outside_is_refused() {
    let test = database("exact_outside_parts").await;
    let mut rig = committed(&test, "parts", "").await;
    let sql = "create schema mine; \
               create table mine.all_of (token integer, \
                 constraint liked foreign key (token) references parts.t) partition by list (token); \
               create table mine.one partition of mine.all_of for values in (1)";
    rig.client.batch_execute(sql).await.unwrap();
    let report = rig.migrate("create table more (id integer primary key)").await.unwrap();
    let said = report.pipelines[0].refused.get("t").expect("it was not refused");
    assert!(said.contains("all_of") && said.contains("liked"), "{said}");
}

/// Rolls back though a row that must go is referred to from outside, then takes the reference away.
async fn in_the_way(test: &TestDb, name: &str, unique: &str, action: &str) -> Result<(), String> {
    let mut rig = committed(test, name, unique).await;
    let first = rig.everything().await;
    rig.commit(1, changes("+t {\"id\": 2, \"x\": \"b\"}\n+t {\"id\": 1, \"x\": \"c\"}")).await;
    outside(&rig, name, action).await;
    rig.client.batch_execute(&format!("insert into mine_{name}.favourites values ('u3', 2)")).await.unwrap();
    let (before, theirs) = (rig.whole().await, favourites(&rig, name).await);
    let error = match rig.roll_back(0).await {
        Ok(_) => return Err(format!("rolled back, and left outside {:?}", favourites(&rig, name).await)),
        Err(error) => error,
    };
    assert_eq!((rig.whole().await, favourites(&rig, name).await), (before, theirs.clone()), "{name}");
    if !whole(&error).contains("liked") {
        return Err(whole(&error));
    }
    rig.stop().await;
    // Whoever takes over now sees it as well, and does not pass over the table.
    let error = rig.roll_back(0).await.err().ok_or("rolled back after another took over")?;
    let said = whole(&error);
    assert!(said.contains("`t`") && said.contains("liked"), "{name}: {said}");
    let sql = format!("alter table mine_{name}.favourites drop constraint liked");
    rig.client.batch_execute(&sql).await.unwrap();
    rig.stop().await;
    undo(&mut rig, Some(0), &first).await?;
    assert_eq!(favourites(&rig, name).await, theirs, "{name}");
    Ok(())
}

#[tokio::test]
async fn a_rollback_that_a_reference_from_outside_stands_in_the_way_of_fails_and_names_it() {
    let test = database("exact_outside_meanwhile").await;
    let mut wrong = Wrong::default();
    for (action_name, action) in ACTIONS {
        for (suffix, unique) in KEYS {
            let name = &format!("{action_name}{suffix}");
            wrong.note(name, in_the_way(&test, name, unique, action).await);
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn rows_outside_that_refer_to_a_row_that_stays_are_never_lost() {
    let test = database("exact_outside_stays").await;
    let mut wrong = Wrong::default();
    for (action_name, action) in ACTIONS {
        for (suffix, unique) in KEYS {
            let name = &format!("{action_name}{suffix}");
            let mut rig = committed(&test, name, unique).await;
            rig.commit(1, changes("+t {\"id\": 1, \"x\": \"c\"}")).await;
            outside(&rig, name, action).await;
            let theirs = favourites(&rig, name).await;
            // It may fail; what it must not do is change rows that are not ours.
            let done = rig.roll_back(0).await.is_ok();
            let now = favourites(&rig, name).await;
            if now != theirs {
                wrong.0.push(format!("{name}: rolled back {done}, left outside {now:?}"));
            }
        }
    }
    wrong.settle();
}

/// Ways in which a table that has a journal comes to be refused.
const REFUSED_SINCE: &[(&str, &str)] = &[
    ("unlogged", "alter table t set unlogged"),
    ("rule", "create rule r as on delete to t do instead nothing"),
    ("inherited", "create schema heirs; create table heirs.heir () inherits (t)"),
    (
        "cascades",
        "create schema parents; create table parents.p (id integer primary key); \
         alter table t add foreign key (id) references parents.p on delete cascade not valid",
    ),
];

#[tokio::test]
async fn a_table_with_a_journal_that_has_come_to_be_refused_is_not_passed_over() {
    let test = database("exact_refused_since").await;
    let mut wrong = Wrong::default();
    for (name, sql) in REFUSED_SINCE {
        let mut rig = committed(&test, name, "").await;
        rig.commit(1, changes("+t {\"id\": 1, \"x\": \"c\"}\n+good {\"id\": 1}")).await;
        let before = rig.whole().await;
        rig.stop().await;
        rig.run(sql).await;
        let complete = rig.writer().await.check_complete().await;
        assert!(complete.is_err(), "{name}: nothing keeps further blocks out");
        let error = match rig.roll_back(0).await {
            Err(error) => error,
            Ok(_) => {
                wrong.0.push(format!("{name}: rolled back: {:?}", rig.everything().await));
                continue;
            }
        };
        assert!(whole(&error).contains("`t`"), "{name}: {}", whole(&error));
        assert_eq!(rig.whole().await, before, "{name}");
    }
    wrong.settle();
}

#[tokio::test]
async fn a_table_of_the_schema_that_is_not_replicated_is_outside_as_well() {
    let test = database("exact_outside_beside").await;
    let mut wrong = Wrong::default();
    for (name, action) in ACTIONS {
        let mut rig = committed(&test, name, "").await;
        let sql = format!(
            "create table beside (who text, token integer, constraint liked foreign key (token) references t {action})"
        );
        let report = rig.migrate(&sql).await.unwrap();
        let refused = &report.pipelines[0].refused;
        match refused.get("t") {
            Some(said) if said.contains("liked") && said.contains("drop constraint") => {}
            said => wrong.0.push(format!("{name}: {said:?}")),
        }
        assert!(!refused.contains_key("good"), "{name}");
    }
    wrong.settle();
}

#[tokio::test]
async fn a_row_that_somebody_else_deleted_is_not_made_up_of_what_its_images_hold() {
    let test = database("exact_outside_deleted").await;
    let sql = "create table t (id integer primary key, x text, y text)";
    for (name, by_hand) in [("all", "delete from t"), ("one", "delete from t where id = 2")] {
        let mut rig = Rig::up(&test, name, sql).await;
        rig.commit(0, changes("+t {\"id\": 1, \"x\": \"a\", \"y\": \"b\"}\n+t {\"id\": 2, \"y\": \"c\"}"))
            .await;
        rig.commit(1, changes("+t {\"id\": 1, \"x\": \"d\"}\n+t {\"id\": 2, \"x\": \"e\"}")).await;
        rig.run(by_hand).await;
        let before = rig.whole().await;
        let error = rig.roll_back(0).await.expect_err("it was made up");
        assert!(whole(&error).contains("table `t` would not be what it was"), "{name}: {}", whole(&error));
        assert_eq!(rig.whole().await, before, "{name}");
    }
}
