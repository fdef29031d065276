//! Dropping the page cache behind the reader, against leaving it: what it costs in time.
//!
//! filed leaves what it finds in the page cache when it opens a file. So for a plain run the file is
//! all there at that moment and dropped before it is read: filed is stopped as soon as it has the file
//! open, and goes on afterwards. The other runs are stopped too, with a file that was cold before. What
//! is in the page cache at the end tells whether the trick worked.
//!
//! The data is known to the store, so that reading is a large share of the work.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::bench::{Bench, GIB, MIB, Scratch};
use crate::data::{Inputs, cool};
use crate::run::{End, Fallible, Running, start};
use crate::support::median;
use crate::table::{Row, Table};
use crate::trial::{PATIENCE, process};

/// Pairs of which the median ratio is taken.
const PAIRS: usize = 5;

/// The trick is tried this often for one run.
const TRIES: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    Dropped,
    Left,
}

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    let bytes = bench.scaled(4 * GIB, 32 * MIB);
    let inputs = Inputs::mixed(bench.fresh("inputs"), &[("big", bytes, 1)])?;
    let store = Scratch(bench.fresh("store"));
    let group = bench.group(None)?;
    let mut command = process(bench, &group, &store.0, &inputs);
    crate::run::finish(bench, &mut command, 5 * PATIENCE)?.well()?;
    let row = Row::new(format!("drop-behind on {} MiB", bytes / MIB));
    let mut ratios = Vec::new();
    let mut left = 0;
    for _ in 0..PAIRS {
        let plain = read(bench, &inputs, &store.0, Behind::Left)?;
        let dropping = read(bench, &inputs, &store.0, Behind::Dropped)?;
        let (Some(plain), Some(dropping)) = (plain, dropping) else {
            table.add(&row.should("could not be told apart", "measured", false));
            return Ok(());
        };
        ratios.push(plain.0.as_secs_f64() / dropping.0.as_secs_f64());
        left = dropping.1.max(left);
    }
    let ratio = median(&mut ratios);
    table.add(
        &row.should(
            format!("{ratio:.2} of plain reading (median of {PAIRS})"),
            ">= 0.95",
            ratio >= 0.95,
        )
        .note(format!("{} MiB of cache left", left / MIB)),
    );
    Ok(())
}

/// Takes the file in again: how long it took from when it was open, and the page cache at the end.
fn read(
    bench: &Bench,
    inputs: &Inputs,
    store: &Path,
    behind: Behind,
) -> Fallible<Option<(Duration, u64)>> {
    let file = &inputs.files()[0];
    for _ in 0..TRIES {
        let group = bench.group(None)?;
        let mut command = process(bench, &group, store, inputs);
        command.arg("--reread");
        inputs.cool()?;
        if behind == Behind::Left {
            std::io::copy(&mut fs::File::open(file)?, &mut std::io::sink())?;
        }
        let opened = Cell::new(None);
        let running = start(bench, &mut command)?;
        let run = running.watch(PATIENCE, Duration::from_millis(1), |running| {
            if opened.get().is_none() {
                opened.set(hold_at_open(running, file));
            }
        })?;
        if run.end != End::Code(0) {
            return Err(run.story().into());
        }
        let Some(opened) = opened.get() else { continue };
        let left = group.cache_bytes()?;
        let expected = match behind {
            Behind::Left => left > inputs.bytes() * 3 / 4,
            Behind::Dropped => left < inputs.bytes() * 3 / 4,
        };
        if expected {
            return Ok(Some((run.wall.saturating_sub(opened), left)));
        }
    }
    Ok(None)
}

/// Waits until it has the file open, drops the file's pages while it is stopped, and gives when it went
/// on.
fn hold_at_open(running: &Running<'_>, file: &Path) -> Option<Duration> {
    let descriptors = format!("/proc/{}/fd", running.pid());
    for _ in 0..10_000 {
        let open = fs::read_dir(&descriptors)
            .ok()?
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file));
        if open {
            running.signal(Signal::STOP);
            // It may still be in a system call.
            sleep(Duration::from_millis(2));
            let cooled = cool(file);
            running.signal(Signal::CONT);
            return cooled.ok().map(|()| running.elapsed());
        }
        sleep(Duration::from_micros(50));
    }
    None
}
