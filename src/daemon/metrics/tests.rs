use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use super::seen::{Queue, Seen};
use super::text_of;
use crate::daemon::inbox::InboxStats;
use crate::daemon::jobs::Counts;
use crate::daemon::service::board::Board;
use crate::daemon::service::desk::{Ends, Flow};
use crate::daemon::socket::wire::Owners;
use crate::daemon::tuning::Plan;
use crate::heap::{HeapTotals, Pool};
use crate::pipeline::Times;
use crate::pipeline::scrub::{ScrubState, ScrubStatus};
use crate::pressure::level::Thresholds;
use crate::pressure::probe::group::GroupUsage;
use crate::store::heal::DamageCount;

const DOCUMENT: &str = include_str!("../../../config/monitoring/README.md");
const RULES: &str = include_str!("../../../config/monitoring/filed.rules.yml");
const DASHBOARD: &str = include_str!("../../../config/monitoring/filed-dashboard.json");

/// A scrape that has seen everything there can be.
fn everything() -> Seen {
    let plan = Plan {
        workers: 2,
        buffer_bytes: 8 << 20,
        cache_bytes: 4 << 20,
    };
    let marks = Thresholds::new(50, 60, 80, 100).unwrap();
    let mut shown = Board::new(marks, Vec::new(), plan).read();
    shown.headroom_bytes = Some(7);
    shown.group = Some(GroupUsage::default());
    shown.problem = Some("the disk is full".to_owned());
    let times = Times::default();
    for micros in [3, 100, 200_000_000] {
        times.add(Duration::from_micros(micros));
    }
    let mut heap = HeapTotals {
        total_pause: Duration::from_millis(3),
        ..HeapTotals::default()
    };
    heap.pauses[3] = 1;
    heap.pauses[20] = 2;
    heap.pauses[31] = 1;
    Seen {
        shown,
        owners: Owners {
            chunks_bytes: 1,
            frames_bytes: 2,
            transfers_bytes: 3,
            compression_bytes: 4,
            fingerprints_bytes: 5,
            idle_bytes: 6,
            database_bytes: 7,
            rest_bytes: 8,
        },
        pool: Pool::new(8 << 20).stats(),
        heap,
        jobs: Some(Queue {
            counts: Counts::default(),
            oldest_ns: Some(1_500_000_000),
        }),
        ends: Ends {
            stored: 1,
            failed: 2,
            cancelled: 3,
        },
        most_open: 10,
        flow: Flow::Paused,
        in_work: 1,
        workers: 1,
        outcomes: [1, 2, 3, 4],
        done_bytes: 1,
        new_bytes: 2,
        stored_bytes: 3,
        read_times: times.counts(),
        chunk_times: times.counts(),
        scrub: ScrubStatus {
            state: ScrubState::Running,
            pass_began_ns: Some(1),
            checked_bytes: 2,
            pass_total_bytes: 3,
            last_pass: Some(Duration::from_secs(4)),
            last_pass_ended_ns: Some(5),
            expected_pass: Some(Duration::from_secs(6)),
            read_bytes: 7,
            damage: DamageCount::default(),
        },
        inboxes: vec![InboxStats {
            path: "/srv/in \"a\"\n".into(),
            last_success_ns: Some(1),
            ..InboxStats::default()
        }],
    }
}

/// A family as the text tells of it.
#[derive(Debug, Default)]
struct Told {
    help: String,
    kind: String,
    unit: Option<String>,
    /// Name, labels and value of each sample.
    samples: Vec<(String, String, String)>,
}

fn read(text: &str) -> BTreeMap<String, Told> {
    let mut families = BTreeMap::<String, Told>::new();
    let mut current = String::new();
    let body = text.strip_suffix("# EOF\n").expect("ends as it must");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut parts = rest.splitn(3, ' ');
            let [what, name, said] = [(); 3].map(|()| parts.next().unwrap());
            if what == "HELP" {
                assert!(!families.contains_key(name), "{name} twice");
                current = name.to_owned();
            }
            assert_eq!(name, current, "{line}");
            let family = families.entry(name.to_owned()).or_default();
            match what {
                "HELP" => family.help = said.to_owned(),
                "TYPE" => family.kind = said.to_owned(),
                "UNIT" => family.unit = Some(said.to_owned()),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let sample = (name.to_owned(), labels.to_owned(), value.to_owned());
        families.get_mut(&current).unwrap().samples.push(sample);
    }
    families
}

fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        "gauge" => &[""],
        other => panic!("{other}"),
    }
}

/// Names of all series that queries may ask for.
fn series() -> BTreeSet<String> {
    let families = read(&text_of(everything()));
    let names = families.iter().flat_map(|(name, family)| {
        let suffixes = suffixes(&family.kind).iter();
        suffixes.map(move |suffix| format!("{name}{suffix}"))
    });
    names.collect()
}

/// The metrics that a query asks for.
fn asked(query: &str) -> Vec<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("filed_")).collect()
}

#[test]
fn every_family_has_a_meaning_a_unit_where_it_has_one_and_samples_of_its_name() {
    for (name, family) in read(&text_of(everything())) {
        assert!(name.starts_with("filed_"), "{name}");
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        for unit in ["bytes", "seconds"] {
            let named = name.ends_with(&format!("_{unit}"));
            assert_eq!(named, family.unit.as_deref() == Some(unit), "{name}");
        }
        assert!(!family.samples.is_empty(), "{name} has no samples");
        for (sample, ..) in &family.samples {
            let suffix = sample.strip_prefix(&name).unwrap();
            assert!(suffixes(&family.kind).contains(&suffix), "{sample}");
        }
    }
}

#[test]
fn every_family_is_documented_and_nothing_else() {
    let documented: BTreeMap<&str, (&str, &str, &str)> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim()).collect();
            let name = cells[0].trim_end_matches('`');
            (name, (cells[1], cells[2], cells[3]))
        })
        .collect();
    let mut known = BTreeSet::new();
    for (name, family) in read(&text_of(everything())) {
        let name = match family.kind.as_str() {
            "histogram" => name,
            kind => format!("{name}{}", suffixes(kind)[0]),
        };
        let row = documented.get(name.as_str());
        let (kind, label, means) = row.unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!((*kind, *means), (&*family.kind, &*family.help), "{name}");
        let labels = &family.samples[0].1;
        let found = labels.split_once('=').map_or("", |(label, _)| label);
        assert_eq!(*label, if found == "le" { "" } else { found }, "{name}");
        known.insert(name);
    }
    for name in documented.keys() {
        assert!(
            known.contains(*name),
            "{name} is documented and is not there"
        );
    }
}

#[test]
fn times_are_told_whole() {
    let families = read(&text_of(everything()));
    for (name, total, sum) in [
        ("filed_chunk_seconds", "3", "200.000103"),
        ("filed_heap_pause_seconds", "4", "0.003"),
    ] {
        let samples = &families[name].samples;
        assert_eq!((&*samples[0].2, &*samples[1].2), (sum, total));
        let buckets = &samples[2..];
        let (_, last, all) = buckets.last().unwrap();
        assert_eq!((&**last, &**all), ("le=\"+Inf\"}", total), "{name}");
        let mut before = (0.0, 0);
        for (_, bound, count) in &buckets[..buckets.len() - 1] {
            let bound = bound.trim_start_matches("le=\"").trim_end_matches("\"}");
            let now = (bound.parse::<f64>().unwrap(), count.parse().unwrap());
            assert!(now.0 > before.0 && now.1 >= before.1, "{name}: {bound}");
            before = now;
        }
        assert_eq!(before.1 + 1, total.parse::<u64>().unwrap(), "{name}");
    }
}

#[test]
fn what_cannot_be_told_is_left_out_and_the_rest_is_told() {
    let mut seen = everything();
    seen.jobs = None;
    seen.shown.group = None;
    seen.shown.headroom_bytes = None;
    let families = read(&text_of(seen));
    assert!(!families.contains_key("filed_jobs"));
    assert!(!families.keys().any(|name| name.starts_with("filed_cgroup")));
    assert_eq!(families["filed_problem"].samples[0].2, "1");
}

#[test]
fn the_rules_are_whole_and_ask_for_what_there_is() {
    let known = series();
    let parsed = YamlLoader::load_from_str(RULES).unwrap();
    let rules = parsed[0]["groups"][0]["rules"].as_vec().unwrap();
    let mut names = BTreeSet::new();
    for rule in rules {
        let text = |value: &Yaml| value.as_str().unwrap_or_default().to_owned();
        let name = text(&rule["alert"]);
        assert!(names.insert(name.clone()), "{name} twice");
        let query = text(&rule["expr"]);
        let asked = asked(&query);
        assert!(!asked.is_empty() || name == "FiledDown", "{name}");
        for metric in asked {
            assert!(known.contains(metric), "{name} asks for {metric}");
        }
        let severity = text(&rule["labels"]["severity"]);
        assert!(["warning", "critical"].contains(&&*severity), "{name}");
        for part in ["summary", "description"] {
            let said = text(&rule["annotations"][part]);
            assert!(said.len() > 20, "{name} has no {part}");
            for metric in self::asked(&said) {
                assert!(known.contains(metric), "{name} tells of {metric}");
            }
        }
    }
    assert!(names.len() >= 10);
}

#[test]
fn the_dashboard_can_be_imported_and_asks_for_what_there_is() {
    let known = series();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["type"], "datasource");
    for variable in &variables[1..] {
        for metric in asked(variable["definition"].as_str().unwrap()) {
            assert!(known.contains(metric), "a variable asks for {metric}");
        }
    }
    let mut numbers = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{title}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && places.insert((x, y)), "{title} lies on another");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let metrics = asked(target["expr"].as_str().unwrap());
            assert!(!metrics.is_empty(), "{title}");
            for metric in metrics {
                assert!(known.contains(metric), "{title} asks for {metric}");
            }
        }
    }
}
