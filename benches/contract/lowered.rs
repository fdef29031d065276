//! A limit lowered from 256 to 32 MiB in the middle of a file: resident memory is below it within a
//! second, at least half of the speed is left, and the file is stored right.
//!
//! The work is done with many workers and a costly level, so that it holds far more than 32 MiB before.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::bench::{Bench, MIB, Scratch};
use crate::data::{Digests, Inputs};
use crate::group::{Group, Version};
use crate::lasting;
use crate::run::{End, Fallible, Running, start};
use crate::table::{Row, Table};
use crate::trial::{self, PATIENCE, process};

const HIGH_MIB: u64 = 256;
const LOW_MIB: u64 = 32;

/// Level 6 with 16 workers holds about 100 MiB; in 32 MiB there is room for three of them.
const FLAGS: [&str; 4] = ["--level", "6", "--workers", "16"];

/// Resident memory is looked at this often.
const EVERY: Duration = Duration::from_millis(10);

/// Who lowers the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The limit of the group that nobody is killed for. The hard one below what is held is refused
    /// (version 1) or killed for (version 2) by the kernel.
    Gentle,
    /// A new configuration, and SIGHUP.
    Configuration,
}

/// One look at filed.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    resident_bytes: u64,
    read_bytes: u64,
}

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    let inputs = lasting::inputs(bench, &FLAGS, lasting::seconds(bench))?;
    let expected = inputs.digests()?;
    let usual = undisturbed(bench, &inputs)?;
    for way in [Way::Gentle, Way::Configuration] {
        table.add(&lower(bench, &inputs, &expected, way, &usual)?);
    }
    Ok(())
}

/// The same work with nothing lowered: how its speed changes with the data.
fn undisturbed(bench: &Bench, inputs: &Inputs) -> Fallible<Vec<Look>> {
    let group = bench.group(Some(HIGH_MIB * MIB))?;
    let store = Scratch(bench.fresh("store"));
    let mut command = process(bench, &group, &store.0, inputs);
    inputs.cool()?;
    let mut looks = Vec::new();
    let running = start(bench, command.args(FLAGS))?;
    let run = running.watch(PATIENCE, EVERY, |running| looks.extend(look(running)))?;
    run.well()?;
    Ok(looks)
}

/// How filed is now; none once it has ended.
fn look(running: &Running<'_>) -> Option<Look> {
    let look = Look {
        at: running.elapsed(),
        resident_bytes: running.resident_bytes(),
        read_bytes: running.read_bytes(),
    };
    (look.resident_bytes > 0 && look.read_bytes > 0).then_some(look)
}

fn lower(
    bench: &Bench,
    inputs: &Inputs,
    expected: &Digests,
    way: Way,
    usual: &[Look],
) -> Fallible<Row> {
    let of_group = (way != Way::Configuration).then_some(HIGH_MIB * MIB);
    let group = bench.group(of_group)?;
    let configuration = Scratch(bench.fresh("filed.toml"));
    write_limit(&configuration.0, HIGH_MIB)?;
    let store = Scratch(bench.fresh("store"));
    let mut command = process(bench, &group, &store.0, inputs);
    command.args(FLAGS);
    if way == Way::Configuration {
        command.arg("--config").arg(&configuration.0);
    }
    inputs.cool()?;
    let looks = RefCell::new(Vec::<Look>::new());
    let lowered = RefCell::new(None::<Result<Duration, String>>);
    let is_held_up = way == Way::Gentle && bench.groups.version() == Version::V2;
    let patience = if is_held_up { PATIENCE / 3 } else { PATIENCE };
    let run = start(bench, &mut command)?.watch(patience, EVERY, |running| {
        let Some(look) = look(running) else { return };
        looks.borrow_mut().push(look);
        let mut lowered = lowered.borrow_mut();
        let again = !matches!(*lowered, Some(Ok(_)));
        if again && look.read_bytes > inputs.bytes() * 2 / 5 {
            let done = act(way, &group, &configuration.0, running);
            *lowered = Some(done.map(|()| look.at));
        }
    })?;
    let name = match way {
        Way::Gentle => group.gentle_limit().to_owned(),
        Way::Configuration => "configuration, SIGHUP".to_owned(),
    };
    let row = Row::new(format!("{HIGH_MIB} -> {LOW_MIB} MiB: {name}"));
    let kills = group.oom_kills()?;
    let mut story = run.story();
    let mut sound = run.end == End::Code(0);
    if sound {
        let free = bench.group(None)?;
        if let Some(wrong) = trial::restored_wrongly(bench, &free, &store.0, expected)? {
            (story, sound) = (wrong, false);
        }
    }
    let row = row.must(format!("{kills} kills"), "0", kills == 0);
    // A group far above its memory.high is held up by the kernel for up to two seconds at each charge,
    // whoever of it would give memory back included.
    let row = if is_held_up {
        row.should(story, "finished, file right", sound)
    } else {
        row.must(story, "finished, file right", sound)
    };
    Ok(match lowered.into_inner() {
        Some(Ok(at)) => judge(row, &looks.into_inner(), at, usual),
        Some(Err(why)) => row.must(format!("not lowered: {why}"), "lowered", false),
        None => row.must("not lowered", "lowered", false),
    })
}

fn act(way: Way, group: &Group, configuration: &Path, running: &Running<'_>) -> Result<(), String> {
    let done = match way {
        Way::Gentle => group.set_gentle_limit(LOW_MIB * MIB),
        Way::Configuration => write_limit(configuration, LOW_MIB),
    };
    if way == Way::Configuration {
        running.signal(Signal::HUP);
    }
    done.map_err(|error| error.to_string())
}

fn write_limit(configuration: &Path, mib: u64) -> std::io::Result<()> {
    // Put in place whole, as an editor does.
    let new = configuration.with_extension("new");
    fs::write(&new, format!("[memory]\nlimit = \"{mib} MiB\"\n"))?;
    fs::rename(new, configuration)
}

/// What the looks say about memory and speed before and after.
fn judge(row: Row, looks: &[Look], at: Duration, usual: &[Look]) -> Row {
    let low = LOW_MIB * MIB;
    let (before, after): (Vec<Look>, Vec<Look>) = looks.iter().partition(|look| look.at <= at);
    let held = before.last().map_or(0, |look| look.resident_bytes);
    let above = after.iter().rfind(|look| look.resident_bytes >= low);
    let took = above.map_or(Duration::ZERO, |look| look.at.saturating_sub(at));
    let second = Duration::from_secs(1);
    let later = after.iter().find(|look| look.at >= at + second);
    let later = later.map_or("?".to_owned(), |look| {
        (look.resident_bytes / MIB).to_string()
    });
    // Against the same parts of the file where nothing was lowered.
    let lowered_at = before.last().map_or(0, |look| look.read_bytes);
    let (usual_before, usual_after): (Vec<Look>, Vec<Look>) =
        usual.iter().partition(|look| look.read_bytes <= lowered_at);
    let usual = speed(&usual_after) / speed(&usual_before);
    let ratio = speed(&after) / speed(&before) / usual;
    // Otherwise there is nothing to give back.
    let row = row.should(
        format!("rss {} MiB", held / MIB),
        format!(">= {LOW_MIB} before"),
        held >= low,
    );
    row.should(
        format!(
            "after 1 s {later} MiB, above for {:.2} s",
            took.as_secs_f64()
        ),
        "<= 1 s",
        took <= second,
    )
    .should(
        format!("{ratio:.2} of speed before"),
        ">= 0.5",
        ratio >= 0.5,
    )
}

/// Bytes read in a second, from when reading had begun until it stopped.
fn speed(looks: &[Look]) -> f64 {
    // Before the first MiB it is the program that is read.
    let begin = looks.iter().find(|look| look.read_bytes > MIB);
    let most = looks.iter().map(|look| look.read_bytes).max().unwrap_or(0);
    let end = looks.iter().find(|look| look.read_bytes == most);
    match (begin, end) {
        (Some(begin), Some(end)) if end.at > begin.at => {
            (end.read_bytes - begin.read_bytes) as f64 / (end.at - begin.at).as_secs_f64()
        }
        _ => f64::NAN,
    }
}
