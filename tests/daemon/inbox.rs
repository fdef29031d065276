//! Inboxes: folders whose files are taken in by themselves, each once, whole, whatever happens meanwhile.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::content::{Random, digest, noise, text};
use super::service::{LIMIT, Place, SLOW, Service, finish, is_root, skipped, wait_for};

/// A place with an inbox of this name, and more keys for it.
fn place(keys: &str) -> (Place, PathBuf) {
    place_with("", keys)
}

/// The same with a configuration before that.
fn place_with(before: &str, keys: &str) -> (Place, PathBuf) {
    let place = Place::new();
    let inbox = place.root().join("inbox");
    fs::create_dir(&inbox).unwrap();
    configure(&place, &[&inbox], before, keys);
    (place, inbox)
}

fn configure(place: &Place, inboxes: &[&PathBuf], before: &str, keys: &str) {
    let mut text = before.to_owned();
    for inbox in inboxes {
        text.push_str(&format!(
            "[[inbox]]\npath = \"{}\"\nsettle = \"200ms\"\n{keys}\n",
            inbox.display()
        ));
    }
    place.configure(&text);
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// Writes files of one line each, as fast as it goes.
fn fill(folder: &Path, numbers: std::ops::Range<usize>) {
    for number in numbers {
        fs::write(folder.join(number.to_string()), format!("line {number}\n")).unwrap();
    }
}

/// However long it takes, as long as files are stored.
fn wait_until_empty(service: &Service<'_>, folder: &Path) {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let jobs = service.status()["jobs"].clone();
        let open = jobs["queued"].as_u64().unwrap() + jobs["running"].as_u64().unwrap();
        if open == 0 && entries(folder) == 0 {
            return;
        }
        let stored = jobs["stored"].as_u64().unwrap();
        if stored != last {
            (last, moved) = (stored, Instant::now());
        }
        assert!(moved.elapsed() < LIMIT, "nothing goes on: {jobs}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every file of `fill` is stored, once, as it was.
fn assert_stored_once(service: &Service<'_>, folder: &Path, count: usize) {
    let stored = service.stored();
    assert_eq!(stored.len(), count);
    for (name, found, versions) in stored {
        let number = Path::new(&name).strip_prefix(folder).unwrap();
        let content = format!("line {}\n", number.display());
        assert_eq!((found, versions), (digest(content.as_bytes()), 1), "{name}");
    }
}

#[test]
fn a_hundred_thousand_files_at_once_are_stored_in_bounded_memory() {
    const FILES: usize = 100_000;
    // As on the smallest machine: each worker has its own buffers.
    let (place, inbox) = place_with("[pipeline]\nworkers = 2\n", "after = \"delete\"");
    let service = place.start();
    fill(&inbox, 0..FILES);
    wait_until_empty(&service, &inbox);
    assert_stored_once(&service, &inbox, FILES);
    let peak = service.memory("VmHWM");
    assert!(peak < 64 << 20, "{peak} bytes at the peak");
    let status = service.status();
    assert_eq!(status["jobs"]["stored"], FILES);
    let failed = &service.get("/v1/jobs?state=failed")["jobs"];
    assert_eq!(status["jobs"]["failed"], 0, "{failed}");
    service.stop();
    place.verify();
}

#[test]
fn what_was_not_heard_of_is_found_by_looking() {
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    if queue > 50_000 {
        return skipped("an overflow of the watch: the kernel's queue is very long here");
    }
    let (place, inbox) = place("after = \"delete\"");
    let service = place.start();
    service.signal(Signal::STOP);
    wait_for("all of its threads stand still", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
        stat.rsplit(") ").next()?.starts_with('T').then_some(())
    });
    fill(&inbox, 0..queue + 2000);
    service.signal(Signal::CONT);
    wait_until_empty(&service, &inbox);
    assert!(service.status()["inboxes"][0]["overflows"].as_u64() > Some(0));
    assert_stored_once(&service, &inbox, queue + 2000);
    service.stop();
}

#[test]
fn a_file_is_never_taken_before_its_writer_is_done() {
    let (place, inbox) = place("");
    let service = place.start();
    let content = noise(1, 3 << 20);
    let path = inbox.join("slow");
    let mut file = File::create(&path).unwrap();
    for part in content.chunks(1 << 20) {
        file.write_all(part).unwrap();
        // Longer than it takes to settle.
        std::thread::sleep(Duration::from_millis(500));
        assert!(service.jobs().is_empty(), "taken while it was written");
    }
    drop(file);
    // One that is moved in is whole.
    let moved = place.write("moved", b"moved in");
    fs::rename(&moved, inbox.join("moved")).unwrap();
    wait_for("both are stored", || {
        (service.stored().len() == 2).then_some(())
    });
    service.wait_until_done();
    let stored = service.stored();
    let found = |name: &str| {
        let name = inbox.join(name).to_str().unwrap().to_owned();
        stored.iter().find(|row| row.0 == name).cloned().unwrap()
    };
    assert_eq!((found("slow").1, found("slow").2), (digest(&content), 1));
    assert_eq!(
        (found("moved").1, found("moved").2),
        (digest(b"moved in"), 1)
    );
    assert_eq!(entries(&inbox), 2, "they are kept");
    // Nor are they taken again for being there.
    let service_stopped = service.stop();
    assert!(!service_stopped.contains("panicked"));
    let service = place.start();
    std::thread::sleep(Duration::from_secs(2));
    assert!(service.stored().iter().all(|row| row.2 == 1));
    service.stop();
}

#[test]
fn a_stored_file_is_moved_and_nothing_is_overwritten() {
    let place = Place::new();
    let (inbox, done) = (place.root().join("inbox"), place.root().join("done"));
    for folder in [&inbox, &done, &inbox.join("deep")] {
        fs::create_dir_all(folder).unwrap();
    }
    let keys = format!("recursive = true\nafter = \"{}\"", done.display());
    configure(&place, &[&inbox], "", &keys);
    fs::write(done.join("same"), "was here before").unwrap();
    let service = place.start();
    fs::write(inbox.join("same"), "new").unwrap();
    fs::write(inbox.join("deep/below"), "below").unwrap();
    wait_for("both are moved", || {
        (entries(&done) == 3 && done.join("deep/below").exists()).then_some(())
    });
    assert_eq!(fs::read(done.join("same")).unwrap(), b"was here before");
    let other = fs::read_dir(&done)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let other = other.filter(|path| path.is_file() && !path.ends_with("same"));
    let other: Vec<_> = other.collect();
    assert_eq!(fs::read(&other[0]).unwrap(), b"new", "{other:?}");
    service.stop();
}

#[test]
fn what_cannot_be_stored_is_put_aside_with_the_reason() {
    if !is_root() {
        return skipped("a file that the service cannot read: only root can be several users");
    }
    const OWNER: (u32, u32) = (61_121, 61_121);
    let place = Place::new().open_to_others();
    let inbox = place.root().join("inbox");
    let data = place.root().join("data");
    fs::create_dir(&inbox).unwrap();
    for folder in [&inbox, &data, &place.root().join("run")] {
        std::os::unix::fs::chown(folder, Some(OWNER.0), Some(OWNER.1)).unwrap();
    }
    configure(
        &place,
        &[&inbox],
        "[service]\nattempts = 1\n",
        "after = \"delete\"",
    );
    fs::set_permissions(place.configuration(), fs::Permissions::from_mode(0o644)).unwrap();
    let place = place.with_store(data.join("store"));
    let mut command = place.serve();
    command.uid(OWNER.0).gid(OWNER.1);
    let service = place.start_by(command);
    let unreadable = place.write("secret", b"secret");
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&unreadable, inbox.join("secret")).unwrap();
    fs::write(inbox.join("open"), "open").unwrap();
    let failed = inbox.join("failed");
    // It comes last.
    let aside = wait_for("it is put aside", || fs::read(failed.join("secret")).ok());
    assert_eq!(aside, b"secret");
    let reason = fs::read_to_string(failed.join("secret.reason.txt")).unwrap();
    assert!(reason.contains("Permission denied"), "{reason}");
    wait_for("the other one is stored and deleted", || {
        (!inbox.join("open").exists()).then_some(())
    });
    let status = service.status();
    assert_eq!(status["inboxes"][0]["failed"], 1);
    assert_eq!(status["jobs"]["failed"], 1);
    service.stop();
}

#[test]
fn killed_again_and_again_an_inbox_loses_nothing_and_stores_nothing_twice() {
    const FILES: usize = 3000;
    let (place, inbox) = place("after = \"delete\"");
    fill(&inbox, 0..FILES / 2);
    let mut random = Random::new(7);
    for round in 0..8 {
        let service = place.start();
        if round == 3 {
            fill(&inbox, FILES / 2..FILES);
        }
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        service.kill();
    }
    let service = place.start();
    wait_until_empty(&service, &inbox);
    assert_stored_once(&service, &inbox, FILES);
    assert_eq!(service.status()["jobs"]["failed"], 0);
    service.stop();
    place.verify();
}

#[test]
fn inboxes_come_and_go_with_the_configuration() {
    let (place, first) = place("");
    let second = place.root().join("second");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("waits"), "waits").unwrap();
    let service = place.start();
    configure(&place, &[&second], "", "priority = 3");
    place.tell(&["reload"]).exits(0);
    wait_for("the new one is looked through", || {
        (service.stored().len() == 1).then_some(())
    });
    fs::write(first.join("late"), "late").unwrap();
    fs::write(second.join("heard"), "heard").unwrap();
    wait_for("the new one is heard", || {
        (service.stored().len() == 2).then_some(())
    });
    let stored = service.stored();
    assert!(
        stored.iter().all(|row| row.0.contains("/second/")),
        "{stored:?}"
    );
    service.stop();

    // A store is not to take itself in.
    configure(&place, &[&place.root().to_owned()], "", "recursive = true");
    finish(&mut place.serve())
        .exits(78)
        .says("cannot lie within each other");
}

#[test]
fn patterns_say_which_files_are_meant() {
    let (place, inbox) = place("patterns = [\"*.log\", \"dump-[0-9]*\"]");
    let service = place.start();
    for name in ["a.log", "dump-7", "a.txt", "dump-x", ".hidden.log"] {
        fs::write(inbox.join(name), text(1, 100)).unwrap();
    }
    wait_for("two are stored", || {
        (service.stored().len() == 2).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    let names: Vec<_> = service.stored().into_iter().map(|row| row.0).collect();
    assert!(
        names.len() == 2 && names[0].ends_with("/a.log") && names[1].ends_with("/dump-7"),
        "{names:?}"
    );
    service.stop();
}

/// A file that was written to again before it was read is stored as it is then, and stays until its writer
/// has been silent for as long as it takes.
#[test]
fn a_file_is_not_taken_away_under_its_writer() {
    let place = Place::new();
    let inbox = place.root().join("inbox");
    fs::create_dir(&inbox).unwrap();
    place.configure(&format!(
        "[[inbox]]\npath = \"{}\"\nsettle = \"3s\"\nafter = \"delete\"\n",
        inbox.display()
    ));
    let service = place.start();
    service.ask("POST", "/v1/pause", b"").is(204);
    let path = inbox.join("again");
    fs::write(&path, b"settled").unwrap();
    wait_for("it is queued", || {
        (service.status()["jobs"]["queued"] == 1).then_some(())
    });
    let mut writer = File::options().append(true).open(&path).unwrap();
    let written = Instant::now();
    writer.write_all(b", and written to").unwrap();
    service.ask("POST", "/v1/resume", b"").is(204);
    wait_for("it is stored", || {
        (service.status()["jobs"]["stored"] == 1).then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    let is_there = path.exists();
    if written.elapsed() < Duration::from_millis(2500) {
        assert!(is_there, "it is gone under its writer");
        writer.write_all(b" once more").unwrap();
    }
    let content = fs::read(&path);
    wait_until_empty(&service, &inbox);
    if let Ok(content) = content {
        let (_, stored, _) = service.stored().remove(0);
        assert_eq!(stored, digest(&content));
    }
    service.stop();
    place.verify();
}

/// What ends filed each time is given up, and is not found again by the next start.
#[test]
fn a_file_that_ended_filed_too_often_is_put_aside() {
    let (place, inbox) = place_with(&format!("{SLOW}[service]\nattempts = 1\n"), "");
    let service = place.start();
    fs::write(inbox.join("deadly"), text(3, 12 << 20)).unwrap();
    service.wait_until_working(1 << 20);
    // That it has begun is written down in a moment.
    wait_for("it runs", || {
        (service.jobs().first()?["state"] == "running").then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    service.kill();
    let service = place.start();
    let aside = inbox.join("failed/deadly");
    wait_for("it is put aside", || aside.exists().then_some(()));
    let jobs = service.status()["jobs"].clone();
    assert_eq!((&jobs["failed"], &jobs["queued"]), (&1.into(), &0.into()));
    service.stop();
}

/// A job that somebody gives up is not found again either, whether it has begun or not.
#[test]
fn a_file_whose_job_was_cancelled_is_put_aside() {
    let (place, inbox) = place("");
    let service = place.start();
    service.ask("POST", "/v1/pause", b"").is(204);
    fs::write(inbox.join("unwanted"), b"unwanted").unwrap();
    let id = wait_for("it is queued", || service.jobs().first()?["id"].as_i64());
    place.tell(&["jobs", "cancel", &id.to_string()]).exits(0);
    let aside = inbox.join("failed/unwanted");
    wait_for("it is put aside", || aside.exists().then_some(()));
    service.ask("POST", "/v1/resume", b"").is(204);
    service.stop();
    let service = place.start();
    service.wait_until_done();
    assert_eq!(service.stored(), []);
    service.stop();
}
