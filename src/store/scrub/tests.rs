use tempfile::TempDir;

use super::*;
use crate::store::format::Chunking;
use crate::store::index::{PackRow, PieceRow};
use crate::store::{PieceId, PiecePlace, Store};

const EVERY: Duration = Duration::from_secs(100);
const EVERY_NS: i64 = 100_000_000_000;

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(&folder.path().join("store"), Chunking::Fixed).unwrap();
    (folder, store)
}

fn piece(number: u32) -> PieceId {
    PieceId::of(&number.to_le_bytes())
}

/// A pack of three pieces in the index, which is all that these tests ask.
fn pack(store: &Store, state: PackState) -> PackId {
    let id = store.database().new_pack(0).unwrap();
    set(store, id, state);
    id
}

fn set(store: &Store, id: PackId, state: PackState) {
    let row = PackRow {
        id,
        state,
        length_bytes: 1000,
        pieces: 3,
    };
    let pieces = [0, 1, 2].map(|ordinal| PieceRow {
        prefix: piece(ordinal).prefix(),
        place: PiecePlace { pack: id, ordinal },
    });
    store.database().commit(&[row], &pieces, &[], 0).unwrap();
}

fn damage(pack: PackId, offset: u64, pieces: Range<u32>) -> Damage {
    Damage {
        pack,
        path: "pack".into(),
        offset,
        what: "flipped".to_owned(),
        pieces,
    }
}

fn next(store: &Store, order: &mut CheckOrder) -> Option<(u64, Option<i64>)> {
    let next = store.database().next_check(order).unwrap()?;
    Some((next.pack.0, next.checked_ns))
}

fn check(store: &Store, pack: u64, found: &[Damage], now_ns: i64) {
    let database = store.database();
    let kept = database.record_check(PackId(pack), found, Depth::Content, now_ns);
    assert!(kept.unwrap());
}

/// The packs at which a piece is looked for.
fn known(store: &Store, number: u32) -> Vec<u64> {
    let places = store.database().candidates(&piece(number)).unwrap();
    places.into_iter().map(|place| place.pack.0).collect()
}

fn drop_tables(store: &Store) {
    let drop = "DROP TABLE checked; DROP TABLE damage; DROP TABLE scrub_pass;";
    let database = store.database();
    database.change("drop", |c| c.execute_batch(drop)).unwrap();
}

#[test]
fn the_newest_goes_first_then_the_longest_unchecked() {
    let (_folder, store) = store();
    let mut order = CheckOrder::default();
    assert_eq!(next(&store, &mut order), None);
    for _ in 0..3 {
        pack(&store, PackState::Sealed);
    }
    assert_eq!(next(&store, &mut order), Some((3, None)));
    check(&store, 3, &[], 10);
    assert_eq!(next(&store, &mut order), Some((2, None)));
    pack(&store, PackState::Sealed);
    assert_eq!(next(&store, &mut order), Some((4, None)));
    for (pack, now_ns) in [(4, 20), (2, 30), (1, 40)] {
        check(&store, pack, &[], now_ns);
    }
    assert_eq!(next(&store, &mut order), Some((3, Some(10))));
    check(&store, 3, &[], 50);
    assert_eq!(next(&store, &mut order), Some((4, Some(20))));
    assert_eq!(
        next(&store, &mut CheckOrder::default()),
        Some((4, Some(20)))
    );
}

#[test]
fn a_pack_is_not_checked_while_it_is_written_and_not_forgotten_afterwards() {
    let (_folder, store) = store();
    let mut order = CheckOrder::default();
    let written = pack(&store, PackState::Open);
    pack(&store, PackState::Sealed);
    pack(&store, PackState::Damaged);
    for (pack, now_ns) in [(3, 10), (2, 20)] {
        assert_eq!(next(&store, &mut order), Some((pack, None)));
        check(&store, pack, &[], now_ns);
    }
    assert_eq!(next(&store, &mut order), Some((3, Some(10))));
    set(&store, written, PackState::Sealed);
    assert_eq!(next(&store, &mut order), Some((1, None)));
}

#[test]
fn packs_are_due_again_after_a_while_and_after_the_clock_was_set_back() {
    let of = |checked_ns| NextCheck {
        pack: PackId(1),
        state: PackState::Sealed,
        length_bytes: 1,
        checked_ns,
    };
    assert!(of(None).is_due(0, EVERY));
    assert!(!of(Some(7)).is_due(7, EVERY));
    assert!(!of(Some(7)).is_due(EVERY_NS + 6, EVERY));
    assert!(of(Some(7)).is_due(EVERY_NS + 7, EVERY));
    assert!(of(Some(7)).is_due(6, EVERY));
    assert_eq!(of(Some(7)).due_ns(Duration::MAX), i64::MAX);
}

#[test]
fn a_postponed_pack_is_passed_over_until_it_is_forgiven() {
    let (_folder, store) = store();
    let mut order = CheckOrder::default();
    for _ in 0..2 {
        pack(&store, PackState::Sealed);
    }
    order.postpone(PackId(2));
    assert_eq!(next(&store, &mut order), Some((1, None)));
    order.postpone(PackId(1));
    assert_eq!(next(&store, &mut order), None);
    assert!(order.forgive());
    assert_eq!(next(&store, &mut order), Some((2, None)));
}

#[test]
fn what_is_damaged_is_not_known_until_it_is_found_whole() {
    let (_folder, store) = store();
    pack(&store, PackState::Sealed);
    pack(&store, PackState::Sealed);
    let database = store.database();
    let found = [
        damage(PackId(2), 64, 0..1),
        damage(PackId(2), 900, 0..0),
        damage(PackId(2), 500, 2..u32::MAX),
    ];
    check(&store, 2, &found, 10);
    assert_eq!(
        [0, 1, 2].map(|n| known(&store, n)),
        [vec![1], vec![2, 1], vec![1]]
    );
    assert_eq!(
        database.damaged_pieces(PackId(2)).unwrap(),
        [0..1, 2..u32::MAX]
    );
    assert_eq!(database.damaged_pieces(PackId(1)).unwrap(), []);
    assert_eq!(database.damage_count().unwrap(), 3);

    // Found again, one place less: it is known since it was found first.
    check(&store, 2, &found[..2], 20);
    let rows = database.damage(10).unwrap();
    assert_eq!(
        rows.iter().map(|row| row.found_ns).collect::<Vec<_>>(),
        [10, 10]
    );
    assert_eq!(known(&store, 2), [2, 1]);

    // A look at the structure sees less, and takes nothing back.
    let seen = [found[1].clone(), found[2].clone()];
    database
        .record_check(PackId(2), &seen, Depth::Structure, 30)
        .unwrap();
    let found_ns: Vec<_> = database
        .damage(10)
        .unwrap()
        .iter()
        .map(|row| row.found_ns)
        .collect();
    assert_eq!(found_ns, [10, 30, 10]);
    database
        .record_check(PackId(2), &[], Depth::Structure, 40)
        .unwrap();
    assert_eq!(database.damage_count().unwrap(), 3);

    database.record_whole(&[PackId(2)], 50).unwrap();
    assert_eq!(database.damage_count().unwrap(), 0);
    assert_eq!([0, 2].map(|n| known(&store, n)), [[2, 1], [2, 1]]);
}

#[test]
fn a_pack_that_was_removed_meanwhile_leaves_nothing_behind() {
    let (_folder, store) = store();
    let id = pack(&store, PackState::Sealed);
    let database = store.database();
    let found = [damage(id, 64, 0..u32::MAX)];
    check(&store, 1, &found, 10);
    database
        .change("remove", |c| c.execute("DELETE FROM pack", []))
        .unwrap();
    assert!(
        !database
            .record_check(id, &found, Depth::Content, 20)
            .unwrap()
    );
    assert_eq!(database.damage_count().unwrap(), 0);
    assert_eq!(next(&store, &mut CheckOrder::default()), None);

    let id = pack(&store, PackState::Sealed);
    database
        .record_check(id, &found, Depth::Content, 30)
        .unwrap();
    database.change("remove", |c| forget(c, id)).unwrap();
    assert_eq!(database.damage_count().unwrap(), 0);
}

#[test]
fn a_pass_is_remembered() {
    let (_folder, store) = store();
    let database = store.database();
    assert_eq!(database.passes().unwrap(), Passes::default());
    database.begin_pass(5).unwrap();
    let begun = Passes {
        began_ns: Some(5),
        last: None,
    };
    assert_eq!(database.passes().unwrap(), begun);
    database.end_pass(5, 9).unwrap();
    database.begin_pass(20).unwrap();
    let second = Passes {
        began_ns: Some(20),
        last: Some((5, 9)),
    };
    assert_eq!(database.passes().unwrap(), second);
    for _ in 0..3 {
        pack(&store, PackState::Sealed);
    }
    check(&store, 1, &[], 10);
    check(&store, 2, &[], 30);
    let bytes = |checked, total| CheckedBytes { checked, total };
    assert_eq!(database.checked_bytes(20).unwrap(), bytes(1000, 3000));
    assert_eq!(database.checked_bytes(0).unwrap(), bytes(2000, 3000));
    pack(&store, PackState::Open);
    store
        .database()
        .next_check(&mut CheckOrder::default())
        .unwrap();
    assert_eq!(database.checked_bytes(0).unwrap(), bytes(2000, 3000));
}

#[test]
fn without_the_tables_nothing_is_damaged_and_the_first_record_makes_them() {
    let (folder, store) = store();
    let id = pack(&store, PackState::Sealed);
    drop_tables(&store);
    drop(store);
    let store = Store::open(&folder.path().join("store")).unwrap();
    let database = store.database();
    assert_eq!(known(&store, 0), [1]);
    assert_eq!(database.damaged_pieces(id).unwrap(), []);
    assert_eq!(database.damage(10).unwrap(), []);
    assert_eq!(database.damage_count().unwrap(), 0);
    assert_eq!(database.passes().unwrap(), Passes::default());
    assert_eq!(database.checked_bytes(0).unwrap(), CheckedBytes::default());
    check(&store, 1, &[damage(id, 64, 0..1)], 10);
    assert_eq!((known(&store, 0), known(&store, 1)), (vec![], vec![1]));

    drop_tables(&store);
    assert_eq!(next(&store, &mut CheckOrder::default()), Some((1, None)));
}
