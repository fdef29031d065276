//! What holds for all kinds of data.

use std::collections::HashSet;

use super::edit::{Edit, Edited, Edits};
use super::sparse::Extents;
use super::{BLOCK_BYTES, Kind, Stream, tree, write_stream};

const KINDS: [Kind; 6] = [
    Kind::Text,
    Kind::Records,
    Kind::Binary,
    Kind::Random,
    Kind::Zeros,
    Kind::Mixed,
];

fn made(kind: Kind, size_bytes: usize, seed: u64) -> Vec<u8> {
    written(kind.stream(seed).as_mut(), size_bytes)
}

fn written(stream: &mut dyn Stream, size_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    write_stream(stream, size_bytes as u64, &mut out).unwrap();
    out
}

#[test]
fn sample_log_is_what_its_command_makes() {
    let sample = include_bytes!("../sample.log");
    let made = made(Kind::Text, sample.len(), 1);
    assert!(
        made == sample,
        "text of seed 1 is no longer the bytes of sample.log"
    );
}

/// Numbers in reports were measured on these bytes: make a new kind instead of changing one.
#[test]
fn no_kind_has_changed_its_bytes() {
    let expected = [
        (
            Kind::Text,
            "474b3a81501ee25565113de6cf5882034bf94dea306fdbf183d7e4899b819ad4",
        ),
        (
            Kind::Records,
            "f79675e5b10f87b2818a1e55a074c199fd4a014b69d6b3afc0face6736fe098e",
        ),
        (
            Kind::Binary,
            "ef528ca83788b1ae9f545e927276e194c2acda128125d40b2a1c7ba36bc3f286",
        ),
        (
            Kind::Random,
            "ae26d36b1e875e1657e507b85a463db4623b37bfb310b4b3d2d979c53b5096ab",
        ),
        (
            Kind::Mixed,
            "4d36f7780971a2432d6c15c3ba7140df3c2a3c72909861c085dbcf926960ae8a",
        ),
    ];
    for (kind, digest) in expected {
        let made = blake3::hash(&made(kind, 16 << 20, 1));
        assert_eq!(made.to_hex().as_str(), digest, "{kind:?}");
    }
}

#[test]
fn exactly_the_size_asked_for_is_made() {
    for kind in KINDS {
        for size_bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1] {
            assert_eq!(made(kind, size_bytes, 1).len(), size_bytes, "{kind:?}");
        }
    }
}

#[test]
fn a_larger_file_begins_with_the_smaller_one() {
    for kind in KINDS {
        let small = made(kind, BLOCK_BYTES + 17, 5);
        let large = made(kind, 3 * BLOCK_BYTES, 5);
        assert!(large.starts_with(&small), "{kind:?}");
    }
}

#[test]
fn other_seeds_give_other_data() {
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Zeros) {
        assert_ne!(made(kind, 4096, 1), made(kind, 4096, 2), "{kind:?}");
    }
}

#[test]
fn edited_stream_is_the_base_with_each_edit_applied() {
    const SIZE_BYTES: usize = 100_000;
    for count in [0, 1, 7, 700, (SIZE_BYTES / 128) as u64] {
        let edits: Vec<Edit> = Edits::new(SIZE_BYTES as u64, count, 9).unwrap().collect();
        assert_eq!(edits.len() as u64, count);

        let mut expected = made(Kind::Text, 2 * SIZE_BYTES, 9);
        for edit in edits.iter().rev() {
            let at = edit.at_bytes as usize;
            expected.splice(
                at..at + edit.removed_bytes as usize,
                edit.inserted.iter().copied(),
            );
        }
        expected.truncate(SIZE_BYTES);

        let edits = Edits::new(SIZE_BYTES as u64, count, 9).unwrap();
        let edited = written(&mut Edited::new(Kind::Text.stream(9), edits), SIZE_BYTES);
        assert!(edited == expected, "{count} edits");
    }
}

#[test]
fn edits_of_all_three_sorts_come_in_order_and_do_not_overlap() {
    let edits: Vec<Edit> = Edits::new(1 << 40, 1000, 3).unwrap().collect();
    for pair in edits.windows(2) {
        assert!(
            pair[0].at_bytes + pair[0].removed_bytes <= pair[1].at_bytes,
            "{pair:?}"
        );
    }
    let sorts: HashSet<_> = edits
        .iter()
        .map(|edit| (edit.removed_bytes > 0, edit.inserted.is_empty()))
        .collect();
    assert_eq!(sorts.len(), 3);
}

#[test]
fn more_edits_than_there_is_room_for_are_refused() {
    assert!(Edits::new(1280, 10, 1).is_ok());
    let refused = Edits::new(1280, 11, 1).err().unwrap();
    assert!(refused.to_string().contains("room for 10"), "{refused}");
}

#[test]
fn extents_are_aligned_inside_the_file_and_apart() {
    for size_bytes in [0, 1, 1 << 16, (1 << 20) + 1, 5_000_000_000] {
        let mut end = 0;
        for extent in Extents::new(size_bytes, 4) {
            assert!(extent.start > end, "no hole before {extent:?}");
            assert!(
                extent.start < extent.end && extent.end <= size_bytes,
                "{extent:?}"
            );
            assert_eq!(extent.start % (64 << 10), 0);
            assert!(extent.end % (64 << 10) == 0 || extent.end == size_bytes);
            end = extent.end;
        }
    }
}

#[test]
fn a_file_of_a_mebibyte_already_has_holes_and_data() {
    for seed in 0..50 {
        assert!(Extents::new(1 << 20, seed).count() >= 4, "seed {seed}");
    }
}

#[test]
fn files_of_a_tree_are_small_nested_distinct_and_at_times_equal() {
    const COUNT: u64 = 5000;
    let mut paths = HashSet::new();
    let mut contents = HashSet::new();
    let mut deepest = 0;
    for index in 0..COUNT {
        let content = tree::content(index, 1);
        assert!(content.size_bytes <= 64 << 10);
        let path = tree::path(index, content.kind);
        deepest = deepest.max(path.components().count());
        paths.insert(path);
        contents.insert(content.seed);
    }
    assert_eq!(paths.len() as u64, COUNT);
    assert_eq!(deepest, 4);
    assert!(
        (4200..4600).contains(&contents.len()),
        "{} contents",
        contents.len()
    );
}
