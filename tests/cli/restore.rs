//! Restoring: where files go, what is refused, and that nothing is left behind or led astray.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::world::{MIB, World, entries_below, finish, names_in, noise};

/// A world with some versions of `a` stored.
fn with_versions(contents: &[&[u8]]) -> World {
    let world = World::new();
    for content in contents {
        world.write("a", content);
        world.run(["process", "--reread", "a"]).exits(0);
    }
    world
}

#[test]
fn what_is_there_is_not_replaced_without_force() {
    let world = with_versions(&[b"stored"]);
    world.write("a", b"precious");
    for args in [
        &["restore", "a"][..],
        &["restore", "a", "--to", "a"],
        &["restore", "a", "--to", "."],
    ] {
        let outcome = world.run(args).exits(1);
        let message = outcome.message();
        assert!(message.contains("--force"), "{message}");
        assert!(
            message.contains("restore to ") && message.contains("(hint: "),
            "{message}"
        );
        assert_eq!(world.read("a"), b"precious");
    }
    // A link is something too, wherever it leads.
    std::os::unix::fs::symlink("nowhere", world.path("link")).unwrap();
    world.run(["restore", "a", "--to", "link"]).exits(1);
    assert_eq!(names_in(&world.path("")), ["a", "link"]);
}

#[test]
fn force_replaces_what_is_there() {
    let world = with_versions(&[b"stored"]);
    world.write("a", b"precious");
    world.run(["restore", "a", "--force"]).exits(0);
    assert_eq!(world.read("a"), b"stored");
    // A link is replaced itself: what it leads to is not touched.
    world.write("b", b"precious");
    std::os::unix::fs::symlink("b", world.path("link")).unwrap();
    world
        .run(["restore", "a", "--to", "link", "--force"])
        .exits(0);
    assert!(world.path("link").symlink_metadata().unwrap().is_file());
    assert_eq!(world.read("link"), b"stored");
    assert_eq!(world.read("b"), b"precious");
    assert_eq!(names_in(&world.path("")), ["a", "b", "link"]);
}

#[test]
fn force_does_not_replace_a_folder() {
    let world = with_versions(&[b"stored"]);
    fs::remove_file(world.path("a")).unwrap();
    world.write("a/inside", b"precious");
    let outcome = world.run(["restore", "a", "--force"]).exits(1);
    assert!(outcome.message().contains("restore to"), "{outcome}");
    assert_eq!(world.read("a/inside"), b"precious");
    assert_eq!(names_in(&world.path("")), ["a"]);
}

#[test]
fn a_file_goes_back_to_where_it_came_from() {
    let world = with_versions(&[b"stored"]);
    fs::remove_file(world.path("a")).unwrap();
    world.run(["restore", "a"]).exits(0);
    assert_eq!(world.read("a"), b"stored");
}

#[test]
fn a_file_goes_to_another_one_or_into_a_folder() {
    let world = with_versions(&[b"stored"]);
    fs::create_dir(world.path("folder")).unwrap();
    world.run(["restore", "a", "--to", "other"]).exits(0);
    assert_eq!(world.read("other"), b"stored");
    world.run(["restore", "a", "--to", "folder"]).exits(0);
    assert_eq!(world.read("folder/a"), b"stored");
    world.run(["restore", "a", "--to", "folder/b"]).exits(0);
    assert_eq!(world.read("folder/b"), b"stored");
    let outcome = world.run(["restore", "a", "--to", "missing/b"]).exits(1);
    assert!(outcome.message().contains("missing"), "{outcome}");
    assert_eq!(names_in(&world.path("folder")), ["a", "b"]);
    assert_eq!(names_in(&world.path("")), ["a", "folder", "other"]);
}

#[test]
fn every_version_can_be_had() {
    let contents: [&[u8]; 3] = [b"first", b"second and longer", b""];
    let world = with_versions(&contents);
    for (number, content) in contents.iter().enumerate() {
        let version = (number + 1).to_string();
        let given = world
            .run(["restore", "a", "--version", &version, "--stdout"])
            .exits(0);
        assert_eq!(given.stdout, *content);
        world
            .run([
                "restore",
                "a",
                "--version",
                &version,
                "--to",
                "b",
                "--force",
            ])
            .exits(0);
        assert_eq!(world.read("b"), *content);
    }
    let given = world.run(["restore", "a", "--stdout"]).exits(0);
    assert_eq!(given.stdout, b"");
    let outcome = world
        .run(["restore", "a", "--version", "4", "--to", "c"])
        .exits(1);
    assert!(outcome.message().contains("version 4 of"), "{outcome}");
    assert!(!world.path("c").exists());
}

#[test]
fn standard_output_gets_the_content_and_nothing_else() {
    let world = World::new();
    let content = noise("stdout", 3 * MIB + 1);
    world.write("a", &content);
    world.run(["process", "a"]).exits(0);
    let given = world.run(["restore", "a", "--stdout"]).exits(0);
    assert!(given.stdout == content);
    assert_eq!(given.stderr, "");
}

#[test]
fn a_reader_that_goes_away_or_a_full_disk_is_an_error() {
    let world = World::new();
    world.write("a", &noise("full", 3 * MIB));
    world.run(["process", "a"]).exits(0);
    let mut restore = world.filed();
    restore
        .args(["restore", "a", "--stdout"])
        .stdout(File::options().write(true).open("/dev/full").unwrap());
    // `output` would put a pipe there.
    let output = restore
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("standard output"), "{stderr}");
    assert!(stderr.contains("No space left"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn all_files_need_a_folder_to_go_to() {
    let world = with_versions(&[b"stored"]);
    world.run(["restore", "--all"]).exits(2);
    world.run(["restore", "--all", "--to", "a"]).exits(1);
    assert_eq!(world.read("a"), b"stored");
    world.run(["restore", "--all", "--to", "deep/er"]).exits(0);
    let restored = world
        .path("deep/er")
        .join(world.path("a").strip_prefix("/").unwrap());
    assert_eq!(fs::read(restored).unwrap(), b"stored");
}

#[test]
fn all_files_are_restored_but_those_that_are_there() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.write("content", name.as_bytes());
        world.run(["process", "content", "--as", name]).exits(0);
    }
    world.write("out/b", b"precious");
    let outcome = world.run(["restore", "--all", "--to", "out"]).exits(3);
    let message = outcome.message();
    assert!(
        message.starts_with("b: ") && message.contains("exists"),
        "{message}"
    );
    let out = |name: &str| String::from_utf8(world.read(format!("out/{name}"))).unwrap();
    assert_eq!([out("a"), out("b"), out("c")], ["a", "precious", "c"]);
    world.run(["restore", "--all", "--to", "out"]).exits(1);
    world
        .run(["restore", "--all", "--to", "out", "--force"])
        .exits(0);
    assert_eq!(out("b"), "b");
    assert_eq!(names_in(&world.path("out")), ["a", "b", "c"]);
}

#[test]
fn names_with_dots_never_lead_out_of_the_tree() {
    let world = World::new();
    world.write("content", b"evil");
    let evil = [
        "../../x",
        "../x",
        "..",
        "/..",
        "/../x",
        "/../../../../escaped",
        "a/../../x",
        "a/..",
        "/",
        "//",
        ".",
        "./",
        "a/../../../home/x",
    ];
    for name in evil {
        world.run(["process", "content", "--as", name]).exits(0);
    }
    for name in ["good", "/other/too", "./fine", "a//b", "...", "..x/y"] {
        world.run(["process", "content", "--as", name]).exits(0);
    }
    fs::create_dir_all(world.path("cage/inner")).unwrap();
    let before = entries_below(world.root()).len();
    let outcome = world
        .run(["restore", "--all", "--to", "cage/inner/tree", "--json"])
        .exits(3);
    for name in evil {
        let line = outcome.file(name);
        assert_eq!(line["status"], "failed", "{line}");
        let error = line["error"].as_str().unwrap();
        assert!(error.contains("leads out of the folder"), "{line}");
    }
    let tree = world.path("cage/inner/tree");
    let mut restored: Vec<_> = entries_below(&tree)
        .into_iter()
        .map(|path| {
            path.strip_prefix(&tree)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    restored.sort();
    let expected = [
        "...",
        "..x",
        "..x/y",
        "a",
        "a/b",
        "fine",
        "good",
        "other",
        "other/too",
    ];
    assert_eq!(restored, expected);
    let outside = entries_below(world.root()).len() - restored.len() - 1;
    assert_eq!(
        outside, before,
        "something was restored outside of the tree"
    );
}

#[test]
fn a_name_with_dots_goes_by_its_last_part_into_a_folder() {
    let world = World::new();
    world.write("content", b"evil");
    world
        .run(["process", "content", "--as", "../../x"])
        .exits(0);
    fs::create_dir_all(world.path("cage/inner")).unwrap();
    world
        .run(["restore", "../../x", "--to", "cage/inner"])
        .exits(0);
    assert_eq!(world.read("cage/inner/x"), b"evil");
    world.run(["process", "content", "--as", "a/.."]).exits(0);
    world
        .run(["restore", "a/..", "--to", "cage/inner"])
        .exits(2);
    assert_eq!(names_in(&world.path("cage")), ["inner"]);
    assert_eq!(names_in(&world.path("cage/inner")), ["x"]);
}

#[test]
fn a_link_in_the_tree_does_not_lead_out_of_it() {
    let world = World::new();
    world.write("content", b"content");
    for name in ["escape/x", "escape/deep/y", "inside/z", "file"] {
        world.run(["process", "content", "--as", name]).exits(0);
    }
    fs::create_dir_all(world.path("outside")).unwrap();
    fs::create_dir_all(world.path("out/real")).unwrap();
    std::os::unix::fs::symlink("../outside", world.path("out/escape")).unwrap();
    std::os::unix::fs::symlink("real", world.path("out/inside")).unwrap();
    std::os::unix::fs::symlink("../outside/file", world.path("out/file")).unwrap();
    for force in [&[][..], &["--force"]] {
        let args = [&["restore", "--all", "--to", "out"], force].concat();
        let outcome = world.run(args);
        assert!([Some(1), Some(3)].contains(&outcome.code()), "{outcome}");
        assert_eq!(names_in(&world.path("outside")), [""; 0], "{outcome}");
        assert_eq!(names_in(&world.path("out/real")), [""; 0], "{outcome}");
        for name in ["escape/x", "escape/deep/y", "inside/z"] {
            let start = format!("{name}: ");
            let told = outcome
                .messages()
                .iter()
                .any(|message| message.starts_with(&start));
            assert!(told, "{name}: {outcome}");
        }
    }
    // The link in the place of a file was replaced, not followed.
    assert!(world.path("out/file").symlink_metadata().unwrap().is_file());
    assert_eq!(
        names_in(&world.path("out")),
        ["escape", "file", "inside", "real"]
    );
}

#[test]
fn a_file_in_the_way_of_a_folder_fails_that_file_only() {
    let world = World::new();
    world.write("content", b"content");
    for name in ["a", "a/b", "c"] {
        world.run(["process", "content", "--as", name]).exits(0);
    }
    let outcome = world.run(["restore", "--all", "--to", "out"]).exits(3);
    assert!(outcome.message().starts_with("a/b: "), "{outcome}");
    assert_eq!(world.read("out/a"), b"content");
    assert_eq!(world.read("out/c"), b"content");
    assert_eq!(names_in(&world.path("out")), ["a", "c"]);
}

#[test]
fn nothing_is_left_behind_where_a_restore_fails() {
    let world = World::new();
    world.write("a", &noise("left", 3 * MIB));
    world.run(["process", "a"]).exits(0);
    let pack = &world.packs()[0];
    super::world::flip(pack, pack.metadata().unwrap().len() / 2);
    fs::create_dir(world.path("out")).unwrap();
    world.run(["restore", "a", "--to", "out"]).exits(4);
    world.run(["restore", "a", "--to", "out/b"]).exits(4);
    world.run(["restore", "a", "--force"]).exits(4);
    world.run(["restore", "--all", "--to", "out/tree"]).exits(4);
    let left: Vec<_> = entries_below(&world.path("out"))
        .into_iter()
        .filter(|path| !path.is_dir())
        .collect();
    assert_eq!(left, [""; 0].map(std::path::PathBuf::from));
    assert_eq!(names_in(&world.path("")), ["a", "out"]);
    assert_eq!(
        world.read("a").len(),
        3 * MIB,
        "what was there is still there"
    );
}

#[test]
fn a_folder_without_permission_fails_with_its_path() {
    let world = with_versions(&[b"stored"]);
    fs::create_dir(world.path("closed")).unwrap();
    let mut restore = world.filed_unprivileged();
    fs::set_permissions(world.path("closed"), Permissions::from_mode(0o555)).unwrap();
    let outcome = finish(restore.args(["restore", "a", "--to", "closed"])).exits(1);
    let message = outcome.message();
    assert!(message.contains("closed/a"), "{message}");
    assert!(message.contains("Permission denied"), "{message}");
    assert_eq!(names_in(&world.path("closed")), [""; 0]);
}

#[test]
fn a_private_file_stays_private() {
    let world = World::new();
    let path = world.write("a", b"secret");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    world.run(["process", "a"]).exits(0);
    world.run(["restore", "a", "--to", "b"]).exits(0);
    let mode = world.path("b").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}
