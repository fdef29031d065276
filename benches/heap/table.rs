//! The table: what was measured, against what, and whether that is what was aimed at.

use crate::measure::Series;

/// What a row aims at.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    /// Ours divided by the anchor's, at most.
    Ratio(f64),
    /// Ours, at most.
    AtMost(f64),
    /// Ours, at least.
    AtLeast(f64),
    /// Nothing: for comparison.
    Seen,
}

/// How a number is written.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Nanos,
    Micros,
    Millis,
    Bytes,
    MiB,
    Percent,
    PerSecond,
    Times,
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        if value.is_nan() {
            return "-".into();
        }
        let digits = |value: f64| match value.abs() {
            0.0..10.0 => 2,
            10.0..1000.0 => 1,
            _ => 0,
        };
        let (name, value) = match self {
            Self::Nanos => ("ns", value * 1e9),
            Self::Micros => ("us", value * 1e6),
            Self::Millis => ("ms", value * 1e3),
            Self::Bytes => ("B", value),
            Self::MiB => ("MiB", value / f64::from(1 << 20)),
            Self::Percent => ("%", value * 100.0),
            Self::PerSecond => ("/s", value),
            Self::Times => ("x", value),
            Self::Count => return format!("{value:.0}"),
        };
        format!("{value:.*} {name}", digits(value))
    }

    fn show_series(self, series: &Series) -> String {
        if series.is_single() {
            self.show(series.median())
        } else {
            format!(
                "{} ({})",
                self.show(series.median()),
                self.show(series.min())
            )
        }
    }
}

/// A line of the table.
pub(crate) struct Row {
    what: String,
    unit: Unit,
    ours: Series,
    anchor: Option<(String, Series)>,
    aim: Aim,
}

/// All lines, by target.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<(u8, Row)>,
    target: u8,
}

impl Table {
    pub(crate) fn start(&mut self, target: u8) {
        self.target = target;
    }

    /// Adds a line with an anchor.
    pub(crate) fn against(
        &mut self,
        what: &str,
        unit: Unit,
        ours: &Series,
        (anchor, theirs): (&str, &Series),
        aim: Aim,
    ) {
        let row = Row {
            what: what.into(),
            unit,
            ours: ours.clone(),
            anchor: Some((anchor.into(), theirs.clone())),
            aim,
        };
        self.rows.push((self.target, row));
    }

    /// Adds a line with an anchor that may be missing: then without.
    pub(crate) fn against_one(
        &mut self,
        what: &str,
        unit: Unit,
        ours: &Series,
        (anchor, theirs): (&str, Option<f64>),
        aim: Aim,
    ) {
        if let Some(theirs) = theirs {
            self.against(what, unit, ours, (anchor, &Series::one(theirs)), aim);
        } else if let Aim::Ratio(_) = aim {
            self.alone(what, unit, ours, Aim::Seen);
        } else {
            self.alone(what, unit, ours, aim);
        }
    }

    /// Adds a line without an anchor.
    pub(crate) fn alone(&mut self, what: &str, unit: Unit, ours: &Series, aim: Aim) {
        let row = Row {
            what: what.into(),
            unit,
            ours: ours.clone(),
            anchor: None,
            aim,
        };
        self.rows.push((self.target, row));
    }

    /// Prints the lines that were added since `from`; gives where to go on.
    pub(crate) fn print_from(&self, from: usize) -> usize {
        if from == 0 {
            print_cells(&["#", "what", "ours", "anchor", "ratio", "target", ""].map(String::from));
        }
        for (target, row) in &self.rows[from..] {
            print_cells(&row.cells(*target));
        }
        self.rows.len()
    }

    /// How many aims there are, and how many of them were met.
    pub(crate) fn verdict(&self) -> (usize, usize) {
        let verdicts = self.rows.iter().filter_map(|(_, row)| row.missed_by());
        let missed: Vec<bool> = verdicts.map(|by| by > 0.0).collect();
        (
            missed.len(),
            missed.iter().filter(|missed| !**missed).count(),
        )
    }
}

impl Row {
    fn ratio(&self) -> f64 {
        let anchor = self.anchor.as_ref();
        anchor.map_or(f64::NAN, |(_, theirs)| self.ours.ratio_to(theirs))
    }

    /// By which share the aim was missed; not above zero if it was met.
    fn missed_by(&self) -> Option<f64> {
        match self.aim {
            Aim::Ratio(most) => Some(self.ratio() / most - 1.0),
            Aim::AtMost(0.0) => Some(self.ours.median()),
            Aim::AtMost(most) => Some(self.ours.median() / most - 1.0),
            Aim::AtLeast(least) => Some(1.0 - self.ours.median() / least),
            Aim::Seen => None,
        }
    }

    fn cells(&self, target: u8) -> [String; 7] {
        let ratio = self.ratio();
        let anchor = self.anchor.as_ref().map(|(name, theirs)| {
            let name = name.clone();
            name + " " + &self.unit.show_series(theirs)
        });
        [
            target.to_string(),
            self.what.clone(),
            self.unit.show_series(&self.ours),
            anchor.unwrap_or_default(),
            match ratio {
                none if !none.is_finite() => String::new(),
                small if small < 0.1 => format!("{small:.4}x"),
                ratio => format!("{ratio:.2}x"),
            },
            match self.aim {
                Aim::Ratio(most) => format!("<= {most:.2}x"),
                Aim::AtMost(most) => format!("<= {}", self.unit.show(most)),
                Aim::AtLeast(least) => format!(">= {}", self.unit.show(least)),
                Aim::Seen => String::new(),
            },
            match self.missed_by() {
                None => String::new(),
                Some(by) if by <= 0.0 => "met".into(),
                Some(by) => format!("missed by {:.1} %", by * 100.0),
            },
        ]
    }
}

fn print_cells(cells: &[String; 7]) {
    let [target, what, ours, anchor, ratio, aim, verdict] = cells;
    println!("{target:>2} {what:<48} {ours:>21} {anchor:>34} {ratio:>9} {aim:>12} {verdict}");
}
