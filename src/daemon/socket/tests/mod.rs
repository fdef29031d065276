//! The document of the paths, held against the router, against what goes over the wire, and against what
//! is really answered.

mod answers;
mod loopback;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use axum::routing::MethodFilter;
use serde::Serialize;
use serde_json::Value;

use super::routes;
use super::wire::Failure;
use super::wire::{
    Change, Done, Given, Heap, InWork, Inbox, Job, JobCounts, JobEvent, JobList, Memory, Owners,
    Scrub, Status, Stored, Submit, SubmitAnswer, SubmitPath, Submitted, Version, VersionList,
};
use crate::daemon::service::control::Trimmed;
use crate::daemon::service::reload::Reloaded;
use schema::Document;

/// Schemas of what is only made up where it is answered; see `answers`.
const ONLY_ANSWERED: &[&str] = &[
    "Census",
    "Collected",
    "Comparison",
    "Cycle",
    "HeldGrowth",
    "Leaks",
    "Site",
    "SiteGrowth",
    "Snapshot",
    "SnapshotList",
    "SnapshotMoment",
    "TypeCount",
    "TypeGrowth",
];

fn name(method: MethodFilter) -> &'static str {
    match method {
        MethodFilter::GET => "get",
        MethodFilter::POST => "post",
        MethodFilter::PUT => "put",
        MethodFilter::DELETE => "delete",
        other => panic!("{other:?} has no name yet"),
    }
}

#[test]
fn every_path_is_documented_with_its_methods_and_nothing_else() {
    let document = Document::new();
    let served: BTreeSet<_> = (routes().iter())
        .map(|route| (route.path.to_owned(), name(route.method).to_owned()))
        .collect();
    let mut documented = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, operations) in document.json()["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            documented.insert((path.clone(), method.clone()));
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            let in_path = path.matches('{').count();
            let parameters = operation["parameters"].as_array();
            let named = (parameters.into_iter().flatten()).filter(|one| one["in"] == "path");
            assert_eq!(named.count(), in_path, "{method} {path}");
            // Whatever is no reading may be forbidden.
            let forbids = operation["responses"].get("403").is_some();
            assert_eq!(forbids, method != "get", "{method} {path}");
        }
    }
    assert_eq!(served, documented);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document = Document::new();
    document.each_reference(&mut |reference| {
        assert!(document.at(reference).is_some(), "{reference}");
    });
}

/// One of each thing that goes over the wire, with all its fields.
fn examples() -> BTreeMap<&'static str, Vec<Value>> {
    fn value(of: impl Serialize) -> Value {
        serde_json::to_value(of).unwrap()
    }
    let text = String::from;
    let given = Given {
        count: 1,
        bytes: 2,
        last_ns: 3,
        last_bytes: 4,
    };
    let status = Status {
        v: 1,
        version: text("0.1.0"),
        pid: 1,
        store: text("/store"),
        started_ns: 1,
        configured_ns: 1,
        flow: text("open"),
        problem: Some(text("the disk is full")),
        memory: Memory {
            mode: text("normal"),
            mode_since_ns: 1,
            why: Some(text("calm")),
            level: text("high"),
            resident_bytes: 1,
            anonymous_bytes: 1,
            threshold_bytes: 1,
            limit_bytes: 1,
            limits: vec![text("as configured")],
            workers: 1,
            workers_planned: 1,
            owners: Owners {
                chunks_bytes: 1,
                frames_bytes: 1,
                transfers_bytes: 1,
                compression_bytes: 1,
                fingerprints_bytes: 1,
                idle_bytes: 1,
                database_bytes: 1,
                rest_bytes: 1,
            },
            changes: vec![Change {
                at_ns: 1,
                from: text("normal"),
                to: text("critical"),
                why: text("full"),
                freed_bytes: 1,
            }],
            trims: given,
            collections: given,
            other: given,
        },
        jobs: JobCounts::default(),
        in_work: vec![InWork {
            what: text("/a"),
            seconds: 0.5,
        }],
        done: Done {
            files: 1,
            bytes: 1,
            new_bytes: 1,
            stored_bytes: 1,
            bytes_per_second: 1,
        },
        heap: Heap {
            objects: 1,
            held_bytes: 1,
            collections: [1; 3],
            collected: 1,
            longest_pause_seconds: 0.1,
        },
        scrub: Scrub {
            state: text("off"),
            pass_began_ns: Some(1),
            checked_bytes: 1,
            total_bytes: 1,
            last_pass_seconds: Some(0.1),
            last_pass_ended_ns: Some(1),
            expected_pass_seconds: Some(0.1),
            read_bytes: 1,
            damaged_places: 1,
            replaced_places: 1,
        },
        inboxes: vec![Inbox {
            path: text("/in"),
            waiting: 1,
            submitted: 1,
            stored: 1,
            failed: 1,
            last_success_ns: Some(1),
            last_error: Some(text("no")),
            overflows: 1,
        }],
    };
    let job = Job {
        id: 1,
        state: text("failed"),
        priority: -1,
        path: text("/a"),
        origin: text("submit"),
        submitted_ns: 1,
        due_ns: 1,
        started_ns: Some(1),
        ended_ns: Some(1),
        attempts: 1,
        size_bytes: 1,
        new_bytes: 1,
        stored_bytes: 1,
        version: Some(1),
        reason: Some(text("gone")),
    };
    let version = Version {
        name: text("/a"),
        version: 1,
        size_bytes: 1,
        digest: text("00"),
        read_at_ns: 1,
        new_bytes: 1,
        stored_bytes: 1,
        versions: Some(1),
    };
    let unlisted = Version {
        versions: None,
        ..version.clone()
    };
    let failure = Failure {
        error: text("no"),
        hint: Some(text("do")),
    };
    let submitted = Submitted {
        path: text("/a"),
        id: Some(1),
        unseen: Some(text("gone")),
        ..Submitted::default()
    };
    let stored = Stored {
        name: text("/a"),
        version: Some(1),
        size_bytes: 1,
        new_bytes: 1,
        stored_bytes: 1,
        digest: Some(text("00")),
    };
    BTreeMap::from([
        ("Status", vec![value(status)]),
        (
            "JobList",
            vec![value(JobList {
                jobs: vec![job],
                before: Some(1),
            })],
        ),
        (
            "Submit",
            vec![value(Submit {
                paths: vec![SubmitPath {
                    path: text("/a"),
                    device: Some(1),
                    inode: Some(1),
                }],
                priority: 1,
            })],
        ),
        (
            "SubmitAnswer",
            vec![value(SubmitAnswer {
                submitted: vec![submitted, Submitted::default()],
            })],
        ),
        (
            "JobEvent",
            vec![value(JobEvent {
                id: 1,
                state: text("queued"),
            })],
        ),
        ("Stored", vec![value(stored)]),
        (
            "VersionList",
            vec![value(VersionList {
                versions: vec![version, unlisted],
                more: true,
            })],
        ),
        ("Failure", vec![value(failure)]),
        (
            "Reloaded",
            vec![value(Reloaded {
                applied: vec![text("log.level")],
                restart: vec![text("store.path")],
            })],
        ),
        (
            "Trimmed",
            vec![value(Trimmed {
                resident_before_bytes: 1,
                resident_after_bytes: 1,
                buffers_bytes: 1,
            })],
        ),
    ])
}

#[test]
fn what_goes_over_the_wire_is_documented_field_by_field() {
    let document = Document::new();
    for (name, examples) in examples() {
        for example in examples {
            document.check_named(name, &example);
        }
    }
    document.assert_all_seen(|schema| !ONLY_ANSWERED.contains(&schema));
}

#[test]
fn what_is_not_documented_is_noticed() {
    let document = Document::new();
    for (wrong, why) in [
        (serde_json::json!({ "error": "no", "more": 1 }), "more"),
        (serde_json::json!({ "hint": "do" }), "error"),
        (serde_json::json!({ "error": 1 }), "type"),
    ] {
        let found = document.mistake("Failure", &wrong).unwrap();
        assert!(found.contains(why), "{found}");
    }
}
