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
}

const COLUMNS: &str = "file.name, number, pack, offset, length, size, digest, mtime_ns, ctime_ns, \
                       inode, device, read_at_ns, new_bytes, stored_bytes";

impl Database {
    /// Commits packs, pieces and versions together and gives the versions' numbers in order.
    ///
    /// The caller has synced the packs. When this returns, the versions are acknowledged.
    pub fn commit(
        &self,
        packs: &[PackRow],
        pieces: &[PieceRow],
        versions: &[NewVersion],
        now_ns: i64,
    ) -> Result<Vec<u64>, StoreError> {
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

fn insert_version(change: &rusqlite::Transaction<'_>, new: &NewVersion) -> rusqlite::Result<u64> {
    let version = &new.version;
    let name = version.name.as_bytes();
    change
        .prepare_cached("INSERT OR IGNORE INTO file (name) VALUES (?1)")?
        .execute([name])?;
    let file: i64 = change
        .prepare_cached("SELECT id FROM file WHERE name = ?1")?
        .query_row([name], |row| row.get(0))?;
    let number: i64 = change
        .prepare_cached("SELECT coalesce(max(number), 0) + 1 FROM version WHERE file = ?1")?
        .query_row([file], |row| row.get(0))?;
    let identity = version.metadata.map(Identity::from);
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
    Ok(number as u64)
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
