//! Clients that are slow, many, or make no sense: none of them harms anybody else.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::content::{Random, digest, noise};
use super::http;
use super::service::{LIMIT, MIB, Place, Service, is_root, skipped, wait_for};

const BROKEN_REQUESTS: usize = 10_000;

/// More connections than there are places.
const IDLE: usize = 200;

/// Where another user's process is told the socket.
const SOCKET_VARIABLE: &str = "FILED_TEST_SOCKET";

/// Descriptors and threads of a service, once those that come and go have gone.
fn counts(service: &Service<'_>) -> (usize, usize) {
    (service.count("fd"), service.count("task"))
}

/// The same once the threads run that stay: it answers before the last of them has started.
fn settled_counts(service: &Service<'_>) -> (usize, usize) {
    for name in ["filed-jobs", "filed-scrub"] {
        wait_for("its threads have started", || {
            let mut tasks = fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap();
            tasks.find_map(|task| {
                let found = fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
                (found.trim() == name).then_some(())
            })
        });
    }
    counts(service)
}

#[track_caller]
fn wait_for_counts(service: &Service<'_>, before: (usize, usize)) {
    let began = Instant::now();
    let mut now = counts(service);
    while now.0 > before.0 || now.1 > before.1 {
        assert!(began.elapsed() < LIMIT, "{before:?} became {now:?}");
        std::thread::sleep(Duration::from_millis(100));
        now = counts(service);
    }
}

fn put(socket: &std::path::Path, name: &str, content: &[u8]) -> http::Answer {
    http::ask(socket, "PUT", &http::content_of(name), content).unwrap()
}

/// One's own connections that say nothing, or half of it, take one's own places, but not for long.
#[test]
fn half_a_head_is_cut_off() {
    let place = Place::new();
    let service = place.start();
    let before = settled_counts(&service);
    let mut halves: Vec<UnixStream> = (0..10)
        .map(|_| {
            let mut half = http::connect(&place.socket()).unwrap();
            half.write_all(b"GET /v1/status HTTP/1.1\r\nhost: fi")
                .unwrap();
            half
        })
        .collect();
    // There are places left, and nobody has to wait for the halves.
    service.status();
    let idle = connect_many(&place.socket());
    // Whoever finds none is told to try again; but the idle may be gone before it has come.
    let ended = place.tell(&["status"]);
    let code = ended.status.code();
    assert!(matches!(code, Some(0 | 75)), "{ended:?}");
    let answered = wait_for("somebody is answered again", || {
        service.try_ask("GET", "/v1/status", b"").ok()
    });
    answered.is(200);
    for half in &mut halves {
        let mut rest = Vec::new();
        // An answer that says so or none: but an end.
        let _ = half.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
    }
    drop((halves, idle));
    wait_for_counts(&service, before);
    service.stop();
}

/// A stream that takes hours keeps nobody, whatever is changed meanwhile.
#[test]
fn a_stream_that_takes_its_time_keeps_no_file_from_its_turn() {
    let place = Place::new();
    let service = place.start();
    let content = noise(1, 3 * MIB as usize);
    let path = http::content_of("/slow");
    let mut slow = http::connect(&place.socket()).unwrap();
    let length = [format!("content-length: {}", content.len())];
    slow.write_all(http::head("PUT", &path, &length).as_bytes())
        .unwrap();
    let (first, rest) = content.split_at(2 * MIB as usize);
    slow.write_all(first).unwrap();
    service.wait_until_working(MIB);
    let store = |name: &str| {
        let file = place.write(name, name.as_bytes());
        service.wait_for_job(service.submit_file(&file), "stored");
    };
    store("beside");
    service.ask("POST", "/v1/pause", b"").is(204);
    // It is asked for work, and has none to give.
    std::thread::sleep(Duration::from_millis(500));
    service.ask("POST", "/v1/resume", b"").is(204);
    store("after a pause");
    place.configure("[compression]\nlevel = 1\n");
    place.tell(&["reload"]).exits(0);
    store("after a reload");
    slow.write_all(rest).unwrap();
    let stored = http::read_answer(slow).unwrap().is(201);
    assert_eq!(stored.json()["digest"], digest(&content));
    service.stop();
    place.verify();
}

#[test]
fn whoever_does_not_read_is_cut_off_and_the_place_is_free_again() {
    let place = Place::new();
    let service = place.start();
    let content = noise(1, 20 * MIB as usize);
    put(&place.socket(), "/large", &content).is(201);
    let before = counts(&service);
    let mut deaf = http::connect(&place.socket()).unwrap();
    let path = http::content_of("/large");
    deaf.write_all(http::head("GET", &path, &[]).as_bytes())
        .unwrap();
    // It is being sent.
    deaf.read_exact(&mut [0; 12]).unwrap();
    service.ask("GET", &path, b"").is(503);
    // Everything else goes on.
    service.status();
    let file = place.write("file", b"taken in meanwhile");
    service.wait_for_job(service.submit_file(&file), "stored");
    let answer = wait_for("the place is free", || {
        let answer = service.ask("GET", &path, b"");
        (answer.code == 200).then_some(answer)
    });
    assert_eq!(digest(&answer.body), digest(&content));
    // What it got is not the whole, and it can tell.
    let mut rest = Vec::new();
    let _ = deaf.read_to_end(&mut rest);
    assert!(rest.len() < content.len(), "{}", rest.len());
    drop(deaf);
    wait_for("its descriptor is closed", || {
        (service.count("fd") <= before.0).then_some(())
    });
    service.stop();
}

/// Not a test of its own: what [`idle_clients_of_another_user_keep_nobody_out`] runs as somebody else.
#[test]
fn as_another_user() {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else {
        return;
    };
    let connections = connect_many(std::path::Path::new(&socket));
    println!("connected {}", connections.len());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn connect_many(socket: &std::path::Path) -> Vec<UnixStream> {
    (0..IDLE).map(|_| http::connect(socket).unwrap()).collect()
}

#[test]
fn idle_clients_of_another_user_keep_nobody_out() {
    if !is_root() {
        skipped("idle clients of another user: only root can be several users");
        return;
    }
    let place = Place::new().open_to_others();
    let service = place.start();
    let before = counts(&service);
    let program = place.lend(&std::env::current_exe().unwrap(), "tests");
    // In root's group, to which the socket belongs.
    let mut child = std::process::Command::new(program)
        .args(["--exact", "hostile::as_another_user", "--nocapture"])
        .env(SOCKET_VARIABLE, place.socket())
        .current_dir("/")
        .uid(61_115)
        .gid(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(&format!("connected {IDLE}")) {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut output, &mut line).unwrap(),
            0
        );
    }
    for _ in 0..20 {
        place.tell(&["status"]).exits(0);
    }
    put(&place.socket(), "/meanwhile", b"stored").is(201);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    wait_for("their descriptors are closed", || {
        (service.count("fd") <= before.0).then_some(())
    });
    service.stop();
}

#[test]
fn a_stream_that_stops_in_the_middle_leaves_nothing() {
    let place = Place::new();
    let service = place.start();
    let content = noise(2, 5 * MIB as usize);
    for (number, length) in [0, 10, MIB, 3 * MIB + 17].into_iter().enumerate() {
        let name = format!("/half-{number}");
        let mut stream = http::connect(&place.socket()).unwrap();
        let lines = [format!("content-length: {}", content.len())];
        let head = http::head("PUT", &http::content_of(&name), &lines);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&content[..length as usize]).unwrap();
        wait_for("it is in work", || {
            (service.status()["in_work"][0]["what"] == name).then_some(())
        });
        drop(stream);
        wait_for("nothing is in work", || {
            (service.status()["in_work"].as_array().unwrap().is_empty()).then_some(())
        });
        service.ask("GET", &http::content_of(&name), b"").is(404);
    }
    // The same, with a length that is not reached and a half that is closed.
    let mut stream = http::connect(&place.socket()).unwrap();
    let lines = [format!("content-length: {}", content.len())];
    let head = http::head("PUT", &http::content_of("/short"), &lines);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content[..100]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(
        !rest.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    assert_eq!(service.stored(), []);
    // All places are free.
    for number in 0..6 {
        put(
            &place.socket(),
            &format!("/whole-{number}"),
            &content[number..],
        )
        .is(201);
    }
    service.stop();
    place.verify();
}

#[test]
fn streams_at_once_beside_files() {
    let place = Place::new();
    for number in 0..200 {
        place.write(&format!("folder/{number}"), &noise(1000 + number, 50_000));
    }
    let service = place.start();
    service.submit(&[place.path("folder")], 0);
    std::thread::scope(|scope| {
        for client in 0..6 {
            let socket = place.socket();
            scope.spawn(move || {
                for number in 0..3 {
                    let content = noise(client * 10 + number, 2 * MIB as usize + client as usize);
                    let name = format!("/client-{client}/{number}");
                    // There are fewer places than clients.
                    let answer = wait_for("there is a place", || {
                        let answer = http::ask(&socket, "PUT", &http::content_of(&name), &content);
                        let answer = answer.ok()?;
                        (answer.code != 503).then_some(answer)
                    });
                    assert_eq!(answer.is(201).json()["digest"], digest(&content));
                }
            });
        }
    });
    service.wait_until_done();
    let stored = service.stored();
    assert_eq!(stored.len(), 200 + 18);
    assert!(
        stored.iter().all(|(_, _, versions)| *versions == 1),
        "{stored:?}"
    );
    service.stop();
    place.verify();
}

/// A request that makes no sense in some way; none of them ends the service.
fn broken_request(random: &mut Random) -> Vec<u8> {
    const PATHS: [&str; 20] = [
        "/v1/status",
        "/v1/jobs",
        "/v1/jobs/1",
        "/v1/jobs/99999999999999999999",
        "/v1/jobs/-1/retry",
        "/v1/jobs?limit=-1&state=%00&before=x",
        "/v1/files?after=%ff%fe&limit=4294967296",
        "/v1/files/content?name=/there",
        "/v1/files/content?name=%2Fthere&version=18446744073709551615",
        "/v1/files/content?name=%5Cx0g",
        "/v1/files/content?name=../../etc/passwd",
        "/v1/files/content",
        "/v1/files/versions?name=%2Fthere&after=99999999999999999999999",
        "/v1/heap/compare?since=1&to=x",
        "/v1/heap/snapshots?label=%F0%9F%A6%80",
        "/v1/nothing",
        "//v1//status",
        "*",
        "http://other/v1/status",
        "/%",
    ];
    const METHODS: [&str; 9] = [
        "GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "CONNECT", "get", "B\u{e4}D",
    ];
    const BODIES: [&str; 8] = [
        "{",
        "[]",
        "null",
        r#"{"paths":[{"path":"relative"}]}"#,
        r#"{"paths":[{"path":"/a\\x0"}]}"#,
        r#"{"paths":[{"path":"/a","device":-1}],"priority":1e99}"#,
        r#"{"paths":[{"path":"/a"}],"unknown":1}"#,
        r#"{"paths":"/a"}"#,
    ];
    const LINES: [&str; 14] = [
        "range: bytes=99999999999999999999-",
        "range: bytes=-0",
        "range: bytes=5-1,7-",
        "range: \u{fffd}",
        "content-length: -1",
        "content-length: 99999999999999999999",
        "content-length: 5\r\ncontent-length: 6",
        "transfer-encoding: chunked",
        "transfer-encoding: gzip, chunked",
        "expect: 100-continue",
        "upgrade: websocket\r\nconnection: upgrade",
        "content-type: text/plain",
        "no colon",
        " folded: line",
    ];
    fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
        from[random.below(from.len() as u64) as usize]
    }
    match random.below(10) {
        // No HTTP at all.
        0 | 1 => {
            let seed = random.next();
            noise(seed, 1 + random.below(3000) as usize)
        }
        // A head without an end, or a very long one.
        2 if random.below(20) == 0 => {
            let mut head = b"GET /v1/status HTTP/1.1\r\nx: ".to_vec();
            head.resize(64 + random.below(2 * MIB) as usize, b'a');
            head
        }
        3 if random.below(20) == 0 => {
            let mut head = b"GET /v1/status HTTP/1.1\r\n".to_vec();
            for number in 0..random.below(2000) {
                head.extend(format!("h{number}: x\r\n").bytes());
            }
            head.extend(b"\r\n");
            head
        }
        // One byte of an honest request is another.
        4 | 5 => {
            let path = pick(random, &PATHS);
            let body = pick(random, &BODIES);
            let lines = [
                format!("content-length: {}", body.len()),
                "content-type: application/json".to_owned(),
            ];
            let mut request = http::head("POST", path, &lines).into_bytes();
            request.extend(body.bytes());
            let at = random.below(request.len() as u64) as usize;
            request[at] ^= 1 << random.below(8);
            request
        }
        _ => {
            let mut lines = vec!["content-type: application/json".to_owned()];
            for _ in 0..random.below(3) {
                lines.push(pick(random, &LINES).to_owned());
            }
            let body = pick(random, &BODIES);
            if random.below(2) == 0 {
                lines.push(format!("content-length: {}", body.len()));
            }
            let method = pick(random, &METHODS);
            let mut request = http::head(method, pick(random, &PATHS), &lines).into_bytes();
            request.extend(body.bytes());
            let length = request.len() as u64;
            if random.below(8) == 0 {
                request.truncate(random.below(length) as usize);
            }
            request
        }
    }
}

#[test]
fn ten_thousand_broken_requests() {
    let place = Place::new();
    let service = place.start();
    let before = settled_counts(&service);
    put(&place.socket(), "/there", &noise(3, 200_000)).is(201);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let socket = place.socket();
            scope.spawn(move || {
                let mut random = Random::new(100 + thread);
                for _ in 0..BROKEN_REQUESTS / 4 {
                    let request = broken_request(&mut random);
                    let mut stream = http::connect(&socket).unwrap();
                    // It may answer, or go away, before it has read all of that.
                    let _ = stream.write_all(&request);
                    let _ = stream.shutdown(Shutdown::Write);
                    let mut answer = Vec::new();
                    let _ = stream.read_to_end(&mut answer);
                    assert!(
                        !answer.starts_with(b"HTTP/1.1 500"),
                        "{}\n{}",
                        String::from_utf8_lossy(&request),
                        String::from_utf8_lossy(&answer)
                    );
                }
            });
        }
    });
    let file = place.write("file", b"taken in afterwards");
    service.wait_for_job(service.submit_file(&file), "stored");
    assert_eq!(service.status()["flow"], "open");
    wait_for_counts(&service, before);
    let log = service.stop();
    assert!(!log.contains("ERROR"), "{log}");
    place.verify();
}
