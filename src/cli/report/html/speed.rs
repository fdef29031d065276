//! Throughput over time, under the same axis as memory, so that one can see what a mode costs.

use std::fmt::{self, Write};

use super::plot::{BESIDE, LEFT, RIGHT, Scale, TimeAxis, WIDTH};
use super::{Report, Time, rate};
use crate::daemon::timeline::Point;

/// Steps of the curve at most.
const MOST_STEPS: usize = 120;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 154.0;

/// Bytes dealt with in each stretch of time.
pub(super) fn write(out: &mut String, report: &Report<'_>, points: &[Point]) -> fmt::Result {
    let Some(last) = points.last() else {
        return Ok(());
    };
    out.push_str("<section>\n<h2>Throughput</h2>\n");
    let rates = rates(points);
    let most = rates.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        out.push_str("<p>Nothing was read.</p>\n</section>\n");
        return Ok(());
    }
    let axis = TimeAxis::new(last.at);
    let scale = Scale::of_tens(most.max(1e6), TOP, BOTTOM);
    writeln!(
        out,
        "<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} 180\" role=\"img\" \
         aria-labelledby=\"rate-title rate-desc\">\n\
         <title id=\"rate-title\">Throughput over {}</title>\n\
         <desc id=\"rate-desc\">{:.0} MB/s at most.</desc>",
        Time(last.at),
        most / 1e6
    )?;
    scale.draw_rates(out)?;
    let mut outline = format!("M{LEFT} {BOTTOM}");
    let step = (RIGHT - LEFT) / rates.len() as f64;
    for (number, rate) in (1_u32..).zip(&rates) {
        let x = LEFT + step * f64::from(number);
        write!(outline, "V{:.1}H{x:.1}", scale.y(*rate))?;
    }
    writeln!(out, "<path class=\"rate\" d=\"{outline}V{BOTTOM}z\"/>")?;
    // What was read of a file that was not stored in the end is in the curve, but not in the sums.
    if report.read_bytes > 0 {
        let y = scale.y(report.rate());
        writeln!(
            out,
            "<line class=\"line average\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"name\" x=\"{BESIDE}\" y=\"{:.1}\">average {}</text>",
            y + 4.0,
            rate(report)
        )?;
    }
    axis.draw(out, BOTTOM)?;
    out.push_str("</svg></div>\n</section>\n");
    Ok(())
}

/// Bytes a second in stretches of time of the same length.
fn rates(points: &[Point]) -> Vec<f64> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Vec::new();
    };
    let steps = points.len().saturating_sub(1).clamp(1, MOST_STEPS);
    let step = last.at.as_secs_f64() / steps as f64;
    if step <= 0.0 {
        return Vec::new();
    }
    let mut rest = points.iter();
    let (mut before, mut next) = (first, first);
    let mut done_at = |at: f64| {
        while next.at.as_secs_f64() < at {
            before = next;
            match rest.next() {
                Some(point) => next = point,
                None => break,
            }
        }
        let (from, to) = (before.at.as_secs_f64(), next.at.as_secs_f64());
        let share = if to > from {
            ((at - from) / (to - from)).clamp(0.0, 1.0)
        } else {
            1.0
        };
        let more = next.done_bytes.saturating_sub(before.done_bytes);
        before.done_bytes as f64 + more as f64 * share
    };
    let mut done = 0.0;
    (1..=steps)
        .map(|number| {
            let was = std::mem::replace(&mut done, done_at(step * number as f64));
            (done - was).max(0.0) / step
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;
    use crate::pressure::mode::Mode;

    #[test]
    fn rates_add_up_to_what_was_done() {
        let of = |millis, done| point(millis, Mode::Normal, done);
        let points = [of(0, 0), of(100, 5000), of(150, 5000), of(1000, 9000)];
        let rates = rates(&points);
        assert_eq!(rates.len(), 3);
        let sum: f64 = rates.iter().map(|rate| rate / 3.0).sum();
        assert!((sum - 9000.0).abs() < 1.0, "{rates:?}");
        assert!(rates[0] > rates[2]);
        assert!(super::rates(&[]).is_empty());
        assert!(super::rates(&points[..1]).is_empty());
    }
}
