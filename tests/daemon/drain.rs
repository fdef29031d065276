//! What a stop does to files that are being taken in.

use std::io::Write;

use rustix::process::Signal;

use super::content::{digest, noise, text};
use super::http;
use super::service::{MIB, Place, SLOW, Service, wait_for};

/// Starts a service with so long a drain that works on one file of text, slowly.
fn working<'a>(place: &'a Place, drain: &str, content: &[u8]) -> (Service<'a>, i64) {
    place.configure(&format!("{SLOW}[service]\ndrain = \"{drain}\"\n"));
    let path = place.write("large", content);
    let service = place.start();
    let id = service.submit_file(&path);
    service.wait_until_working(MIB);
    (service, id)
}

/// Starts it again, and then all of this is stored, once.
fn check_after_restart(place: &Place, content: &[u8]) {
    let service = place.start();
    service.wait_until_done();
    let name = place.path("large").to_str().unwrap().to_owned();
    assert_eq!(service.stored(), [(name, digest(content), 1)]);
    service.stop();
    place.verify();
}

#[test]
fn a_file_in_work_is_finished_before_the_end() {
    let place = Place::new();
    let content = text(1, 24 * MIB as usize);
    let (service, id) = working(&place, "10m", &content);
    let waiting = place.write("waiting", &noise(1, 1000));
    let waiting = service.submit_file(&waiting);
    service.signal(Signal::TERM);
    wait_for("it drains", || {
        let status = service.try_ask("GET", "/v1/status", b"").ok()?;
        (status.json()["flow"] == "draining").then_some(())
    });
    service.ask("GET", "/v1/ready", b"").is(503);
    let body = format!(r#"{{"paths":[{{"path":"{}"}}]}}"#, place.root().display());
    service.ask("POST", "/v1/jobs", body.as_bytes()).is(503);
    let log = service.stop_already_asked();
    assert!(
        log.contains("still running") && log.contains("large"),
        "{log}"
    );

    place.configure("");
    let service = place.start();
    let job = service.job(id);
    assert_eq!(
        (&job["state"], &job["attempts"]),
        (&"stored".into(), &1.into())
    );
    service.wait_for_job(waiting, "stored");
    assert_eq!(service.stored().len(), 2);
    service.stop();
    place.verify();
}

#[test]
fn without_a_drain_a_file_stops_at_a_chunk_and_is_taken_in_after_the_next_start() {
    let place = Place::new();
    let content = text(2, 32 * MIB as usize);
    let (service, id) = working(&place, "0s", &content);
    let log = service.stop();
    assert!(log.contains("the drain is over"), "{log}");

    // Nothing is taken in while it is looked at.
    place.configure("[service]\n");
    let service = place.start();
    let job = service.job(id);
    assert_ne!(job["state"], "failed", "{job}");
    // Being stopped was not an attempt.
    assert!(job["attempts"].as_u64().unwrap() <= 1, "{job}");
    service.stop();
    check_after_restart(&place, &content);
}

#[test]
fn a_second_signal_ends_it_at_once_and_nothing_is_lost() {
    for (number, first, second) in [
        (3, Signal::TERM, Signal::TERM),
        (4, Signal::TERM, Signal::INT),
    ] {
        let place = Place::new();
        let content = text(number, 24 * MIB as usize);
        let (service, _) = working(&place, "10m", &content);
        service.signal(first);
        service.wait_for_log("still running");
        service.signal(second);
        let (code, log) = service.end();
        assert_eq!(code, Some(128 + second.as_raw()), "{log}");
        assert!(log.contains("ending at once"), "{log}");
        place.configure("");
        check_after_restart(&place, &content);
    }
}

/// A stream is work too: it may come to its end, and one that only waits does not keep the service.
#[test]
fn a_stream_in_work_is_finished_before_the_end() {
    let place = Place::configured("[service]\ndrain = \"10m\"\n");
    let content = noise(5, 3 * MIB as usize);
    let service = place.start();
    let mut stream = http::connect(&place.socket()).unwrap();
    let lines = [format!("content-length: {}", content.len())];
    let head = http::head("PUT", &http::content_of("/stream"), &lines);
    stream.write_all(head.as_bytes()).unwrap();
    let (first, rest) = content.split_at(2 * MIB as usize);
    stream.write_all(first).unwrap();
    service.wait_until_working(MIB);
    service.signal(Signal::TERM);
    service.wait_for_log("still running");
    stream.write_all(rest).unwrap();
    let answer = http::read_answer(stream).unwrap().is(201).json();
    assert_eq!(answer["digest"], digest(&content));
    service.stop_already_asked();
    place.verify();
}
