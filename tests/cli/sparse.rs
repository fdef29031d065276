//! Files with holes: what was never written is neither stored nor written again.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::SeekFrom;

use super::world::{MIB, World, digest, noise, skipped};

/// A file of `length` bytes with this data at these offsets and holes between. Gives its content.
fn sparse_file(path: &Path, length: usize, data: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let file = File::create(path).unwrap();
    file.set_len(length as u64).unwrap();
    let mut content = vec![0; length];
    for (offset, bytes) in data {
        file.write_all_at(bytes, *offset as u64).unwrap();
        content[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    file.sync_all().unwrap();
    content
}

/// Bytes of the file's holes, as the file system says.
fn hole_bytes(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let (mut at, mut holes) = (0, 0);
    while at < length {
        let data = rustix::fs::seek(&file, SeekFrom::Data(at)).unwrap_or(length);
        holes += data - at;
        at = match data {
            data if data >= length => length,
            data => rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap(),
        };
    }
    holes
}

fn disk_bytes(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}

/// Takes a sparse file in and out again, and compares everything there is to compare.
fn holes_come_back(length: usize, data: &[(usize, Vec<u8>)]) {
    let world = World::new();
    let path = world.path("sparse");
    let content = sparse_file(&path, length, data);
    let holes = hole_bytes(&path);
    if holes == 0 {
        return skipped("the file system of the temporary folder has no holes");
    }
    for method in ["content", "fixed"] {
        let (store, out) = (format!("store-{method}"), format!("out-{method}"));
        let args = [
            "process",
            "--json",
            "--chunking",
            method,
            "--store",
            &store,
            "sparse",
        ];
        let outcome = world.run(args).exits(0);
        let line = outcome.file(&world.name("sparse"));
        assert_eq!(line["bytes"], length, "{line}");
        assert_eq!(line["digest"], digest(&content), "{line}");
        assert_eq!(line["chunks"], length.div_ceil(MIB), "{line}");
        // Pieces that happen to be alike are stored once, and so may the zeros in a block beside data.
        let data_bytes = length as u64 - holes;
        assert!(line["new_bytes"].as_u64().unwrap() <= data_bytes, "{line}");
        let shown = world
            .run(["show", "--json", "--store", &store, "sparse"])
            .exits(0);
        assert_eq!(shown.lines()[0]["hole_bytes"], holes, "{shown}");

        world
            .run(["restore", "--store", &store, "sparse", "--to", &out])
            .exits(0);
        let restored = world.path(&out);
        assert!(world.read(&out) == content, "{method}: content differs");
        assert_eq!(hole_bytes(&restored), holes, "{method}");
        // A file system may need a block or two for where the data are.
        assert!(
            disk_bytes(&restored) <= disk_bytes(&path) + 65_536,
            "{method}: {} instead of {} bytes on disk",
            disk_bytes(&restored),
            disk_bytes(&path)
        );
        let given = world
            .run(["restore", "--store", &store, "sparse", "--stdout"])
            .exits(0);
        assert!(given.stdout == content, "{method}: stdout differs");
        world.run(["verify", "--store", &store]).exits(0);
        world.run(["verify", "--store", &store, "sparse"]).exits(0);
    }
}

#[test]
fn a_hole_at_the_start_comes_back() {
    holes_come_back(9 * MIB, &[(8 * MIB, noise("start", MIB))]);
}

#[test]
fn a_hole_in_the_middle_comes_back() {
    let data = [
        (0, noise("first", MIB / 2)),
        (6 * MIB, noise("second", MIB / 2)),
    ];
    holes_come_back(6 * MIB + MIB / 2, &data);
}

#[test]
fn a_hole_at_the_end_comes_back() {
    holes_come_back(9 * MIB + 1, &[(0, noise("end", MIB))]);
}

#[test]
fn a_file_that_is_one_hole_comes_back_and_stores_nothing() {
    let world = World::new();
    let path = world.path("hole");
    let content = sparse_file(&path, 20 * MIB + 5, &[]);
    if hole_bytes(&path) == 0 {
        return skipped("the file system of the temporary folder has no holes");
    }
    let outcome = world.run(["process", "--json", "hole"]).exits(0);
    let line = outcome.file(&world.name("hole"));
    assert_eq!(line["digest"], digest(&content), "{line}");
    assert_eq!(
        (&line["pieces"], &line["stored_bytes"]),
        (&0.into(), &0.into()),
        "{line}"
    );
    let packs: u64 = world
        .packs()
        .iter()
        .map(|pack| pack.metadata().unwrap().len())
        .sum();
    assert!(packs < 4096, "{packs} bytes in packs");
    world.run(["restore", "hole", "--to", "out"]).exits(0);
    assert!(world.read("out") == content);
    assert!(disk_bytes(&world.path("out")) <= 65_536);
    world.run(["verify"]).exits(0);
}

#[test]
fn many_holes_within_and_across_chunks_come_back() {
    let data: Vec<_> = [3, 40, 200, 250, 257, 300, 511, 600, 767, 768, 1000]
        .iter()
        .map(|block| (block * 4096, noise(&block.to_string(), 4096 * 2)))
        .collect();
    holes_come_back(1030 * 4096 + 17, &data);
}

#[test]
fn written_zeros_are_data_and_take_no_more_room_than_a_piece() {
    let world = World::new();
    world.write("zeros", &vec![0; 8 * MIB]);
    let outcome = world.run(["process", "--json", "zeros"]).exits(0);
    let line = outcome.file(&world.name("zeros"));
    assert!(line["stored_bytes"].as_u64().unwrap() < 4096, "{line}");
    assert!(line["new_pieces"].as_u64().unwrap() <= 2, "{line}");
}
