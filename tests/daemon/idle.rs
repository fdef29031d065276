//! What a service costs that has nothing to do: hardly a wake-up, and little memory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

use super::content::{noise, text};
use super::service::{MIB, Place, Service, wait_for};

const WATCHED: Duration = Duration::from_secs(10);

/// So often at most.
const WHILES: usize = 4;

/// Wake-ups in a second: one of the control loop, and room for a timer that comes late.
const WAKE_UPS: f64 = 1.3;

/// What may be resident; most of it are pages of the program itself.
const RESIDENT: u64 = 16 * MIB;

const ANONYMOUS: u64 = 8 * MIB;

/// How often threads of the service have gone to sleep so far, by number and name of the thread.
fn sleeps(service: &Service<'_>) -> BTreeMap<(OsString, String), u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap();
    let sleeps = tasks.flatten().filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let count = line("voluntary_ctxt_switches:")?.trim().parse().ok()?;
        Some(((task.file_name(), line("Name:")?.trim().to_owned()), count))
    });
    sleeps.collect()
}

/// Wake-ups in a second, of all threads together but the one that hears of memory pressure: that others
/// on the machine make it, while this runs, is not the service's doing.
fn wake_ups(service: &Service<'_>) -> f64 {
    let before = sleeps(service);
    let began = Instant::now();
    std::thread::sleep(WATCHED);
    // Threads that answer requests go after a while, and their counts with them.
    let mut all = 0;
    for (thread, count) in sleeps(service) {
        let count = count - before.get(&thread).unwrap_or(&0);
        println!("{count:>4} {}", thread.1);
        if thread.1 != "filed-pressure" {
            all += count;
        }
    }
    all as f64 / began.elapsed().as_secs_f64()
}

#[test]
fn an_idle_service_sleeps_and_is_small() {
    let place = Place::new();
    let service = place.start();
    place.write("large", &text(1, 24 * MIB as usize));
    for number in 0..100 {
        place.write(&format!("folder/{number}"), &noise(number, 100_000));
    }
    service.submit(&[place.path("folder"), place.path("large")], 0);
    service.wait_until_done();
    // What is kept ready for a moment goes: workers, and idle buffers.
    wait_for("the data plane has ended", || {
        let status = service.status();
        let owners = &status["memory"]["owners"];
        let held = [
            "chunks_bytes",
            "frames_bytes",
            "idle_bytes",
            "compression_bytes",
        ];
        held.iter().all(|owner| owners[owner] == 0).then_some(())
    });
    // What was just asked is over, and the loop has seen that nothing is left to do.
    std::thread::sleep(Duration::from_secs(4));
    // Such word has the control loop look, too: a quiet while is enough.
    let mut rate = f64::INFINITY;
    for _ in 0..WHILES {
        rate = wake_ups(&service).min(rate);
        if rate <= WAKE_UPS {
            break;
        }
    }
    let (resident, anonymous) = (service.memory("VmRSS"), service.memory("RssAnon"));
    println!(
        "{rate:.2} wake-ups a second, {} KiB resident, {} KiB anonymous",
        resident >> 10,
        anonymous >> 10
    );
    assert!(rate <= WAKE_UPS, "{rate} wake-ups a second");
    assert!(resident <= RESIDENT, "{resident}");
    assert!(anonymous <= ANONYMOUS, "{anonymous}");
    service.stop();
}
