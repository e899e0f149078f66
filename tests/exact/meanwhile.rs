//! What is made while the writer is running, which it cannot know: a trigger, a rule, a row level security policy.
//! A block is applied as plain SQL would be, or is an error that leaves nothing behind; rollbacks stay exact.

use debshrew::change::Change;
use debshrew::failure::Kind;

use crate::exact::{Wrong, outcome::BOTH, undo};
use crate::support::{Rig, TestDb, changes, connect_as, database, is_rows_missing, whole};

const TABLE: &str =
    "create table t (id integer primary key, owner text, note text); create table log (what text)";

const FIRST: &str = r#"+t {"id": 1, "owner": "a"}
                       +t {"id": 2, "owner": "a"}"#;

/// Each shape of statement: a row that is new or there, with some columns or all, gone, or gone and there again.
const SHAPES: &[(&str, &str)] = &[
    ("new", r#"+t {"id": 3, "owner": "b"}"#),
    ("new_whole", r#"+t {"id": 3, "owner": "b", "note": "n"}"#),
    ("there", r#"+t {"id": 1, "owner": "b"}"#),
    ("there_whole", r#"+t {"id": 1, "owner": "b", "note": "n"}"#),
    (
        "again",
        r#"-t {"id": 1}
           +t {"id": 1, "owner": "b"}"#,
    ),
];

const GONE: (&str, &str) = ("gone", r#"-t {"id": 1}"#);

/// A pipeline whose writer runs when `sql` is run in its schema.
async fn running(test: &TestDb, name: &str, first: &str, sql: &str) -> Rig {
    let mut rig = Rig::up(test, name, TABLE).await;
    rig.commit(0, changes(first)).await;
    rig.run(sql).await;
    rig
}

fn trigger(body: &str, rest: &str) -> String {
    format!(
        "create function fire() returns trigger language plpgsql as $$ begin {body} end $$; \
         create trigger fires {rest} execute function fire()"
    )
}

#[tokio::test]
async fn a_trigger_made_meanwhile_that_keeps_rows_out_makes_the_block_fail() {
    let test = database("exact_meanwhile_kept_out").await;
    let sql = trigger("return null;", "before insert or update on t for each row");
    let mut wrong = Wrong::default();
    for (shape, block) in SHAPES {
        for journaling in BOTH {
            let name = format!("{shape}_{journaling:?}").to_lowercase();
            let mut rig = running(&test, &name, FIRST, &sql).await;
            let before = rig.whole().await;
            // The first one does not know the trigger, and leaves it to who does.
            match rig.try_commit_with(1, changes(block), journaling).await {
                Ok(()) => wrong.0.push(format!("{name} was taken")),
                Err(error) => assert_eq!(error.kind(), Kind::Transient, "{name}: {error:?}"),
            }
            match rig.try_commit_with(1, changes(block), journaling).await {
                Ok(()) => wrong.0.push(format!("{name} was taken")),
                Err(error) if !is_rows_missing(&error) => wrong.0.push(format!("{name}: {error:?}")),
                Err(_) => {}
            }
            if rig.whole().await != before {
                wrong.0.push(format!("{name} left {:?}", rig.whole().await));
            }
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn of_several_blocks_sent_at_once_none_stands_behind_one_that_failed() {
    let test = database("exact_meanwhile_several").await;
    let sql = trigger(
        "if new.owner = 'no' then return null; end if; return new;",
        "before insert or update on t for each row",
    );
    for journaling in BOTH {
        let name = format!("several_{journaling:?}").to_lowercase();
        let mut rig = running(&test, &name, FIRST, &sql).await;
        let blocks: Vec<Vec<Change>> = ["b", "no", "c", "d", "e", "f"]
            .iter()
            .map(|owner| changes(&format!(r#"+t {{"id": 1, "owner": "{owner}"}}"#)))
            .collect();
        let first = rig.try_commit_all(1, blocks.clone(), journaling).await.expect_err("the trigger is new");
        assert_eq!(first.kind(), Kind::Transient, "{first:?}");
        assert_eq!(rig.whole().await, ["t (1,a,)", "t (2,a,)", "checkpoint 0"], "{name}");
        // Whoever takes over knows it.
        let error = rig.try_commit_all(1, blocks, journaling).await.expect_err("the second block was taken");
        assert!(is_rows_missing(&error), "{error:?}");
        assert_eq!(rig.whole().await, ["t (1,b,)", "t (2,a,)", "checkpoint 1"], "{name}");
    }
}

#[tokio::test]
async fn a_delete_that_a_trigger_made_meanwhile_keeps_stays() {
    let test = database("exact_meanwhile_kept").await;
    let sql = trigger("return null;", "before delete on t for each row when (old.id = 1)");
    for journaling in BOTH {
        let name = format!("kept_{journaling:?}").to_lowercase();
        let mut rig = running(&test, &name, FIRST, &sql).await;
        let before = rig.everything().await;
        let block = r#"-t {"id": 1}
                       -t {"id": 2}"#;
        let error = rig.try_commit_with(1, changes(block), journaling).await.expect_err("the trigger is new");
        assert_eq!(error.kind(), Kind::Transient, "{error:?}");
        assert_eq!(rig.everything().await, before);
        rig.try_commit_with(1, changes(block), journaling).await.unwrap();
        assert_eq!(rig.everything().await, ["t (1,a,)"]);
        if format!("{journaling:?}") == "Kept" {
            rig.roll_back(0).await.unwrap();
            assert_eq!(rig.everything().await, before);
        }
    }
}

#[tokio::test]
async fn a_trigger_made_meanwhile_that_sets_a_column_is_rolled_back_exactly() {
    let mut wrong = Wrong::default();
    let test = database("exact_meanwhile_sets").await;
    for (kind, body, rest) in [
        (
            "note",
            "new.note := coalesce(old.note, '') || '+'; return new;",
            "before insert or update on t for each row",
        ),
        ("owner", "new.owner := upper(new.owner); return new;", "before insert or update on t for each row"),
        (
            "raises",
            "raise exception 'never'; return old;",
            "before delete on t for each row when (old.id > 2)",
        ),
        ("keeps", "return null;", "before delete on t for each row when (old.id > 2)"),
    ] {
        for (shape, block) in SHAPES {
            let name = format!("{kind}_{shape}");
            let mut rig = running(&test, &name, FIRST, &trigger(body, rest)).await;
            let before = rig.everything().await;
            // What the trigger changes would not be journaled, unless it is known.
            if let Err(error) = rig.try_commit(1, changes(block)).await {
                assert_eq!(error.kind(), Kind::Transient, "{name}: {}", whole(&error));
                assert_eq!(rig.everything().await, before, "{name}");
                rig.commit(1, changes(block)).await;
            }
            wrong.note(&name, undo(&mut rig, Some(0), &before).await);
        }
    }
    wrong.settle();
}

/// A name and a block.
type Shape = (&'static str, &'static str);

/// A rule for each kind of statement, and the shapes that it changes behind our back.
const RULES: &[(&str, &str, &[Shape])] = &[
    ("no_inserts", "create rule r as on insert to t do instead nothing", &[SHAPES[0], SHAPES[1]]),
    ("no_updates", "create rule r as on update to t do instead nothing", &[SHAPES[2], SHAPES[3]]),
    ("no_deletes", "create rule r as on delete to t do instead nothing", &[GONE]),
    (
        "logged_inserts",
        "create rule r as on insert to t do also insert into log values ('i')",
        &[SHAPES[0], SHAPES[1]],
    ),
    (
        "logged_updates",
        "create rule r as on update to t do also insert into log values ('u')",
        &[SHAPES[2], SHAPES[3]],
    ),
    ("logged_deletes", "create rule r as on delete to t do also insert into log values ('d')", &[GONE]),
    ("some_deletes", "create rule r as on delete to t where old.owner = 'a' do instead nothing", &[GONE]),
];

#[tokio::test]
async fn a_rule_made_meanwhile_is_an_error_and_nothing_is_applied() {
    let test = database("exact_meanwhile_rules").await;
    let mut wrong = Wrong::default();
    for (rule, sql, shapes) in RULES {
        for (shape, block) in *shapes {
            for journaling in BOTH {
                let name = format!("{rule}_{shape}_{journaling:?}").to_lowercase();
                let mut rig = running(&test, &name, FIRST, sql).await;
                let before = rig.whole().await;
                if rig.try_commit_with(1, changes(block), journaling).await.is_ok() {
                    wrong.0.push(format!("{name} was taken"));
                } else if rig.whole().await != before {
                    wrong.0.push(format!("{name} left {:?}", rig.whole().await));
                }
            }
        }
    }
    wrong.settle();
}

/// A role without a superuser's rights, that owns the pipeline's tables or may only write them.
async fn hand_over(rig: &mut Rig, test: &TestDb, role: &str, how: &str) {
    let name = rig.name.clone();
    rig.client
        .batch_execute(&format!(
            "do $$ declare the_table regclass; begin
               if not exists (select from pg_roles where rolname = '{role}') then create role {role} login; end if;
               grant all on schema debshrew, {name}, debshrew_{name} to {role};
               grant all on all tables in schema debshrew, {name}, debshrew_{name} to {role};
               if '{how}' = 'owner' then
                 for the_table in select oid from pg_class where relkind = 'r' \
                   and relnamespace in ('{name}'::regnamespace, 'debshrew_{name}'::regnamespace) loop
                   execute format('alter table %s owner to {role}', the_table);
                 end loop;
               end if;
             end $$"
        ))
        .await
        .unwrap();
    rig.stop().await;
    rig.db = connect_as(&test.as_role(role));
}

#[tokio::test]
async fn a_policy_made_meanwhile_that_hides_rows_is_an_error_and_nothing_is_applied() {
    let test = database("exact_meanwhile_policies").await;
    let mut wrong = Wrong::default();
    for (how, enable) in [
        ("writer", "alter table t enable row level security"),
        ("owner", "alter table t enable row level security; alter table t force row level security"),
    ] {
        for (policy, sql) in [
            ("none", String::new()),
            ("some", "create policy p on t using (owner <> 'a')".to_owned()),
            ("writes", "create policy p on t using (owner <> 'a') with check (true)".to_owned()),
        ] {
            for (shape, block) in SHAPES[2..].iter().chain([&GONE]) {
                for journaling in BOTH {
                    let name = format!("{how}_{policy}_{shape}_{journaling:?}").to_lowercase();
                    let mut rig = Rig::up(&test, &name, TABLE).await;
                    hand_over(&mut rig, &test, &format!("debshrew_test_exact_{how}"), how).await;
                    rig.commit(0, changes(FIRST)).await;
                    rig.run(&format!("{enable}; {sql}")).await;
                    let before = rig.whole().await;
                    if rig.try_commit_with(1, changes(block), journaling).await.is_ok() {
                        wrong.0.push(format!("{name} was taken"));
                    } else if rig.whole().await != before {
                        wrong.0.push(format!("{name} left {:?}", rig.whole().await));
                    }
                }
            }
        }
    }
    wrong.settle();
}

#[tokio::test]
async fn a_policy_made_meanwhile_that_hides_rows_makes_a_rollback_fail_and_change_nothing() {
    let test = database("exact_meanwhile_policies_back").await;
    let mut wrong = Wrong::default();
    for (shape, block) in SHAPES.iter().chain([&GONE]) {
        let name = format!("back_{shape}");
        let mut rig = Rig::up(&test, &name, TABLE).await;
        hand_over(&mut rig, &test, "debshrew_test_exact_back", "writer").await;
        rig.commit(0, changes(FIRST)).await;
        let first = rig.everything().await;
        rig.commit(1, changes(block)).await;
        let before = rig.whole().await;
        rig.run(
            "alter table t enable row level security; create policy p on t using (id > 99) with check (true)",
        )
        .await;
        if rig.roll_back(0).await.is_ok() {
            wrong.0.push(format!("{name}: rolled back to {:?}", rig.everything().await));
            continue;
        }
        assert_eq!(rig.whole().await, before, "{name}");
        rig.run("alter table t disable row level security").await;
        rig.stop().await;
        rig.roll_back(0).await.unwrap_or_else(|error| panic!("{name}: {}", whole(&error)));
        assert_eq!(rig.everything().await, first, "{name}");
    }
    wrong.settle();
}

#[tokio::test]
async fn the_owner_of_the_tables_rolls_back_beside_triggers_without_a_superusers_rights() {
    let test = database("exact_meanwhile_owner").await;
    let mut rig = Rig::up(&test, "owned", TABLE).await;
    hand_over(&mut rig, &test, "debshrew_test_exact_owner", "owner").await;
    rig.run(&trigger("new.note := 'fired'; return new;", "before insert or update on t for each row")).await;
    rig.commit(0, changes(FIRST)).await;
    let before = rig.everything().await;
    rig.run("alter table t disable trigger fires; update t set note = null where id = 2").await;
    rig.run("alter table t enable trigger fires").await;
    let odd = rig.everything().await;
    rig.commit(1, changes(r#"+t {"id": 2, "owner": "b"}"#)).await;
    rig.roll_back(0).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert_eq!(rig.everything().await, odd);
    assert_ne!(odd, before);
}

#[tokio::test]
async fn a_trigger_made_meanwhile_is_noticed_whatever_the_block_does_and_whatever_triggers_there_are() {
    let test = database("exact_meanwhile_noticed").await;
    let first = "create function fire() returns trigger language plpgsql as \
                   $$ begin insert into log values (tg_name); return null; end $$; \
                 create trigger first after insert on t for each row execute function fire()";
    for (name, sql) in [("none", ""), ("one", first)] {
        for (shape, block) in SHAPES.iter().chain([&GONE]) {
            for journaling in BOTH {
                let name = format!("{name}_{shape}_{journaling:?}").to_lowercase();
                let mut rig = Rig::up(&test, &name, &format!("{TABLE}; {sql}")).await;
                rig.commit(0, changes(FIRST)).await;
                rig.run(
                    &trigger("return null;", "after insert or update or delete on t for each row")
                        .replace("fire()", "late()"),
                )
                .await;
                let before = rig.whole().await;
                let error = rig.try_commit_with(1, changes(block), journaling).await.expect_err(&name);
                assert_eq!(error.kind(), Kind::Transient, "{name}: {}", whole(&error));
                assert_eq!(rig.whole().await, before, "{name}");
                rig.try_commit_with(1, changes(block), journaling).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_reference_that_comes_to_cascade_meanwhile_is_refused_before_it_does() {
    let test = database("exact_meanwhile_cascades").await;
    let sql = "create table p (id integer primary key); \
               create table c (id integer primary key, p integer, constraint of_p foreign key (p) references p)";
    let mut rig = Rig::up(&test, "cascades", sql).await;
    rig.commit(0, changes("+p {\"id\": 1}\n+c {\"id\": 1, \"p\": 1}")).await;
    rig.run("alter table c drop constraint of_p, add constraint of_p foreign key (p) references p on delete cascade").await;
    let before = rig.whole().await;
    let error = rig.try_commit(1, changes("-p {\"id\": 1}")).await.expect_err("it cascaded");
    assert_eq!(error.kind(), Kind::Transient, "{}", whole(&error));
    assert_eq!(rig.whole().await, before);
    // Whoever takes over knows better.
    let error = rig.try_commit(1, changes("-p {\"id\": 1}")).await.expect_err("it cascaded");
    assert!(whole(&error).contains("of_p"), "{}", whole(&error));
    assert_eq!(rig.whole().await, before);
}
