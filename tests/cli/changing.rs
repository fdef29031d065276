//! Files that change while they are read: noticed, and never stored as if whole.
//!
//! A change is made over and over by a thread, without a pause, for as long as filed runs. Should a
//! busy machine let filed read the whole file between two changes, then what it stored must be one
//! state that the file really had, and the file is tried again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::world::{MIB, Outcome, World, digest, noise, skipped};

const LENGTH: usize = 8 * MIB;

/// A file is read whole between two changes so often only if changes are not noticed.
const TRIES: usize = 100;

/// Says that a run is over, however it ended.
struct OverWhenDropped<'a>(&'a AtomicBool);

impl Drop for OverWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Processes a file and a calm one beside it, while the `round`-th change is made to the file.
/// `state` gives what the file holds when it has a length.
fn process_while(change: impl Fn(&File, u64) + Sync, state: impl Fn(usize) -> Vec<u8>) -> Outcome {
    for _ in 0..TRIES {
        let world = World::new();
        world.write("calm", b"calm");
        let path = world.write("restless", &state(LENGTH));
        let file = File::options().write(true).open(path).unwrap();
        let over = AtomicBool::new(false);
        let outcome = thread::scope(|scope| {
            let _over = OverWhenDropped(&over);
            scope.spawn(|| {
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    change(&file, round);
                    round += 1;
                }
            });
            world.run(["process", "--json", "restless", "calm"])
        });
        assert_eq!(
            outcome.file(&world.name("calm"))["status"],
            "stored",
            "{outcome}"
        );
        let line = outcome.file(&world.name("restless"));
        if line["status"] == "failed" {
            assert_eq!(line["version"], serde_json::Value::Null, "{line}");
            assert_eq!(line["digest"], serde_json::Value::Null, "{line}");
            let listed = world.run(["list", "--json"]).exits(0);
            assert_eq!(listed.lines().len(), 1, "{listed}");
            assert_eq!(listed.lines()[0]["name"], world.name("calm"));
            world.run(["verify"]).exits(0);
            return outcome.exits(3);
        }
        assert_eq!(line["status"], "stored", "{line}");
        let length = line["bytes"].as_u64().unwrap() as usize;
        assert_eq!(line["digest"], digest(&state(length)), "{line}");
    }
    panic!("in {TRIES} tries no change was noticed");
}

#[track_caller]
fn assert_says(outcome: &Outcome, what: &str) {
    let failed = outcome.lines_of("file");
    let failed = failed
        .iter()
        .find(|line| line["status"] == "failed")
        .unwrap();
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains(what), "{error}");
    assert!(error.contains("nothing of it is stored"), "{error}");
}

#[test]
fn a_file_that_grows_while_it_is_read_is_not_stored() {
    let whole = noise("grows", LENGTH);
    let outcome = process_while(
        |file, round| file.write_all_at(b"+", LENGTH as u64 + round).unwrap(),
        |length| {
            let mut content = whole[..length.min(LENGTH)].to_vec();
            content.resize(length, b'+');
            content
        },
    );
    assert_says(&outcome, "it grew while it was read");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_not_stored() {
    let whole = noise("shrinks", LENGTH);
    let outcome = process_while(
        |file, round| {
            // Never to nothing, however late it is looked at.
            let length = LENGTH as u64 - round % (LENGTH as u64 / 2);
            file.set_len(length).unwrap();
        },
        |length| whole[..length].to_vec(),
    );
    assert_says(&outcome, "it shrank while it was read");
}

#[test]
fn a_file_that_is_written_while_it_is_read_is_not_stored() {
    // The same bytes each time: whether they are a mixture of two states cannot be seen from them.
    let whole = noise("written", LENGTH);
    let outcome = process_while(
        |file, _| file.write_all_at(&whole[..4096], 0).unwrap(),
        |length| whole[..length].to_vec(),
    );
    assert_says(&outcome, "it changed while it was read");
}

#[test]
fn a_file_that_gets_a_hole_at_its_end_while_it_is_read_is_not_stored() {
    let outcome = process_while(
        |file, round| file.set_len(LENGTH as u64 + round + 1).unwrap(),
        |length| vec![0; length],
    );
    assert_says(&outcome, "it grew while it was read");
}

#[test]
fn a_file_of_the_kernel_that_says_it_is_empty_is_not_stored_as_empty() {
    let world = World::new();
    for path in ["/proc/self/status", "/proc/version"] {
        let outcome = world.run(["process", "--json", path]).exits(1);
        assert_says(&outcome, "it grew while it was read");
    }
    let listed = world.run(["list"]).exits(0);
    assert!(listed.stdout.is_empty(), "{listed}");
    // As a stream the same content is nothing special.
    let mut process = world.filed();
    process.args(["process", "--json", "-", "--as", "version"]);
    process.stdin(File::open("/proc/version").unwrap());
    let outcome = super::world::finish(&mut process).exits(0);
    let content = std::fs::read("/proc/version").unwrap();
    assert_eq!(outcome.file("version")["digest"], digest(&content));
}

#[test]
fn a_file_of_the_kernel_that_says_it_is_longer_is_not_stored() {
    // What these hold is shorter than the page that they say they are.
    let path = "/sys/kernel/fscaps";
    if !std::path::Path::new(path).exists() {
        return skipped("there is no sysfs here");
    }
    let world = World::new();
    let outcome = world.run(["process", "--json", path]).exits(1);
    assert_says(&outcome, "it shrank while it was read");
}
