//! The report's tables: the sums of the run, what was done about memory, and the curves as numbers.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{Escaped, OWNERS, Report, Time, longest_pause, rate, took, what};
use crate::cli::output::{Count, Size};
use crate::pressure::mode::Mode;

/// Rows of the table of points at most.
const MOST_ROWS: usize = 60;
/// A table of so many rows needs no folding.
const FEW_ROWS: usize = 16;

/// All of them.
pub(super) fn write(out: &mut String, report: &Report<'_>) -> fmt::Result {
    write_numbers(out, report)?;
    write_marks(out, report)?;
    write_points(out, report)
}

/// The sums of the run.
fn write_numbers(out: &mut String, report: &Report<'_>) -> fmt::Result {
    let summary = report.summary;
    let timeline = report.timeline;
    let time_in = |mode| Time(timeline.time_in(mode)).to_string();
    let [young, middle, old] = summary.collections.map(Count);
    let all_pauses = Time(Duration::from_micros(summary.total_pause_us));
    let rows = [
        ("files", summary.kinds()),
        ("read", Size(report.read_bytes).to_string()),
        ("new", Size(summary.new_bytes).to_string()),
        ("kept", Size(summary.stored_bytes).to_string()),
        ("time", Time(took(report)).to_string()),
        ("throughput", rate(report).to_string()),
        ("memory at the start", Size(summary.rss_start).to_string()),
        ("peak memory", Size(summary.rss_peak).to_string()),
        ("memory at the end", Size(summary.rss_end).to_string()),
        ("threshold", Size(summary.threshold).to_string()),
        (
            "critical from",
            Size(report.limits.thresholds.critical_bytes()).to_string(),
        ),
        ("limit", Size(summary.limit).to_string()),
        ("limit set by", report.limits.source.to_string()),
        ("mode changes", Count(summary.mode_changes).to_string()),
        ("time in normal mode", time_in(Mode::Normal)),
        ("time in aggressive mode", time_in(Mode::Aggressive)),
        ("time in critical mode", time_in(Mode::Critical)),
        (
            "given back by buffers, database, malloc",
            Size(timeline.given_back_bytes()).to_string(),
        ),
        (
            "given back by the heap",
            Size(report.heaps.trimmed_bytes).to_string(),
        ),
        (
            "collections, by generation",
            format!("{young} + {middle} + {old}"),
        ),
        ("longest pause", longest_pause(report).to_string()),
        ("all pauses", all_pauses.to_string()),
    ];
    out.push_str("<section>\n<h2>Numbers</h2>\n<table>\n<tbody>\n");
    for (key, value) in rows {
        writeln!(
            out,
            "<tr><th scope=\"row\">{key}</th><td>{}</td></tr>",
            Escaped(value)
        )?;
    }
    out.push_str("</tbody>\n</table>\n<h3>Which limit applies and why</h3>\n<ul>\n");
    for why in &report.limits.why {
        writeln!(out, "<li>{}</li>", Escaped(why))?;
    }
    out.push_str("</ul>\n</section>\n");
    Ok(())
}

/// What was done about memory.
fn write_marks(out: &mut String, report: &Report<'_>) -> fmt::Result {
    let timeline = report.timeline;
    if timeline.marks().len() == 0 {
        return Ok(());
    }
    let open = if timeline.marks().len() <= FEW_ROWS {
        " open"
    } else {
        ""
    };
    writeln!(
        out,
        "<section>\n<details{open}>\n<summary>What was done about memory</summary>\n\
         <div class=\"scroll\"><table class=\"many\">\n<thead><tr><th scope=\"col\">at</th>\
         <th scope=\"col\">what</th><th scope=\"col\" class=\"number\">could free</th>\
         <th scope=\"col\" class=\"number\">freed</th><th scope=\"col\" class=\"number\">took</th>\
         </tr></thead>\n<tbody>"
    )?;
    for mark in timeline.marks() {
        let planned = match mark.planned_bytes {
            0 => String::new(),
            bytes => Size(bytes).to_string(),
        };
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"words\">{}</td><td class=\"number\">{planned}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            Time(mark.at),
            Escaped(what(&mark.what)),
            Size(mark.freed_bytes),
            Time(mark.took)
        )?;
    }
    out.push_str("</tbody>\n</table></div>\n");
    if timeline.dropped_marks() > 0 {
        writeln!(
            out,
            "<p>Earlier ones that are not shown: {}.</p>",
            Count(timeline.dropped_marks())
        )?;
    }
    out.push_str("</details>\n</section>\n");
    Ok(())
}

/// The curves as numbers.
fn write_points(out: &mut String, report: &Report<'_>) -> fmt::Result {
    let points = report.timeline.points();
    if points.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<section>\n<details>\n<summary>The curves as numbers</summary>\n\
         <div class=\"scroll\"><table class=\"many\">\n<thead><tr><th scope=\"col\">at</th>\
         <th scope=\"col\">mode</th><th scope=\"col\" class=\"number\">resident</th>",
    );
    for owner in &OWNERS {
        write!(
            out,
            "<th scope=\"col\" class=\"number\">{}</th>",
            owner.name
        )?;
    }
    out.push_str("<th scope=\"col\" class=\"number\">done</th></tr></thead>\n<tbody>\n");
    // Of several in one row the greatest, so that no peak is missing.
    for some in points.chunks(points.len().div_ceil(MOST_ROWS)) {
        let Some(point) = some.iter().max_by_key(|point| point.resident_bytes) else {
            continue;
        };
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td>",
            Time(point.at),
            point.mode,
            Size(point.resident_bytes)
        )?;
        for owner in &OWNERS {
            let bytes = (owner.bytes)(&point.owners);
            write!(out, "<td class=\"number\">{}</td>", Size(bytes))?;
        }
        writeln!(
            out,
            "<td class=\"number\">{}</td></tr>",
            Size(point.done_bytes)
        )?;
    }
    out.push_str("</tbody>\n</table></div>\n</details>\n</section>\n");
    Ok(())
}
