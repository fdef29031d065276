//! Start and end, and what keeps a service from starting.

use std::fs;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;

use super::service::{Place, finish};

#[test]
fn a_service_starts_answers_and_ends_by_a_signal() {
    let place = Place::new();
    place.tell(&["status"]).exits(75).says("no service answers");
    for signal in [Signal::TERM, Signal::INT] {
        let service = place.start();
        let status = service.status();
        assert_eq!(status["v"], 1);
        assert_eq!(status["flow"], "open");
        assert_eq!(status["store"], place.store().to_str().unwrap());
        assert_eq!(service.ask("GET", "/v1/live", b"").is(200).text(), "live\n");
        let ready = service.ask("GET", "/v1/ready", b"").is(200);
        assert_eq!(ready.text(), "ready\n");
        let shown = place.tell(&["status"]).exits(0).stdout;
        let process = format!("process {}", service.pid());
        assert!(
            shown.contains("running") && shown.contains(&process),
            "{shown}"
        );
        let shown = place.tell(&["status", "--json"]).exits(0).lines();
        assert_eq!(shown[0]["pid"], service.pid());
        service.signal(signal);
        let (code, log) = service.end();
        assert_eq!(code, Some(0), "{log}");
        let why = format!("signal {}", signal.as_raw());
        assert!(log.contains(&why) && log.contains("ended"), "{log}");
        assert!(!place.socket().exists(), "the socket is left behind");
    }
    let service = place.start();
    service.ask("POST", "/v1/stop", b"").is(202);
    assert_eq!(service.end().0, Some(0));
    place.verify();
}

#[test]
fn one_service_for_a_store_and_one_for_a_socket() {
    let place = Place::new();
    let service = place.start();
    let mut second = place.command(&["serve", "--socket", "other.sock"]);
    let second = finish(second.arg("--store").arg(place.store())).exits(11);
    assert!(!second.stderr.contains("panicked"), "{}", second.stderr);
    assert!(
        !place.path("other.sock").exists(),
        "a refused one left a socket"
    );

    let mut second = place.command(&["serve", "--store", "another"]);
    finish(second.arg("--socket").arg(place.socket()))
        .exits(1)
        .says("another service answers on this socket");
    // The first is none the worse for either.
    assert_eq!(service.status()["pid"], service.pid());
    service.stop();
}

#[test]
fn the_socket_of_a_killed_service_is_replaced_and_other_things_are_not() {
    let place = Place::new();
    place.start().kill();
    assert!(place.socket().exists());
    place.tell(&["status"]).exits(75).says("no service answers");
    place.start().stop();

    drop(UnixListener::bind(place.socket()).unwrap());
    place.start().stop();

    fs::write(place.socket(), "mine").unwrap();
    finish(&mut place.serve())
        .exits(1)
        .says("something is there that is no socket");
    assert_eq!(fs::read(place.socket()).unwrap(), b"mine");
}

#[test]
fn a_wrong_configuration_is_one_line_and_exit_code_78() {
    let place = Place::new();
    for (text, named) in [
        ("[service]\nattempts = 0\n", "service.attempts"),
        ("[service]\natempts = 3\n", "service.atempts"),
        ("[memory]\nlimit = \"much\"\n", "memory.limit"),
        ("[memory]\nlimit = \"2 MiB\"\n", "too little memory"),
        ("[memory\n", "filed.toml"),
    ] {
        place.configure(text);
        let ended = finish(&mut place.serve()).exits(78).says(named);
        let errors = |line: &&str| line.starts_with("filed: ");
        assert_eq!(ended.stderr.lines().filter(errors).count(), 1, "{ended:#?}");
        assert!(!place.store().exists(), "{text}: a store was made");
        assert!(!place.socket().exists());
    }
}

#[test]
fn a_store_that_cannot_be_made_is_one_line() {
    let place = Place::new();
    let file = place.write("file", b"in the way");
    let place = place.with_store(file.join("store"));
    let ended = finish(&mut place.serve()).exits(1).says("file/store");
    let errors = |line: &&str| line.starts_with("filed: ");
    assert_eq!(ended.stderr.lines().filter(errors).count(), 1, "{ended:#?}");
}
