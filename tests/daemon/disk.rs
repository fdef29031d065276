//! A store that cannot be written for a while: jobs wait, the status says why, and when it can be written
//! again everything is stored without anybody starting anything anew.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::content::{digest, noise};
use super::service::{MIB, Place, Service, is_root, skipped, wait_for};

const DISK: u64 = 48 * MIB;

/// Somebody to whom the store's folder can be closed.
const SOMEBODY: u32 = 61_116;

/// A mounted tmpfs. Dropped, it is unmounted.
struct Disk(PathBuf);

impl Disk {
    fn mount(root: PathBuf) -> Option<Disk> {
        fs::create_dir(&root).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "filed-test"]);
        let mounted = mount.arg(&root).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then_some(Disk(root))
    }

    /// Fills the disk but for so many bytes.
    fn fill(&self, leave_bytes: u64) {
        let free = rustix::fs::statvfs(&self.0).unwrap();
        let free_bytes = free.f_bavail * free.f_frsize;
        let length = free_bytes.saturating_sub(leave_bytes);
        fs::write(self.0.join("ballast"), vec![1; length as usize]).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A mounted file system in a file, on a block device of its own, which can break down like a disk. Dropped,
/// it is unmounted.
struct BlockDisk {
    image: PathBuf,
    root: PathBuf,
}

impl BlockDisk {
    fn mount(image: PathBuf, root: PathBuf) -> Option<BlockDisk> {
        fs::create_dir(&root).unwrap();
        fs::File::create(&image).unwrap().set_len(DISK).unwrap();
        let mut make = Command::new("mkfs.ext4");
        let disk = BlockDisk { image, root };
        let made = make.arg("-q").arg(&disk.image).output();
        let made = made.is_ok_and(|output| output.status.success());
        (made && disk.mount_again()).then_some(disk)
    }

    fn mount_again(&self) -> bool {
        let mut mount = Command::new("mount");
        let output = mount.args(["-o", "loop"]).arg(&self.image).arg(&self.root);
        output.output().is_ok_and(|output| output.status.success())
    }

    /// What the kernel does when it finds such a file system damaged: from now on it can only be read,
    /// with files open for writing or not.
    fn break_down(&self) {
        let mut mount = Command::new("mount");
        let output = mount.args(["-o", "remount,abort"]).arg(&self.root).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let refused = fs::write(self.root.join("new"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    fn unmount(&self) {
        let output = Command::new("umount").arg(&self.root).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for BlockDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.root).output();
    }
}

/// Waits until the status says that the store cannot be written.
fn wait_for_problem(service: &Service<'_>) -> String {
    let problem = wait_for("the status shows the problem", || {
        service.status()["problem"].as_str().map(str::to_owned)
    });
    assert!(problem.contains("the store cannot be written"), "{problem}");
    problem
}

/// Waits until all is well, and all of this is stored, once.
fn check(place: &Place, service: Service<'_>, mut expected: Vec<(String, String, u64)>) {
    service.wait_until_done();
    wait_for("the problem has gone", || {
        service.status()["problem"].is_null().then_some(())
    });
    service.ask("GET", "/v1/ready", b"").is(200);
    expected.sort();
    assert_eq!(service.stored(), expected);
    for job in service.jobs() {
        assert_eq!(
            (&job["state"], &job["attempts"]),
            (&"stored".into(), &1.into()),
            "{job}"
        );
    }
    service.stop();
    place.verify();
}

fn write(place: &Place, name: &str, content: &[u8]) -> (String, String, u64) {
    let path = place.write(name, content);
    (path.to_str().unwrap().to_owned(), digest(content), 1)
}

#[test]
fn jobs_wait_while_the_disk_is_full() {
    let place = Place::new();
    let Some(disk) = Disk::mount(place.root().join("disk")) else {
        skipped("a full disk: only root can mount a tmpfs");
        return;
    };
    let place = place.with_store(disk.0.join("store"));
    let service = place.start();
    let mut expected = vec![write(&place, "before", &noise(1, 50_000))];
    service.submit(&[place.path("before")], 0);
    service.wait_until_done();
    for (round, leave_bytes) in [(1, 6 * MIB), (2, 300_000), (3, 30_000)] {
        for number in 0..20 {
            let name = format!("{round}/{number}");
            expected.push(write(&place, &name, &noise(round * 100 + number, 60_000)));
        }
        let name = format!("{round}/large");
        expected.push(write(&place, &name, &noise(round, 8 * MIB as usize)));
        service.ask("POST", "/v1/pause", b"").is(204);
        service.submit(&[place.path(&round.to_string())], 0);
        disk.fill(leave_bytes);
        service.ask("POST", "/v1/resume", b"").is(204);
        let problem = wait_for_problem(&service);
        let why = ["No space left", "full"];
        assert!(why.iter().any(|why| problem.contains(why)), "{problem}");
        // A small file that still fits has it be well, until the next.
        wait_for("the status shows it", || {
            let shown = place.tell(&["status"]).exits(0).stdout;
            shown.contains("PROBLEM").then_some(())
        });
        wait_for("it is not ready", || {
            (service.ask("GET", "/v1/ready", b"").code == 503).then_some(())
        });
        let jobs = service.status()["jobs"].clone();
        assert_eq!(jobs["failed"], 0, "{jobs}");
        assert_ne!(
            jobs["queued"].as_u64().unwrap() + jobs["running"].as_u64().unwrap(),
            0
        );
        disk.make_room();
        service.wait_until_done();
    }
    check(&place, service, expected);
}

#[test]
fn streams_are_refused_while_the_disk_is_full() {
    let place = Place::new();
    let Some(disk) = Disk::mount(place.root().join("disk")) else {
        skipped("streams to a full disk: only root can mount a tmpfs");
        return;
    };
    let place = place.with_store(disk.0.join("store"));
    let service = place.start();
    disk.fill(2 * MIB);
    let content = noise(1, 8 * MIB as usize);
    let path = super::http::content_of("/stream");
    let answer = service.ask("PUT", &path, &content);
    assert_eq!(answer.code, 507, "{}", answer.text());
    assert!(answer.text().contains("No space left"), "{}", answer.text());
    disk.make_room();
    let answer = wait_for("it can be written again", || {
        let answer = service.ask("PUT", &path, &content);
        (answer.code == 201).then_some(answer)
    });
    assert_eq!(answer.json()["digest"], digest(&content));
    service.stop();
    place.verify();
}

/// The file system under the store breaks down and can only be read: jobs wait, what is stored can still be
/// read out, stopping is no failure, and the next start goes on.
#[test]
fn jobs_wait_while_the_file_system_is_read_only() {
    let place = Place::new();
    let disk = BlockDisk::mount(place.path("image"), place.root().join("disk"));
    let Some(disk) = disk else {
        skipped("a read-only file system: it takes root, mkfs.ext4 and a loop device");
        return;
    };
    let place = place.with_store(disk.root.join("store"));
    let service = place.start();
    let before = write(&place, "before", &noise(1, 50_000));
    service.submit(&[place.path("before")], 0);
    service.wait_until_done();
    let after = write(&place, "after", &noise(2, 50_000));
    service.ask("POST", "/v1/pause", b"").is(204);
    service.submit(&[place.path("after")], 0);
    disk.break_down();
    service.ask("POST", "/v1/resume", b"").is(204);
    let problem = wait_for_problem(&service);
    // As the kernel says it, or, if the database is the first to notice, as filed does.
    let why = ["Read-only file system", "read-only or broken?"];
    assert!(why.iter().any(|why| problem.contains(why)), "{problem}");
    let shown = place.tell(&["status"]).exits(0).stdout;
    assert!(shown.contains("PROBLEM"), "{shown}");
    service.ask("GET", "/v1/ready", b"").is(503);
    // Nothing new is taken over, and whoever asks is told why.
    let (later, ..) = write(&place, "later", b"later");
    let refused = place.tell(&["submit", &later]);
    let refused = refused.exits(1).stderr;
    assert!(refused.contains("read-only or broken?"), "{refused}");
    assert_eq!(refused.matches("disk I/O error").count(), 1, "{refused}");
    let refused = service.ask("PUT", &super::http::content_of("/stream"), b"content");
    assert_eq!(refused.code, 507, "{}", refused.text());
    let read = service.ask("GET", &super::http::content_of(&before.0), b"");
    assert_eq!(digest(&read.is(200).body), before.1);
    let jobs = service.status()["jobs"].clone();
    assert_eq!((&jobs["failed"], &jobs["stored"]), (&0.into(), &1.into()));
    service.stop();

    disk.unmount();
    assert!(disk.mount_again());
    check(&place, place.start(), vec![before, after]);
}

/// Another way in which packs cannot be written while the database can: their folder is closed to the
/// service.
#[test]
fn jobs_wait_while_packs_cannot_be_made() {
    let place = Place::new().open_to_others();
    let store = place.root().join("data/store");
    let place = place.with_store(store);
    let mut command = place.serve();
    if is_root() {
        for name in ["run", "data"] {
            chown(place.root().join(name), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    let service = place.start_by(command);
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let packs = place.store().join("packs");
    let before = fs::metadata(&packs).unwrap().permissions().mode();
    close_all(&packs, &|path| set(path, 0o555));
    let mut expected = Vec::new();
    for number in 0..20 {
        expected.push(write(
            &place,
            &format!("folder/{number}"),
            &noise(number, 60_000),
        ));
    }
    service.submit(&[place.path("folder")], 0);
    let problem = wait_for_problem(&service);
    assert!(problem.contains("Permission denied"), "{problem}");
    assert_eq!(service.status()["jobs"]["failed"], 0);
    close_all(&packs, &|path| set(path, before));
    check(&place, service, expected);
}

/// Does something to a folder and all folders in it.
fn close_all(folder: &Path, change: &dyn Fn(&Path)) {
    change(folder);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            close_all(&path, change);
        }
    }
}
