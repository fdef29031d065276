//! The fingerprint cache on the heap: lists found by locality, kept within a limit, evicted whole,
//! and gone when memory is short.

use std::time::Duration;

use filed::heap::Pool;
use filed::pipeline::fingerprints::{Asker, Fingerprints, Pacing, Settings};
use filed::store::{PackId, PieceId, Store};

use super::many_pieces::{piece, store_of};

const PACK_PIECES: u64 = 1000;

pub(crate) fn cache(store: &Store, limit_bytes: u64) -> Fingerprints<'_> {
    let settings = Settings {
        limit_bytes,
        long_pause: Duration::from_secs(1),
    };
    Fingerprints::new(store, settings, Pool::new(0).account("fingerprints"))
}

fn store(pieces: u64) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = store_of(folder.path(), pieces, PACK_PIECES).unwrap();
    (folder, store)
}

/// Asks for pieces as chunks do, 16 at a time; how many were found where they are.
fn find_all(asker: &Asker<'_, '_>, numbers: std::ops::Range<u64>) -> u64 {
    let mut found = 0;
    for first in numbers.clone().step_by(16) {
        let chunk = first..(first + 16).min(numbers.end);
        let ids: Vec<PieceId> = chunk.clone().map(piece).collect();
        for (number, place) in chunk.zip(asker.find(&ids).unwrap()) {
            let Some(place) = place else { continue };
            assert_eq!(u64::from(place.ordinal), number % PACK_PIECES);
            assert_eq!(place.pack, PackId(number / PACK_PIECES + 1));
            found += 1;
        }
    }
    found
}

#[test]
fn a_second_copy_asks_the_index_once_for_a_pack_or_less() {
    let (_folder, store) = store(20_000);
    let known = cache(&store, 4 << 20);
    known.while_serving(|| {
        assert_eq!(find_all(&known.asker(), 0..20_000), 20_000);
        let stats = known.stats();
        assert_eq!(stats.hits + stats.loaded, 20_000);
        // Each pack that is asked for brings the one after it.
        assert_eq!(stats.loaded, 10, "{stats:?}");
        let bytes = known.heap_totals().live_bytes as f64 / 20_000.0;
        assert!(bytes <= 40.0, "{bytes} bytes a piece on the heap");
    });
    assert!(known.heap_totals().live_objects > 20_000 / 31);
}

#[test]
fn what_is_not_in_the_store_is_not_found() {
    let (_folder, store) = store(5_000);
    let known = cache(&store, 4 << 20);
    known.while_serving(|| {
        let asker = known.asker();
        assert_eq!(find_all(&asker, 4_990..5_010), 10);
        assert_eq!(find_all(&asker, 1 << 40..(1 << 40) + 100), 0);
    });
}

#[test]
fn several_threads_are_answered_at_once() {
    let (_folder, store) = store(10_000);
    let known = cache(&store, 4 << 20);
    known.while_serving(|| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let known = &known;
                scope.spawn(move || {
                    let numbers = thread * 2_500..(thread + 1) * 2_500;
                    assert_eq!(find_all(&known.asker(), numbers), 2_500);
                });
            }
        });
    });
}

#[test]
fn lists_are_evicted_whole_to_stay_within_the_limit() {
    let (_folder, store) = store(60_000);
    let limit = 512 << 10;
    let pool = Pool::new(0);
    let settings = Settings {
        limit_bytes: limit,
        long_pause: Duration::from_secs(1),
    };
    let known = Fingerprints::new(&store, settings, pool.account("fingerprints"));
    let noted = || {
        pool.stats()
            .accounts
            .iter()
            .map(|of| of.noted_bytes)
            .sum::<u64>()
    };
    known.while_serving(|| {
        let asker = known.asker();
        for first in (0..60_000).step_by(1000) {
            assert_eq!(find_all(&asker, first..first + 1000), 1000);
            // Slabs come in 64 KiB, and the collector finds an evicted list a little later.
            assert!(noted() <= limit + (256 << 10), "{} at {first}", noted());
        }
        assert!(noted() > limit / 2, "the limit is used: {}", noted());
        // The last packs are there, the first are not.
        let before = known.stats().loaded;
        assert_eq!(find_all(&asker, 59_000..60_000), 1000);
        assert_eq!(known.stats().loaded, before);
        assert_eq!(find_all(&asker, 0..1000), 1000);
        assert!(known.stats().loaded > before);
        assert!(
            known.heap_totals().collected > 0,
            "evicted lists are cycles"
        );
    });
    assert_eq!(noted(), 0, "all is given up at the end");
}

#[test]
fn what_is_used_is_kept() {
    let (_folder, store) = store(60_000);
    let known = cache(&store, 512 << 10);
    known.while_serving(|| {
        let asker = known.asker();
        find_all(&asker, 0..16);
        for first in (2_000..60_000).step_by(1000) {
            find_all(&asker, first..first + 16);
            let before = known.stats().loaded;
            find_all(&asker, 0..16);
            assert_eq!(
                known.stats().loaded,
                before,
                "the first pack is in use, at {first}"
            );
        }
    });
}

#[test]
fn a_cache_that_is_dropped_goes_on_with_one_list() {
    let (_folder, store) = store(20_000);
    let known = cache(&store, 4 << 20);
    known.while_serving(|| {
        let asker = known.asker();
        find_all(&asker, 0..20_000);
        let full = known.heap_totals().live_bytes;
        known.set_limit(0);
        known.collect();
        find_all(&asker, 0..16);
        let dropped = known.heap_totals();
        assert!(dropped.live_bytes < full / 10, "{dropped:?} of {full}");
        assert!(dropped.whole_collections > 0, "said to be at once");
        assert_eq!(find_all(&asker, 0..20_000), 20_000);
        known.set_limit(known.full_limit());
        find_all(&asker, 0..20_000);
        assert!(known.heap_totals().live_bytes >= full, "it grows again");
    });
}

#[test]
fn in_aggressive_pacing_the_young_are_collected_every_ten_chunks() {
    let (_folder, store) = store(1_000);
    let known = cache(&store, 4 << 20);
    known.while_serving(|| {
        let asker = known.asker();
        find_all(&asker, 0..16);
        let before = known.heap_totals().collections[0];
        for _ in 0..100 {
            find_all(&asker, 0..16);
        }
        assert_eq!(known.heap_totals().collections[0], before, "nothing is due");
        known.set_pacing(Pacing::EveryTenChunks);
        for _ in 0..100 {
            find_all(&asker, 0..16);
        }
        assert_eq!(known.heap_totals().collections[0], before + 10);
        known.set_pacing(Pacing::ByAllocation);
        for _ in 0..100 {
            find_all(&asker, 0..16);
        }
        assert_eq!(known.heap_totals().collections[0], before + 10);
    });
}

#[test]
fn asking_without_the_thread_is_an_error_and_no_wait() {
    let (_folder, store) = store(100);
    let known = cache(&store, 4 << 20);
    let error = known.asker().find(&[piece(0)]).unwrap_err();
    assert!(format!("{error}").contains("look up pieces"), "{error}");
}
