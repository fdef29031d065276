//! How soon something is given back when memory grows past the threshold: anonymous memory is written at
//! 1 GiB a second, in a process that is watched as a run is, with free buffers to give.
//!
//! The clock starts when what was there and what was written since reach the threshold, and ends when
//! the pool has returned its first byte, seen by the thread that writes.

use std::error::Error;
use std::ffi::OsString;
use std::hint::{black_box, spin_loop};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use filed::daemon::relief::Relief;
use filed::daemon::{self, Patience, Watch};
use filed::heap::{Pool, TakeError, malloc};
use filed::pipeline::{Limits, Progress, Stop};
use filed::pressure::level::Thresholds;
use filed::pressure::mode::Rules;
use filed::store::Store;
use filed::store::format::Chunking;

use crate::bench::{Bench, GIB, MIB, Scratch};
use crate::run::{Fallible, command_in, finish, resident_bytes};
use crate::table::{Row, Table};
use crate::trial::PATIENCE;

/// The argument that makes this program [`react`].
pub(crate) const REACT: &str = "--react";

/// Memory is written in steps of this length.
const STEP_BYTES: usize = 256 << 10;

/// Free buffers to give back.
const FREE_BYTES: usize = 8 << 20;

/// Of this length each.
const BUFFER_BYTES: usize = 1 << 20;

/// Written past the threshold at most: a second's worth.
const PAST_BYTES: u64 = GIB;

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    for (what, busy, bound_ms) in [("idle", 0, 25.0), ("both cores busy", 2, 100.0)] {
        let group = bench.group(None)?;
        let store = Scratch(bench.fresh("store"));
        let mut command = command_in(bench, &group, bench.me());
        command.arg(REACT).arg(&store.0).arg(busy.to_string());
        command.arg(bench.scaled_count(200, 40).to_string());
        let run = finish(bench, &mut command, 5 * PATIENCE)?.well()?;
        let mut times: Vec<f64> = run
            .stdout
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get(((times.len() as f64 * share).ceil() as usize).max(1) - 1);
        let (Some(median), Some(p99)) = (at(0.5), at(0.99)) else {
            return Err("nothing was measured".into());
        };
        let row = Row::new(format!("threshold crossed to first byte back, {what}"));
        table.add(
            &row.note(format!("median {median:.1} ms of {}", times.len()))
                .should(
                    format!("p99 {p99:.1} ms"),
                    format!("<= {bound_ms} ms"),
                    *p99 <= bound_ms,
                ),
        );
    }
    Ok(())
}

/// Grows past the threshold again and again beside so many threads that keep cores busy; prints how
/// long each answer took, in milliseconds.
pub(crate) fn react(args: impl Iterator<Item = OsString>) -> Fallible<()> {
    malloc::configure();
    let mut args = args.map(PathBuf::from);
    let store = args.next().ok_or("a store is needed")?;
    let mut number = || -> Fallible<u64> {
        let number = args.next().ok_or("a number is needed")?;
        Ok(number.to_str().ok_or("it is a number")?.parse()?)
    };
    let (busy, trials) = (number()?, number()?);
    let store = Store::open_or_create(&store, Chunking::Fixed)?;
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..busy {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    spin_loop();
                }
            });
        }
        let outcome = (0..trials).try_for_each(|trial| {
            println!("{:.3}", one(&store, trial)?.as_secs_f64() * 1e3);
            Ok(())
        });
        enough.store(true, Ordering::Relaxed);
        outcome
    })
}

fn one(store: &Store, trial: u64) -> Result<Duration, Box<dyn Error>> {
    let pool = Pool::new(FREE_BYTES as u64 * 2);
    let limits = Limits::new(2);
    let account = pool.account("free");
    let buffers = (0..FREE_BYTES / BUFFER_BYTES).map(|_| {
        let mut buffer = account.take(BUFFER_BYTES)?;
        buffer.fill(0xa5);
        Ok::<_, TakeError>(buffer)
    });
    drop(buffers.collect::<Result<Vec<_>, _>>()?);
    // From right before the threshold to far from it.
    let base = resident_bytes("self");
    let threshold = base + 4 * MIB + trial * 7919 % 97 * MIB;
    let rules = Rules::of_resident(Thresholds::new(
        threshold - MIB,
        threshold,
        threshold + GIB,
        2 * threshold + 2 * GIB,
    )?);
    let relief = Relief::new(&pool, &limits, None, store.database());
    let watch = Watch::new(rules, relief);
    let patience = Patience::Unlimited;
    let (stop, progress) = (Stop::default(), Progress::default());
    let run = daemon::run(watch, &stop, &progress, patience, &mut |_| {}, || {
        sleep(Duration::from_millis(100 + trial * 31 % 200));
        grow(&pool, threshold)
    })?;
    run.outcome.ok_or_else(|| "nothing came back".into())
}

/// Writes 1 GiB a second until the pool has given something back after `threshold` was reached.
fn grow(pool: &Pool, threshold: u64) -> Option<Duration> {
    let mut held: Vec<Vec<u8>> = Vec::new();
    let before = resident_bytes("self");
    let returned = pool.stats().returned_bytes;
    let began = Instant::now();
    let mut crossed = None;
    let mut grown = 0_u64;
    while grown < threshold.saturating_sub(before) + PAST_BYTES {
        held.push(vec![0xa5; STEP_BYTES]);
        grown += STEP_BYTES as u64;
        if crossed.is_none() && before + grown >= threshold {
            crossed = Some(Instant::now());
        }
        let due = Duration::from_nanos(grown * 1_000_000_000 / GIB);
        loop {
            if pool.stats().returned_bytes > returned {
                let crossed = crossed.unwrap_or_else(Instant::now);
                black_box(&held);
                return Some(crossed.elapsed());
            }
            if began.elapsed() >= due {
                break;
            }
            sleep(Duration::from_micros(50));
        }
    }
    None
}
