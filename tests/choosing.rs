//! Which of several servers is asked, and for how long: the source alone, without a pipeline.

use std::time::{Duration, Instant};

use debshrew::config;
use debshrew::simulate::{Command, Fault, Misbehaviour, Simulator, Status};
use debshrew::source::Source;

use crate::servers::{comes_back, goes_away, new_branch};
use crate::simulate::source::settings;
use crate::support::quick;

/// A source of these servers, which tries nothing twice.
fn several(servers: &[&Simulator], quorum: usize) -> Source {
    let urls = servers.iter().map(|server| server.url()).collect();
    let one = settings(servers[0]);
    Source::new(&config::Source { urls, quorum, ..one }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_branch_is_not_followed_before_all_were_asked_for_the_committed_one() {
    let [first, other, ahead] =
        [Simulator::start(quick(60)), Simulator::start(quick(60)), Simulator::start(quick(70))];
    let (first, other, ahead) = (first.await.unwrap(), other.await.unwrap(), ahead.await.unwrap());
    other.control(new_branch()).await.unwrap();
    other.until(Status::settled).await;
    let source = several(&[&first, &other, &ahead], 1);
    let committed = source.open().await.unwrap().unwrap().tip();
    let servers = source.open_each().await;
    // It has failed a moment ago, and is there again.
    goes_away(&ahead).await;
    source.follow(Some(committed), Some(&servers[2].0)).await.unwrap();
    comes_back(&ahead).await;
    let reading = source.follow(Some(committed), None).await.unwrap().unwrap();
    assert_eq!(reading.server().to_string(), ahead.url());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_not_waited_for_where_enough_others_do() {
    let [first, second, third] =
        [Simulator::start(quick(60)), Simulator::start(quick(60)), Simulator::start(quick(60))];
    let (first, second, third) = (first.await.unwrap(), second.await.unwrap(), third.await.unwrap());
    let source = several(&[&first, &second, &third], 2);
    let reading = source.open().await.unwrap().unwrap();
    let stalls = Misbehaviour { fault: Fault::Stall, calls: None, method: None, view: None };
    third.control(Command::Misbehave(stalls)).await.unwrap();
    let asked = Instant::now();
    let common = source.common_tip(&reading.server(), reading.tip()).await.unwrap();
    assert_eq!(common, reading.tip().height);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    // Of the one that is asked it is not said that it has more than it has.
    for server in [&second, &third] {
        server.control(Command::Clear {}).await.unwrap();
        server.control(Command::Mine { blocks: 3 }).await.unwrap();
        server.until(Status::settled).await;
    }
    let common = source.common_tip(&reading.server(), reading.tip()).await.unwrap();
    assert_eq!(common, reading.tip().height);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_indexed_nothing_yet_does_not_hide_the_others() {
    let (first, second) =
        (Simulator::start(quick(60)).await.unwrap(), Simulator::start(quick(60)).await.unwrap());
    let height = Fault::Result { value: "0".into() };
    let hash = Fault::Error { message: "Storage error: Block hash not found for height 0".into() };
    for (fault, method) in [(height, "metashrew_height"), (hash, "metashrew_getblockhash")] {
        let nothing = Misbehaviour { fault, calls: None, method: Some(method.into()), view: None };
        first.control(Command::Misbehave(nothing)).await.unwrap();
    }
    let reading = several(&[&first, &second], 1).open().await.unwrap().expect("the second one has blocks");
    assert_eq!(reading.server().to_string(), second.url());
}
