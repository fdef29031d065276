//! A file that keeps filed busy for a known time on this machine, so that something can happen in the
//! middle of it.

use std::time::Duration;

use crate::bench::Scratch;
use crate::bench::{Bench, GIB, MIB};
use crate::data::Inputs;
use crate::run::{Fallible, start};
use crate::trial::{PATIENCE, process};

/// Makes a file that `filed process` with these flags works on for about `seconds`.
pub(crate) fn inputs(bench: &Bench, flags: &[&str], seconds: f64) -> Fallible<Inputs> {
    let probe_bytes = bench.scaled(GIB, 16 * MIB);
    let probe = Inputs::mixed(bench.fresh("probe"), &[("probe", probe_bytes, 5)])?;
    let group = bench.group(None)?;
    let store = Scratch(bench.fresh("store"));
    let mut command = process(bench, &group, &store.0, &probe);
    let running = start(bench, command.args(flags))?;
    let run = running
        .watch(PATIENCE, Duration::from_millis(4), |_| {})?
        .well()?;
    let speed = probe_bytes as f64 / run.wall.as_secs_f64();
    let bytes = ((speed * seconds) as u64).clamp(64 * MIB, 16 * GIB);
    Inputs::mixed(bench.fresh("inputs"), &[("lasting", bytes, 5)])
}

/// How long such a file lasts: a few seconds, and more where there is time.
pub(crate) fn seconds(bench: &Bench) -> f64 {
    4.0 + 16.0 * bench.scale
}
