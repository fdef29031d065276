//! Damage: a flipped byte anywhere in a pack, a pack that is cut or gone. `verify` names the pack and
//! the files that are lost, these files fail, and all others are restored.
//!
//! The layout of a pack is read here a second time, from its documentation in `store`.

use std::fs::{self, File};
use std::ops::Range;
use std::path::PathBuf;

use super::world::{MIB, World, flip, noise, text};

/// A record of a pack.
struct Record {
    kind: u8,
    header: Range<usize>,
    table: Range<usize>,
    payload: Range<usize>,
    plain_bytes: usize,
}

const FRAME: u8 = 1;
const VERSION: u8 = 3;
const TRAILER: u8 = 4;

/// The records of a sealed pack.
fn records(pack: &[u8]) -> Vec<Record> {
    let word = |at: usize| u32::from_le_bytes(pack[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(&pack[..8], b"filedpak");
    assert_eq!(&pack[pack.len() - 32..pack.len() - 24], b"filedend");
    let mut records = Vec::new();
    let mut at = 64;
    while at < pack.len() - 32 {
        assert_eq!(&pack[at..at + 4], b"frec");
        let table = at + 64..at + 64 + word(at + 8);
        let payload = table.end..table.end + word(at + 12);
        records.push(Record {
            kind: pack[at + 4],
            header: at..at + 64,
            plain_bytes: word(at + 16),
            table,
            payload: payload.clone(),
        });
        at = payload.end;
    }
    assert_eq!(at, pack.len() - 32);
    assert_eq!(records.last().unwrap().kind, TRAILER);
    records
}

/// A store of two packs: `a` and `b` in the first, `c` in the second.
struct Stored {
    world: World,
    first: PathBuf,
    /// The frames of the first pack, each with the files it has pieces of.
    frames: Vec<(Record, Vec<&'static str>)>,
    /// The other records of the first pack.
    others: Vec<Record>,
}

const ALL: [&str; 3] = ["a", "b", "c"];

fn stored() -> Stored {
    let world = World::new();
    let length = 2 * MIB + MIB / 2;
    world.write("a", &noise("a", length));
    world.write("b", &noise("b", length));
    world.write("c", &text(300_000));
    // One worker takes one chunk after the other, and so writes one pack in the files' order.
    world.run(["process", "--workers", "1", "a", "b"]).exits(0);
    world.run(["process", "--workers", "1", "c"]).exits(0);
    let packs = world.packs();
    assert_eq!(packs.len(), 2);
    let (frames, others): (Vec<_>, Vec<_>) = records(&fs::read(&packs[0]).unwrap())
        .into_iter()
        .partition(|record| record.kind == FRAME);
    let mut at = 0;
    let frames: Vec<_> = frames
        .into_iter()
        .map(|frame| {
            let plain = at..at + frame.plain_bytes;
            at = plain.end;
            let files = [("a", 0..length), ("b", length..2 * length)];
            let meets = |file: &Range<usize>| file.start < plain.end && plain.start < file.end;
            let files = files.into_iter().filter(|(_, file)| meets(file));
            (frame, files.map(|(name, _)| name).collect())
        })
        .collect();
    assert_eq!(at, 2 * length, "every byte is new once");
    Stored {
        first: packs[0].clone(),
        world,
        frames,
        others,
    }
}

impl Stored {
    fn other(&self, kind: u8) -> &Record {
        self.others
            .iter()
            .find(|record| record.kind == kind)
            .unwrap()
    }

    /// Checks that `verify` and `restore` say that exactly these files are lost, because of something
    /// in the first pack.
    #[track_caller]
    fn assert_lost(&self, lost: &[&str], what: &str) {
        let world = &self.world;
        let verified = world.run(["verify", "--json"]).exits(4);
        let packs = verified.lines_of("pack");
        assert!(!packs.is_empty(), "{what}: no pack is named\n{verified}");
        for line in &packs {
            assert_eq!(line["pack"], 1, "{what}: {line}");
            assert_eq!(line["path"], self.first.to_str().unwrap(), "{what}: {line}");
            assert!(
                !line["error"].as_str().unwrap().is_empty(),
                "{what}: {line}"
            );
        }
        let mut named: Vec<_> = verified
            .lines_of("file")
            .iter()
            .map(|line| {
                assert_eq!(
                    (&line["version"], &line["status"]),
                    (&1.into(), &"damaged".into())
                );
                line["name"].as_str().unwrap().to_owned()
            })
            .collect();
        named.sort();
        let expected: Vec<_> = lost.iter().map(|name| world.name(name)).collect();
        assert_eq!(named, expected, "{what}: {verified}");
        let summary = verified.summary();
        assert_eq!(summary["damaged"], packs.len(), "{what}: {summary}");
        assert_eq!(summary["lost_versions"], lost.len(), "{what}: {summary}");
        for name in ALL {
            let outcome = world.run(["restore", name, "--to", "out", "--force"]);
            let verified = world.run(["verify", name]);
            if lost.contains(&name) {
                let outcome = outcome.exits(4);
                assert!(outcome.message().contains("damaged"), "{what}: {outcome}");
                assert!(!world.path("out").exists(), "{what}: {name} was given out");
                let verified = verified.exits(4);
                assert_eq!(verified.messages().len(), 1, "{what}: {verified}");
            } else {
                outcome.exits(0);
                assert!(
                    world.read("out") == world.read(name),
                    "{what}: {name} differs"
                );
                fs::remove_file(world.path("out")).unwrap();
                verified.exits(0);
            }
        }
    }

    /// Flips bytes of the first pack one after the other, and checks each time what is lost.
    #[track_caller]
    fn assert_flips_lose(&self, offsets: &[usize], lost: &[&str], quick_code: i32, what: &str) {
        for &offset in offsets {
            flip(&self.first, offset as u64);
            let what = format!("{what}, byte {offset}");
            self.assert_lost(lost, &what);
            let outcome = self.world.run(["verify", "--quick"]);
            assert_eq!(outcome.code(), Some(quick_code), "{what}: {outcome}");
            flip(&self.first, offset as u64);
        }
        self.world.run(["verify"]).exits(0);
    }
}

/// Two bytes of a range, neither at its edge.
fn inside(range: &Range<usize>) -> [usize; 2] {
    [
        range.start + range.len() / 5,
        range.end - 1 - range.len() / 5,
    ]
}

#[test]
fn a_flipped_byte_in_a_packs_header_loses_the_files_of_the_pack() {
    let stored = stored();
    stored.assert_flips_lose(&[0, 10, 30, 45, 63], &["a", "b"], 4, "pack header");
}

#[test]
fn a_flipped_byte_in_the_data_loses_the_files_they_belong_to() {
    let stored = stored();
    assert!(stored.frames.len() >= 4);
    for (frame, files) in &stored.frames {
        let middle = (frame.payload.start + frame.payload.end) / 2;
        stored.assert_flips_lose(&[middle], files, 0, "payload");
    }
    let (frame, files) = &stored.frames[0];
    let ends = [frame.payload.start, frame.payload.end - 1];
    stored.assert_flips_lose(&ends, files, 0, "payload");
}

#[test]
fn a_flipped_byte_in_a_frames_header_loses_the_files_it_has_pieces_of() {
    let stored = stored();
    let last = stored.frames.len() - 1;
    for number in [0, last] {
        let (frame, files) = &stored.frames[number];
        let at = frame.header.start;
        stored.assert_flips_lose(&[at, at + 9, at + 35, at + 60], files, 4, "frame header");
    }
}

#[test]
fn a_flipped_byte_in_a_frames_table_loses_the_files_it_has_pieces_of() {
    let stored = stored();
    let last = stored.frames.len() - 1;
    for number in [0, last] {
        let (frame, files) = &stored.frames[number];
        stored.assert_flips_lose(&inside(&frame.table), files, 4, "frame table");
    }
}

#[test]
fn a_flipped_byte_in_a_versions_record_loses_that_version() {
    let stored = stored();
    let record = stored.other(VERSION);
    let at = record.header.start;
    stored.assert_flips_lose(&[at + 5, at + 50], &["a"], 4, "version header");
    stored.assert_flips_lose(&inside(&record.payload), &["a"], 4, "version payload");
}

#[test]
fn a_flipped_byte_in_trailer_or_footer_is_damage_and_loses_nothing() {
    let stored = stored();
    let record = stored.other(TRAILER);
    let at = record.header.start;
    stored.assert_flips_lose(&[at, at + 13, at + 57], &[], 4, "trailer header");
    stored.assert_flips_lose(&inside(&record.payload), &[], 4, "trailer payload");
    let footer = record.payload.end;
    let bytes = [0, 8, 17, 21, 31].map(|byte| footer + byte);
    stored.assert_flips_lose(&bytes, &[], 4, "footer");
}

#[test]
fn damage_is_told_in_lines_a_person_reads() {
    let stored = stored();
    let world = &stored.world;
    let frame = &stored.frames[0].0;
    flip(&stored.first, frame.payload.start as u64 + 1000);
    let outcome = world.run(["verify"]).exits(4);
    let messages = outcome.messages();
    let pack = format!(
        "{}: damaged at byte {}: ",
        stored.first.display(),
        frame.header.start
    );
    assert!(messages[0].starts_with(&pack), "{outcome}");
    let file = format!("{}: version 1 cannot be restored: ", world.name("a"));
    assert!(messages[1].starts_with(&file), "{outcome}");
    assert_eq!(messages.len(), 2, "{outcome}");
    assert!(
        outcome
            .text()
            .contains("1 damaged places in packs, 1 versions"),
        "{outcome}"
    );

    let outcome = world.run(["restore", "a", "--to", "out"]).exits(4);
    let message = outcome.message();
    assert!(
        message.contains(stored.first.to_str().unwrap()),
        "{message}"
    );
    assert!(message.contains("filed verify"), "{message}");
    let outcome = world.run(["restore", "a", "--stdout"]).exits(4);
    assert!(outcome.stdout.len() < 2 * MIB);
}

#[test]
fn all_files_but_the_damaged_are_restored() {
    let stored = stored();
    let world = &stored.world;
    flip(&stored.first, stored.frames[0].0.payload.start as u64);
    let outcome = world
        .run(["restore", "--all", "--to", "out", "--json"])
        .exits(4);
    assert_eq!(outcome.file(&world.name("a"))["status"], "failed");
    let root = world.path("").strip_prefix("/").unwrap().to_owned();
    for name in ["b", "c"] {
        assert_eq!(outcome.file(&world.name(name))["status"], "restored");
        let restored = world.path("out").join(&root).join(name);
        assert!(
            fs::read(restored).unwrap() == world.read(name),
            "{name} differs"
        );
    }
    assert!(!world.path("out").join(&root).join("a").exists());
}

#[test]
fn a_pack_that_is_gone_loses_its_files_and_they_can_be_stored_again() {
    let stored = stored();
    let world = &stored.world;
    fs::remove_file(&stored.first).unwrap();
    stored.assert_lost(&["a", "b"], "pack is gone");
    world.run(["verify", "--quick"]).exits(4);
    let outcome = world.run(["verify"]).exits(4);
    assert!(outcome.messages()[0].contains("missing"), "{outcome}");

    let outcome = world.run(["process", "--reread", "a", "b", "c"]).exits(0);
    assert!(outcome.text().contains("3 stored"), "{outcome}");
    for name in ALL {
        world
            .run(["restore", name, "--to", "out", "--force"])
            .exits(0);
        assert!(world.read("out") == world.read(name), "{name} differs");
    }
    // What is lost stays lost, and is still said: the versions' own records were in that pack.
    let verified = world.run(["verify", "--json"]).exits(4);
    assert_eq!(verified.summary()["lost_versions"], 2);
}

#[test]
fn a_pack_that_is_cut_short_loses_what_is_behind_the_cut() {
    let cut = |at: &dyn Fn(&Stored) -> usize, lost: &[&str], what: &str| {
        let stored = stored();
        let pack = File::options().write(true).open(&stored.first).unwrap();
        pack.set_len(at(&stored) as u64).unwrap();
        stored.assert_lost(lost, what);
        stored.world.run(["verify", "--quick"]).exits(4);
    };
    let both = &["a", "b"];
    cut(&|_| 0, both, "cut to nothing");
    cut(&|_| 63, both, "cut in the pack's header");
    cut(&|_| 64, both, "cut behind the pack's header");
    cut(
        &|stored| stored.frames[0].0.payload.end,
        both,
        "cut behind the first frame",
    );
    let in_data = |stored: &Stored| {
        let data = &stored.frames[1].0.payload;
        (data.start + data.end) / 2
    };
    cut(&in_data, both, "cut in data");
    // The version of `a` is in front of the last frames, those of `b` are not.
    let last = |stored: &Stored| stored.frames.last().unwrap().0.header.start;
    cut(&last, &["b"], "cut before the last frame");
    let in_trailer = |stored: &Stored| stored.other(TRAILER).payload.start + 1;
    cut(&in_trailer, &[], "cut in the trailer");
    let in_footer = |stored: &Stored| stored.other(TRAILER).payload.end + 31;
    cut(&in_footer, &[], "cut in the footer");
}

#[test]
fn a_pack_in_the_place_of_another_is_noticed() {
    let stored = stored();
    let other = World::new();
    other.write("x", b"x");
    other.run(["process", "--workers", "1", "x"]).exits(0);
    let own = fs::read(&stored.first).unwrap();
    fs::copy(&other.packs()[0], &stored.first).unwrap();
    stored.assert_lost(&["a", "b"], "pack of another store");
    fs::copy(&stored.world.packs()[1], &stored.first).unwrap();
    stored.assert_lost(&["a", "b"], "another pack of this store");
    fs::write(&stored.first, own).unwrap();
    stored.world.run(["verify"]).exits(0);
}

#[test]
fn damage_does_not_keep_other_files_from_being_stored() {
    let stored = stored();
    let world = &stored.world;
    flip(&stored.first, 3);
    world.write("d", &noise("d", MIB));
    world.run(["process", "d"]).exits(0);
    world.run(["restore", "d", "--to", "out"]).exits(0);
    assert!(world.read("out") == world.read("d"));
}

/// A store of several packs: the data of `a` are in those before the last, which has its version.
fn spread() -> World {
    let world = World::new();
    world.write("a", &noise("a", 5 * MIB));
    fs::create_dir_all(world.user_file().parent().unwrap()).unwrap();
    fs::write(world.user_file(), "[store]\npack_size = \"1MiB\"\n").unwrap();
    world.run(["process", "--workers", "1", "a"]).exits(0);
    assert!(world.packs().len() >= 3);
    world
}

/// Checks that both versions of `a` are restored bit for bit, and that of the damage `verify` says that
/// nothing is lost.
#[track_caller]
fn assert_healed(world: &World, what: &str) {
    for version in ["1", "2"] {
        let args = [
            "restore",
            "a",
            "--to",
            "out",
            "--force",
            "--version",
            version,
        ];
        world.run(args).exits(0);
        assert!(
            world.read("out") == world.read("a"),
            "{what}: version {version}"
        );
    }
    fs::remove_file(world.path("out")).unwrap();
    world.run(["verify", "a"]).exits(0);
    let verified = world.run(["verify", "--json"]).exits(0);
    let packs = verified.lines_of("pack");
    assert!(
        !packs.is_empty(),
        "{what}: the damage is still there\n{verified}"
    );
    assert!(
        packs.iter().all(|line| line["replaced"] == true),
        "{what}: {verified}"
    );
    let summary = verified.summary();
    let counts = ["damaged", "replaced", "lost_versions"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counts, [0, packs.len() as u64, 0], "{what}: {verified}");
    let verified = world.run(["verify"]).exits(0);
    assert!(
        verified.text().contains("replaced: nothing is lost"),
        "{verified}"
    );
    for message in verified.messages() {
        assert!(
            message.ends_with("; its pieces have been replaced"),
            "{verified}"
        );
    }
    world.run(["verify", "--quick"]).exits(0);
}

#[test]
fn what_verify_found_damaged_is_stored_again_and_old_versions_are_whole() {
    let stored = stored();
    let world = &stored.world;
    let frame = &stored.frames[0].0;
    flip(&stored.first, frame.payload.start as u64 + 1000);
    world.run(["verify"]).exits(4);
    let outcome = world.run(["process", "--reread", "a", "--json"]).exits(0);
    let file = outcome.file(&world.name("a"));
    assert_eq!(file["new_bytes"], frame.plain_bytes, "{outcome}");
    assert_healed(world, "a frame");

    // What is known again is stored once.
    let outcome = world.run(["process", "--reread", "a", "--json"]).exits(0);
    assert_eq!(outcome.file(&world.name("a"))["new_bytes"], 0);

    // The old copy is whole again, and now the new one is not: nobody knows of that yet.
    flip(&stored.first, frame.payload.start as u64 + 1000);
    world.run(["verify"]).exits(0);
    let new = world.packs().into_iter().nth(2).unwrap();
    flip(&new, 64 + 64 + 36 * 30 + 5000);
    for version in ["1", "2", "3"] {
        let args = [
            "restore",
            "a",
            "--to",
            "out",
            "--force",
            "--version",
            version,
        ];
        world.run(args).exits(0);
        assert!(world.read("out") == world.read("a"));
    }
    let verified = world.run(["verify", "--json"]).exits(0);
    assert_eq!(verified.lines_of("pack")[0]["replaced"], true);
}

#[test]
fn a_file_that_has_not_changed_is_read_again_when_its_version_is_damaged() {
    let stored = stored();
    let world = &stored.world;
    for name in ALL {
        super::world::settle(&world.path(name));
    }
    world.run(["process", "--reread", "a", "b", "c"]).exits(0);
    flip(&stored.first, stored.frames[0].0.payload.start as u64);
    let statuses = || {
        let outcome = world.run(["process", "a", "b", "c", "--json"]).exits(0);
        ALL.map(|name| outcome.file(&world.name(name))["status"].clone())
    };
    assert_eq!(statuses(), ["unchanged"; 3]);
    world.run(["verify"]).exits(4);
    assert_eq!(statuses(), ["stored", "unchanged", "unchanged"]);
    assert_eq!(statuses(), ["unchanged"; 3]);
    assert_healed(world, "a frame");
}

#[test]
fn a_pack_of_data_that_is_gone_or_cannot_be_read_is_replaced() {
    let ruin = |how: &dyn Fn(&PathBuf), what: &str| {
        let world = spread();
        let first = world.packs().remove(0);
        how(&first);
        world.run(["restore", "a", "--to", "out"]).exits(4);
        let verified = world.run(["verify", "--json"]).exits(4);
        assert_eq!(verified.summary()["lost_versions"], 1, "{what}: {verified}");
        world.run(["process", "--reread", "a"]).exits(0);
        assert_healed(&world, what);
    };
    ruin(&|pack| fs::remove_file(pack).unwrap(), "gone");
    ruin(&|pack| flip(pack, 20), "header");
    let cut = |pack: &PathBuf| {
        let file = File::options().write(true).open(pack).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    ruin(&cut, "cut");
    let cut_behind_a_record = |pack: &PathBuf| {
        let end = records(&fs::read(pack).unwrap())[0].payload.end;
        let file = File::options().write(true).open(pack).unwrap();
        file.set_len(end as u64).unwrap();
    };
    ruin(&cut_behind_a_record, "cut behind a record");
    let empty = |pack: &PathBuf| fs::write(pack, b"").unwrap();
    ruin(&empty, "empty");
}

#[test]
fn a_store_that_knew_no_damage_yet_is_healed_as_well() {
    let stored = stored();
    let world = &stored.world;
    let database = rusqlite::Connection::open(world.store().join("catalog.db")).unwrap();
    let drop_tables = "DROP TABLE checked; DROP TABLE damage; DROP TABLE scrub_pass;";
    database.execute_batch(drop_tables).unwrap();
    drop(database);
    world.run(["list"]).exits(0);
    world.run(["restore", "a", "--to", "out"]).exits(0);
    flip(&stored.first, stored.frames[0].0.payload.start as u64);
    world
        .run(["restore", "a", "--to", "out", "--force"])
        .exits(4);
    world.run(["verify"]).exits(4);
    world.run(["process", "--reread", "a"]).exits(0);
    assert_healed(world, "an old store");
}
