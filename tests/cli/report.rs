//! `process --report`: a run on one page, and the same for programs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::world::{MIB, World, finish, noise, text};

/// Takes in a folder with this report; the summary and the report.
#[track_caller]
fn run_with(world: &World, report: &str, more: &[&str]) -> (Value, String) {
    let mut args = vec!["process", "--json", "--report", report, "tree"];
    args.extend(more);
    let outcome = world.run(args).exits(0);
    assert_eq!(outcome.stderr, "");
    let written = String::from_utf8(world.read(report)).unwrap();
    (outcome.summary(), written)
}

fn world_with_tree() -> World {
    let world = World::new();
    world.write("tree/text", &text(3 * MIB));
    world.write("tree/noise", &noise("report", 2 * MIB));
    world
}

#[track_caller]
fn fields(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().unwrap();
    object.keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_fields(value: &Value, wanted: &str) {
    let wanted: BTreeSet<&str> = wanted.split_whitespace().collect();
    assert_eq!(fields(value), wanted, "{value}");
}

/// The names in a folder that begin with a dot: what a report leaves behind.
fn hidden(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

#[test]
fn the_report_for_programs_agrees_with_the_summary() {
    let world = world_with_tree();
    let (summary, report) = run_with(&world, "r.json", &["--memory", "512M"]);
    assert!(report.ends_with("}\n") && report.lines().count() == 1);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_fields(
        &report,
        "v type filed written_at store summary read_bytes bytes_per_second signal error resume \
         critical limit_source limit_reasons seconds_in given_back_bytes heap_trimmed_bytes pauses \
         timeline",
    );
    assert_eq!(
        (&report["v"], &report["type"]),
        (&1.into(), &"report".into())
    );
    assert_eq!(report["summary"], summary);
    assert_eq!(report["read_bytes"], summary["bytes"]);
    assert_eq!(report["store"], world.store().to_str().unwrap());
    assert!(report["signal"].is_null() && report["error"].is_null());
    let of = |value: &Value| value.as_u64().unwrap();
    let marks = [
        &report["resume"],
        &summary["threshold"],
        &report["critical"],
        &summary["limit"],
    ];
    assert!(marks.map(of).is_sorted(), "{marks:?}");

    let timeline = &report["timeline"];
    assert_fields(timeline, "points marks dropped_marks given_back_bytes");
    assert_eq!(timeline["given_back_bytes"], report["given_back_bytes"]);
    let points = timeline["points"].as_array().unwrap();
    assert!(points.len() >= 2);
    for point in points {
        assert_fields(
            point,
            "at_seconds mode resident_bytes anonymous_bytes threshold_bytes critical_bytes \
             limit_bytes owners done_bytes",
        );
        assert_fields(
            &point["owners"],
            "chunks frames compression fingerprints idle database rest",
        );
        let owners = point["owners"].as_object().unwrap();
        let sum: u64 = owners.values().map(of).sum();
        assert!(sum >= of(&point["resident_bytes"]), "{point}");
        assert!(
            of(&point["resident_bytes"]) <= of(&summary["rss_peak"]),
            "{point}"
        );
    }
    let last = points.last().unwrap();
    assert_eq!(last["done_bytes"], summary["bytes"]);
    assert_eq!(last["threshold_bytes"], summary["threshold"]);
    assert_eq!(last["critical_bytes"], report["critical"]);
    assert_eq!(last["limit_bytes"], summary["limit"]);
    let in_modes = report["seconds_in"].as_object().unwrap().values();
    let in_modes: f64 = in_modes.map(|seconds| seconds.as_f64().unwrap()).sum();
    assert!((in_modes - last["at_seconds"].as_f64().unwrap()).abs() < 1e-6);

    let marks = timeline["marks"].as_array().unwrap();
    let back = |mark: &&Value| {
        ["trim", "malloc_trim", "database_shrunk"].contains(&mark["what"].as_str().unwrap())
    };
    let sum: u64 = marks
        .iter()
        .filter(back)
        .map(|mark| of(&mark["freed_bytes"]))
        .sum();
    assert_eq!(sum, of(&report["given_back_bytes"]));
}

#[test]
fn a_second_copy_has_pauses_and_they_are_counted() {
    let world = world_with_tree();
    world.run(["process", "tree"]).exits(0);
    let (summary, report) = run_with(&world, "r.json", &["--reread"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    for pauses in report["pauses"].as_array().unwrap() {
        assert_fields(pauses, "from_ns below_ns count");
        assert!(pauses["from_ns"].as_u64() < pauses["below_ns"].as_u64());
    }
    let longest = report["pauses"].as_array().unwrap().last();
    let below = longest.map_or(0, |pauses| pauses["below_ns"].as_u64().unwrap());
    assert!(summary["longest_pause_us"].as_u64().unwrap() * 1000 <= below);
}

/// Fails where an element that was opened is not closed in its turn.
#[track_caller]
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("an element without an end");
        assert!(!text.contains('>') || open.contains(&"style"), "{text:?}");
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !["!doctype", "meta"].contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let world = world_with_tree();
    let (summary, page) = run_with(&world, "r.html", &[]);
    assert!(page.starts_with("<!doctype html>\n"));
    assert_well_formed(&page);
    let lower = page.to_lowercase();
    for reference in [
        "http://", "https://", "src=", "href=", "<script", "<link", "<img", "url(", "@import",
    ] {
        assert!(!lower.contains(reference), "{reference}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"));
    for title in [
        "Memory by owner",
        "Throughput",
        "Pauses of the heap",
        "Numbers",
        "What was done about memory",
        "The curves as numbers",
    ] {
        assert!(page.contains(title), "{title}");
    }
    // Of a machine with much memory the limit is far above, but it is named.
    assert!(page.contains("class=\"resident\""));
    for line in ["limit ", "critical ", "threshold "] {
        assert!(page.contains(line), "{line}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(summary["stored"] == 2 && page.contains("2 files stored"));
}

#[test]
fn a_run_without_files_has_a_page_too() {
    let world = World::new();
    fs::create_dir(world.path("tree")).unwrap();
    let (_, page) = run_with(&world, "r.html", &[]);
    assert_well_formed(&page);
    assert!(page.contains("Nothing was read."));
    assert!(!page.contains("NaN"));

    let outcome = world
        .run(["process", "--report", "none.html", "missing"])
        .exits(1);
    assert!(outcome.message().contains("missing"));
    let page = String::from_utf8(world.read("none.html")).unwrap();
    assert_well_formed(&page);
    assert!(page.contains("1 failed"));
}

#[test]
fn names_are_text_on_the_page() {
    let world = world_with_tree();
    let store = "sto<re&\"'>";
    let (_, page) = run_with(&world, "r.HTML", &["--store", store]);
    assert_well_formed(&page);
    assert!(!page.contains(store));
    assert!(page.contains("sto&lt;re&amp;&quot;&#39;&gt;"));
}

#[test]
fn a_report_takes_the_place_of_an_older_one_and_leaves_nothing_else() {
    let world = world_with_tree();
    world.write("out/r.html", b"old");
    let (_, page) = run_with(&world, "out/r.html", &[]);
    assert!(page.starts_with("<!doctype html>"));
    assert!(hidden(&world.path("out")).is_empty());
}

#[test]
fn other_endings_are_refused_before_anything_is_done() {
    let world = world_with_tree();
    for name in [
        "report",
        "r.txt",
        "r.htm",
        "html",
        ".html",
        "out/.json",
        "r.json.",
        "-",
    ] {
        let outcome = world.run(["process", "--report", name, "tree"]).exits(2);
        assert!(outcome.stdout.is_empty(), "{outcome}");
        let message = outcome.message();
        assert!(message.contains(".html or .json"), "{message}");
        assert!(message.contains(name), "{message}");
    }
    assert!(!world.store().exists());
}

#[test]
fn where_no_report_can_be_written_nothing_is_done() {
    let world = world_with_tree();
    fs::create_dir(world.path("folder.html")).unwrap();
    let long = format!("{}.html", "n".repeat(300));
    for name in ["missing/r.html", "folder.html", "tree/text/r.json", &long] {
        let outcome = world.run(["process", "--report", name, "tree"]).exits(1);
        assert!(outcome.stdout.is_empty(), "{outcome}");
        let message = outcome.message();
        assert!(message.contains("cannot write the report"), "{message}");
        assert!(message.contains(name), "{message}");
    }
    let locked = world.path("locked");
    fs::create_dir(&locked).unwrap();
    let mut command = world.filed_unprivileged();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    let outcome = finish(command.args(["process", "--report", "locked/r.html", "tree"])).exits(1);
    assert!(
        outcome.message().contains("cannot write the report"),
        "{outcome}"
    );
    assert!(!world.store().exists());
}

#[test]
fn a_report_that_fails_at_the_end_is_a_partial_result() {
    let world = world_with_tree();
    let mut command = world.filed();
    command.args(["process", "--report", "out/r.html", "--as", "x", "-"]);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    fs::create_dir(world.path("out")).unwrap();
    let mut child = command.spawn().unwrap();
    // Once the store is there the check is over, and the run waits for its input.
    while !world.store().join("packs").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    fs::remove_dir(world.path("out")).unwrap();
    drop(child.stdin.take());
    let outcome = super::world::Outcome::of(&command, child.wait_with_output().unwrap()).exits(3);
    assert!(
        outcome
            .message()
            .contains("cannot write the report out/r.html"),
        "{outcome}"
    );
    let names = world.run([OsStr::new("list")]).exits(0);
    assert!(
        names.text().contains('x'),
        "what was stored is kept\n{names}"
    );
}
