//! Being asked to stop: what is committed is kept, and the next run goes on from there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;

use filed::pipeline::CHUNK_BYTES;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use super::acknowledged::{Acknowledged, check_pieces_differ};
use super::content::{digest, noise, text};
use super::filed::{Filed, Running, Seen};

/// Level 19 is so slow that a signal surely comes before the end of it.
const LARGE_BYTES: usize = 32 << 20;

fn stops_in_the_middle_and_goes_on(signal: Signal) {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    let mut digests = BTreeMap::new();
    for (name, content) in [
        ("a", noise(1, 10_000)),
        ("b", noise(2, 10_000)),
        ("c", noise(3, 10_000)),
        ("large", text(4, LARGE_BYTES)),
    ] {
        let path = files.join(name);
        fs::write(&path, &content).unwrap();
        digests.insert(path.to_str().unwrap().to_owned(), digest(&content));
    }
    let content = |name: &str| digests[name].clone();
    let large = files.join("large");
    let large = large.to_str().unwrap();
    let filed = Filed::new(&dir.path().join("store"));
    let mut acknowledged = Acknowledged::default();

    let slowly = ["process", "--json", "--quiet", "--level=19", "--workers=2"];
    let mut running = filed.start(&[&slowly[..], &[files.to_str().unwrap()]].concat());
    // About a quarter of what they take when compressed.
    let in_the_middle = || filed.pack_bytes() > 2 << 20;
    assert_eq!(running.wait_until(in_the_middle), Seen::Event);
    running.signal(signal);
    let ended = running.end();
    let said = &ended.stderr;
    assert_eq!(ended.code(), Some(128 + signal.as_raw()), "{said}");
    acknowledged.hear(&ended, content);
    assert_eq!(ended.file(large)["status"], "failed");
    // Two files are in work at a time, so when the large one was begun two others were through.
    assert!(acknowledged.count() >= 2, "{:#?}", ended.files());

    filed.verify();
    acknowledged.check_all(&filed.open());
    let kept = check_pieces_differ(&filed.open());
    let ended = filed.take_in(&[&files]);
    acknowledged.hear(&ended, content);
    assert_eq!(acknowledged.count(), 4);
    let number = |key| ended.file(large)[key].as_u64().unwrap();
    let (all, new) = (number("pieces"), number("new_pieces"));
    assert!(new < all * 9 / 10, "{new} of {all} pieces are new");
    // Nothing that the stopped run had written was written again. The small files are a piece each, as
    // they are shorter than the least piece.
    let new_in_all: u64 = ended
        .files()
        .iter()
        .filter_map(|file| file["new_pieces"].as_u64())
        .sum();
    assert_eq!((kept + new_in_all, filed.verify()), (all + 3, all + 3));
    acknowledged.check_all(&filed.open());
}

#[test]
fn sigint_stops_in_the_middle_of_a_file_and_the_next_run_goes_on() {
    stops_in_the_middle_and_goes_on(Signal::INT);
}

#[test]
fn sigterm_stops_in_the_middle_of_a_file_and_the_next_run_goes_on() {
    stops_in_the_middle_and_goes_on(Signal::TERM);
}

#[test]
fn sigint_ends_a_run_that_waits_for_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let filed = Filed::new(&dir.path().join("store"));
    let (mut running, stdin) = filed.start_fed(&["process", "-", "--as", "/idle", "--json"]);
    running.wait_until_it_listens();
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code(), Some(130), "{}", ended.stderr);
    // It may have been stopped before it had begun.
    let is_failed = |file: &Value| file["status"] == "failed";
    assert!(ended.files().iter().all(is_failed));
    drop(stdin);
    assert_eq!(filed.verify(), 0);
}

#[test]
fn sigint_ends_a_run_that_waits_for_the_rest_of_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let filed = Filed::new(&dir.path().join("store"));
    let (mut running, mut stdin) = filed.start_fed(&["process", "-", "--as", "/half", "--json"]);
    let content = noise(3, (4 << 20) + 1000);
    stdin.write_all(&content).unwrap();
    let has_begun = || filed.pack_bytes() > 2 << 20;
    assert_eq!(running.wait_until(has_begun), Seen::Event);
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code(), Some(130), "{}", ended.stderr);
    assert_eq!(ended.file("/half")["status"], "failed");
    let kept = filed.verify();

    let (running, mut stdin) = filed.start_fed(&["process", "-", "--as", "/half", "--json"]);
    stdin.write_all(&content).unwrap();
    drop(stdin);
    let half = running.end().file("/half");
    assert_eq!(half["digest"], digest(&content));
    let (all, new) = (
        half["pieces"].as_u64().unwrap(),
        half["new_pieces"].as_u64().unwrap(),
    );
    assert_eq!((new, filed.verify()), (all - kept, all));
}

/// Somebody else holds the catalog, so it cannot stop by itself: its worker waits for that.
#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let filed = Filed::new(&dir.join("store"));
    let log = dir.join("log");
    let arguments = ["process", "-", "--as", "/held", "--workers=1", "--log=info"];
    let mut command = filed.command(&arguments);
    command.stdin(Stdio::piped());
    command.stderr(Stdio::from(File::create(&log).unwrap()));
    let mut running = Running::start(command);
    let mut stdin = running.take_stdin();
    running.wait_until_it_listens();
    let catalog = Connection::open(filed.store().join("catalog.db")).unwrap();
    catalog.execute_batch("BEGIN IMMEDIATE").unwrap();
    stdin.write_all(&noise(4, CHUNK_BYTES)).unwrap();
    // From here to its first pack the worker does not look whether it should stop.
    let has_read_the_chunk = || rustix::io::ioctl_fionread(&stdin).unwrap() == 0;
    assert_eq!(running.wait_until(has_read_the_chunk), Seen::Event);
    running.signal(Signal::INT);
    let was_heard = || fs::read_to_string(&log).unwrap().contains("stopping");
    assert_eq!(running.wait_until(was_heard), Seen::Event);
    assert!(running.is_running());
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(143));
    catalog.execute_batch("ROLLBACK").unwrap();
    assert_eq!(filed.verify(), 0);
}
