//! Who may do what: by the socket's mode, and by whom the service belongs to.
//!
//! Only root can be several users. The service belongs to one user, another is in its group, a third is
//! not; none of them needs to have a name.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::content::{digest, noise};
use super::service::{Ended, Place, Service, finish, is_root, skipped};

const OWNER: (u32, u32) = (61_111, 61_112);
const MEMBER: (u32, u32) = (61_113, OWNER.1);
const STRANGER: (u32, u32) = (61_114, 61_114);

/// A place in which a service of [`OWNER`] can work; none without root.
fn place(test: &str) -> Option<Place> {
    if !is_root() {
        skipped(&format!("{test}: only root can be several users"));
        return None;
    }
    let place = Place::new().open_to_others();
    for name in ["run", "data"] {
        chown(place.root().join(name), Some(OWNER.0), Some(OWNER.1)).unwrap();
    }
    let store = place.root().join("data/store");
    Some(place.with_store(store))
}

fn start(place: &Place) -> Service<'_> {
    let mut command = place.serve();
    command.uid(OWNER.0).gid(OWNER.1);
    place.start_by(command)
}

/// Runs a command as somebody.
fn tell_as(place: &Place, user: (u32, u32), arguments: &[&str]) -> Ended {
    finish(place.client(arguments).uid(user.0).gid(user.1))
}

#[test]
fn strangers_get_nothing_members_look_and_the_owner_changes() {
    let Some(place) = place("rights on the socket") else {
        return;
    };
    let service = start(&place);
    let mode = fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    for command in ["status", "pause"] {
        tell_as(&place, STRANGER, &[command])
            .exits(1)
            .says("you may not use this service's socket");
    }
    let shown = tell_as(&place, MEMBER, &["status"]).exits(0);
    assert!(shown.stdout.contains("running"), "{shown:?}");
    tell_as(&place, MEMBER, &["jobs"]).exits(0);
    tell_as(&place, MEMBER, &["heap", "census"]).exits(0);
    let file = place.write("a", b"file");
    let file = file.to_str().unwrap();
    for arguments in [
        &["pause"][..],
        &["resume"],
        &["trim"],
        &["collect"],
        &["reload"],
        &["submit", file],
        &["submit", "-", "--as", "/x"],
        &["jobs", "cancel", "1"],
        &["jobs", "retry", "1"],
        &["heap", "snapshot"],
    ] {
        tell_as(&place, MEMBER, arguments)
            .exits(1)
            .says("the service belongs to another user");
    }
    assert_eq!(service.status()["flow"], "open");
    assert_eq!(service.stored(), []);

    tell_as(&place, OWNER, &["pause"]).exits(0);
    assert_eq!(service.status()["flow"], "paused");
    // These tests run as root, who may do everything.
    place.tell(&["resume"]).exits(0);
    service.stop();
}

/// The packs of a store, and the folders they are in.
fn packs(place: &Place) -> Vec<PathBuf> {
    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            }
            found.push(path);
        }
    }
    let mut found = Vec::new();
    below(&place.store().join("packs"), &mut found);
    found
}

#[test]
fn what_root_stores_beside_a_service_is_the_services() {
    let Some(place) = place("root's files in the store of a service") else {
        return;
    };
    let service = start(&place);
    let content = noise(2, 3_000_000);
    place.write("by-root", &content);
    place.run(&["process", "by-root"]).exits(0);
    let packs = packs(&place);
    assert!(packs.iter().any(|path| path.is_file()), "{packs:?}");
    for path in &packs {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), OWNER, "{path:?}");
    }
    let same = place.write("same", &content);
    let job = service.wait_for_job(service.submit_file(&same), "stored");
    assert_eq!(job["new_bytes"], 0, "{job}");

    // A store in which root has stored otherwise: the service cannot read it, and is not stopped by it.
    for path in packs.iter().filter(|path| path.is_file()) {
        chown(path, Some(0), Some(0)).unwrap();
    }
    service.stop();
    let service = start(&place);
    let again = place.write("again", &content);
    let job = service.wait_for_job(service.submit_file(&again), "stored");
    service.wait_for_log("what it holds is stored once more");
    assert_eq!(job["new_bytes"], 3_000_000, "{job}");
    service.stop();
    place.verify();
}

/// A file of which something was read may never have been as the rest of it is.
#[test]
fn what_changes_while_it_is_sent_is_not_stored() {
    let Some(place) = place("files that change while they are sent") else {
        return;
    };
    let service = start(&place);
    let path = place.write("secret", &noise(1, 30_000_000));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let name = path.to_str().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            while !over.load(Ordering::Relaxed) {
                file.rewind().unwrap();
                file.write_all(b"otherwise").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let ended = place.tell(&["submit", name]);
        over.store(true, Ordering::Relaxed);
        ended.exits(1).says(&format!(
            "{name}: it changed while it was read: nothing of it is stored, submit it again"
        ));
    });
    assert_eq!(service.stored(), []);
    place.tell(&["submit", name]).exits(0);
    assert_eq!(service.stored().len(), 1);
    service.stop();
    place.verify();
}

/// What the client may read and the service may not is sent over the socket.
#[test]
fn what_the_service_cannot_read_is_sent() {
    let Some(place) = place("files that the service may not read") else {
        return;
    };
    let service = start(&place);
    let mut expected = Vec::new();
    for (name, open) in [("secret/one", false), ("secret/two", false), ("open", true)] {
        let content = noise(expected.len() as u64, 100_000);
        let path = place.write(name, &content);
        let mode = if open { 0o644 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        expected.push((path.to_str().unwrap().to_owned(), digest(&content), 1));
    }
    fs::set_permissions(place.path("secret"), fs::Permissions::from_mode(0o700)).unwrap();
    let one = place.path("secret/one");
    let ended = place
        .tell(&["submit", one.to_str().unwrap(), "open", "--json"])
        .exits(0);
    let kinds: Vec<_> = ended
        .lines()
        .iter()
        .map(|line| line["type"].clone())
        .collect();
    assert_eq!(kinds, ["stored", "submitted"]);
    // A folder that it cannot look into is walked by the client.
    let ended = place.tell(&["submit", "secret"]).exits(0);
    assert!(ended.stdout.contains("2 sent and stored"), "{ended:?}");
    service.wait_until_done();
    let mut stored = service.stored();
    for (_, _, versions) in &mut stored {
        // What is sent is a version each time.
        *versions = 1;
    }
    expected.sort();
    assert_eq!(stored, expected);

    let content = noise(9, 3_000_000);
    let mut command = place.client(&["submit", "-", "--as", "/from/stdin", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&content).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&line["name"], &line["digest"]),
        (&"/from/stdin".into(), &digest(&content).into())
    );
    service.stop();
    place.verify();
}
