//! A disk without room: the run fails with one clear line, and nothing acknowledged is touched.
//!
//! The disk is a small tmpfs with a ballast on it, which leaves more or less room: so it gets full in
//! a pack, in the database, in what its processes share, or before the store can even be opened.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::acknowledged::{Acknowledged, check_pieces_differ};
use super::content::{digest, noise};
use super::filed::{Ended, Filed};

const DISK: &str = "size=32m";

/// Room left for a run that needs about 12 MiB, in KiB.
const ROOMS_KIB: [u64; 11] = [0, 4, 16, 36, 48, 80, 150, 400, 1000, 3000, 9000];

/// A mounted tmpfs. Dropped, it is unmounted.
struct Disk {
    root: PathBuf,
}

impl Disk {
    fn mount(root: PathBuf) -> Option<Disk> {
        fs::create_dir(&root).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", DISK, "filed-test"])
            .arg(&root);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Disk { root })
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Fills the disk up to so many KiB.
    fn fill(&self, leave_kib: u64) {
        let free = rustix::fs::statvfs(&self.root).unwrap();
        let free_bytes = free.f_bavail * free.f_frsize;
        let length = free_bytes - leave_kib * 1024;
        fs::write(self.ballast(), vec![1; length as usize]).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.root).status();
    }
}

/// One line on standard error, with the store's path, why, and what to do about it.
fn check_refusal(ended: &Ended, store: &Path, context: &str) {
    let said = &ended.stderr;
    assert_eq!(ended.code(), Some(1), "{context}: {said}");
    assert_eq!(said.lines().count(), 1, "{context}: {said}");
    for part in [store.to_str().unwrap(), "make room on the store's disk"] {
        assert!(said.contains(part), "{context}: {said}");
    }
}

#[test]
fn a_full_disk_fails_the_run_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(disk) = Disk::mount(dir.join("disk")) else {
        // Written past what is captured from a test that passes.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: a_full_disk_fails_the_run_and_loses_nothing: only root can mount a tmpfs"
        );
        return;
    };
    let mut names = Vec::new();
    for (folder, lengths) in [
        ("before", vec![40_000; 30]),
        ("more", [vec![9_000; 300], vec![9 << 20]].concat()),
    ] {
        let folder = dir.join(folder);
        fs::create_dir(&folder).unwrap();
        for (number, length) in lengths.into_iter().enumerate() {
            let path = folder.join(format!("{number:03}"));
            fs::write(&path, noise(names.len() as u64, length)).unwrap();
            names.push(path);
        }
    }
    let content = |name: &str| digest(&fs::read(name).unwrap());
    let (before, more) = (dir.join("before"), dir.join("more"));
    for room_kib in ROOMS_KIB {
        let context = format!("{room_kib} KiB of room");
        let filed = Filed::new(&disk.root.join("store"));
        let mut acknowledged = Acknowledged::default();
        acknowledged.hear(&filed.take_in(&[&before]), content);
        assert_eq!(acknowledged.count(), 30);

        disk.fill(room_kib);
        let arguments = ["process", "--json", "--quiet", more.to_str().unwrap()];
        let ended = filed.run(&arguments);
        check_refusal(&ended, filed.store(), &context);
        acknowledged.hear(&ended, content);
        for file in ended.files() {
            let said = file["error"].as_str().unwrap_or_default();
            let fits = file["status"] == "stored" || !said.is_empty();
            assert!(fits, "{context}: {file}");
        }
        // Without any room there is none to open the catalog. That is said, and passes.
        let list = filed.run(&["list"]);
        match list.code() {
            Some(0) => acknowledged.check_all(&filed.open()),
            _ => check_refusal(&list, filed.store(), &context),
        }

        disk.make_room();
        filed.verify();
        acknowledged.check_all(&filed.open());
        acknowledged.hear(&filed.take_in(&[&before, &more]), content);
        assert_eq!(check_pieces_differ(&filed.open()), filed.verify());
        assert_eq!(acknowledged.count(), names.len(), "{context}");
        acknowledged.check_all(&filed.open());
        fs::remove_dir_all(filed.store()).unwrap();
    }
}
