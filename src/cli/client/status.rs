//! `filed status`: how the service is.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

use super::{Client, ago};
use crate::cli::args::{Common, Form, Status as Args};
use crate::cli::exit::{Exit, UsageError};
use crate::cli::output::{self, Count, Size};
use crate::config::parse_duration;
use crate::daemon::socket::wire::{InWork, Scrub, Status};

pub(in crate::cli) fn run(common: &Common, args: &Args) -> anyhow::Result<Exit> {
    let client = Client::new(common, args.reach.socket.as_deref())?;
    let form = Form::of_flag(args.json);
    let every = match &args.watch {
        None => None,
        Some(time) => Some(
            parse_duration(time)
                .ok()
                .filter(|every| *every >= Duration::from_millis(100))
                .ok_or_else(|| {
                    UsageError(format!("--watch {time}: a time from 100ms on, such as 2s"))
                })?,
        ),
    };
    loop {
        let status: Status = client.get("/v1/status")?;
        match form {
            Form::Json => output::json_line(&status),
            Form::Text => {
                let mut text = String::new();
                if every.is_some() && io::stdout().is_terminal() {
                    // To the top, and away with what was there.
                    text.push_str("\x1b[H\x1b[J");
                }
                text.push_str(&table(&status));
                output::print(&text);
            }
        }
        match every {
            Some(every) => std::thread::sleep(every),
            None => return Ok(exit(&status)),
        }
    }
}

/// What the status is worth as an exit code.
fn exit(status: &Status) -> Exit {
    match status.scrub.damaged_places {
        0 => Exit::Done,
        _ => Exit::Damage,
    }
}

/// The status as people read it.
fn table(status: &Status) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    row(
        "service",
        &format!(
            "{}, version {}, process {}, up {}",
            flow(&status.flow),
            status.version,
            status.pid,
            ago(status.started_ns)
        ),
    );
    row("store", &status.store);
    if let Some(problem) = &status.problem {
        row("PROBLEM", problem);
    }
    let memory = &status.memory;
    row(
        "memory",
        &format!(
            "{} resident ({} anonymous), threshold {}, limit {}",
            Size(memory.resident_bytes),
            Size(memory.anonymous_bytes),
            Size(memory.threshold_bytes),
            Size(memory.limit_bytes)
        ),
    );
    let owners = &memory.owners;
    let held = [
        ("chunks", owners.chunks_bytes),
        ("frames", owners.frames_bytes),
        ("streams", owners.transfers_bytes),
        ("compression", owners.compression_bytes),
        ("fingerprints", owners.fingerprints_bytes),
        ("idle", owners.idle_bytes),
        ("database", owners.database_bytes),
        ("rest", owners.rest_bytes),
    ];
    let held: Vec<String> = held
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| format!("{name} {}", Size(*bytes)))
        .collect();
    row("  held by", &held.join(", "));
    let why = memory.why.as_ref().map(|why| format!(": {why}"));
    row(
        "mode",
        &format!(
            "{} for {}{}",
            memory.mode,
            ago(memory.mode_since_ns),
            why.unwrap_or_default()
        ),
    );
    row(
        "workers",
        &format!("{} of {} may work", memory.workers, memory.workers_planned),
    );
    let given = |given: &crate::daemon::socket::wire::Given| match given.count {
        0 => "none".to_owned(),
        count => format!(
            "{} ({}), the last {} ago",
            Count(count),
            Size(given.bytes),
            ago(given.last_ns)
        ),
    };
    row("trims", &given(&memory.trims));
    row(
        "heap",
        &format!(
            "{} objects, {}; {} collections, longest pause {:.1} ms",
            Count(status.heap.objects),
            Size(status.heap.held_bytes),
            Count(status.heap.collections.iter().sum()),
            status.heap.longest_pause_seconds * 1e3
        ),
    );
    let jobs = &status.jobs;
    row(
        "jobs",
        &format!(
            "{} queued, {} running, {} stored, {} failed",
            Count(jobs.queued),
            Count(jobs.running),
            Count(jobs.stored),
            Count(jobs.failed)
        ),
    );
    for InWork { what, seconds } in status.in_work.iter().take(5) {
        row("  running", &format!("{what}, for {seconds:.0} s"));
    }
    if let Some(more) = status.in_work.len().checked_sub(6) {
        row("", &format!("and {} more", Count(more as u64 + 1)));
    }
    let done = &status.done;
    row(
        "done",
        &format!(
            "{} files, {}, {} new, {} stored, now {}/s",
            Count(done.files),
            Size(done.bytes),
            Size(done.new_bytes),
            Size(done.stored_bytes),
            Size(done.bytes_per_second)
        ),
    );
    row("scrub", &scrub(&status.scrub));
    if status.scrub.damaged_places > 0 {
        row(
            "DAMAGE",
            &format!(
                "{} places: `filed verify` names the files",
                Count(status.scrub.damaged_places)
            ),
        );
    }
    for inbox in &status.inboxes {
        let last = match inbox.last_success_ns {
            Some(ns) => format!("the last {} ago", ago(ns)),
            None => "none yet".to_owned(),
        };
        let mut value = format!(
            "{}: {} waiting, {} stored ({last}), {} failed",
            inbox.path,
            Count(inbox.waiting),
            Count(inbox.stored),
            Count(inbox.failed)
        );
        if let Some(error) = &inbox.last_error {
            value.push_str(": ");
            value.push_str(error);
        }
        row("inbox", &value);
    }
    row("configured", &output::time(status.configured_ns));
    text
}

/// How far the check of what is stored is.
fn scrub(scrub: &Scrub) -> String {
    let mut text = scrub.state.clone();
    if scrub.pass_began_ns.is_some() {
        text.push_str(&format!(
            ", {} of {} checked",
            Size(scrub.checked_bytes),
            Size(scrub.total_bytes)
        ));
    }
    let time = |seconds: f64| {
        // Whole seconds are exact enough, and shorter.
        let time = Duration::from_secs(seconds.round() as u64);
        humantime::format_duration(time).to_string()
    };
    if let Some(seconds) = scrub.expected_pass_seconds {
        text.push_str(&format!(", a pass takes {}", time(seconds)));
    }
    if let Some(ended_ns) = scrub.last_pass_ended_ns {
        let took = time(scrub.last_pass_seconds.unwrap_or(0.0));
        text.push_str(&format!(
            ", the last ended {} ago and took {took}",
            ago(ended_ns)
        ));
    }
    text
}

fn flow(flow: &str) -> &str {
    match flow {
        "open" => "running",
        "draining" => "ending",
        other => other,
    }
}
