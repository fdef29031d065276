//! `cargo bench --bench memory`: is memory given back after each file?
//!
//! Files of 50, 100, 200 and 500 MB are taken in one after the other in this one process. The table
//! says resident memory before, at its peak during, and after each, and fails if what stays is more
//! than 4 MiB: that is not a matter of the machine's speed.

#[allow(dead_code, reason = "each benchmark uses a part of it")]
mod support;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use filed::daemon::memory::{MemoryProbe, MemorySeen};
use filed::daemon::relief::Relief;
use filed::daemon::{self, Patience, Watch};
use filed::heap::{Pool, malloc};
use filed::pipeline::fingerprints::{Fingerprints, Settings};
use filed::pipeline::{self, Input, Limits, Options, Progress, Stop, Walk};
use filed::pressure::dwell::Dwell;
use filed::pressure::level::Thresholds;
use filed::pressure::mode::{Controller, Rules};
use filed::pressure::sample::Measure;
use filed::store::Store;
use filed::store::format::Chunking;

const WORKERS: usize = 2;
const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    malloc::configure();
    let folder = tempfile::tempdir()?;
    println!("file      start     peak      end       end - start");
    let mut worst = 0;
    for megabytes in [50, 100, 200, 500] {
        let file = folder.path().join(format!("{megabytes}.log"));
        support::write_text(&file, megabytes * 1_000_000)?;
        let seen = take_in(&file, &folder.path().join("store"))?;
        let stays = seen.end_bytes.saturating_sub(seen.start_bytes);
        worst = worst.max(stays);
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / MIB as f64);
        println!(
            "{:<9} {:<9} {:<9} {:<9} {}",
            format!("{megabytes} MB"),
            mib(seen.start_bytes),
            mib(seen.peak_bytes),
            mib(seen.end_bytes),
            mib(stays)
        );
    }
    if worst > 4 * MIB {
        return Err("more than 4 MiB stayed".into());
    }
    Ok(())
}

fn take_in(file: &Path, store: &Path) -> Result<MemorySeen, Box<dyn Error>> {
    let store = Store::open_or_create(
        store,
        Chunking::Content {
            average_bytes: 64 << 10,
        },
    )?;
    let method = pipeline::method(&store.format().chunking, store.root())?;
    let pool = Pool::new(WORKERS as u64 * pipeline::worker_buffer_bytes(&method));
    let limits = Limits::new(WORKERS);
    let settings = Settings {
        limit_bytes: 4 * MIB,
        long_pause: Duration::from_millis(5),
    };
    let known = Fingerprints::new(&store, settings, pool.account("fingerprints"));
    let options = Options {
        workers: WORKERS,
        level: 3,
        pack_bytes: 64 * MIB,
        reread: false,
    };
    let (stop, progress) = (Stop::default(), Progress::default());
    let input = Input::Path {
        path: file.to_owned(),
        name: None,
    };
    let walk = Walk::new(vec![input], store.root());
    let thresholds = Thresholds::new(800 * MIB, 1024 * MIB, 1200 * MIB, 1400 * MIB)?;
    let watch = Watch {
        controller: Controller::new(Rules {
            thresholds,
            measure: Measure::Rss,
            dwell: Dwell::default(),
            need_bytes: 0,
        }),
        probe: MemoryProbe::open(Path::new("/"), Measure::Rss),
        relief: Relief {
            pool: &pool,
            limits: &limits,
            workers: limits.workers(),
            known: Some(&known),
            database: store.database(),
        },
        idle: Duration::from_secs(5),
        display_every: Duration::from_secs(3600),
        around: None,
        live: None,
        timeline: None,
        recorder: None,
    };
    let patience = Patience::Unlimited;
    let run = daemon::run(watch, &stop, &progress, patience, &mut |_| {}, || {
        let report = |_| {};
        let taken = pipeline::take_in(
            &store, &pool, walk, &options, &known, &limits, &stop, &progress, &report,
        );
        taken.map_err(|error| error.to_string())
    })?;
    run.outcome?;
    Ok(run.memory)
}
