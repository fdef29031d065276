//! Names: any bytes a file system takes, shown in one escape and accepted in it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::world::{World, finish};

/// Names that are hard to show, and how they are shown.
const NAMES: [(&[u8], &str); 8] = [
    (b"plain", "plain"),
    (b"sp ace and \"quotes\"", "sp ace and \"quotes\""),
    ("umläut-日本".as_bytes(), "umläut-日本"),
    (b"foreign\xff\xfe", "foreign\\xff\\xfe"),
    (b"new\nline", "new\\x0aline"),
    (b"back\\slash\\x41", "back\\\\slash\\\\x41"),
    (b"esc\x1b[31mred", "esc\\x1b[31mred"),
    ("over\u{202e}ride".as_bytes(), "over\\xe2\\x80\\xaeride"),
];

fn bytes(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

#[test]
fn names_of_any_bytes_are_shown_escaped_and_accepted_so() {
    let world = World::new();
    for (name, shown) in NAMES {
        world.write(bytes(name), shown.as_bytes());
    }
    let outcome = world.run(["process", "--json", "."]).exits(0);
    for (_, shown) in NAMES {
        let line = outcome.file(&world.name(shown));
        assert_eq!(line["status"], "stored", "{line}");
        assert_eq!(line["path"], line["name"], "{line}");
    }
    let listed = world.run(["list"]).exits(0);
    assert_eq!(listed.text().lines().count(), NAMES.len());
    assert!(
        !listed
            .text()
            .contains(|c: char| c.is_control() && c != '\n'),
        "{listed}"
    );
    for (name, shown) in NAMES {
        let shown = world.name(shown);
        assert!(
            listed.text().lines().any(|line| line.ends_with(&shown)),
            "{shown}: {listed}"
        );
        // As it is shown, as its bytes, and as a path from here.
        let whole = world.path(bytes(name));
        for typed in [OsStr::new(&shown), whole.as_os_str(), bytes(name)] {
            let given = world
                .run([OsStr::new("restore"), typed, OsStr::new("--stdout")])
                .exits(0);
            assert_eq!(
                given.text(),
                NAMES.iter().find(|n| n.0 == name).unwrap().1,
                "{typed:?}"
            );
            let lines = world
                .run([OsStr::new("show"), OsStr::new("--json"), typed])
                .exits(0);
            assert_eq!(lines.file(&shown)["version"], 1);
            world.run([OsStr::new("verify"), typed]).exits(0);
        }
    }
    world.run(["restore", "--all", "--to", "out"]).exits(0);
    let root = world.root().strip_prefix("/").unwrap();
    for (name, shown) in NAMES {
        let restored = world.path("out").join(root).join("files").join(bytes(name));
        assert_eq!(fs::read(restored).unwrap(), shown.as_bytes());
    }
}

#[test]
fn a_name_that_looks_like_an_escape_is_taken_for_itself_first() {
    let world = World::new();
    for name in ["a\\x41", "aA"] {
        let mut process = world.filed();
        world.write("content", name.as_bytes());
        finish(process.args(["process", "content", "--as", name])).exits(0);
    }
    let given = |typed: &str| {
        world
            .run(["restore", typed, "--stdout"])
            .exits(0)
            .text()
            .to_owned()
    };
    assert_eq!(given("a\\x41"), "a\\x41");
    assert_eq!(given("a\\\\x41"), "a\\x41");
    assert_eq!(given("aA"), "aA");
    assert_eq!(given("\\x61A"), "aA");
}

#[test]
fn names_to_store_under_are_taken_as_bytes() {
    let world = World::new();
    world.write("content", b"content");
    let mut process = world.filed();
    process
        .args(["process", "--json", "content", "--as"])
        .arg(bytes(b"\xf0\n\\x"));
    let outcome = finish(&mut process).exits(0);
    assert_eq!(outcome.lines()[0]["name"], "\\xf0\\x0a\\\\x");
    let given = world
        .run(["restore", "\\xf0\\x0a\\\\x", "--stdout"])
        .exits(0);
    assert_eq!(given.text(), "content");
}

#[test]
fn a_message_about_a_strange_name_stays_on_one_line() {
    let world = World::new();
    world.write("good", b"good");
    for name in [&b"new\nline"[..], b"esc\x1b[2J", b"foreign\xff"] {
        std::os::unix::fs::symlink("good", world.path(bytes(name))).unwrap();
    }
    let outcome = world.run(["process", "."]).exits(3);
    let messages = outcome.messages();
    assert_eq!(messages.len(), 3, "{outcome}");
    for shown in ["/new\\x0aline: ", "/esc\\x1b[2J: ", "/foreign\\xff: "] {
        assert!(
            messages.iter().any(|message| message.contains(shown)),
            "{shown}: {outcome}"
        );
    }
    for name in [&b"missing\n"[..], b"missing\xff\x1b"] {
        let outcome = world.run([OsStr::new("restore"), bytes(name)]).exits(1);
        let message = outcome.message();
        assert!(message.contains("missing\\x"), "{message}");
        assert!(!message.contains(char::is_control), "{message}");
    }
}

#[test]
fn a_path_means_the_same_however_it_is_written() {
    let world = World::new();
    world.write("folder/a", b"content");
    fs::create_dir(world.path("other")).unwrap();
    let name = world.name("folder/a");
    for (number, path) in [
        "folder/a",
        "./folder//a",
        "folder/./a",
        "other/../folder/a",
        name.as_str(),
    ]
    .into_iter()
    .enumerate()
    {
        let outcome = world.run(["process", "--json", "--reread", path]).exits(0);
        let line = outcome.file(&name);
        assert_eq!(line["version"], number + 1, "{path}: {line}");
        let given = world.run(["restore", path, "--stdout"]).exits(0);
        assert_eq!(given.text(), "content");
    }
}

#[test]
fn dots_after_a_link_go_where_the_kernel_goes() {
    let world = World::new();
    world.write("deep/er/b", b"b");
    world.write("deep/a", b"the one the kernel finds");
    world.write("a", b"another one");
    std::os::unix::fs::symlink("deep/er", world.path("link")).unwrap();
    let outcome = world.run(["process", "--json", "link/../a"]).exits(0);
    assert_eq!(outcome.file(&world.name("deep/a"))["bytes"], 24);
    let given = world.run(["restore", "link/../a", "--stdout"]).exits(0);
    assert_eq!(given.text(), "the one the kernel finds");
}

#[test]
fn an_unknown_name_fails_and_says_how_to_find_the_right_one() {
    let world = World::new();
    world.write("a", b"a");
    world.run(["process", "a"]).exits(0);
    for args in [
        &["restore", "b"][..],
        &["restore", "a", "--version", "2"],
        &["show", "b"],
        &["verify", "b"],
        &["verify", "a", "b"],
    ] {
        let outcome = world.run(args).exits(1);
        let message = outcome.message();
        assert!(message.contains("is not in the store"), "{message}");
        assert!(message.contains("filed list"), "{message}");
    }
}
