//! SIGKILL in every state of a job: nothing is lost, and nothing is there twice.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::content::{Random, digest, noise, text};
use super::service::{MIB, Place, SLOW, settle, wait_for};

const KILLS: usize = 15;

/// What the store must hold: each of these files, once.
#[derive(Default)]
struct Expected(BTreeMap<String, String>);

impl Expected {
    fn write(&mut self, place: &Place, name: &str, content: &[u8]) -> std::path::PathBuf {
        let path = place.write(name, content);
        let name = path.to_str().unwrap().to_owned();
        self.0.insert(name, digest(content));
        path
    }

    /// Starts a service, which finishes what is queued, and holds the store to it.
    fn check(&self, place: &Place) {
        let service = place.start();
        service.wait_until_done();
        let stored = service.stored();
        let (mut right, mut wrong) = (0, Vec::new());
        for (name, digest, versions) in &stored {
            match self.0.get(name) {
                Some(expected) if expected == digest && *versions == 1 => right += 1,
                _ => wrong.push((name, digest, versions)),
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(right, self.0.len(), "some are lost");
        let unlike = |job: &serde_json::Value| job["state"] != "stored";
        let unlike: Vec<_> = service.jobs().into_iter().filter(unlike).collect();
        assert!(unlike.is_empty(), "{unlike:?}");
        service.stop();
        place.verify();
    }
}

#[test]
fn a_kill_in_every_state_of_a_job_loses_nothing() {
    let place = Place::configured(&format!("{SLOW}[service]\nattempts = 100\n"));
    let mut expected = Expected::default();
    let large = 8 * MIB;

    // Queued.
    let service = place.start();
    service.ask("POST", "/v1/pause", b"").is(204);
    let id = service.submit_file(&expected.write(&place, "queued", &noise(1, 5000)));
    assert_eq!(service.job(id)["state"], "queued");
    service.kill();
    expected.check(&place);

    // Running: at its beginning, and near its end, where it is committed.
    for (name, seed, share) in [("early", 2, 10), ("late", 3, 90), ("end", 4, 100)] {
        let service = place.start();
        let path = expected.write(&place, name, &text(seed, large as usize));
        settle(&path);
        service.submit_file(&path);
        wait_for("it has come so far", || {
            let done = service.status()["done"]["bytes"].as_u64().unwrap();
            (done * 100 >= large * share).then_some(())
        });
        service.kill();
        expected.check(&place);
    }

    // Stored, before that is written down.
    let service = place.start();
    let path = expected.write(&place, "stored", &noise(5, 100_000));
    settle(&path);
    service.submit_file(&path);
    wait_for("it is stored", || {
        let name = place.path("stored");
        let name = name.to_str().unwrap();
        (service.stored().iter().any(|stored| stored.0 == name)).then_some(())
    });
    service.kill();
    expected.check(&place);

    // Waiting for its next attempt: a folder is in its place.
    let service = place.start();
    service.ask("POST", "/v1/pause", b"").is(204);
    let path = expected.write(&place, "again", &noise(6, 100_000));
    let id = service.submit_file(&path);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    service.ask("POST", "/v1/resume", b"").is(204);
    wait_for("it has failed once", || {
        let job = service.job(id);
        (job["state"] == "queued" && job["attempts"] == 1).then_some(())
    });
    service.kill();
    fs::remove_dir(&path).unwrap();
    expected.write(&place, "again", &noise(6, 100_000));
    expected.check(&place);
}

#[test]
fn kills_at_any_moment_lose_nothing() {
    let place = Place::configured("[service]\nattempts = 100\n");
    let mut expected = Expected::default();
    let mut random = Random::new(7);
    for round in 0..KILLS {
        let service = place.start();
        let folder = format!("round-{round}");
        for number in 0..60 {
            let length = random.below(60_000) as usize;
            let name = format!("{folder}/{number}");
            expected.write(&place, &name, &noise(random.next(), length));
        }
        let name = format!("{folder}/large");
        let last = expected.write(&place, &name, &noise(random.next(), 9 * MIB as usize));
        settle(&last);
        // In every third round it may be killed while it accepts them: then they are submitted again.
        let body = format!(
            r#"{{"paths":[{{"path":"{}"}}]}}"#,
            place.path(&folder).display()
        );
        let at_once = round % 3 == 0;
        let delay = Duration::from_micros(match at_once {
            true => random.below(20_000),
            false => random.below(2_500_000),
        });
        std::thread::scope(|scope| {
            let socket = place.socket();
            let body = body.as_bytes();
            let submitting =
                scope.spawn(move || super::http::ask(&socket, "POST", "/v1/jobs", body).is_ok());
            if !at_once {
                wait_for("it is submitted", || submitting.is_finished().then_some(()));
            }
            std::thread::sleep(delay);
            service.kill();
            if !submitting.join().unwrap() {
                let service = place.start();
                service.submit(&[place.path(&folder)], 0);
                service.kill();
            }
        });
    }
    expected.check(&place);
}
