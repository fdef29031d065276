use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A root with the given files; paths are relative to it.
fn root(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("temporary directory");
    for (path, content) in files {
        put(root.path(), path, content.as_bytes());
    }
    root
}

fn put(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("create directory");
    fs::write(path, content).expect("write file");
}

/// What is found, with paths below `/sys/fs/cgroup`; fails on any problem.
fn found(root: &TempDir) -> Vec<(LimitSource, String, u64)> {
    let limits = limits(root.path());
    assert!(limits.problems.is_empty(), "{:?}", limits.problems);
    relative(root, limits.found)
}

fn relative(root: &TempDir, found: Vec<FoundLimit>) -> Vec<(LimitSource, String, u64)> {
    let mount = root.path().join("sys/fs/cgroup");
    found
        .into_iter()
        .map(|limit| {
            let path = limit.path.strip_prefix(&mount).expect("below the mount");
            (limit.source, path.display().to_string(), limit.bytes)
        })
        .collect()
}

#[test]
fn v2_takes_the_least_of_each_kind_over_all_ancestors() {
    let root = root(&[
        ("proc/self/cgroup", "0::/system.slice/filed.service\n"),
        ("sys/fs/cgroup/cgroup.controllers", "memory\n"),
        ("sys/fs/cgroup/system.slice/memory.max", "500\n"),
        ("sys/fs/cgroup/system.slice/memory.high", "max\n"),
        (
            "sys/fs/cgroup/system.slice/filed.service/memory.max",
            "800\n",
        ),
        (
            "sys/fs/cgroup/system.slice/filed.service/memory.high",
            "400\n",
        ),
    ]);
    assert_eq!(
        found(&root),
        [
            (
                LimitSource::CgroupHigh,
                "system.slice/filed.service/memory.high".to_owned(),
                400
            ),
            (
                LimitSource::CgroupMax,
                "system.slice/memory.max".to_owned(),
                500
            ),
        ]
    );
}

#[test]
fn v2_without_limits_finds_none() {
    let root = root(&[
        ("proc/self/cgroup", "0::/a\n"),
        ("sys/fs/cgroup/a/memory.max", "max\n"),
        ("sys/fs/cgroup/a/memory.high", "max\n"),
    ]);
    assert_eq!(found(&root), []);
}

#[test]
fn a_namespaced_v2_group_is_read_at_the_mount() {
    let root = root(&[
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/memory.max", "700\n"),
    ]);
    assert_eq!(
        found(&root),
        [(LimitSource::CgroupMax, "memory.max".to_owned(), 700)]
    );
}

#[test]
fn a_group_outside_of_the_namespace_is_not_followed() {
    let root = root(&[
        ("proc/self/cgroup", "0::/../../other\n"),
        ("sys/fs/cgroup/memory.max", "700\n"),
        ("sys/fs/cgroup/other/memory.max", "1\n"),
        ("sys/other/memory.max", "1\n"),
        ("other/memory.max", "1\n"),
    ]);
    assert_eq!(
        found(&root),
        [(LimitSource::CgroupMax, "memory.max".to_owned(), 700)]
    );
}

#[test]
fn v1_takes_the_least_over_ancestors_and_ignores_unlimited() {
    let root = root(&[
        (
            "proc/self/cgroup",
            "12:pids:/x\n4:cpu,memory:/a/b\n1:name=systemd:/\n",
        ),
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "600\n"),
        (
            "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "9223372036854710272\n",
        ),
        ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1\n"),
    ]);
    assert_eq!(
        found(&root),
        [(
            LimitSource::CgroupV1,
            "memory/a/memory.limit_in_bytes".to_owned(),
            600
        )]
    );
}

#[test]
fn a_v1_container_that_sees_only_its_own_group_is_limited_by_it() {
    let root = root(&[
        ("proc/self/cgroup", "9:memory:/docker/0123\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "300\n"),
    ]);
    assert_eq!(
        found(&root),
        [(
            LimitSource::CgroupV1,
            "memory/memory.limit_in_bytes".to_owned(),
            300
        )]
    );
}

#[test]
fn hybrid_with_memory_in_v1_reads_v1() {
    let root = root(&[
        ("proc/self/cgroup", "4:memory:/svc\n0::/svc\n"),
        ("sys/fs/cgroup/unified/cgroup.controllers", "\n"),
        ("sys/fs/cgroup/memory/svc/memory.limit_in_bytes", "300\n"),
    ]);
    assert_eq!(
        found(&root),
        [(
            LimitSource::CgroupV1,
            "memory/svc/memory.limit_in_bytes".to_owned(),
            300
        )]
    );
}

#[test]
fn hybrid_with_memory_in_v2_reads_below_unified() {
    let root = root(&[
        ("proc/self/cgroup", "4:pids:/svc\n0::/svc\n"),
        ("sys/fs/cgroup/unified/cgroup.controllers", "memory\n"),
        ("sys/fs/cgroup/unified/svc/memory.max", "300\n"),
    ]);
    assert_eq!(
        found(&root),
        [(
            LimitSource::CgroupMax,
            "unified/svc/memory.max".to_owned(),
            300
        )]
    );
}

#[test]
fn a_v2_group_named_unified_is_not_taken_for_a_mount() {
    let root = root(&[
        ("proc/self/cgroup", "0::/svc\n"),
        ("sys/fs/cgroup/cgroup.controllers", "memory\n"),
        ("sys/fs/cgroup/unified/cgroup.controllers", "memory\n"),
        ("sys/fs/cgroup/unified/memory.max", "1\n"),
        ("sys/fs/cgroup/svc/memory.max", "300\n"),
    ]);
    assert_eq!(
        found(&root),
        [(LimitSource::CgroupMax, "svc/memory.max".to_owned(), 300)]
    );
}

#[test]
fn no_proc_and_no_sys_is_no_limit_and_no_problem() {
    assert_eq!(found(&root(&[])), []);
    let root = root(&[("proc/self/cgroup", "")]);
    assert_eq!(found(&root), []);
}

#[test]
fn a_removed_group_is_limited_by_its_ancestors() {
    let root = root(&[
        ("proc/self/cgroup", "0::/a/gone (deleted)\n"),
        ("sys/fs/cgroup/a/memory.max", "300\n"),
    ]);
    assert_eq!(
        found(&root),
        [(LimitSource::CgroupMax, "a/memory.max".to_owned(), 300)]
    );
}

#[test]
fn a_file_that_makes_no_sense_is_a_problem_and_hides_no_other() {
    for odd in [
        "",
        "-1",
        "12 MiB",
        "maximum",
        "99999999999999999999999",
        "max max",
    ] {
        let root = root(&[
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", odd),
            ("sys/fs/cgroup/memory.max", "300\n"),
        ]);
        let limits = limits(root.path());
        assert_eq!(limits.found.len(), 1, "{odd:?}");
        assert_eq!(limits.found[0].bytes, 300);
        assert!(
            matches!(&limits.problems[..], [ProbeError::Malformed { path, .. }] if path.ends_with("a/memory.max")),
            "{odd:?}: {:?}",
            limits.problems
        );
    }
}

#[test]
fn a_membership_that_makes_no_sense_still_reads_the_mounts() {
    let root = root(&[("sys/fs/cgroup/memory/memory.limit_in_bytes", "300\n")]);
    put(
        root.path(),
        "proc/self/cgroup",
        b"\xff\xfe garbage \x00 :: \n",
    );
    let limits = limits(root.path());
    assert!(
        matches!(&limits.problems[..], [ProbeError::Malformed { path, .. }] if path.ends_with("proc/self/cgroup"))
    );
    assert_eq!(limits.found[0].bytes, 300);
}

proptest! {
    #[test]
    fn random_membership_never_leads_out_of_the_mount(
        content in prop_oneof![
            vec(any::<u8>(), 0..300),
            "(0::|4:memory:)(/|\\.\\.|a|\u{0}|:){0,12}\n".prop_map(String::into_bytes),
        ],
    ) {
        if let Some(groups) = parse_groups(&content) {
            for group in [groups.unified, groups.memory] {
                prop_assert!(group.components().all(|part| matches!(part, Component::Normal(_))), "{group:?}");
            }
        }
    }

    #[test]
    fn random_files_are_numbers_or_problems(
        membership in vec(any::<u8>(), 0..200),
        limit in vec(any::<u8>(), 0..100),
    ) {
        let root = root(&[]);
        put(root.path(), "proc/self/cgroup", &membership);
        put(root.path(), "sys/fs/cgroup/memory.max", &limit);
        put(root.path(), "sys/fs/cgroup/memory/memory.limit_in_bytes", &limit);
        let limits = limits(root.path());
        prop_assert!(limits.found.len() <= 2);
    }
}
