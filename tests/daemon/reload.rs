//! A changed configuration: all of it applies, or nothing.

use rustix::process::Signal;

use super::content::noise;
use super::service::{MIB, Place};

#[test]
fn a_wrong_configuration_changes_nothing_and_says_why() {
    let good = "[memory]\nlimit = \"256 MiB\"\n[service]\nqueue = 7\n";
    let place = Place::configured(good);
    let service = place.start();
    let limit =
        |service: &super::service::Service<'_>| service.status()["memory"]["limit_bytes"].clone();
    assert_eq!(limit(&service), 256 * MIB);
    let configured = service.status()["configured_ns"].clone();
    for (text, key) in [
        (
            "[memory]\nlimit = \"300 MiB\"\n[service]\nattempts = 0\n",
            "service.attempts",
        ),
        ("[memory]\nlimit = \"300 MiB\"\nlimti = 1\n", "memory.limti"),
        ("[memory]\nlimit = \"many\"\n", "memory.limit"),
        ("[memory]\nlimit = \"300 MiB\"\n[[inbox]]\n", "inbox"),
        ("[memory\n", ""),
    ] {
        place.configure(text);
        let file = place.configuration();
        let ended = place.tell(&["reload"]).exits(1).says(key);
        if !key.is_empty() {
            ended.says(file.to_str().unwrap());
        }
        service.ask("POST", "/v1/reload", b"").is(422);
        assert_eq!(limit(&service), 256 * MIB, "{text}");
    }
    std::fs::remove_file(place.configuration()).unwrap();
    place.tell(&["reload"]).exits(1);

    // By a signal there is nobody to tell but the log.
    place.configure("[memory]\nlimit = \"300 MiB\"\n[compression]\nlevel = 99\n");
    let before = service.log().matches("the configuration is wrong").count();
    service.signal(Signal::HUP);
    super::service::wait_for("it is in the log", || {
        let log = service.log();
        let now = log.matches("the configuration is wrong").count();
        (now > before && log.contains("compression.level")).then_some(())
    });
    assert_eq!(limit(&service), 256 * MIB);

    // A limit that is valid in itself but that nothing can work within.
    place.configure("[memory]\nlimit = \"3 MiB\"\n[service]\nqueue = 1\n");
    place
        .tell(&["reload"])
        .exits(1)
        .says("too small")
        .says("MiB");
    let status = service.status();
    assert_eq!(status["memory"]["limit_bytes"], 256 * MIB);
    assert_eq!(status["configured_ns"], configured);
    // The rest of that file does not apply either: the queue has more room than for one.
    service.ask("POST", "/v1/pause", b"").is(204);
    let files: Vec<_> = (0..7)
        .map(|number| place.write(&format!("{number}"), &noise(number, 100)))
        .collect();
    let submitted = service.submit(&files, 0);
    assert!(
        submitted.iter().all(|one| one["queued"] == 1),
        "{submitted:?}"
    );
    service.stop();
}

#[test]
fn a_good_configuration_applies_at_once() {
    let place = Place::configured("[memory]\nlimit = \"256 MiB\"\n[pipeline]\nworkers = 1\n");
    let service = place.start();
    let memory = |key: &str| service.status()["memory"][key].clone();
    assert_eq!(memory("workers_planned"), 1);
    assert!(!service.log().contains("DEBUG"));

    place.configure(
        "[memory]\nlimit = \"512 MiB\"\nthreshold = \"100 MiB\"\ndwell = \"3s\"\n\
         [pipeline]\nworkers = 2\n[compression]\nlevel = 9\n[log]\nlevel = \"debug\"\n\
         [service]\nqueue = 3\nmetrics = \"127.0.0.1:9\"\n",
    );
    let reloaded = place.tell(&["reload", "--json"]).exits(0).lines();
    let keys = |name: &str| -> Vec<&str> {
        let keys = reloaded[0][name].as_array().unwrap();
        keys.iter().map(|key| key.as_str().unwrap()).collect()
    };
    for key in [
        "memory.limit",
        "memory.threshold",
        "pipeline.workers",
        "compression.level",
        "log.level",
        "service.queue",
    ] {
        assert!(keys("applied").contains(&key), "{reloaded:?}");
    }
    let mut restart = keys("restart");
    restart.sort_unstable();
    assert_eq!(restart, ["memory.dwell", "service.metrics"]);
    assert_eq!(memory("limit_bytes"), 512 * MIB);
    assert_eq!(memory("threshold_bytes"), 100 * MIB);
    assert_eq!(memory("workers_planned"), 2);
    assert_eq!(memory("workers"), 2);

    // The queue, and the log.
    service.ask("POST", "/v1/pause", b"").is(204);
    let files: Vec<_> = (0..4)
        .map(|number| place.write(&format!("{number}"), &noise(number, 100)))
        .collect();
    let refused: u64 = (service.submit(&files, 0).iter())
        .map(|one| one["refused"].as_u64().unwrap())
        .sum();
    assert_eq!(refused, 1);
    let mut broken = super::http::connect(&place.socket()).unwrap();
    std::io::Write::write_all(&mut broken, b"no HTTP\r\n\r\n").unwrap();
    drop(super::http::read_answer(broken));
    service.wait_for_log("DEBUG");

    // Once more, by a signal: nothing has changed but the limit.
    place.configure("[memory]\nlimit = \"128 MiB\"\n[pipeline]\nworkers = 2\n");
    service.signal(Signal::HUP);
    service.wait_for_log("memory.limit");
    super::service::wait_for("the limit applies", || {
        (memory("limit_bytes") == 128 * MIB).then_some(())
    });
    service.ask("POST", "/v1/resume", b"").is(204);
    service.wait_until_done();
    assert_eq!(service.stored().len(), 3);
    service.stop();
    place.verify();
}

/// What a reload says is what there is to say now: not less because another was refused in between, and what
/// waits for a restart is said again.
#[test]
fn a_reload_names_all_that_is_new() {
    let place = Place::configured("[memory]\nlimit = \"256 MiB\"\n");
    let service = place.start();
    let reload = |limit: &str, more: &str| {
        place.configure(&format!(
            "[memory]\nlimit = \"{limit}\"\n[service]\nqueue = 3\nmetrics = \"127.0.0.1:9\"\n{more}"
        ));
        place.tell(&["reload", "--json"])
    };
    let lists = |ended: super::service::Ended| {
        let line = ended.exits(0).lines().remove(0);
        (line["applied"].clone(), line["restart"].clone())
    };
    let restart = serde_json::json!(["service.metrics"]);
    reload("3 MiB", "").exits(1).says("too small");
    let (applied, waits) = lists(reload("256 MiB", ""));
    assert_eq!(
        (applied, &waits),
        (serde_json::json!(["service.queue"]), &restart)
    );
    let (applied, waits) = lists(reload("256 MiB", "[log]\nlevel = \"debug\"\n"));
    assert_eq!(
        (applied, &waits),
        (serde_json::json!(["log.level"]), &restart)
    );
    place.configure("[memory]\nlimit = \"256 MiB\"\n");
    let (applied, waits) = lists(place.tell(&["reload", "--json"]));
    assert_eq!(
        (applied, waits),
        (
            serde_json::json!(["log.level", "service.queue"]),
            serde_json::json!([])
        )
    );
    service.stop();
}

/// As config/filed.toml stands, which the README has installed, a service tells what it does.
#[test]
fn with_the_file_of_defaults_a_service_logs_what_it_does() {
    let place = Place::configured(include_str!("../../config/filed.toml"));
    let service = place.start();
    service.wait_for_log("serving");
    assert!(service.log().contains("INFO"));
    service.stop();
}

/// The level is that of the next file, and what is in work goes on.
#[test]
fn a_file_in_work_survives_a_reload() {
    let place = Place::configured(super::service::SLOW);
    let large = place.write("large", &super::content::text(7, 12 * MIB as usize));
    let service = place.start();
    let id = service.submit_file(&large);
    service.wait_until_working(MIB);
    place.configure("[compression]\nlevel = 1\n[memory]\nlimit = \"64 MiB\"\n");
    place.tell(&["reload"]).exits(0);
    let job = service.wait_for_job(id, "stored");
    assert_eq!(job["attempts"], 1, "{job}");
    let small = place.write("small", &super::content::text(8, MIB as usize));
    let id = service.submit_file(&small);
    service.wait_for_job(id, "stored");
    service.stop();
    place.verify();
}
