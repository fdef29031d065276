//! What happens beside the service's own work: another process in its store, a pause, signals.

use std::process::Stdio;

use rustix::process::Signal;

use super::content::noise;
use super::service::{Ended, Place, wait_for};

#[test]
fn a_command_takes_in_files_beside_the_service() {
    let place = Place::new();
    let service = place.start();
    for number in 0..150 {
        // Some of what the one takes in has the other, too.
        place.write(&format!("served/{number}"), &noise(number, 100_000));
        place.write(&format!("processed/{number}"), &noise(number + 75, 100_000));
        place.write(&format!("both/{number}"), &noise(number + 500, 10_000));
    }
    let folders = ["processed", "both"];
    std::thread::scope(|scope| {
        let process = scope.spawn(|| {
            for folder in folders {
                place.run(&["process", "--quiet", folder]).exits(0);
            }
        });
        for folder in ["both", "served"] {
            place.tell(&["submit", folder]).exits(0);
        }
        service.wait_until_done();
        process.join().unwrap();
    });
    let stored = service.stored();
    assert_eq!(stored.len(), 450);
    let jobs = service.jobs();
    assert!(jobs.iter().all(|job| job["state"] == "stored"), "{jobs:?}");
    // Each finds what the other has stored, while it still runs.
    place.verify();
    let ended = place
        .run(&["process", "--json", "--quiet", "served"])
        .exits(0);
    let unchanged = |line: &&serde_json::Value| line["status"] == "unchanged";
    assert_eq!(ended.lines().iter().filter(unchanged).count(), 150);
    place.tell(&["submit", "processed"]).exits(0);
    service.wait_until_done();
    let now = service.stored();
    let both = |name: &str| name.contains("/both/");
    for (before, now) in stored.iter().zip(&now) {
        assert_eq!(before, now);
        // What both took in at the same moment may be two versions.
        assert!(now.2 == 1 || both(&now.0), "{now:?}");
    }
    service.stop();
    place.verify();
}

#[test]
fn nothing_begins_while_it_is_paused_and_nothing_is_lost() {
    let place = Place::new();
    let service = place.start();
    let said = place.tell(&["pause"]).exits(0).stdout;
    assert!(said.contains("paused"), "{said}");
    place.tell(&["pause"]).exits(0);
    let shown = place.tell(&["status"]).exits(0).stdout;
    assert!(shown.contains("paused"), "{shown}");
    service.ask("GET", "/v1/ready", b"").is(503);
    for number in 0..20 {
        place.write(&format!("folder/{number}"), &noise(number, 1000));
    }
    place.tell(&["submit", "folder"]).exits(0);
    from_a_silent_source(&place, 75).says("the service is paused");
    // Nothing can be waited for here: a moment in which it would have begun.
    std::thread::sleep(std::time::Duration::from_millis(700));
    let jobs = service.status()["jobs"].clone();
    assert_eq!((&jobs["queued"], &jobs["running"]), (&20.into(), &0.into()));
    // A pause does not outlive the service, but what was submitted does.
    service.stop();
    let service = place.start();
    service.wait_until_done();
    assert_eq!(service.stored().len(), 20);

    place.tell(&["pause"]).exits(0);
    let later = place.write("later", b"after the pause");
    let id = service.submit_file(&later);
    let said = place.tell(&["resume"]).exits(0).stdout;
    assert!(said.contains("resumed"), "{said}");
    service.wait_for_job(id, "stored");
    // A pause does not keep it from ending either.
    place.tell(&["pause"]).exits(0);
    service.stop();
    place.verify();
}

/// A command that sends what comes from somewhere whence nothing ever comes, as from a terminal at which
/// nobody types: the service's no is enough to end it.
fn from_a_silent_source(place: &Place, code: i32) -> Ended {
    let mut command = place.client(&["submit", "-", "--as", "/stdin"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Waiting for the output would close it.
    let source = child.stdin.take();
    let ended = wait_for("the command ends", || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    drop(source);
    let ended = Ended {
        status: ended,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    ended.exits(code)
}

#[test]
fn nothing_is_read_for_a_service_that_is_not_there() {
    let place = Place::new();
    from_a_silent_source(&place, 75).says("no service answers here (hint: ");
}

#[test]
fn signals_trim_and_tell() {
    let place = Place::new();
    let service = place.start();
    for number in 0..50 {
        place.write(&format!("folder/{number}"), &noise(number, 100_000));
    }
    service.submit(&[place.path("folder")], 0);
    for _ in 0..20 {
        service.signal(Signal::USR1);
        service.signal(Signal::USR2);
        service.status();
    }
    service.wait_until_done();
    service.signal(Signal::USR1);
    service.wait_for_log("collected and trimmed");
    let told =
        |service: &super::service::Service<'_>| service.log().matches("jobs_stored=50").count();
    let before = told(&service);
    service.signal(Signal::USR2);
    wait_for("the state is in the log", || {
        (told(&service) > before).then_some(())
    });
    let status = service.status();
    assert_ne!(status["memory"]["trims"]["count"], 0, "{status}");

    for command in ["collect", "trim"] {
        let said = place.tell(&[command, "--json"]).exits(0).lines();
        assert_eq!(said[0]["v"], 1, "{said:?}");
    }
    place.tell(&["heap", "census"]).exits(0);
    place.tell(&["heap", "snapshot"]).exits(0);
    place.tell(&["heap", "snapshots"]).exits(0);
    assert_eq!(service.stored().len(), 50);
    service.stop();
}
