//! Triggers that were there before the first block: they fire for blocks, as for plain SQL, and not for rollbacks.

use crate::exact::{Wrong, forth_and_back, outcome::BOTH, trigger_states};
use crate::support::{Rig, changes, database, is_rows_missing, whole};

/// What a table may have beside its columns, which decides how a rollback puts its rows back.
const KEYS: &[(&str, &str)] = &[
    ("", "primary key (id)"),
    ("_unique", "primary key (id), unique (id, owner)"),
    ("_late", "primary key (id) deferrable"),
];

/// Name, the body of the function `fire`, and the rest of `create trigger …`.
const KINDS: &[(&str, &str, &str)] = &[
    ("fixed", "new.note := 'fired'; return new;", "before insert or update on t for each row"),
    (
        "clock",
        "new.note := clock_timestamp()::text; return new;",
        "before insert or update on t for each row",
    ),
    (
        "version",
        "new.version := coalesce(old.version, 0) + 1; return new;",
        "before insert or update on t for each row",
    ),
    (
        "on_update",
        "new.version := coalesce(old.version, 0) + 1; return new;",
        "before update on t for each row",
    ),
    ("on_insert", "new.version := 7; return new;", "before insert on t for each row"),
    ("rewrites", "new.owner := upper(new.owner); return new;", "before insert or update on t for each row"),
    (
        "when_changed",
        "new.version := coalesce(new.version, 0) + 1; return new;",
        "before update on t for each row when (new.owner is distinct from old.owner)",
    ),
    ("of_column", "new.note := old.owner; return new;", "before update of owner on t for each row"),
    ("counts", "new.version := nextval('numbers'); return new;", "before insert or update on t for each row"),
    (
        "after",
        "insert into AUDIT values (tg_op); return null;",
        "after insert or update or delete on t for each row",
    ),
    (
        "statements",
        "insert into AUDIT values (tg_op); return null;",
        "after insert or update or delete on t for each statement",
    ),
    (
        "no_longer",
        "if old.id > 3 then raise exception 'rows are never deleted'; end if; return old;",
        "before delete on t for each row",
    ),
    ("keeps_all", "if old.id > 3 then return null; end if; return old;", "before delete on t for each row"),
    (
        "not_back",
        "if new.owner < old.owner then raise exception 'owners only go up'; end if; return new;",
        "before update on t for each row",
    ),
];

/// Rows that are updated, inserted, deleted, and deleted and made again, in columns that differ.
const BLOCKS: &[&str] = &[
    r#"+t {"id": 1, "owner": "a", "note": "n"}
       +t {"id": 2, "owner": "a"}
       +t {"id": 3, "owner": "a", "version": 5}"#,
    r#"+t {"id": 1, "owner": "b"}
       -t {"id": 2}
       -t {"id": 3}
       +t {"id": 3, "note": "again"}
       +t {"id": 4, "owner": "b"}
       +t {"id": 5, "note": "b"}"#,
    r#"+t {"id": 1, "note": "c"}
       +t {"id": 2, "owner": "c"}
       +t {"id": 3, "owner": "c", "note": "c"}
       +t {"id": 4, "version": 9}"#,
];

fn table(name: &str, key: &str, body: &str, rest: &str) -> String {
    format!(
        "create table t (id integer, owner text, version integer, note text, {key}); \
         create sequence numbers; \
         create function fire() returns trigger language plpgsql set search_path = {name} as \
           $$ begin {} end $$; \
         create trigger fires {rest} execute function fire()",
        body.replace("AUDIT", "audits.log")
    )
}

#[tokio::test]
async fn rollbacks_are_exact_beside_every_kind_of_trigger() {
    let test = database("exact_triggers").await;
    let client = test.connect().await;
    client.batch_execute("create schema audits; create table audits.log (what text)").await.unwrap();
    let mut wrong = Wrong::default();
    for (kind, body, rest) in KINDS {
        for (suffix, key) in KEYS {
            let name = format!("{kind}{suffix}");
            let mut rig = Rig::up(&test, &name, &table(&name, key, body, rest)).await;
            wrong.note(&name, forth_and_back(&mut rig, BLOCKS).await);
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn no_trigger_fires_in_a_rollback_and_each_stays_enabled_as_it_was() {
    let test = database("exact_triggers_enabled").await;
    let client = test.connect().await;
    client.batch_execute("create schema audits; create table audits.log (what text)").await.unwrap();
    let (_, body, rest) = KINDS.iter().find(|(name, ..)| *name == "after").unwrap();
    let log = "select count(*) from audits.log";
    let mut wrong = Wrong::default();
    for (name, enable) in [
        ("origin", "enable trigger fires"),
        ("always", "enable always trigger fires"),
        ("replica", "enable replica trigger fires"),
        ("disabled", "disable trigger fires"),
    ] {
        let sql = format!("{}; alter table t {enable}", table(name, "primary key (id)", body, rest));
        let mut rig = Rig::up(&test, name, &sql).await;
        for (height, block) in (0..).zip(BLOCKS) {
            rig.commit(height, changes(block)).await;
        }
        let states = trigger_states(&rig).await;
        let fired: i64 = client.query_one(log, &[]).await.unwrap().get(0);
        rig.roll_back(0).await.unwrap_or_else(|error| panic!("{name}: {}", whole(&error)));
        let now: i64 = client.query_one(log, &[]).await.unwrap().get(0);
        if now != fired {
            wrong.0.push(format!("{name} fired {} times in a rollback", now - fired));
        }
        assert_eq!(trigger_states(&rig).await, states, "{name}");
    }
    wrong.settle();
}

#[tokio::test]
async fn a_deferred_constraint_trigger_does_not_fire_for_a_rollback() {
    let test = database("exact_triggers_deferred").await;
    let sql = "
        create table t (id integer primary key, owner text, version integer, note text);
        create function fire() returns trigger language plpgsql as \
          $$ begin raise exception 'row % went away', old.id; end $$;
        create constraint trigger stays after delete on t deferrable initially deferred \
          for each row when (old.id > 3) execute function fire()";
    let mut rig = Rig::up(&test, "deferred", sql).await;
    forth_and_back(&mut rig, BLOCKS).await.unwrap();
}

#[tokio::test]
async fn triggers_of_partitions_do_not_fire_in_a_rollback() {
    let test = database("exact_triggers_parts").await;
    let sql = "
        create table t (id integer primary key, owner text, version integer, note text) partition by range (id);
        create table low partition of t for values from (0) to (4);
        create table high partition of t for values from (4) to (99);
        create function fire() returns trigger language plpgsql as \
          $$ begin new.version := coalesce(old.version, 0) + 1; return new; end $$;
        create function all_of() returns trigger language plpgsql as \
          $$ begin new.note := coalesce(old.note, '') || '+'; return new; end $$;
        create trigger counts before insert or update on low for each row execute function fire();
        create trigger adds before insert or update on t for each row execute function all_of()";
    let mut rig = Rig::up(&test, "parts", sql).await;
    forth_and_back(&mut rig, BLOCKS).await.unwrap();
}

/// A block after `+t {"id": 1, "owner": "a"}` and `+t {"id": 2, "owner": "a"}`, and what then is there: as plain SQL
/// does it, one change after the other.
const TWICE: &[(&str, &str, &[&str])] = &[
    (
        "changed_twice",
        r#"+t {"id": 1, "owner": "b"}
           +t {"id": 1, "owner": "c"}"#,
        &["t (1,c,3,)", "t (2,a,1,)"],
    ),
    (
        "changed_twice_in_other_columns",
        r#"+t {"id": 1, "owner": "b"}
           +t {"id": 2, "owner": "b"}
           +t {"id": 1, "note": "n"}"#,
        &["t (1,b,3,n)", "t (2,b,2,)"],
    ),
    (
        "made_and_changed",
        r#"+t {"id": 3, "owner": "b"}
           +t {"id": 3, "note": "n"}"#,
        &["t (1,a,1,)", "t (2,a,1,)", "t (3,b,2,n)"],
    ),
    (
        "deleted_and_made_again",
        r#"+t {"id": 1, "owner": "b"}
           -t {"id": 1}
           +t {"id": 1, "owner": "c"}"#,
        &["t (1,c,1,)", "t (2,a,1,)"],
    ),
    (
        "made_deleted_and_made",
        r#"+t {"id": 3, "owner": "b"}
           +t {"id": 3, "owner": "b"}
           -t {"id": 3}
           +t {"id": 3, "note": "n"}"#,
        &["t (1,a,1,)", "t (2,a,1,)", "t (3,,1,n)"],
    ),
];

#[tokio::test]
async fn a_row_that_changes_twice_in_a_block_fires_its_trigger_twice() {
    let test = database("exact_triggers_twice").await;
    let (_, body, rest) = KINDS.iter().find(|(name, ..)| *name == "version").unwrap();
    let before = r#"+t {"id": 1, "owner": "a"}
                    +t {"id": 2, "owner": "a"}"#;
    let mut wrong = Wrong::default();
    for (name, block, expected) in TWICE {
        for (suffix, key) in KEYS {
            let name = format!("{name}{suffix}");
            let mut rig = Rig::up(&test, &name, &table(&name, key, body, rest)).await;
            let done = forth_and_back(&mut rig, &[before, block]).await;
            let done = done.and_then(|rows| (rows == *expected).then_some(()).ok_or(format!("{rows:?}")));
            wrong.note(&name, done);
        }
    }
    wrong.settle();
}

/// Triggers, whether each may look at more than its row, and the rest of `create trigger …`.
const LOOKING: &[(&str, bool, &str, &str)] = &[
    ("clock", false, "new.note := now(); return new;", "before insert on t for each row"),
    (
        "upper",
        false,
        "new.note := upper(new.owner); return new;",
        "before insert or update on t for each row",
    ),
    (
        "raises",
        false,
        "if new.id < 0 then raise 'no %', new.id; end if; return new;",
        "before insert on t for each row",
    ),
    ("when_given", false, "return new;", "before insert on t for each row when (new.owner <> 'x')"),
    ("truncates", false, "raise exception 'never'; perform 1;", "before truncate on t for each statement"),
    ("counts", true, "new.version := nextval('numbers'); return new;", "before insert on t for each row"),
    ("chosen", true, "new.version := (select 1); return new;", "before insert on t for each row"),
    ("logs", true, "insert into AUDIT values (tg_op); return null;", "after insert on t for each row"),
    ("statement", true, "return null;", "after insert on t for each statement"),
    ("mine", true, "new.version := mine(); return new;", "before insert on t for each row"),
    ("overloaded", true, "new.note := lower(new.id); return new;", "before insert on t for each row"),
    ("when_mine", true, "return new;", "before insert on t for each row when (mine() = 1)"),
];

#[tokio::test]
async fn only_a_trigger_that_may_look_further_than_its_row_takes_rows_one_by_one() {
    let test = database("exact_triggers_looking").await;
    let client = test.connect().await;
    client.batch_execute("create schema audits; create table audits.log (what text)").await.unwrap();
    let block = r#"+t {"id": 3, "owner": "a"}
                   +t {"id": 2, "owner": "a"}
                   +t {"id": 1, "owner": "a"}"#;
    let mut wrong = Wrong::default();
    for (name, looks, body, rest) in LOOKING {
        let functions = "create function mine() returns integer language plpgsql as 'begin return 1; end'; \
                         create function lower(integer) returns text language plpgsql as 'begin return 1; end'";
        let sql = format!("{functions}; {}", table(name, "primary key (id)", body, rest));
        let mut rig = Rig::up(&test, name, &sql).await;
        rig.commit(0, changes(block)).await;
        // The number of the command that made a row.
        let sql = format!("select count(distinct cmin::text) from {name}.t");
        let statements: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
        if (statements > 1) != *looks {
            wrong.0.push(format!("{name}: {statements} statements"));
        }
    }
    wrong.settle();
}

/// Triggers that cannot be replicated beside, and a part of the reason.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "moves_the_key",
        "create function fire() returns trigger language plpgsql as \
           $$ begin new.id := new.id + 100; return new; end $$; \
         create trigger fires before insert on t for each row execute function fire()",
        "fires",
    ),
    (
        "writes_other_rows_of_its_table",
        "create function fire() returns trigger language plpgsql as \
           $$ begin update t set note = 'last' where id = new.id - 1; return null; end $$; \
         create trigger fires after insert on t for each row execute function fire()",
        "fires",
    ),
    (
        "moves_the_key_on_update",
        "create function fire() returns trigger language plpgsql as \
           $$ begin NEW . id = old.id; return new; end $$; \
         create trigger fires before update on t for each row execute function fire()",
        "fires",
    ),
    (
        "moves_a_quoted_key",
        "create function fire() returns trigger language plpgsql as \
           $$ begin new.\"id\":=abs(new.id); return new; end $$; \
         create trigger fires before insert on t for each row execute function fire()",
        "fires",
    ),
    (
        "suppresses",
        "create trigger fires before update on t for each row execute function suppress_redundant_updates_trigger()",
        "suppress_redundant_updates_trigger",
    ),
];

#[tokio::test]
async fn triggers_that_move_rows_or_keep_them_unwritten_are_refused() {
    let test = database("exact_triggers_refused").await;
    let mut wrong = Wrong::default();
    for (name, sql, reason) in REFUSED {
        let mut rig = Rig::up(&test, name, "create table good (id integer primary key)").await;
        let sql = format!("create table t (id integer primary key, owner text); {sql}");
        let report = rig.migrate(&sql).await.unwrap_or_else(|error| panic!("{name}: {}", whole(&error)));
        match report.pipelines[0].refused.get("t") {
            Some(said) => assert!(said.contains(reason), "{name}: {said}"),
            None => wrong.0.push(format!("{name} was not refused")),
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn a_trigger_that_only_reads_the_key_is_not_refused() {
    let test = database("exact_triggers_read_key").await;
    let sql = "
        create table t (id integer primary key, owner text, identity integer);
        create function fire() returns trigger language plpgsql as \
          $$ begin if new.id = 7 then new.owner := new.id::text; end if; new.identity := new.id; return new; end $$;
        create trigger fires before insert or update on t for each row execute function fire()";
    let mut rig = Rig::up(&test, "read_key", "create table good (id integer primary key)").await;
    let report = rig.migrate(sql).await.unwrap();
    assert!(report.pipelines[0].refused.is_empty(), "{:?}", report.pipelines[0].refused);
    rig.commit(0, changes(r#"+t {"id": 7}"#)).await;
    assert_eq!(rig.everything().await, ["t (7,7,7)"]);
}

/// Ways to move a key that the function's text does not show.
const HIDDEN: &[(&str, &str)] = &[
    ("by_record", "new := jsonb_populate_record(new, jsonb_build_object('id', new.id + 100)); return new;"),
    ("by_row", "select new.id + 100, new.owner, new.version, new.note into new; return new;"),
];

#[tokio::test]
async fn a_block_whose_keys_a_trigger_moves_in_a_hidden_way_is_not_applied() {
    let test = database("exact_triggers_hidden").await;
    let mut wrong = Wrong::default();
    for (way, body) in HIDDEN {
        for (shape, event, block) in [
            ("new", "insert", r#"+t {"id": 2, "owner": "b"}"#),
            ("there", "update", r#"+t {"id": 1, "owner": "b"}"#),
            ("whole", "update", r#"+t {"id": 1, "owner": "b", "version": 1, "note": "n"}"#),
            ("again", "insert", "-t {\"id\": 1}\n+t {\"id\": 1, \"owner\": \"b\"}"),
        ] {
            for journaling in BOTH {
                let name = format!("{way}_{shape}_{journaling:?}").to_lowercase();
                let rest = format!("before {event} on t for each row when (new.owner = 'b')");
                let mut rig = Rig::up(&test, &name, &table(&name, "primary key (id)", body, &rest)).await;
                rig.commit(0, changes(r#"+t {"id": 1, "owner": "a"}"#)).await;
                let before = rig.whole().await;
                if rig.try_commit_with(1, changes(block), journaling).await.is_ok() {
                    wrong.0.push(format!("{name} was taken: {:?}", rig.everything().await));
                } else if rig.whole().await != before {
                    wrong.0.push(format!("{name} left {:?}", rig.whole().await));
                }
            }
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn a_row_that_a_trigger_keeps_out_is_missed_with_and_without_a_journal() {
    let test = database("exact_triggers_kept_out").await;
    let body = "if new.owner = 'no' then return null; end if; return new;";
    let rest = "before insert or update on t for each row";
    let mut wrong = Wrong::default();
    for (shape, block) in [
        ("new", "+t {\"id\": 3, \"owner\": \"yes\"}\n+t {\"id\": 4, \"owner\": \"no\"}"),
        ("there", r#"+t {"id": 1, "owner": "no"}"#),
        ("whole", r#"+t {"id": 1, "owner": "no", "version": 1, "note": "n"}"#),
        ("twice", "+t {\"id\": 1, \"owner\": \"no\"}\n+t {\"id\": 1, \"owner\": \"yes\"}"),
        ("again", "-t {\"id\": 1}\n+t {\"id\": 1, \"owner\": \"no\"}"),
    ] {
        for journaling in BOTH {
            let name = format!("{shape}_{journaling:?}").to_lowercase();
            let mut rig = Rig::up(&test, &name, &table(&name, "primary key (id)", body, rest)).await;
            rig.commit(0, changes(r#"+t {"id": 1, "owner": "a"}"#)).await;
            let before = rig.whole().await;
            match rig.try_commit_with(1, changes(block), journaling).await {
                Ok(()) => wrong.0.push(format!("{name} was taken: {:?}", rig.everything().await)),
                Err(error) if !is_rows_missing(&error) => wrong.0.push(format!("{name}: {error:?}")),
                Err(_) if rig.whole().await != before => {
                    wrong.0.push(format!("{name} left {:?}", rig.whole().await))
                }
                Err(_) => {}
            }
        }
    }
    wrong.settle();
}
