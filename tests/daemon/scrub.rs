//! The check of what is stored, in the background: damage is found, told of, and healed by the same content.
//! And the heap of the fingerprint cache, which is renewed after so much work.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use super::content::noise;
use super::service::{Place, wait_for};

#[test]
fn damage_is_found_told_of_and_healed_by_the_same_content() {
    let place = Place::configured("[scrub]\nrate = \"off\"\n");
    let content = noise(5, 5 << 20);
    let path = place.write("precious", &content);
    let service = place.start();
    service.submit_file(&path);
    service.wait_until_done();
    place.tell(&["status"]).exits(0);
    service.stop();

    let pack = fs::read_dir(place.store().join("packs/000000")).unwrap();
    let pack = pack.map(|entry| entry.unwrap().path());
    let pack = pack
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let file = OpenOptions::new().write(true).open(&pack).unwrap();
    file.write_all_at(b"rot", 1_000_000).unwrap();

    place.configure("[scrub]\nrate = \"1 GiB\"\nevery = \"1h\"\n");
    let service = place.start();
    wait_for("the damage is found", || {
        let scrub = &service.status()["scrub"];
        (scrub["damaged_places"].as_u64()? > 0).then_some(())
    });
    place.tell(&["status"]).exits(4);
    let shown = pack.to_str().unwrap();
    service.wait_for_log(shown);
    assert!(service.log().contains("ERROR"), "{}", service.log());

    // The same content under another name.
    let copy = place.write("copy", &content);
    service.submit_file(&copy);
    wait_for("the damaged piece is stored elsewhere", || {
        let scrub = &service.status()["scrub"];
        (scrub["damaged_places"] == 0 && scrub["replaced_places"].as_u64()? > 0).then_some(())
    });
    place.tell(&["status"]).exits(0);
    let name = path.to_str().unwrap();
    let answer = service.ask("GET", &format!("/v1/files/content?name={name}"), b"");
    assert!(
        answer.is(200).body == content,
        "the old version is not whole"
    );
    service.stop();
    place.verify();
}

#[test]
fn a_pass_has_an_end_and_says_how_long_it_takes() {
    let place = Place::configured("[scrub]\nrate = \"1 GiB\"\nevery = \"1h\"\n");
    let path = place.write("some", &noise(6, 3 << 20));
    place
        .run(&["process", "--quiet", path.to_str().unwrap()])
        .exits(0);
    let service = place.start();
    let scrub = wait_for("a pass has ended", || {
        let scrub = service.status()["scrub"].clone();
        (scrub["last_pass_ended_ns"].as_i64()? > 0).then_some(scrub)
    });
    assert!(scrub["read_bytes"].as_u64() > Some(3 << 20), "{scrub}");
    wait_for("it rests", || {
        (service.status()["scrub"]["state"] == "idle").then_some(())
    });
    place.tell(&["pause"]).exits(0);
    wait_for("it is paused", || {
        (service.status()["scrub"]["state"] == "paused").then_some(())
    });
    place.tell(&["resume"]).exits(0);
    let shown = place.tell(&["status"]).exits(0).stdout;
    assert!(shown.contains("a pass takes"), "{shown}");
    service.stop();
}

#[test]
fn the_heap_is_renewed_after_so_much_work_and_nothing_is_lost() {
    let place = Place::configured("[service]\nrenew_after = \"1 GiB\"\n[log]\nlevel = \"debug\"\n");
    let known = noise(7, 4 << 20);
    let service = place.start();
    let first = place.write("first", &known);
    service.submit_file(&first);
    service.wait_until_done();
    // A hole is work, and costs nothing.
    let hole = place.path("hole");
    let file = fs::File::create(&hole).unwrap();
    file.set_len(3 << 30).unwrap();
    service.submit_file(&hole);
    service.wait_for_log("the heap of the cache was renewed");
    service.wait_until_done();
    let again = place.write("again", &known);
    let job = service.submit_file(&again);
    let job = service.wait_for_job(job, "stored");
    assert_eq!(job["new_bytes"], 0, "what was known is still found: {job}");
    service.stop();
    place.verify();
}
