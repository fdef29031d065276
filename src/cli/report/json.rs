//! The report for programs: one line of JSON, made of the numbers that the page shows.

use std::time::Duration;

use serde::Serialize;

use super::Report;
use crate::cli::summary::Summary;
use crate::daemon::timeline::Timeline;
use crate::pressure::mode::Mode;
use crate::store::show_path;

/// The document. Sizes are in bytes.
#[derive(Serialize)]
struct Document<'a> {
    v: u8,
    r#type: &'static str,
    /// The version of filed.
    filed: &'static str,
    written_at: String,
    store: String,
    /// As the last line of `--json` has it.
    summary: &'a Summary,
    /// What was read of files that were stored.
    read_bytes: u64,
    bytes_per_second: f64,
    /// The signal that stopped the run.
    signal: Option<i32>,
    /// The error that stopped the run.
    error: Option<&'a str>,
    /// The marks beside the threshold and the limit, which are in the summary.
    resume: u64,
    critical: u64,
    limit_source: String,
    limit_reasons: &'a [String],
    seconds_in: SecondsIn,
    /// By trims of idle buffers, by the database, by malloc.
    given_back_bytes: u64,
    /// By trims of the heap.
    heap_trimmed_bytes: u64,
    /// Pauses of the heap by doublings of their length.
    pauses: Vec<Pauses>,
    /// The curves, and what was done when.
    timeline: &'a Timeline,
}

#[derive(Serialize)]
struct SecondsIn {
    normal: f64,
    aggressive: f64,
    critical: f64,
}

#[derive(Serialize)]
struct Pauses {
    from_ns: u64,
    below_ns: u64,
    count: u64,
}

/// The whole document, a line of its own.
pub(super) fn text(report: &Report<'_>) -> serde_json::Result<String> {
    let timeline = report.timeline;
    let seconds_in = |mode| timeline.time_in(mode).as_secs_f64();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let document = Document {
        v: 1,
        r#type: "report",
        filed: env!("CARGO_PKG_VERSION"),
        written_at: jiff::Timestamp::now().to_string(),
        store: show_path(report.store).to_string(),
        summary: report.summary,
        read_bytes: report.read_bytes,
        bytes_per_second: report.rate(),
        signal: report.signal,
        error: report.error.as_deref(),
        resume: report.limits.thresholds.resume_bytes(),
        critical: report.limits.thresholds.critical_bytes(),
        limit_source: report.limits.source.to_string(),
        limit_reasons: &report.limits.why,
        seconds_in: SecondsIn {
            normal: seconds_in(Mode::Normal),
            aggressive: seconds_in(Mode::Aggressive),
            critical: seconds_in(Mode::Critical),
        },
        given_back_bytes: timeline.given_back_bytes(),
        heap_trimmed_bytes: report.heaps.trimmed_bytes,
        pauses: report
            .pauses()
            .into_iter()
            .map(|(from, to, count)| Pauses {
                from_ns: nanos(from),
                below_ns: nanos(to),
                count,
            })
            .collect(),
        timeline,
    };
    serde_json::to_string(&document).map(|text| text + "\n")
}
