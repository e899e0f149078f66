//! Whether a block is journaled decides neither whether it can be applied nor what it leaves.

use crate::exact::{Wrong, blocks_of, plain::Plain};
use crate::support::{Journaling, Rig, TestDb, database, whole};

pub const BOTH: [Journaling; 2] = [Journaling::Kept, Journaling::Skipped];

struct Case {
    name: &'static str,
    sql: &'static str,
    first: &'static str,
    then: &'static str,
    /// Whether plain SQL applies it, one change after the other; it is applied then.
    valid: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "counts_inserts",
        sql: "create table t (id integer primary key, x text, n integer); create sequence numbers; \
              create function fire() returns trigger language plpgsql as \
                $$ begin new.n := nextval(tg_table_schema || '.numbers'); return new; end $$; \
              create trigger fires before insert on t for each row execute function fire()",
        first: r#"+t {"id": 1, "x": "a", "n": 0}"#,
        then: r#"+t {"id": 1, "x": "b", "n": 0}
                 +t {"id": 2, "x": "b", "n": 0}"#,
        valid: true,
    },
    Case {
        name: "sets_at_insert",
        sql: "create table t (id integer primary key, x text); \
              create function fire() returns trigger language plpgsql as \
                $$ begin new.x := new.x || ' made'; return new; end $$; \
              create trigger fires before insert on t for each row execute function fire()",
        first: r#"+t {"id": 1, "x": "a"}"#,
        then: r#"+t {"id": 1, "x": "b"}"#,
        valid: true,
    },
    Case {
        name: "keeps_inserts_out",
        sql: "create table t (id integer primary key, x text); \
              create function fire() returns trigger language plpgsql as 'begin return null; end'; \
              create trigger fires before insert on t for each row when (new.x = 'no') execute function fire()",
        first: r#"+t {"id": 1, "x": "a"}"#,
        then: r#"+t {"id": 1, "x": "no"}"#,
        valid: true,
    },
    Case {
        name: "refuses_inserts",
        sql: "create table t (id integer primary key, x text); \
              create function fire() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$; \
              create trigger fires before insert on t for each row when (new.x = 'no') execute function fire()",
        first: r#"+t {"id": 1, "x": "a"}"#,
        then: r#"+t {"id": 1, "x": "no"}"#,
        valid: true,
    },
    Case {
        name: "logs_operations",
        sql: "create table t (id integer primary key, x text, log text); \
              create function fire() returns trigger language plpgsql as \
                $$ begin new.log := concat(old.log, ' ', tg_op); return new; end $$; \
              create trigger fires before insert or update on t for each row execute function fire()",
        first: r#"+t {"id": 1, "x": "a", "log": ""}"#,
        then: r#"+t {"id": 1, "x": "b"}
                 +t {"id": 1, "x": "c"}
                 -t {"id": 1}
                 +t {"id": 1, "x": "d"}"#,
        valid: true,
    },
    Case {
        name: "handed_to_a_new_row_too_early",
        sql: "create table t (id integer primary key, a integer unique)",
        first: r#"+t {"id": 2, "a": 2}"#,
        then: r#"+t {"id": 3, "a": 2}
                 +t {"id": 2, "a": 3}"#,
        valid: false,
    },
    Case {
        name: "handed_to_a_new_row",
        sql: "create table t (id integer primary key, a integer unique)",
        first: r#"+t {"id": 2, "a": 2}"#,
        then: r#"+t {"id": 2, "a": 3}
                 +t {"id": 3, "a": 2}"#,
        valid: true,
    },
    Case {
        name: "handed_down",
        sql: "create table t (id integer primary key, a integer unique)",
        first: "+t {\"id\": 1, \"a\": 1}\n+t {\"id\": 2, \"a\": 2}",
        then: r#"+t {"id": 1, "a": 9}
                 +t {"id": 2, "a": 1}
                 +t {"id": 1, "a": 2}"#,
        valid: true,
    },
    Case {
        name: "swapped_at_once",
        sql: "create table t (id integer primary key, a integer unique)",
        first: "+t {\"id\": 1, \"a\": 1}\n+t {\"id\": 2, \"a\": 2}",
        then: r#"+t {"id": 1, "a": 2}
                 +t {"id": 2, "a": 1}"#,
        valid: false,
    },
    Case {
        name: "handed_on_by_range",
        sql: "create table t (id integer primary key, r int4range, exclude using gist (r with &&))",
        first: r#"+t {"id": 2, "r": "[1,5)"}"#,
        then: r#"+t {"id": 3, "r": "[2,4)"}
                 +t {"id": 2, "r": "[5,9)"}"#,
        valid: false,
    },
    Case {
        name: "counts_by_default",
        sql: "create table t (id integer primary key, x text, n serial)",
        first: r#"+t {"id": 1, "x": "a"}"#,
        then: r#"+t {"id": 1, "x": "b"}
                 +t {"id": 2, "x": "b"}"#,
        valid: true,
    },
    Case {
        name: "counts_all_by_default",
        sql: "create table t (id integer primary key, x text, n serial)",
        first: r#"+t {"id": 1, "x": "a", "n": 7}"#,
        then: r#"+t {"id": 1, "x": "b", "n": 8}
                 +t {"id": 2, "x": "b"}
                 -t {"id": 1}
                 +t {"id": 1, "x": "c"}"#,
        valid: true,
    },
    Case {
        name: "shares_a_sequence",
        sql: "create sequence numbers; \
              create table a (id integer primary key, n integer default nextval('numbers')); \
              create table b (id integer primary key, n integer default nextval('numbers'))",
        first: r#"+a {"id": 9}"#,
        then: r#"+b {"id": 1}
                 +a {"id": 1}
                 +b {"id": 2}"#,
        valid: true,
    },
    Case {
        name: "shares_a_sequence_by_name",
        sql: "create sequence numbers; create domain number as integer default nextval('numbers'); \
              create table a (id integer primary key, n number); \
              create function home() returns text language sql immutable set search_path from current as \
                'select current_schema()::text'; \
              create table b (id integer primary key, n integer default nextval(home() || '.numbers'))",
        first: r#"+a {"id": 9}"#,
        then: r#"+b {"id": 1}
                 +a {"id": 2}
                 +b {"id": 2}"#,
        valid: true,
    },
    Case {
        name: "default_counts_rows_of_another",
        sql: "create table b (id integer primary key, x text); \
              create function rows() returns integer language plpgsql set search_path from current as \
                'begin return (select count(*) from b); end'; \
              create table a (id integer primary key, n integer default rows())",
        first: r#"+b {"id": 9}"#,
        then: r#"+a {"id": 1}
                 +b {"id": 1}
                 +a {"id": 2}
                 -b {"id": 9}
                 +a {"id": 3}"#,
        valid: true,
    },
    Case {
        name: "default_looks_at_its_table",
        sql: "create function highest() returns integer language plpgsql stable set search_path from current as \
                'begin return (select coalesce(max(n), 0) from t); end'; \
              create domain next as integer default highest() + 1; \
              create table t (id integer primary key, n next)",
        first: r#"+t {"id": 9}"#,
        then: r#"+t {"id": 2}
                 +t {"id": 1}"#,
        valid: true,
    },
    Case {
        name: "default_counts_in_a_table",
        sql: "create table counter (n integer); insert into counter values (0); \
              create function next() returns integer language sql set search_path from current as \
                'update counter set n = n + 1 returning n'; \
              create table a (id integer primary key, n integer default next()); \
              create table b (id integer primary key, n integer default -next())",
        first: r#"+a {"id": 9}"#,
        then: r#"+b {"id": 1}
                 +a {"id": 1}
                 +b {"id": 2, "n": 7}
                 +b {"id": 3}"#,
        valid: true,
    },
    Case {
        name: "no_number_goes_to_a_try_that_fails",
        sql: "create table names (id integer primary key, name text unique, note text); \
              create table counted (id integer primary key, n serial)",
        first: r#"+names {"id": 1, "name": "a"}
                  +names {"id": 2, "name": "b"}
                  +counted {"id": 9}"#,
        then: r#"+counted {"id": 1}
                 +names {"id": 1, "name": "c"}
                 +names {"id": 2, "name": "a", "note": "n"}
                 +names {"id": 1, "name": "b"}"#,
        valid: true,
    },
    Case {
        name: "trigger_counts_rows_of_another",
        sql: "create table a (id integer primary key, n integer); \
              create table b (id integer primary key, x text); \
              create function fire() returns trigger language plpgsql set search_path from current as \
                'begin select count(*) from b into new.n; return new; end'; \
              create trigger fires before insert on a for each row execute function fire()",
        first: r#"+b {"id": 9}"#,
        then: r#"+b {"id": 1}
                 +a {"id": 1}
                 +b {"id": 2}
                 +a {"id": 2}"#,
        valid: true,
    },
    Case {
        name: "trigger_fills_from_another_row",
        sql: "create table t (id integer primary key, n integer, note text); \
              create function fire() returns trigger language plpgsql set search_path from current as \
                'begin new.n := coalesce((select max(n) from t), 0) + 1; return new; end'; \
              create trigger fires before insert or update on t for each row execute function fire()",
        first: r#"+t {"id": 2}"#,
        then: r#"+t {"id": 3}
                 +t {"id": 1, "note": "n"}
                 +t {"id": 4}"#,
        valid: true,
    },
    Case {
        name: "trigger_counts_in_turn",
        sql: "create table t (id integer primary key, x text, n integer); create sequence numbers; \
              create function fire() returns trigger language plpgsql set search_path from current as \
                $$ begin new.n := nextval('numbers'); return new; end $$; \
              create trigger fires before insert or update on t for each row execute function fire()",
        first: r#"+t {"id": 1, "x": "a"}"#,
        then: r#"+t {"id": 2, "x": "b"}
                 +t {"id": 1, "x": "b"}"#,
        valid: true,
    },
    Case {
        name: "logs_sums_after_each_row",
        sql: "create table t (id integer primary key, x integer); create table log (id integer, sum integer); \
              create function fire() returns trigger language plpgsql set search_path from current as \
                'begin insert into log select new.id, sum(x) from t; return null; end'; \
              create trigger fires after insert or update on t for each row execute function fire()",
        first: r#"+t {"id": 1, "x": 1}"#,
        then: r#"+t {"id": 3, "x": 10}
                 +t {"id": 2, "x": 100}
                 +t {"id": 1, "x": 1000}"#,
        valid: true,
    },
    Case {
        name: "trigger_fires_on_a_condition_that_looks",
        sql: "create table t (id integer primary key, x text); \
              create function is_full() returns boolean language plpgsql set search_path from current as \
                'begin return (select count(*) > 1 from t); end'; \
              create function fire() returns trigger language plpgsql as \
                $$ begin new.x := 'late'; return new; end $$; \
              create trigger fires before insert on t for each row when (is_full()) execute function fire()",
        first: r#"+t {"id": 9, "x": "a"}"#,
        then: r#"+t {"id": 3, "x": "b"}
                 -t {"id": 9}
                 +t {"id": 2, "x": "b"}"#,
        valid: true,
    },
    Case {
        name: "logs_statements_with_their_rows",
        sql: "create table t (id integer primary key, x text); create table log (id integer, beside bigint); \
              create function fire() returns trigger language plpgsql set search_path from current as \
                'begin insert into log select id, count(*) over () from news; return null; end'; \
              create trigger inserts after insert on t referencing new table as news \
                for each statement execute function fire(); \
              create trigger updates after update on t referencing new table as news \
                for each statement execute function fire()",
        first: r#"+t {"id": 1, "x": "a"}"#,
        then: r#"+t {"id": 1, "x": "b"}
                 +t {"id": 2, "x": "b"}
                 +t {"id": 3, "x": "b"}"#,
        valid: true,
    },
    Case {
        name: "spelled_otherwise",
        sql: "create table t (id numeric primary key, x text)",
        first: r#"+t {"id": 1.0, "x": "a"}"#,
        then: r#"+t {"id": 1.00, "x": "b"}
                 -t {"id": 1}
                 +t {"id": 1.000, "x": "c"}"#,
        valid: true,
    },
];

impl Case {
    async fn run(&self, test: &TestDb, journaling: Journaling) -> Result<Vec<String>, Vec<String>> {
        let name = format!("{}_{journaling:?}", self.name).to_lowercase();
        let mut rig = Rig::up(test, &name, self.sql).await;
        let [first, then] = <[_; 2]>::try_from(blocks_of(&[self.first, self.then])).unwrap();
        rig.try_commit_with(0, first, journaling)
            .await
            .unwrap_or_else(|error| panic!("{name}: {}", whole(&error)));
        let before = rig.whole().await;
        match rig.try_commit_with(1, then, journaling).await {
            Ok(()) => Ok(rig.everything().await),
            Err(error) => {
                assert_eq!(rig.whole().await, before, "{name}");
                Err(vec![whole(&error)])
            }
        }
    }

    async fn plainly(&self, test: &TestDb) -> Result<Vec<String>, Vec<String>> {
        let plain = Plain::up(test, &format!("{}_plain", self.name), self.sql).await;
        for block in blocks_of(&[self.first, self.then]) {
            plain.apply(&block).await.map_err(|error| vec![error])?;
        }
        Ok(plain.everything().await)
    }
}

#[tokio::test]
async fn with_and_without_a_journal_a_block_comes_to_the_same() {
    let test = database("exact_outcome").await;
    let mut wrong = Wrong::default();
    for case in CASES {
        let name = case.name;
        let (kept, skipped) = (case.run(&test, BOTH[0]).await, case.run(&test, BOTH[1]).await);
        let plain = case.plainly(&test).await;
        assert_eq!(plain.is_ok(), case.valid, "{name}: {plain:?}");
        if kept.is_ok() != skipped.is_ok() || (kept.is_ok() && kept != skipped) {
            wrong.0.push(format!("{name}: kept {kept:?}, skipped {skipped:?}"));
        } else if case.valid && kept != plain {
            wrong.0.push(format!("{name}: {kept:?}, plainly {plain:?}"));
        }
    }
    wrong.settle();
}
