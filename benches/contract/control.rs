//! What sensing and deciding cost: processor time of the threads that are not the data plane's, while
//! filed is busy, in normal and in critical mode.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::bench::{Bench, Scratch};
use crate::data::Inputs;
use crate::lasting;
use crate::run::{End, Fallible, start};
use crate::table::{Row, Table};
use crate::trial::{PATIENCE, process};

/// Threads of the data plane; all others sense, decide or listen.
const DATA_PLANE: [&str; 2] = ["filed-work", "filed-cache"];

/// Memory where filed is critical from soon after its start: the mode begins half-way from the threshold
/// to the limit.
const CRITICAL: [&str; 2] = ["--memory", "20M"];
const LOW_THRESHOLD: (&str, &str) = ("FILED_MEMORY__THRESHOLD", "1M");

/// What comes before this belongs to the start.
const SETTLED: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Normal,
    Critical,
}

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    let inputs = lasting::inputs(bench, &[], lasting::seconds(bench))?;
    for mode in [Mode::Normal, Mode::Critical] {
        table.add(&share(bench, &inputs, mode)?);
    }
    Ok(())
}

/// Processor time of each thread that is not the data plane's.
type Threads = BTreeMap<OsString, Duration>;

fn share(bench: &Bench, inputs: &Inputs, mode: Mode) -> Fallible<Row> {
    let group = bench.group(None)?;
    let store = Scratch(bench.fresh("store"));
    let mut command = process(bench, &group, &store.0, inputs);
    command.args(["--log", "info"]);
    if mode == Mode::Critical {
        command.args(CRITICAL).env(LOW_THRESHOLD.0, LOW_THRESHOLD.1);
    }
    inputs.cool()?;
    let looks = RefCell::new(Vec::<(Duration, Threads)>::new());
    let running = start(bench, &mut command)?;
    let run = running.watch(PATIENCE, Duration::from_millis(100), |running| {
        if running.elapsed() > SETTLED {
            let threads = threads(running.pid());
            if !threads.is_empty() {
                looks.borrow_mut().push((running.elapsed(), threads));
            }
        }
    })?;
    let (name, bound, percent) = match mode {
        Mode::Normal => ("control in normal mode", "<= 0.1 % of a core", 0.1),
        Mode::Critical => ("control in critical mode", "<= 0.5 % of a core", 0.5),
    };
    let row = Row::new(name).must(run.story(), "finished", run.end == End::Code(0));
    let last_mode = run
        .stderr
        .lines()
        .rev()
        .find_map(mode_of)
        .unwrap_or("normal");
    let wanted = match mode {
        Mode::Normal => "normal",
        Mode::Critical => "critical",
    };
    let row = row.should(format!("ended {last_mode}"), wanted, last_mode == wanted);
    let looks = looks.into_inner();
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return Ok(row.should("too short to tell", bound, false));
    };
    let wall = last.0.saturating_sub(first.0);
    let mut busy = Duration::ZERO;
    for (thread, after) in &last.1 {
        let before = first.1.get(thread).copied().unwrap_or_default();
        busy += after.saturating_sub(before);
    }
    let share = 100.0 * busy.as_secs_f64() / wall.as_secs_f64();
    Ok(row
        .should(format!("{share:.2} %"), bound, share <= percent)
        .note(format!("over {:.1} s", wall.as_secs_f64())))
}

/// The mode that a line of the log says filed went to.
fn mode_of(line: &str) -> Option<&str> {
    let (_, after) = line.split_once(" to=")?;
    let end = after.find(|letter: char| !letter.is_alphanumeric());
    line.contains("mode changed")
        .then_some(&after[..end.unwrap_or(after.len())])
}

fn threads(pid: u32) -> Threads {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = entries.into_iter().flatten().flatten().filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        if DATA_PLANE.contains(&name.trim()) {
            return None;
        }
        Some((entry.file_name(), processor_time(&entry.path())?))
    });
    threads.collect()
}

/// In nanoseconds where the kernel keeps them, else in its ticks of 10 ms.
fn processor_time(thread: &Path) -> Option<Duration> {
    if let Ok(text) = fs::read_to_string(thread.join("schedstat"))
        && let Some(nanoseconds) = text.split(' ').next()?.parse().ok()
        && nanoseconds > 0
    {
        return Some(Duration::from_nanos(nanoseconds));
    }
    let text = fs::read_to_string(thread.join("stat")).ok()?;
    // The name may have spaces in it; behind its bracket come 11 fields, then the two times.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}
