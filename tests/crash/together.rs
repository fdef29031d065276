//! Two processes in one store, one of which dies in the middle.
//!
//! Both read from a pipe that is fed here, so where they are is known and nothing depends on who is
//! faster.

use std::io::Write;
use std::process::ChildStdin;

use rustix::process::Signal;

use super::acknowledged::Acknowledged;
use super::content::{digest, noise};
use super::filed::{Filed, Running, Seen};

/// Starts taking in `/name` and feeds it until packs have got most of that.
fn begin(filed: &Filed, name: &str, content: &[u8], new_bytes: usize) -> (Running, ChildStdin) {
    let before = filed.pack_bytes();
    let arguments = ["process", "-", "--as", name, "--json", "--quiet"];
    let (mut running, mut stdin) = filed.start_fed(&arguments);
    stdin.write_all(content).unwrap();
    // The last megabytes may be in frames that are not full.
    let expected = before + new_bytes as u64 - (3 << 20);
    let wrote = || filed.pack_bytes() >= expected;
    assert_eq!(running.wait_until(wrote), Seen::Event);
    (running, stdin)
}

#[test]
fn one_dies_and_the_other_completes() {
    let dir = tempfile::tempdir().unwrap();
    let filed = Filed::new(&dir.path().join("store"));
    let (shared, own) = (noise(1, 6 << 20), noise(2, 6 << 20));
    let whole = [&shared[..], &own].concat();
    let content = |_: &str| digest(&whole);

    let (dies, dies_stdin) = begin(&filed, "/dies", &shared, shared.len());
    let (lives, mut lives_stdin) = begin(&filed, "/lives", &shared, shared.len());
    dies.signal(Signal::KILL);
    assert!(dies.end().was_killed());
    drop(dies_stdin);
    lives_stdin.write_all(&own).unwrap();
    drop(lives_stdin);
    let ended = lives.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let mut acknowledged = Acknowledged::default();
    acknowledged.hear(&ended, content);
    assert_eq!(acknowledged.count(), 1);
    let before = filed.verify();
    acknowledged.check_all(&filed.open());
    assert_ne!(filed.open().database().open_packs().unwrap(), []);

    // The next process seals what the dead one left, and finds all of it again.
    let (running, mut stdin) = filed.start_fed(&["process", "-", "--as", "/dies", "--json"]);
    stdin.write_all(&whole).unwrap();
    drop(stdin);
    let ended = running.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.file("/dies")["new_pieces"], 0);
    acknowledged.hear(&ended, content);
    assert_eq!(filed.open().database().open_packs().unwrap(), []);
    // Both had stored what they share: that costs room, and nothing else.
    assert!(filed.verify() > before);
    acknowledged.check_all(&filed.open());
}
