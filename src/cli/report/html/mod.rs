//! The report for people: one page without anything from elsewhere, its pictures drawn as SVG.
//!
//! It needs neither a network nor a script, so that it can be opened from a mail or an archive.
//! Colours are in the style sheet only, so that one page suits light and dark. Every picture has a
//! title and a description, and what it shows is in a table too.

mod memory;
mod pauses;
mod plot;
mod speed;
mod tables;

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::Report;
use crate::cli::output::{Count, Rate, Size, time};
use crate::daemon::timeline::{MarkKind, Owners, Point};
use crate::pressure::mode::Mode;
use crate::store::clock::now_ns;
use crate::store::show_path;

const STYLE: &str = include_str!("style.css");

/// Nothing is to be fetched, whatever shows the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Someone who holds memory.
struct Owner {
    /// Its class in the style sheet.
    class: &'static str,
    /// Its name for people.
    name: &'static str,
    bytes: fn(&Owners) -> u64,
}

/// From the bottom of the picture to its top.
const OWNERS: [Owner; 7] = [
    owner("rest", "everything else", |of| of.rest),
    owner("database", "database", |of| of.database),
    owner("fingerprints", "fingerprint cache", |of| of.fingerprints),
    owner("compression", "compression", |of| of.compression),
    owner("frames", "frames", |of| of.frames),
    owner("chunks", "chunks", |of| of.chunks),
    owner("idle", "idle buffers", |of| of.idle),
];

const fn owner(class: &'static str, name: &'static str, bytes: fn(&Owners) -> u64) -> Owner {
    Owner { class, name, bytes }
}

/// The whole page.
pub(super) fn page(report: &Report<'_>) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(out: &mut String, report: &Report<'_>) -> fmt::Result {
    let store = Escaped(show_path(report.store));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>filed: {store}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<h1>A run of filed</h1>\n<p>into <code>{store}</code>, ended {}</p>\n",
        Escaped(time(now_ns()))
    )?;
    if let Some(signal) = report.signal {
        writeln!(
            out,
            "<p class=\"warn\">Stopped by signal {signal}. What was reported as stored is kept.</p>"
        )?;
    }
    if let Some(error) = &report.error {
        writeln!(
            out,
            "<p class=\"warn\">Stopped by an error: {}</p>",
            Escaped(error)
        )?;
    }
    out.push_str("</header>\n");
    write_figures(out, report)?;
    let points = points(report);
    memory::write(out, report, &points)?;
    speed::write(out, report, &points)?;
    pauses::write(out, report)?;
    tables::write(out, report)?;
    writeln!(
        out,
        "</main>\n<footer>filed {}</footer>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION")
    )
}

/// The numbers that are asked for first.
fn write_figures(out: &mut String, report: &Report<'_>) -> fmt::Result {
    let summary = report.summary;
    let files = if summary.stored == 1 { "file" } else { "files" };
    let figures = [
        (
            "Peak memory",
            Size(summary.rss_peak).to_string(),
            format!("of {} allowed", Size(summary.limit)),
        ),
        (
            "Read",
            Size(report.read_bytes).to_string(),
            format!("{} {files} stored", Count(summary.stored)),
        ),
        (
            "Throughput",
            rate(report).to_string(),
            format!("in {}", Time(took(report))),
        ),
        (
            "Longest pause",
            longest_pause(report).to_string(),
            "of the heap".to_owned(),
        ),
    ];
    out.push_str("<dl class=\"figures\">\n");
    for (key, value, more) in figures {
        writeln!(
            out,
            "<div><dt>{key}</dt><dd>{value}<small>{more}</small></dd></div>"
        )?;
    }
    out.push_str("</dl>\n");
    Ok(())
}

/// The points of the curves: the recorded ones, and before them how things were at the beginning, so
/// that a run of one point has a curve too.
fn points(report: &Report<'_>) -> Vec<Point> {
    let recorded = report.timeline.points();
    let begin = recorded
        .first()
        .map(|first| match report.summary.rss_start {
            // What could not be read is taken to be as it was then.
            0 => Point {
                at: Duration::ZERO,
                done_bytes: 0,
                ..*first
            },
            resident_bytes => Point {
                at: Duration::ZERO,
                mode: Mode::Normal,
                resident_bytes,
                owners: Owners::default().of_resident(resident_bytes),
                done_bytes: 0,
                ..*first
            },
        });
    begin.into_iter().chain(recorded.iter().copied()).collect()
}

fn rate(report: &Report<'_>) -> Rate {
    Rate {
        bytes: report.read_bytes,
        took: took(report),
    }
}

fn took(report: &Report<'_>) -> Duration {
    Duration::try_from_secs_f64(report.summary.seconds).unwrap_or_default()
}

fn longest_pause(report: &Report<'_>) -> Time {
    Time(Duration::from_micros(report.summary.longest_pause_us))
}

/// What a mark stands for.
fn what(kind: &MarkKind) -> String {
    match kind {
        MarkKind::ModeChange { from, to, why } => format!("{from} to {to}: {why}"),
        MarkKind::Trim => "idle buffers given back".to_owned(),
        MarkKind::Collection => "everything on the heap collected".to_owned(),
        MarkKind::CacheShrunk => "fingerprint cache made smaller".to_owned(),
        MarkKind::DatabaseShrunk => "database's page cache given up".to_owned(),
        MarkKind::MallocTrim => "malloc's free pages given back".to_owned(),
    }
}

/// Text with nothing in it that HTML would take for markup.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string().chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                character => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// A time with the unit that suits it.
struct Time(Duration);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if self.0.is_zero() {
            f.write_str("0 s")
        } else if seconds < 1e-6 {
            write!(f, "{} ns", self.0.as_nanos())
        } else if seconds < 1e-3 {
            write!(f, "{:.0} µs", seconds * 1e6)
        } else if seconds < 0.1 {
            write!(f, "{:.1} ms", seconds * 1e3)
        } else if seconds < 120.0 {
            write!(f, "{seconds:.2} s")
        } else {
            let whole = self.0.as_secs();
            let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
            match hours {
                0 => write!(f, "{minutes} min {seconds:02} s"),
                hours => write!(f, "{hours} h {minutes:02} min"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
