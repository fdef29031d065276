//! A store that is killed, or shared, while it comes into being.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use filed::store::format::Chunking;
use filed::store::{Store, StoreError};

use super::acknowledged::Acknowledged;
use super::content::{digest, noise};
use super::filed::Filed;

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Whoever finds a format file finds a whole store: it once came before the catalog, and a store that
/// was killed between the two could not be opened by `verify` or `list`.
#[test]
fn killed_at_any_step_of_its_creation_it_is_a_store_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let content = noise(1, 100_000);
    fs::write(&file, &content).unwrap();
    // The number of changes that are seen differs from time to time; more than this many never are.
    for step in 0..40 {
        let filed = Filed::new(&dir.path().join(format!("store-{step}")));
        let mut changes = 0;
        let mut before = BTreeSet::new();
        let running = filed.start(&["process", file.to_str().unwrap(), "--json", "--quiet"]);
        let ended = running.kill_when(|| {
            let now = names_in(filed.store());
            changes += usize::from(now != before);
            before = now;
            changes > step
        });
        let mut acknowledged = Acknowledged::default();
        acknowledged.hear(&ended, |_| digest(&content));
        let verify = filed.run(&["verify", "--quiet"]);
        let is_there = names_in(filed.store()).contains("format");
        let expected = if is_there { 0 } else { 10 };
        let context = format!(
            "step {step}: {} {:?}",
            verify.stderr,
            names_in(filed.store())
        );
        assert_eq!(verify.code(), Some(expected), "{context}");
        acknowledged.hear(&filed.take_in(&[&file]), |_| digest(&content));
        filed.verify();
        acknowledged.check_all(&filed.open());
        if !ended.was_killed() {
            return;
        }
    }
    panic!("it was never too late to kill it");
}

#[test]
fn what_a_crash_leaves_of_a_beginning_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    drop(Store::open_or_create(&whole, Chunking::Fixed).unwrap());
    let beginnings: [&[&str]; 6] = [
        &[],
        &["packs"],
        &["packs", "catalog.db"],
        &[
            "packs",
            "catalog.db",
            "catalog.db-journal",
            "catalog.db-wal",
        ],
        &["packs", "format.1234.tmp"],
        &["lock", "lost+found"],
    ];
    for (number, names) in beginnings.into_iter().enumerate() {
        let root = dir.path().join(format!("begun-{number}"));
        fs::create_dir(&root).unwrap();
        for name in names {
            match *name {
                "packs" | "lost+found" => fs::create_dir(root.join(name)).unwrap(),
                _ => fs::write(root.join(name), "").unwrap(),
            }
        }
        assert!(matches!(
            Store::open(&root),
            Err(StoreError::Missing { .. })
        ));
        drop(Store::open_or_create(&root, Chunking::Fixed).unwrap());
        drop(Store::open(&root).unwrap());
    }
    // A catalog that is complete, and everything else as well but the format file.
    fs::remove_file(whole.join("format")).unwrap();
    drop(Store::open_or_create(&whole, Chunking::Fixed).unwrap());
    drop(Store::open(&whole).unwrap());
}

#[test]
fn a_folder_that_is_not_the_beginning_of_a_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["letter.txt", "packs/000000/000000001.pack", "packs/photo"] {
        let root = dir.path().join("root");
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "mine").unwrap();
        let before = names_in(&root);
        let outcome = Store::open_or_create(&root, Chunking::Fixed);
        assert!(
            matches!(outcome, Err(StoreError::NotAStore { .. })),
            "{name}"
        );
        assert_eq!(names_in(&root), before);
        fs::remove_dir_all(&root).unwrap();
    }
}

#[test]
fn many_create_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let filed = Filed::new(&dir.path().join(format!("store-{round}")));
        let files: Vec<_> = (0..8)
            .map(|n| dir.path().join(format!("file-{n}")))
            .collect();
        for (seed, file) in (0u64..).zip(&files) {
            fs::write(file, noise(seed, 50_000)).unwrap();
        }
        let all: Vec<_> = files
            .iter()
            .map(|file| filed.start(&["process", file.to_str().unwrap(), "--json", "--quiet"]))
            .collect();
        let mut acknowledged = Acknowledged::default();
        for running in all {
            let ended = running.end();
            assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
            acknowledged.hear(&ended, |name| digest(&fs::read(name).unwrap()));
        }
        assert_eq!(acknowledged.count(), files.len());
        filed.verify();
        acknowledged.check_all(&filed.open());
    }
}
