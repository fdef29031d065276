//! The table: what was measured, its bound, and the verdict.
//!
//! A row has hard checks, which must hold on any machine (nobody killed, nothing wrong, all finished),
//! and soft ones, which compare times or sizes. A soft one that does not hold is printed as a miss and
//! fails nothing, unless `CONTRACT_STRICT=1`: a benchmark on a busy machine is not a test of it.

use std::fmt::Display;

/// How a row came out; the worst of its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Nothing to hold it against.
    Noted,
    /// All bounds hold.
    Pass,
    /// A time or a size is out of its bound.
    Miss,
    /// What must hold anywhere does not.
    Fail,
}

/// What was measured of one thing.
#[derive(Debug)]
pub(crate) struct Row {
    what: String,
    measured: Vec<String>,
    bounds: Vec<String>,
    verdict: Verdict,
}

impl Row {
    /// A row without checks.
    pub(crate) fn new(what: impl Display) -> Row {
        Row {
            what: what.to_string(),
            measured: Vec::new(),
            bounds: Vec::new(),
            verdict: Verdict::Noted,
        }
    }

    /// A hard check.
    pub(crate) fn must(self, measured: impl Display, bound: impl Display, holds: bool) -> Row {
        let verdict = if holds { Verdict::Pass } else { Verdict::Fail };
        self.check(measured, bound, verdict)
    }

    /// A soft check.
    pub(crate) fn should(self, measured: impl Display, bound: impl Display, holds: bool) -> Row {
        let verdict = if holds { Verdict::Pass } else { Verdict::Miss };
        self.check(measured, bound, verdict)
    }

    /// A number without a bound.
    pub(crate) fn note(mut self, measured: impl Display) -> Row {
        self.measured.push(measured.to_string());
        self
    }

    fn check(mut self, measured: impl Display, bound: impl Display, verdict: Verdict) -> Row {
        let mark = if verdict > Verdict::Pass { "! " } else { "" };
        self.measured.push(format!("{mark}{measured}"));
        self.bounds.push(bound.to_string());
        self.verdict = self.verdict.max(verdict);
        self
    }
}

/// The rows so far, printed as they come.
#[derive(Debug)]
pub(crate) struct Table {
    worst: Verdict,
    rows: u64,
    missed: u64,
    failed: u64,
}

impl Table {
    /// Prints the head.
    pub(crate) fn begin() -> Table {
        let line = |length| "-".repeat(length);
        println!(
            "| {:<42} | {:<88} | {:<40} | result |",
            "what", "measured", "bound"
        );
        println!("|{}|{}|{}|--------|", line(44), line(90), line(42));
        Table {
            worst: Verdict::Noted,
            rows: 0,
            missed: 0,
            failed: 0,
        }
    }

    /// Prints a row.
    pub(crate) fn add(&mut self, row: &Row) {
        let result = match row.verdict {
            Verdict::Noted => "",
            Verdict::Pass => "pass",
            Verdict::Miss => "miss",
            Verdict::Fail => "FAIL",
        };
        println!(
            "| {:<42} | {:<88} | {:<40} | {result:<6} |",
            row.what,
            row.measured.join(", "),
            row.bounds.join(", ")
        );
        self.rows += 1;
        self.missed += u64::from(row.verdict == Verdict::Miss);
        self.failed += u64::from(row.verdict == Verdict::Fail);
        self.worst = self.worst.max(row.verdict);
    }

    /// Prints the counts and gives the worst verdict.
    pub(crate) fn end(self) -> Verdict {
        println!(
            "{} rows, {} missed a bound, {} failed",
            self.rows, self.missed, self.failed
        );
        self.worst
    }
}
