//! JSON Lines: the fields that programs rely on, and nothing else on standard output.

use std::collections::BTreeSet;

use serde_json::Value;

use super::world::{World, digest, settle};

#[track_caller]
fn assert_fields(line: &Value, fields: &str) {
    let has: BTreeSet<&str> = line
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let wanted: BTreeSet<&str> = fields.split_whitespace().collect();
    assert_eq!(has, wanted, "{line}");
}

/// A world whose tree has a file of each kind: stored, unchanged, skipped, and one that is missing.
fn with_everything() -> World {
    let world = World::new();
    world.write("tree/a", b"a");
    settle(&world.write("tree/b", b"bb"));
    world.run(["process", "tree/b"]).exits(0);
    std::os::unix::fs::symlink("a", world.path("tree/link")).unwrap();
    world
}

const FILE: &str = "v type name path version status bytes chunks pieces new_pieces new_bytes \
                    stored_bytes digest seconds error";
const SUMMARY: &str = "v type files stored unchanged failed skipped bytes new_bytes stored_bytes \
                       seconds rss_start rss_peak rss_end mode_changes threshold limit \
                       chunk_p50_us chunk_p99_us chunk_max_us \
                       collections whole_collections longest_pause_us total_pause_us \
                       live_objects live_bytes cache_hits cache_loaded index_questions \
                       cache_hit_rate";

#[test]
fn process_prints_a_line_for_each_file_and_a_summary() {
    let world = with_everything();
    let outcome = world.run(["process", "--json", "tree", "missing"]).exits(3);
    assert_eq!(outcome.stderr, "", "what is in the lines is not said twice");
    let expected = [
        ("tree/a", "stored"),
        ("tree/b", "unchanged"),
        ("tree/link", "skipped"),
        ("missing", "failed"),
    ];
    assert_eq!(outcome.lines().len(), expected.len() + 1);
    for (name, status) in expected {
        let line = outcome.file(&world.name(name));
        assert_fields(&line, FILE);
        assert_eq!(line["type"], "file");
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["path"], world.name(name), "{line}");
        assert!(line["seconds"].is_f64(), "{line}");
        assert_eq!(
            line["error"].is_null(),
            ["stored", "unchanged"].contains(&status),
            "{line}"
        );
        assert_eq!(
            line["digest"].is_null(),
            line["version"].is_null(),
            "{line}"
        );
    }
    let stored = outcome.file(&world.name("tree/a"));
    assert_eq!(stored["digest"], digest(b"a"));
    assert_eq!(
        (&stored["bytes"], &stored["new_bytes"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        (&stored["pieces"], &stored["new_pieces"]),
        (&1.into(), &1.into())
    );
    assert!(stored["stored_bytes"].as_u64().unwrap() > 0);
    let unchanged = outcome.file(&world.name("tree/b"));
    assert_eq!(unchanged["digest"], digest(b"bb"));
    assert_eq!(
        (&unchanged["bytes"], &unchanged["version"]),
        (&2.into(), &1.into())
    );

    let summary = outcome.summary();
    assert_fields(&summary, SUMMARY);
    assert_eq!(summary["files"], 4);
    for status in ["stored", "unchanged", "failed", "skipped"] {
        assert_eq!(summary[status], 1, "{summary}");
    }
    assert_eq!(summary["bytes"], 3);
    assert_eq!(summary["new_bytes"], 1);
    assert_eq!(summary["stored_bytes"], stored["stored_bytes"]);
    for field in ["rss_start", "rss_peak", "rss_end", "threshold", "limit"] {
        assert!(
            summary[field].as_u64().unwrap() > 1 << 20,
            "{field}: {summary}"
        );
    }
    assert!(summary["rss_peak"].as_u64() >= summary["rss_start"].as_u64());
    assert!(summary["threshold"].as_u64() <= summary["limit"].as_u64());
}

#[test]
fn list_prints_the_newest_version_of_each_file_in_order() {
    let world = with_everything();
    world
        .run(["process", "--reread", "tree/a", "tree/b"])
        .exits(0);
    let outcome = world.run(["list", "--json"]).exits(0);
    let lines = outcome.lines();
    let fields = "v type name version versions bytes digest read_at_ns new_bytes stored_bytes";
    for line in &lines {
        assert_fields(line, fields);
        assert_eq!(line["type"], "file");
        assert!(line["read_at_ns"].as_u64().unwrap() > 1_600_000_000_000_000_000);
    }
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["name"].as_str().unwrap(),
                line["version"].as_u64().unwrap(),
            )
        })
        .collect();
    let (a, b) = (world.name("tree/a"), world.name("tree/b"));
    assert_eq!(seen, [(a.as_str(), 1), (b.as_str(), 2)]);
    assert_eq!(lines[1]["versions"], 2);
    assert_eq!(lines[1]["digest"], digest(b"bb"));
    assert_eq!(lines[1]["bytes"], 2);
}

#[test]
fn show_prints_every_version_of_a_file() {
    let world = World::new();
    for content in ["first", "and second"] {
        world.write("a", content.as_bytes());
        world.run(["process", "--reread", "a"]).exits(0);
    }
    let outcome = world.run(["show", "--json", "a"]).exits(0);
    let lines = outcome.lines();
    assert_eq!(lines.len(), 2);
    let fields = "v type name version bytes hole_bytes chunks pieces new_pieces new_bytes \
                  stored_bytes dedup_ratio compression_ratio digest read_at_ns mode uid gid mtime_ns";
    for (number, line) in lines.iter().enumerate() {
        assert_fields(line, fields);
        assert_eq!(line["type"], "version");
        assert_eq!(line["name"], world.name("a"));
        assert_eq!(line["version"], number + 1);
        assert_eq!(line["dedup_ratio"], 0.0);
    }
    assert_eq!(lines[0]["digest"], digest(b"first"));
    assert_eq!(lines[1]["digest"], digest(b"and second"));
    // The same again: all of it was known.
    world.run(["process", "--reread", "a"]).exits(0);
    let outcome = world.run(["show", "--json", "a"]).exits(0);
    assert_eq!(outcome.lines()[2]["dedup_ratio"], 1.0);
    assert!(outcome.lines()[2]["compression_ratio"].is_null());
    let text = world.run(["show", "a"]).exits(0);
    for part in [
        "version 1, read ",
        "version 3, read ",
        &digest(b"first"),
        "pieces",
        "kept",
    ] {
        assert!(text.text().contains(part), "{part}: {text}");
    }
}

#[test]
fn verify_and_restore_print_lines_and_a_summary() {
    let world = with_everything();
    world.run(["process", "tree/a"]).exits(0);
    let memory = "rss_start rss_peak rss_end";
    for args in [&["verify", "--json"][..], &["verify", "--json", "--quick"]] {
        let outcome = world.run(args).exits(0);
        let summary = outcome.summary();
        let fields = format!(
            "v type packs pieces bytes files versions damaged replaced lost_versions seconds {memory}"
        );
        assert_fields(&summary, &fields);
        assert_eq!(outcome.lines().len(), 1, "no damage, no more lines");
        assert_eq!(
            (&summary["files"], &summary["versions"]),
            (&2.into(), &2.into())
        );
        assert_eq!(outcome.stderr, "");
    }
    let outcome = world
        .run(["restore", "--json", "--all", "--to", "out"])
        .exits(0);
    assert_eq!(outcome.lines().len(), 3);
    let line = outcome.file(&world.name("tree/b"));
    assert_fields(&line, "v type name version path status bytes digest error");
    assert_eq!(
        (&line["status"], &line["digest"]),
        (&"restored".into(), &digest(b"bb").into())
    );
    let summary = outcome.summary();
    assert_fields(
        &summary,
        &format!("v type files restored failed bytes seconds {memory}"),
    );
    assert_eq!(
        (&summary["restored"], &summary["failed"]),
        (&2.into(), &0.into())
    );
    assert_eq!(summary["bytes"], 3);

    let outcome = world
        .run(["restore", "--json", "--all", "--to", "out"])
        .exits(1);
    assert_eq!(outcome.stderr, "");
    assert_eq!(outcome.summary()["failed"], 2);
    for line in outcome.lines_of("file") {
        assert_eq!(line["status"], "failed");
        assert!(line["error"].as_str().unwrap().contains("exists"), "{line}");
    }
}

#[test]
fn quiet_does_not_silence_json() {
    let world = with_everything();
    let outcome = world.run(["process", "--json", "--quiet", "tree"]).exits(3);
    assert_eq!(outcome.lines_of("file").len(), 3);
    outcome.summary();
    assert_eq!(outcome.stderr, "");
}

#[test]
fn an_error_that_ends_a_command_is_on_stderr_and_not_in_the_json() {
    let world = with_everything();
    for args in [
        &["restore", "--json", "missing"][..],
        &["restore", "--json", "tree/b"],
        &["show", "--json", "missing"],
        &["verify", "--json", "missing"],
    ] {
        let outcome = world.run(args).exits(1);
        assert!(outcome.lines().is_empty(), "{outcome}");
        assert_eq!(outcome.messages().len(), 1, "{outcome}");
    }
}
