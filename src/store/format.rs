//! The file `format`: what makes a folder a store, written once and never changed.
//!
//! It is text, so that an administrator can read it, and the last line is a checksum of the lines
//! above it, so that damage is told from a newer format. A version or a feature that this filed does
//! not know is refused, never guessed. How files are cut is recorded here because two stores cut
//! differently would find nothing of each other's pieces again.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::disk;
use super::error::{IoContext, StoreError};
use super::id::{StoreId, hex};

/// The newest format version this filed reads, and the one it writes.
pub const VERSION: u32 = 1;

/// Name of the format file in the store's folder.
pub const FILE_NAME: &str = "format";

/// Features of format version 1 that this filed knows. There are none yet: bases and encryption
/// will be the first.
const KNOWN_FEATURES: &[&str] = &[];

const TITLE: &str = "filed store";

/// Larger than any format file that is one.
const MAX_FORMAT_BYTES: u64 = 4096;

/// How files of this store are cut into pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// Content-defined cuts. The name pins the algorithm; see `pipeline::chunker`.
    Content {
        /// Average size of a piece, a power of two.
        average_bytes: u32,
    },
    /// Exactly one piece for each chunk of 1 MiB.
    Fixed,
}

/// The cutting algorithm of [`Chunking::Content`].
const CONTENT_ALGORITHM: &str = "filed-gear-1";

/// What the format file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Random number of this store.
    pub store: StoreId,
    /// How its files are cut.
    pub chunking: Chunking,
}

impl Format {
    /// A new store's format with a random store number.
    pub fn new(chunking: Chunking) -> io::Result<Format> {
        let mut id = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut id)?;
        Ok(Format {
            store: StoreId(id),
            chunking,
        })
    }

    /// Writes the format file; `AlreadyExists` if there is one.
    pub(crate) fn create(&self, root: &Path) -> Result<(), StoreError> {
        disk::write_once(&root.join(FILE_NAME), self.encode().as_bytes())
    }

    /// Reads the format file of the store at `root`.
    pub fn read(root: &Path) -> Result<Format, StoreError> {
        let path = root.join(FILE_NAME);
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(MAX_FORMAT_BYTES).read_to_end(&mut text),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(StoreError::Missing {
                    path: root.to_owned(),
                });
            }
            Err(error) => Err(error),
        }
        .during("read", &path)?;
        Format::decode(&text, &path)
    }

    fn encode(&self) -> String {
        let chunking = match &self.chunking {
            Chunking::Content { average_bytes } => {
                format!("content {CONTENT_ALGORITHM} {average_bytes}")
            }
            Chunking::Fixed => "fixed".to_owned(),
        };
        let body = format!(
            "{TITLE}\nversion {VERSION}\nfeatures\nid {}\nchunking {chunking}\n",
            self.store
        );
        let check = checksum(body.as_bytes());
        format!("{body}check {check}\n")
    }

    fn decode(text: &[u8], path: &Path) -> Result<Format, StoreError> {
        let damaged = |what| StoreError::Damaged {
            path: path.to_owned(),
            offset: 0,
            what,
        };
        let newer = |what: String| StoreError::Newer {
            path: path.to_owned(),
            what,
        };
        let text = std::str::from_utf8(text).map_err(|_| damaged("it is not text"))?;
        let (body, check) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once("\ncheck "))
            .ok_or_else(|| damaged("it has no checksum"))?;
        if checksum(format!("{body}\n").as_bytes()) != check {
            return Err(damaged("its checksum does not match"));
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err(damaged("it is not a store's format file"));
        }
        let mut field = |key: &str| -> Option<&str> {
            let rest = lines.next()?.strip_prefix(key)?;
            Some(rest.strip_prefix(' ').unwrap_or(rest))
        };
        let version = field("version").ok_or_else(|| damaged("it has no version"))?;
        if version.parse() != Ok(VERSION) {
            return Err(newer(format!("format version {version}")));
        }
        let features = field("features").ok_or_else(|| damaged("it has no features"))?;
        if let Some(unknown) = features
            .split_whitespace()
            .find(|feature| !KNOWN_FEATURES.contains(feature))
        {
            return Err(newer(format!("feature {unknown:?}")));
        }
        let store = field("id")
            .and_then(parse_id)
            .ok_or_else(|| damaged("it has no store number"))?;
        let chunking = field("chunking").ok_or_else(|| damaged("it has no chunking"))?;
        let mut words = chunking.split(' ');
        let chunking = match (words.next(), words.next(), words.next()) {
            (Some("fixed"), None, None) => Chunking::Fixed,
            (Some("content"), Some(CONTENT_ALGORITHM), Some(average)) => Chunking::Content {
                average_bytes: average
                    .parse()
                    .map_err(|_| damaged("its piece size is not a number"))?,
            },
            _ => return Err(newer(format!("chunking {chunking:?}"))),
        };
        Ok(Format { store, chunking })
    }
}

fn checksum(bytes: &[u8]) -> String {
    hex(&blake3::hash(bytes).as_bytes()[..8])
}

fn parse_id(text: &str) -> Option<StoreId> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut id = [0; 16];
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(StoreId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(chunking: Chunking) -> Format {
        Format {
            store: StoreId(*b"0123456789abcdef"),
            chunking,
        }
    }

    fn sealed(body: &str) -> String {
        format!("{body}check {}\n", checksum(body.as_bytes()))
    }

    #[test]
    fn what_is_written_reads_back() {
        for chunking in [
            Chunking::Fixed,
            Chunking::Content {
                average_bytes: 65_536,
            },
        ] {
            let format = sample(chunking);
            let read = Format::decode(format.encode().as_bytes(), Path::new("f")).unwrap();
            assert_eq!(read, format);
        }
    }

    #[test]
    fn newer_version_feature_and_chunking_are_refused_as_newer() {
        let body = "filed store\nversion 1\nfeatures\nid 30313233343536373839616263646566\nchunking fixed\n";
        for (from, to) in [
            ("version 1", "version 2"),
            ("features", "features bases"),
            ("fixed", "rolling 7"),
        ] {
            let text = sealed(&body.replace(from, to));
            let outcome = Format::decode(text.as_bytes(), Path::new("f"));
            assert!(matches!(outcome, Err(StoreError::Newer { .. })), "{to}");
        }
    }

    #[test]
    fn any_flipped_byte_is_damage() {
        let text = sample(Chunking::Fixed).encode();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let outcome = Format::decode(&bytes, Path::new("f"));
            assert!(
                matches!(outcome, Err(StoreError::Damaged { .. })),
                "byte {at}"
            );
        }
    }
}
