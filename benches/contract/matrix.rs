//! Limits against kinds of work: nobody is killed, and what is stored is what an unlimited run stores.
//!
//! Rounds of all limits take turns with unlimited ones, so that the ratio holds where the machine's
//! speed drifts.

use std::cell::Cell;
use std::env;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::bench::{Bench, GIB, MIB};
use crate::data::{Digests, Inputs, write_mixed};
use crate::run::{End, Fallible};
use crate::support::median;
use crate::table::{Row, Table};
use crate::trial::{self, Listing, PATIENCE};

const LIMITS_MIB: [u64; 4] = [24, 32, 64, 128];

/// From this limit on filed has to keep its speed.
const FULL_SPEED_MIB: u64 = 64;

/// The name of the file that is cut off while it is read.
const SHRINKING: &str = "b-shrinking";

/// What is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Big,
    Eight,
    Small,
    Truncated,
}

impl Work {
    fn name(self, inputs: &Inputs) -> String {
        let (files, mib) = (inputs.files().len(), inputs.bytes() / MIB);
        match self {
            Work::Big => format!("one file, {mib} MiB"),
            Work::Eight => format!("eight files, {mib} MiB"),
            Work::Small => format!("{files} small files"),
            Work::Truncated => format!("truncated while read, {mib} MiB"),
        }
    }

    fn inputs(self, bench: &Bench) -> Fallible<Inputs> {
        let folder = bench.fresh("inputs");
        let big = bench.scaled(4 * GIB, 16 * MIB);
        match self {
            Work::Big => Inputs::mixed(folder, &[("big", big, 1)]),
            Work::Eight => {
                let names: Vec<String> = (0..8).map(|number| format!("part-{number}")).collect();
                let seeds = names.iter().zip(1..);
                let files: Vec<_> = seeds
                    .map(|(name, seed)| (name.as_str(), big / 8, seed))
                    .collect();
                Inputs::mixed(folder, &files)
            }
            Work::Small => Inputs::small(folder, bench.scaled_count(10_000, 100)),
            Work::Truncated => Inputs::mixed(
                folder,
                &[
                    ("a-whole", 3 * MIB + 17, 2),
                    (SHRINKING, big, 3),
                    ("c-whole", 2 * MIB + 5, 4),
                ],
            ),
        }
    }
}

/// One run.
#[derive(Debug)]
struct Trial {
    wall: Duration,
    peak_bytes: u64,
    group_peak_bytes: Option<u64>,
    kills: u64,
    full: u64,
    listing: Listing,
    /// What is wrong with what came of it.
    wrong: Option<String>,
}

/// Whether a run's store is restored too, or only listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Listed,
    Restored,
}

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    for work in [Work::Big, Work::Eight, Work::Small, Work::Truncated] {
        let inputs = work.inputs(bench)?;
        let mut expected = inputs.digests()?;
        expected.retain(|name, _| !name.ends_with(SHRINKING));
        let chosen = chosen_mib()?.into_iter().map(Some);
        let limits: Vec<Option<u64>> = [None].into_iter().chain(chosen).collect();
        let mut trials: Vec<Vec<Trial>> = limits.iter().map(|_| Vec::new()).collect();
        // Where there is no speed to compare, one is enough.
        let rounds = match work {
            Work::Truncated => 1,
            _ => bench.rounds(),
        };
        for round in 0..rounds {
            let depth = match round {
                0 => Depth::Restored,
                _ => Depth::Listed,
            };
            for (limit, trials) in limits.iter().zip(&mut trials) {
                let limit = limit.map(|mib| mib * MIB);
                trials.push(run(bench, work, &inputs, &expected, limit, depth)?);
            }
        }
        for (limit, of_limit) in limits.iter().zip(&trials) {
            let what = limit.map_or("no limit".to_owned(), |mib| format!("{mib} MiB"));
            let row = Row::new(format!("{what}: {}", work.name(&inputs)));
            let row = soundness(row, of_limit, &trials[0][0].listing);
            table.add(&match limit {
                None => row.note(format!("{:.2} s", seconds(of_limit))),
                Some(mib) => speed(row, work, *mib, seconds(&trials[0]) / seconds(of_limit)),
            });
        }
    }
    Ok(())
}

/// The limits that are asked for.
fn chosen_mib() -> Fallible<Vec<u64>> {
    let Ok(asked) = env::var("CONTRACT_LIMITS") else {
        return Ok(LIMITS_MIB.to_vec());
    };
    let known = |limit: &str| {
        let mib = limit.trim().parse().ok();
        let mib = mib.filter(|mib| LIMITS_MIB.contains(mib));
        mib.ok_or_else(|| format!("CONTRACT_LIMITS: {limit:?} is none of {LIMITS_MIB:?}").into())
    };
    asked.split(',').map(known).collect()
}

fn run(
    bench: &Bench,
    work: Work,
    inputs: &Inputs,
    expected: &Digests,
    limit: Option<u64>,
    depth: Depth,
) -> Fallible<Trial> {
    let group = bench.group(limit)?;
    let shrinking = (work == Work::Truncated).then(|| inputs.folder().join(SHRINKING));
    let whole = bench.scaled(4 * GIB, 16 * MIB);
    if let Some(path) = &shrinking {
        write_mixed(path, whole, 3)?;
    }
    let cut = Cell::new(false);
    let taken = trial::take_in(bench, &group, inputs, PATIENCE, |running| {
        let Some(path) = &shrinking else { return };
        if !cut.get() && running.read_bytes() > whole / 3 {
            cut.set(shorten(path, whole / 16).is_ok());
        }
    })?;
    // Before anything is restored: that is held against nothing.
    let (group_peak_bytes, full) = (group.most_bytes(), group.times_full()?);
    let listing = trial::listing(bench, &taken.store.0)?;
    let mut wrong = match (shrinking.is_some(), taken.run.end) {
        (false, End::Code(0)) => None,
        (true, End::Code(3)) if cut.get() => None,
        (true, End::Code(0)) => Some("the file was not cut in time".to_owned()),
        _ => Some(taken.run.story()),
    };
    if wrong.is_none() && depth == Depth::Restored {
        wrong = trial::restored_wrongly(bench, &group, &taken.store.0, expected)?;
    }
    Ok(Trial {
        wall: taken.run.wall,
        peak_bytes: taken.run.peak_bytes,
        group_peak_bytes,
        kills: group.oom_kills()?,
        full,
        listing,
        wrong,
    })
}

fn shorten(path: &Path, bytes: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(bytes)
}

/// What must hold for every run.
fn soundness(row: Row, trials: &[Trial], free: &Listing) -> Row {
    let kills: u64 = trials.iter().map(|trial| trial.kills).sum();
    let wrong = trials.iter().find_map(|trial| {
        let differs = trial.listing != *free;
        let other = differs.then(|| "another catalog".to_owned());
        trial.wrong.clone().or(other)
    });
    let most = |bytes: fn(&Trial) -> Option<u64>| {
        let most = trials.iter().filter_map(bytes).max();
        most.map_or("?".to_owned(), |bytes| format!("{}", bytes / MIB))
    };
    let full: u64 = trials.iter().map(|trial| trial.full).sum();
    let held = wrong.is_none();
    row.must(format!("{kills} kills"), "0", kills == 0)
        .must(wrong.unwrap_or("same".to_owned()), "same", held)
        .note(format!(
            "rss {} of group {} MiB",
            most(|trial| Some(trial.peak_bytes)),
            most(|trial| trial.group_peak_bytes)
        ))
        .note(format!("full {full} x"))
}

fn speed(row: Row, work: Work, mib: u64, ratio: f64) -> Row {
    let measured = format!("{ratio:.2} of free speed");
    if mib >= FULL_SPEED_MIB && work != Work::Truncated {
        row.should(measured, ">= 0.8", ratio >= 0.8)
    } else {
        row.note(measured)
    }
}

fn seconds(trials: &[Trial]) -> f64 {
    let mut walls: Vec<f64> = trials
        .iter()
        .map(|trial| trial.wall.as_secs_f64())
        .collect();
    median(&mut walls)
}
