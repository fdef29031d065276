//! What trims return, and where requests go so that they can.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use super::MIB;
use crate::heap::{Pool, Trim};

#[test]
fn trim_returns_all_that_is_idle_and_nothing_in_use() {
    let pool = Pool::new(64 * MIB as u64);
    let account = pool.account("test");
    let mut buffers: Vec<_> = (0..64).map(|_| account.take(MIB).unwrap()).collect();
    buffers.iter_mut().for_each(|buffer| buffer.fill(1));
    let kept = buffers.remove(10);
    drop(buffers);
    assert_eq!(pool.stats().idle_resident_bytes, 63 * MIB as u64);

    let trimmed = pool.trim(Trim::All, Instant::now());
    assert_eq!(trimmed.returned_bytes, 63 * MIB as u64);
    assert_eq!(trimmed.unmapped_segments, 15);
    assert!(kept.iter().all(|byte| *byte == 1));

    let stats = pool.stats();
    assert_eq!((stats.segments, stats.trims), (1, 1));
    assert_eq!(stats.idle_resident_bytes, 0);
    assert_eq!(stats.returned_bytes, 63 * MIB as u64);
}

#[test]
fn idle_trim_waits_from_the_first_trim_after_the_memory_was_freed() {
    let pool = Pool::new(16 * MIB as u64);
    let account = pool.account("test");
    let start = Instant::now();
    let trim_at = |seconds| {
        let idle = Trim::IdleSince(Duration::from_secs(5));
        let trimmed = pool.trim(idle, start + Duration::from_secs(seconds));
        trimmed.returned_bytes / MIB as u64
    };
    let busy = account.take(4 * MIB).unwrap();
    drop(account.take(2 * MIB).unwrap());
    assert_eq!(trim_at(100), 0, "stamped");
    assert_eq!(trim_at(104), 0, "idle for four seconds");
    drop(busy);
    assert_eq!(trim_at(105), 2, "only the one that was idle");
    assert_eq!(trim_at(109), 0);
    assert_eq!(trim_at(110), 4);
    assert_eq!(pool.stats().mapped_bytes, 0);
}

#[test]
fn memory_used_again_is_not_idle() {
    let pool = Pool::new(16 * MIB as u64);
    let account = pool.account("test");
    let start = Instant::now();
    for second in 0..10 {
        drop(account.take(MIB).unwrap());
        let idle = Trim::IdleSince(Duration::from_secs(2));
        let trimmed = pool.trim(idle, start + Duration::from_secs(second));
        assert_eq!(trimmed.returned_bytes, 0);
    }
    assert_eq!(pool.stats().mapped_bytes, 4 * MIB as u64);
}

#[test]
fn trim_of_an_age_no_clock_reaches_returns_nothing() {
    let pool = Pool::new(MIB as u64);
    drop(pool.account("test").take(MIB).unwrap());
    let trimmed = pool.trim(Trim::IdleSince(Duration::MAX), Instant::now());
    assert_eq!(trimmed.returned_bytes, 0);
    assert_eq!(pool.stats().idle_resident_bytes, MIB as u64);
}

#[test]
fn fullest_segment_is_used_first_so_that_the_other_drains() {
    let pool = Pool::new(8 * MIB as u64);
    let account = pool.account("test");
    let mut buffers: Vec<_> = (0..8).map(|_| account.take(MIB).unwrap()).collect();
    // Three left in the second segment, one in the first; all the rest dirty.
    buffers.remove(7);
    buffers.drain(1..4);
    let next = account.take(MIB).unwrap();
    buffers.remove(0);
    pool.trim(Trim::All, Instant::now());
    assert_eq!(pool.stats().segments, 1);
    drop((buffers, next));
}

#[test]
fn idle_memory_makes_room_before_fresh_memory_is_touched() {
    let pool = Pool::new(8 * MIB as u64);
    let account = pool.account("test");
    let mut buffers: Vec<_> = (0..8).map(|_| account.take(MIB).unwrap()).collect();
    // Idle: the first and third MiB of each segment, so two in a row fit nowhere.
    for index in [6, 4, 2, 0] {
        buffers.remove(index);
    }
    let pair = account.take(2 * MIB).unwrap();
    let stats = pool.stats();
    assert_eq!(stats.segments, 3);
    assert_eq!(stats.held_bytes + stats.idle_resident_bytes, 8 * MIB as u64);
    assert_eq!(stats.returned_bytes, 2 * MIB as u64);
    drop(pair);
}
