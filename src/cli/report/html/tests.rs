//! The page is a whole one whatever the run was like.

use std::path::Path;

use super::*;
use crate::cli::summary::{Summary, Tally};
use crate::daemon::Run;
use crate::daemon::memory::MemorySeen;
use crate::daemon::timeline::{Mark, Point, Timeline};
use crate::heap::HeapTotals;
use crate::pipeline::TimeCounts;
use crate::pipeline::fingerprints::CacheStats;
use crate::pressure::level::Thresholds;
use crate::pressure::limits::{LimitSource, Limits};

pub(super) fn point(millis: u64, mode: Mode, done_bytes: u64) -> Point {
    Point {
        at: Duration::from_millis(millis),
        mode,
        resident_bytes: 0,
        anonymous_bytes: 0,
        threshold_bytes: 0,
        critical_bytes: 0,
        limit_bytes: 0,
        owners: Owners::default(),
        done_bytes,
    }
}

pub(super) fn mark(millis: u64, what: MarkKind) -> Mark {
    Mark {
        at: Duration::from_millis(millis),
        what,
        planned_bytes: 0,
        freed_bytes: 7,
        took: Duration::ZERO,
    }
}

/// The page of a run that went like this.
fn page_of(store: &str, timeline: &Timeline, seconds: f64, pauses: &[(usize, u64)]) -> String {
    let mut heaps = HeapTotals::default();
    for (at, count) in pauses {
        heaps.pauses[*at] = *count;
    }
    let thresholds = Thresholds::new(1, 2, 3, 4).unwrap();
    let run = Run {
        outcome: (),
        memory: MemorySeen::default(),
        mode_changes: 0,
        signal: None,
        took: Duration::from_secs_f64(seconds),
        timeline: None,
    };
    let cache = CacheStats::default();
    page(&Report {
        store: Path::new(store),
        summary: &Summary::new(
            &Tally::default(),
            &run,
            &thresholds,
            cache,
            &heaps,
            &TimeCounts::default(),
        ),
        read_bytes: 0,
        timeline,
        limits: &Limits {
            source: LimitSource::Configured,
            thresholds,
            why: vec!["<why>".to_owned()],
        },
        heaps: &heaps,
        signal: Some(15),
        error: Some("a & b".to_owned()),
    })
}

/// Fails where a number is none, or where an element that was opened is not closed in its turn.
#[track_caller]
fn assert_whole(page: &str) {
    for none in ["NaN", "inf\"", "inf ", "inf,"] {
        assert!(!page.contains(none), "{none} in {page}");
    }
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("an element without an end");
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{page}");
        } else if !["!doctype", "meta"].contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn a_page_is_whole_however_little_or_much_there_was() {
    let mut timeline = Timeline::new();
    let nothing = page_of("store", &timeline, 0.0, &[]);
    assert_whole(&nothing);
    assert!(nothing.contains("Nothing was done."));
    assert!(nothing.contains("There were none."));

    timeline.point(point(0, Mode::Normal, 0));
    let one = page_of("store", &timeline, 0.0, &[(0, 1)]);
    assert_whole(&one);
    assert!(one.contains("Nothing was read."));

    let all = u64::MAX;
    let greatest = Point {
        resident_bytes: all,
        anonymous_bytes: all,
        threshold_bytes: all,
        critical_bytes: all,
        limit_bytes: all,
        owners: Owners {
            chunks: all,
            frames: all,
            compression: all,
            fingerprints: all,
            idle: all,
            database: all,
            rest: all,
        },
        ..point(u64::MAX, Mode::Critical, all)
    };
    timeline.point(greatest);
    timeline.mark(mark(u64::MAX, MarkKind::Trim));
    let counts: Vec<_> = (0..heap_buckets()).map(|at| (at, all)).collect();
    assert_whole(&page_of("store", &timeline, 1e18, &counts));
}

fn heap_buckets() -> usize {
    HeapTotals::default().pauses.len()
}

#[test]
fn what_comes_from_elsewhere_is_text() {
    let mut timeline = Timeline::new();
    timeline.point(point(0, Mode::Normal, 0));
    let (from, to) = (Mode::Normal, Mode::Critical);
    let why = "<script>".to_owned();
    timeline.mark(mark(0, MarkKind::ModeChange { from, to, why }));
    let page = page_of("/a<b>&\"c", &timeline, 1.0, &[]);
    assert_whole(&page);
    assert!(page.contains("<code>/a&lt;b&gt;&amp;&quot;c</code>"));
    assert!(page.contains("normal to critical: &lt;script&gt;"));
    assert!(page.contains("<li>&lt;why&gt;</li>"));
    assert!(page.contains("a &amp; b"));
    assert!(page.contains("Stopped by signal 15."));
}

#[test]
fn markup_in_text_is_text() {
    let escaped = Escaped("<a href=\"x\">&'").to_string();
    assert_eq!(escaped, "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
}

#[test]
fn times_have_the_unit_that_suits_them() {
    let shown = |nanos| Time(Duration::from_nanos(nanos)).to_string();
    assert_eq!(shown(0), "0 s");
    assert_eq!(shown(512), "512 ns");
    assert_eq!(shown(65_536), "66 µs");
    assert_eq!(shown(1_500_000), "1.5 ms");
    assert_eq!(shown(4_910_000_000), "4.91 s");
    assert_eq!(shown(125_000_000_000), "2 min 05 s");
    assert_eq!(shown(7_260_000_000_000), "2 h 01 min");
}
