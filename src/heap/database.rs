//! What SQLite has taken through malloc: its page caches, and what its statements need.
//!
//! It counts that itself, for the whole process.
#![expect(unsafe_code, reason = "a counter of the database's library")]

/// Bytes that SQLite holds at present.
pub fn held_bytes() -> u64 {
    // SAFETY: takes nothing, and SQLite guards its counter itself.
    let held = unsafe { rusqlite::ffi::sqlite3_memory_used() };
    u64::try_from(held).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_open_database_holds_something() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE one (two)").unwrap();
        assert!(super::held_bytes() > 1000);
    }
}
