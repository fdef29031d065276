//! Finding the store, refusing what is none, and sharing it between processes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::world::{Outcome, World, finish, names_in, noise, settle};

/// Commands that need a store.
const READERS: [&[&str]; 6] = [
    &["list"],
    &["show", "a"],
    &["verify"],
    &["verify", "a"],
    &["restore", "a", "--to", "b"],
    &["restore", "--all", "--to", "b"],
];

/// A world with `a` stored.
fn with_store() -> World {
    let world = World::new();
    settle(&world.write("a", b"content"));
    world.run(["process", "a"]).exits(0);
    world
}

/// What a store's files hold, to see that nothing was changed.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut contents: Vec<_> = super::world::entries_below(folder)
        .into_iter()
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    contents.sort();
    contents
}

#[test]
fn without_a_store_only_process_works() {
    let world = World::new();
    world.write("a", b"a");
    for args in READERS {
        let outcome = world.run(args).exits(10);
        let message = outcome.message();
        assert!(
            message.contains("data/filed/store: there is no store here"),
            "{message}"
        );
        assert!(message.contains("filed process PATH"), "{message}");
        assert!(outcome.stdout.is_empty(), "{outcome}");
    }
    assert!(!world.store().exists(), "asking creates nothing");
    assert!(!world.path("b").exists());
    world.run(["process", "a"]).exits(0);
    world.run(["list"]).exits(0);
}

#[test]
fn a_folder_that_is_no_store_is_left_alone() {
    let world = World::new();
    world.write("a", b"a");
    world.write("folder/precious", b"precious");
    let outcome = world.run(["process", "a", "--store", "folder"]).exits(1);
    let message = outcome.message();
    assert!(message.contains("not empty and not a store"), "{message}");
    assert!(message.contains("hint: "), "{message}");
    assert_eq!(names_in(&world.path("folder")), ["precious"]);
    for args in READERS {
        let args = [args, &["--store", "folder"]].concat();
        world.run(args).exits(10);
    }
    assert_eq!(names_in(&world.path("folder")), ["precious"]);
}

#[test]
fn a_file_is_no_store() {
    let world = World::new();
    world.write("a", b"a");
    world.run(["list", "--store", "a"]).exits(10);
    let outcome = world.run(["process", "a", "--store", "a"]).exits(1);
    assert_eq!(outcome.messages().len(), 1, "{outcome}");
    world.run(["process", "a", "--store", "a/store"]).exits(1);
    assert_eq!(world.read("a"), b"a");
}

#[test]
fn an_empty_folder_becomes_a_store() {
    let world = World::new();
    world.write("a", b"a");
    fs::create_dir_all(world.path("folder/lost+found")).unwrap();
    world.run(["process", "a", "--store", "folder"]).exits(0);
    world.run(["verify", "--store", "folder"]).exits(0);
}

#[test]
fn the_store_is_where_the_nearest_setting_says() {
    let world = World::new();
    world.write("a", b"a");
    let root = world.root().to_owned();
    let at = |place: &str| root.join(place).join("format").exists();
    let mut process = world.filed();
    process.args(["process", "a"]);

    process.env_remove("XDG_DATA_HOME");
    finish(&mut process).exits(0);
    assert!(at("home/.local/share/filed/store"));

    process.env("XDG_DATA_HOME", root.join("data"));
    finish(&mut process).exits(0);
    assert!(at("data/filed/store"));

    process.env("STATE_DIRECTORY", root.join("state"));
    finish(&mut process).exits(0);
    assert!(at("state/store"));

    process.env("FILED_STORE__PATH", root.join("from-variable"));
    finish(&mut process).exits(0);
    assert!(at("from-variable"));

    process.arg("--store").arg(root.join("from-flag"));
    finish(&mut process).exits(0);
    assert!(at("from-flag"));

    let mut list = world.filed();
    list.env_remove("XDG_DATA_HOME")
        .env_remove("HOME")
        .arg("list");
    let outcome = finish(&mut list).exits(78);
    assert!(outcome.message().contains("store.path"), "{outcome}");
}

/// Replaces the body of a store's format file and puts the right checksum below it.
fn rewrite_format(store: &Path, from: &str, to: &str) {
    let path = store.join("format");
    let text = fs::read_to_string(&path).unwrap();
    let (body, check) = text.split_once("check ").unwrap();
    let seal = |body: &str| {
        let digest = blake3::hash(body.as_bytes()).to_hex().to_string();
        digest[..16].to_owned()
    };
    assert_eq!(
        check.trim_end(),
        seal(body),
        "the checksum is not as documented"
    );
    assert!(body.contains(from), "{body}");
    let body = body.replace(from, to);
    let check = seal(&body);
    fs::write(path, format!("{body}check {check}\n")).unwrap();
}

#[test]
fn a_store_of_a_newer_format_or_with_an_unknown_feature_is_refused_and_not_touched() {
    for (from, to, named) in [
        ("version 1\n", "version 2\n", "format version 2"),
        ("features\n", "features bases\n", "bases"),
        ("features\n", "features encryption other\n", "encryption"),
        (
            "chunking content filed-gear-1",
            "chunking content filed-gear-2",
            "filed-gear-2",
        ),
    ] {
        let world = with_store();
        rewrite_format(&world.store(), from, to);
        let before = contents(&world.store());
        let process: &[&str] = &["process", "--reread", "a"];
        for args in READERS.into_iter().chain([process]) {
            let outcome = world.run(args).exits(1);
            let message = outcome.message();
            assert!(message.contains(named), "{message}");
            assert!(
                message.contains("newer than this filed understands"),
                "{message}"
            );
            assert!(message.contains("hint: "), "{message}");
            assert!(message.contains("store/format"), "{message}");
        }
        assert!(
            contents(&world.store()) == before,
            "{named}: something was changed"
        );
        assert!(!world.path("b").exists());
    }
}

#[test]
fn a_damaged_format_file_is_damage() {
    let world = with_store();
    super::world::flip(&world.store().join("format"), 20);
    for args in READERS {
        let outcome = world.run(args).exits(4);
        assert!(
            outcome.message().contains("store/format: damaged"),
            "{outcome}"
        );
    }
    world.run(["process", "a"]).exits(4);
}

#[test]
fn while_somebody_must_be_alone_in_the_store_all_others_are_told() {
    let world = with_store();
    let lock = File::open(world.store().join("lock")).unwrap();
    lock.lock().unwrap();
    let process: &[&str] = &["process", "--reread", "a"];
    for args in READERS.into_iter().chain([process]) {
        let outcome = world.run(args).exits(11);
        let message = outcome.message();
        assert!(
            message.contains("filed/store: the store is in use"),
            "{message}"
        );
        assert!(message.contains("try again"), "{message}");
    }
    lock.unlock().unwrap();
    for args in READERS {
        let outcome = world.run(args);
        assert!([Some(0), Some(1)].contains(&outcome.code()), "{outcome}");
        let _ = fs::remove_file(world.path("b"));
    }
    world.run(["process", "--reread", "a"]).exits(0);
}

#[test]
fn those_who_share_the_store_do_not_exclude_each_other() {
    let world = with_store();
    let lock = File::open(world.store().join("lock")).unwrap();
    lock.lock_shared().unwrap();
    world.run(["process", "--reread", "a"]).exits(0);
    world.run(["verify"]).exits(0);
}

#[test]
fn processes_that_create_one_store_at_the_same_moment_all_succeed() {
    const ROUNDS: usize = 6;
    const PROCESSES: usize = 10;
    for round in 0..ROUNDS {
        let world = World::new();
        settle(&world.write("shared", &noise("shared", 200_000)));
        for number in 0..PROCESSES {
            world.write(format!("own-{number}"), &noise(&number.to_string(), 50_000));
        }
        let mut started = Vec::new();
        for number in 0..PROCESSES {
            let mut process = world.filed();
            process
                .args([
                    "process",
                    "--workers",
                    "1",
                    "--json",
                    "shared",
                    &format!("own-{number}"),
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let child = process.spawn().unwrap();
            started.push((number, process, child));
        }
        for (number, process, child) in started {
            let output = child.wait_with_output().unwrap();
            let outcome = Outcome::of(&process, output).exits(0);
            let own = outcome.file(&world.name(&format!("own-{number}")));
            assert_eq!(own["status"], "stored", "round {round}: {own}");
        }
        let verified = world.run(["verify", "--json"]).exits(0).summary();
        assert_eq!(verified["files"], PROCESSES + 1, "round {round}");
        let listed = world.run(["list", "--json"]).exits(0);
        for line in listed.lines() {
            let name = line["name"].as_str().unwrap();
            let given = world.run(["restore", name, "--stdout"]).exits(0);
            assert!(
                given.stdout == fs::read(name).unwrap(),
                "round {round}: {name}"
            );
        }
    }
}

#[test]
fn two_processes_store_the_same_large_file_at_the_same_time() {
    let world = World::new();
    let content = noise("twice", 6 << 20);
    world.write("a", &content);
    let started: Vec<_> = (0..2)
        .map(|_| {
            let mut process = world.filed();
            process
                .args(["process", "--json", "a"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let child = process.spawn().unwrap();
            (process, child)
        })
        .collect();
    for (process, child) in started {
        Outcome::of(&process, child.wait_with_output().unwrap()).exits(0);
    }
    world.run(["verify"]).exits(0);
    let outcome = world.run(["process", "--json", "--reread", "a"]).exits(0);
    assert_eq!(outcome.file(&world.name("a"))["new_pieces"], 0);
    let given = world.run(["restore", "a", "--stdout"]).exits(0);
    assert!(given.stdout == content);
}
