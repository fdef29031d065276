//! A neighbour in the group that leaves filed little: it is never killed, and filed either finishes or
//! says clearly that it cannot.
//!
//! Whoever is killed in a full group is whoever holds the most: that is the neighbour, for what filed
//! took. Either it is there first, and leaves filed so much for everything; or it grows while filed
//! works, until so much is left around both of them.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use filed::pressure::probe::group::GroupProbe;

use crate::bench::{Bench, GIB, MIB};
use crate::data::{Digests, Inputs};
use crate::group::Group;
use crate::run::{End, Fallible, command_in};
use crate::support::median;
use crate::table::{Row, Table};
use crate::trial::{self, PATIENCE, Taken};

/// The argument that makes this program [`hold`] memory.
pub(crate) const HOLD: &str = "--hold";

/// The group's limit.
const LIMIT_MIB: u64 = 64;

/// What the neighbour leaves of it.
const LEFT_MIB: [u64; 4] = [32, 16, 8, 4];

/// The neighbour grows by this much at a time.
const STEP_BYTES: usize = 128 << 10;

/// When the neighbour takes what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// Before filed starts.
    Before,
    /// When filed has read a quarter.
    Meanwhile,
}

pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Fallible<()> {
    let bytes = bench.scaled(4 * GIB, 16 * MIB);
    let inputs = Inputs::mixed(bench.fresh("inputs"), &[("big", bytes, 1)])?;
    let expected = inputs.digests()?;
    let mut free = Vec::new();
    let cases: Vec<(When, u64)> = [When::Before, When::Meanwhile]
        .into_iter()
        .flat_map(|when| LEFT_MIB.map(|left| (when, left)))
        .collect();
    let mut beside: Vec<Vec<Beside>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..bench.rounds() {
        let alone = bench.group(Some(LIMIT_MIB * MIB))?;
        let run = trial::take_in(bench, &alone, &inputs, PATIENCE, |_| {})?.run;
        free.push(run.well()?.wall.as_secs_f64());
        for (case, rounds) in cases.iter().zip(&mut beside) {
            rounds.push(run_beside(bench, &inputs, &expected, *case)?);
        }
    }
    let free = median(&mut free);
    let row = Row::new(format!("alone in {LIMIT_MIB} MiB: {} MiB", bytes / MIB));
    table.add(&row.note(format!("{free:.2} s")));
    for (case, rounds) in cases.into_iter().zip(&beside) {
        table.add(&row_of(case, rounds, free));
    }
    Ok(())
}

/// How a run beside the neighbour went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Finished,
    Refused,
    Bad,
}

/// A run beside the neighbour.
#[derive(Debug)]
struct Beside {
    fate: Fate,
    story: String,
    seconds: f64,
    peak_bytes: u64,
    neighbour_alive: bool,
    kills: u64,
    full: u64,
}

fn run_beside(
    bench: &Bench,
    inputs: &Inputs,
    expected: &Digests,
    (when, left_mib): (When, u64),
) -> Fallible<Beside> {
    let group = bench.group(Some(LIMIT_MIB * MIB))?;
    let first_bytes = match when {
        When::Before => (LIMIT_MIB - left_mib) * MIB,
        When::Meanwhile => MIB,
    };
    let mut neighbour = Neighbour::start(bench, &group, first_bytes, left_mib * MIB)?;
    let mut grows = when == When::Meanwhile;
    let taken = trial::take_in(bench, &group, inputs, PATIENCE, |running| {
        if grows && running.read_bytes() > inputs.bytes() / 4 {
            grows = false;
            neighbour.grow();
        }
    })?;
    let neighbour_alive = neighbour.is_alive();
    let (kills, full) = (group.oom_kills()?, group.times_full()?);
    let (fate, story) = match refusal(&taken) {
        Some(why) => (Fate::Refused, format!("refused: {why}")),
        None if taken.run.end == End::Code(0) => {
            // In a group of its own: this is about what was stored.
            let free = bench.group(None)?;
            match trial::restored_wrongly(bench, &free, &taken.store.0, expected)? {
                None => (Fate::Finished, "finished".to_owned()),
                Some(wrong) => (Fate::Bad, wrong),
            }
        }
        None => (Fate::Bad, taken.run.story()),
    };
    Ok(Beside {
        fate,
        story,
        seconds: taken.run.wall.as_secs_f64(),
        peak_bytes: taken.run.peak_bytes,
        neighbour_alive,
        kills,
        full,
    })
}

fn row_of((when, left_mib): (When, u64), rounds: &[Beside], free: f64) -> Row {
    let alive = rounds.iter().all(|round| round.neighbour_alive);
    let kills: u64 = rounds.iter().map(|round| round.kills).sum();
    let full: u64 = rounds.iter().map(|round| round.full).sum();
    let peak = rounds
        .iter()
        .map(|round| round.peak_bytes)
        .max()
        .unwrap_or(0);
    let of_fate = |fate| rounds.iter().find(|round| round.fate == fate);
    let worst = of_fate(Fate::Bad)
        .or(of_fate(Fate::Refused))
        .or(rounds.first());
    let (fate, story) = worst.map_or((Fate::Bad, "never run"), |one| (one.fate, &one.story));
    let what = match when {
        When::Before => format!("neighbour leaves {left_mib} MiB for all of filed"),
        When::Meanwhile => format!("neighbour grows until {left_mib} MiB are left"),
    };
    let row = Row::new(what)
        .must(
            format!("neighbour {}", if alive { "alive" } else { "killed" }),
            "alive",
            alive,
        )
        .must(format!("{kills} kills"), "0", kills == 0)
        .must(story, "finished or refused", fate != Fate::Bad);
    let row = if fate == Fate::Finished {
        let mut seconds: Vec<f64> = rounds.iter().map(|round| round.seconds).collect();
        let ratio = free / median(&mut seconds);
        let measured = format!("{ratio:.2} of free speed");
        row.should(measured, ">= 0.5", ratio >= 0.5)
    } else {
        row.should("no speed", ">= 0.5", false)
    };
    row.note(format!("rss {} MiB", peak / MIB))
        .note(format!("full {full} x"))
}

/// What filed said when it would not work with so little, if that is what it did.
fn refusal(taken: &Taken) -> Option<String> {
    let said = taken
        .run
        .stderr
        .lines()
        .find(|line| line.contains("memory"));
    match taken.run.end {
        End::Code(1 | 3 | 78) => said.map(|line| line.chars().take(100).collect()),
        _ => None,
    }
}

/// A process that holds memory and does nothing else.
struct Neighbour {
    child: Child,
}

impl Neighbour {
    /// Starts it, and waits until the group is charged with `until_bytes`. When it grows later, it
    /// leaves `left_bytes`.
    fn start(
        bench: &Bench,
        group: &Group,
        until_bytes: u64,
        left_bytes: u64,
    ) -> Fallible<Neighbour> {
        let mut command = command_in(bench, group, bench.me());
        command.arg(HOLD).arg(group.usage_file());
        command.arg(until_bytes.to_string());
        command.arg(left_bytes.to_string());
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut neighbour = Neighbour { child };
        let stdout = neighbour.child.stdout.take().ok_or("it has a stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            return Err("the neighbour could not hold that much".into());
        }
        Ok(neighbour)
    }

    /// Has it take all but what is to be left.
    fn grow(&mut self) {
        if let Some(stdin) = &mut self.child.stdin {
            // If it is gone, that is found out at the end.
            let _ = stdin.write_all(b"grow\n");
        }
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes memory until `usage` says `until_bytes`, says so, and keeps it until stdin ends. A line there
/// has it take more, until `left_bytes` are left in the group that nobody has to give back first.
pub(crate) fn hold(usage: &Path, until_bytes: u64, left_bytes: u64) -> Fallible<()> {
    let mut held = Vec::new();
    while fs::read_to_string(usage)?.trim().parse::<u64>()? + (STEP_BYTES as u64) <= until_bytes {
        // Not zeros: pages of those need not be pages.
        held.push(vec![0xa5_u8; STEP_BYTES]);
    }
    println!("holding");
    io::stdout().flush()?;
    if io::stdin().read_line(&mut String::new())? > 0 {
        let group = GroupProbe::open(Path::new("/"));
        while group
            .usage()
            .ok_or("the group tells nothing")?
            .headroom_bytes()
            > left_bytes
        {
            held.push(vec![0xa5_u8; STEP_BYTES]);
            // As fast as a process that does something with it.
            sleep(Duration::from_millis(2));
        }
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    Ok(())
}
