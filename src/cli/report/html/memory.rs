//! Memory by owner over time, with the lines it is held against, the modes, and what was done.

use std::fmt::{self, Write};
use std::time::Duration;

use super::plot::{BESIDE, LEFT, RIGHT, Scale, TimeAxis, WIDTH};
use super::{Escaped, OWNERS, Owner, Report, Time, what};
use crate::cli::output::{Count, Size};
use crate::daemon::timeline::{Mark, MarkKind, Point};
use crate::pressure::mode::Mode;

const TOP: f64 = 30.0;
const BOTTOM: f64 = 330.0;
/// The height of the first lane of marks, and of each that follows.
const LANES: f64 = BOTTOM + 44.0;
const LANE: f64 = 20.0;
/// Marks nearer to each other than this are one.
const NEAR: f64 = 12.0;
/// The height of a line's name.
const NAME: f64 = 15.0;
/// So many of one place are told.
const MOST_TOLD: usize = 8;
/// A line more than so many times the peak would press all else to the ground.
const FAR: u64 = 4;

/// The picture with its legend.
pub(super) fn write(out: &mut String, report: &Report<'_>, points: &[Point]) -> fmt::Result {
    out.push_str("<section>\n<h2>Memory by owner</h2>\n");
    let Some(last) = points.last() else {
        out.push_str("<p>Nothing was done.</p>\n</section>\n");
        return Ok(());
    };
    let marks: Vec<&Mark> = report.timeline.marks().collect();
    let lanes: Vec<(&Lane, Vec<Group<'_>>)> = Lane::ALL
        .iter()
        .map(|lane| (lane, groups(lane, &marks, &TimeAxis::new(last.at))))
        .filter(|(_, groups)| !groups.is_empty())
        .collect();
    let height = LANES + LANE * lanes.len() as f64 - LANE / 2.0;
    let summary = report.summary;
    writeln!(
        out,
        "<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"memory-title memory-desc\">\n\
         <title id=\"memory-title\">Memory by owner over {}</title>\n\
         <desc id=\"memory-desc\">Resident memory began at {}, was {} at most and ended at {}. \
         The threshold is {}, critical begins at {}, the limit is {}. Changes of mode: {}.</desc>",
        Time(last.at),
        Size(summary.rss_start),
        Size(summary.rss_peak),
        Size(summary.rss_end),
        Size(last.threshold_bytes),
        Size(last.critical_bytes),
        Size(last.limit_bytes),
        Count(summary.mode_changes)
    )?;
    write_curves(out, points, summary.rss_peak)?;
    for (number, (lane, groups)) in (0_u32..).zip(&lanes) {
        lane.write(out, groups, LANES + LANE * f64::from(number))?;
    }
    out.push_str("</svg></div>\n");
    write_legend(out, points)?;
    out.push_str("</section>\n");
    Ok(())
}

/// Everything above the axis.
fn write_curves(out: &mut String, points: &[Point], rss_peak: u64) -> fmt::Result {
    let Some(last) = points.last() else {
        return Ok(());
    };
    let axis = TimeAxis::new(last.at);
    let highest = points
        .iter()
        .map(|point| sum(point).max(point.resident_bytes));
    let peak = highest.max().unwrap_or(0).max(rss_peak).max(1);
    let near = |bytes: u64| bytes <= peak.saturating_mul(FAR);
    let (lines, far): (Vec<_>, Vec<_>) = LINES.iter().partition(|line| near((line.bytes)(last)));
    let all = lines.iter().flat_map(|line| points.iter().map(line.bytes));
    let top = all.filter(|bytes| near(*bytes)).max();
    let top = top.unwrap_or(0).max(peak.saturating_add(peak / 20));
    let scale = Scale::of_bytes(top, TOP, BOTTOM);

    write_bands(out, points, &axis)?;
    scale.draw_sizes(out)?;
    write_areas(out, points, &axis, &scale)?;
    let resident = curve(points, &axis, &scale, |point| point.resident_bytes)?;
    writeln!(
        out,
        "<polyline class=\"resident\" points=\"{resident}\"><title>resident memory</title></polyline>"
    )?;
    write_lines(out, &lines, points, &axis, &scale)?;
    if !far.is_empty() {
        let far = far.iter().map(|line| line.label(last));
        writeln!(
            out,
            "<text class=\"end\" x=\"{RIGHT}\" y=\"18\">far above: {}</text>",
            far.collect::<Vec<_>>().join(", ")
        )?;
    }
    axis.draw(out, BOTTOM)
}

/// What all owners hold.
fn sum(point: &Point) -> u64 {
    let all = OWNERS.iter().map(|owner| (owner.bytes)(&point.owners));
    all.fold(0, u64::saturating_add)
}

/// The places of one number of all points.
fn curve(
    points: &[Point],
    axis: &TimeAxis,
    scale: &Scale,
    bytes: fn(&Point) -> u64,
) -> Result<String, fmt::Error> {
    let mut places = String::new();
    for point in points {
        let (x, y) = (axis.x(point.at), scale.y_of(bytes(point)));
        write!(places, "{x:.1},{y:.1} ")?;
    }
    places.truncate(places.trim_end().len());
    Ok(places)
}

/// A band for each stretch of time in which the mode was not normal.
fn write_bands(out: &mut String, points: &[Point], axis: &TimeAxis) -> fmt::Result {
    for (from, to, mode) in bands(points) {
        let (left, right) = (axis.x(from), axis.x(to));
        writeln!(
            out,
            "<rect class=\"band {mode}\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\">\
             <title>{mode} mode from {} to {}</title></rect>",
            (right - left).max(0.5),
            BOTTOM - TOP,
            Time(from),
            Time(to)
        )?;
    }
    Ok(())
}

/// Stretches of time in which the mode was not normal.
fn bands(points: &[Point]) -> Vec<(Duration, Duration, Mode)> {
    let mut bands: Vec<(Duration, Duration, Mode)> = Vec::new();
    for pair in points.windows(2) {
        let [point, next] = pair else { continue };
        if point.mode == Mode::Normal {
            continue;
        }
        match bands.last_mut() {
            Some((_, to, mode)) if *to == point.at && *mode == point.mode => *to = next.at,
            _ => bands.push((point.at, next.at, point.mode)),
        }
    }
    bands
}

/// Owners, one upon the other.
fn write_areas(out: &mut String, points: &[Point], axis: &TimeAxis, scale: &Scale) -> fmt::Result {
    let mut below = vec![0_u64; points.len()];
    for owner in &OWNERS {
        let Some(most) = most(owner, points) else {
            continue;
        };
        let above: Vec<u64> = (points.iter().zip(&below))
            .map(|(point, below)| below.saturating_add((owner.bytes)(&point.owners)))
            .collect();
        let there = points.iter().zip(&above);
        let back = points.iter().zip(&below).rev();
        let mut outline = String::new();
        for (point, bytes) in there.chain(back) {
            let (x, y) = (axis.x(point.at), scale.y_of(*bytes));
            write!(outline, "{x:.1},{y:.1} ")?;
        }
        writeln!(
            out,
            "<polygon class=\"area {}\" points=\"{}\"><title>{}: {} at most</title></polygon>",
            owner.class,
            outline.trim_end(),
            owner.name,
            Size(most)
        )?;
        below = above;
    }
    Ok(())
}

/// The most an owner held; nothing for one that never held anything.
fn most(owner: &Owner, points: &[Point]) -> Option<u64> {
    let most = points.iter().map(|point| (owner.bytes)(&point.owners));
    most.max().filter(|most| *most > 0)
}

/// A line that memory is held against.
struct Line {
    /// Its class in the style sheet and its name.
    name: &'static str,
    bytes: fn(&Point) -> u64,
}

/// From the top to the bottom.
const LINES: [Line; 3] = [
    Line {
        name: "limit",
        bytes: |point| point.limit_bytes,
    },
    Line {
        name: "critical",
        bytes: |point| point.critical_bytes,
    },
    Line {
        name: "threshold",
        bytes: |point| point.threshold_bytes,
    },
];

impl Line {
    fn label(&self, last: &Point) -> String {
        format!("{} {}", self.name, Size((self.bytes)(last)))
    }
}

/// Draws lines that are not too far up, each with its name and what it stands at.
fn write_lines(
    out: &mut String,
    lines: &[&Line],
    points: &[Point],
    axis: &TimeAxis,
    scale: &Scale,
) -> fmt::Result {
    let Some(last) = points.last() else {
        return Ok(());
    };
    let mut above = f64::NEG_INFINITY;
    for line in lines {
        let places = curve(points, axis, scale, line.bytes)?;
        // Where lines are close to each other their names are one below the other all the same.
        above = (scale.y_of((line.bytes)(last)) + 4.0).max(above + NAME);
        writeln!(
            out,
            "<polyline class=\"line {}\" points=\"{places}\"/>\
             <text class=\"name {}\" x=\"{BESIDE}\" y=\"{above:.1}\">{}</text>",
            line.name,
            line.name,
            line.label(last)
        )?;
    }
    Ok(())
}

/// A row of marks under the picture.
struct Lane {
    name: &'static str,
    /// What is drawn, with the mark's place at 0,0.
    shape: &'static str,
    holds: fn(&Mark) -> bool,
}

impl Lane {
    const ALL: [Lane; 3] = [
        Lane {
            name: "mode",
            shape: "M0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z",
            holds: |mark| matches!(mark.what, MarkKind::ModeChange { .. }),
        },
        Lane {
            name: "collected",
            shape: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
            holds: |mark| matches!(mark.what, MarkKind::Collection | MarkKind::CacheShrunk),
        },
        Lane {
            name: "given back",
            shape: "M0 -4.5l5 8.5h-10z",
            // Not those of which nothing was to be had: while memory is short, there are many.
            holds: |mark| {
                mark.what.gives_back() && (mark.freed_bytes > 0 || mark.planned_bytes > 0)
            },
        },
    ];

    fn write(&self, out: &mut String, groups: &[Group<'_>], y: f64) -> fmt::Result {
        writeln!(
            out,
            "<text class=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
            LEFT - 10.0,
            y + 4.0,
            self.name
        )?;
        for group in groups {
            writeln!(
                out,
                "<path class=\"mark {}\" transform=\"translate({:.1} {y:.1})\" d=\"{}\">\
                 <title>{}</title></path>",
                group.class(),
                group.x,
                self.shape,
                Escaped(group.told())
            )?;
        }
        Ok(())
    }
}

/// Marks that would lie upon each other.
struct Group<'a> {
    x: f64,
    marks: Vec<&'a Mark>,
}

fn groups<'a>(lane: &Lane, marks: &[&'a Mark], axis: &TimeAxis) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for mark in marks.iter().filter(|mark| (lane.holds)(mark)) {
        let x = axis.x(mark.at);
        match groups.last_mut() {
            Some(group) if x - group.x < NEAR => group.marks.push(mark),
            _ => groups.push(Group {
                x,
                marks: vec![mark],
            }),
        }
    }
    groups
}

impl Group<'_> {
    /// How it is coloured: the mode that was entered, or whether anything was freed.
    fn class(&self) -> &'static str {
        match self.marks.last().map(|mark| &mark.what) {
            Some(MarkKind::ModeChange { to, .. }) => match to {
                Mode::Normal => "normal",
                Mode::Aggressive => "aggressive",
                Mode::Critical => "critical",
            },
            _ if self.marks.iter().any(|mark| mark.freed_bytes > 0) => "freed",
            _ => "nothing",
        }
    }

    /// Its marks in words, a line each.
    fn told(&self) -> String {
        let mut lines: Vec<String> = self
            .marks
            .iter()
            .take(MOST_TOLD)
            .map(|mark| sentence(mark))
            .collect();
        let more = self.marks.len().saturating_sub(MOST_TOLD);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines.join("\n")
    }
}

/// A mark in words.
fn sentence(mark: &Mark) -> String {
    let (at, what, freed) = (Time(mark.at), what(&mark.what), Size(mark.freed_bytes));
    match mark.planned_bytes {
        0 => format!("{at}: {what}: {freed} freed"),
        planned => format!("{at}: {what}: {freed} freed of {}", Size(planned)),
    }
}

/// Names for the colours.
fn write_legend(out: &mut String, points: &[Point]) -> fmt::Result {
    out.push_str("<ul class=\"legend\">\n");
    for owner in OWNERS.iter().rev() {
        if let Some(most) = most(owner, points) {
            writeln!(
                out,
                "<li><i class=\"{}\"></i>{} <small>up to {}</small></li>",
                owner.class,
                owner.name,
                Size(most)
            )?;
        }
    }
    out.push_str("<li><i class=\"resident\"></i>resident</li>\n");
    for mode in [Mode::Aggressive, Mode::Critical] {
        if points.iter().any(|point| point.mode == mode) {
            writeln!(out, "<li><i class=\"band {mode}\"></i>{mode} mode</li>")?;
        }
    }
    out.push_str("</ul>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mark, point};
    use super::*;

    #[test]
    fn bands_are_as_long_as_the_mode() {
        let of = |millis, mode| point(millis, mode, 0);
        let points = [
            of(0, Mode::Normal),
            of(10, Mode::Critical),
            of(20, Mode::Critical),
            of(30, Mode::Aggressive),
            of(40, Mode::Normal),
        ];
        let millis = Duration::from_millis;
        assert_eq!(
            bands(&points),
            [
                (millis(10), millis(30), Mode::Critical),
                (millis(30), millis(40), Mode::Aggressive)
            ]
        );
    }

    #[test]
    fn marks_of_one_place_are_one_and_all_are_told() {
        let marks = [
            mark(0, MarkKind::Trim),
            mark(1, MarkKind::MallocTrim),
            mark(2, MarkKind::Collection),
            mark(900, MarkKind::Trim),
        ];
        let marks: Vec<&Mark> = marks.iter().collect();
        let axis = TimeAxis::new(Duration::from_secs(1));
        let of = |lane: usize| groups(&Lane::ALL[lane], &marks, &axis);
        assert!(of(0).is_empty());
        assert_eq!(of(1).len(), 1);
        let back = of(2);
        assert_eq!(back.len(), 2);
        assert_eq!(
            back[0].told(),
            "0 s: idle buffers given back: 7 B freed\n\
             1.0 ms: malloc's free pages given back: 7 B freed"
        );
        let mut useless = mark(500, MarkKind::Trim);
        useless.freed_bytes = 0;
        assert!(groups(&Lane::ALL[2], &[&useless], &axis).is_empty());
        let many: Vec<&Mark> = std::iter::repeat_n(marks[0], 100).collect();
        let told = groups(&Lane::ALL[2], &many, &axis)[0].told();
        assert!(told.ends_with("\nand 92 more"), "{told}");
    }
}
