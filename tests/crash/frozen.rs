//! A store of format version 1, as the first filed wrote it. Every later filed must read it.
//!
//! It is never edited. `tests/data/store-v1/README.md` says what is in it and how it was made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;

use super::content::digest;
use super::filed::Filed;

/// The files in it: name, version, and the digest of the content.
const VERSIONS: [(&str, &str, &str); 4] = [
    (
        "/frozen/text",
        "1",
        "b653ec08e74557030ae253e103949a43b1ca78aa467be7d771019eeef9e6d426",
    ),
    (
        "/frozen/text",
        "2",
        "870bdeb088d149d93b160bc4419835b4ae94935f918b4659280b4916fa034e11",
    ),
    (
        "/frozen/sparse",
        "1",
        "885f8f2e80e366414927f964d5028352ba489d0c0e89c886edf1d57080252a2a",
    ),
    (
        r"/frozen/sm\xe5ll",
        "1",
        "6668479a018a934a61db8fdb0b5d80914133925475ecefe81a2391bd1ffda62e",
    ),
];

/// What is in `/frozen/text`, version 1.
fn text() -> Vec<u8> {
    (1..=8000)
        .map(|n| format!("line {n:06} of a file that is kept for ever\n"))
        .collect::<String>()
        .into_bytes()
}

/// A copy to work with: reading a store takes locks in it.
fn thaw() -> (TempDir, Filed) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    copy(Path::new("tests/data/store-v1/store"), &store);
    (dir, Filed::new(&store))
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::write(to, fs::read(from).unwrap()).unwrap();
    }
}

#[test]
fn it_is_verified_and_listed() {
    let (_dir, filed) = thaw();
    assert_eq!(filed.verify(), 9);
    let listed: Vec<_> = filed
        .succeed(&["list", "--json"])
        .files()
        .iter()
        .map(|file| ["name", "version", "bytes"].map(|key| file[key].to_string()))
        .collect();
    let expected = [
        [r#""/frozen/sm\\xe5ll""#, "1", "6"],
        [r#""/frozen/sparse""#, "1", "3145728"],
        [r#""/frozen/text""#, "2", "352000"],
    ];
    assert_eq!(listed, expected);
}

#[test]
fn every_version_is_given_out_bit_for_bit() {
    let (_dir, filed) = thaw();
    for (name, version, expected) in VERSIONS {
        let arguments = ["restore", name, "--version", version, "--stdout", "--quiet"];
        let ended = filed.succeed(&arguments);
        assert_eq!(digest(&ended.stdout), expected, "{name} version {version}");
        if (name, version) == ("/frozen/text", "1") {
            assert_eq!(ended.stdout, text());
        }
    }
}

#[test]
fn metadata_and_holes_come_back() {
    let (dir, filed) = thaw();
    let restore = |name: &str| {
        let to = dir.path().join("restored");
        let to = to.to_str().unwrap();
        filed.succeed(&["restore", name, "--to", to, "--force", "--quiet"]);
        fs::metadata(to).unwrap()
    };
    let text = restore("/frozen/text");
    assert_eq!(text.permissions().mode() & 0o7777, 0o640);
    assert_eq!((text.mtime(), text.mtime_nsec()), (1_700_000_000, 0));
    let sparse = restore("/frozen/sparse");
    assert_eq!(sparse.len(), 3 << 20);
    // Two blocks of the file system, whatever size it has made them.
    assert!(
        sparse.blocks() * 512 < 1 << 20,
        "{} blocks",
        sparse.blocks()
    );
}

/// The same content must be cut, digested and looked up as it was then, or nothing of an old store
/// would ever be found again.
#[test]
fn what_it_holds_is_found_again() {
    let (dir, filed) = thaw();
    let path = dir.path().join("text");
    fs::write(&path, text()).unwrap();
    let taken = filed.take_in(&[&path]).file(path.to_str().unwrap());
    let expected = (VERSIONS[0].2.into(), 5.into(), 0.into());
    let taken = (&taken["digest"], &taken["pieces"], &taken["new_pieces"]);
    assert_eq!(taken, (&expected.0, &expected.1, &expected.2));
    assert_eq!(filed.verify(), 9);
}
