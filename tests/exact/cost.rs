//! What a journal costs, and that what it leaves out can still be put back.

use debshrew::change::Change;

use crate::exact::forth_and_back;
use crate::support::{Rig, database, own_server, put, whole};

const ROWS: usize = 20;
const LARGE: usize = 300_000;

/// Text without repetitions, other for another seed.
fn text(seed: usize, length: usize) -> String {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + ((state >> 40) % 75) as u8)
    };
    (0..length).map(letter).map(|letter| if letter == '\\' { '!' } else { letter }).collect()
}

async fn wal(rig: &Rig) -> i64 {
    let sql = "select (pg_current_wal_insert_lsn() - '0/0')::int8";
    rig.client.query_one(sql, &[]).await.unwrap().get(0)
}

fn owners(height: u32) -> Vec<Change> {
    (0..ROWS).map(|id| put("t", &format!(r#"{{"id": {id}, "owner": "owner {height}"}}"#))).collect()
}

#[tokio::test]
async fn small_updates_beside_large_values_write_little() {
    let (_cluster, test) = own_server(&[("autovacuum", "off"), ("max_wal_size", "4GB")]).await;
    let mut rig =
        Rig::up(&test, "cost", "create table t (id integer primary key, owner text, content text)").await;
    for id in 0..ROWS {
        let row = format!(r#"{{"id": {id}, "owner": "first", "content": "{}"}}"#, text(id, LARGE));
        rig.commit(id as u32, vec![put("t", &row)]).await;
    }
    let before = rig.everything().await;
    let copy = "create table public.plain as table cost.t; \
                alter table public.plain add primary key (id); checkpoint";
    rig.client.batch_execute(copy).await.unwrap();
    let first = ROWS as u32;
    let start = wal(&rig).await;
    for height in first..first + 50 {
        rig.commit(height, owners(height)).await;
    }
    let ours = wal(&rig).await - start;
    rig.client.batch_execute("checkpoint").await.unwrap();
    let start = wal(&rig).await;
    for height in first..first + 50 {
        rig.client.batch_execute(&format!("update public.plain set owner = 'owner {height}'")).await.unwrap();
    }
    let plain = wal(&rig).await - start;
    rig.roll_back(first - 1).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert!(rig.everything().await == before, "not what it was");
    assert!(ours <= 10 * plain, "{ours} bytes of WAL where plain SQL wrote {plain}");
}

/// Where a sequence's numbers go by the order of emission, or a trigger of another table looks at rows.
#[tokio::test]
async fn small_updates_in_the_order_of_emission_write_little_as_well() {
    let test = database("exact_cost_emission").await;
    let sql = "create table t (id integer primary key, owner text, note text, content text, n serial); \
               create table looked (id integer primary key, x text); \
               create function looks() returns trigger language plpgsql set search_path from current as \
                 'begin new.x := (select count(*) from t)::text; return new; end'; \
               create trigger looks before insert on looked for each row execute function looks()";
    let mut rig = Rig::up(&test, "emission", sql).await;
    let row = |id: usize| format!(r#"{{"id": {id}, "owner": "first", "content": "{}"}}"#, text(id, LARGE));
    rig.commit(0, (0..ROWS).map(|id| put("t", &row(id))).collect()).await;
    let before = rig.everything().await;
    let numbers =
        (0..ROWS).map(|id| put("t", &format!(r#"{{"id": {id}, "{}": "b"}}"#, ["owner", "note"][id % 2])));
    rig.commit(1, numbers.collect()).await;
    let looked = [put("looked", r#"{"id": 1}"#), put("looked", r#"{"id": 2}"#)];
    rig.commit(2, owners(2).into_iter().chain(looked).collect()).await;
    let sql = "select count(*), sum(pg_column_size(j)) from debshrew_emission.t j where undo_height > 0";
    let row = rig.client.query_one(sql, &[]).await.unwrap();
    let (images, bytes): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(images, 2 * ROWS as i64);
    let sql = "select count(*) from debshrew_emission.t where undo_height > 0 and content is not null";
    let large: i64 = rig.client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(large, 0, "images of {bytes} bytes hold what no change set");
    rig.roll_back(0).await.unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert!(rig.everything().await == before, "not what it was");
}

/// Blocks that set small columns, large ones, or take rows out and make them again.
const MIXTURES: [&str; 10] = [
    r#"+t {"id": 1, "owner": "a", "content": "CONTENT1", "doc": DOC1}
       +t {"id": 2, "owner": "a", "content": "CONTENT2"}
       +t {"id": 3, "content": null, "bytes": "\\xBYTES"}"#,
    r#"+t {"id": 1, "owner": "b"}
       +t {"id": 2, "owner": "b"}
       +t {"id": 3, "owner": "b"}"#,
    r#"+t {"id": 1, "content": "CONTENT3"}
       +t {"id": 2, "n": 8}
       +t {"id": 3, "doc": DOC3}"#,
    r#"+t {"id": 1, "owner": "c"}
       -t {"id": 2}
       +t {"id": 3, "owner": "c", "content": "short"}"#,
    r#"-t {"id": 1}
       +t {"id": 1, "owner": "d"}
       +t {"id": 2, "content": "CONTENT4"}"#,
    r#"+t {"id": 1, "n": 9}
       +t {"id": 2, "owner": "e"}
       -t {"id": 3}
       +t {"id": 4, "owner": "e"}"#,
    r#"+t {"id": 1, "content": "CONTENT1"}
       -t {"id": 2}
       +t {"id": 2, "content": "CONTENT4"}
       -t {"id": 4}"#,
    r#"+t {"id": 1, "doc": null}
       +t {"id": 2, "bytes": "\\x00"}
       +t {"id": 3}"#,
    r#"+t {"id": 1}
       +t {"id": 2, "content": null}
       -t {"id": 3}
       +t {"id": 5, "owner": "f"}"#,
    r#"-t {"id": 1}
       -t {"id": 2}
       +t {"id": 5, "n": 1}
       +t {"id": 5, "owner": "g"}"#,
];

#[tokio::test]
async fn mixtures_of_small_and_large_updates_are_rolled_back_exactly() {
    let test = database("exact_cost_mixtures").await;
    for (name, key) in [
        ("in_place", "primary key (id)"),
        ("afresh", "primary key (id), unique (owner, id)"),
        ("late", "primary key (id) deferrable"),
    ] {
        let sql = format!(
            "create table t (id integer, owner text, content text, doc jsonb, \
               twice text generated always as (owner || '!') stored, n integer not null default 7, bytes bytea, {key})"
        );
        let mut rig = Rig::up(&test, name, &sql).await;
        let content = |seed: usize| text(seed, 9_000 + seed);
        let doc = |seed: usize| format!(r#"{{"a": "{}", "b": [null, 1.50]}}"#, text(seed, 5_000));
        let blocks = MIXTURES.map(|block| {
            (1..5).fold(block.replace("BYTES", &"ab".repeat(4_000)), |block, seed| {
                block
                    .replace(&format!("CONTENT{seed}"), &content(seed))
                    .replace(&format!("DOC{seed}"), &doc(seed))
            })
        });
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        forth_and_back(&mut rig, &blocks)
            .await
            .unwrap_or_else(|wrong| panic!("{name}: {}", &wrong[..wrong.len().min(500)]));
    }
}
