//! Standard input as a file, and a run that is interrupted.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;

use super::world::{MIB, Outcome, World, digest, names_in, noise};

/// Runs a command with this on its standard input.
fn feed(command: &mut Command, content: &[u8]) -> Outcome {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // Whoever refuses the input closes it: then what it says is looked at, not this.
            let _ = input.write_all(content);
        });
        child.wait_with_output().unwrap()
    });
    Outcome::of(command, output)
}

#[test]
fn a_stream_of_any_length_is_stored_under_its_name() {
    let world = World::new();
    for (name, length) in [
        ("none", 0),
        ("one", 1),
        ("short", 1000),
        ("chunk", MIB),
        ("above", MIB + 1),
        ("long", 3 * MIB + 500_000),
    ] {
        let content = noise(name, length);
        let mut process = world.filed();
        process.args(["process", "--json", "-", "--as", name]);
        let outcome = feed(&mut process, &content).exits(0);
        let line = outcome.file(name);
        assert_eq!(line["path"], "-", "{line}");
        assert_eq!(line["status"], "stored", "{line}");
        assert_eq!(line["bytes"], length, "{line}");
        assert_eq!(line["digest"], digest(&content), "{line}");
        let given = world.run(["restore", name, "--stdout"]).exits(0);
        assert!(given.stdout == content, "{name} differs");
    }
    world.run(["verify"]).exits(0);
}

#[test]
fn a_stream_and_a_file_of_the_same_content_share_their_pieces() {
    let world = World::new();
    let content = noise("shared", 2 * MIB + 77);
    world.write("file", &content);
    world.run(["process", "file"]).exits(0);
    let mut process = world.filed();
    let outcome = feed(
        process.args(["process", "--json", "-", "--as", "stream"]),
        &content,
    );
    let line = outcome.exits(0).file("stream");
    assert_eq!(
        (&line["version"], &line["new_pieces"]),
        (&1.into(), &0.into()),
        "{line}"
    );
    // A stream has no times that could prove it unchanged.
    let outcome = feed(&mut process, &content).exits(0);
    assert_eq!(outcome.file("stream")["version"], 2);
}

#[test]
fn a_restored_stream_has_the_mode_of_a_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    feed(world.filed().args(["process", "-", "--as", "s"]), b"stream").exits(0);
    world.run(["restore", "s", "--to", "out"]).exits(0);
    let mode = |name: &str| world.path(name).metadata().unwrap().permissions().mode();
    world.write("new", b"");
    assert_eq!(mode("out"), mode("new"));
}

#[test]
fn a_stream_without_a_name_is_refused_before_anything_happens() {
    let world = World::new();
    for args in [&["-"][..], &["a", "-"], &["--json", "-"]] {
        let outcome = world.run([&["process"], args].concat()).exits(2);
        assert!(outcome.message().contains("--as NAME"), "{outcome}");
        assert!(outcome.stdout.is_empty(), "{outcome}");
    }
    assert!(!world.store().exists());
}

#[test]
fn a_name_for_several_paths_is_refused() {
    let world = World::new();
    world.write("a", b"a");
    for paths in [["a", "a"], ["-", "a"], ["-", "-"]] {
        let outcome = world
            .run([&["process", "--as", "x"], &paths[..]].concat())
            .exits(2);
        assert!(outcome.message().contains("--as"), "{outcome}");
    }
    assert!(!world.store().exists());
}

#[test]
fn an_impossible_name_is_refused() {
    let world = World::new();
    let outcome = world.run(["process", "-", "--as", ""]).exits(2);
    assert!(outcome.message().contains("cannot be empty"), "{outcome}");
    let long = "x".repeat(65_536);
    let outcome = world.run(["process", "-", "--as", &long]).exits(2);
    assert!(outcome.message().contains("longer than"), "{outcome}");
    assert!(!world.store().exists());
}

#[test]
fn a_name_for_a_folder_fails_with_a_clear_line() {
    let world = World::new();
    world.write("folder/a", b"a");
    let outcome = world.run(["process", "folder", "--as", "x"]).exits(1);
    let message = outcome.message();
    assert!(message.contains("/folder: a folder"), "{message}");
    assert!(message.contains("--as"), "{message}");
    let listed = world.run(["list"]).exits(0);
    assert!(listed.stdout.is_empty(), "{listed}");
}

#[test]
fn a_file_may_be_given_another_name() {
    let world = World::new();
    world.write("a", b"content");
    let outcome = world
        .run(["process", "--json", "a", "--as", "dump of today"])
        .exits(0);
    let line = outcome.file("dump of today");
    assert_eq!(line["path"], world.name("a"), "{line}");
    let given = world.run(["restore", "dump of today", "--stdout"]).exits(0);
    assert_eq!(given.text(), "content");
    assert!(
        world
            .run(["show", "a"])
            .exits(1)
            .message()
            .contains("is not in the store")
    );
}

#[test]
fn an_interrupted_stream_is_not_stored_and_what_it_brought_is_found_again() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = World::new();
        let content = noise("interrupted", 6 * MIB);
        let mut process = world.filed();
        process
            .args(["process", "--json", "-", "--as", "stream"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // More than the pipe holds: once it is written, filed has read most of it, and so listens.
        input.write_all(&content).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let outcome = Outcome::of(&process, child.wait_with_output().unwrap());
        let outcome = outcome.exits(code);
        let line = outcome.file("stream");
        assert_eq!(
            (&line["status"], &line["version"]),
            (&"failed".into(), &Value::Null)
        );
        assert!(
            line["error"].as_str().unwrap().contains("stopped"),
            "{line}"
        );
        assert_eq!(outcome.summary()["stored"], 0, "{outcome}");
        drop(input);

        let listed = world.run(["list"]).exits(0);
        assert!(listed.stdout.is_empty(), "{listed}");
        world.run(["verify"]).exits(0);
        process = world.filed();
        process.args(["process", "--json", "-", "--as", "stream"]);
        let outcome = feed(&mut process, &content).exits(0);
        let line = outcome.file("stream");
        let new = line["new_bytes"].as_u64().unwrap();
        assert!(new <= content.len() as u64 - MIB as u64, "{line}");
        let given = world.run(["restore", "stream", "--stdout"]).exits(0);
        assert!(given.stdout == content);
        world.run(["verify"]).exits(0);
        assert_eq!(names_in(&world.path("")), [""; 0]);
    }
}

#[test]
fn files_that_were_acknowledged_before_a_signal_stay() {
    let world = World::new();
    let content = noise("acknowledged", MIB);
    world.write("a", &content);
    super::world::settle(&world.path("a"));
    world.run(["process", "a"]).exits(0);
    let mut process = world.filed();
    process
        .args(["process", "-", "--as", "stream"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&noise("more", 2 * MIB)).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Outcome::of(&process, child.wait_with_output().unwrap()).exits(130);
    let outcome = world.run(["process", "--json", "a"]).exits(0);
    assert_eq!(outcome.file(&world.name("a"))["status"], "unchanged");
    let given = world.run(["restore", "a", "--stdout"]).exits(0);
    assert!(given.stdout == content);
}
