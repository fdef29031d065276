//! One large file in and out over the socket, with memory as flat as for a small one.
//!
//! 1 GiB by default; 4 GiB where `FILED_TEST_FULL=1` is set.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::content::{Random, digest, noise, text};
use super::http;
use super::service::{MIB, Place, Service};

/// What memory may grow by for a stream of any length: buffers of the stream and of the data plane,
/// contexts of the compressor, the cache of known pieces.
const GROWTH: u64 = 24 * MIB;

fn length() -> u64 {
    match std::env::var_os("FILED_TEST_FULL") {
        Some(full) if full == "1" => 4096 * MIB,
        _ => 1024 * MIB,
    }
}

/// A stream that is the same each time: every MiB is half noise and half text, and no two are alike.
struct Made {
    noise: Vec<u8>,
    text: Vec<u8>,
    number: u64,
    left: u64,
    part: Vec<u8>,
    at: usize,
}

impl Made {
    fn new(length: u64) -> Made {
        Made {
            noise: noise(11, MIB as usize),
            text: text(11, MIB as usize),
            number: 0,
            left: length,
            part: Vec::new(),
            at: 0,
        }
    }

    fn next_part(&mut self) {
        let half = MIB as usize / 2;
        self.number += 1;
        let mut random = Random::new(self.number);
        self.part.clear();
        // Another turn and another key for each, which is cheaper than other noise.
        let from = random.below(half as u64) as usize;
        let key = random.next().to_le_bytes();
        let noise = &self.noise[from..from + half];
        self.part.extend(
            noise
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        self.part.extend(&self.text[from..from + half]);
        self.part.extend(self.number.to_le_bytes());
        self.part
            .truncate(self.left.min(self.part.len() as u64) as usize);
        self.left -= self.part.len() as u64;
        self.at = 0;
    }
}

impl Read for Made {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.at == self.part.len() {
            self.next_part();
        }
        let length = room.len().min(self.part.len() - self.at);
        room[..length].copy_from_slice(&self.part[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Does something and gives the most that was resident meanwhile.
fn peak_during<T>(service: &Service<'_>, work: impl FnOnce() -> T) -> (T, u64) {
    let over = AtomicBool::new(false);
    let peak = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(service.memory("VmRSS"), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let outcome = work();
        over.store(true, Ordering::Relaxed);
        (outcome, peak.load(Ordering::Relaxed))
    })
}

#[test]
fn a_large_stream_in_and_out_takes_no_more_memory_than_a_small_one() {
    let length = length();
    let place = Place::configured("[memory]\nlimit = \"128 MiB\"\n[pipeline]\nworkers = 2\n");
    let service = place.start();
    let before = service.memory("VmRSS");
    let path = http::content_of("/large");

    let began = Instant::now();
    let (answer, peak_in) = peak_during(&service, || {
        let mut stream = http::connect(&place.socket()).unwrap();
        let lines = [format!("content-length: {length}")];
        stream
            .write_all(http::head("PUT", &path, &lines).as_bytes())
            .unwrap();
        let mut made = Made::new(length);
        let mut hasher = blake3::Hasher::new();
        let mut part = vec![0; 1 << 18];
        loop {
            let read = made.read(&mut part).unwrap();
            if read == 0 {
                break;
            }
            hasher.update(&part[..read]);
            stream.write_all(&part[..read]).unwrap();
        }
        let answer = http::read_answer(stream).unwrap().is(201).json();
        assert_eq!(answer["digest"], hasher.finalize().to_hex().as_str());
        answer
    });
    let time_in = began.elapsed();
    assert_eq!(answer["size_bytes"], length);
    let stored = answer["stored_bytes"].as_u64().unwrap();
    assert!(
        stored < length * 3 / 4,
        "{stored} of {length} bytes were stored"
    );

    let began = Instant::now();
    let ((), peak_out) = peak_during(&service, || {
        let mut stream = http::connect(&place.socket()).unwrap();
        stream
            .write_all(http::head("GET", &path, &[]).as_bytes())
            .unwrap();
        let (code, head, mut reader) = http::read_head(stream).unwrap();
        assert_eq!(code, 200, "{head}");
        let announced = http::header(&head, "content-length").unwrap();
        assert_eq!(announced, length.to_string());
        let mut hasher = blake3::Hasher::new();
        let mut part = vec![0; 1 << 18];
        let mut got = 0;
        while got < length {
            let read = reader.read(&mut part).unwrap();
            assert_ne!(read, 0, "it ends after {got} bytes");
            hasher.update(&part[..read]);
            got += read as u64;
        }
        assert_eq!(answer["digest"], hasher.finalize().to_hex().as_str());
    });
    let time_out = began.elapsed();
    let (high, mib) = (service.memory("VmHWM"), |bytes: u64| bytes >> 20);
    let rate = |time: Duration| mib(length) as f64 / time.as_secs_f64();
    println!(
        "{} MiB: in {:.0} MiB/s, peak {} MiB; out {:.0} MiB/s, peak {} MiB; before {} MiB, most ever {} MiB",
        mib(length),
        rate(time_in),
        mib(peak_in),
        rate(time_out),
        mib(peak_out),
        mib(before),
        mib(high)
    );
    for peak in [peak_in, peak_out, high] {
        assert!(peak < before + GROWTH, "{peak} after {before}");
    }
    service.stop();
}

#[test]
fn parts_of_a_file_are_what_they_should_be() {
    let place = Place::new();
    let service = place.start();
    let length = 24 * MIB + 12_345;
    let mut content = Vec::new();
    Made::new(length).read_to_end(&mut content).unwrap();
    let path = http::content_of("/parts");
    let stored = http::ask(&place.socket(), "PUT", &path, &content).unwrap();
    assert_eq!(stored.is(201).json()["digest"], digest(&content));
    let part = |range: &str| {
        let mut stream = http::connect(&place.socket()).unwrap();
        let head = http::head("GET", &path, &[format!("range: bytes={range}")]);
        stream.write_all(head.as_bytes()).unwrap();
        http::read_answer(stream).unwrap()
    };
    let mut random = Random::new(5);
    for _ in 0..40 {
        let first = random.below(length);
        let last = match random.below(4) {
            0 => first,
            1 => (first + random.below(3 * MIB)).min(length - 1),
            2 => first + random.below(length - first),
            // Beyond the end is the end.
            _ => length + random.below(MIB),
        };
        let answer = part(&format!("{first}-{last}")).is(206);
        let last = last.min(length - 1);
        let range = format!("bytes {first}-{last}/{length}");
        assert_eq!(
            http::header(&answer.head, "content-range"),
            Some(range.as_str())
        );
        assert!(
            answer.body == content[first as usize..=last as usize],
            "{range}"
        );
    }
    let answer = part("-1000").is(206);
    assert!(answer.body == content[content.len() - 1000..]);
    let answer = part(&format!("{}-", length - 5)).is(206);
    assert!(answer.body == content[content.len() - 5..]);
    let none = part(&format!("{length}-")).is(416);
    let size = format!("bytes */{length}");
    assert_eq!(
        http::header(&none.head, "content-range"),
        Some(size.as_str())
    );
    assert!(part("5-1").is(200).body == content);
    assert!(part("5-6,1-2").is(200).body == content);
    service.stop();
}

fn ask_with(place: &Place, method: &str, path: &str, lines: &[String]) -> http::Answer {
    let mut stream = http::connect(&place.socket()).unwrap();
    let head = http::head(method, path, lines);
    stream.write_all(head.as_bytes()).unwrap();
    if method != "HEAD" {
        return http::read_answer(stream).unwrap();
    }
    let (code, head, mut reader) = http::read_head(stream).unwrap();
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    http::Answer { code, head, body }
}

/// Who has a part of a version does not get the rest of another one.
#[test]
fn a_part_is_one_of_what_the_client_has() {
    let place = Place::new();
    let service = place.start();
    let path = http::content_of("/versions");
    let tags = ["first version", "other version"].map(|content| {
        let stored = http::ask(&place.socket(), "PUT", &path, content.as_bytes()).unwrap();
        format!("\"{}\"", stored.is(201).json()["digest"].as_str().unwrap())
    });
    let rest = |tag: &str| {
        let lines = ["range: bytes=6-".to_owned(), format!("if-range: {tag}")];
        ask_with(&place, "GET", &path, &lines)
    };
    assert_eq!(rest(&tags[1]).is(206).text(), "version");
    assert_eq!(rest(&tags[0]).is(200).text(), "other version");
    let date = "Wed, 25 Nov 2026 00:00:00 GMT";
    assert_eq!(rest(date).is(200).text(), "other version");
    service.stop();
}

/// Asking what there is takes nobody's place, and reads nothing.
#[test]
fn a_head_is_answered_while_a_stream_goes_out() {
    let place = Place::new();
    let service = place.start();
    let path = http::content_of("/large");
    let mut content = Vec::new();
    Made::new(16 * MIB).read_to_end(&mut content).unwrap();
    http::ask(&place.socket(), "PUT", &path, &content)
        .unwrap()
        .is(201);
    let mut held = http::connect(&place.socket()).unwrap();
    held.write_all(http::head("GET", &path, &[]).as_bytes())
        .unwrap();
    let mut begun = [0; 12];
    held.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    service.ask("GET", &path, b"").is(503);
    let lines = ["range: bytes=5-6".to_owned()];
    let answer = ask_with(&place, "HEAD", &path, &lines).is(200);
    assert_eq!(answer.body, b"");
    for (name, value) in [
        ("content-length", (16 * MIB).to_string()),
        ("etag", format!("\"{}\"", digest(&content))),
    ] {
        assert_eq!(http::header(&answer.head, name), Some(value.as_str()));
    }
    ask_with(&place, "HEAD", &http::content_of("/none"), &[]).is(404);
    drop(held);
    service.stop();
}
