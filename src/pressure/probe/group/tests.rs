use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const V2: &str = "sys/fs/cgroup";
const V1: &str = "sys/fs/cgroup/memory";

const V2_STAT: &str = "anon 100\nfile 900\nkernel 60\nkernel_stack 5\nshmem 20\n\
    inactive_file 300\nslab_reclaimable 40\nslab_unreclaimable 7\n";
const V1_STAT: &str = "cache 9\nrss 1\nshmem 2\ninactive_file 3\n\
    total_cache 900\ntotal_rss 100\ntotal_shmem 20\ntotal_inactive_file 300\n";

fn root(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("temporary directory");
    for (path, content) in files {
        put(&root, path, content.as_bytes());
    }
    root
}

fn put(root: &TempDir, path: &str, content: &[u8]) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("create directory");
    fs::write(path, content).expect("write file");
}

/// A group with the given files, named as below `base/group`.
fn put_group(root: &TempDir, directory: &str, files: &[(&str, &str)]) {
    for (name, content) in files {
        put(root, &format!("{directory}/{name}"), content.as_bytes());
    }
}

#[test]
fn v2_usage_is_split_by_kind() {
    let root = root(&[("proc/self/cgroup", "0::/a\n")]);
    put_group(
        &root,
        &format!("{V2}/a"),
        &[
            ("memory.max", "2000\n"),
            ("memory.high", "1500\n"),
            ("memory.current", "1000\n"),
            ("memory.stat", V2_STAT),
            (
                "memory.events",
                "low 0\nhigh 4\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
            ),
        ],
    );
    let probe = GroupProbe::open(root.path());
    assert_eq!(
        probe.usage(),
        Some(GroupUsage {
            limit_bytes: 1500,
            used_bytes: 1000,
            working_bytes: 700,
            unreclaimable_bytes: 100 + 20 + 60 - 40,
            oom_kills: 1,
            max_events: 3,
            high_events: 4,
        })
    );
    assert_eq!(
        probe.event_files(),
        [root.path().join(V2).join("a/memory.events")]
    );
    assert_eq!(probe.lowest_v1_limit(), None);
    assert!(probe.take_problems().is_empty());
}

#[test]
fn v2_of_older_kernels_adds_the_kernel_parts_up() {
    let stat = b"anon 100\nslab_unreclaimable 7\nkernel_stack 5\npercpu 1\npagetables 2\n";
    let table = Table::parse(stat).expect("a table");
    assert_eq!(v2_unreclaimable(&table), Some(115));
}

#[test]
fn v1_usage_takes_the_totals() {
    let root = root(&[("proc/self/cgroup", "4:memory:/a\n")]);
    put_group(
        &root,
        &format!("{V1}/a"),
        &[
            ("memory.limit_in_bytes", "1500\n"),
            ("memory.soft_limit_in_bytes", "800\n"),
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.kmem.usage_in_bytes", "30\n"),
            ("memory.stat", V1_STAT),
            ("memory.failcnt", "7\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
        ],
    );
    let probe = GroupProbe::open(root.path());
    assert_eq!(
        probe.usage(),
        Some(GroupUsage {
            limit_bytes: 1500,
            used_bytes: 1000,
            working_bytes: 700,
            unreclaimable_bytes: 150,
            oom_kills: 2,
            max_events: 7,
            high_events: 0,
        })
    );
    let directory = root.path().join(V1).join("a");
    assert_eq!(probe.lowest_v1_limit(), Some((directory.as_path(), 1500)));
    assert!(probe.event_files().is_empty());
    let kinds: Vec<_> = probe
        .limits()
        .iter()
        .map(|limit| (limit.source, limit.bytes))
        .collect();
    assert_eq!(
        kinds,
        [
            (LimitSource::CgroupV1, 1500),
            (LimitSource::CgroupSoft, 800)
        ]
    );
}

#[test]
fn v1_without_totals_takes_the_groups_own() {
    let stat = Table::parse(b"rss 10\nshmem 2\n").expect("a table");
    assert_eq!(v1_unreclaimable(&stat, None), Some(12));
}

#[test]
fn the_group_with_the_least_headroom_counts() {
    let root = root(&[("proc/self/cgroup", "0::/a/b\n")]);
    let stat = "anon 100\n";
    let events = "oom_kill 0\n";
    for (directory, max, current, stat) in [
        ("a/b", "500\n", "300\n", stat),
        // More used, more room, but a neighbour holds it for good.
        ("a", "900\n", "850\n", "anon 800\n"),
        (".", "max\n", "99999\n", "anon 99999\n"),
    ] {
        put_group(
            &root,
            &format!("{V2}/{directory}"),
            &[
                ("memory.max", max),
                ("memory.current", current),
                ("memory.stat", stat),
                ("memory.events", events),
            ],
        );
    }
    let usage = GroupProbe::open(root.path()).usage().expect("has a limit");
    assert_eq!((usage.limit_bytes, usage.headroom_bytes()), (900, 100));
}

#[test]
fn limits_are_read_anew_each_time() {
    let root = root(&[
        ("proc/self/cgroup", "0::/a\n"),
        ("sys/fs/cgroup/a/memory.max", "500\n"),
    ]);
    let probe = GroupProbe::open(root.path());
    assert_eq!(probe.limits()[0].bytes, 500);
    put(&root, "sys/fs/cgroup/a/memory.max", b"300\n");
    assert_eq!(probe.limits()[0].bytes, 300);
    put(&root, "sys/fs/cgroup/a/memory.max", b"max\n");
    assert_eq!(probe.limits(), []);
    assert_eq!(probe.usage(), None);
}

#[test]
fn hybrid_and_containers_are_found_where_the_limits_are() {
    let hybrid = root(&[
        ("proc/self/cgroup", "4:memory:/svc\n0::/svc\n"),
        ("sys/fs/cgroup/unified/cgroup.controllers", "\n"),
        ("sys/fs/cgroup/memory/svc/memory.limit_in_bytes", "300\n"),
        ("sys/fs/cgroup/memory/svc/memory.usage_in_bytes", "200\n"),
        ("sys/fs/cgroup/memory/svc/memory.stat", "total_rss 50\n"),
    ]);
    let usage = GroupProbe::open(hybrid.path()).usage().expect("v1");
    assert_eq!((usage.limit_bytes, usage.unreclaimable_bytes), (300, 50));

    // The path is the host's, and only our own group is mounted.
    let container = root(&[
        ("proc/self/cgroup", "0::/docker/0123\n"),
        ("sys/fs/cgroup/memory.max", "300\n"),
        ("sys/fs/cgroup/memory.current", "200\n"),
        ("sys/fs/cgroup/memory.stat", "anon 50\n"),
    ]);
    let usage = GroupProbe::open(container.path()).usage().expect("v2");
    assert_eq!((usage.limit_bytes, usage.unreclaimable_bytes), (300, 50));
}

#[test]
fn nothing_there_is_no_problem() {
    let probe = GroupProbe::open(root(&[]).path());
    assert_eq!(probe.limits(), []);
    assert_eq!(probe.usage(), None);
    assert!(probe.take_problems().is_empty());
}

#[test]
fn usage_without_a_split_says_nothing() {
    let root = root(&[
        ("proc/self/cgroup", "0::/a\n"),
        ("sys/fs/cgroup/a/memory.max", "300\n"),
        ("sys/fs/cgroup/a/memory.current", "200\n"),
    ]);
    let probe = GroupProbe::open(root.path());
    assert_eq!(probe.usage(), None);
    assert!(probe.take_problems().is_empty());
}

#[test]
fn a_problem_is_told_once() {
    let root = root(&[
        ("proc/self/cgroup", "0::/a\n"),
        ("sys/fs/cgroup/a/memory.max", "300\n"),
        ("sys/fs/cgroup/a/memory.current", "many\n"),
        ("sys/fs/cgroup/a/memory.high", "12 MiB\n"),
        ("sys/fs/cgroup/a/memory.stat", "anon 50\n"),
    ]);
    // A directory can be opened, but not read.
    fs::create_dir(root.path().join("sys/fs/cgroup/a/memory.events")).expect("create directory");
    let probe = GroupProbe::open(root.path());
    assert_eq!(probe.limits().len(), 1);
    assert_eq!(probe.usage(), None);
    assert_eq!(probe.take_problems().len(), 2);
    put(&root, "sys/fs/cgroup/a/memory.current", b"200\n");
    assert_eq!(probe.usage().map(|usage| usage.used_bytes), Some(200));
    assert_eq!(probe.take_problems().len(), 1, "the directory");
    assert_eq!(probe.usage().map(|usage| usage.oom_kills), Some(0));
    assert!(probe.take_problems().is_empty());
}

#[test]
fn a_number_cut_short_is_not_taken() {
    let table = Table::parse(b"anon 5\nshmem 12").expect("a table");
    assert_eq!((table.get(b"anon"), table.get(b"shmem")), (Some(5), None));
    assert!(Table::parse(b"anon 12").is_none());
    assert!(Table::parse(b"").is_none());
}

#[test]
fn huge_numbers_do_not_wrap() {
    let most = u64::MAX;
    let root = root(&[("proc/self/cgroup", "0::/\n")]);
    let stat = format!("anon {most}\nshmem {most}\nkernel {most}\ninactive_file {most}\n");
    put_group(
        &root,
        V2,
        &[
            ("memory.max", &format!("{most}\n")),
            ("memory.current", &format!("{most}\n")),
            ("memory.stat", &stat),
            ("memory.events", &format!("max {most}0\noom_kill {most}\n")),
        ],
    );
    let usage = GroupProbe::open(root.path()).usage().expect("a limit");
    assert_eq!(usage.working_bytes, 0);
    assert_eq!(usage.headroom_bytes(), 0);
    assert_eq!((usage.max_events, usage.oom_kills), (0, most));
}

#[test]
fn this_machine_can_be_read() {
    let probe = GroupProbe::open(Path::new("/"));
    assert_eq!(probe.limits(), cgroup::limits(Path::new("/")).found);
    if probe.usage().is_none() {
        println!("SKIPPED: no cgroup of this process has a limit");
    }
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        any::<u64>().prop_map(|number| format!("{number}\n").into_bytes()),
        "((total_)?(anon|rss|shmem|kernel|inactive_file|max|oom_kill) [0-9]{0,22}\n?){0,8}"
            .prop_map(String::into_bytes),
        Just(b"max\n".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_tree_makes_it_panic_and_limits_agree(
        membership in prop_oneof![
            vec(any::<u8>(), 0..100),
            "(0::|4:memory:)(/a){0,3}\n".prop_map(String::into_bytes),
        ],
        contents in vec(content(), 12),
    ) {
        let root = root(&[]);
        put(&root, "proc/self/cgroup", &membership);
        let names = [
            "memory.max", "memory.high", "memory.current", "memory.events", "memory.stat",
            "a/memory.max", "memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes",
            "memory/memory.usage_in_bytes", "memory/memory.stat", "memory/memory.failcnt",
            "memory/a/memory.limit_in_bytes",
        ];
        for (name, content) in names.iter().zip(&contents) {
            put(&root, &format!("{V2}/{name}"), content);
        }
        let probe = GroupProbe::open(root.path());
        prop_assert_eq!(probe.limits(), cgroup::limits(root.path()).found);
        if let Some(usage) = probe.usage() {
            prop_assert!(usage.unreclaimable_bytes <= usage.used_bytes);
            prop_assert!(usage.working_bytes <= usage.used_bytes);
        }
    }
}
