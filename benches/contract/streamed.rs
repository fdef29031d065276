//! A very large file streamed: it leaves little page cache behind, and takes no more memory than a
//! smaller one.
//!
//! The group has no limit, so that whatever is left in it was left by filed and thrown out by nobody:
//! pages of the file, of the store and of the database together.

use std::thread::sleep;
use std::time::Duration;

use crate::bench::{Bench, GIB, MIB};
use crate::data::Inputs;
use crate::run::{End, Fallible};
use crate::table::{Row, Table};
use crate::trial::{self, PATIENCE};

const LARGE_BYTES: u64 = 100 * GIB;
const SMALL_BYTES: u64 = GIB;

/// The large one is at least so many times the small one, where the scale is low.
const TIMES: u64 = 4;

/// Page cache that may be left.
const LEFT_BYTES: u64 = 16 * MIB;

/// Peaks of two runs of the same thing differ by so much.
const SAME_BYTES: u64 = 2 * MIB;

/// What the cache of known pieces may hold, which a short file does not fill.
const CACHE_BYTES: u64 = 4 * MIB;

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    let large = bench.scaled(LARGE_BYTES, 256 * MIB);
    let small = SMALL_BYTES.min(large / TIMES);
    let (row, peak) = stream(bench, small, None)?;
    table.add(&row);
    let (row, _) = stream(bench, large, Some(peak))?;
    table.add(&row);
    Ok(())
}

fn stream(bench: &Bench, bytes: u64, as_for: Option<u64>) -> Fallible<(Row, u64)> {
    let inputs = Inputs::sparse(bench.fresh("inputs"), bytes)?;
    let group = bench.group(None)?;
    let taken = trial::take_in(bench, &group, &inputs, 5 * PATIENCE, |_| {})?;
    // The kernel adds its counters up every two seconds.
    sleep(Duration::from_millis(2100));
    let left = group.cache_bytes()?;
    let peak = taken.run.peak_bytes;
    let finished = taken.run.end == End::Code(0);
    let row = Row::new(format!("sparse file of {} MiB", bytes / MIB))
        .must(taken.run.story(), "finished", finished)
        .should(
            format!("{:.1} MiB of cache left", left as f64 / MIB as f64),
            "<= 16 MiB",
            left <= LEFT_BYTES,
        );
    // What was dropped only at the end shows here.
    let row = match group.most_bytes() {
        Some(most) => row.note(format!("group at most {} MiB", most / MIB)),
        None => row,
    };
    let measured = format!("peak rss {:.1} MiB", peak as f64 / MIB as f64);
    let row = match as_for {
        None => row.note(measured),
        Some(small) => row.should(
            measured,
            "as the smaller's, + 2 MiB, + the piece cache's 4 MiB",
            peak <= small + SAME_BYTES + CACHE_BYTES,
        ),
    };
    Ok((row, peak))
}
