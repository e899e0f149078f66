//! Random chains with random reorganisations over tables of many types: after every step the database equals a
//! model to which the winning branch alone was applied, row by row with plain SQL; and a second pipeline that
//! only ever saw the winning branch has the same tables, state and journals.

use std::cell::RefCell;
use std::path::Path;

use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::change::Change;
use debshrew::commit::{Block, Durability, Journaling};
use debshrew::db::Db;
use debshrew::pipeline::Writer;
use debshrew::register::Cause;
use debshrew::schema::{Mode, Roles, Wanted, migrate};
use debshrew::table::StateWrite;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Handle;
use tokio_postgres::Client;

use crate::support::{TestDb, connect_as, database};
use crate::zoo::{self, Edit};

#[derive(Clone, Debug)]
struct Content {
    edits: Vec<Edit>,
    state: Vec<StateWrite>,
}

/// Undo this many blocks (as many as there are, if fewer), then commit these.
#[derive(Clone, Debug)]
struct Step {
    undo: usize,
    blocks: Vec<Content>,
}

fn content() -> impl Strategy<Value = Content> {
    let key = prop_oneof![Just(b"a".to_vec()), Just(b"b".to_vec()), Just(vec![0, 255])];
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4));
    let state =
        proptest::collection::btree_map(key, value, 0..3).prop_map(|writes| writes.into_iter().collect());
    (proptest::collection::vec(zoo::edit(), 0..12), state).prop_map(|(edits, state)| Content { edits, state })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0usize..6, proptest::collection::vec(content(), 0..4));
    proptest::collection::vec(step.prop_map(|(undo, blocks)| Step { undo, blocks }), 1..6)
}

struct Pipeline {
    client: Client,
    db: Db,
    writer: Writer,
    chain: Vec<(BlockRef, Content)>,
}

fn db(test: &TestDb) -> Db {
    connect_as(&test.dsn)
}

/// The zoo, set up in a database of its own.
pub async fn set_up(test: &TestDb, migrations: &Path) {
    let db = db(test);
    let wanted = Wanted {
        name: "zoo".into(),
        schema: "zoo".into(),
        migrations: Some(migrations.to_owned()),
        start_height: Height::new(0).unwrap(),
    };
    let report =
        migrate(&mut db.dedicated().await.unwrap(), &[wanted], &Roles::default(), Mode::Apply).await.unwrap();
    assert!(report.pipelines[0].refused.is_empty(), "{:?}", report.pipelines[0].refused);
}

impl Pipeline {
    async fn new(test: &TestDb) -> Pipeline {
        set_up(test, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zoo"))).await;
        let db = db(test);
        let writer = Writer::try_take_over(&db, "zoo").await.unwrap().expect("the lock is free");
        Pipeline { client: test.connect().await, db, writer, chain: Vec::new() }
    }

    async fn commit(&mut self, at: BlockRef, content: &Content) {
        let changes: Vec<Change> = content.edits.iter().map(Edit::change).collect();
        let tables = self.writer.tables();
        let resolved = tables.resolve(changes, content.state.clone()).unwrap();
        let changes = resolved.fold(tables, &self.db).await.unwrap();
        self.writer
            .commit(Block {
                at,
                changes,
                journaling: Journaling::Kept,
                durability: Durability::Strict,
                state_root: None,
            })
            .await
            .unwrap();
        self.chain.push((at, content.clone()));
    }

    async fn undo(&mut self, blocks: usize) {
        let left = self.chain.len().saturating_sub(blocks);
        if left == self.chain.len() {
            return;
        }
        self.chain.truncate(left);
        let to = self.chain.last().map(|(at, _)| at.height);
        let done = self.writer.roll_back(to, Cause::Reorg).await.unwrap();
        assert_eq!(done.to, self.chain.last().map(|(at, _)| *at));
    }

    /// Everything that a block may change, journals, state and checkpoint included.
    async fn everything(&self) -> Vec<String> {
        let mut all = rows(&self.client, "zoo").await;
        all.extend(rows(&self.client, "debshrew_zoo").await);
        let checkpoint = "select format('%s %s %s', height, hash, journal_floor) from debshrew.checkpoint";
        all.push(self.client.query_one(checkpoint, &[]).await.unwrap().get(0));
        let log = "select format('%s %s %s', height, hash, changes) from debshrew.block order by height";
        all.extend(self.client.query(log, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
        all
    }

    async fn forget_everything(&mut self, test: &TestDb) {
        let tables: Vec<String> = names(&self.client, &["zoo", "debshrew_zoo"]).await;
        let sql = format!(
            "truncate {}; truncate debshrew.block; \
             update debshrew.checkpoint set height = null, hash = null, journal_floor = null",
            tables.join(", ")
        );
        self.client.batch_execute(&sql).await.unwrap();
        self.chain.clear();
        let _ = self
            .client
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity \
             where application_name = 'debshrew/zoo' and datname = current_database()",
                &[],
            )
            .await;
        self.writer = loop {
            if let Some(writer) = Writer::try_take_over(&db(test), "zoo").await.unwrap() {
                break writer;
            }
        };
    }
}

async fn names(client: &Client, schemas: &[&str]) -> Vec<String> {
    let sql = "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
               where n.nspname = any($1) and c.relkind in ('r', 'p') and not c.relispartition order by 1";
    client.query(sql, &[&schemas]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Each table's rows as text, sorted, each with its table's name.
async fn rows(client: &Client, schema: &str) -> Vec<String> {
    let mut all = Vec::new();
    for table in names(client, &[schema]).await {
        let sql = format!("select '{table} ' || t::text from {table} t order by 1", table = table);
        all.extend(client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    all
}

fn at(height: usize, branch: usize) -> BlockRef {
    let mut hash = [0; 32];
    hash[0] = height as u8;
    hash[1] = branch as u8;
    BlockRef { height: Height::new(height as u32).unwrap(), hash: BlockHash::new(hash) }
}

/// The winning branch, one statement a change.
async fn model(client: &Client, chain: &[(BlockRef, Content)]) -> Vec<String> {
    let tables = names(client, &["zoo"]).await.join(", ");
    client.batch_execute(&format!("truncate {tables}")).await.unwrap();
    let mut sql = String::new();
    for edit in chain.iter().flat_map(|(_, content)| &content.edits) {
        sql.push_str(&edit.sql());
    }
    client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    rows(client, "zoo").await
}

async fn run(
    steps: Vec<Step>,
    pipeline: &mut Pipeline,
    clean: &mut Pipeline,
    plain: &Client,
    tests: (&TestDb, &TestDb),
) -> Result<(), TestCaseError> {
    pipeline.forget_everything(tests.0).await;
    for (branch, step) in steps.iter().enumerate() {
        pipeline.undo(step.undo).await;
        for content in &step.blocks {
            pipeline.commit(at(pipeline.chain.len(), branch), content).await;
        }
        let expected = model(plain, &pipeline.chain).await;
        prop_assert_eq!(rows(&pipeline.client, "zoo").await, expected);
        clean.forget_everything(tests.1).await;
        for (at, content) in &pipeline.chain {
            clean.commit(*at, content).await;
        }
        prop_assert_eq!(pipeline.everything().await, clean.everything().await);
    }
    Ok(())
}

#[test]
fn reorganisations_leave_no_trace() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (one, two, three) =
            (database("chains").await, database("chains_clean").await, database("chains_plain").await);
        let pipeline = Pipeline::new(&one).await;
        let clean = Pipeline::new(&two).await;
        set_up(&three, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zoo"))).await;
        let plain = three.connect().await;
        let state = RefCell::new((pipeline, clean));
        tokio::task::block_in_place(|| {
            let mut runner = TestRunner::new(Config { cases: 10, max_shrink_iters: 60, ..Config::default() });
            let ran = runner.run(&steps(), |steps| {
                let (pipeline, clean) = &mut *state.borrow_mut();
                Handle::current().block_on(run(steps, pipeline, clean, &plain, (&one, &two)))
            });
            ran.unwrap_or_else(|error| panic!("{error}"));
        });
    });
}
