//! Buffers, their owners, and who is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Instant;

use super::{GRANULE, MIB, granules};
use crate::heap::{Account, Buffer, Noted, Pool, TakeError, Trim};

#[test]
fn buffer_has_the_length_asked_for_and_holds_whole_granules() {
    let pool = Pool::new(64 * MIB as u64);
    let account = pool.account("test");
    for bytes in [1, GRANULE - 1, GRANULE, GRANULE + 1, 4 * MIB, 4 * MIB + 1] {
        let mut buffer = account.take(bytes).unwrap();
        buffer.fill(9);
        assert_eq!(buffer.len(), bytes);
        assert_eq!(pool.stats().held_bytes, granules(bytes));
    }
    assert_eq!(pool.stats().held_bytes, 0);
    assert_eq!(pool.stats().peak_held_bytes, granules(4 * MIB + 1));
}

#[test]
fn empty_buffer_holds_nothing() {
    let pool = Pool::new(0);
    let mut buffer = pool.account("test").take(0).unwrap();
    assert_eq!(&mut *buffer, &mut [] as &mut [u8]);
    let stats = pool.stats();
    assert_eq!((stats.held_bytes, stats.mapped_bytes), (0, 0));
}

#[test]
fn request_larger_than_the_budget_is_refused_and_names_the_owner_and_both_sizes() {
    let pool = Pool::new(MIB as u64 + 1);
    let account = pool.account("reader");
    assert!(account.try_take(MIB).unwrap().is_some());
    for bytes in [MIB + 1, usize::MAX] {
        let err = account.take(bytes).unwrap_err();
        let TakeError::TooLarge {
            account: name,
            bytes: asked,
            budget_bytes,
        } = err
        else {
            panic!("{err:?}");
        };
        assert_eq!(
            (name, asked, budget_bytes),
            ("reader", bytes, MIB as u64 + 1)
        );
        assert!(account.try_take(bytes).is_err());
    }
}

#[test]
fn kernel_refusal_is_an_error_and_holds_nothing() {
    let pool = Pool::new(u64::MAX);
    let account = pool.account("test");
    let err = account.take(1 << 62).unwrap_err();
    assert!(matches!(err, TakeError::Map { bytes, .. } if bytes == 1 << 62));
    let stats = pool.stats();
    assert_eq!((stats.held_bytes, stats.mapped_bytes), (0, 0));
    assert!(account.take(1).is_ok());
}

#[test]
fn request_beyond_a_segment_is_unmapped_when_returned() {
    let pool = Pool::new(16 * MIB as u64);
    let account = pool.account("test");
    let mut buffer = account.take(9 * MIB).unwrap();
    buffer[9 * MIB - 1] = 1;
    assert_eq!(pool.stats().mapped_bytes, 9 * MIB as u64);
    drop(buffer);
    let stats = pool.stats();
    assert_eq!((stats.mapped_bytes, stats.idle_resident_bytes), (0, 0));
    assert_eq!(stats.returned_bytes, 9 * MIB as u64);
}

#[test]
fn accounts_count_by_owner_and_add_up() {
    let pool = Pool::new(64 * MIB as u64);
    let (reader, writer) = (pool.account("reader"), pool.account("writer"));
    let first = reader.take(MIB).unwrap();
    let second = pool.account("reader").take(2 * MIB).unwrap();
    let third = writer.take(5 * MIB).unwrap();
    drop(first);
    let mut noted = writer.note(700);
    noted.set(300);
    let more = writer.note(11);

    let stats = pool.stats();
    let rows: Vec<_> = stats.accounts.iter().collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].name, rows[1].name), ("reader", "writer"));
    assert_eq!(rows[0].held_bytes, 2 * MIB as u64);
    assert_eq!(rows[0].peak_bytes, 3 * MIB as u64);
    assert_eq!(rows[1].held_bytes, 5 * MIB as u64);
    assert_eq!((rows[0].noted_bytes, rows[1].noted_bytes), (0, 311));
    assert_eq!(stats.held_bytes, 7 * MIB as u64);
    assert_eq!(stats.peak_held_bytes, 8 * MIB as u64);

    drop((second, third, noted, more));
    let rows = pool.stats().accounts;
    assert!(
        rows.iter()
            .all(|row| row.held_bytes == 0 && row.noted_bytes == 0)
    );
}

#[test]
fn buffers_of_many_threads_never_overlap_nor_exceed_the_budget() {
    const BUDGET: u64 = 3 * MIB as u64;
    let pool = Pool::new(BUDGET);
    thread::scope(|scope| {
        for id in 1..=8_u8 {
            let account = pool.account(["even", "odd"][id as usize % 2]);
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..60 {
                    let bytes = 1 + (round * 37 + id as usize * 11) % 7 * GRANULE;
                    let mut buffer = account.take(bytes).unwrap();
                    buffer.fill(id);
                    if round % 16 == 0 {
                        pool.trim(Trim::All, Instant::now());
                    }
                    thread::yield_now();
                    assert!(buffer.iter().all(|byte| *byte == id));
                }
            });
        }
    });
    let stats = pool.stats();
    assert!(stats.peak_held_bytes <= BUDGET, "{stats:?}");
    assert_eq!(stats.held_bytes, 0);
}

#[test]
fn handles_can_be_sent_and_shared() {
    fn check<T: Send + Sync>() {}
    check::<Buffer>();
    check::<Pool>();
    check::<Account>();
    check::<Noted>();
}
