//! What relief costs a chunk: how long chunks take in aggressive mode, where memory is given back again
//! and again, against normal mode.

use std::fs;

use crate::bench::{Bench, Scratch};
use crate::data::Inputs;
use crate::lasting;
use crate::run::{End, Fallible, finish};
use crate::support::median;
use crate::table::{Row, Table};
use crate::trial::{PATIENCE, process};

/// So low that filed is above it from soon after its start, and far below critical: half-way from it to
/// a large limit.
const AGGRESSIVE: [(&str, &str); 2] = [
    ("FILED_MEMORY__THRESHOLD", "4MiB"),
    ("FILED_MEMORY__LIMIT", "1GiB"),
];

/// Pairs of which the medians are taken.
const PAIRS: usize = 5;

/// Milliseconds.
struct Chunks {
    p99: f64,
    slowest: f64,
    /// The longest that one step of relief took: no chunk can have waited longer for it.
    relief: f64,
    seconds: f64,
}

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    let inputs = lasting::inputs(bench, &[], lasting::seconds(bench))?;
    let (mut normal, mut aggressive) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        normal.push(run(bench, &inputs, &[])?);
        aggressive.push(run(bench, &inputs, &AGGRESSIVE)?);
    }
    let of = |runs: &[Chunks], what: fn(&Chunks) -> f64| {
        median(&mut runs.iter().map(what).collect::<Vec<_>>())
    };
    let p99 = |runs: &[Chunks]| of(runs, |chunks| chunks.p99);
    let slowest = |runs: &[Chunks]| of(runs, |chunks| chunks.slowest);
    let ratio = p99(&aggressive) / p99(&normal);
    let longer = slowest(&aggressive) - slowest(&normal);
    let relief = aggressive.iter().map(|chunks| chunks.relief);
    let relief = relief.fold(0.0, f64::max);
    let speed = of(&normal, |chunks| chunks.seconds) / of(&aggressive, |chunks| chunks.seconds);
    let row = Row::new("chunks in aggressive mode")
        .should(
            format!(
                "p99 {:.1} ms, {ratio:.2} x {:.1} in normal",
                p99(&aggressive),
                p99(&normal)
            ),
            "<= 2 x",
            ratio <= 2.0,
        )
        .should(
            format!("a trim took {relief:.2} ms at most"),
            "<= 2 ms",
            relief <= 2.0,
        )
        .note(format!("the slowest {longer:+.1} ms"))
        .note(format!("{speed:.2} of normal speed"));
    table.add(&row);
    Ok(())
}

fn run(bench: &Bench, inputs: &Inputs, variables: &[(&str, &str)]) -> Fallible<Chunks> {
    let group = bench.group(None)?;
    let store = Scratch(bench.fresh("store"));
    let mut command = process(bench, &group, &store.0, inputs);
    command.envs(variables.iter().copied());
    let report = Scratch(bench.fresh("report.json"));
    command.arg("--report").arg(&report.0);
    inputs.cool()?;
    let run = finish(bench, &mut command, PATIENCE)?;
    if run.end != End::Code(0) {
        return Err(run.story().into());
    }
    let last = run.stdout.lines().last().ok_or("filed printed nothing")?;
    let summary: serde_json::Value = serde_json::from_str(last)?;
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report.0)?)?;
    let marks = report["timeline"]["marks"].as_array();
    let trims = marks.into_iter().flatten().filter(|mark| {
        let what = mark["what"].as_str().unwrap_or_default();
        ["trim", "malloc_trim", "database_shrunk"].contains(&what)
    });
    // The last ones are those at the end, when no chunk is left.
    let relief = trims.filter_map(|mark| {
        let before_end = mark["at_seconds"].as_f64()? < report["summary"]["seconds"].as_f64()?;
        before_end.then(|| mark["took_seconds"].as_f64())?
    });
    let of = |key: &str| summary[key].as_f64().ok_or("the summary has no times");
    Ok(Chunks {
        p99: of("chunk_p99_us")? / 1e3,
        slowest: of("chunk_max_us")? / 1e3,
        relief: relief.fold(0.0, f64::max) * 1e3,
        seconds: of("seconds")?,
    })
}
