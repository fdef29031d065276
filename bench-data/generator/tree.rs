//! Many small files in nested folders: what costs a store something for each file, not each byte.
//!
//! Each file is a function of the seed and its number, so none has to be remembered to make an
//! equal one later.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::random::Random;
use super::{Failure, Kind, write_stream};

/// Files in each folder, except in the last one.
const FILES_PER_FOLDER: u64 = 64;

/// Folders in each folder, as long as there are that many.
const FOLDERS: [&str; 8] = [
    "archive", "build", "data", "docs", "images", "logs", "releases", "src",
];

/// One file in this many has the content of another.
const EQUAL_ONE_IN: u64 = 8;

/// One file in this many is empty.
const EMPTY_ONE_IN: u64 = 32;

/// The largest file has 2 to the power of this many bytes: 64 KiB.
const MOST_SIZE_BITS: u64 = 16;

const KINDS: [Kind; 4] = [Kind::Text, Kind::Records, Kind::Binary, Kind::Random];

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) kind: Kind,
    pub(super) seed: u64,
    pub(super) size_bytes: u64,
}

/// Fills `folder` with `count` files.
///
/// # Errors
///
/// When it has something in it already, or a file or folder cannot be made.
pub(crate) fn write(folder: &Path, count: u64, seed: u64) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(Failure::to("create folder", folder))?;
    let first = fs::read_dir(folder)
        .map_err(Failure::to("read folder", folder))?
        .next();
    if first.is_some() {
        return Err(Failure::to("fill", folder)(
            io::ErrorKind::DirectoryNotEmpty.into(),
        ));
    }
    for index in 0..count {
        let content = content(index, seed);
        let path = folder.join(path(index, content.kind));
        if index.is_multiple_of(FILES_PER_FOLDER)
            && let Some(parent) = path.parent()
        {
            fs::create_dir_all(parent).map_err(Failure::to("create folder", parent))?;
        }
        let mut file = File::create_new(&path).map_err(Failure::to("create", &path))?;
        let mut stream = content.kind.stream(content.seed);
        write_stream(stream.as_mut(), content.size_bytes, &mut file)
            .map_err(Failure::to("write", &path))?;
    }
    Ok(())
}

/// What is in file number `index`: often its own, at times that of an earlier one.
pub(super) fn content(index: u64, seed: u64) -> Content {
    let mut random = Random::new(seed.rotate_left(32) ^ index);
    let origin = if index > 0 && random.one_in(EQUAL_ONE_IN) {
        random.below(index)
    } else {
        index
    };
    own_content(origin, seed)
}

fn own_content(index: u64, seed: u64) -> Content {
    let mut random = Random::new(!(seed.rotate_left(32) ^ index));
    let kind = random.pick(&KINDS);
    let content_seed = random.number();
    // Every order of magnitude as often as the others: real files are mostly small.
    let most_bytes = 1 << random.between(0, MOST_SIZE_BITS);
    let size_bytes = if random.one_in(EMPTY_ONE_IN) {
        0
    } else {
        random.between(1, most_bytes)
    };
    Content {
        kind,
        seed: content_seed,
        size_bytes,
    }
}

/// Where file number `index` is, below the folder that is filled.
pub(super) fn path(index: u64, kind: Kind) -> PathBuf {
    let ending = match kind {
        Kind::Text => "log",
        Kind::Records => "csv",
        _ => "bin",
    };
    folder_path(index / FILES_PER_FOLDER).join(format!("{index:08}.{ending}"))
}

/// Folder 0 is the outermost; folder `n` is in folder `(n - 1) / 8`, so depth grows with the
/// logarithm of the number of files.
fn folder_path(mut number: u64) -> PathBuf {
    let mut names = Vec::new();
    while number > 0 {
        let inside = number - 1;
        names.push(FOLDERS[(inside % FOLDERS.len() as u64) as usize]);
        number = inside / FOLDERS.len() as u64;
    }
    names.iter().rev().collect()
}
