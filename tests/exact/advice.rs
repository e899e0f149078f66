//! What `check` says of tables that work, but slowly.

use crate::exact::Wrong;
use crate::support::{Rig, database};

const SQL: &str = "
create table p (id integer primary key, x text);
create table q (a integer, b text, primary key (a, b));
create table bare (id integer primary key, p integer references p);
create table two (id integer primary key, a integer, b text, foreign key (a, b) references q);
create table partly (id integer primary key, p integer references p);
create index on partly (p) where id > 7;
create table behind (id integer primary key, p integer references p);
create index on behind (id, p);
create table \"Odd one\" (id integer primary key, \"The p\" integer references p deferrable);
create table tree (id integer primary key, up integer references tree);
create table good (id integer primary key, p integer references p);
create index on good (p);
create table wide (id integer primary key, a integer, b text, foreign key (a, b) references q);
create index on wide (b, a, id);
create table keyed (p integer references p, x integer, primary key (p, x));
";

#[tokio::test]
async fn foreign_keys_without_an_index_are_named_with_the_statement_that_makes_one() {
    let test = database("exact_advice").await;
    let mut rig = Rig::up(&test, "advice", "create table first (id integer primary key)").await;
    let report = rig.migrate(SQL).await.unwrap();
    let advice = &report.pipelines[0].advice;
    let said = |table: &str| -> Vec<&str> {
        let of =
            advice.iter().filter(|(of, text)| of == table && text.to_lowercase().contains("create index"));
        of.map(|(_, text)| &**text).collect()
    };
    let mut wrong = Wrong::default();
    for (table, constraint, columns) in [
        ("bare", "bare_p_fkey", "(\"p\")"),
        ("two", "two_a_b_fkey", "(\"a\", \"b\")"),
        ("partly", "partly_p_fkey", "(\"p\")"),
        ("behind", "behind_p_fkey", "(\"p\")"),
        ("Odd one", "Odd one_The p_fkey", "(\"The p\")"),
        ("tree", "tree_up_fkey", "(\"up\")"),
    ] {
        let bare = |text: &str| text.replace(['"', ' '], "");
        match &*said(table) {
            [one] if one.contains(constraint) && bare(one).contains(&bare(columns)) => {}
            other => wrong.0.push(format!("{table}: {other:?}")),
        }
    }
    for table in ["good", "wide", "keyed", "p", "q"] {
        assert_eq!(said(table), [] as [&str; 0]);
    }
    wrong.settle();
}
