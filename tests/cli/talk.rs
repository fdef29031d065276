//! What is said beside the data: a table at the end, progress in between, messages a line each.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use super::world::{World, finish, noise};

fn with_store() -> World {
    let world = World::new();
    world.write("a", &noise("a", 100_000));
    world.run(["process", "a"]).exits(0);
    world
}

#[test]
fn quiet_prints_nothing_when_all_is_well() {
    let world = World::new();
    world.write("tree/a", &noise("a", 100_000));
    for args in [
        &["process", "tree"][..],
        &["process", "tree"],
        &["process", "tree", "--reread"],
        &["restore", "tree/a", "--to", "b"],
        &["restore", "--all", "--to", "out"],
        &["verify"],
        &["verify", "--quick"],
        &["verify", "tree/a"],
    ] {
        for quiet in ["--quiet", "-q"] {
            if args[0] == "restore" && quiet == "-q" {
                continue;
            }
            let outcome = world.run([args, &[quiet]].concat()).exits(0);
            assert_eq!(
                (outcome.text(), outcome.stderr.as_str()),
                ("", ""),
                "{outcome}"
            );
        }
    }
}

#[test]
fn quiet_still_says_what_went_wrong() {
    let world = with_store();
    let outcome = world
        .run(["process", "--quiet", "a", "missing", "/dev/null"])
        .exits(3);
    assert_eq!(outcome.text(), "");
    assert_eq!(outcome.messages().len(), 2, "{outcome}");
}

#[test]
fn process_ends_with_a_short_table() {
    let world = World::new();
    world.write("tree/a", &noise("a", 2 << 20));
    world.write("tree/b", b"b");
    let outcome = world.run(["process", "tree", "missing"]).exits(3);
    assert_eq!(
        outcome.rows(),
        ["files", "read", "new", "kept", "memory", "modes", "store"]
    );
    for part in [
        "2 stored, 1 failed",
        "2.0 MiB in ",
        "MB/s",
        "(start, peak, end; threshold",
    ] {
        assert!(outcome.text().contains(part), "{part}: {outcome}");
    }
    let store = world.store();
    assert!(
        outcome.text().contains(store.to_str().unwrap()),
        "{outcome}"
    );
    // What is known is found in the cache, which is on the heap.
    let again = world.run(["process", "--reread", "tree"]).exits(0);
    assert_eq!(
        again.rows(),
        [
            "files", "read", "new", "kept", "memory", "modes", "cache", "heap", "store"
        ]
    );
    assert!(again.text().contains("known pieces"), "{again}");
}

#[test]
fn restore_and_verify_end_with_a_short_table() {
    let world = with_store();
    let outcome = world.run(["restore", "a", "--to", "b"]).exits(0);
    assert!(outcome.text().contains("1 restored, 0 failed"), "{outcome}");
    assert!(outcome.text().contains("97.7 KiB in "), "{outcome}");
    let outcome = world.run(["verify"]).exits(0);
    assert!(outcome.text().contains("1 with 1 versions"), "{outcome}");
    assert!(outcome.text().contains("no damage"), "{outcome}");
}

#[test]
fn a_line_of_progress_comes_now_and_then_where_there_is_no_terminal() {
    let world = World::new();
    let mut process = world.filed();
    process
        .args(["process", "-", "--as", "endless"])
        .env("FILED_PROGRESS__INTERVAL", "1s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    let input = child.stdin.take().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // It is asked to wait for input, and so goes on until a line has come.
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    assert!(line.starts_with("filed: 0 B, 0 files, "), "{line}");
    assert!(
        line.contains(", memory ") && line.ends_with(", normal\n"),
        "{line}"
    );
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(
        rest.lines().all(|line| line.starts_with("filed: ")),
        "{rest}"
    );
}

/// Runs a command with stderr on a socket that tells what was written at once.
fn writes_to_stderr(command: &mut Command) -> (Option<i32>, Vec<String>) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut child = command.stderr(OwnedFd::from(theirs)).spawn().unwrap();
    let mut writes = Vec::new();
    let mut room = [0; 4096];
    loop {
        // Asked before it is looked: what comes after its end has come before.
        let ended = child.try_wait().unwrap();
        while let Ok(length) = ours.recv(&mut room) {
            writes.push(String::from_utf8(room[..length].to_vec()).unwrap());
        }
        match ended {
            Some(status) => return (status.code(), writes),
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn every_message_is_one_line_written_at_once() {
    // Where several processes write to one journal, half a line would run into another's.
    let world = World::new();
    world.write("tree/good", b"good");
    for number in 0..20 {
        let name = format!("tree/new\nline-{number}");
        std::os::unix::fs::symlink("good", world.path(name)).unwrap();
    }
    let mut process = world.filed();
    process.args(["process", "--quiet", "tree", "missing"]);
    let (code, writes) = writes_to_stderr(&mut process);
    assert_eq!(code, Some(3));
    assert_eq!(writes.len(), 21, "{writes:?}");
    let mut show = world.filed();
    let (code, error) = writes_to_stderr(show.args(["show", "missing"]));
    assert_eq!(code, Some(1));
    assert_eq!(error.len(), 1, "{error:?}");
    for message in writes.iter().chain(&error) {
        assert!(message.starts_with("filed: "), "{message:?}");
        assert_eq!(message.find('\n'), Some(message.len() - 1), "{message:?}");
    }
}

#[test]
fn a_log_at_info_says_which_limits_apply() {
    let world = World::new();
    world.write("a", b"a");
    let outcome = world.run([
        "process", "--quiet", "--log", "info", "--memory", "100M", "a",
    ]);
    let outcome = outcome.exits(0);
    assert!(outcome.stderr.contains("100 MiB (--memory)"), "{outcome}");
    assert!(outcome.stderr.contains("memory planned"), "{outcome}");
    let outcome = world
        .run(["process", "--quiet", "--memory", "100M", "a"])
        .exits(0);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let world = with_store();
    for args in [
        &["list"][..],
        &["list", "--json"],
        &["show", "a"],
        &["config", "default"],
    ] {
        let mut command = world.filed();
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        command.args(args).stdout(full).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("standard output"), "{stderr}");
    }
}

#[test]
fn a_reader_that_has_enough_is_no_error_worth_a_word() {
    let world = with_store();
    let mut command = world.filed();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.arg("list").stdout(writer).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn an_error_ends_with_what_can_be_done_about_it() {
    let world = World::new();
    let outcome = finish(world.filed().arg("list")).exits(10);
    let message = outcome.message();
    assert!(
        message.ends_with(')') && message.contains("(hint: "),
        "{message}"
    );
}
