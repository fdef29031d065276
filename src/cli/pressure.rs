//! `filed pressure`: recordings of memory, made and judged again.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::{Common, Form, Pressure, PressureAction};
use super::exit::{Exit, UsageError};
use super::output::{self, Size};
use super::setup::{self, Setup};
use crate::config::parse_duration;
use crate::daemon::recorder::Recorder;
use crate::pressure::level::Level;
use crate::pressure::mode::{Decision, Mode};
use crate::pressure::probe::proc::ProcSelf;
use crate::pressure::recording::Replay;
use crate::pressure::sample::Sample;
use crate::store::show_path;

/// A recording looks this often at the least: more would say nothing, and cost the process time.
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) fn run(common: &Common, args: &Pressure) -> anyhow::Result<Exit> {
    match &args.action {
        PressureAction::Record {
            file,
            pid,
            every,
            time,
        } => record(common, file, *pid, every, time.as_deref()),
        PressureAction::Replay { file, all, json } => replay(file, *all, Form::of_flag(*json)),
    }
}

/// Looks at a process until it ends, time is up or a signal comes.
fn record(
    common: &Common,
    file: &Path,
    pid: u32,
    every: &str,
    time: Option<&str>,
) -> anyhow::Result<Exit> {
    let parse = |flag: &str, text: &str| {
        parse_duration(text)
            .map_err(|_| UsageError(format!("{flag} {text}: not a time such as 50ms or 10s")))
    };
    let every = parse("--every", every)?.max(SHORTEST);
    let time = time.map(|time| parse("--for", time)).transpose()?;
    let setup = Setup::load(common, None, Vec::new())?;
    let rules = setup::rules(&setup.config, setup.memory.thresholds, 0);
    let process = ProcSelf::open_of(Path::new("/"), pid)
        .with_context(|| format!("process {pid} cannot be looked at"))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("listen to signals")?;
    }
    let mut recorder =
        Recorder::create(file).with_context(|| format!("write {}", show_path(file)))?;
    let began = Instant::now();
    let mut samples: u64 = 0;
    while !stop.load(Ordering::Relaxed) && time.is_none_or(|time| began.elapsed() < time) {
        // It has ended, or so little is left of it that it is as good as ended.
        let Ok(memory) = process.memory() else {
            break;
        };
        if memory.resident_bytes == 0 {
            break;
        }
        recorder.sample(&rules, &Sample::new(began.elapsed(), memory, 0));
        samples += 1;
        thread::sleep(every);
    }
    if !recorder.finish() {
        return Ok(Exit::Failed);
    }
    output::print(&format!(
        "{}: {samples} samples in {:.1} s\n",
        show_path(file),
        began.elapsed().as_secs_f64()
    ));
    Ok(Exit::Done)
}

/// Judges a recording, and prints the decisions that change or ask for something, or all.
fn replay(file: &Path, all: bool, form: Form) -> anyhow::Result<Exit> {
    let open = File::open(file).with_context(|| format!("read {}", show_path(file)))?;
    let mut replay = Replay::new(BufReader::new(open));
    let (mut samples, mut changes, mut modes) = (0u64, 0u64, Vec::new());
    let mut last = None;
    while let Some(decided) = replay.next() {
        let (sample, decision) =
            decided.map_err(|error| anyhow!("replay {}: {error}", show_path(file)))?;
        let measure = replay
            .rules()
            .map_or_else(Default::default, |rules| rules.measure);
        let measured_bytes = sample.measured_bytes(measure);
        samples += 1;
        changes += u64::from(decision.change.is_some());
        if let Some((at, mode)) = last.replace((sample.at, decision.mode)) {
            add_time(&mut modes, mode, sample.at.saturating_sub(at));
        }
        let asks = decision.change.is_some() || !decision.actions.is_empty();
        match form {
            Form::Json => output::json_line(&Line::new(&sample, measured_bytes, &decision)),
            Form::Text if asks || all => {
                output::print(&text(&sample, measured_bytes, &decision));
            }
            Form::Text => {}
        }
    }
    if form == Form::Text {
        let mut line = format!("{samples} samples, {changes} changes of mode");
        for (mode, time) in modes {
            line += &format!(", {mode} {:.1} s", time.as_secs_f64());
        }
        output::print(&format!("{line}\n"));
    }
    Ok(Exit::Done)
}

fn add_time(modes: &mut Vec<(Mode, Duration)>, mode: Mode, time: Duration) {
    match modes.iter_mut().find(|(known, _)| *known == mode) {
        Some((_, sum)) => *sum += time,
        None => modes.push((mode, time)),
    }
}

fn text(sample: &Sample, measured_bytes: u64, decision: &Decision) -> String {
    let level = match decision.level {
        Level::Normal => "normal",
        Level::High => "high",
        Level::Critical => "critical",
    };
    let mut text = format!(
        "{:>9.3} s  {:>10}  level {level:<8}  mode {:<10}",
        sample.at.as_secs_f64(),
        Size(measured_bytes).to_string(),
        decision.mode
    );
    if let Some(change) = &decision.change {
        text += &format!("  from {}: {}", change.from, change.why);
    }
    let actions: Vec<_> = decision.actions.iter().map(ToString::to_string).collect();
    if !actions.is_empty() {
        text += &format!("  -> {}", actions.join(", "));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A decision.
#[derive(Serialize)]
struct Line {
    v: u8,
    r#type: &'static str,
    us: u64,
    measured_bytes: u64,
    headroom_bytes: Option<u64>,
    level: Level,
    mode: Mode,
    /// The mode before, if it changed, and why.
    from: Option<Mode>,
    why: Option<String>,
    actions: Vec<String>,
    next_sample_us: u64,
}

impl Line {
    fn new(sample: &Sample, measured_bytes: u64, decision: &Decision) -> Line {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Line {
            v: 1,
            r#type: "decision",
            us: micros(sample.at),
            measured_bytes,
            headroom_bytes: sample.headroom_bytes,
            level: decision.level,
            mode: decision.mode,
            from: decision.change.as_ref().map(|change| change.from),
            why: (decision.change.as_ref()).map(|change| change.why.to_string()),
            actions: decision.actions.iter().map(ToString::to_string).collect(),
            next_sample_us: micros(decision.next_sample_in),
        }
    }
}
