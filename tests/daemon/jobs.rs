//! Jobs: many, in order, given up, tried again, bounded, forgotten, listed and heard of.

use std::fs;
use std::io::BufRead;
use std::path::PathBuf;

use serde_json::Value;

use super::content::{noise, text};
use super::http;
use super::service::{MIB, Place, SLOW, Service, wait_for};

fn small_files(place: &Place, folder: &str, count: u64) -> Vec<PathBuf> {
    (0..count)
        .map(|number| {
            let name = format!("{folder}/{number:04}");
            place.write(&name, &noise(number, 200 + number as usize))
        })
        .collect()
}

fn pause(service: &Service<'_>) {
    service.ask("POST", "/v1/pause", b"").is(204);
}

fn resume(service: &Service<'_>) {
    service.ask("POST", "/v1/resume", b"").is(204);
}

#[test]
fn a_thousand_at_once() {
    let place = Place::new();
    let service = place.start();
    let files = small_files(&place, "api", 1000);
    let submitted = service.submit(&files, 0);
    assert!(submitted.iter().all(|one| one["queued"] == 1));
    service.wait_until_done();
    assert_eq!(service.status()["jobs"]["stored"], 1000);

    small_files(&place, "folder", 1000);
    let ended = place.tell(&["submit", "folder", "--json"]).exits(0);
    assert_eq!(ended.lines()[0]["queued"], 1000);
    service.wait_until_done();
    let status = service.status();
    assert_eq!(status["jobs"]["stored"], 2000);
    assert_eq!(status["jobs"]["failed"], 0);
    let stored = service.stored();
    assert_eq!(stored.len(), 2000);
    assert!(stored.iter().all(|(_, _, versions)| *versions == 1));

    // Once more: they have not changed, and there is no second version.
    place.tell(&["submit", "folder"]).exits(0);
    service.wait_until_done();
    assert_eq!(service.status()["jobs"]["stored"], 3000);
    assert!(
        service
            .stored()
            .iter()
            .all(|(_, _, versions)| *versions == 1)
    );

    // The list comes in pages, the newest first, none twice.
    let mut ids: Vec<i64> = Vec::new();
    let mut before = String::new();
    loop {
        let page = service.get(&format!("/v1/jobs?limit=77{before}"));
        ids.extend(
            (page["jobs"].as_array().unwrap().iter()).map(|job| job["id"].as_i64().unwrap()),
        );
        match page["before"].as_i64() {
            Some(last) => before = format!("&before={last}"),
            None => break,
        }
    }
    assert_eq!(ids.len(), 3000);
    assert!(ids.is_sorted_by(|one, next| one > next));
    let listed = place.tell(&["jobs", "--json", "--limit", "1234"]).exits(0);
    assert_eq!(listed.lines().len(), 1234);
    assert!(listed.lines().iter().all(|line| line["v"] == 1));
    let listed = place.tell(&["jobs", "--state", "failed"]).exits(0);
    assert_eq!(listed.stdout, "");
    place
        .tell(&["jobs", "--state", "lost"])
        .exits(1)
        .says("no such state");
    service.stop();
    place.verify();
}

#[test]
fn greater_priorities_come_first() {
    let place = Place::configured("[pipeline]\nworkers = 1\n");
    let service = place.start();
    pause(&service);
    let mut wanted = Vec::new();
    for priority in [0, -5, 9, 0, 3] {
        let name = format!("{}", wanted.len());
        let path = place.write(&name, &noise(1, 1000 + wanted.len()));
        let priority_text = priority.to_string();
        let arguments = [
            "submit",
            path.to_str().unwrap(),
            "--json",
            "--priority",
            &priority_text,
        ];
        let id = place.tell(&arguments).exits(0).lines()[0]["id"]
            .as_i64()
            .unwrap();
        wanted.push((-priority, id));
    }
    resume(&service);
    service.wait_until_done();
    wanted.sort_unstable();
    let mut begun: Vec<(i64, i64)> = (service.jobs().iter())
        .map(|job| {
            (
                job["started_ns"].as_i64().unwrap(),
                job["id"].as_i64().unwrap(),
            )
        })
        .collect();
    begun.sort_unstable();
    let ids = |list: &[(i64, i64)]| list.iter().map(|(_, id)| *id).collect::<Vec<_>>();
    let wanted: Vec<(i64, i64)> = wanted
        .iter()
        .map(|(priority, id)| (i64::from(*priority), *id))
        .collect();
    assert_eq!(ids(&begun), ids(&wanted));
    service.stop();
}

#[test]
fn jobs_are_cancelled_and_tried_again() {
    let place = Place::configured(SLOW);
    let service = place.start();
    let running = place.write("running", &text(1, 32 * MIB as usize));
    let running = service.submit_file(&running);
    service.wait_until_working(MIB);
    let queued = place.write("queued", &noise(1, 1000));
    let queued = service.submit_file(&queued);
    let again = service.submit_file(&place.path("queued"));
    assert_eq!(again, queued, "one open job for a path");
    for id in [queued, running] {
        place.tell(&["jobs", "cancel", &id.to_string()]).exits(0);
        let job = service.wait_for_job(id, "failed");
        assert_eq!(job["reason"], "cancelled", "{job}");
    }
    assert_eq!(service.stored(), []);
    let queued = queued.to_string();
    place
        .tell(&["jobs", "cancel", &queued])
        .exits(1)
        .says("ended already");
    place
        .tell(&["jobs", "cancel", "999"])
        .exits(1)
        .says("there is no job 999");
    place.tell(&["jobs", "retry", &queued]).exits(0);
    service.wait_for_job(queued.parse().unwrap(), "stored");
    place
        .tell(&["jobs", "retry", &queued])
        .exits(1)
        .says("only a job that failed");

    // What was cancelled half-way is stored whole the next time.
    place.configure("");
    place.tell(&["reload"]).exits(0);
    place.tell(&["jobs", "retry", "--failed"]).exits(0);
    let job = service.wait_for_job(running, "stored");
    assert_eq!(job["size_bytes"], 32 * MIB);
    let shown = place.tell(&["jobs", "show", &running.to_string()]).exits(0);
    assert!(shown.stdout.contains("stored"), "{}", shown.stdout);
    service.stop();
    place.verify();
}

/// Submits a file while nothing moves, puts a folder in its place, and lets things go.
fn spoil(place: &Place, service: &Service<'_>) -> (i64, PathBuf) {
    pause(service);
    let path = place.write("spoiled", &noise(1, 1000));
    let id = service.submit_file(&path);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    resume(service);
    (id, path)
}

#[test]
fn a_job_that_fails_is_tried_again_later_and_then_given_up() {
    let place = Place::configured("[service]\nattempts = 2\n");
    let service = place.start();
    let (id, path) = spoil(&place, &service);
    let job = wait_for("it has failed once", || {
        let job = service.job(id);
        (job["state"] == "queued" && job["attempts"] == 1).then_some(job)
    });
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains("a folder has taken its place"), "{job}");
    let waits = job["due_ns"].as_i64().unwrap() - job["started_ns"].as_i64().unwrap();
    assert!(waits >= 5_000_000_000, "{job}");
    let job = service.wait_for_job(id, "failed");
    assert_eq!(job["attempts"], 2, "{job}");
    assert!(job["ended_ns"].as_i64().unwrap() - job["submitted_ns"].as_i64().unwrap() >= waits);
    // Retried, it begins anew, and does not wait.
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"well again").unwrap();
    place.tell(&["jobs", "retry", &id.to_string()]).exits(0);
    let job = service.wait_for_job(id, "stored");
    assert_eq!(job["attempts"], 1, "{job}");
    service.stop();
}

#[test]
fn what_is_not_there_or_may_be_tried_once_fails_at_once() {
    let place = Place::configured("[service]\nattempts = 1\n");
    let service = place.start();
    let (id, path) = spoil(&place, &service);
    let job = service.wait_for_job(id, "failed");
    assert_eq!(job["attempts"], 1, "{job}");
    fs::remove_dir(&path).unwrap();

    place.configure("[service]\nattempts = 100\n");
    place.tell(&["reload"]).exits(0);
    pause(&service);
    let path = place.write("gone", b"for a moment");
    let id = service.submit_file(&path);
    fs::remove_file(&path).unwrap();
    resume(&service);
    let job = service.wait_for_job(id, "failed");
    assert_eq!(job["attempts"], 1, "{job}");
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains("No such file"), "{job}");
    wait_for("the log says so", || {
        let log = service.log();
        let mut given_up = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains("given up"));
        given_up.find_map(|line| line.contains(path.to_str()?).then_some(()))
    });

    // What is not there when it is submitted is no job.
    place
        .tell(&["submit", "never"])
        .exits(1)
        .says("never: No such file");
    let waited = place.write("waited", b"for");
    let waited = waited.to_str().unwrap();
    place.tell(&["submit", "--wait", waited, "never"]).exits(3);
    assert_eq!(service.stored().len(), 1);
    service.stop();
}

#[test]
fn a_full_queue_takes_no_more_until_there_is_room() {
    let place = Place::configured("[service]\nqueue = 10\n");
    let service = place.start();
    pause(&service);
    small_files(&place, "many", 25);
    let ended = place.tell(&["submit", "many"]).exits(3);
    let ended = ended.says("the queue is full: 15 files were not queued");
    assert!(ended.stderr.contains("service.queue"), "{ended:?}");
    assert_eq!(service.status()["jobs"]["queued"], 10);
    let file = place.write("one", b"more");
    place
        .tell(&["submit", file.to_str().unwrap()])
        .exits(75)
        .says("the queue is full");
    resume(&service);
    service.wait_until_done();
    // All that has room is taken; what was done before is not there twice.
    for _ in 0..3 {
        place.tell(&["submit", "many"]);
        service.wait_until_done();
        if service.stored().len() == 25 {
            break;
        }
    }
    service.stop();
}

#[test]
fn old_jobs_are_forgotten() {
    let place = Place::configured("[service]\nhistory_jobs = 5\n");
    let files = small_files(&place, "many", 12);
    let service = place.start();
    service.submit(&files, 0);
    service.wait_until_done();
    wait_for("all is written down", || {
        (service.jobs().len() == 12).then_some(())
    });
    let newest = |service: &Service<'_>| -> Vec<(Value, i64)> {
        let jobs = service.jobs();
        let mut ended: Vec<(i64, i64)> = (jobs.iter())
            .map(|job| {
                (
                    job["ended_ns"].as_i64().unwrap(),
                    job["id"].as_i64().unwrap(),
                )
            })
            .collect();
        ended.sort_unstable();
        (ended.iter().rev().take(5))
            .map(|(at, id)| ((*at).into(), *id))
            .collect()
    };
    let expected = newest(&service);
    service.stop();
    let service = place.start();
    wait_for("the oldest are forgotten", || {
        (service.jobs().len() == 5).then_some(())
    });
    assert_eq!(newest(&service), expected);
    // The files are not.
    assert_eq!(service.stored().len(), 12);
    service.stop();
}

#[test]
fn what_happens_to_jobs_can_be_watched() {
    let place = Place::new();
    let service = place.start();
    let stream = http::connect(&place.socket()).unwrap();
    let request = http::head("GET", "/v1/jobs/events", &[]);
    std::io::Write::write_all(&mut &stream, request.as_bytes()).unwrap();
    let (code, head, mut reader) = http::read_head(stream).unwrap();
    assert_eq!(code, 200, "{head}");
    assert_eq!(
        http::header(&head, "content-type"),
        Some("text/event-stream")
    );
    let path = place.write("watched", b"closely");
    let id = service.submit_file(&path);
    let mut states = Vec::new();
    while states.last() != Some(&"stored".to_owned()) {
        let chunk = http::read_chunk(&mut reader).unwrap().unwrap();
        for line in chunk.lines() {
            let line = line.unwrap();
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!(event["id"], id);
            states.push(event["state"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(states, ["queued", "running", "stored"]);
    service.stop();
}
