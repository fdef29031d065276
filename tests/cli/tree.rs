//! Folders: many small files at once, and the whole tree rebuilt.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::world::{World, digest, entries_below, finish, is_root, noise, settle, skipped, text};

/// What a restored file must have in common with its original.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    content: Vec<u8>,
    mode: u32,
    mtime_ns: i128,
    owner: (u32, u32),
}

fn files_below(folder: &Path) -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    for path in entries_below(folder) {
        let metadata = path.symlink_metadata().unwrap();
        if !metadata.is_file() {
            continue;
        }
        let name = path
            .strip_prefix(folder)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let entry = Seen {
            content: fs::read(&path).unwrap(),
            mode: metadata.mode(),
            mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
            owner: (metadata.uid(), metadata.gid()),
        };
        seen.insert(name, entry);
    }
    seen
}

/// Some hundred files of many sizes, modes and times.
fn plant(world: &World, count: usize) {
    let source = [noise("tree", 100_000), text(100_000)];
    for number in 0..count {
        let name = format!("tree/{}/{}/{number:03}", number % 7, number % 3);
        let length = number * number % 20_011;
        let content = &source[number % 2][number..number + length];
        let path = world.write(&name, content);
        let times = [1, 981_173_106, 1_700_000_000, 4_000_000_000];
        let seconds = Duration::new(times[number % 4], number as u32 * 1_000_003);
        let modified = SystemTime::UNIX_EPOCH + seconds;
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        let modes = [0o644, 0o600, 0o755, 0o444, 0o400, 0o2750, 0o1777, 0o4711];
        file.set_permissions(Permissions::from_mode(modes[number % 8]))
            .unwrap();
    }
}

#[test]
fn a_tree_comes_back_with_content_modes_and_times_out_of_few_packs() {
    let count = 400;
    let world = World::new();
    plant(&world, count);
    let before = files_below(&world.path("tree"));
    let args = ["process", "--workers", "2", "--json", "tree"];
    let outcome = world.run(args).exits(0);
    assert_eq!(outcome.summary()["stored"], count);
    let reported: BTreeMap<String, String> = outcome
        .lines_of("file")
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            (text("name"), text("digest"))
        })
        .collect();
    let expected = before
        .iter()
        .map(|(name, seen)| (world.name(&format!("tree/{name}")), digest(&seen.content)))
        .collect();
    assert_eq!(reported, expected);
    // One for each worker.
    assert!(world.packs().len() <= 2, "{:?}", world.packs());

    let outcome = world
        .run(["restore", "--all", "--to", "out", "--json"])
        .exits(0);
    assert_eq!(outcome.summary()["restored"], count);
    let tree = world.path("tree");
    let restored = world.path("out").join(tree.strip_prefix("/").unwrap());
    assert_eq!(files_below(&restored), before);
    assert_eq!(files_below(&world.path("out")).len(), count);
    world.run(["verify"]).exits(0);

    for path in entries_below(&tree) {
        settle(&path);
    }
    let outcome = world.run(["process", "--json", "tree"]).exits(0);
    assert_eq!(outcome.summary()["stored"], 0);
    assert_eq!(outcome.summary()["unchanged"], count);
}

#[test]
fn a_run_over_more_files_adds_packs_not_one_for_each() {
    let world = World::new();
    for number in 0..30 {
        world.write(format!("tree/{number}"), &noise(&number.to_string(), 3000));
    }
    world.run(["process", "--workers", "1", "tree"]).exits(0);
    assert_eq!(world.packs().len(), 1);
    for number in 30..60 {
        world.write(format!("tree/{number}"), &noise(&number.to_string(), 3000));
    }
    world.run(["process", "--workers", "1", "tree"]).exits(0);
    assert_eq!(world.packs().len(), 2);
    let outcome = world.run(["list", "--json"]).exits(0);
    assert_eq!(outcome.lines_of("file").len(), 60);
}

#[test]
fn packs_end_near_the_size_that_is_configured() {
    let world = World::new();
    world.write("a", &noise("packs", 5 << 20));
    let mut process = world.filed();
    process.env("FILED_STORE__PACK_SIZE", "1 MiB");
    finish(process.args(["process", "--workers", "1", "a"])).exits(0);
    assert!(world.packs().len() >= 3, "{:?}", world.packs());
    for pack in world.packs() {
        assert!(pack.metadata().unwrap().len() <= 3 << 20);
    }
    world.run(["verify"]).exits(0);
    world.run(["restore", "a", "--to", "b"]).exits(0);
    assert!(world.read("b") == world.read("a"));
}

#[test]
fn files_of_the_same_content_share_their_pieces() {
    let world = World::new();
    let content = noise("same", 300_000);
    for name in ["a", "b", "c"] {
        world.write(name, &content);
    }
    let outcome = world.run(["process", "--json", "a", "b", "c"]).exits(0);
    assert_eq!(outcome.summary()["bytes"], 900_000);
    assert_eq!(outcome.summary()["new_bytes"], 300_000);
    world.run(["verify"]).exits(0);
}

#[test]
fn the_owner_comes_back_where_root_restores_it() {
    if !is_root() {
        return skipped("only root gives files to somebody else");
    }
    let world = World::new();
    let path = world.write("a", b"theirs");
    std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
    // After the owner, whose change would clear it.
    fs::set_permissions(&path, Permissions::from_mode(0o4755)).unwrap();
    world.run(["process", "a"]).exits(0);
    world.run(["restore", "a", "--to", "b"]).exits(0);
    let metadata = world.path("b").metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 2345));
    assert_eq!(metadata.mode() & 0o7777, 0o4755);
}

#[test]
fn an_owner_that_cannot_be_restored_is_said() {
    if !is_root() {
        return skipped("only root has files of somebody else");
    }
    let world = World::new();
    let path = world.write("a", b"theirs");
    let _ = world.filed_unprivileged();
    std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
    world.run(["process", "a"]).exits(0);
    let mut restore = world.filed_unprivileged();
    let outcome = finish(restore.args(["restore", "a", "--to", "b"])).exits(0);
    let message = outcome.message();
    assert!(
        message.contains("not restored: owner 1234:2345"),
        "{message}"
    );
    assert_eq!(world.read("b"), b"theirs");
}

#[test]
fn folders_are_walked_through_links_only_where_the_path_itself_says_so() {
    let world = World::new();
    world.write("real/a", b"a");
    std::os::unix::fs::symlink("real", world.path("link")).unwrap();
    let outcome = world.run(["process", "--json", "link/a"]).exits(0);
    assert_eq!(outcome.file(&world.name("link/a"))["status"], "stored");
    let outcome = world.run(["process", "--json", "link"]).exits(3);
    assert_eq!(outcome.file(&world.name("link"))["status"], "skipped");
}

#[test]
fn an_empty_folder_is_no_failure() {
    let world = World::new();
    fs::create_dir(world.path("empty")).unwrap();
    let outcome = world.run(["process", "--json", "empty"]).exits(0);
    assert_eq!(outcome.summary()["files"], 0);
}

#[test]
fn the_store_itself_is_never_taken_in() {
    let world = World::new();
    world.write("a", b"a");
    let args = ["process", "--json", "--store", "store", "."];
    world.run(args).exits(3);
    let outcome = world.run(args).exits(3);
    let line = outcome.file(&world.name("store"));
    assert_eq!(line["status"], "skipped", "{line}");
    assert!(line["error"].as_str().unwrap().contains("the store itself"));
    assert_eq!(outcome.lines_of("file").len(), 2);
}
