//! `cargo bench --bench contract`: the memory contract, measured on the built program under real limits.
//!
//! Control groups are made (as root; version 1 or 2, whichever is there), `filed` works in them, and one
//! table says what was seen, what it should be, and whether it is. It ends with an error if anything
//! that must hold on every machine did not: somebody killed, a wrong output, a run that did not finish.
//! What compares times or sizes only is printed; see `table`.
//!
//! | variable | |
//! |---|---|
//! | `CONTRACT_SCALE` | share of the full sizes, 0.05 unless given; 1 takes about 40 GB of disk |
//! | `CONTRACT_ROWS` | only these, of: matrix neighbour lowered returned streamed reading control reaction chunks |
//! | `CONTRACT_LIMITS` | MiB, of the matrix: only these of 24,32,64,128 |
//! | `CONTRACT_STRICT=1` | bounds on times and sizes fail too |
//! | `CONTRACT_REQUIRED=1` | fails where no groups can be made, instead of saying that it was skipped |
//! | `CONTRACT_FILED` | the program, if it is not where it was built |
//! | `TMPDIR` | where files are made: on a disk |

#[path = "../../bench-data/generator/mod.rs"]
#[allow(dead_code, unused_imports, reason = "made for a program of its own")]
mod generator;
#[path = "../job.rs"]
mod job;
#[path = "../support.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of it")]
mod support;

mod bench;
mod chunks;
mod control;
mod data;
mod group;
mod lasting;
mod lowered;
mod matrix;
mod neighbour;
mod reaction;
mod reading;
mod returned;
mod run;
mod streamed;
mod table;
mod trial;

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use bench::Bench;
use group::{Groups, Version};
use run::Fallible;
use table::{Row, Table, Verdict};

type Measure = fn(&Bench, &mut Table) -> Fallible<()>;

const ROWS: [(&str, Measure); 9] = [
    ("matrix", matrix::measure),
    ("neighbour", neighbour::measure),
    ("lowered", lowered::measure),
    ("returned", returned::measure),
    ("streamed", streamed::measure),
    ("reading", reading::measure),
    ("control", control::measure),
    ("reaction", reaction::measure),
    ("chunks", chunks::measure),
];

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let part = args.next().unwrap_or_default();
    let played = match part.to_str() {
        Some(run::ENTER) => Err(run::enter(args).into()),
        Some(neighbour::HOLD) => hold(args),
        Some(returned::BURST) => returned::burst(args),
        Some(returned::JOBS) => returned::jobs(args),
        Some(reaction::REACT) => reaction::react(args),
        // cargo passes --bench.
        _ => return measure(),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("contract: {error}");
    ExitCode::FAILURE
}

fn hold(mut args: impl Iterator<Item = std::ffi::OsString>) -> Fallible<()> {
    let usage = args.next().ok_or("the group's usage is needed")?;
    let mut bytes = || -> Fallible<u64> {
        let bytes = args.next().ok_or("a number of bytes is needed")?;
        Ok(bytes.to_str().ok_or("it is a number")?.parse()?)
    };
    neighbour::hold(Path::new(&usage), bytes()?, bytes()?)
}

fn measure() -> ExitCode {
    let groups = match Groups::find() {
        Ok(groups) => groups,
        Err(why) => {
            println!("SKIPPED: the memory contract was not measured: {why}");
            return match is_set("CONTRACT_REQUIRED") {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            };
        }
    };
    let bench = match Bench::new(groups) {
        Ok(bench) => bench,
        Err(error) => return fail(&*error),
    };
    let version = match bench.groups.version() {
        Version::V1 => 1,
        Version::V2 => 2,
    };
    let began = Instant::now();
    println!(
        "the memory contract, cgroup v{version}, scale {}",
        bench.scale
    );
    let worst = rows(&bench);
    println!("{:.0} s", began.elapsed().as_secs_f64());
    let fails = match worst {
        Ok(Verdict::Fail) => true,
        Ok(Verdict::Miss) => is_set("CONTRACT_STRICT"),
        Ok(Verdict::Noted | Verdict::Pass) => false,
        Err(error) => return fail(&*error),
    };
    match fails {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn rows(bench: &Bench) -> Fallible<Verdict> {
    let wanted = env::var("CONTRACT_ROWS").ok();
    let known = |name: &str| ROWS.iter().any(|(other, _)| *other == name);
    let names = wanted.as_deref().map(str::split_whitespace);
    if let Some(name) = names.into_iter().flatten().find(|name| !known(name)) {
        return Err(format!("CONTRACT_ROWS: there is no {name}").into());
    }
    let mut table = Table::begin();
    for (name, measure) in ROWS {
        let wants = |all: &String| all.split_whitespace().any(|one| one == name);
        if !wanted.as_ref().is_none_or(wants) {
            continue;
        }
        if let Err(error) = measure(bench, &mut table) {
            if bench.stopped() {
                return Err(error);
            }
            table.add(&Row::new(name).must(error, "measured", false));
        }
    }
    Ok(table.end())
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| value == "1")
}
