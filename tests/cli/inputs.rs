//! What cannot be taken in is said, a line each, and keeps nothing else from being taken in.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};

use super::world::{MIB, World, finish, noise, skipped};

/// One of everything that filed does not store.
fn plant_special(world: &World) -> UnixListener {
    world.write("tree/good", b"good");
    std::os::unix::fs::symlink("good", world.path("tree/link")).unwrap();
    std::os::unix::fs::symlink("nowhere", world.path("tree/dangling")).unwrap();
    let fifo = world.path("tree/fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    UnixListener::bind(world.path("tree/socket")).unwrap()
}

const SPECIAL: [(&str, &str); 4] = [
    ("tree/link", "a symbolic link"),
    ("tree/dangling", "a symbolic link"),
    ("tree/fifo", "a FIFO"),
    ("tree/socket", "a socket"),
];

#[test]
fn links_and_special_files_in_a_folder_are_skipped_with_a_line_each() {
    let world = World::new();
    let _socket = plant_special(&world);
    let outcome = world.run(["process", "tree"]).exits(3);
    let messages = outcome.messages();
    assert_eq!(messages.len(), SPECIAL.len(), "{outcome}");
    for (name, what) in SPECIAL {
        let start = format!("{}: skipped: {what}", world.name(name));
        assert!(
            messages.iter().any(|message| message.starts_with(&start)),
            "{start}: {outcome}"
        );
    }
    assert!(outcome.text().contains("1 stored, 4 skipped"), "{outcome}");

    let outcome = world.run(["process", "--json", "tree"]).exits(3);
    for (name, what) in SPECIAL {
        let line = outcome.file(&world.name(name));
        assert_eq!(line["status"], "skipped", "{line}");
        assert_eq!(line["version"], serde_json::Value::Null, "{line}");
        assert!(line["error"].as_str().unwrap().contains(what), "{line}");
    }
    assert_eq!(outcome.summary()["skipped"], 4);
    let listed = world.run(["list", "--json"]).exits(0);
    assert_eq!(listed.lines().len(), 1);
}

#[test]
fn links_and_special_files_are_skipped_when_they_are_named() {
    let world = World::new();
    let _socket = plant_special(&world);
    for (name, what) in SPECIAL.into_iter().chain([("/dev/null", "a device")]) {
        let outcome = world.run(["process", name]).exits(3);
        let message = outcome.message();
        assert!(message.contains(&format!("skipped: {what}")), "{message}");
        let outcome = world.run(["process", name, "--as", "x"]).exits(3);
        assert!(outcome.message().contains(what), "{outcome}");
    }
    let outcome = world.run(["process", "tree/fifo"]).exits(3);
    assert!(
        outcome.message().contains("--as NAME"),
        "a way that works is named: {outcome}"
    );
}

#[test]
fn a_missing_path_fails_and_creates_no_store() {
    let world = World::new();
    for paths in [
        &["missing"][..],
        &["missing", "gone/too"],
        &["missing", "no/../way"],
    ] {
        let outcome = world.run([&["process"], paths].concat()).exits(1);
        let messages = outcome.messages();
        assert_eq!(messages.len(), paths.len(), "{outcome}");
        for message in messages {
            assert!(message.contains("No such file or directory"), "{message}");
        }
    }
    assert!(outcome_of_missing(&world).contains("/missing: "));
    assert!(!world.store().exists());
    assert!(!world.root().join("data/filed").exists());
}

fn outcome_of_missing(world: &World) -> String {
    world
        .run(["process", "missing"])
        .exits(1)
        .message()
        .to_owned()
}

#[test]
fn a_missing_path_is_a_line_of_json_and_a_summary() {
    let world = World::new();
    let outcome = world.run(["process", "--json", "missing"]).exits(1);
    let line = outcome.file(&world.name("missing"));
    assert_eq!(line["status"], "failed", "{line}");
    assert_eq!(outcome.summary()["failed"], 1, "{outcome}");
    assert!(!world.store().exists());
}

#[test]
fn a_missing_path_beside_a_good_one_does_not_keep_it_out() {
    let world = World::new();
    world.write("good", b"good");
    for paths in [["missing", "good"], ["good", "missing"]] {
        let outcome = world
            .run(["process", "--json", "--reread", paths[0], paths[1]])
            .exits(3);
        assert_eq!(outcome.file(&world.name("good"))["status"], "stored");
        assert_eq!(outcome.file(&world.name("missing"))["status"], "failed");
        let summary = outcome.summary();
        assert_eq!(
            (&summary["stored"], &summary["failed"]),
            (&1.into(), &1.into())
        );
    }
    let given = world.run(["restore", "good", "--stdout"]).exits(0);
    assert_eq!(given.text(), "good");
    // With a store there, a missing path alone is still a failure.
    world.run(["process", "missing"]).exits(1);
}

#[test]
fn an_unreadable_file_or_folder_fails_and_the_rest_is_stored() {
    let world = World::new();
    world.write("tree/good", b"good");
    let file = world.write("tree/file", b"secret");
    world.write("tree/closed/inside", b"secret");
    world.write("tree/unsearchable/inside", b"secret");
    let mut process = world.filed_unprivileged();
    let close =
        |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    close(&file, 0o000);
    close(&world.path("tree/closed"), 0o000);
    close(&world.path("tree/unsearchable"), 0o444);
    let outcome = finish(process.args(["process", "--json", "tree"]));
    let outcome = outcome.exits(3);
    for name in ["tree/file", "tree/closed", "tree/unsearchable"] {
        let line = outcome.file(&world.name(name));
        assert_eq!(line["status"], "failed", "{line}");
        assert!(
            line["error"]
                .as_str()
                .unwrap()
                .contains("Permission denied"),
            "{line}"
        );
    }
    assert_eq!(outcome.file(&world.name("tree/good"))["status"], "stored");
    assert_eq!(outcome.summary()["failed"], 3);
    // And each alone.
    for name in ["tree/file", "tree/closed", "tree/unsearchable/inside"] {
        let mut process = world.filed_unprivileged();
        let outcome = finish(process.args(["process", name])).exits(1);
        let message = outcome.message();
        assert!(message.contains(&world.name(name)), "{message}");
        assert!(message.contains("Permission denied"), "{message}");
    }
    for name in ["tree/closed", "tree/unsearchable"] {
        close(&world.path(name), 0o755);
    }
}

#[test]
fn a_store_that_cannot_be_created_fails_with_its_path() {
    let world = World::new();
    world.write("a", b"a");
    let mut process = world.filed_unprivileged();
    fs::set_permissions(world.root().join("data"), Permissions::from_mode(0o555)).unwrap();
    let outcome = finish(process.args(["process", "a"])).exits(1);
    let message = outcome.message();
    assert!(message.contains("data/filed"), "{message}");
    assert!(message.contains("Permission denied"), "{message}");
    fs::set_permissions(world.root().join("data"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_in_the_store_is_private() {
    let world = World::new();
    world.write("a", b"a");
    world.run(["process", "a"]).exits(0);
    let metadata = world.store().metadata().unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o700);
    for pack in world.packs() {
        assert_eq!(pack.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn an_empty_path_is_a_missing_one() {
    let world = World::new();
    let outcome = world.run(["process", ""]);
    assert!([Some(1), Some(2)].contains(&outcome.code()), "{outcome}");
    assert!(!world.store().exists());
}

/// The kernel tells nobody but its owner, or who may write to it, what of a file is cached.
#[test]
fn a_file_of_somebody_else_does_not_stay_in_the_page_cache() {
    if !super::world::is_root() {
        return skipped("not root: files of others are not tested");
    }
    let world = World::new();
    let path = world.write("theirs", &noise("theirs", 5 * MIB));
    let mut command = world.filed_unprivileged();
    command.args(["process", "theirs", "--quiet"]);
    std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let cached = || filed::heap::page_cache::cached_bytes(&file, 0, 0);
    if cached() != Some(0) {
        return skipped("the page cache cannot be looked at, or not be emptied, here");
    }
    finish(&mut command).exits(0);
    assert_eq!(cached(), Some(0));
    // What was there before is left there.
    std::io::copy(&mut &file, &mut std::io::sink()).unwrap();
    command.arg("--reread");
    finish(&mut command).exits(0);
    assert!(cached() >= Some(5 << 20), "{:?}", cached());
}
