//! Memory given back: after a burst of large files, and over many jobs in one process.
//!
//! A program that has ended holds nothing, so this drives the library. It does so in a process of its
//! own, for the memory of this one is not filed's.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use filed::heap::malloc;

use crate::bench::{Bench, MIB, Scratch};
use crate::data::Inputs;
use crate::job;
use crate::run::{End, Fallible, command_in, finish, resident_bytes};
use crate::table::{Row, Table};
use crate::trial::{self, PATIENCE};

/// The argument that makes this program take in a [`burst`].
pub(crate) const BURST: &str = "--burst";

/// The argument that makes this program do [`jobs`].
pub(crate) const JOBS: &str = "--jobs";

const FILES: u64 = 10;
const FILE_BYTES: u64 = 500_000_000;

/// Idle again: so long after the last file.
const CALM: Duration = Duration::from_secs(5);

/// Resident memory may be this much more than when it was idle before.
const STAYS_BYTES: u64 = 4 * MIB;

/// A slope below this is none: a page in 64 jobs.
const FLAT_BYTES: f64 = 64.0;

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    let inputs = burst_inputs(bench)?;
    table.add(&burst_row(bench, &inputs)?);
    table.add(&program_row(bench, &inputs)?);
    drop(inputs);
    table.add(&jobs_row(bench)?);
    Ok(())
}

fn burst_inputs(bench: &Bench) -> Fallible<Inputs> {
    let bytes = bench.scaled(FILE_BYTES, 4 * MIB);
    let names: Vec<String> = (0..FILES).map(|number| format!("burst-{number}")).collect();
    let seeds = names.iter().zip(10..);
    let files: Vec<_> = seeds
        .map(|(name, seed)| (name.as_str(), bytes, seed))
        .collect();
    Inputs::mixed(bench.fresh("inputs"), &files)
}

fn burst_row(bench: &Bench, inputs: &Inputs) -> Fallible<Row> {
    let group = bench.group(None)?;
    let store = Scratch(bench.fresh("store"));
    let mut command = command_in(bench, &group, bench.me());
    command.arg(BURST).arg(&store.0).args(inputs.files());
    let run = finish(bench, &mut command, 5 * PATIENCE)?.well()?;
    let numbers: Vec<u64> = run.stdout.lines().flat_map(str::parse).collect();
    let [idle, peak, after] = numbers[..] else {
        return Err("the burst did not say three numbers".into());
    };
    let megabytes = inputs.bytes() / FILES / 1_000_000;
    Ok(
        Row::new(format!("{FILES} files of {megabytes} MB, idle 5 s"))
            .note(format!("rss {}, peak {}", mib(idle), mib(peak)))
            .should(
                format!("then {} MiB", mib(after)),
                "within 4 MiB of idle",
                after <= idle + STAYS_BYTES,
            ),
    )
}

fn program_row(bench: &Bench, inputs: &Inputs) -> Fallible<Row> {
    let group = bench.group(None)?;
    let taken = trial::take_in(bench, &group, inputs, 5 * PATIENCE, |_| {})?;
    let row = Row::new("the same with the program, at its end");
    if taken.run.end != End::Code(0) {
        return Ok(row.must(taken.run.story(), "finished", false));
    }
    let summary = taken.summary()?;
    let [start, peak, end] =
        ["rss_start", "rss_peak", "rss_end"].map(|key| summary[key].as_u64().unwrap_or(0));
    Ok(row
        .note(format!("rss {}, peak {}", mib(start), mib(peak)))
        .should(
            format!("then {} MiB", mib(end)),
            "within 4 MiB of the start",
            end <= start + STAYS_BYTES,
        ))
}

fn jobs_row(bench: &Bench) -> Fallible<Row> {
    let count = 1000;
    let inputs = Inputs::small(bench.fresh("inputs"), count)?;
    let group = bench.group(None)?;
    let store = Scratch(bench.fresh("store"));
    let mut command = command_in(bench, &group, bench.me());
    command.arg(JOBS).arg(&store.0).args(inputs.files());
    let run = finish(bench, &mut command, 5 * PATIENCE)?.well()?;
    let lines = run.stdout.lines().filter_map(|line| line.split_once(' '));
    let numbers = lines.filter_map(|(resident, threads)| {
        let resident: f64 = resident.parse().ok()?;
        Some((resident, threads.parse::<u64>().ok()?))
    });
    let (resident, threads): (Vec<f64>, Vec<u64>) = numbers.unzip();
    if resident.len() as u64 != count {
        return Err(format!("{count} jobs, but {} numbers", resident.len()).into());
    }
    // The first ones touch what all of them use.
    let settled = &resident[resident.len() * 4 / 10..];
    let slope = slope(settled);
    Ok(Row::new(format!("{count} jobs in one process"))
        .note(format!(
            "rss {} -> {} MiB",
            mib(settled[0] as u64),
            mib(settled[settled.len() - 1] as u64)
        ))
        .should(
            format!("slope {slope:.0} bytes a job"),
            "0 (below 64)",
            slope < FLAT_BYTES,
        )
        .note(format!(
            "threads {} -> {}",
            threads[0],
            threads[threads.len() - 1]
        )))
}

/// The slope of the line that fits these numbers best.
fn slope(numbers: &[f64]) -> f64 {
    let count = numbers.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = numbers.iter().sum::<f64>() / count;
    let (mut along, mut squares) = (0.0, 0.0);
    for (at, number) in numbers.iter().enumerate() {
        let off = at as f64 - middle;
        along += off * (number - mean);
        squares += off * off;
    }
    along / squares
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB as f64)
}

/// Takes all files in at once; prints resident memory before, at its peak, and after a calm.
pub(crate) fn burst(args: impl Iterator<Item = OsString>) -> Fallible<()> {
    malloc::configure();
    let (store, files) = store_and_files(args)?;
    println!("{}", own_resident_bytes());
    let seen = job::take_in(&files, &store)?;
    println!("{}", seen.peak_bytes);
    sleep(CALM);
    println!("{}", own_resident_bytes());
    Ok(())
}

/// Takes each file in by itself; prints resident memory and the number of threads after each.
pub(crate) fn jobs(args: impl Iterator<Item = OsString>) -> Fallible<()> {
    malloc::configure();
    let (store, files) = store_and_files(args)?;
    for file in files {
        job::take_in(&[file], &store)?;
        let threads = fs::read_dir("/proc/self/task")?.count();
        println!("{} {threads}", own_resident_bytes());
    }
    Ok(())
}

fn store_and_files(args: impl Iterator<Item = OsString>) -> Fallible<(PathBuf, Vec<PathBuf>)> {
    let mut args = args.map(PathBuf::from);
    let store = args.next().ok_or("a store and files are needed")?;
    Ok((store, args.collect()))
}

fn own_resident_bytes() -> u64 {
    resident_bytes("self")
}
