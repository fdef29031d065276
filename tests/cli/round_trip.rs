//! What goes in comes out: bit for bit, with the digest that `b3sum` prints, for every size around the
//! edges of a chunk and both ways of cutting.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::world::{MIB, World, digest, finish, is_root, noise, settle, skipped, text};

fn contents() -> Vec<(&'static str, Vec<u8>)> {
    let five = noise("five", 5 * MIB);
    vec![
        ("empty", Vec::new()),
        ("one-byte", vec![b'x']),
        ("below-a-chunk", five[..MIB - 1].to_vec()),
        ("a-chunk", noise("chunk", MIB)),
        ("above-a-chunk", noise("above", MIB + 1)),
        ("noise", five),
        ("text", text(3 * MIB + 12_345)),
        ("zeros", vec![0; 2 * MIB + 7]),
    ]
}

fn everything_comes_back(method: &'static str) {
    let world = World::new();
    let contents = contents();
    for (name, content) in &contents {
        settle(&world.write(name, content));
    }
    let names = || contents.iter().map(|(name, _)| *name);
    let process = |more: &[&'static str]| {
        let args = ["process", "--json"].into_iter().chain(names());
        world.run(args.chain(more.iter().copied())).exits(0)
    };

    let first = process(&["--chunking", method]);
    for (name, content) in &contents {
        let line = first.file(&world.name(name));
        assert_eq!(line["status"], "stored", "{line}");
        assert_eq!(line["version"], 1, "{line}");
        assert_eq!(line["bytes"], content.len(), "{line}");
        assert_eq!(line["digest"], digest(content), "{line}");
        assert_eq!(line["chunks"], content.len().div_ceil(MIB), "{line}");
        if method == "fixed" {
            assert_eq!(line["pieces"], line["chunks"], "{line}");
        }
    }
    let total: usize = contents.iter().map(|(_, content)| content.len()).sum();
    assert_eq!(first.summary()["stored"], contents.len());
    assert_eq!(first.summary()["bytes"], total);

    for (name, content) in &contents {
        let out = format!("out/{name}");
        fs::create_dir_all(world.path("out")).unwrap();
        world.run(["restore", name, "--to", &out]).exits(0);
        assert!(world.read(&out) == *content, "{name} differs");
    }
    let verified = world.run(["verify", "--json"]).exits(0).summary();
    assert_eq!(verified["files"], contents.len());
    assert_eq!(verified["versions"], contents.len());
    assert_eq!(
        (&verified["damaged"], &verified["lost_versions"]),
        (&0.into(), &0.into())
    );

    let second = process(&[]);
    for (name, content) in &contents {
        let line = second.file(&world.name(name));
        assert_eq!(line["status"], "unchanged", "{line}");
        assert_eq!(line["version"], 1, "{line}");
        assert_eq!(line["digest"], digest(content), "{line}");
        assert_eq!(line["new_pieces"], 0, "{line}");
    }
    assert_eq!(second.summary()["unchanged"], contents.len());

    let reread = process(&["--reread"]);
    for (name, content) in &contents {
        let line = reread.file(&world.name(name));
        assert_eq!(line["status"], "stored", "{line}");
        assert_eq!(line["version"], 2, "{line}");
        assert_eq!(line["digest"], digest(content), "{line}");
        assert_eq!(
            (&line["new_pieces"], &line["new_bytes"]),
            (&0.into(), &0.into()),
            "{line}"
        );
        assert_eq!(line["stored_bytes"], 0, "{line}");
    }
    let verified = world.run(["verify", "--json"]).exits(0).summary();
    assert_eq!(verified["versions"], 2 * contents.len());
}

#[test]
fn everything_comes_back_when_content_decides_the_cuts() {
    everything_comes_back("content");
}

#[test]
fn everything_comes_back_when_cuts_are_fixed() {
    everything_comes_back("fixed");
}

#[test]
fn what_was_known_is_found_again_behind_an_inserted_byte() {
    let world = World::new();
    let content = noise("front", 5 * MIB);
    world.write("original", &content);
    world.run(["process", "original"]).exits(0);
    let mut shifted = vec![b'!'];
    shifted.extend_from_slice(&content);
    world.write("shifted", &shifted);
    let outcome = world.run(["process", "--json", "shifted"]).exits(0);
    let line = outcome.file(&world.name("shifted"));
    let allowed = 4 * (64 << 10) + content.len() as u64 / 2000;
    assert!(line["new_bytes"].as_u64().unwrap() <= allowed, "{line}");
    assert!(line["new_pieces"].as_u64().unwrap() >= 1, "{line}");
    world.run(["restore", "shifted", "--to", "out"]).exits(0);
    assert!(world.read("out") == shifted);
}

#[test]
fn with_fixed_cuts_an_inserted_byte_makes_everything_new() {
    let world = World::new();
    let content = noise("front", 3 * MIB);
    world.write("original", &content);
    world
        .run(["process", "--chunking", "fixed", "original"])
        .exits(0);
    world.write("shifted", &[b"!", &content[..]].concat());
    let outcome = world.run(["process", "--json", "shifted"]).exits(0);
    let line = outcome.file(&world.name("shifted"));
    assert_eq!(line["new_pieces"], 4, "{line}");
    assert_eq!(line["new_bytes"], 3 * MIB + 1, "{line}");
}

#[test]
fn how_files_are_cut_is_recorded_and_stays_so() {
    let world = World::new();
    world.write("a", &noise("a", 3 * MIB));
    world.run(["process", "--chunking", "fixed", "a"]).exits(0);
    let format = fs::read_to_string(world.store().join("format")).unwrap();
    assert!(format.contains("\nchunking fixed\n"), "{format}");

    world.write("b", &noise("b", 3 * MIB));
    let outcome = world
        .run(["process", "--json", "--chunking", "content", "b"])
        .exits(0);
    assert_eq!(outcome.file(&world.name("b"))["pieces"], 3);
    let message = outcome.message();
    assert!(message.contains("--chunking is ignored"), "{message}");
    assert!(message.contains("filed/store"), "{message}");
}

#[test]
fn an_unchanged_file_is_not_opened_again() {
    if !is_root() {
        return skipped("only root can store a file that nobody else could open");
    }
    let world = World::new();
    let path = world.write("a", b"content");
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let _ = world.filed_unprivileged();
    settle(&path);
    world.run(["process", "a"]).exits(0);
    let mut process = world.filed_unprivileged();
    let outcome = finish(process.args(["process", "--json", "a"])).exits(0);
    assert_eq!(outcome.file(&world.name("a"))["status"], "unchanged");
    let outcome = finish(process.arg("--reread")).exits(1);
    assert_eq!(outcome.file(&world.name("a"))["status"], "failed");
}

#[test]
fn a_change_of_size_or_time_makes_a_new_version() {
    let world = World::new();
    let path = world.write("a", b"first");
    settle(&path);
    world.run(["process", "a"]).exits(0);
    fs::write(&path, b"second").unwrap();
    settle(&path);
    let outcome = world.run(["process", "--json", "a"]).exits(0);
    assert_eq!(outcome.file(&world.name("a"))["version"], 2);

    // The same bytes again, and the same length: but touched.
    fs::write(&path, b"second").unwrap();
    settle(&path);
    let outcome = world.run(["process", "--json", "a"]).exits(0);
    let line = outcome.file(&world.name("a"));
    assert_eq!(
        (&line["version"], &line["new_pieces"]),
        (&3.into(), &0.into()),
        "{line}"
    );

    for (version, content) in [("1", "first"), ("2", "second"), ("3", "second")] {
        let outcome = world
            .run(["restore", "a", "--version", version, "--stdout"])
            .exits(0);
        assert_eq!(outcome.text(), content);
    }
}

#[test]
fn a_file_that_came_into_anothers_place_is_not_taken_for_it() {
    let world = World::new();
    settle(&world.write("folder/a", b"old"));
    settle(&world.write("other/a", b"new"));
    world.run(["process", "folder/a"]).exits(0);
    // Same length and older than the version: only its times and inode tell. Moving the folder leaves
    // the file's times alone.
    fs::rename(world.path("folder"), world.path("gone")).unwrap();
    fs::rename(world.path("other"), world.path("folder")).unwrap();
    let outcome = world.run(["process", "--json", "folder/a"]).exits(0);
    let line = outcome.file(&world.name("folder/a"));
    assert_eq!(line["status"], "stored", "{line}");
    assert_eq!(line["digest"], digest(b"new"), "{line}");
}

#[test]
fn data_that_do_not_shrink_are_kept_as_they_are_and_text_gets_smaller() {
    let world = World::new();
    let length = 2 * MIB;
    world.write("noise", &noise("raw", length));
    world.write("text", &text(length));
    let outcome = world.run(["process", "--json", "noise", "text"]).exits(0);
    let stored = |name: &str| {
        outcome.file(&world.name(name))["stored_bytes"]
            .as_u64()
            .unwrap()
    };
    let length = length as u64;
    assert!(stored("noise") <= length + length / 500, "{outcome}");
    assert!(stored("text") < length / 4, "{outcome}");
}

#[test]
fn a_higher_level_makes_text_smaller() {
    let stored = |level: &str| {
        let world = World::new();
        world.write("text", &text(2 * MIB));
        let outcome = world
            .run(["process", "--json", "--level", level, "text"])
            .exits(0);
        world.run(["verify"]).exits(0);
        outcome.summary()["stored_bytes"].as_u64().unwrap()
    };
    assert!(stored("15") < stored("1"));
}
