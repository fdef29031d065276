//! What the next process makes of a pack that was left behind.
//!
//! The packs here hold a frame of two pieces, the version of a file made of them, another frame and
//! another version. What was committed of them is never lost or touched; what was not is kept as far
//! as it is whole.

use std::fs;
use std::sync::Barrier;
use std::thread;

use filed::store::Store;
use filed::store::format::Chunking;
use filed::store::pack::{PACK_HEADER_BYTES, Seal};
use filed::store::recover::{Recovered, recover};
use tempfile::TempDir;

use super::packs::{Dead, NOW_NS, Pack, check, check_clean, fingerprints, has, has_as_seen_by};

fn new_store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(&dir.path().join("store"), Chunking::Fixed).unwrap();
    (dir, store)
}

/// How much of a pack its writer had committed when it died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Committed {
    Nothing,
    FirstTwo,
    All,
}

fn four_records(store: &Store, committed: Committed) -> Pack<'_> {
    let first = Pack::new(store).frame(2).version();
    let first = match committed {
        Committed::FirstTwo => first.commit(),
        _ => first,
    };
    let all = first.frame(1).version();
    match committed {
        Committed::All => all.commit(),
        _ => all,
    }
}

/// The pack's records and pieces, which must be read from its trailer.
fn listed(store: &Store, pack: &Dead) -> (usize, usize) {
    let (list, seal) = store.pack(pack.id).unwrap().list().unwrap();
    assert_eq!(seal, Seal::Sealed, "pack {}", pack.id);
    (list.records().len(), list.pieces().len())
}

/// Packs, each cut at another byte of its last two records, with where it was cut; the last one is
/// whole.
fn cut_everywhere(store: &Store, committed: Committed) -> Vec<(Dead, u64)> {
    let mut packs = Vec::new();
    for behind_first_two in 0.. {
        let pack = four_records(store, committed).die();
        let cut = pack.ends[1] + behind_first_two;
        pack.cut(cut);
        let is_whole = cut == pack.ends[3];
        packs.push((pack, cut));
        if is_whole {
            break;
        }
    }
    packs
}

fn what_is_whole_is_kept(committed: Committed) {
    let (_dir, store) = new_store();
    let packs = cut_everywhere(&store, committed);
    let before: Vec<_> = packs.iter().map(|(pack, _)| pack.bytes()).collect();
    let recovered = recover(&store, NOW_NS).unwrap();
    assert_eq!(recovered.sealed, packs.len() as u64);
    assert_eq!(recovered.damaged, [] as [std::path::PathBuf; 0]);
    let (mut pieces, mut cut_bytes) = (0, 0);
    for ((pack, cut), before) in packs.iter().zip(&before) {
        let whole = pack.ends.iter().filter(|end| *end <= cut).count();
        let expected_pieces = if whole > 2 { 3 } else { 2 };
        assert_eq!(
            listed(&store, pack),
            (whole, expected_pieces),
            "cut at {cut}"
        );
        let kept = pack.ends[whole - 1] as usize;
        assert_eq!(pack.bytes()[..kept], before[..kept], "cut at {cut}");
        for number in 0..3 {
            let expected = (number as usize) < expected_pieces;
            assert_eq!(has(&store, pack.id, number), expected, "cut at {cut}");
        }
        pieces += expected_pieces as u64;
        cut_bytes += cut - pack.ends[whole - 1];
    }
    assert_eq!((recovered.pieces, recovered.cut_bytes), (pieces, cut_bytes));
    assert_eq!(check_clean(&store), pieces);
    assert_eq!(store.database().open_packs().unwrap(), []);

    let after: Vec<_> = packs.iter().map(|(pack, _)| pack.bytes()).collect();
    assert_eq!(recover(&store, NOW_NS).unwrap(), Recovered::default());
    assert!(packs.iter().map(|(pack, _)| pack.bytes()).eq(after));
    assert_eq!(check_clean(&store), pieces);
}

#[test]
fn a_pack_cut_anywhere_keeps_what_is_whole() {
    what_is_whole_is_kept(Committed::Nothing);
}

#[test]
fn a_pack_cut_anywhere_behind_what_is_committed_keeps_what_is_whole() {
    what_is_whole_is_kept(Committed::FirstTwo);
}

/// It was once reported only until the next run had marked it, if the cut was between two records.
#[test]
fn a_pack_shorter_than_committed_is_reported_and_not_touched() {
    let (_dir, store) = new_store();
    let mut packs = cut_everywhere(&store, Committed::All);
    let (whole, _) = packs.pop().unwrap();
    let before: Vec<_> = packs.iter().map(|(pack, _)| pack.bytes()).collect();
    let paths: Vec<_> = packs.iter().map(|(pack, _)| pack.path.clone()).collect();
    for attempt in 0..3 {
        let (found, checked) = check(&store);
        assert_eq!(checked.damaged, packs.len() as u64, "{attempt}: {found:#?}");
        assert!(
            checked.lost_versions >= packs.len() as u64,
            "{attempt}: {found:#?}"
        );
        let recovered = recover(&store, NOW_NS).unwrap();
        let is_first = attempt == 0;
        assert_eq!(recovered.sealed, u64::from(is_first));
        assert_eq!(recovered.damaged, if is_first { &paths[..] } else { &[] });
        for ((pack, cut), before) in packs.iter().zip(&before) {
            assert_eq!(&pack.bytes(), before, "cut at {cut}");
            assert!(has(&store, pack.id, 0) && has(&store, pack.id, 1));
            assert_eq!(
                has(&store, pack.id, 2),
                *cut >= pack.ends[2],
                "cut at {cut}"
            );
        }
    }
    assert_eq!(listed(&store, &whole), (4, 3));
}

#[test]
fn a_pack_that_is_gone_is_reported_and_comes_back_if_the_file_does() {
    let (_dir, store) = new_store();
    let pack = four_records(&store, Committed::All).die();
    let elsewhere = pack.path.with_extension("away");
    fs::rename(&pack.path, &elsewhere).unwrap();
    for _ in 0..2 {
        let recovered = recover(&store, NOW_NS).unwrap();
        assert_eq!(recovered.damaged, [pack.path.as_path()]);
        let (found, checked) = check(&store);
        assert_eq!(
            (checked.damaged, checked.lost_versions),
            (1, 2),
            "{found:#?}"
        );
    }
    fs::rename(&elsewhere, &pack.path).unwrap();
    assert_eq!(recover(&store, NOW_NS).unwrap().sealed, 1);
    check_clean(&store);
}

#[test]
fn a_pack_with_a_live_writer_is_left_alone() {
    let (_dir, store) = new_store();
    let pack = four_records(&store, Committed::FirstTwo);
    let before = fs::read(pack.path()).unwrap();
    assert_eq!(recover(&store, NOW_NS).unwrap(), Recovered::default());
    assert_eq!(fs::read(pack.path()).unwrap(), before);
    let open: Vec<_> = store.database().open_packs().unwrap();
    assert_eq!(open, [(pack.id(), pack.ends[1], NOW_NS)]);
    // It goes on as if nothing had been.
    let pack = pack.frame(3).commit().die();
    assert_eq!(recover(&store, NOW_NS).unwrap().pieces, 6);
    assert_eq!(listed(&store, &pack), (5, 6));
    assert_eq!(check_clean(&store), 6);
}

/// The trailer says that the pack is whole, and a power cut has taken a payload before it. It was once
/// believed, and its pieces were given to files that came later.
#[test]
fn a_sealed_pack_that_was_not_committed_is_checked_before_it_is_believed() {
    let (_dir, store) = new_store();
    let damaged = four_records(&store, Committed::FirstTwo).seal_and_die();
    let sealed = damaged.bytes();
    damaged.flip(damaged.ends[2] - 1);
    let whole = four_records(&store, Committed::FirstTwo).seal_and_die();
    let before = whole.bytes();

    assert_eq!(check_clean(&store), 4);
    let recovered = recover(&store, NOW_NS).unwrap();
    assert_eq!((recovered.sealed, recovered.pieces), (2, 5));
    assert_eq!(recovered.cut_bytes, sealed.len() as u64 - damaged.ends[1]);
    assert_eq!(listed(&store, &damaged), (2, 2));
    assert!(!has(&store, damaged.id, 2));
    assert_eq!(listed(&store, &whole), (4, 3));
    assert_eq!(whole.bytes(), before);
    assert_eq!(check_clean(&store), 5);
}

/// As long as nobody has sealed it, a torn trailer is no more than any other torn record.
#[test]
fn a_torn_trailer_is_no_damage() {
    let (_dir, store) = new_store();
    let pack = four_records(&store, Committed::FirstTwo).seal_and_die();
    pack.flip(pack.ends[3] + 100);
    assert_eq!(check_clean(&store), 2);
    assert_eq!(recover(&store, NOW_NS).unwrap().pieces, 3);
    assert_eq!(listed(&store, &pack), (4, 3));
    assert_eq!(check_clean(&store), 3);
}

#[test]
fn a_tail_of_zeros_is_cut_off() {
    let (_dir, store) = new_store();
    let pack = four_records(&store, Committed::All).die();
    pack.cut(pack.ends[3] + 5000);
    let recovered = recover(&store, NOW_NS).unwrap();
    assert_eq!((recovered.sealed, recovered.cut_bytes), (1, 5000));
    assert_eq!(listed(&store, &pack), (4, 3));
    assert_eq!(check_clean(&store), 3);
}

/// A pack that got its header and no record, though that was committed, was once removed and then
/// missed: `verify` reported damage for ever after.
#[test]
fn a_pack_without_records_leaves_no_trace() {
    let (_dir, store) = new_store();
    let committed = Pack::new(&store).commit().die();
    let sealed = Pack::new(&store).seal_and_die();
    let torn = Pack::new(&store).die();
    torn.cut(PACK_HEADER_BYTES as u64 / 2);
    for _ in 0..2 {
        assert_eq!(recover(&store, NOW_NS).unwrap(), Recovered::default());
        check_clean(&store);
        assert_eq!(store.database().pack_count().unwrap(), 0);
        for pack in [&committed, &sealed, &torn] {
            assert!(!pack.path.exists());
        }
    }
}

/// The lock on a pack without records was once given up before the pack was removed, so that two who
/// recovered at once both removed it, and one of them failed.
#[test]
fn several_recover_at_once() {
    let (_dir, store) = new_store();
    for _ in 0..100 {
        Pack::new(&store).die().cut(0);
        four_records(&store, Committed::FirstTwo).die();
    }
    let at_once = Barrier::new(8);
    let recovered: Vec<Recovered> = thread::scope(|scope| {
        let recover = || {
            let store = Store::open(store.root()).unwrap();
            at_once.wait();
            recover(&store, NOW_NS).unwrap()
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(recover)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(recovered.iter().map(|one| one.sealed).sum::<u64>(), 100);
    assert_eq!(store.database().open_packs().unwrap(), []);
    assert_eq!(check_clean(&store), 300);
}

/// Its writer may just be about to create it.
#[test]
fn a_number_without_a_file_is_forgotten_after_an_hour() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let (_dir, store) = new_store();
    let pack = Pack::new(&store).die();
    fs::remove_file(&pack.path).unwrap();
    for (now_ns, packs) in [(NOW_NS + HOUR_NS, 1), (NOW_NS + HOUR_NS + 1, 0)] {
        assert_eq!(recover(&store, now_ns).unwrap(), Recovered::default());
        assert_eq!(store.database().pack_count().unwrap(), packs);
        check_clean(&store);
    }
}

/// The list of a pack that is still written once gave away pieces that its writer had not committed:
/// a file made of them could be acknowledged before they were durable.
#[test]
fn only_what_is_committed_is_found() {
    let (_dir, store) = new_store();
    let known = fingerprints(&store);
    known.while_serving(|| {
        let asker = known.asker();
        let pack = four_records(&store, Committed::FirstTwo);
        let seen = |number| has_as_seen_by(&asker, pack.id(), number);
        assert_eq!([0, 1, 2].map(seen), [true, true, false]);
        assert_eq!([0, 1, 2].map(seen), [true, true, false]);
        let id = pack.id();
        let _pack = pack.commit();
        let seen = |number| has_as_seen_by(&asker, id, number);
        assert_eq!([0, 1, 2].map(seen), [true, true, true]);
    });
}
