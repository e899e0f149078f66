//! What tests share: one PostgreSQL server a test process, a database a test, a source to follow, and the binary
//! run as a user would.

mod binary;
mod database;
mod proxy;
mod rig;
mod scene;
mod screen;
pub mod steps;

pub use binary::{Output, debshrew};
pub use database::own_server;
pub use database::{TestDb, database};
pub use debshrew::commit::Journaling;
pub use debshrew::undo::Pruner;
pub use proxy::Proxy;
pub use rig::{
    Rig, at, changes, connect_as, delete, everything, is_rows_missing, is_too_deep, keyed, put, whole,
};
pub use scene::{COUNTER, DEADLINE, Scene, quick, until};
pub use screen::Screen;

async fn pipelines(db: &TestDb) -> i64 {
    db.connect().await.query_one("select count(*) from debshrew.pipeline", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn databases_are_migrated_and_apart_from_one_another() {
    let (first, second) = tokio::join!(database("support_first"), database("support_second"));
    let client = first.connect().await;
    client
        .batch_execute("insert into debshrew.pipeline (name, schema_name, start_height) values ('a', 'a', 0)")
        .await
        .unwrap();
    assert_eq!((pipelines(&first).await, pipelines(&second).await), (1, 0));
    client.batch_execute("create table public.t ()").await.unwrap();
    assert!(client.query("select from t", &[]).await.is_err(), "an unqualified name was found");
}

/// What a variable of the environment says.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
