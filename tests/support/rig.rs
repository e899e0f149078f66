//! A pipeline whose migrations are written by the test, with its writer: what `migrate` and the loop make, without
//! a source or a transform.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use debshrew::block::{BlockHash, BlockRef, Height};
use debshrew::change::{Change, Operation, Value};
use debshrew::commit::{Block, CommitError, Durability, Journaling};
use debshrew::config::{Database, Secret};
use debshrew::db::Db;
use debshrew::pipeline::{PipelineError, Writer};
use debshrew::register::{Cause, RolledBack};
use debshrew::schema::{Mode, Report, Roles, SchemaError, Wanted, migrate};
use debshrew::table::{ChangeSet, StateWrite, TableError};
use debshrew::undo::{Pruner, UndoError};
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::TestDb;

pub struct Rig {
    pub db: Db,
    pub client: Client,
    pub name: String,
    schema: String,
    folder: TempDir,
    versions: u32,
    writer: Option<Writer>,
}

/// An upsert of the row whose columns are this JSON object's fields.
pub fn put(table: &str, row: &str) -> Change {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(row).unwrap();
    let columns = fields.into_iter().map(|(name, value)| (name, Value::from_raw(&value))).collect();
    Change::new(table, Operation::Upsert, None, columns)
}

pub fn delete(table: &str, key: &str) -> Change {
    Change { operation: Operation::Delete, ..put(table, key) }
}

/// An upsert whose message says the row's key, as JSON, beside its columns.
pub fn keyed(table: &str, key: &str, row: &str) -> Change {
    let key = Value::from_raw(&RawValue::from_string(key.to_owned()).unwrap());
    Change { key: Some(key), ..put(table, row) }
}

/// Changes as lines of text: `+table {row}` and `-table {key}`.
pub fn changes(block: &str) -> Vec<Change> {
    let lines = block.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (table, row) = line[1..].split_once(" {").unwrap();
            let row = format!("{{{row}");
            if line.starts_with('+') { put(table, &row) } else { delete(table, &row) }
        })
        .collect()
}

/// An error with all its causes.
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

/// Whether a block failed because fewer rows were written than should have been.
pub fn is_rows_missing(error: &PipelineError) -> bool {
    matches!(
        error,
        PipelineError::Block { source: CommitError::RowsMissing { .. }, .. }
            | PipelineError::Commit(CommitError::RowsMissing { .. })
    )
}

/// Whether a rollback was refused because the journal does not reach back that far.
pub fn is_too_deep(error: &PipelineError) -> bool {
    matches!(error, PipelineError::Undo(UndoError::TooDeep { .. }))
}

pub fn at(height: u32) -> BlockRef {
    BlockRef { height: Height::new(height).unwrap(), hash: BlockHash::new([height as u8; 32]) }
}

pub fn connect_as(dsn: &str) -> Db {
    Db::new(&Database {
        url: Secret::new(dsn),
        tls_root_cert: None,
        pool_size: 4,
        connect_timeout: std::time::Duration::from_secs(30),
        read_roles: Vec::new(),
        write_roles: Vec::new(),
        owner_role: None,
    })
    .unwrap()
}

impl Rig {
    /// A pipeline in the schema `schema` and called alike, whose first migration is `sql`.
    pub async fn up(test: &TestDb, schema: &str, sql: &str) -> Rig {
        Rig::up_with_report(test, schema, sql).await.0
    }

    /// The same, with what the migration came to.
    pub async fn up_with_report(test: &TestDb, schema: &str, sql: &str) -> (Rig, Report) {
        let mut rig = Rig {
            db: connect_as(&test.dsn),
            client: test.connect().await,
            // Schemas may have any name, pipelines may not.
            name: schema.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_").to_lowercase(),
            schema: schema.to_owned(),
            folder: tempfile::tempdir().unwrap(),
            versions: 0,
            writer: None,
        };
        let report = rig.migrate(sql).await.unwrap();
        (rig, report)
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn wanted(&self) -> Wanted {
        Wanted {
            name: self.name.clone(),
            schema: self.schema.clone(),
            migrations: Some(self.folder()),
            start_height: Height::new(0).unwrap(),
        }
    }

    /// Adds a migration to the folder; runs nothing.
    pub fn add(&mut self, sql: &str) {
        self.versions += 1;
        std::fs::write(self.folder.path().join(format!("V{}__step.sql", self.versions)), sql).unwrap();
    }

    /// Stops the writer and runs one more migration.
    pub async fn migrate(&mut self, sql: &str) -> Result<Report, SchemaError> {
        self.add(sql);
        self.migrate_again(Mode::Apply).await
    }

    /// Stops the writer and runs what there is to run.
    pub async fn migrate_again(&mut self, mode: Mode) -> Result<Report, SchemaError> {
        self.stop().await;
        migrate(&mut self.db.dedicated().await.unwrap(), &[self.wanted()], &Roles::default(), mode).await
    }

    /// Drops the writer and waits until its session is gone.
    pub async fn stop(&mut self) {
        if self.writer.take().is_none() {
            return;
        }
        let session = format!("debshrew/{}", self.name);
        let sql = "select count(*) from pg_stat_activity where application_name = $1 and datname = current_database()";
        while self.client.query_one(sql, &[&session]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Drops a writer whose server has died.
    pub fn forget_writer(&mut self) {
        self.writer = None;
    }

    pub async fn try_writer(&mut self) -> Result<&mut Writer, PipelineError> {
        if self.writer.is_none() {
            let writer = Writer::try_take_over(&self.db, &self.name).await;
            if writer.is_err() {
                self.unlocked().await;
            }
            self.writer = Some(writer?.expect("nobody else has the lock"));
        }
        Ok(self.writer.as_mut().unwrap())
    }

    /// Waits until no session holds a lock of debshrew's: one that was given up may need a moment to end.
    async fn unlocked(&self) {
        let sql = "select count(*) from pg_locks where locktype = 'advisory' and database = \
                   (select oid from pg_database where datname = current_database())";
        while self.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
    }

    pub async fn writer(&mut self) -> &mut Writer {
        self.try_writer().await.unwrap()
    }

    /// A block with these changes; after an error the writer is gone, as in the service.
    pub async fn try_commit(&mut self, height: u32, changes: Vec<Change>) -> Result<u64, PipelineError> {
        let result = match self.folded(changes, Vec::new()).await {
            Ok(changes) => {
                let (journaling, durability) = (Journaling::Kept, Durability::Strict);
                let block = Block { at: at(height), changes, journaling, durability, state_root: None };
                self.writer().await.commit(block).await
            }
            Err(error) => Err(error.into()),
        };
        if result.is_err() {
            self.stop().await;
        }
        result
    }

    /// Changes and state writes as a block has them.
    pub async fn folded(
        &mut self,
        changes: Vec<Change>,
        state: Vec<StateWrite>,
    ) -> Result<ChangeSet, TableError> {
        let tables = std::sync::Arc::clone(self.writer().await.tables());
        tables.resolve(changes, state)?.fold(&tables, &self.db).await
    }

    /// A block under a hash of its own.
    pub async fn commit_at(&mut self, at: BlockRef, changes: Vec<Change>) -> Result<u64, PipelineError> {
        let result = match self.folded(changes, Vec::new()).await {
            Ok(changes) => {
                let (journaling, durability) = (Journaling::Kept, Durability::Lazy);
                let block = Block { at, changes, journaling, durability, state_root: None };
                self.writer().await.commit(block).await
            }
            Err(error) => Err(error.into()),
        };
        if result.is_err() {
            self.stop().await;
        }
        result
    }

    /// All rows of the pipeline's tables as PostgreSQL's text, value by value, each with its table's name; generated columns
    /// are left out.
    pub async fn contents(&self) -> BTreeSet<(String, Vec<Option<String>>)> {
        let sql = "select c.relname::text, string_agg(quote_ident(a.attname), ', ' order by a.attnum) \
                     from pg_class c join pg_attribute a on a.attrelid = c.oid \
                    where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p') and not c.relispartition \
                      and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' group by 1";
        let schema = self.schema_sql();
        let mut all = BTreeSet::new();
        // With the settings of debshrew's own sessions.
        let client = self.db.client().await.unwrap();
        for row in client.query(sql, &[&schema]).await.unwrap() {
            let (table, columns): (String, String) = (row.get(0), row.get(1));
            let sql = format!("select {columns} from {schema}.{}", debshrew::db::quote(&table));
            for message in client.simple_query(&sql).await.unwrap() {
                if let SimpleQueryMessage::Row(row) = message {
                    let values = (0..row.len()).map(|column| row.get(column).map(str::to_owned));
                    all.insert((table.clone(), values.collect()));
                }
            }
        }
        all
    }

    /// By table, where the key's columns are among those of [`Rig::contents`].
    pub async fn key_places(&self) -> BTreeMap<String, Vec<usize>> {
        let sql = "select c.relname::text, (select count(*) from pg_attribute b where b.attrelid = c.oid and b.attnum > 0 \
                            and b.attnum < k.number and not b.attisdropped and b.attgenerated = '') \
                     from pg_class c join pg_index i on i.indrelid = c.oid and i.indisprimary \
                    cross join lateral unnest(i.indkey) with ordinality k (number, place) \
                    where c.relnamespace = $1::text::regnamespace and not c.relispartition order by 1, k.place";
        let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for row in self.client.query(sql, &[&self.schema_sql()]).await.unwrap() {
            places.entry(row.get(0)).or_default().push(row.get::<_, i64>(1) as usize);
        }
        places
    }

    pub async fn commit(&mut self, height: u32, changes: Vec<Change>) -> u64 {
        self.try_commit(height, changes).await.unwrap_or_else(|error| panic!("{error}: {error:?}"))
    }

    /// The same, with or without a journal; several blocks are sent at once.
    pub async fn try_commit_all(
        &mut self,
        first: u32,
        blocks: Vec<Vec<Change>>,
        journaling: Journaling,
    ) -> Result<(), PipelineError> {
        let mut all = Vec::new();
        for (height, changes) in (first..).zip(blocks) {
            let changes = self.folded(changes, Vec::new()).await?;
            all.push(Block {
                at: at(height),
                changes,
                journaling,
                durability: Durability::Strict,
                state_root: None,
            });
        }
        let result = self.writer().await.commit_all(all, |_, _| ()).await;
        if result.is_err() {
            self.stop().await;
        }
        result
    }

    pub async fn try_commit_with(
        &mut self,
        height: u32,
        changes: Vec<Change>,
        journaling: Journaling,
    ) -> Result<(), PipelineError> {
        self.try_commit_all(height, vec![changes], journaling).await
    }

    /// Back to before the first block.
    pub async fn roll_back_to_start(&mut self) -> Result<RolledBack, PipelineError> {
        self.writer().await.roll_back(None, Cause::Operator).await
    }

    /// Takes away what lies deeper than `retention`, as far as it is due, beside the stream.
    pub async fn prune(&mut self, pruner: &mut Pruner) {
        self.writer().await.prune(pruner).await;
    }

    pub async fn roll_back(&mut self, to: u32) -> Result<RolledBack, PipelineError> {
        self.writer().await.roll_back(Height::new(to), Cause::Operator).await
    }

    fn schema_sql(&self) -> String {
        debshrew::db::quote(&self.schema)
    }

    /// The rows of a table as text, sorted.
    pub async fn rows(&self, table: &str) -> Vec<String> {
        rows(&self.client, &self.schema_sql(), table).await
    }

    /// Every row of every table, each with its table's name, sorted.
    pub async fn everything(&self) -> Vec<String> {
        everything(&self.client, &self.schema_sql()).await
    }

    /// Every row, and the height of the checkpoint: what a block or a rollback that failed must not have changed.
    pub async fn whole(&self) -> Vec<String> {
        let mut all = self.everything().await;
        let sql = "select 'checkpoint ' || coalesce(height::text, 'none') from debshrew.pipelines \
                    where pipeline = $1";
        all.push(self.client.query_one(sql, &[&self.name]).await.unwrap().get(0));
        all
    }

    /// Runs SQL in the pipeline's schema.
    pub async fn run(&self, sql: &str) {
        let sql = format!("set search_path = {}; {sql}; set search_path = ''", self.schema_sql());
        self.client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    }
}

async fn rows(client: &Client, schema_sql: &str, table: &str) -> Vec<String> {
    let table = debshrew::db::quote(table);
    let sql = format!("select the_row::text from {schema_sql}.{table} the_row order by 1");
    client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Every row of every table of a schema, each with its table's name, sorted.
pub async fn everything(client: &Client, schema_sql: &str) -> Vec<String> {
    let sql = "select c.relname::text from pg_class c where c.relnamespace = $1::text::regnamespace \
               and c.relkind in ('r', 'p') and not c.relispartition order by 1";
    let mut all = Vec::new();
    for row in client.query(sql, &[&schema_sql]).await.unwrap() {
        let table: String = row.get(0);
        all.extend(rows(client, schema_sql, &table).await.into_iter().map(|row| format!("{table} {row}")));
    }
    all
}
