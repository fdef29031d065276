//! Waiting: who goes first, and what wakes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc;
use std::thread::{self, Scope};

use super::{GRANULE, MIB};
use crate::heap::{Buffer, Pool, TakeError};

/// Returns once `count` requests stand in line.
fn await_queued(pool: &Pool, count: usize) {
    while pool.stats().queued != count {
        thread::yield_now();
    }
}

/// Starts a thread that takes `bytes` and hands the buffer over, and returns
/// when it stands in line. Nobody may have been served meanwhile.
fn queue_up<'s>(
    scope: &'s Scope<'s, '_>,
    pool: &Pool,
    bytes: usize,
    served: &mpsc::Sender<Buffer>,
) {
    let (account, served) = (pool.account("queue"), served.clone());
    let before = pool.stats();
    scope.spawn(move || served.send(account.take(bytes).unwrap()));
    loop {
        let stats = pool.stats();
        if stats.held_bytes != before.held_bytes {
            // Ends the other waiters, so that the failure can be seen.
            pool.close();
            panic!("served out of turn: {stats:?}");
        }
        if stats.queued == before.queued + 1 {
            return;
        }
        thread::yield_now();
    }
}

#[test]
fn those_who_wait_are_served_in_the_order_they_came() {
    let pool = Pool::new(MIB as u64);
    let held = pool.account("test").take(MIB).unwrap();
    let (sender, served) = mpsc::channel();
    thread::scope(|scope| {
        // Each needs all of the budget, so they can only be served in turn.
        let requests: Vec<_> = (0..6).map(|n| MIB - n * 7 % 6).collect();
        for bytes in &requests {
            queue_up(scope, &pool, *bytes, &sender);
        }
        drop(held);
        for bytes in requests {
            assert_eq!(served.recv().unwrap().len(), bytes);
        }
    });
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.waits), (0, 6));
    assert_eq!(stats.peak_held_bytes, MIB as u64);
}

#[test]
fn small_requests_do_not_pass_a_large_one() {
    let pool = Pool::new(4 * MIB as u64);
    let account = pool.account("test");
    let mut held: Vec<_> = (0..3).map(|_| account.take(MIB).unwrap()).collect();
    let (sender, served) = mpsc::channel();
    thread::scope(|scope| {
        queue_up(scope, &pool, 3 * MIB, &sender);
        queue_up(scope, &pool, MIB, &sender);
        assert!(account.try_take(1).unwrap().is_none());
        // Now there is even more room for the small one, still not for the large.
        pool.set_budget(5 * MIB as u64);
        held.pop();
        let large = served.recv().unwrap();
        assert_eq!(large.len(), 3 * MIB);
        assert_eq!(pool.stats().queued, 1);
        held.pop();
        assert_eq!(served.recv().unwrap().len(), MIB);
    });
    assert!(account.try_take(1).unwrap().is_some());
}

#[test]
fn buffer_dropped_on_another_thread_returns_and_lets_a_waiter_go_on() {
    let pool = Pool::new(MIB as u64);
    let account = pool.account("test");
    let buffer = account.take(MIB).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| account.take(MIB).unwrap().len());
        await_queued(&pool, 1);
        scope.spawn(move || drop(buffer));
        assert_eq!(waiter.join().unwrap(), MIB);
    });
    let stats = pool.stats();
    assert_eq!((stats.held_bytes, stats.queued, stats.waits), (0, 0, 1));
}

#[test]
fn closing_refuses_those_who_wait_and_all_who_come() {
    let pool = Pool::new(MIB as u64);
    let account = pool.account("test");
    let mut buffer = account.take(MIB).unwrap();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| account.take(1))).collect();
        await_queued(&pool, 3);
        pool.close();
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), Err(TakeError::Closed)));
        }
    });
    buffer.fill(1);
    drop(buffer);
    assert!(matches!(account.take(1), Err(TakeError::Closed)));
    assert!(matches!(account.try_take(0), Err(TakeError::Closed)));
    assert_eq!(pool.stats().held_bytes, 0);
}

#[test]
fn raised_budget_lets_all_who_fit_go_on() {
    let pool = Pool::new(MIB as u64);
    let account = pool.account("test");
    let first = account.take(MIB).unwrap();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| account.take(MIB))).collect();
        await_queued(&pool, 3);
        pool.set_budget(4 * MIB as u64);
        let served: Vec<_> = waiters.into_iter().map(|w| w.join().unwrap()).collect();
        assert!(served.iter().all(Result::is_ok));
        assert_eq!(pool.stats().held_bytes, 4 * MIB as u64);
    });
    drop(first);
}

#[test]
fn lowered_budget_revokes_nothing_and_refuses_waiters_it_cannot_serve() {
    let pool = Pool::new(4 * MIB as u64);
    let account = pool.account("test");
    let held = account.take(4 * MIB).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| account.take(2 * MIB));
        await_queued(&pool, 1);
        pool.set_budget(MIB as u64);
        let outcome = waiter.join().unwrap();
        assert!(
            matches!(outcome, Err(TakeError::TooLarge { .. })),
            "{outcome:?}"
        );
    });
    assert_eq!((pool.budget(), held.len()), (MIB as u64, 4 * MIB));
    assert!(account.try_take(GRANULE).unwrap().is_none());
    drop(held);
    assert!(account.try_take(GRANULE).unwrap().is_some());
}
