//! What filed has promised, and whether the store keeps it.

use std::collections::HashSet;

use filed::heap::Pool;
use filed::pipeline::restore::{self, Output, give_out};
use filed::pipeline::{Progress, Stop};
use filed::store::index::PackState;
use filed::store::lists::PackLists;
use filed::store::{FileName, Store, hex};
use serde_json::Value;

use super::filed::Ended;

/// A version that was reported as stored.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) name: FileName,
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) digest: String,
}

/// All versions that were reported as stored, in the order in which they were.
#[derive(Default)]
pub(crate) struct Acknowledged {
    versions: Vec<Version>,
}

impl Acknowledged {
    /// Adds what a process has reported; its output may end in the middle of a line. Every digest it
    /// told must be what `content` says of that file.
    pub(crate) fn hear(&mut self, ended: &Ended, content: impl Fn(&str) -> String) {
        for line in ended.files() {
            let name = line["name"].as_str().unwrap();
            if line["status"] != "stored" && line["status"] != "unchanged" {
                continue;
            }
            let digest = line["digest"].as_str().unwrap().to_owned();
            assert_eq!(digest, content(name), "{line}");
            if line["status"] == "stored" {
                self.versions.push(Version {
                    name: FileName::new(name.as_bytes()).unwrap(),
                    number: number(&line["version"]),
                    bytes: number(&line["bytes"]),
                    digest,
                });
            }
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.versions.len()
    }

    /// One of them.
    pub(crate) fn version(&self, index: usize) -> &Version {
        &self.versions[index]
    }

    /// Each must be listed as it was reported, and none twice.
    pub(crate) fn check_listed(&self, store: &Store) {
        let mut seen = HashSet::new();
        for version in &self.versions {
            let Version { name, number, .. } = version;
            assert!(seen.insert((name.as_bytes(), number)), "{version:?} twice");
            let row = store.database().version(name, *number).unwrap();
            let row = row.unwrap_or_else(|| panic!("{version:?} is not listed"));
            let listed = (row.size_bytes, hex(&row.digest));
            assert_eq!(listed, (version.bytes, version.digest.clone()), "{name}");
        }
    }

    /// Reads these of them, which must give the bytes whose digest was reported.
    pub(crate) fn check_content(&self, store: &Store, which: impl IntoIterator<Item = usize>) {
        let lists = PackLists::new(store, 4 << 20);
        let pool = Pool::new(restore::buffer_bytes(1));
        for index in which {
            let Version { name, number, .. } = &self.versions[index];
            let row = store.database().version(name, *number).unwrap().unwrap();
            let version = store.version(row.place).unwrap();
            let mut read = blake3::Hasher::new();
            give_out(
                store,
                &lists,
                &version,
                &pool,
                1,
                &Stop::default(),
                &Progress::default(),
                None,
                Output::Stream(&mut read),
            )
            .unwrap_or_else(|error| panic!("{name} version {number}: {error}"));
            let digest = read.finalize().to_hex().to_string();
            assert_eq!(digest, self.versions[index].digest, "{name}");
        }
    }

    /// Each must be listed, and give its bytes.
    pub(crate) fn check_all(&self, store: &Store) {
        self.check_listed(store);
        self.check_content(store, 0..self.count());
    }
}

/// No piece may be in the packs twice. Gives how many there are. No process may be at work.
pub(crate) fn check_pieces_differ(store: &Store) -> u64 {
    let mut seen = HashSet::new();
    let mut after = None;
    while let Some((id, state, length)) = store.database().pack_after(after).unwrap() {
        after = Some(id);
        if state == PackState::Open && length == 0 {
            // A number that was reserved by a process which died before it created the file.
            continue;
        }
        let (list, _) = store.pack(id).unwrap().list().unwrap();
        for (ordinal, piece) in list.pieces().iter().enumerate() {
            assert!(
                seen.insert(piece.id),
                "piece {ordinal} of pack {id} was stored before: {:?}",
                piece.id
            );
        }
    }
    seen.len() as u64
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}
