//! What is taken in: files made anew from the generator of `bench-data`, the same on every machine.
//!
//! The pages of a file are charged to the group that reads it first. So files are cold before a run:
//! written out to disk, and dropped from the page cache.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

use crate::bench::Scratch;
use crate::generator::{Kind, sparse, tree, write_stream};
use crate::run::Fallible;

/// Digests of files by their absolute paths.
pub(crate) type Digests = BTreeMap<PathBuf, blake3::Hash>;

/// Files in a folder of their own, which goes when this does.
#[derive(Debug)]
pub(crate) struct Inputs {
    folder: Scratch,
    files: Vec<PathBuf>,
    bytes: u64,
}

impl Inputs {
    /// Files of mixed data, by name, size and seed.
    pub(crate) fn mixed(folder: PathBuf, wanted: &[(&str, u64, u64)]) -> Fallible<Inputs> {
        fs::create_dir_all(&folder)?;
        let folder = Scratch(folder);
        for (name, bytes, seed) in wanted {
            write_mixed(&folder.0.join(name), *bytes, *seed)?;
        }
        Inputs::of(folder)
    }

    /// Many small files of all kinds.
    pub(crate) fn small(folder: PathBuf, count: u64) -> Fallible<Inputs> {
        let folder = Scratch(folder);
        tree::write(&folder.0, count, 1)?;
        Inputs::of(folder)
    }

    /// One file of this length, a fifth of it data between holes.
    pub(crate) fn sparse(folder: PathBuf, bytes: u64) -> Fallible<Inputs> {
        fs::create_dir_all(&folder)?;
        let folder = Scratch(folder);
        sparse::write(&mut File::create(folder.0.join("sparse"))?, bytes, 1)?;
        Inputs::of(folder)
    }

    fn of(folder: Scratch) -> Fallible<Inputs> {
        let files = files_below(&folder.0)?;
        let mut bytes = 0;
        for file in &files {
            let file = File::open(file)?;
            file.sync_all()?;
            bytes += file.metadata()?.len();
        }
        let inputs = Inputs {
            folder,
            files,
            bytes,
        };
        inputs.cool()?;
        Ok(inputs)
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// The files, in the order of their names.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes in all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops them from the page cache.
    pub(crate) fn cool(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| cool(file))
    }

    /// What is in them.
    pub(crate) fn digests(&self) -> Fallible<Digests> {
        let digests = self
            .files
            .iter()
            .map(|file| Ok((file.clone(), digest(file)?)));
        let digests = digests.collect::<Fallible<Digests>>()?;
        self.cool()?;
        Ok(digests)
    }
}

/// Writes a file of mixed data out to disk.
pub(crate) fn write_mixed(path: &Path, bytes: u64, seed: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    write_stream(Kind::Mixed.stream(seed).as_mut(), bytes, &mut file)?;
    file.sync_all()
}

/// Drops a file that was written out from the page cache.
pub(crate) fn cool(file: &Path) -> io::Result<()> {
    rustix::fs::fadvise(File::open(file)?, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// What is wrong with a tree that was restored below `folder`, if anything is.
pub(crate) fn difference(folder: &Path, expected: &Digests) -> Fallible<Option<String>> {
    let mut found = Digests::new();
    for file in files_below(folder)? {
        let name = Path::new("/").join(file.strip_prefix(folder)?);
        found.insert(name, digest(&file)?);
    }
    for (name, digest) in expected {
        match found.remove(name) {
            None => return Ok(Some(format!("{} is missing", name.display()))),
            Some(other) if other != *digest => {
                return Ok(Some(format!("{} differs", name.display())));
            }
            Some(_) => {}
        }
    }
    let surplus = found.keys().next();
    Ok(surplus.map(|name| format!("{} should not be there", name.display())))
}

fn digest(file: &Path) -> Fallible<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(file)?, &mut hasher)?;
    Ok(hasher.finalize())
}

fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
