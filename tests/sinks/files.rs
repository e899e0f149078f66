//! The folder of a file sink, as a consumer and as an operator see it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use debshrew::config::{Compression, Destination, Format, Sink as Settings};
use debshrew::failure::Kind;
use debshrew::relay::{Position, Sink, SinkError, open};
use serde_json::Value;

use super::steps::{about, apply, balances, block, cursor, event, snapshot, to_file};
use crate::support::{until, whole};

pub fn sink(settings: &Settings) -> Box<dyn Sink> {
    open(settings, &about()).unwrap()
}

async fn opened(settings: &Settings) -> (Box<dyn Sink>, Position) {
    let mut sink = sink(settings);
    let position = sink.open().await.unwrap();
    (sink, position)
}

async fn refused(settings: &Settings) -> SinkError {
    sink(settings).open().await.unwrap_err()
}

pub fn names(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "debshrew.lock").collect();
    names.sort();
    names
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The block at a height, with one row that was created.
fn step(height: u32) -> debshrew::relay::Step {
    let previous = height.checked_sub(1).map(|below| block(below, 0));
    let address = height.to_string();
    let created = event(&balances(), None, Some(&[Some(&address), Some("1"), None]));
    apply(block(height, 0), previous, 0, vec![created])
}

#[tokio::test]
async fn a_segment_is_closed_when_it_is_full_and_the_stream_goes_on_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let settings = to_file(&path, 2_500, Compression::None);
    let (mut writer, position) = opened(&settings).await;
    assert_eq!(position, Position::Empty);
    for height in 0..5 {
        writer.publish(&step(height)).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!(
        names(&path),
        [
            "000000000001.jsonl",
            "000000000001.transactions.jsonl",
            "000000000002.jsonl",
            "000000000002.transactions.jsonl",
            "000000000003.jsonl.part",
            "000000000003.transactions.jsonl",
        ]
    );
    let rows = lines(&path.join("000000000001.jsonl"));
    let addresses: Vec<&Value> = rows.iter().map(|row| &row["after"]["address"]).collect();
    assert_eq!(addresses, ["0", "1"]);
    let transactions = lines(&path.join("000000000001.transactions.jsonl"));
    let statuses: Vec<&Value> = transactions.iter().map(|line| &line["status"]).collect();
    assert_eq!(statuses, ["BEGIN", "END", "BEGIN", "END"]);
    let bytes = std::fs::metadata(path.join("000000000001.jsonl")).unwrap().len();
    assert_eq!(transactions[3]["bytes"], bytes);
    assert_eq!(transactions[3]["cursor"]["block"]["height"], 1);
    drop(writer);
    let (_writer, position) = opened(&settings).await;
    assert_eq!(position, Position::At(cursor(Some(block(4, 0)), 0)));
}

#[tokio::test]
async fn a_segment_is_closed_when_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = to_file(folder.path(), u64::MAX, Compression::None);
    if let Destination::File(file) = &mut settings.to {
        file.rotate.age = Duration::ZERO;
    }
    let (mut writer, _) = opened(&settings).await;
    writer.publish(&step(0)).await.unwrap();
    assert_eq!(names(folder.path()), ["000000000001.jsonl", "000000000001.transactions.jsonl"]);
}

#[tokio::test]
async fn a_closed_segment_is_compressed_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let settings = to_file(path, 1, Compression::Zstd);
    let (mut writer, _) = opened(&settings).await;
    writer.publish(&step(0)).await.unwrap();
    let packed = ["000000000001.jsonl.zst", "000000000001.transactions.jsonl"];
    until("it is compressed", async || names(path) == packed).await;
    let mut rows = Vec::new();
    let file = std::fs::File::open(path.join(packed[0])).unwrap();
    std::io::Read::read_to_end(&mut ruzstd::decoding::StreamingDecoder::new(file).unwrap(), &mut rows)
        .unwrap();
    let rows: Value = serde_json::from_slice(&rows).unwrap();
    assert_eq!(rows["after"]["address"], "0");
    drop(writer);
    // What an interrupted compression left is done again.
    std::fs::write(path.join("000000000001.jsonl.zst.part"), "x").unwrap();
    let (_writer, position) = opened(&settings).await;
    assert_eq!(position, Position::At(cursor(Some(block(0, 0)), 0)));
    assert_eq!(names(path), packed);
}

#[tokio::test]
async fn a_snapshot_counts_with_its_last_part_however_many_segments_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let settings = to_file(path, 1, Compression::None);
    let (mut writer, _) = opened(&settings).await;
    let part = |part, last| {
        let address = format!("p{part}");
        let read = event(&balances(), None, Some(&[Some(&address), Some("1"), None]));
        snapshot(Some(block(7, 0)), part, last, vec![read])
    };
    for number in 0..3 {
        writer.publish(&part(number, false)).await.unwrap();
        writer.flush().await.unwrap();
    }
    let open = names(path);
    assert_eq!(open.iter().filter(|name| name.ends_with(".jsonl.part")).count(), 3, "{open:?}");
    drop(writer);
    let (mut writer, position) = opened(&settings).await;
    assert_eq!((position, names(path)), (Position::Empty, Vec::new()));
    for number in 0..3 {
        writer.publish(&part(number, number == 2)).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert!(names(path).iter().all(|name| !name.ends_with(".part")), "{:?}", names(path));
    drop(writer);
    // The end of the snapshot was on disk, and then there was no time to close the segments.
    for number in [1, 2, 3] {
        let name = |ending| path.join(format!("{number:012}.jsonl{ending}"));
        std::fs::rename(name(""), name(".part")).unwrap();
    }
    let (_writer, position) = opened(&settings).await;
    assert_eq!(position, Position::At(cursor(Some(block(7, 0)), 0)));
    let closed = ["000000000001.jsonl", "000000000002.jsonl"];
    assert!(closed.iter().all(|name| names(path).contains(&(*name).to_owned())), "{:?}", names(path));
}

#[tokio::test]
async fn a_compact_stream_has_a_document_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        Settings { format: Format::Compact, ..to_file(folder.path(), u64::MAX, Compression::None) };
    let (mut writer, _) = opened(&settings).await;
    for height in 0..2 {
        writer.publish(&step(height)).await.unwrap();
    }
    writer.publish(&apply(block(2, 0), Some(block(1, 0)), 0, Vec::new())).await.unwrap();
    writer.flush().await.unwrap();
    let documents = lines(&folder.path().join("000000000001.jsonl.part"));
    let heights: Vec<&Value> = documents.iter().map(|document| &document["height"]).collect();
    assert_eq!(heights, [0, 1, 2]);
    assert_eq!(documents[1]["events"][0]["key"], serde_json::json!({"address": "1"}));
}

#[tokio::test]
async fn a_folder_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let settings = to_file(folder.path(), u64::MAX, Compression::None);
    let (mut writer, _) = opened(&settings).await;
    writer.publish(&step(0)).await.unwrap();
    let error = refused(&settings).await;
    assert_eq!(error.kind, Kind::Transient);
    assert!(error.message.contains("another process"), "{error}");
    // Nothing was put away that the other one is about to commit.
    writer.flush().await.unwrap();
    drop(writer);
    assert_eq!(opened(&settings).await.1, Position::At(cursor(Some(block(0, 0)), 0)));

    let mut other = about();
    other.sink = "other".into();
    let error = open(&settings, &other).unwrap().open().await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert!(error.message.contains("sink `events` of pipeline `ledger`"), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_folder_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |path: &Path| to_file(path, u64::MAX, Compression::None);
    let missing = settings(&folder.path().join("a/b"));
    let error = refused(&missing).await;
    assert!(error.kind == Kind::Permanent && error.message.contains("/a/b"), "{error}");
    assert!(sink(&missing).check().await.is_err());

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(refused(&settings(&file)).await.kind, Kind::Permanent);

    let strange = folder.path().join("strange");
    std::fs::create_dir(&strange).unwrap();
    std::fs::write(strange.join("notes.txt"), "").unwrap();
    let error = refused(&settings(&strange)).await;
    assert!(error.kind == Kind::Permanent && error.message.contains("notes.txt"), "{error}");
    assert!(error.advice.is_some());
    let error = sink(&settings(&strange)).check().await.unwrap_err();
    assert!(error.message.contains("notes.txt"), "{error}");

    let fresh = folder.path().join("fresh");
    let notes = sink(&settings(&fresh)).check().await.unwrap();
    assert!(notes[0].contains("will be made") && !fresh.exists(), "{notes:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(folder.path().join("probe"), "").is_ok() {
        // The superuser may write everywhere but to what nobody may write to.
        let settings = to_file(Path::new("/proc/debshrew"), u64::MAX, Compression::None);
        assert_eq!(refused(&settings).await.kind, Kind::Permanent);
        return;
    }
    let settings = to_file(folder.path(), u64::MAX, Compression::None);
    let error = refused(&settings).await;
    assert!(error.kind == Kind::Permanent && whole(&error).contains("ermission"), "{}", whole(&error));
    assert!(sink(&settings).check().await.is_err());
}

#[tokio::test]
async fn rows_that_are_gone_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = to_file(folder.path(), u64::MAX, Compression::None);
    let (mut writer, _) = opened(&settings).await;
    writer.publish(&step(0)).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    let rows = folder.path().join("000000000001.jsonl.part");
    let whole = std::fs::read(&rows).unwrap();
    std::fs::write(&rows, &whole[1..]).unwrap();
    let error = refused(&settings).await;
    assert!(error.kind == Kind::Permanent && error.message.contains("lost rows"), "{error}");
    std::fs::remove_file(&rows).unwrap();
    let error = refused(&settings).await;
    assert!(error.kind == Kind::Permanent && error.message.contains("are gone"), "{error}");
    std::fs::write(&rows, &whole).unwrap();
    assert_eq!(opened(&settings).await.1, Position::At(cursor(Some(block(0, 0)), 0)));
}
