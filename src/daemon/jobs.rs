//! Jobs: what is to be taken in, what became of it, as rows beside the catalog.
//!
//! A job is a path that somebody submitted or an inbox found. Its row is committed before anybody is
//! told that it was accepted, and again when it has ended, so jobs survive any end of the process. The
//! rule: no path has two jobs that are queued or running, and a job that was running when the process
//! ended is queued again; taking a file in twice is harmless, for its pieces are known then.
//!
//! ```text
//!             submit              begun                    ended
//!   (nothing) ──────> queued ──────────────> running ──────────────> stored, failed
//!                       ^  <── cancel: failed    │ ended: again later    │
//!                       └────────────────────────┴──── recover, retry ───┘
//! ```

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::store::StoreError;
use crate::store::database::Database;

/// The table, which nobody but this file asks.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    path BLOB NOT NULL,
    origin TEXT NOT NULL,
    submitted_ns INTEGER NOT NULL,
    due_ns INTEGER NOT NULL,
    started_ns INTEGER,
    ended_ns INTEGER,
    attempts INTEGER NOT NULL,
    size INTEGER NOT NULL,
    new_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    version INTEGER,
    reason TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS job_queue ON job (priority DESC, id) WHERE state = 0;
CREATE UNIQUE INDEX IF NOT EXISTS job_open ON job (path) WHERE state < 2;
CREATE INDEX IF NOT EXISTS job_state ON job (state);
CREATE INDEX IF NOT EXISTS job_ended ON job (ended_ns) WHERE state >= 2;
";

/// The job of a path that is queued or running.
const OPEN: &str = "SELECT id FROM job WHERE path = ?1 AND state < 2";

const COLUMNS: &str = "id, state, priority, path, origin, submitted_ns, due_ns, started_ns, ended_ns, \
                       attempts, size, new_bytes, stored_bytes, version, reason";

/// Number of a job, never used again.
pub type JobId = i64;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum State {
    /// Waits for its turn, or for the time of its next attempt.
    Queued = 0,
    /// Is being worked on.
    Running = 1,
    /// Its file is stored, or was and has not changed.
    Stored = 2,
    /// It is given up, or was cancelled.
    Failed = 3,
}

/// All states, in the order of their numbers.
pub const STATES: [State; 4] = [State::Queued, State::Running, State::Stored, State::Failed];

impl State {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Stored => "stored",
            State::Failed => "failed",
        }
    }

    /// Of a number that is none of ours, whoever wrote it: given up.
    fn of_number(number: i64) -> State {
        match number {
            0 => State::Queued,
            1 => State::Running,
            2 => State::Stored,
            _ => State::Failed,
        }
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// Where it stands.
    pub state: State,
    /// The greater, the sooner.
    pub priority: i32,
    /// The file.
    pub path: PathBuf,
    /// Who wanted it: an inbox's folder, or `submit`.
    pub origin: String,
    /// When it was accepted, nanoseconds since 1970.
    pub submitted_ns: i64,
    /// It is not tried before this, nanoseconds since 1970.
    pub due_ns: i64,
    /// When the last attempt began, nanoseconds since 1970.
    pub started_ns: Option<i64>,
    /// When it ended, nanoseconds since 1970.
    pub ended_ns: Option<i64>,
    /// Attempts so far, the present one included.
    pub attempts: u32,
    /// What was made of it.
    pub outcome: Outcome,
    /// Why the last attempt failed.
    pub reason: Option<String>,
}

/// The amounts of a job that is stored; zero before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Length of the file in bytes.
    pub size_bytes: u64,
    /// Bytes that were new to the store.
    pub new_bytes: u64,
    /// Bytes they took in the store.
    pub stored_bytes: u64,
    /// The version that it became, or was already.
    pub version: Option<u64>,
}

/// A job to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// The file, as an absolute path.
    pub path: PathBuf,
    /// The greater, the sooner.
    pub priority: i32,
    /// Who wants it.
    pub origin: String,
    /// Not to be tried before this, nanoseconds since 1970.
    pub due_ns: i64,
}

/// What came of submitting a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is queued under this number.
    Queued(JobId),
    /// The path has a job already that is queued or running.
    Already(JobId),
    /// The queue is full.
    Full,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The file is stored.
    Stored(Outcome),
    /// It is given up.
    Failed(String),
    /// Somebody gave it up while it ran.
    Cancelled,
    /// It is tried again, not before `due_ns`.
    Again {
        /// Why it failed this time.
        reason: String,
        /// Nanoseconds since 1970.
        due_ns: i64,
    },
    /// It was stopped for no fault of its own, and is queued as if it had not been tried.
    Stopped,
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An attempt began.
    Begun {
        /// The job.
        id: JobId,
        /// Nanoseconds since 1970.
        at_ns: i64,
    },
    /// It ended.
    Ended {
        /// The job.
        id: JobId,
        /// How.
        end: End,
        /// Nanoseconds since 1970.
        at_ns: i64,
    },
}

/// How many jobs there are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Queued.
    pub queued: u64,
    /// Running.
    pub running: u64,
    /// Stored.
    pub stored: u64,
    /// Failed.
    pub failed: u64,
}

/// Why a job that was cancelled is not stored.
pub const CANCELLED: &str = "cancelled";

/// The jobs of a store.
pub struct Jobs<'a> {
    database: &'a Database,
    given_up: Vec<Job>,
}

impl<'a> Jobs<'a> {
    /// Opens the table, making it if it is not there. What was running is queued again, for whoever ran it
    /// is gone, since only one service uses a store; unless it has been tried `attempts` times: then it
    /// may be what ended them.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written, as in every function here.
    pub fn open(
        database: &'a Database,
        attempts: u32,
        now_ns: i64,
    ) -> Result<Jobs<'a>, StoreError> {
        let given_up = database.change("open the jobs", |change| {
            change.execute_batch(SCHEMA)?;
            let given_up = change
                .prepare(&format!(
                    "UPDATE job SET state = 3, ended_ns = ?2,
                                    reason = 'filed ended while it worked on it, ' || attempts || ' times'
                     WHERE state = 1 AND attempts >= ?1 RETURNING {COLUMNS}"
                ))?
                .query_map(params![attempts, now_ns], read)?
                .collect::<rusqlite::Result<_>>()?;
            change.execute(
                "UPDATE job SET state = 0, started_ns = NULL WHERE state = 1",
                [],
            )?;
            Ok(given_up)
        })?;
        Ok(Jobs { database, given_up })
    }

    /// Jobs that were given up when this was opened.
    pub fn given_up(&self) -> &[Job] {
        &self.given_up
    }

    /// The jobs of a database in which the table has been opened.
    pub fn of(database: &'a Database) -> Jobs<'a> {
        Jobs {
            database,
            given_up: Vec::new(),
        }
    }

    /// Accepts jobs, all in one commit, until so many are queued or running.
    pub fn submit(
        &self,
        jobs: &[NewJob],
        most_open: u64,
        now_ns: i64,
    ) -> Result<Vec<Accepted>, StoreError> {
        self.database.change("submit jobs", |change| {
            let mut open = count(change, "state < 2")?;
            let mut known = change.prepare_cached(OPEN)?;
            let mut insert = change.prepare_cached(
                "INSERT INTO job (state, priority, path, origin, submitted_ns, due_ns, attempts,
                                  size, new_bytes, stored_bytes)
                 VALUES (0, ?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0)",
            )?;
            jobs.iter()
                .map(|job| {
                    let path = job.path.as_os_str().as_bytes();
                    let already = known.query_row([path], |row| row.get(0)).optional()?;
                    if let Some(id) = already {
                        return Ok(Accepted::Already(id));
                    }
                    if open >= most_open {
                        return Ok(Accepted::Full);
                    }
                    insert.execute(params![job.priority, path, job.origin, now_ns, job.due_ns])?;
                    open += 1;
                    Ok(Accepted::Queued(change.last_insert_rowid()))
                })
                .collect()
        })
    }

    /// Whether the path has a job that is queued or running.
    pub fn is_open(&self, path: &Path) -> Result<bool, StoreError> {
        self.database.ask("look for a job", |connection| {
            connection
                .prepare_cached(OPEN)?
                .exists([path.as_os_str().as_bytes()])
        })
    }

    /// Up to `most` queued jobs that are due, in the order of their turns.
    pub fn due(&self, now_ns: i64, most: u32) -> Result<Vec<Job>, StoreError> {
        self.database.ask("look for jobs", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM job WHERE state = 0 AND due_ns <= ?1
                     ORDER BY priority DESC, id LIMIT ?2"
                ))?
                .query_map(params![now_ns, most], read)?
                .collect()
        })
    }

    /// When the first queued job that is not due yet will be, nanoseconds since 1970.
    pub fn next_due_ns(&self, now_ns: i64) -> Result<Option<i64>, StoreError> {
        self.database.ask("look for the next job", |connection| {
            connection
                .prepare_cached("SELECT MIN(due_ns) FROM job WHERE state = 0 AND due_ns > ?1")?
                .query_row([now_ns], |row| row.get(0))
        })
    }

    /// When the queued job that has waited the longest was accepted, nanoseconds since 1970.
    pub fn oldest_ns(&self) -> Result<Option<i64>, StoreError> {
        self.database.ask("look for the oldest job", |connection| {
            connection
                .prepare_cached("SELECT submitted_ns FROM job WHERE state = 0 ORDER BY id LIMIT 1")?
                .query_row([], |row| row.get(0))
                .optional()
        })
    }

    /// Writes down what has happened, in its order, all in one commit.
    pub fn record(&self, events: &[Event]) -> Result<(), StoreError> {
        self.database
            .change("write down what became of jobs", |change| {
                for event in events {
                    match event {
                        Event::Begun { id, at_ns } => {
                            change
                            .prepare_cached(
                                "UPDATE job SET state = 1, started_ns = ?2, attempts = attempts + 1
                                 WHERE id = ?1 AND state = 0",
                            )?
                            .execute(params![id, at_ns])?;
                        }
                        Event::Ended { id, end, at_ns } => record_end(change, *id, end, *at_ns)?,
                    }
                }
                Ok(())
            })
    }

    /// Gives up a job that is still queued; whether it was.
    pub fn cancel(&self, id: JobId, now_ns: i64) -> Result<bool, StoreError> {
        self.database.change("cancel a job", |change| {
            let cancelled = change.execute(
                "UPDATE job SET state = 3, ended_ns = ?2, reason = ?3
                 WHERE id = ?1 AND state = 0",
                params![id, now_ns, CANCELLED],
            )?;
            Ok(cancelled > 0)
        })
    }

    /// Queues a failed job again, or has one that waits for its next attempt wait no longer; it begins with
    /// its first attempt. Whether it was one of these. One whose path has another job by now stays as it
    /// is.
    pub fn retry(&self, id: JobId, now_ns: i64) -> Result<bool, StoreError> {
        self.database.change("retry a job", |change| {
            let retried = change.execute(
                "UPDATE OR IGNORE job SET state = 0, due_ns = ?2, attempts = 0, ended_ns = NULL,
                                          started_ns = NULL
                 WHERE id = ?1 AND (state = 3 OR state = 0 AND due_ns > ?2)",
                params![id, now_ns],
            )?;
            Ok(retried > 0)
        })
    }

    /// One job.
    pub fn get(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.database.ask("look up a job", |connection| {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM job WHERE id = ?1"))?
                .query_row([id], read)
                .optional()
        })
    }

    /// Up to `most` jobs in this state, or in any, with numbers below `before`: the newest first.
    pub fn list(
        &self,
        state: Option<State>,
        before: JobId,
        most: u32,
    ) -> Result<Vec<Job>, StoreError> {
        self.database.ask("list jobs", |connection| {
            let mut listed = connection.prepare_cached(&list_sql(state.is_some()))?;
            match state {
                Some(state) => listed
                    .query_map(params![before, most, state as u8], read)?
                    .collect(),
                None => listed.query_map(params![before, most], read)?.collect(),
            }
        })
    }

    /// How many there are.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        self.database.ask("count jobs", |connection| {
            let mut counts = Counts::default();
            let mut grouped =
                connection.prepare_cached("SELECT state, COUNT(*) FROM job GROUP BY state")?;
            let mut rows = grouped.query([])?;
            while let Some(row) = rows.next()? {
                let number = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
                *match State::of_number(row.get(0)?) {
                    State::Queued => &mut counts.queued,
                    State::Running => &mut counts.running,
                    State::Stored => &mut counts.stored,
                    State::Failed => &mut counts.failed,
                } += number;
            }
            Ok(counts)
        })
    }

    /// Forgets jobs that ended before `before_ns`, and of the others the oldest beyond `most`; how many.
    pub fn prune(&self, before_ns: i64, most: u64) -> Result<u64, StoreError> {
        self.database.change("forget old jobs", |change| {
            let old = change.execute(
                "DELETE FROM job WHERE state >= 2 AND ended_ns < ?1",
                [before_ns],
            )?;
            let beyond = change.execute(
                "DELETE FROM job WHERE id IN (SELECT id FROM job WHERE state >= 2
                                              ORDER BY ended_ns DESC, id DESC LIMIT -1 OFFSET ?1)",
                [i64::try_from(most).unwrap_or(i64::MAX)],
            )?;
            Ok((old + beyond) as u64)
        })
    }
}

fn record_end(change: &Connection, id: JobId, end: &End, now_ns: i64) -> rusqlite::Result<()> {
    match end {
        End::Stored(outcome) => change
            .prepare_cached(
                "UPDATE job SET state = 2, ended_ns = ?2, reason = NULL, size = ?3,
                                new_bytes = ?4, stored_bytes = ?5, version = ?6
                 WHERE id = ?1 AND state = 1",
            )?
            .execute(params![
                id,
                now_ns,
                outcome.size_bytes as i64,
                outcome.new_bytes as i64,
                outcome.stored_bytes as i64,
                outcome.version.map(|version| version as i64)
            ]),
        End::Failed(_) | End::Cancelled => {
            let reason = match end {
                End::Failed(reason) => reason,
                _ => CANCELLED,
            };
            change
                .prepare_cached(
                    "UPDATE job SET state = 3, ended_ns = ?2, reason = ?3
                     WHERE id = ?1 AND state = 1",
                )?
                .execute(params![id, now_ns, reason])
        }
        End::Again { reason, due_ns } => change
            .prepare_cached(
                "UPDATE job SET state = 0, due_ns = ?2, reason = ?3 WHERE id = ?1 AND state = 1",
            )?
            .execute(params![id, due_ns, reason]),
        End::Stopped => change
            .prepare_cached(
                "UPDATE job SET state = 0, started_ns = NULL, attempts = attempts - 1
                 WHERE id = ?1 AND state = 1",
            )?
            .execute([id]),
    }
    .map(drop)
}

fn count(connection: &Connection, condition: &'static str) -> rusqlite::Result<u64> {
    let count: i64 = connection
        .prepare_cached(&format!("SELECT COUNT(*) FROM job WHERE {condition}"))?
        .query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Two questions and not one with `OR`: SQLite plans before it knows the values, and would look at every
/// job for the few that run, with all who ask the database waiting behind that.
fn list_sql(in_state: bool) -> String {
    let in_state = if in_state { "AND state = ?3" } else { "" };
    format!("SELECT {COLUMNS} FROM job WHERE id < ?1 {in_state} ORDER BY id DESC LIMIT ?2")
}

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    let amount = |index| -> rusqlite::Result<u64> {
        Ok(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
    };
    Ok(Job {
        id: row.get(0)?,
        state: State::of_number(row.get(1)?),
        priority: row.get(2)?,
        path: PathBuf::from(OsString::from_vec(row.get(3)?)),
        origin: row.get(4)?,
        submitted_ns: row.get(5)?,
        due_ns: row.get(6)?,
        started_ns: row.get(7)?,
        ended_ns: row.get(8)?,
        attempts: row.get(9)?,
        outcome: Outcome {
            size_bytes: amount(10)?,
            new_bytes: amount(11)?,
            stored_bytes: amount(12)?,
            version: row
                .get::<_, Option<i64>>(13)?
                .and_then(|version| u64::try_from(version).ok()),
        },
        reason: row.get(14)?,
    })
}

/// How long to wait before the next attempt of a job, in nanoseconds: doubled with each, from 5 s to an
/// hour.
pub fn back_off_ns(attempts: u32) -> i64 {
    const FIRST_NS: i64 = 5_000_000_000;
    const LONGEST_NS: i64 = 3_600_000_000_000;
    let doublings = attempts.saturating_sub(1).min(20);
    (FIRST_NS << doublings).min(LONGEST_NS)
}

#[cfg(test)]
mod tests;
