//! A record of a run that stays small however long the run takes.
//!
//! The rule that must hold: **no peak is lost.** When there is no room for more points, neighbours are
//! merged in pairs; of memory the greater stays, of counters the later, and from then on points lie
//! twice as far apart. What is summed up over all points and marks is kept beside them, so that a sum
//! does not depend on what was merged or dropped.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::pressure::mode::Mode;

/// Points kept at most.
pub const MOST_POINTS: usize = 1024;
/// Marks kept at most.
pub const MOST_MARKS: usize = 512;
/// Points nearer to each other than this are one from the beginning: nobody sees them apart.
const FIRST_SPACING: Duration = Duration::from_millis(5);

/// Who holds how much of the memory, in bytes, by filed's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owners {
    /// Buffers with chunks of files.
    pub chunks: u64,
    /// Buffers with frames and records of the store.
    pub frames: u64,
    /// Contexts of the compressor.
    pub compression: u64,
    /// The cache of known pieces.
    pub fingerprints: u64,
    /// Buffers that nobody uses and that are kept for the next who does.
    pub idle: u64,
    /// The database's page cache.
    pub database: u64,
    /// All that is resident beside these: code, stacks, what malloc holds.
    pub rest: u64,
}

impl Owners {
    /// The same with the rest of `resident_bytes` that the others leave.
    #[must_use]
    pub fn of_resident(self, resident_bytes: u64) -> Owners {
        let known = [
            self.chunks,
            self.frames,
            self.compression,
            self.fingerprints,
            self.idle,
            self.database,
        ];
        let known = known.into_iter().fold(0, u64::saturating_add);
        Owners {
            rest: resident_bytes.saturating_sub(known),
            ..self
        }
    }
}

/// How things are at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Since the work began.
    #[serde(rename = "at_seconds", serialize_with = "seconds")]
    pub at: Duration,
    /// The mode.
    pub mode: Mode,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Of that, what no file stands behind.
    pub anonymous_bytes: u64,
    /// The threshold that applies.
    pub threshold_bytes: u64,
    /// From here on filed is in critical mode.
    pub critical_bytes: u64,
    /// The limit that applies.
    pub limit_bytes: u64,
    /// Who holds it.
    pub owners: Owners,
    /// Bytes of files dealt with so far.
    pub done_bytes: u64,
}

impl Point {
    /// One point for this and a later one.
    fn merged(self, later: Point) -> Point {
        // The owners of one moment, so that they still add up to what was resident then.
        let greater = if later.resident_bytes >= self.resident_bytes {
            &later
        } else {
            &self
        };
        Point {
            at: later.at,
            mode: self.mode.max(later.mode),
            resident_bytes: greater.resident_bytes,
            anonymous_bytes: self.anonymous_bytes.max(later.anonymous_bytes),
            threshold_bytes: later.threshold_bytes,
            critical_bytes: later.critical_bytes,
            limit_bytes: later.limit_bytes,
            owners: greater.owners,
            done_bytes: later.done_bytes,
        }
    }
}

/// Something that was done about memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// Since the work began.
    #[serde(rename = "at_seconds", serialize_with = "seconds")]
    pub at: Duration,
    /// What it was.
    #[serde(flatten)]
    pub what: MarkKind,
    /// What it could have freed at most, as far as that was known before; else 0.
    pub planned_bytes: u64,
    /// What it did free, as far as that was seen.
    pub freed_bytes: u64,
    /// How long it took.
    #[serde(rename = "took_seconds", serialize_with = "seconds")]
    pub took: Duration,
}

/// What was done about memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum MarkKind {
    /// The mode changed. Freed is what was resident less after what followed at once.
    ModeChange {
        /// The mode that was left.
        from: Mode,
        /// The mode that was entered.
        to: Mode,
        /// The numbers that caused it.
        why: String,
    },
    /// Idle buffers went back to the operating system.
    Trim,
    /// Everything on the heap was collected.
    Collection,
    /// The cache of known pieces was made smaller.
    CacheShrunk,
    /// The database gave up cached pages.
    DatabaseShrunk,
    /// malloc gave back free pages.
    MallocTrim,
}

impl MarkKind {
    /// Whether what it frees goes back to the operating system by itself. What a collection frees is
    /// only free on the heap, and what a change of mode brings about has marks of its own.
    #[must_use]
    pub fn gives_back(&self) -> bool {
        match self {
            MarkKind::Trim | MarkKind::DatabaseShrunk | MarkKind::MallocTrim => true,
            MarkKind::ModeChange { .. } | MarkKind::Collection | MarkKind::CacheShrunk => false,
        }
    }
}

/// A bounded record of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    points: Vec<Point>,
    marks: VecDeque<Mark>,
    /// The oldest marks, which had to go.
    dropped_marks: u64,
    /// Sum over all marks that give memory back, dropped ones included.
    given_back_bytes: u64,
    #[serde(skip)]
    spacing: Duration,
    /// When the last point's stretch of time began.
    #[serde(skip)]
    began: Duration,
    /// The time and the mode of the latest point, as it came in.
    #[serde(skip)]
    latest: (Duration, Mode),
    #[serde(skip)]
    time_in: [Duration; 3],
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline::new()
    }
}

impl Timeline {
    /// An empty one.
    #[must_use]
    pub fn new() -> Timeline {
        Timeline {
            points: Vec::new(),
            marks: VecDeque::new(),
            dropped_marks: 0,
            given_back_bytes: 0,
            spacing: FIRST_SPACING,
            began: Duration::ZERO,
            latest: (Duration::ZERO, Mode::Normal),
            time_in: [Duration::ZERO; 3],
        }
    }

    /// Adds a point; points come in the order of time.
    pub fn point(&mut self, point: Point) {
        let near = point.at.saturating_sub(self.began) < self.spacing;
        match self.points.last_mut() {
            Some(last) if near => {
                *last = last.merged(point);
                self.pass_time(point);
            }
            _ => self.end(point),
        }
    }

    /// Adds a point that is not merged with the one before: how things are at the end.
    pub fn end(&mut self, point: Point) {
        if self.points.len() == MOST_POINTS {
            let pairs = self.points.chunks(2);
            self.points = pairs
                .map(|pair| match *pair {
                    [one, later] => one.merged(later),
                    _ => pair[0],
                })
                .collect();
            self.spacing *= 2;
        }
        self.began = point.at;
        self.points.push(point);
        self.pass_time(point);
    }

    fn pass_time(&mut self, point: Point) {
        let (at, mode) = self.latest;
        self.time_in[mode as usize] += point.at.saturating_sub(at);
        self.latest = (point.at, point.mode);
    }

    /// Adds a mark; the oldest goes if there are too many.
    pub fn mark(&mut self, mark: Mark) {
        if self.marks.len() == MOST_MARKS {
            self.marks.pop_front();
            self.dropped_marks += 1;
        }
        if mark.what.gives_back() {
            self.given_back_bytes = self.given_back_bytes.saturating_add(mark.freed_bytes);
        }
        // What took long may have begun before what is there already.
        let before = self.marks.iter().rposition(|other| other.at <= mark.at);
        self.marks.insert(before.map_or(0, |at| at + 1), mark);
    }

    /// The points in order.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The marks in order.
    pub fn marks(&self) -> impl ExactSizeIterator<Item = &Mark> {
        self.marks.iter()
    }

    /// How many marks had to go.
    #[must_use]
    pub fn dropped_marks(&self) -> u64 {
        self.dropped_marks
    }

    /// What all marks together gave back to the operating system, in bytes.
    #[must_use]
    pub fn given_back_bytes(&self) -> u64 {
        self.given_back_bytes
    }

    /// How long a mode lasted, from the beginning, when it is normal, to the last point.
    #[must_use]
    pub fn time_in(&self, mode: Mode) -> Duration {
        self.time_in[mode as usize]
    }
}

/// Writes a time as seconds.
fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: Duration, resident_bytes: u64, done_bytes: u64) -> Point {
        Point {
            at,
            mode: Mode::Normal,
            resident_bytes,
            anonymous_bytes: resident_bytes / 2,
            threshold_bytes: 100,
            critical_bytes: 150,
            limit_bytes: 200,
            owners: Owners::default().of_resident(resident_bytes),
            done_bytes,
        }
    }

    fn mark(number: u64, what: MarkKind) -> Mark {
        Mark {
            at: Duration::from_millis(number),
            what,
            planned_bytes: 0,
            freed_bytes: number,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn a_million_points_stay_bounded_and_no_peak_is_lost() {
        let mut timeline = Timeline::new();
        for number in 0..1_000_000_u64 {
            let at = Duration::from_millis(100 * number);
            let resident = if number == 123_457 {
                1 << 40
            } else {
                number % 977
            };
            let mode = if number % 4 == 0 {
                Mode::Critical
            } else {
                Mode::Normal
            };
            timeline.point(Point {
                mode,
                ..point(at, resident, number)
            });
            assert!(timeline.points().len() <= MOST_POINTS);
        }
        let points = timeline.points();
        assert!(points.len() >= MOST_POINTS / 2, "{}", points.len());
        let peak = points
            .iter()
            .max_by_key(|point| point.resident_bytes)
            .unwrap();
        assert_eq!(peak.resident_bytes, 1 << 40);
        assert_eq!(peak.owners.rest, 1 << 40);
        assert_eq!(peak.anonymous_bytes, 1 << 39);
        // It is still where it was, give or take the distance of points.
        let at = peak.at.as_secs_f64();
        assert!((12_345.7..12_345.7 + 400.0).contains(&at), "{at}");
        assert!(
            points.is_sorted_by(|one, next| one.at < next.at && one.done_bytes < next.done_bytes)
        );
        assert_eq!(points.last().unwrap().done_bytes, 999_999);
        assert_eq!(points.last().unwrap().at, Duration::from_millis(99_999_900));
        // Time counts as it passed, not as points were merged.
        assert_eq!(
            timeline.time_in(Mode::Critical),
            Duration::from_secs(25_000)
        );
        assert_eq!(
            timeline.time_in(Mode::Normal),
            Duration::from_millis(74_999_900)
        );
        assert_eq!(timeline.time_in(Mode::Aggressive), Duration::ZERO);
    }

    #[test]
    fn points_of_one_moment_are_one_except_the_end() {
        let mut timeline = Timeline::new();
        for number in 0..10_000 {
            timeline.point(point(Duration::from_millis(1), 10 + number % 7, number));
        }
        assert_eq!(timeline.points().len(), 1);
        assert_eq!(timeline.points()[0].resident_bytes, 16);
        timeline.end(point(Duration::from_millis(1), 3, 10_000));
        assert_eq!(timeline.points().len(), 2);
        assert_eq!(timeline.points()[1].resident_bytes, 3);
    }

    #[test]
    fn the_oldest_marks_go_and_are_counted_and_sums_stay() {
        let mut timeline = Timeline::new();
        for number in 0..1000 {
            let what = if number % 2 == 0 {
                MarkKind::Trim
            } else {
                MarkKind::Collection
            };
            timeline.mark(mark(number, what));
        }
        assert_eq!(timeline.marks().len(), MOST_MARKS);
        assert_eq!(timeline.dropped_marks(), 488);
        assert_eq!(timeline.marks().next().unwrap().freed_bytes, 488);
        assert_eq!(
            timeline.given_back_bytes(),
            (0..1000).step_by(2).sum::<u64>()
        );
    }

    #[test]
    fn the_rest_is_what_owners_leave_and_never_negative() {
        let owners = Owners {
            chunks: 5,
            idle: 2,
            ..Owners::default()
        };
        assert_eq!(owners.of_resident(10).rest, 3);
        assert_eq!(owners.of_resident(6).rest, 0);
    }

    #[test]
    fn it_is_written_as_plain_numbers_and_words() {
        let mut timeline = Timeline::new();
        timeline.point(point(Duration::from_millis(1500), 7, 1));
        let (from, to) = (Mode::Normal, Mode::Critical);
        let why = "so".to_owned();
        timeline.mark(mark(250, MarkKind::ModeChange { from, to, why }));
        let value = serde_json::to_value(&timeline).unwrap();
        assert_eq!(value["points"][0]["at_seconds"], 1.5);
        assert_eq!(value["points"][0]["mode"], "normal");
        assert_eq!(value["points"][0]["owners"]["rest"], 7);
        assert_eq!(value["marks"][0]["what"], "mode_change");
        assert_eq!(value["marks"][0]["to"], "critical");
        assert_eq!(value["marks"][0]["at_seconds"], 0.25);
    }
}
