//! How long the heap paused, and how often: a column for each doubling.

use std::fmt::{self, Write};
use std::time::Duration;

use super::plot::{LEFT, RIGHT, WIDTH};
use super::{Report, Time, longest_pause};
use crate::cli::output::Count;

const TOP: f64 = 22.0;
const BOTTOM: f64 = 142.0;
/// A column is at most as wide as if there were so many.
const FEW: usize = 12;
/// The width that a length of time takes to be read.
const LABEL: f64 = 52.0;

/// The columns.
pub(super) fn write(out: &mut String, report: &Report<'_>) -> fmt::Result {
    out.push_str("<section>\n<h2>Pauses of the heap</h2>\n");
    let pauses = report.pauses();
    let most = pauses.iter().map(|(_, _, count)| *count).max();
    let (Some(most @ 1..), Some((_, end, _))) = (most, pauses.last()) else {
        out.push_str("<p>There were none.</p>\n</section>\n");
        return Ok(());
    };
    let all = pauses.iter().map(|(_, _, count)| *count);
    writeln!(
        out,
        "<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} 168\" role=\"img\" \
         aria-labelledby=\"pause-title pause-desc\">\n\
         <title id=\"pause-title\">Pauses of the heap by their length</title>\n\
         <desc id=\"pause-desc\">Pauses: {}, the longest {}, {} in all.</desc>",
        Count(all.fold(0, u64::saturating_add)),
        longest_pause(report),
        Time(Duration::from_micros(report.summary.total_pause_us))
    )?;
    let room = (RIGHT - LEFT) / pauses.len().max(FEW) as f64;
    let x = |at: usize| LEFT + room * at as f64;
    for (at, (from, to, count)) in pauses.iter().enumerate() {
        if *count == 0 {
            continue;
        }
        // However few they are, they are to be seen.
        let height = ((BOTTOM - TOP) * *count as f64 / most as f64).max(1.5);
        writeln!(
            out,
            "<rect class=\"pause\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
             <title>{} to {}: {}</title></rect>\
             <text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(at) + 2.0,
            BOTTOM - height,
            room - 4.0,
            Time(*from),
            Time(*to),
            Count(*count),
            x(at) + room / 2.0,
            BOTTOM - height - 5.0,
            short(*count, room)
        )?;
    }
    writeln!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>"
    )?;
    let bounds = pauses.iter().map(|(from, _, _)| from).chain([end]);
    let every = (LABEL / room).ceil().max(1.0) as usize;
    for (at, bound) in bounds.enumerate().step_by(every) {
        writeln!(
            out,
            "<line class=\"axis\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{BOTTOM}\" y2=\"{1}\"/>\
             <text class=\"middle\" x=\"{0:.1}\" y=\"{2}\">{3}</text>",
            x(at),
            BOTTOM + 4.0,
            BOTTOM + 19.0,
            Time(*bound)
        )?;
    }
    out.push_str("</svg></div>\n");
    write_table(out, &pauses)?;
    out.push_str("</section>\n");
    Ok(())
}

/// A count that fits above a column of this width.
fn short(count: u64, room: f64) -> String {
    let whole = Count(count).to_string();
    // About the width of a digit.
    if whole.len() as f64 * 7.0 <= room {
        return whole;
    }
    let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    let unit = units.into_iter().find(|(size, _)| count >= *size);
    unit.map_or(whole, |(size, name)| format!("{}{name}", count / size))
}

/// The columns as numbers.
fn write_table(out: &mut String, pauses: &[(Duration, Duration, u64)]) -> fmt::Result {
    out.push_str(
        "<details>\n<summary>As numbers</summary>\n<table class=\"many\">\n<thead><tr>\
         <th scope=\"col\">from</th><th scope=\"col\">below</th>\
         <th scope=\"col\" class=\"number\">pauses</th></tr></thead>\n<tbody>\n",
    );
    for (from, to, count) in pauses {
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td></tr>",
            Time(*from),
            Time(*to),
            Count(*count)
        )?;
    }
    out.push_str("</tbody>\n</table>\n</details>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fit_above_their_columns() {
        assert_eq!(short(65_536, 60.0), "65,536");
        assert_eq!(short(65_536, 23.0), "65k");
        assert_eq!(short(64, 23.0), "64");
        assert_eq!(short(2_500_000, 23.0), "2M");
    }
}
