use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn memory_flag(bytes: u64) -> Option<ConfiguredLimit> {
    Some(ConfiguredLimit {
        bytes,
        origin: "--memory".to_owned(),
    })
}

fn found(source: LimitSource, bytes: u64) -> FoundLimit {
    FoundLimit {
        source,
        path: PathBuf::from("/sys/fs/cgroup/x"),
        bytes,
    }
}

fn host(available_bytes: u64) -> Option<HostMemory> {
    Some(HostMemory {
        total_bytes: available_bytes * 2,
        available_bytes,
    })
}

#[test]
fn a_small_memory_flag_sets_everything_and_says_so() {
    let wanted = Wanted {
        limit: memory_flag(24 * MIB),
        ..Wanted::default()
    };
    let limits = choose(&wanted, &[], Rlimits::default(), host(64 * GIB));
    assert_eq!(
        limits.why[0],
        "limit 24 MiB (--memory), threshold 16.8 MiB (70 % of the limit), resume 13.4 MiB"
    );
    assert_eq!(limits.source, LimitSource::Configured);
    assert_eq!(limits.thresholds.limit_bytes(), 24 * MIB);
    let threshold = limits.thresholds.threshold_bytes();
    assert_eq!(
        limits.thresholds.critical_bytes(),
        threshold + (24 * MIB - threshold) / 2
    );
}

#[test]
fn the_threshold_stays_as_configured_below_a_wide_limit() {
    let limits = choose(&Wanted::default(), &[], Rlimits::default(), host(10 * GIB));
    assert_eq!(limits.source, LimitSource::HostAvailable);
    assert_eq!(limits.thresholds.threshold_bytes(), GIB);
    assert_eq!(
        limits.thresholds.resume_bytes(),
        GIB / 100 * 80 + GIB % 100 * 80 / 100
    );
    assert_eq!(
        limits.why,
        [
            "limit 8 GiB (80 % of memory available at start 10 GiB), threshold 1 GiB (as configured), resume 819.2 MiB"
        ]
    );
}

#[test]
fn each_source_rules_when_it_is_the_least() {
    let wide = 100 * GIB;
    let rlimits = |data, address_space| Rlimits {
        data_bytes: data,
        address_space_bytes: address_space,
    };
    let wanted = |limit| Wanted {
        limit,
        ..Wanted::default()
    };
    let none = Rlimits::default();
    let cases = [
        (
            wanted(memory_flag(1000 * MIB)),
            vec![],
            none,
            LimitSource::Configured,
            1000,
        ),
        (
            wanted(None),
            vec![found(LimitSource::CgroupHigh, 1000 * MIB)],
            none,
            LimitSource::CgroupHigh,
            1000,
        ),
        (
            wanted(None),
            vec![found(LimitSource::CgroupMax, 1000 * MIB)],
            none,
            LimitSource::CgroupMax,
            900,
        ),
        (
            wanted(None),
            vec![found(LimitSource::CgroupV1, 1000 * MIB)],
            none,
            LimitSource::CgroupV1,
            900,
        ),
        (
            wanted(None),
            vec![],
            rlimits(Some(1000 * MIB), Some(wide)),
            LimitSource::RlimitData,
            900,
        ),
        (
            wanted(None),
            vec![],
            rlimits(None, Some(1000 * MIB)),
            LimitSource::RlimitAddressSpace,
            900,
        ),
    ];
    for (wanted, found, rlimits, source, expected_mib) in cases {
        let limits = choose(&wanted, &found, rlimits, host(wide));
        assert_eq!(limits.source, source);
        assert_eq!(
            limits.thresholds.limit_bytes(),
            expected_mib * MIB,
            "{source}"
        );
        assert_eq!(
            limits.thresholds.threshold_bytes(),
            percent_of(expected_mib * MIB, 70),
            "{source}"
        );
    }
}

#[test]
fn what_does_not_rule_is_still_told() {
    let wanted = Wanted {
        limit: memory_flag(GIB),
        ..Wanted::default()
    };
    let cgroup = [found(LimitSource::CgroupMax, 2000 * MIB)];
    let limits = choose(&wanted, &cgroup, Rlimits::default(), None);
    assert_eq!(
        limits.why[1..],
        ["not ruling: 1.8 GiB (90 % of cgroup memory.max 2 GiB, /sys/fs/cgroup/x)"]
    );
}

#[test]
fn without_any_limit_the_threshold_stands_for_one() {
    let limits = choose(&Wanted::default(), &[], Rlimits::default(), None);
    assert_eq!(limits.source, LimitSource::Threshold);
    assert_eq!(limits.thresholds.threshold_bytes(), GIB);
    assert!(limits.thresholds.limit_bytes() > limits.thresholds.critical_bytes());
}

#[test]
fn resume_that_the_lowered_threshold_overtook_is_replaced_and_told() {
    let wanted = Wanted {
        limit: memory_flag(100 * MIB),
        resume: Resume::Bytes(800 * MIB),
        ..Wanted::default()
    };
    let limits = choose(&wanted, &[], Rlimits::default(), None);
    assert_eq!(limits.thresholds.resume_bytes(), 56 * MIB);
    assert_eq!(
        limits.why[1..],
        ["resume 800 MiB is not between 0 and the threshold, 80 % of it instead"]
    );
}

#[test]
fn a_limit_too_small_to_work_in_is_raised_and_told() {
    let limits = choose(
        &Wanted::default(),
        &[found(LimitSource::CgroupMax, 0)],
        Rlimits::default(),
        None,
    );
    assert_eq!(limits.thresholds.limit_bytes(), MINIMUM_LIMIT_BYTES);
    assert_eq!(
        limits.why[1..],
        ["limit raised from 0 B to the least possible"]
    );
}

proptest! {
    #[test]
    fn any_input_gives_marks_in_order(
        limit in proptest::option::of(any::<u64>()),
        threshold_bytes in any::<u64>(),
        resume in prop_oneof![any::<u8>().prop_map(Resume::Percent), any::<u64>().prop_map(Resume::Bytes)],
        cgroup in proptest::option::of(0..u64::MAX),
        data_bytes in proptest::option::of(any::<u64>()),
        available_bytes in proptest::option::of(any::<u64>()),
        small in prop_oneof![Just(0u32), 0..64u32],
    ) {
        // Shifting finds the small numbers that uniform ones never reach.
        let wanted = Wanted {
            limit: limit.and_then(|bytes| memory_flag(bytes >> small)),
            threshold_bytes: threshold_bytes >> small,
            resume,
        };
        let cgroup: Vec<_> = cgroup.map(|bytes| found(LimitSource::CgroupMax, bytes >> small)).into_iter().collect();
        let rlimits = Rlimits { data_bytes, address_space_bytes: None };
        let host = available_bytes.map(|available_bytes| HostMemory { total_bytes: u64::MAX, available_bytes });
        let limits = choose(&wanted, &cgroup, rlimits, host);
        let marks = limits.thresholds;
        prop_assert!(0 < marks.resume_bytes());
        prop_assert!(marks.resume_bytes() < marks.threshold_bytes());
        prop_assert!(marks.threshold_bytes() < marks.critical_bytes());
        prop_assert!(marks.critical_bytes() <= marks.limit_bytes());
        if let Some(limit) = &wanted.limit {
            prop_assert!(marks.limit_bytes() <= limit.bytes.max(MINIMUM_LIMIT_BYTES));
        }
    }
}
