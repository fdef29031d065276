//! The catalog: names, their versions, and the commit that acknowledges them.

use rusqlite::{OptionalExtension, Row, params};

use super::database::Database;
use super::error::StoreError;
use super::id::{PackId, RecordPlace};
use super::index::{self, PackRow, PieceRow};
use super::manifest::{Metadata, Version};
use super::name::FileName;

/// A version as the catalog lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionRow {
    /// The file's name.
    pub name: FileName,
    /// Number of the version, from 1.
    pub number: u64,
    /// Where the version's record is.
    pub place: RecordPlace,
    /// Length of the content in bytes.
    pub size_bytes: u64,
    /// BLAKE3 digest of the whole content.
    pub digest: [u8; 32],
    /// What of the metadata tells whether the file has changed; `None` if it came from a stream.
    pub identity: Option<Identity>,
    /// When reading began, nanoseconds since 1970.
    pub read_at_ns: i64,
    /// Bytes that were new to the store.
    pub new_bytes: u64,
    /// Bytes they took in the store.
    pub stored_bytes: u64,
}

/// A file is taken as unchanged while these and its size stay the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Last change of content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of content or metadata, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub device: u64,
}

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Identity {
        Identity {
            mtime_ns: metadata.mtime_ns,
            ctime_ns: metadata.ctime_ns,
            inode: metadata.inode,
            device: metadata.device,
        }
    }
}

/// A version to be committed.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Where its record is.
    pub place: RecordPlace,
    /// What the record says, without its runs.
    pub version: Version,
    /// Bytes its new pieces took in the store.
    pub stored_bytes: u64,
    /// Whether it is no version of its own if the newest one was read from the very same file with the same
    /// content.
    pub renews: bool,
}

/// What a version became by its commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Its number.
    pub number: u64,
    /// Whether there is a version more.
    pub is_new: bool,
}

const COLUMNS: &str = "file.name, number, pack, offset, length, size, digest, mtime_ns, ctime_ns, \
                       inode, device, read_at_ns, new_bytes, stored_bytes";

impl Database {
    /// Commits packs, pieces and versions together and says what became of the versions, in order.
    ///
    /// The caller has synced the packs. When this returns, the versions are acknowledged.
    pub fn commit(
        &self,
        packs: &[PackRow],
        pieces: &[PieceRow],
        versions: &[NewVersion],
        now_ns: i64,
    ) -> Result<Vec<Committed>, StoreError> {
        self.change("commit", |change| {
            index::insert(change, packs, pieces, now_ns)?;
            versions
                .iter()
                .map(|version| insert_version(change, version))
                .collect()
        })
    }

    /// The newest version of a file.
    pub fn latest(&self, name: &FileName) -> Result<Option<VersionRow>, StoreError> {
        self.ask("look up a file", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM version JOIN file ON file.id = version.file
                     WHERE file.name = ?1 ORDER BY number DESC LIMIT 1"
                ))?
                .query_row([name.as_bytes()], read_row)
                .optional()
        })
    }

    /// One version of a file.
    pub fn version(&self, name: &FileName, number: u64) -> Result<Option<VersionRow>, StoreError> {
        self.ask("look up a version", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM version JOIN file ON file.id = version.file
                     WHERE file.name = ?1 AND number = ?2"
                ))?
                .query_row(params![name.as_bytes(), number as i64], read_row)
                .optional()
        })
    }

    /// Up to `limit` versions of a file with numbers above `after`, in ascending order.
    pub fn versions_after(
        &self,
        name: &FileName,
        after: u64,
        limit: u32,
    ) -> Result<Vec<VersionRow>, StoreError> {
        self.ask("list versions", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM version JOIN file ON file.id = version.file
                     WHERE file.name = ?1 AND number > ?2 ORDER BY number LIMIT ?3"
                ))?
                .query_map(params![name.as_bytes(), after as i64, limit], read_row)?
                .collect()
        })
    }

    /// Up to `limit` files after the name `after`, in the order of their names' bytes, each with its
    /// newest version and how many versions it has.
    pub fn files_after(
        &self,
        after: Option<&FileName>,
        limit: u32,
    ) -> Result<Vec<(VersionRow, u64)>, StoreError> {
        let after = after.map_or(&[][..], FileName::as_bytes);
        self.ask("list files", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS}, (SELECT count(*) FROM version v WHERE v.file = file.id)
                     FROM file JOIN version ON version.file = file.id
                     AND number = (SELECT max(number) FROM version v WHERE v.file = file.id)
                     WHERE file.name > ?1 ORDER BY file.name LIMIT ?2"
                ))?
                .query_map(params![after, limit], |row| {
                    Ok((read_row(row)?, row.get::<_, i64>(14)? as u64))
                })?
                .collect()
        })
    }
}

fn insert_version(
    change: &rusqlite::Transaction<'_>,
    new: &NewVersion,
) -> rusqlite::Result<Committed> {
    let version = &new.version;
    let name = version.name.as_bytes();
    change
        .prepare_cached("INSERT OR IGNORE INTO file (name) VALUES (?1)")?
        .execute([name])?;
    let file: i64 = change
        .prepare_cached("SELECT id FROM file WHERE name = ?1")?
        .query_row([name], |row| row.get(0))?;
    let newest: i64 = change
        .prepare_cached("SELECT coalesce(max(number), 0) FROM version WHERE file = ?1")?
        .query_row([file], |row| row.get(0))?;
    let identity = version.metadata.map(Identity::from);
    if renew_version(change, file, newest, new, identity)? {
        return Ok(Committed {
            number: newest as u64,
            is_new: false,
        });
    }
    let number = newest + 1;
    change
        .prepare_cached(
            "INSERT INTO version VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            file,
            number,
            new.place.pack.0 as i64,
            new.place.offset as i64,
            new.place.length_bytes,
            version.size_bytes as i64,
            &version.digest[..],
            identity.map(|i| i.mtime_ns),
            identity.map(|i| i.ctime_ns),
            identity.map(|i| i.inode as i64),
            identity.map(|i| i.device as i64),
            version.read_at_ns,
            version.amounts.new_bytes as i64,
            new.stored_bytes as i64,
        ])?;
    Ok(Committed {
        number: number as u64,
        is_new: true,
    })
}

/// Whether the newest version was read from the same file as it still is, with the same content; then it
/// is as if it had been read only now. Its record is the new one, as the old one may be damaged.
///
/// So a file that was stored before anybody could write down that it was, because of a crash, or that was
/// read too soon after it was written to be sure of it later, is not there twice.
fn renew_version(
    change: &rusqlite::Transaction<'_>,
    file: i64,
    newest: i64,
    new: &NewVersion,
    identity: Option<Identity>,
) -> rusqlite::Result<bool> {
    let Some(identity) = identity.filter(|_| new.renews) else {
        return Ok(false);
    };
    let renewed = change
        .prepare_cached(
            "UPDATE version SET pack = ?1, offset = ?2, length = ?3, read_at_ns = ?4
             WHERE file = ?5 AND number = ?6 AND size = ?7 AND digest = ?8
             AND mtime_ns = ?9 AND ctime_ns = ?10 AND inode = ?11 AND device = ?12",
        )?
        .execute(params![
            new.place.pack.0 as i64,
            new.place.offset as i64,
            new.place.length_bytes,
            new.version.read_at_ns,
            file,
            newest,
            new.version.size_bytes as i64,
            &new.version.digest[..],
            identity.mtime_ns,
            identity.ctime_ns,
            identity.inode as i64,
            identity.device as i64,
        ])?;
    Ok(renewed == 1)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<VersionRow> {
    let name = FileName::new(row.get::<_, Vec<u8>>(0)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, error.into())
    })?;
    let identity = match (row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?) {
        (Some(mtime_ns), Some(ctime_ns), Some(inode), Some(device)) => Some(Identity {
            mtime_ns,
            ctime_ns,
            inode: i64::cast_unsigned(inode),
            device: i64::cast_unsigned(device),
        }),
        _ => None,
    };
    Ok(VersionRow {
        name,
        number: row.get::<_, i64>(1)? as u64,
        place: RecordPlace {
            pack: PackId(row.get::<_, i64>(2)? as u64),
            offset: row.get::<_, i64>(3)? as u64,
            length_bytes: row.get(4)?,
        },
        size_bytes: row.get::<_, i64>(5)? as u64,
        digest: row.get(6)?,
        identity,
        read_at_ns: row.get(11)?,
        new_bytes: row.get::<_, i64>(12)? as u64,
        stored_bytes: row.get::<_, i64>(13)? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::format::Chunking;
    use crate::store::manifest::Amounts;

    const METADATA: Metadata = Metadata {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime_ns: 100,
        ctime_ns: 100,
        inode: 7,
        device: 8,
    };

    fn version(metadata: Option<Metadata>, content: &[u8], read_at_ns: i64) -> NewVersion {
        NewVersion {
            place: RecordPlace {
                pack: PackId(1),
                offset: read_at_ns as u64,
                length_bytes: 10,
            },
            version: Version {
                name: FileName::new("name").unwrap(),
                size_bytes: content.len() as u64,
                digest: *blake3::hash(content).as_bytes(),
                metadata,
                read_at_ns,
                amounts: Amounts::default(),
                parts: Vec::new(),
                runs: Vec::new(),
            },
            stored_bytes: 0,
            renews: true,
        }
    }

    #[test]
    fn the_same_file_with_the_same_content_is_one_version() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_or_create(&folder.path().join("store"), Chunking::Fixed).unwrap();
        let commit = |version: NewVersion| {
            let committed = store.database().commit(&[], &[], &[version], 0).unwrap()[0];
            (committed.number, committed.is_new)
        };
        let same = Some(METADATA);
        assert_eq!(commit(version(same, b"a", 101)), (1, true));
        assert_eq!(commit(version(same, b"a", 102)), (1, false));
        let name = FileName::new("name").unwrap();
        let row = store.database().latest(&name).unwrap().unwrap();
        assert_eq!(
            (row.number, row.read_at_ns, row.place.offset),
            (1, 102, 102)
        );

        // What was read within a tick of the clock after a change may be anything.
        assert_eq!(commit(version(same, b"b", 103)), (2, true));
        // Only the newest counts.
        assert_eq!(commit(version(same, b"a", 104)), (3, true));
        let touched = Metadata {
            ctime_ns: 200,
            ..METADATA
        };
        assert_eq!(commit(version(Some(touched), b"a", 201)), (4, true));
        let other = Metadata {
            inode: 9,
            ..touched
        };
        assert_eq!(commit(version(Some(other), b"a", 202)), (5, true));
        // Who asks for it gets a version.
        let mut asked = version(Some(other), b"a", 203);
        asked.renews = false;
        assert_eq!(commit(asked), (6, true));
        // So does whoever sends the same again.
        assert_eq!(commit(version(None, b"a", 204)), (7, true));
        assert_eq!(commit(version(None, b"a", 205)), (8, true));
    }
}
