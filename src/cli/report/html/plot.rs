//! What the pictures have in common: where they begin and end, and how numbers become places.
//!
//! The rule that must hold: **every place is a number within the picture**, whatever goes in.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::cli::output::Size;

/// The width of a picture.
pub(super) const WIDTH: f64 = 960.0;
/// Where curves begin.
pub(super) const LEFT: f64 = 80.0;
/// Where curves end. The rest is for the names of lines, which would be hard to read upon a curve.
pub(super) const RIGHT: f64 = 824.0;
/// Where names of lines begin.
pub(super) const BESIDE: f64 = RIGHT + 8.0;

/// Heights for values from 0 up.
pub(super) struct Scale {
    step: f64,
    most: f64,
    top: f64,
    bottom: f64,
}

impl Scale {
    /// Lines at a power of two apart.
    pub(super) fn of_bytes(most: u64, top: f64, bottom: f64) -> Scale {
        let step = most.div_ceil(6).max(1).next_power_of_two();
        Scale::new(step as f64, most as f64, top, bottom)
    }

    /// Lines at 1, 2, 5, 10, 20, ... apart.
    pub(super) fn of_tens(most: f64, top: f64, bottom: f64) -> Scale {
        Scale::new(round_step(most / 4.0), most, top, bottom)
    }

    fn new(step: f64, most: f64, top: f64, bottom: f64) -> Scale {
        Scale {
            step,
            most: (most / step).ceil().max(1.0) * step,
            top,
            bottom,
        }
    }

    /// The height of a value.
    pub(super) fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * (value / self.most).clamp(0.0, 1.0)
    }

    /// The height of so many bytes.
    pub(super) fn y_of(&self, bytes: u64) -> f64 {
        self.y(bytes as f64)
    }

    /// Draws its lines, with sizes at the left.
    pub(super) fn draw_sizes(&self, out: &mut String) -> fmt::Result {
        self.draw(out, |value| Size(value as u64).to_string())
    }

    /// Draws its lines, with bytes a second at the left.
    pub(super) fn draw_rates(&self, out: &mut String) -> fmt::Result {
        let places = places(self.step / 1e6);
        self.draw(out, |value| format!("{:.places$} MB/s", value / 1e6))
    }

    fn draw(&self, out: &mut String, label: impl Fn(f64) -> String) -> fmt::Result {
        let steps = (self.most / self.step).round() as u32;
        for number in 1..=steps {
            let value = self.step * f64::from(number);
            let (y, label) = (self.y(value), label(value));
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"end\" x=\"{}\" y=\"{:.1}\">{label}</text>",
                LEFT - 8.0,
                y + 4.0
            )?;
        }
        Ok(())
    }
}

/// Places for moments, the same in all pictures.
pub(super) struct TimeAxis {
    seconds: f64,
}

impl TimeAxis {
    /// From the beginning to the last moment.
    pub(super) fn new(last: Duration) -> TimeAxis {
        TimeAxis {
            seconds: last.as_secs_f64().max(1e-3),
        }
    }

    /// The place of a moment.
    pub(super) fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * (at.as_secs_f64() / self.seconds).clamp(0.0, 1.0)
    }

    /// Draws it at this height.
    pub(super) fn draw(&self, out: &mut String, y: f64) -> fmt::Result {
        writeln!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y}\" y2=\"{y}\"/>"
        )?;
        let (unit, name) = match self.seconds {
            ..1.0 => (1e-3, "ms"),
            ..180.0 => (1.0, "s"),
            ..10_800.0 => (60.0, "min"),
            _ => (3600.0, "h"),
        };
        let step = round_step(self.seconds / unit / 8.0);
        let steps = (self.seconds / unit / step + 1e-9).floor() as u32;
        let places = places(step);
        for number in 0..=steps {
            let value = step * f64::from(number);
            let x = LEFT + (RIGHT - LEFT) * (value * unit / self.seconds).clamp(0.0, 1.0);
            writeln!(
                out,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{}\"/>\
                 <text class=\"middle\" x=\"{x:.1}\" y=\"{}\">{value:.places$} {name}</text>",
                y + 4.0,
                y + 19.0
            )?;
        }
        Ok(())
    }
}

/// How many places it takes to tell numbers apart that lie a step apart.
fn places(step: f64) -> usize {
    if step < 1.0 {
        -step.max(1e-9).log10().floor() as usize
    } else {
        0
    }
}

/// The least of 1, 2, 5, 10, 20, ... and of their tenths that is not less.
fn round_step(least: f64) -> f64 {
    let ten = 10_f64.powf(least.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * ten);
    let found = steps.into_iter().find(|step| *step >= least * 0.999);
    found.unwrap_or(steps[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!(round_step(0.3), 0.5);
        assert_eq!(round_step(7.0), 10.0);
        assert_eq!(round_step(20.0), 20.0);
        assert_eq!([0.05, 0.5, 1.0, 20.0].map(places), [2, 1, 0, 0]);
        let scale = Scale::of_bytes(23 << 20, 0.0, 100.0);
        assert_eq!(
            (scale.step, scale.most),
            ((4 << 20) as f64, (24 << 20) as f64)
        );
        assert_eq!((scale.y(0.0), scale.y(scale.most)), (100.0, 0.0));
    }

    #[test]
    fn places_are_in_the_picture_whatever_the_numbers() {
        for most in [0, 1, u64::MAX] {
            let scale = Scale::of_bytes(most, 10.0, 20.0);
            for bytes in [0, 1, u64::MAX] {
                assert!((10.0..=20.0).contains(&scale.y_of(bytes)), "{bytes}");
            }
            let mut drawn = String::new();
            scale.draw_sizes(&mut drawn).unwrap();
            assert!((1..10).contains(&drawn.lines().count()), "{drawn}");
        }
        for last in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let axis = TimeAxis::new(last);
            for at in [Duration::ZERO, last, Duration::MAX] {
                assert!((LEFT..=RIGHT).contains(&axis.x(at)), "{at:?}");
            }
            let mut drawn = String::new();
            axis.draw(&mut drawn, 1.0).unwrap();
            assert!((2..14).contains(&drawn.lines().count()), "{drawn}");
        }
    }
}
